//! `/v1/maintenance`: times that were planned, in which a part of the fleet may come and go.
//!
//! A token that reaches a part of the fleet is told of the windows that can be for that part, and plans and ends those
//! that are for no other satellite.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use deadpool_postgres::Object;
use serde::Deserialize;
use tracing::info;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Api;
use super::caller::Caller;
use super::parameters::{limit, satellite_named};
use super::problem::Problem;
use crate::contract::maintenance::{WindowJson, WindowState, WindowsJson};
use crate::domain::access::Selector;
use crate::registry::maintenance::{self, Ended, Filter, MAX_LIMIT, NewWindow, Planned};

/// How many windows a page has unless told otherwise.
const DEFAULT_LIMIT: i64 = 100;

/// Which windows.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct MaintenanceQuery {
    /// `planned`, `open` or `over`
    #[param(pattern = "^(planned|open|over)$")]
    state: Option<String>,
    /// Only those that are for this satellite, by what it is now
    #[param(format = Uuid)]
    satellite: Option<String>,
    /// How many on a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
    /// The `nextCursor` of the page before
    cursor: Option<String>,
}

/// List the maintenance windows
///
/// The one that begins latest first. Those that are over stay, and are told with all of the log that names them.
#[utoipa::path(get, operation_id = "listMaintenance", path = "/v1/maintenance", tag = "maintenance",
    params(MaintenanceQuery),
    responses((status = 200, description = "A page of those that your token is told of", body = WindowsJson)))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    query: Result<Query<MaintenanceQuery>, QueryRejection>,
) -> Result<Json<WindowsJson>, Problem> {
    let Query(query) = query?;
    let limit = limit(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let state = query.state.as_deref().map(WindowState::from_str).transpose();
    let satellite = query.satellite.as_deref().map(satellite_named).transpose()?;
    let filter = Filter {
        state: state.map_err(|_| Problem::invalid("state must be planned, open or over."))?,
        satellite: satellite.map(|satellite| satellite.0),
        reach: caller.selector().clone(),
    };
    let behind = query.cursor.as_deref().map(Uuid::try_parse).transpose();
    let behind =
        behind.map_err(|_| Problem::invalid("cursor must be a nextCursor of an earlier page."))?;
    let list = async |client: &mut Object| maintenance::list(client, &filter, behind, limit).await;
    Ok(Json(api.reads.run(list).await?))
}

/// Plan a maintenance window
///
/// Edges of its satellites are appended and published as ever, and name it: nothing is withheld, nothing comes again at its
/// end. Windows may overlap; an edge names the one that began first. Time in one is counted apart. It begins now at the
/// earliest. At most 100 are planned or open at once.
#[utoipa::path(
    post, operation_id = "planMaintenance",
    path = "/v1/maintenance",
    tag = "maintenance",
    request_body = NewWindow,
    responses(
        (status = 201, description = "It is planned", body = WindowJson),
        (status = 409, description = "There are as many as there may be",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn plan(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: Result<Json<NewWindow>, JsonRejection>,
) -> Result<(StatusCode, Json<WindowJson>), Problem> {
    let Json(new) = body?;
    let new = new.check()?;
    if let Some(selector) = new.selector() {
        inside(&caller, selector)?;
    }
    let (reach, author) = (caller.selector(), caller.author());
    let plan = async |client: &mut Object| maintenance::plan(client, &new, reach, &author).await;
    let window = match api.writes.run(plan).await? {
        Planned::As(window) => *window,
        Planned::Invalid(invalid) => return Err(invalid.into()),
        Planned::NoSatellite(id) => return Err(Problem::no_satellite(&id.to_string())),
        Planned::TooMany => return Err(Problem::too_many_windows()),
    };
    info!(window = %window.id, from = %window.from, to = %window.to, by = %author.actor.id, "maintenance planned");
    Ok((StatusCode::CREATED, Json(window)))
}

/// End a maintenance window now
///
/// What its satellites do from now on is marked no more. One that has not begun never does. One that is over stays as it
/// is.
#[utoipa::path(
    delete, operation_id = "endMaintenance",
    path = "/v1/maintenance/{id}",
    tag = "maintenance",
    params(("id" = Uuid, Path, description = "The window")),
    responses(
        (status = 204, description = "It is over"),
        (status = 403, description = "It is for satellites, too, that your token does not reach",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
        (status = 404, description = "There is no such window, for this token",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn end(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path(text) = path?;
    let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
    let id = Uuid::try_parse(&text).map_err(|_| Problem::no_window(&shown))?;
    let (reach, author) = (caller.selector(), caller.author());
    let end = async |client: &mut Object| maintenance::end(client, id, reach, &author).await;
    match api.writes.run(end).await? {
        Ended::Now => info!(window = %id, by = %author.actor.id, "maintenance ended"),
        Ended::Before => {}
        Ended::Foreign => {
            let detail =
                "The window is for other satellites, too, which your token does not reach.";
            return Err(Problem::forbidden(detail));
        }
        Ended::Unknown => return Err(Problem::no_window(&shown)),
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Refuses a window that would be for satellites outside of the caller's reach.
fn inside(caller: &Caller, selector: &Selector) -> Result<(), Problem> {
    // A region that is not named is any: it is outside of every one.
    let region = selector.region.as_deref().unwrap_or_default();
    let outside = caller.selector().outside(Some(region), Some(&selector.tags));
    outside.map_or(Ok(()), |what| Err(Problem::outside_in("selector.", what)))
}
