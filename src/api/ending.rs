//! `/v1/satellites/{id}/kick`, `/disable` and `/enable`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use deadpool_postgres::Object;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Caller;
use super::parameters::satellite_id;
use super::problem::Problem;
use super::{APPEND_TIMEOUT, Api};
use crate::contract::wire::SatelliteJson;
use crate::domain::lifecycle::{Reason, SatelliteId, Session, Signal, Unchanged};
use crate::log::audit::Author;
use crate::log::request::{Closed, Outcome};
use crate::platform::failpoint::stand_still;
use crate::registry::ending::{self, Live};
use crate::registry::satellites;

/// How often a kick looks for the newest session: it may be taken over meanwhile.
const LOOKS: usize = 3;

/// What became of a satellite's session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// As it is now.
    satellite: SatelliteJson,
    /// Whether this ended a session; false where the satellite was offline.
    session_ended: bool,
}

/// End a satellite's session
///
/// The satellite is told and may come back at once. One that is offline stays as it is.
#[utoipa::path(
    post, operation_id = "kickSatellite",
    path = "/v1/satellites/{id}/kick",
    tag = "satellites",
    params(("id" = Uuid, Path, description = "The satellite")),
    responses((status = 200, description = "It has no session of before any more", body = Ended))
)]
pub async fn kick(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Ended>, Problem> {
    let id = satellite_id(path)?;
    let mut outcome = None;
    for _ in 0..LOOKS {
        let live = async |client: &mut Object| ending::live_session(client, id).await;
        let live = api.writes.run(live).await?;
        let Some(Live { session, .. }) =
            live.ok_or_else(|| Problem::no_satellite(&id.to_string()))?
        else {
            break;
        };
        // The edge first: it has to name who did it. The session's pod ends the socket, and appends an edge of its own
        // only where there is none.
        outcome = Some(end(&api, id, session, Reason::Kicked, caller.author()).await?);
        if outcome == Some(Outcome::Nothing(Unchanged::StaleSession)) {
            continue;
        }
        stand_still("kick::appended").await;
        let note = async |client: &mut Object| ending::end(client, id, session).await;
        api.writes.run(note).await?;
        api.changed.tell();
        break;
    }
    answer(&api, id, matches!(outcome, Some(Outcome::Appended { .. }))).await
}

/// Disable a satellite
///
/// Its session ends, and it is refused until it is enabled. What is known of it stays. One that is disabled stays so.
#[utoipa::path(
    post, operation_id = "disableSatellite",
    path = "/v1/satellites/{id}/disable",
    tag = "satellites",
    params(("id" = Uuid, Path, description = "The satellite")),
    responses((status = 200, description = "It is disabled", body = Ended))
)]
pub async fn disable(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<Ended>, Problem> {
    let id = satellite_id(path)?;
    let by = caller.authority();
    let disable = async |client: &mut Object| ending::disable(client, id, &by).await;
    let live = api.writes.run(disable).await?;
    let live = live.ok_or_else(|| Problem::no_satellite(&id.to_string()))?;
    tracing::info!(satellite = %id, "satellite disabled");
    if let Some(Live { session, .. }) = live
        && end(&api, id, session, Reason::Disabled, by.author).await.is_err()
    {
        // It is disabled all the same, and the pod that holds the session ends it too.
        tracing::warn!(satellite = %id, "the end of a disabled satellite's session is late");
    }
    // After the edge, which names who did it, unless the session's pod has looked in between.
    api.changed.tell();
    answer(&api, id, live.is_some_and(|live| live.is_connected)).await
}

/// Enable a satellite
///
/// It is let in again when it comes. One that is not disabled stays as it is.
#[utoipa::path(
    post, operation_id = "enableSatellite",
    path = "/v1/satellites/{id}/enable",
    tag = "satellites",
    params(("id" = Uuid, Path, description = "The satellite")),
    responses((status = 200, description = "As it is now", body = SatelliteJson))
)]
pub async fn enable(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<SatelliteJson>, Problem> {
    let id = satellite_id(path)?;
    let by = caller.authority();
    let enable = async |client: &mut Object| ending::enable(client, id, &by).await;
    if !api.writes.run(enable).await? {
        return Err(Problem::no_satellite(&id.to_string()));
    }
    api.changed.tell();
    tracing::info!(satellite = %id, "satellite enabled");
    show(&api, id).await.map(Json)
}

/// Appends the end of a session.
async fn end(
    api: &Api,
    id: SatelliteId,
    session: Session,
    reason: Reason,
    author: Author,
) -> Result<Outcome, Problem> {
    let signal = Signal::Disconnect { session, reason };
    let append = api.log.append(id, signal, author);
    match tokio::time::timeout(APPEND_TIMEOUT, append).await {
        Ok(Ok(Outcome::UnknownSatellite)) => Err(Problem::no_satellite(&id.to_string())),
        Ok(Ok(outcome @ (Outcome::Appended { .. } | Outcome::Nothing(_)))) => Ok(outcome),
        Ok(Ok(Outcome::Refused | Outcome::Locked) | Err(Closed)) => {
            Err(Problem::unavailable("The session's end was not taken; try again."))
        }
        Err(_) => Err(Problem::unavailable(
            "The database does not answer, or somebody has the satellite locked; the session's end is taken and will be made as soon as it can be.",
        )),
    }
}

async fn answer(api: &Api, id: SatelliteId, session_ended: bool) -> Result<Json<Ended>, Problem> {
    let satellite = show(api, id).await?;
    Ok(Json(Ended { satellite, session_ended }))
}

/// Not through the reads, which may be turned away: what was asked for is done.
async fn show(api: &Api, id: SatelliteId) -> Result<SatelliteJson, Problem> {
    let get = async |client: &mut Object| satellites::get(client, id, api.default_threshold).await;
    let satellite = api.writes.run(get).await?;
    satellite.ok_or_else(|| Problem::no_satellite(&id.to_string()))
}
