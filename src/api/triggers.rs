//! `/v1/triggers`.

use axum::Json;

use crate::triggers::{CATALOGUE, Catalogue};

/// `GET /v1/triggers`
pub async fn list() -> Json<&'static Catalogue> {
    Json(&CATALOGUE)
}
