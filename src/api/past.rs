//! The fleet as it was (`GET /v1/satellites?at=` and `?position=`), and
//! `GET /v1/satellites/{id}/stats`.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use uuid::Uuid;

use super::Api;
use super::problem::Problem;
use super::satellites::{ListQuery, Page, satellite_id};
use crate::history::{self, At, Field, Stats};
use crate::lifecycle::Position;

/// The longest window of a question about the past.
const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A page of the fleet as it was, by id.
pub async fn fleet(api: &Api, query: ListQuery, limit: i64) -> Result<Page, Problem> {
    if query.status.is_some() || query.region.is_some() || query.tag.is_some() || query.q.is_some()
    {
        return Err(Problem::invalid("at and position go with limit and cursor only."));
    }
    let at = match (query.at, query.position) {
        (Some(text), None) => At::Moment(
            text.parse()
                .map_err(|_| Problem::invalid("at must be a time such as 2026-03-01T12:00:00Z."))?,
        ),
        (None, Some(position)) if position >= 0 => At::Position(Position(position)),
        (None, _) => return Err(Problem::invalid("position must be 0 or more.")),
        (Some(_), Some(_)) => return Err(Problem::invalid("Give at or position, not both.")),
    };
    let after = match query.cursor {
        None => Uuid::nil(),
        Some(cursor) => Uuid::try_parse(&cursor)
            .map_err(|_| Problem::invalid("cursor must be a nextCursor of an earlier page."))?,
    };
    let client = api.database.get().await?;
    let as_of = history::resolve(&client, at).await?;
    let (satellites, next) = history::fleet(&client, as_of, after, limit).await?;
    Ok(Page {
        satellites,
        next_cursor: next.map(|id| id.to_string()),
        position: Some(as_of.position.0),
    })
}

#[derive(Deserialize)]
pub struct StatsQuery {
    field: Option<String>,
    window: Option<String>,
}

/// `GET /v1/satellites/{id}/stats`
pub async fn stats(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<StatsQuery>, QueryRejection>,
) -> Result<Json<Stats>, Problem> {
    let id = satellite_id(path)?;
    let Query(query) = query?;
    let field = query.field.as_deref().unwrap_or(Field::Status.as_str());
    let field = Field::parse(field).ok_or_else(|| {
        let words = Field::ALL.map(Field::as_str).join(", ");
        Problem::invalid(format!("field must be one of {words}."))
    })?;
    let window = query.window.as_deref().unwrap_or("24h");
    let window =
        humantime::parse_duration(window).ok().filter(|w| *w <= MAX_WINDOW && !w.is_zero());
    let window = window.ok_or_else(|| {
        Problem::invalid("window must be a duration such as 24h, at most 366 days.")
    })?;
    let client = api.database.get().await?;
    let stats = history::stats(&client, id, field, window, api.default_threshold).await?;
    // Registered and never connected, or never there at all: nothing is known either way.
    stats.map(Json).ok_or_else(|| Problem::no_history(&id.to_string()))
}
