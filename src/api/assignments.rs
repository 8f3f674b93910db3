//! `/v1/satellites/{id}/assignments`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use super::Api;
use super::parameters::satellite_id;
use super::problem::Problem;
use crate::assignments;

/// The largest body: the largest list, with white space.
pub const MAX_BODY_BYTES: usize = 2 * assignments::MAX_BYTES;

#[derive(Serialize)]
pub struct List {
    /// The change that made it; of two versions the greater is the newer. 0: nothing ever was.
    version: i64,
    assignments: Box<RawValue>,
}

/// `GET /v1/satellites/{id}/assignments`
pub async fn get(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<List>, Problem> {
    let id = satellite_id(path)?;
    let client = api.database.get().await?;
    let found = assignments::get(&client, id).await?;
    let (version, assignments) = found.ok_or_else(|| Problem::no_satellite(&id.to_string()))?;
    Ok(Json(List { version, assignments }))
}

/// `PUT /v1/satellites/{id}/assignments`
pub async fn replace(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<Json<List>, Problem> {
    let id = satellite_id(path)?;
    let Json(sent) = body?;
    let list = assignments::check(sent)?;
    let client = api.database.get().await?;
    let version = assignments::replace(&client, id, &list).await?;
    let version = version.ok_or_else(|| Problem::no_satellite(&id.to_string()))?;
    api.changed.tell();
    tracing::info!(satellite = %id, version, "assignments replaced");
    let assignments = to_raw_value(&list).map_err(anyhow::Error::from)?;
    Ok(Json(List { version, assignments }))
}
