//! `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Api;
use crate::platform::health::Report;
use crate::platform::metrics::exposition::Form;

/// Is it alive?
#[utoipa::path(get, operation_id = "isAlive", path = "/livez", tag = "pod", security(()),
    responses((status = 200, description = "It answers", body = String, content_type = "text/plain")))]
pub async fn live() -> &'static str {
    "ok"
}

/// Does it take satellites?
#[utoipa::path(get, operation_id = "isReady", path = "/readyz", tag = "pod", security(()), responses(
    (status = 200, description = "It does", body = Report),
    (status = 503, description = "It does not; the body says why", body = Report),
))]
pub async fn ready(State(api): State<Arc<Api>>) -> Response {
    let report = api.health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report)).into_response()
}

/// Its numbers
///
/// OpenMetrics for clients that accept it, else Prometheus' text format.
#[utoipa::path(get, operation_id = "readMetrics", path = "/metrics", tag = "pod", security(()), responses(
    (status = 200, description = "Prometheus text, or OpenMetrics where it is accepted", content(
        (String = "text/plain"), (String = "application/openmetrics-text"),
    )),
))]
pub async fn metrics(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let form = Form::accepted(accept.unwrap_or_default());
    match api.metrics.encode(form) {
        Ok(text) => ([(header::CONTENT_TYPE, form.content_type())], text).into_response(),
        Err(std::fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
