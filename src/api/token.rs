//! `/v1/satellites/{id}/token`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use deadpool_postgres::Object;
use secrecy::ExposeSecret;
use serde::Serialize;
use utoipa::ToSchema;

use super::caller::Caller;
use super::parameters::satellite_id;
use super::problem::Problem;
use super::{APPEND_TIMEOUT, Api};
use crate::contract::wire::SatelliteJson;
use crate::domain::lifecycle::{Reason, Signal};
use crate::registry::satellites::{self, Rotated};

/// A new token.
#[derive(Serialize, ToSchema)]
pub struct NewToken {
    /// The satellite.
    satellite: SatelliteJson,
    /// The token, shown only in this answer.
    token: String,
}

/// Replace a satellite's token
///
/// The old one is void at once, and the session it opened ends.
#[utoipa::path(
    post, operation_id = "rotateToken",
    path = "/v1/satellites/{id}/token",
    tag = "satellites",
    params(("id" = Uuid, Path, description = "The satellite")),
    responses((status = 200, description = "The new token, shown this once", body = NewToken))
)]
pub async fn rotate(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<NewToken>, Problem> {
    let id = satellite_id(path)?;
    let unknown = || Problem::no_satellite(&id.to_string());
    let actor = caller.actor();
    let rotate = async |client: &mut Object| satellites::rotate(client, id, &actor).await;
    let rotated = api.writes.run(rotate).await?;
    let Rotated { token, session } = rotated.ok_or_else(unknown)?;
    api.changed.tell();
    tracing::info!(satellite = %id, "token rotated");
    if let Some(session) = session {
        let signal = Signal::Disconnect { session, reason: Reason::TokenRotated };
        let append = api.log.append(id, signal, actor);
        // The new token is in force and has to be shown. The pod that holds the session ends it too.
        match tokio::time::timeout(APPEND_TIMEOUT, append).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(satellite = %id, "the end of a session with an old token is late");
            }
        }
    }
    // Not through the reads, which may be turned away: the token is shown now or never.
    let get = async |client: &mut Object| satellites::get(client, id, api.default_threshold).await;
    let satellite = api.writes.run(get).await?;
    let satellite = satellite.ok_or_else(unknown)?;
    let token = token.expose_secret().to_owned();
    Ok(Json(NewToken { satellite, token }))
}
