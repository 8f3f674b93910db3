//! Errors as RFC 9457 problems, each with a stable type.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tracing::error;

use crate::database;
use crate::history::NoAnswer;
use crate::satellites::Invalid;

/// What went wrong, for the caller.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    /// The last part of the type's URN; callers branch on it.
    kind: &'static str,
    title: &'static str,
    detail: String,
    /// Which field of the body is wrong, where one is.
    path: Option<String>,
}

impl Problem {
    /// 401.
    pub fn unauthorized(detail: &str) -> Problem {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "Who are you?", detail)
    }

    /// 403.
    pub fn forbidden(detail: &str) -> Problem {
        Problem::new(StatusCode::FORBIDDEN, "forbidden", "Not allowed", detail)
    }

    /// 404, for a satellite.
    pub fn no_satellite(id: &str) -> Problem {
        let detail = format!("There is no satellite {id}.");
        Problem::new(StatusCode::NOT_FOUND, "unknown-satellite", "Unknown satellite", detail)
    }

    /// 404, for a satellite without a single transition.
    pub fn no_history(id: &str) -> Problem {
        let detail = format!("Satellite {id} has never connected: it has no history.");
        Problem::new(StatusCode::NOT_FOUND, "no-history", "No history", detail)
    }

    /// 422, for a field or parameter that breaks its limit.
    pub fn invalid(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", "Invalid request", detail)
    }

    /// 413, for a question or an answer that is larger than what it travels on allows.
    pub fn too_large(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "Too large", detail)
    }

    /// 400, for a body that is not the JSON it should be.
    pub fn not_json(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "not-json", "Not JSON", detail)
    }

    /// The status, which is also the code of an error on NATS.
    pub fn code(&self) -> u16 {
        self.status.as_u16()
    }

    /// The stable type.
    pub fn urn(&self) -> String {
        format!("urn:groundstation:problem:{}", self.kind)
    }

    /// What to do about it.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// 503.
    pub fn unavailable(detail: &str) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not now", detail)
    }

    fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Problem {
        Problem { status, kind, title, detail: detail.into(), path: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": self.urn(),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(path) = self.path {
            body["path"] = path.into();
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<Invalid> for Problem {
    fn from(invalid: Invalid) -> Problem {
        let detail = format!("{invalid}.");
        Problem { path: Some(invalid.field), ..Problem::invalid(detail) }
    }
}

impl From<NoAnswer> for Problem {
    fn from(reason: NoAnswer) -> Problem {
        match reason {
            NoAnswer::Future(_) => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "future",
                "Not past yet",
                format!("{reason}."),
            ),
            NoAnswer::Dropped(_) => {
                Problem::new(StatusCode::GONE, "dropped", "No longer known", format!("{reason}."))
            }
            NoAnswer::Database(error) => error.into(),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Problem {
        let (kind, title) = match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => ("too-large", "Body too large"),
            StatusCode::UNSUPPORTED_MEDIA_TYPE => ("not-json", "Send application/json"),
            StatusCode::BAD_REQUEST => ("not-json", "Not JSON"),
            _ => ("invalid", "Invalid request"),
        };
        Problem::new(rejection.status(), kind, title, rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Problem {
        Problem::invalid(rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", rejection.body_text())
    }
}

/// The database did not do as asked: logged here, told to nobody in detail.
impl From<anyhow::Error> for Problem {
    fn from(error: anyhow::Error) -> Problem {
        error!(error = %format!("{error:#}"), "a request failed");
        Problem::unavailable("The database does not answer; try again.")
    }
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Problem {
        anyhow::anyhow!(database::describe(&error)).into()
    }
}

/// Answers a path that does not exist.
pub async fn no_route() -> Problem {
    let detail = "There is no such route; see the README for those there are.";
    Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
}

/// Answers a method that a path does not know.
pub async fn no_method() -> Problem {
    let detail = "This route does not know this method; the header Allow names those it knows.";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
}
