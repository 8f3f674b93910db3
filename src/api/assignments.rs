//! `/v1/satellites/{id}/assignments`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use deadpool_postgres::Object;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use utoipa::ToSchema;

use super::Api;
use super::caller::Caller;
use super::conditions::{self, Tag, tag};
use super::parameters::satellite_id;
use super::problem::Problem;
use crate::contract::assignments::{Assignment, EffectiveAssignments};
use crate::registry::assignments::{self, Replaced};
use crate::registry::in_force;

/// The largest body: the largest list, with white space.
pub const MAX_BODY_BYTES: usize = 2 * assignments::MAX_BYTES;

/// The list of what a satellite checks.
#[derive(Serialize, ToSchema)]
#[schema(as = AssignmentList)]
pub struct List {
    /// The change that made the list; of two versions the greater is the newer. 0: nothing was ever assigned.
    version: i64,
    /// The whole list.
    #[schema(value_type = Vec<Assignment>)]
    assignments: Box<RawValue>,
}

/// A list that replaces another.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewAssignmentList)]
pub struct NewList {
    /// The whole list: what is missing from it is no longer assigned. At most 500 assignments, and 512 KiB.
    #[schema(max_items = 500)]
    #[expect(
        dead_code,
        reason = "a shape for the API's description; `assignments::check` decides"
    )]
    assignments: Vec<Assignment>,
}

/// Show a satellite's own assignments
///
/// Sets may add to them: `/effective` has all that it is to check.
#[utoipa::path(
    get, operation_id = "showAssignments",
    path = "/v1/satellites/{id}/assignments",
    tag = "assignments",
    params(("id" = Uuid, Path, description = "The satellite")),
    responses((status = 200, description = "Its own list", body = List, headers(
        ("ETag" = String, description = "Its version"),
    )))
)]
pub async fn get(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<(Tag, Json<List>), Problem> {
    let id = satellite_id(path)?;
    let found = api.reads.run(async |client| assignments::get(client, id).await).await?;
    let (version, assignments) = found.ok_or_else(|| Problem::no_satellite(&id.to_string()))?;
    Ok((tag(version), Json(List { version, assignments })))
}

/// Show all that a satellite is to check
///
/// Its own assignments, and those of the sets that are for it, each with where it comes from; and which version of this
/// list it was sent.
#[utoipa::path(
    get, operation_id = "showEffectiveAssignments",
    path = "/v1/satellites/{id}/assignments/effective",
    tag = "assignments",
    params(("id" = Uuid, Path, description = "The satellite")),
    responses((status = 200, description = "The list in force", body = EffectiveAssignments))
)]
pub async fn show_effective(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<EffectiveAssignments>, Problem> {
    let id = satellite_id(path)?;
    let found = api.reads.run(async |client| in_force::show(client, id).await).await?;
    found.map(Json).ok_or_else(|| Problem::no_satellite(&id.to_string()))
}

/// Replace a satellite's own assignments
///
/// The whole list at once, which wins over sets where both have the same pair of config and system; its live session hears of it within a second. With If-Match only if nobody
/// has replaced it since.
#[utoipa::path(
    put, operation_id = "replaceAssignments",
    path = "/v1/satellites/{id}/assignments",
    tag = "assignments",
    params(
        ("id" = Uuid, Path, description = "The satellite"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the list you have read"),
    ),
    request_body = NewList,
    responses(
        (status = 200, description = "Its own list", body = List, headers(
            ("ETag" = String, description = "Its version"),
        )),
        (status = 412, description = "Somebody else has replaced it meanwhile",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn replace(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Json<Value>, JsonRejection>,
) -> Result<(Tag, Json<List>), Problem> {
    let id = satellite_id(path)?;
    let Json(sent) = body?;
    let list = assignments::check(sent)?;
    let precondition = conditions::precondition(&headers)?;
    let by = caller.authority();
    let replace = async |client: &mut Object| {
        assignments::replace(client, id, &list, precondition.as_ref(), &by).await
    };
    let version = match api.writes.run(replace).await? {
        Replaced::By(version) => version,
        Replaced::Unknown => return Err(Problem::no_satellite(&id.to_string())),
        Replaced::Unexpected => return Err(Problem::changed_meanwhile()),
        Replaced::Invalid(invalid) => return Err(invalid.into()),
    };
    api.changed.tell();
    tracing::info!(satellite = %id, version, "assignments replaced");
    let assignments = to_raw_value(&list).map_err(anyhow::Error::from)?;
    Ok((tag(version), Json(List { version, assignments })))
}
