//! `/livez`, `/readyz`, `/metrics`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Api;
use crate::health::Report;

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
#[utoipa::path(get, operation_id = "readMetrics", path = "/metrics", tag = "pod", security(()), responses(
    (status = 200, description = "OpenMetrics text",
     body = String, content_type = "application/openmetrics-text"),
))]
pub async fn metrics(State(api): State<Arc<Api>>) -> Response {
    const TEXT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match api.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT)], text).into_response(),
        Err(std::fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
