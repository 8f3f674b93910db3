//! `/v1/triggers`.

use axum::Json;

use crate::contract::triggers::{CATALOGUE, Catalogue};

/// List the triggers
///
/// What automations can subscribe to on NATS, with the JSON Schema of each body.
#[utoipa::path(get, operation_id = "listTriggers", path = "/v1/triggers", tag = "transitions", responses(
    (status = 200, description = "All of them", body = serde_json::Value),
))]
pub async fn list() -> Json<&'static Catalogue> {
    Json(&CATALOGUE)
}
