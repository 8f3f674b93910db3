//! An error as RFC 9457 has it. The door and all routes behind it answer in this form; the only exceptions are what is no
//! HTTP and headers that are too large, which hyper answers by their status alone.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A problem, as RFC 9457 has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemJson {
    /// Stable; callers branch on it.
    #[serde(rename = "type")]
    #[schema(example = "urn:groundstation:problem:unknown-satellite")]
    kind: String,
    /// The same for every problem of this type.
    title: String,
    /// The status of the answer.
    status: u16,
    /// What is wrong this time, and what to do.
    detail: String,
    /// Which field of the body, or which parameter, is wrong, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

impl ProblemJson {
    /// A problem of this kind, which is the last part of its type.
    pub fn new(
        status: StatusCode,
        kind: &str,
        title: &str,
        detail: impl Into<String>,
    ) -> ProblemJson {
        ProblemJson {
            kind: urn(kind),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            path: None,
        }
    }

    /// The same, about this field or parameter.
    pub fn about(self, path: Option<String>) -> ProblemJson {
        ProblemJson { path, ..self }
    }
}

/// The stable type of a kind.
pub fn urn(kind: &str) -> String {
    format!("urn:groundstation:problem:{kind}")
}

impl IntoResponse for ProblemJson {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        let json = HeaderValue::from_static(PROBLEM_JSON);
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// Answers a method that a path does not know.
pub async fn no_method() -> ProblemJson {
    let detail = "This route does not know this method; the header Allow names those it knows.";
    let status = StatusCode::METHOD_NOT_ALLOWED;
    ProblemJson::new(status, "method-not-allowed", "Method not allowed", detail)
}
