//! `/v1/satellites/{id}/token`.

use std::sync::Arc;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::rejection::{BytesRejection, JsonRejection, PathRejection};
use axum::extract::{FromRequest, Path, Request, State};
use axum::http::HeaderMap;
use deadpool_postgres::Object;
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::Caller;
use super::parameters::satellite_id;
use super::problem::Problem;
use super::{APPEND_TIMEOUT, Api};
use crate::contract::wire::{SatelliteJson, Timestamp};
use crate::domain::lifecycle::{Reason, Signal};
use crate::registry::rotation::{self, Rotated};
use crate::registry::satellites;

/// How a token is replaced.
#[derive(Default, Deserialize, ToSchema)]
pub struct Rotation {
    /// For how long the present token stays valid beside the new one, such as `1h`: from 1s to 30days. If absent it is
    /// void at once.
    #[serde(default)]
    #[schema(example = "1h")]
    overlap: Option<String>,
}

impl Rotation {
    /// The body is optional, and so is to say of which type an empty one is.
    async fn read(headers: HeaderMap, body: Bytes) -> Result<Rotation, JsonRejection> {
        if body.is_empty() {
            return Ok(Rotation::default());
        }
        let mut request = Request::new(Body::from(body));
        *request.headers_mut() = headers;
        let Json(rotation): Json<Option<Rotation>> = Json::from_request(request, &()).await?;
        Ok(rotation.unwrap_or_default())
    }
}

/// A new token.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewToken {
    /// The satellite.
    satellite: SatelliteJson,
    /// The token, shown only in this answer.
    token: String,
    /// Until when the token before is valid too; absent where it is void.
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_token_ends_at: Option<Timestamp>,
}

/// Replace a satellite's token
///
/// The old one is void at once, and the session it opened ends. With `overlap` the old one stays valid for that long:
/// the session stays, and if it was opened with the old one, it ends when that does. The token before the old one is
/// void at once in any case.
#[utoipa::path(
    post, operation_id = "rotateToken",
    path = "/v1/satellites/{id}/token",
    tag = "satellites",
    params(("id" = Uuid, Path, description = "The satellite")),
    request_body = Option<Rotation>,
    responses((status = 200, description = "The new token, shown this once", body = NewToken))
)]
pub async fn rotate(
    State(api): State<Arc<Api>>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<NewToken>, Problem> {
    let id = satellite_id(path)?;
    let Rotation { overlap } = Rotation::read(headers, body.map_err(JsonRejection::from)?).await?;
    let overlap = overlap.as_deref().map(rotation::overlap).transpose()?;
    let unknown = || Problem::no_satellite(&id.to_string());
    let by = caller.authority();
    let rotate = async |client: &mut Object| rotation::rotate(client, id, overlap, &by).await;
    let rotated = api.writes.run(rotate).await?;
    let Rotated { token, session, previous_ends_at } = rotated.ok_or_else(unknown)?;
    let told = overlap.map(|overlap| humantime::format_duration(overlap).to_string());
    tracing::info!(satellite = %id, overlap = told, "token rotated");
    if let Some(session) = session {
        let signal = Signal::Disconnect { session, reason: Reason::TokenRotated };
        let append = api.log.append(id, signal, by.author);
        // The new token is in force and has to be shown. The pod that holds the session ends it too.
        match tokio::time::timeout(APPEND_TIMEOUT, append).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => {
                tracing::warn!(satellite = %id, "the end of a session with an old token is late");
            }
        }
    }
    // After the edge, which names who did it, unless the session's pod has looked in between.
    api.changed.tell();
    // Not through the reads, which may be turned away: the token is shown now or never.
    let get = async |client: &mut Object| satellites::get(client, id, api.default_threshold).await;
    let satellite = api.writes.run(get).await?;
    let satellite = satellite.ok_or_else(unknown)?;
    let token = token.expose_secret().to_owned();
    let previous_token_ends_at = previous_ends_at.map(Timestamp::new);
    Ok(Json(NewToken { satellite, token, previous_token_ends_at }))
}
