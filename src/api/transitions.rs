//! `/v1/transitions` and `/v1/satellites/{id}/transitions`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};

use super::Api;
use super::parameters::{limit, satellite_id, time};
use super::problem::Problem;
use crate::lifecycle::{Event, Position, SatelliteId};
use crate::log::read::{self, Filter, MAX_LIMIT};
use crate::wire::TransitionJson;

/// How many transitions a page has unless told otherwise.
const DEFAULT_LIMIT: i64 = 100;

/// Which transitions.
#[derive(Deserialize)]
pub struct TransitionsQuery {
    after: Option<i64>,
    limit: Option<i64>,
    event: Option<String>,
    since: Option<String>,
    until: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    transitions: Vec<TransitionJson>,
    /// What to pass as `after` for the transitions behind these: the last one's position, or the
    /// `after` asked with where there is none. It never passes what was not shown.
    next_after: i64,
}

/// `GET /v1/transitions`
pub async fn all(
    State(api): State<Arc<Api>>,
    query: Result<Query<TransitionsQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(query) = query?;
    page(&api, query, None).await.map(Json)
}

/// `GET /v1/satellites/{id}/transitions`: also of a satellite that was removed.
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
            Event::parse(&word).ok_or_else(|| {
                let words: Vec<&str> = Event::ALL.map(Event::as_str).to_vec();
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
    let client = api.database.get().await?;
    let entries = read::filtered(&client, after, limit, &filter).await?;
    Ok(Page {
        next_after: entries.last().map_or(after.0, |entry| entry.position.0),
        transitions: entries.iter().map(crate::log::Entry::to_json).collect(),
    })
}
