//! `/v1/satellites`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderName, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::parameters::{limit, satellite_id};
use super::problem::Problem;
use super::{APPEND_TIMEOUT, Api, past};
use crate::lifecycle::{Edge, SatelliteId};
use crate::liveness::Status;
use crate::log::append::Outcome;
use crate::satellites::change::{Change, Changed};
use crate::satellites::{self, ListFilter, MAX_LIMIT, NewSatellite};
use crate::wire::{Actor, SatelliteJson};

/// How many satellites a page has unless told otherwise.
const DEFAULT_LIMIT: i64 = 100;

/// Which page of the fleet.
#[derive(Deserialize)]
pub struct ListQuery {
    status: Option<String>,
    region: Option<String>,
    tag: Option<String>,
    q: Option<String>,
    limit: Option<i64>,
    cursor: Option<String>,
    /// The fleet as it was at this moment,
    at: Option<String>,
    /// or right after this position.
    position: Option<i64>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    satellites: Vec<SatelliteJson>,
    /// Where the next page starts; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// The position this page is as of; absent for the present.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<i64>,
}

impl ListQuery {
    /// The same, of those only who are online now.
    pub fn online(self) -> ListQuery {
        ListQuery { status: Some(Status::Online.as_str().to_owned()), ..self }
    }
}

/// `GET /v1/satellites`
pub async fn list(
    State(api): State<Arc<Api>>,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(query) = query?;
    page(&api, query).await.map(Json)
}

/// A page of the fleet, whichever way it is asked for.
pub async fn page(api: &Api, query: ListQuery) -> Result<Page, Problem> {
    let limit = limit(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    if query.at.is_some() || query.position.is_some() {
        return as_it_was(api, query, limit).await;
    }
    let filter = filter(query)?;
    let client = api.database.get().await?;
    // One more than asked for tells whether there is a next page.
    let asked = limit + 1;
    let mut satellites =
        satellites::list(&client, &filter, asked.min(MAX_LIMIT), api.default_threshold).await?;
    let is_full = satellites.len() as i64 == asked || satellites.len() as i64 == MAX_LIMIT;
    satellites.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = satellites.last().filter(|_| is_full).map(cursor_after);
    Ok(Page { satellites, next_cursor, position: None })
}

/// The fleet at an earlier place, by id.
async fn as_it_was(api: &Api, query: ListQuery, limit: i64) -> Result<Page, Problem> {
    if query.status.is_some() || query.region.is_some() || query.tag.is_some() || query.q.is_some()
    {
        return Err(Problem::invalid("at and position go with limit and cursor only."));
    }
    let at = past::place(query.at, query.position)?;
    let (satellites, next, position) = past::fleet(api, at, query.cursor, limit).await?;
    Ok(Page { satellites, next_cursor: next.map(|id| id.to_string()), position: Some(position.0) })
}

fn filter(query: ListQuery) -> Result<ListFilter, Problem> {
    let status = query
        .status
        .map(|word| {
            Status::parse(&word)
                .ok_or_else(|| Problem::invalid("status must be online or offline."))
        })
        .transpose()?;
    let tag = query
        .tag
        .map(|tag| match tag.split_once(':') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(Problem::invalid("tag must be written name:value.")),
        })
        .transpose()?;
    let after = query
        .cursor
        .map(|cursor| {
            let json = URL_SAFE_NO_PAD.decode(cursor).ok();
            json.and_then(|json| serde_json::from_slice::<(String, Uuid)>(&json).ok())
                .ok_or_else(|| Problem::invalid("cursor must be a nextCursor of an earlier page."))
        })
        .transpose()?;
    Ok(ListFilter { status, region: query.region, tag, text: query.q, after })
}

fn cursor_after(satellite: &SatelliteJson) -> String {
    let place = serde_json::json!([satellite.name, satellite.id]);
    URL_SAFE_NO_PAD.encode(place.to_string())
}

#[derive(Serialize)]
pub struct Created {
    satellite: SatelliteJson,
    /// Shown this once.
    token: String,
}

type Location = [(HeaderName, String); 2];

/// `POST /v1/satellites`
pub async fn create(
    State(api): State<Arc<Api>>,
    body: Result<Json<NewSatellite>, JsonRejection>,
) -> Result<(StatusCode, Location, Json<Created>), Problem> {
    let Json(new) = body?;
    new.check()?;
    let mut client = api.database.get().await?;
    let (satellite, token) =
        satellites::create(&mut client, &new, &Actor::admin(), api.default_threshold).await?;
    tracing::info!(satellite = %satellite.id, name = %satellite.name, "satellite registered");
    let headers = [
        (header::LOCATION, format!("/v1/satellites/{}", satellite.id)),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    let token = token.expose_secret().to_owned();
    Ok((StatusCode::CREATED, headers, Json(Created { satellite, token })))
}

/// `GET /v1/satellites/{id}`
pub async fn get(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<SatelliteJson>, Problem> {
    let id = satellite_id(path)?;
    one(&api, id).await.map(Json)
}

/// One satellite, whichever way it is asked for.
pub async fn one(api: &Api, id: SatelliteId) -> Result<SatelliteJson, Problem> {
    let client = api.database.get().await?;
    let satellite = satellites::get(&client, id, api.default_threshold).await?;
    satellite.ok_or_else(|| Problem::no_satellite(&id.to_string()))
}

/// `PATCH /v1/satellites/{id}`
pub async fn change(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
    body: Result<Json<Change>, JsonRejection>,
) -> Result<Json<SatelliteJson>, Problem> {
    let id = satellite_id(path)?;
    let Json(asked) = body?;
    let mut client = api.database.get().await?;
    let (actor, default) = (Actor::admin(), api.default_threshold);
    match satellites::change::change(&mut client, id, asked, &actor, default).await? {
        Changed::To(satellite) => Ok(Json(*satellite)),
        Changed::Invalid(invalid) => Err(invalid.into()),
        Changed::Unknown => Err(Problem::no_satellite(&id.to_string())),
    }
}

/// `DELETE /v1/satellites/{id}`
pub async fn remove(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let id = satellite_id(path)?;
    let append = api.log.append(id, Edge::Remove, Actor::admin());
    match tokio::time::timeout(APPEND_TIMEOUT, append).await {
        Ok(Ok(Outcome::Appended { .. })) => Ok(StatusCode::NO_CONTENT),
        Ok(Ok(Outcome::UnknownSatellite)) => Err(Problem::no_satellite(&id.to_string())),
        Ok(Ok(Outcome::Nothing(_) | Outcome::Refused) | Err(_)) => {
            Err(Problem::unavailable("The removal was not taken; try again."))
        }
        Err(_) => Err(Problem::unavailable(
            "The database does not answer; the removal is taken and will be made as soon as it does.",
        )),
    }
}
