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
use super::page::Page;
use super::parameters::{satellite_id, span};
use super::problem::Problem;
use super::selection::place_of;
use crate::domain::lifecycle::SatelliteId;
use crate::domain::selection::{Order, Selection};
use crate::log::fleet_then::{self, Begin};
use crate::log::history::{self, At, Field, NoAnswer, Stats};
use crate::log::read::MAX_LIMIT;

/// The longest window of a question about the past.
pub const MAX_WINDOW: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// A page of the fleet as it was: by id where no order is asked for.
pub async fn page(
    api: &Api,
    at: At,
    selection: &Selection,
    order: Option<Order>,
    cursor: Option<String>,
    skip: i64,
    limit: i64,
) -> Result<Page, Problem> {
    let Some(order) = order else {
        return page_by_id(api, at, selection, cursor, skip, limit).await;
    };
    let after = cursor.map(|cursor| place_of(&cursor, order)).transpose()?;
    let begin = Begin::Place(order, after);
    let page = async |client: &mut Object| {
        let page = async {
            let as_of = history::resolve(client, at).await?;
            let most = (limit + 1).min(MAX_LIMIT);
            let found = fleet_then::page(client, as_of, selection, &begin, skip, most).await?;
            Ok(Page::of(found, order, limit).at_position(as_of.position))
        };
        told(page.await)
    };
    Ok(api.scans.run(page).await??)
}

async fn page_by_id(
    api: &Api,
    at: At,
    selection: &Selection,
    cursor: Option<String>,
    skip: i64,
    limit: i64,
) -> Result<Page, Problem> {
    let after = cursor.map(|cursor| {
        Uuid::try_parse(&cursor)
            .map_err(|_| Problem::invalid("cursor must be a nextCursor of an earlier page."))
    });
    let after = after.transpose()?;
    let page = async |client: &mut Object| {
        let page = async {
            let as_of = history::resolve(client, at).await?;
            let (satellites, next) = if *selection == Selection::default() {
                history::fleet(client, as_of, after.unwrap_or(Uuid::nil()), skip, limit).await?
            } else {
                let begin = Begin::Id(after);
                let found = fleet_then::page(client, as_of, selection, &begin, skip, limit).await?;
                let last = found.last().filter(|_| found.len() as i64 >= limit);
                let next = last.map(|last| last.id);
                (found, next)
            };
            Ok(Page::by_id(satellites, next).at_position(as_of.position))
        };
        told(page.await)
    };
    Ok(api.scans.run(page).await??)
}

/// That the past cannot be told is an answer too: the database did nothing wrong.
pub fn told<T>(answer: Result<T, NoAnswer>) -> Result<Result<T, NoAnswer>, tokio_postgres::Error> {
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
    let window = span("window", query.window.as_deref().unwrap_or("24h"), MAX_WINDOW)?;
    let stats = async |client: &mut Object| {
        told(history::stats(client, id, field, window, api.default_threshold).await)
    };
    let stats = api.scans.run(stats).await??;
    // Registered and never connected, or never there at all: nothing is known either way.
    stats.ok_or_else(|| Problem::no_history(&id.to_string()))
}
