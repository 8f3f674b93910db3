//! `/v1/satellites`.

use std::convert::Infallible;
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deadpool_postgres::Object;
use secrecy::ExposeSecret;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::conditions::{self, Tag, tag};
use super::parameters::{limit, satellite_id};
use super::problem::Problem;
use super::{APPEND_TIMEOUT, Api, past};
use crate::contract::wire::{Actor, SatelliteJson};
use crate::domain::lifecycle::{SatelliteId, Signal};
use crate::domain::liveness::Status;
use crate::log::request::Outcome;
use crate::registry::satellites::change::{Change, Changed};
use crate::registry::satellites::{
    self, Created, ListFilter, MAX_LIMIT, MAX_TAGS, NewSatellite, Shown,
};

/// How many satellites a page has unless told otherwise.
const DEFAULT_LIMIT: i64 = 100;

/// Which page of the fleet.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// `online` or `offline`, now
    #[param(pattern = "^(online|offline)$")]
    status: Option<String>,
    /// Only this region
    region: Option<String>,
    /// Only names that contain this, whatever the case
    q: Option<String>,
    /// How many on a page
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<i64>,
    /// The `nextCursor` of the page before
    cursor: Option<String>,
    /// The fleet as it was at this moment; with limit and cursor only
    #[param(format = DateTime)]
    at: Option<String>,
    /// The fleet as it was right after this position; with limit and cursor only
    #[param(minimum = 0)]
    position: Option<i64>,
}

/// Which tags.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct TagQuery {
    /// Only with this tag, `name:value`; given several times, only with all of them
    #[serde(default, deserialize_with = "one_or_several")]
    #[param(style = Form, explode, max_items = 64)]
    tag: Vec<String>,
}

/// What is asked over NATS is JSON.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "tag must be a text or a list of texts")]
    enum Said {
        One(String),
        Several(Vec<String>),
        None(()),
    }
    Ok(match Said::deserialize(deserializer)? {
        Said::One(tag) => vec![tag],
        Said::Several(tags) => tags,
        Said::None(()) => Vec::new(),
    })
}

/// Other extractors of a query take each parameter once.
impl<S: Sync> FromRequestParts<S> for TagQuery {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<TagQuery, Infallible> {
        let query = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
        let tag = query.filter(|(name, _)| name == "tag").map(|(_, tag)| tag.into_owned());
        Ok(TagQuery { tag: tag.collect() })
    }
}

/// A page of the fleet.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SatellitePage)]
pub struct Page {
    /// By name and id; by id where they are as of the past.
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

/// List satellites
///
/// A cursor is a place, not a copy: a satellite that is there all the while is on exactly one page, or
/// on none if it is renamed past the place meanwhile; others come and go without moving it.
#[utoipa::path(get, operation_id = "listSatellites", path = "/v1/satellites", tag = "satellites", params(ListQuery, TagQuery), responses(
    (status = 200, description = "A page of them", body = Page),
    (status = 410, description = "What was then has been dropped",
     body = super::problem::ProblemJson, content_type = "application/problem+json"),
))]
pub async fn list(
    State(api): State<Arc<Api>>,
    tags: TagQuery,
    query: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Page>, Problem> {
    let Query(query) = query?;
    page(&api, query, tags).await.map(Json)
}

/// A page of the fleet, whichever way it is asked for.
pub async fn page(api: &Api, query: ListQuery, tags: TagQuery) -> Result<Page, Problem> {
    let limit = limit(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    if query.at.is_some() || query.position.is_some() {
        return as_it_was(api, query, tags, limit).await;
    }
    let filter = filter(query, tags)?;
    // One more than asked for tells whether there is a next page.
    let asked = limit + 1;
    let list = async |client: &mut Object| {
        satellites::list(client, &filter, asked.min(MAX_LIMIT), api.default_threshold).await
    };
    let mut satellites = api.scans.run(list).await?;
    let is_full = satellites.len() as i64 == asked || satellites.len() as i64 == MAX_LIMIT;
    satellites.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = satellites.last().filter(|_| is_full).map(cursor_after);
    Ok(Page { satellites, next_cursor, position: None })
}

/// The fleet at an earlier place, by id.
async fn as_it_was(
    api: &Api,
    query: ListQuery,
    tags: TagQuery,
    limit: i64,
) -> Result<Page, Problem> {
    let has_tags = !tags.tag.is_empty();
    if query.status.is_some() || query.region.is_some() || has_tags || query.q.is_some() {
        return Err(Problem::invalid("at and position go with limit and cursor only."));
    }
    let at = past::place(query.at, query.position)?;
    let (satellites, next, position) = past::fleet(api, at, query.cursor, limit).await?;
    Ok(Page { satellites, next_cursor: next.map(|id| id.to_string()), position: Some(position.0) })
}

fn filter(query: ListQuery, TagQuery { tag: tags }: TagQuery) -> Result<ListFilter, Problem> {
    if tags.len() > MAX_TAGS {
        let detail = format!("tag may come at most {MAX_TAGS} times: no satellite has more.");
        return Err(Problem::invalid(detail));
    }
    // The database has no place for one in a text.
    let texts = [("region", &query.region), ("q", &query.q)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?)));
    for (name, text) in texts.chain(tags.iter().map(|tag| ("tag", tag))) {
        if text.contains('\0') {
            return Err(Problem::invalid(format!("{name} must not contain a NUL character.")));
        }
    }
    let status = query
        .status
        .map(|word| {
            Status::from_str(&word)
                .map_err(|_| Problem::invalid("status must be online or offline."))
        })
        .transpose()?;
    let tags = tags.iter().map(|tag| match tag.split_once(':') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(Problem::invalid("tag must be written name:value.")),
    });
    let tags = tags.collect::<Result<_, _>>()?;
    let after = query
        .cursor
        .map(|cursor| {
            let json = URL_SAFE_NO_PAD.decode(cursor).ok();
            json.and_then(|json| serde_json::from_slice::<(String, Uuid)>(&json).ok())
                .filter(|(name, _)| !name.contains('\0'))
                .ok_or_else(|| Problem::invalid("cursor must be a nextCursor of an earlier page."))
        })
        .transpose()?;
    Ok(ListFilter { status, region: query.region, tags, text: query.q, after })
}

fn cursor_after(satellite: &SatelliteJson) -> String {
    let place = serde_json::json!([satellite.name, satellite.id]);
    URL_SAFE_NO_PAD.encode(place.to_string())
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
    headers: HeaderMap,
    body: Result<Json<NewSatellite>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(new) = body?;
    new.check()?;
    let key = conditions::key(&headers)?;
    let (actor, default) = (Actor::admin(), api.default_threshold);
    let create = async |client: &mut Object| {
        satellites::create(client, &new, key.as_ref(), &actor, default).await
    };
    match api.writes.run(create).await? {
        Created::New { satellite, token } => {
            let shown = &satellite.satellite;
            tracing::info!(satellite = %shown.id, name = %shown.name, "satellite registered");
            let token = token.expose_secret().to_owned();
            Ok(registered(*satellite, Some(token)).into_response())
        }
        Created::Again(satellite) => {
            let replayed = [(HeaderName::from_static("idempotency-replayed"), "true")];
            Ok((replayed, registered(*satellite, None)).into_response())
        }
        Created::AgainButRemoved(id) => Err(Problem::key_of_removed(&id.to_string())),
        Created::KeyOfAnother => Err(Problem::key_of_another()),
        Created::TooManyKeys => Err(Problem::too_many_keys()),
    }
}

fn registered(shown: Shown, token: Option<String>) -> impl IntoResponse {
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
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Json<Change>, JsonRejection>,
) -> Result<(Tag, Json<SatelliteJson>), Problem> {
    let id = satellite_id(path)?;
    let Json(asked) = body?;
    let precondition = conditions::precondition(&headers)?;
    let (actor, default) = (Actor::admin(), api.default_threshold);
    let change = async |client: &mut Object| {
        satellites::change::change(client, id, asked, precondition.as_ref(), &actor, default).await
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
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let id = satellite_id(path)?;
    let append = api.log.append(id, Signal::Remove, Actor::admin());
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
