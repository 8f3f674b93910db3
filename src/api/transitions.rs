//! `/v1/transitions` and `/v1/satellites/{id}/transitions`.

use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use deadpool_postgres::Object;
use serde::{Deserialize, Serialize};
use strum::IntoEnumIterator;
use utoipa::{IntoParams, ToSchema};

use super::Api;
use super::parameters::{limit, satellite_id, time};
use super::problem::Problem;
use crate::contract::wire::TransitionJson;
use crate::domain::lifecycle::{Event, Position, SatelliteId};
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
    /// How many on a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
    /// Only `connected`, `disconnected`, `heartbeat_lost` or `removed`
    #[param(pattern = "^(connected|disconnected|heartbeat_lost|removed)$")]
    event: Option<String>,
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
    /// In the order of the log.
    transitions: Vec<TransitionJson>,
    /// What to pass as `after` for the transitions behind these: the last one's position, or the
    /// `after` asked with where there is none. It never passes what was not shown.
    next_after: i64,
}

/// Read the log
#[utoipa::path(get, operation_id = "readTransitions", path = "/v1/transitions", tag = "transitions", params(TransitionsQuery),
    responses((status = 200, description = "A page of it", body = Page)))]
pub async fn all(
    State(api): State<Arc<Api>>,
    query: Result<Query<TransitionsQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(query) = query?;
    page(&api, query, None).await.map(Json)
}

/// Read the log of one satellite
///
/// Also of one that was removed; of one that never was it is empty.
#[utoipa::path(get, operation_id = "readTransitionsOfSatellite", path = "/v1/satellites/{id}/transitions", tag = "transitions",
    params(("id" = Uuid, Path, description = "The satellite"), TransitionsQuery),
    responses((status = 200, description = "A page of it", body = Page)))]
pub async fn of_satellite(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<TransitionsQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let id = satellite_id(path)?;
    let Query(query) = query?;
    page(&api, query, Some(id)).await.map(Json)
}

/// A page of the log, whichever way it is asked for.
pub async fn page(
    api: &Api,
    query: TransitionsQuery,
    satellite: Option<SatelliteId>,
) -> Result<Page, Problem> {
    let limit = limit(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let after = Position(query.after.unwrap_or(0));
    if after < Position::ZERO {
        return Err(Problem::invalid("after must be a position, 0 or more."));
    }
    let event = query
        .event
        .map(|word| {
            Event::from_str(&word).map_err(|_| {
                let words: Vec<&str> = Event::iter().map(Event::as_str).collect();
                Problem::invalid(format!("event must be one of {}.", words.join(", ")))
            })
        })
        .transpose()?;
    let filter = Filter {
        satellite,
        event,
        since: query.since.as_deref().map(|text| time("since", text)).transpose()?,
        until: query.until.as_deref().map(|text| time("until", text)).transpose()?,
    };
    let read = async |client: &mut Object| read::filtered(client, after, limit, &filter).await;
    let entries = api.scans.run(read).await?;
    Ok(Page {
        next_after: entries.last().map_or(after.0, |entry| entry.position.0),
        transitions: entries.iter().map(crate::log::Entry::to_json).collect(),
    })
}
