//! The fleet as it was (`GET /v1/satellites?at=` and `?position=`), and
//! `GET /v1/satellites/{id}/stats`.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use deadpool_postgres::Object;
use serde::Deserialize;
use strum::IntoEnumIterator;
use utoipa::IntoParams;
use uuid::Uuid;

use super::Api;
use super::parameters::{satellite_id, time};
use super::problem::Problem;
use crate::contract::wire::SatelliteJson;
use crate::domain::lifecycle::{Position, SatelliteId};
use crate::log::history::{self, At, Field, NoAnswer, Stats};

/// The longest window of a question about the past.
const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The place in the past that the parameters `at` and `position` name; one of them is there.
pub fn place(at: Option<String>, position: Option<i64>) -> Result<At, Problem> {
    match (at, position) {
        (Some(text), None) => Ok(At::Moment(time("at", &text)?)),
        (None, Some(position)) if position >= 0 => Ok(At::Position(Position(position))),
        (None, _) => Err(Problem::invalid("position must be 0 or more.")),
        (Some(_), Some(_)) => Err(Problem::invalid("Give at or position, not both.")),
    }
}

/// A page of the fleet as it was, by id; the id the next page begins behind; the position it is
/// as of.
pub async fn fleet(
    api: &Api,
    at: At,
    cursor: Option<String>,
    limit: i64,
) -> Result<(Vec<SatelliteJson>, Option<Uuid>, Position), Problem> {
    let after = match cursor {
        None => Uuid::nil(),
        Some(cursor) => Uuid::try_parse(&cursor)
            .map_err(|_| Problem::invalid("cursor must be a nextCursor of an earlier page."))?,
    };
    let fleet = async |client: &mut Object| {
        let fleet = async {
            let as_of = history::resolve(client, at).await?;
            let (satellites, next) = history::fleet(client, as_of, after, limit).await?;
            Ok((satellites, next, as_of.position))
        };
        told(fleet.await)
    };
    Ok(api.scans.run(fleet).await??)
}

/// That the past cannot be told is an answer too: the database did nothing wrong.
fn told<T>(answer: Result<T, NoAnswer>) -> Result<Result<T, NoAnswer>, tokio_postgres::Error> {
    match answer {
        Err(NoAnswer::Database(error)) => Err(error),
        answer => Ok(answer),
    }
}

/// What to tell of a satellite's past.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// `status` (the default), `lastEvent`, `name` or `region`
    #[param(pattern = "^(status|lastEvent|name|region)$")]
    field: Option<String>,
    /// How far back, such as `24h` (the default) or `30days`; at most 366 days
    #[param(example = "24h", pattern = "^[1-9][0-9]{0,2}(s|m|h|d)$")]
    window: Option<String>,
}

/// Since when, how often, how long
#[utoipa::path(
    get, operation_id = "showStats",
    path = "/v1/satellites/{id}/stats",
    tag = "satellites",
    params(("id" = Uuid, Path, description = "The satellite"), StatsQuery),
    responses(
        (status = 200, description = "Over a window that ends now", body = Stats),
        (status = 410, description = "What was then has been dropped",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn stats(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    query: Result<Query<StatsQuery>, QueryRejection>,
) -> Result<Json<Stats>, Problem> {
    let id = satellite_id(path)?;
    let Query(query) = query?;
    answer(&api, id, query).await.map(Json)
}

/// A satellite's stats, whichever way they are asked for.
pub async fn answer(api: &Api, id: SatelliteId, query: StatsQuery) -> Result<Stats, Problem> {
    let field = query.field.as_deref().unwrap_or(Field::Status.as_str());
    let field = Field::from_str(field).map_err(|_| {
        let words: Vec<&str> = Field::iter().map(Field::as_str).collect();
        let words = words.join(", ");
        Problem::invalid(format!("field must be one of {words}."))
    })?;
    let window = query.window.as_deref().unwrap_or("24h");
    let window =
        humantime::parse_duration(window).ok().filter(|w| *w <= MAX_WINDOW && !w.is_zero());
    let window = window.ok_or_else(|| {
        Problem::invalid("window must be a duration such as 24h, at most 366 days.")
    })?;
    let stats = async |client: &mut Object| {
        told(history::stats(client, id, field, window, api.default_threshold).await)
    };
    let stats = api.scans.run(stats).await??;
    // Registered and never connected, or never there at all: nothing is known either way.
    stats.ok_or_else(|| Problem::no_history(&id.to_string()))
}
