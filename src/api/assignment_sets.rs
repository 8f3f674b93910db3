//! `/v1/assignment-sets`: assignments for all satellites of a region, or with some tags.
//!
//! A token that reaches a part of the fleet sees and changes the sets that are for that part or less: of any other set it
//! hears only what its own satellites are to check.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use deadpool_postgres::Object;
use serde::Serialize;
use serde_json::Value;
use tracing::info;
use utoipa::ToSchema;

use super::Api;
use super::caller::Caller;
use super::conditions::{self, Tag, tag};
use super::problem::Problem;
use crate::contract::assignments::AssignmentSetJson;
use crate::domain::access::Selector;
use crate::registry::assignment_sets::{self, Deleted, NewSet, NewSetShape, Put};

/// All sets.
#[derive(Serialize, ToSchema)]
#[schema(as = AssignmentSetList)]
pub struct List {
    /// By name, without their assignments.
    #[schema(max_items = 100)]
    sets: Vec<AssignmentSetJson>,
}

/// List the sets of assignments
///
/// Without what is in them: each says how many assignments it has.
#[utoipa::path(get, operation_id = "listAssignmentSets", path = "/v1/assignment-sets", tag = "assignments", responses(
    (status = 200, description = "Those that your token reaches", body = List),
))]
pub async fn list(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<List>, Problem> {
    let list = async |client: &mut Object| assignment_sets::list(client, caller.selector()).await;
    Ok(Json(List { sets: api.reads.run(list).await? }))
}

/// Show a set of assignments
#[utoipa::path(
    get, operation_id = "showAssignmentSet",
    path = "/v1/assignment-sets/{name}",
    tag = "assignments",
    params(("name" = String, Path, description = "The set")),
    responses(
        (status = 200, description = "The set", body = AssignmentSetJson, headers(
            ("ETag" = String, description = "Its version"),
        )),
        (status = 404, description = "There is no such set, for this token",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<(Tag, Json<AssignmentSetJson>), Problem> {
    let Path(name) = path?;
    let get =
        async |client: &mut Object| assignment_sets::get(client, &name, caller.selector()).await;
    let set = api.reads.run(get).await?.ok_or_else(|| Problem::no_assignment_set(&name))?;
    Ok((tag(set.version), Json(set)))
}

/// Make a set of assignments, or replace it
///
/// The whole set at once. The sessions of all satellites that it is for, or was for, hear of it as of lists of their own.
/// A satellite's own assignments come first, then those of sets, the greatest priority first; of each pair of config and
/// system the first counts. One that is the same already changes nothing. With If-Match only if nobody has replaced it
/// since; `"0"` makes one that is not there.
#[utoipa::path(
    put, operation_id = "replaceAssignmentSet",
    path = "/v1/assignment-sets/{name}",
    tag = "assignments",
    params(
        ("name" = String, Path, description = "1 to 100 lower-case letters, digits, hyphens, underscores and dots"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the set you have read"),
    ),
    request_body = NewSetShape,
    responses(
        (status = 200, description = "The set", body = AssignmentSetJson, headers(
            ("ETag" = String, description = "Its version"),
        )),
        (status = 409, description = "Another set is called so, which your token does not reach",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
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
) -> Result<(Tag, Json<AssignmentSetJson>), Problem> {
    let Path(name) = path?;
    let Json(sent) = body?;
    let new = NewSet::check(&name, sent)?;
    inside(&caller, new.selector())?;
    let precondition = conditions::precondition(&headers)?;
    let (reach, author) = (caller.selector(), caller.author());
    let put = async |client: &mut Object| {
        assignment_sets::put(client, &new, precondition.as_ref(), reach, &author).await
    };
    let set = match api.writes.run(put).await? {
        Put::As(set) => *set,
        Put::Invalid(invalid) => return Err(invalid.into()),
        Put::NameOfAnother => return Err(Problem::set_name_taken()),
        Put::Unexpected => return Err(Problem::changed_meanwhile()),
    };
    api.changed.tell();
    info!(set = name, version = set.version, by = %author.actor.id, "assignment set replaced");
    Ok((tag(set.version), Json(set)))
}

/// Delete a set of assignments
///
/// The satellites that it was for hear of what is left. With If-Match only if nobody has replaced it since.
#[utoipa::path(
    delete, operation_id = "deleteAssignmentSet",
    path = "/v1/assignment-sets/{name}",
    tag = "assignments",
    params(
        ("name" = String, Path, description = "The set"),
        ("If-Match" = Option<String>, Header, description = "The ETag of the set you have read"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "There is no such set, for this token",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
        (status = 412, description = "Somebody else has replaced it meanwhile",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn remove(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let Path(name) = path?;
    let precondition = conditions::precondition(&headers)?;
    let (reach, author) = (caller.selector(), caller.author());
    let delete = async |client: &mut Object| {
        assignment_sets::delete(client, &name, precondition.as_ref(), reach, &author).await
    };
    let version = match api.writes.run(delete).await? {
        Deleted::At(version) => version,
        Deleted::Unknown => return Err(Problem::no_assignment_set(&name)),
        Deleted::Unexpected => return Err(Problem::changed_meanwhile()),
    };
    api.changed.tell();
    info!(set = name, version, by = %author.actor.id, "assignment set deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses a set that would be for satellites outside of the caller's reach.
fn inside(caller: &Caller, selector: &Selector) -> Result<(), Problem> {
    // A region that is not named is any: it is outside of every one.
    let region = selector.region.as_deref().unwrap_or_default();
    let outside = caller.selector().outside(Some(region), Some(&selector.tags));
    outside.map_or(Ok(()), |what| Err(Problem::outside_in("selector.", what)))
}
