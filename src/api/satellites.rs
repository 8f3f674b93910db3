//! `/v1/satellites`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use deadpool_postgres::Object;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::caller::Caller;
use super::conditions::{self, Tag, tag};
use super::page::Page;
use super::parameters::{limit, satellite_id};
use super::problem::Problem;
use super::selection::{Asked, SelectionQuery, TagQuery, order, place_of};
use super::{APPEND_TIMEOUT, Api, past};
use crate::contract::wire::SatelliteJson;
use crate::domain::access::Selector;
use crate::domain::lifecycle::{SatelliteId, Signal};
use crate::log::request::Outcome;
use crate::registry::satellites::change::{Change, Changed};
use crate::registry::satellites::{self, Created, MAX_LIMIT, NewSatellite, Shown};

/// How many satellites a page has unless told otherwise.
const DEFAULT_LIMIT: i64 = 100;

/// How many may be skipped: more than any fleet has. Each that is there costs a look.
const MAX_OFFSET: i64 = 10_000_000;

/// Which page of them.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// In the order of `name` (the default; as of the past the default is the id), `region`, `createdAt` or
    /// `lastSeenAt`, the never seen first; with a minus in front the other way round
    #[param(pattern = "^-?(name|region|createdAt|lastSeenAt)$")]
    sort: Option<String>,
    /// How many on a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
    /// The `nextCursor` of the page before
    cursor: Option<String>,
    /// Begin behind so many of them, instead of behind a cursor: for a window into a long list. What is skipped is
    /// looked at each time, and whoever comes or goes before the place moves it
    #[param(minimum = 0, maximum = 10_000_000)]
    offset: Option<i64>,
}

impl PageQuery {
    /// How many are skipped.
    fn skip(&self) -> Result<i64, Problem> {
        match self.offset {
            None => Ok(0),
            Some(_) if self.cursor.is_some() => {
                Err(Problem::invalid("Give cursor or offset, not both."))
            }
            Some(offset) if (0..=MAX_OFFSET).contains(&offset) => Ok(offset),
            Some(_) => Err(Problem::invalid(format!("offset must be from 0 to {MAX_OFFSET}."))),
        }
    }
}

/// List satellites
///
/// A cursor is a place, not a copy: a satellite that is there all the while is on exactly one page, or
/// on none or two if what they are listed by is changed past the place meanwhile; others come and go without moving it.
/// Whoever reads all of them reads by cursors; `offset` is for whoever looks into the middle.
#[utoipa::path(get, operation_id = "listSatellites", path = "/v1/satellites", tag = "satellites",
    params(SelectionQuery, TagQuery, PageQuery), responses(
    (status = 200, description = "A page of them", body = Page),
    (status = 410, description = "What was then has been dropped",
     body = super::problem::ProblemJson, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    tags: TagQuery,
    query: Result<Query<SelectionQuery>, QueryRejection>,
    wanted: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let (Query(query), Query(wanted)) = (query?, wanted?);
    page(&api, caller.selector(), query, tags, wanted).await.map(Json)
}

/// A page of the fleet, whichever way it is asked for.
pub async fn page(
    api: &Api,
    selector: &Selector,
    query: SelectionQuery,
    tags: TagQuery,
    wanted: PageQuery,
) -> Result<Page, Problem> {
    let skip = wanted.skip()?;
    let PageQuery { sort, limit: asked, cursor, offset: _ } = wanted;
    let limit = limit(asked, DEFAULT_LIMIT, MAX_LIMIT)?;
    let order = sort.as_deref().map(order).transpose()?;
    let filter = match query.check(tags, selector)? {
        Asked::Now(filter) => filter,
        Asked::Then(at, selection) => {
            return past::page(api, at, &selection, order, cursor, skip, limit).await;
        }
    };
    let order = order.unwrap_or_default();
    let after = cursor.map(|cursor| place_of(&cursor, order)).transpose()?;
    // One more than asked for tells whether there is a next page.
    let list = async |client: &mut Object| {
        let (after, default) = (after.as_ref(), api.default_threshold);
        let most = (limit + 1).min(MAX_LIMIT);
        satellites::list(client, &filter, order, after, skip, most, default).await
    };
    Ok(Page::of(api.scans.run(list).await?, order, limit))
}

/// A registered satellite.
#[derive(Serialize, ToSchema)]
pub struct Registered {
    /// As it is now.
    satellite: SatelliteJson,
    /// Shown this once; absent where a registration is repeated.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// Register a satellite
///
/// With the header Idempotency-Key the same request makes one satellite within 24 hours, however often
/// it is sent. A repetition has the header `Idempotency-Replayed: true` and no token, because only its
/// digest is kept: whoever lost the first answer takes a new token, `POST /v1/satellites/{id}/token`.
#[utoipa::path(
    post, operation_id = "registerSatellite",
    path = "/v1/satellites",
    tag = "satellites",
    params(("Idempotency-Key" = Option<String>, Header,
            description = "What this registration is called: 1 to 200 printable ASCII characters")),
    request_body = NewSatellite,
    responses(
        (status = 201, description = "It is registered", body = Registered, headers(
            ("Location" = String, description = "Where it is"),
            ("ETag" = String, description = "The version of its description"),
        )),
        (status = 409, description = "The key's satellite has been removed",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
        (status = 429, description = "Too many keys were used today",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    headers: HeaderMap,
    body: Result<Json<NewSatellite>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(new) = body?;
    new.check()?;
    inside(&caller, Some(&new.region), Some(&new.tags))?;
    let key = conditions::key(&headers)?;
    let (author, default) = (caller.author(), api.default_threshold);
    let create = async |client: &mut Object| {
        satellites::create(client, &new, key.as_ref(), &author, default).await
    };
    match api.writes.run(create).await? {
        Created::New { satellite, token } => {
            let shown = &satellite.satellite;
            tracing::info!(satellite = %shown.id, name = %shown.name, "satellite registered");
            let token = token.expose_secret().to_owned();
            Ok(registered(*satellite, Some(token)).into_response())
        }
        Created::Again(satellite) => {
            // It may have moved out of the caller's reach since, or never have been the caller's.
            let shown = &satellite.satellite;
            if inside(&caller, Some(&shown.region), Some(&shown.tags)).is_err() {
                return Err(Problem::key_of_another());
            }
            let replayed = [(HeaderName::from_static("idempotency-replayed"), "true")];
            Ok((replayed, registered(*satellite, None)).into_response())
        }
        Created::AgainButRemoved(id) => Err(Problem::key_of_removed(&id.to_string())),
        Created::KeyOfAnother => Err(Problem::key_of_another()),
        Created::TooManyKeys => Err(Problem::too_many_keys()),
    }
}

/// Refuses what would be outside of the caller's reach.
pub(super) fn inside(
    caller: &Caller,
    region: Option<&str>,
    tags: Option<&BTreeMap<String, String>>,
) -> Result<(), Problem> {
    caller.selector().outside(region, tags).map_or(Ok(()), |what| Err(Problem::outside(what)))
}

/// The answer to a registration.
pub(super) fn registered(shown: Shown, token: Option<String>) -> impl IntoResponse {
    let location = [(header::LOCATION, format!("/v1/satellites/{}", shown.satellite.id))];
    let body = Json(Registered { satellite: shown.satellite, token });
    (StatusCode::CREATED, location, tag(shown.version), body)
}

/// One satellite, whichever way it is asked for.
pub async fn one(api: &Api, id: SatelliteId) -> Result<SatelliteJson, Problem> {
    let get = async |client: &mut Object| satellites::get(client, id, api.default_threshold).await;
    let satellite = api.reads.run(get).await?;
    satellite.ok_or_else(|| Problem::no_satellite(&id.to_string()))
}

/// Show a satellite
#[utoipa::path(
    get, operation_id = "showSatellite",
    path = "/v1/satellites/{id}",
    tag = "satellites",
    params(("id" = Uuid, Path, description = "The satellite")),
    responses((status = 200, description = "As it stands now", body = SatelliteJson, headers(
        ("ETag" = String, description = "The version of its description, not of its status"),
    )))
)]
pub async fn get(
    State(api): State<Arc<Api>>,
    path: Result<Path<String>, PathRejection>,
) -> Result<(Tag, Json<SatelliteJson>), Problem> {
    let id = satellite_id(path)?;
    let show =
        async |client: &mut Object| satellites::shown(client, id, api.default_threshold).await;
    let shown = api.reads.run(show).await?;
    let shown = shown.ok_or_else(|| Problem::no_satellite(&id.to_string()))?;
    Ok((tag(shown.version), Json(shown.satellite)))
}

/// Change a satellite
///
/// What is absent stays as it is. With If-Match only if nobody has changed it since.
#[utoipa::path(
    patch, operation_id = "changeSatellite",
    path = "/v1/satellites/{id}",
    tag = "satellites",
    params(
        ("id" = Uuid, Path, description = "The satellite"),
        ("If-Match" = Option<String>, Header, description = "The ETag of what you have read"),
    ),
    request_body = Change,
    responses(
        (status = 200, description = "As it is now", body = SatelliteJson, headers(
            ("ETag" = String, description = "The version of its description"),
        )),
        (status = 412, description = "Somebody else has changed it meanwhile",
         body = super::problem::ProblemJson, content_type = "application/problem+json"),
    )
)]
pub async fn change(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Json<Change>, JsonRejection>,
) -> Result<(Tag, Json<SatelliteJson>), Problem> {
    let id = satellite_id(path)?;
    let Json(asked) = body?;
    // It is inside, so it stays inside if what is changed of it is.
    inside(&caller, asked.region.as_deref(), asked.tags.as_ref())?;
    let precondition = conditions::precondition(&headers)?;
    let (by, default) = (caller.authority(), api.default_threshold);
    let change = async |client: &mut Object| {
        satellites::change::change(client, id, asked, precondition.as_ref(), &by, default).await
    };
    match api.writes.run(change).await? {
        Changed::To(shown) => Ok((tag(shown.version), Json(shown.satellite))),
        Changed::Invalid(invalid) => Err(invalid.into()),
        Changed::NothingNamed => Err(Problem::invalid(format!(
            "The body names none of what can be changed: {}.",
            Change::FIELDS.join(", ")
        ))),
        Changed::Unknown => Err(Problem::no_satellite(&id.to_string())),
        Changed::Unexpected => Err(Problem::changed_meanwhile()),
    }
}

/// Remove a satellite
///
/// Its session ends, its token is void, and `removed` is its last transition.
#[utoipa::path(
    delete, operation_id = "removeSatellite",
    path = "/v1/satellites/{id}",
    tag = "satellites",
    params(("id" = Uuid, Path, description = "The satellite")),
    responses((status = 204, description = "It is removed"))
)]
pub async fn remove(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let id = satellite_id(path)?;
    let append = api.log.append(id, Signal::Remove, caller.author());
    match tokio::time::timeout(APPEND_TIMEOUT, append).await {
        Ok(Ok(Outcome::Appended { .. })) => Ok(StatusCode::NO_CONTENT),
        Ok(Ok(Outcome::UnknownSatellite)) => Err(Problem::no_satellite(&id.to_string())),
        Ok(Ok(Outcome::Nothing(_) | Outcome::Refused | Outcome::Locked) | Err(_)) => {
            Err(Problem::unavailable("The removal was not taken; try again."))
        }
        Err(_) => Err(Problem::unavailable(
            "The database does not answer, or somebody has the satellite locked; the removal is taken and will be made as soon as it can be.",
        )),
    }
}
