//! `/v1/transitions` and `/v1/satellites/{id}/transitions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use deadpool_postgres::Object;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::caller::Caller;
use super::paging::Paging;
use super::parameters::{event, limit, satellite_id, time};
use super::problem::Problem;
use crate::contract::wire::TransitionJson;
use crate::domain::access::Selector;
use crate::domain::lifecycle::{Position, SatelliteId};
use crate::log::read::{self, Filter, MAX_LIMIT};

/// How many transitions a page has unless told otherwise.
const DEFAULT_LIMIT: i64 = 100;

/// Which transitions.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TransitionsQuery {
    /// Behind this position; 0 is the beginning
    #[param(minimum = 0)]
    after: Option<i64>,
    /// `asc`, the order of the log (the default), or `desc`, the newest first
    #[param(pattern = "^(asc|desc)$")]
    order: Option<String>,
    /// With `order=desc`: only before this position; without it from the newest on
    #[param(minimum = 1)]
    before: Option<i64>,
    /// How many on a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
    /// Only `connected`, `disconnected`, `heartbeat_lost` or `removed`
    #[param(pattern = "^(connected|disconnected|heartbeat_lost|removed)$")]
    event: Option<String>,
    /// Only of satellites that were in this region
    region: Option<String>,
    /// Recorded at or after this time
    #[param(format = DateTime)]
    since: Option<String>,
    /// Recorded before this time
    #[param(format = DateTime)]
    until: Option<String>,
}

/// A page of the log.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = TransitionPage)]
pub struct Page {
    /// In the order of the log, or, with `order=desc`, the newest first.
    transitions: Vec<TransitionJson>,
    /// What to pass as `after` for the transitions behind these: the newest one's position, or the
    /// `after` asked with where there is none (0 with `order=desc`). It never passes what was not shown.
    next_after: i64,
    /// With `order=desc`, what to pass as `before` for the transitions before these; absent where there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<i64>,
}

/// Read the log
#[utoipa::path(get, operation_id = "readTransitions", path = "/v1/transitions", tag = "transitions", params(TransitionsQuery),
    responses((status = 200, description = "A page of it", body = Page)))]
pub async fn all(
    State(api): State<Arc<Api>>,
    caller: Caller,
    query: Result<Query<TransitionsQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(query) = query?;
    page(&api, caller.selector(), query, None).await.map(Json)
}

/// Read the log of one satellite
///
/// Also of one that was removed; of one that never was it is empty.
#[utoipa::path(get, operation_id = "readTransitionsOfSatellite", path = "/v1/satellites/{id}/transitions", tag = "transitions",
    params(("id" = Uuid, Path, description = "The satellite"), TransitionsQuery),
    responses((status = 200, description = "A page of it", body = Page)))]
pub async fn of_satellite(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<TransitionsQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let id = satellite_id(path)?;
    let Query(query) = query?;
    page(&api, caller.selector(), query, Some(id)).await.map(Json)
}

/// A page of the log, whichever way it is asked for.
pub async fn page(
    api: &Api,
    selector: &Selector,
    query: TransitionsQuery,
    satellite: Option<SatelliteId>,
) -> Result<Page, Problem> {
    let limit = limit(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let paging = Paging::check(query.order.as_deref(), query.after, query.before, limit)?;
    if query.region.as_ref().is_some_and(|region| region.contains('\0')) {
        return Err(Problem::invalid("region must not contain a NUL character."));
    }
    let event = query.event.as_deref().map(event).transpose()?;
    let filter = Filter {
        satellite,
        event,
        region: selector.narrow(query.region),
        since: query.since.as_deref().map(|text| time("since", text)).transpose()?,
        until: query.until.as_deref().map(|text| time("until", text)).transpose()?,
        within: selector.clone(),
    };
    let (after, before) = (Position(paging.after), paging.before.map(Position));
    let read = async |client: &mut Object| match paging.is_newest_first {
        true => read::newest(client, before, limit, &filter).await,
        false => read::filtered(client, after, limit, &filter).await,
    };
    let entries = api.scans.run(read).await?;
    let positions: Vec<i64> = entries.iter().map(|entry| entry.position.0).collect();
    let next = paging.next(&positions);
    Ok(Page {
        next_after: next.after,
        next_before: next.before,
        transitions: entries.iter().map(crate::log::Entry::to_json).collect(),
    })
}
