//! The satellites' door: `GET /api/ws/satellite`.
//!
//! [`session`] is one socket's life, [`active_session`] the authenticated part of it, [`duplex_socket`] how it reads
//! while it writes, [`protocol`] its messages; [`intake`] holds what comes to its size, and what is large
//! waits for [`room`]. [`crate::sessions::table`] is the sessions of this pod; [`questions`] and [`backends`] what satellites ask of others and say to them. The gateway
//! hands edges to the log, heartbeats to the flusher and results to their queue, and answers no
//! questions about the fleet.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::info;

use crate::domain::lifecycle::SatelliteId;
use crate::ingress::admission::Place;
use crate::ingress::arrival::Arrival;
use crate::ingress::listener::Door;
use crate::ingress::refusal::Refusal;
use crate::log::append::Log;
use crate::platform::batch_loader::BatchLoader;
use crate::platform::bucket::Rate;
use crate::platform::health::Health;
use crate::platform::log_gate::{LogGate, Share};
use crate::platform::metrics::Metrics;
use crate::registry::credentials::Credentials;
use crate::registry::desired::DesiredState;
use crate::sessions::budgets::Budgets;
use crate::sessions::heartbeats::Heartbeats;
use crate::sessions::table::SessionTable;
use backends::Backends;
use protocol::Said;
use room::Room;
use socket::Upgrade;

mod active_session;
pub(crate) mod backends;
mod duplex_socket;
mod end;
pub(crate) mod intake;
mod lane;
pub mod message_schemas;
pub mod protocol;
#[cfg(test)]
mod protocol_properties;
mod questions;
pub mod room;
mod session;
pub mod socket;

/// Lines about what satellites send that is dropped, or complain about: so many at once, then one a second.
pub const COMPLAINTS_TOLD: Rate = Rate { burst: 50.0, per_second: 1.0 };

/// The most of them that one session takes.
const COMPLAINTS_OF_A_SESSION: Rate = Rate { burst: 10.0, per_second: 0.1 };

/// What every socket of this pod needs.
pub struct Gateway {
    /// Who can tell a right token from a wrong one.
    pub credentials: Credentials,
    /// What satellites are to be told.
    pub desired_state: BatchLoader<DesiredState>,
    /// Whom they ask and tell.
    pub backends: Arc<Backends>,
    /// Where edges go.
    pub log: Log,
    /// Where heartbeats go.
    pub heartbeats: Arc<Heartbeats>,
    /// The sessions of this pod.
    pub sessions: Arc<SessionTable>,
    /// Whether the pod lets anybody in.
    pub health: Arc<Health>,
    /// What it counts.
    pub metrics: Metrics,
    /// The sockets' tasks, waited for at the end.
    pub sockets: TaskTracker,
    /// Cancelled when a draining pod closes its sockets, with 1012.
    pub drain: CancellationToken,
    /// Over how long a draining pod spreads its goodbyes.
    pub drain_spread: Duration,
    /// The default offline threshold.
    pub default_threshold: Duration,
    /// What large messages may take of the pod's memory.
    pub room: Arc<Room>,
    /// What everybody is held to before it has said who it is.
    pub door: Arc<Door>,
    /// How often satellites may still connect.
    pub connects: Mutex<Budgets>,
    /// What is told of those that are refused.
    pub refusals: LogGate,
    /// What is told of messages that are dropped, and of what satellites complain about.
    pub complaints: Arc<LogGate>,
}

impl Gateway {
    /// Counts a message that is dropped, and tells of it.
    fn drop_message(&self, told: &mut Share, satellite: SatelliteId, reason: &'static str) {
        self.metrics.dropped(reason);
        if let Some(left_out) = self.complaints.pass_within(told, Instant::now()) {
            info!(%satellite, reason, left_out, "a message was dropped");
        }
    }

    /// What a satellite says of itself, where that can be understood.
    fn understood<T>(
        &self,
        told: &mut Share,
        satellite: SatelliteId,
        field: &'static str,
        said: Option<Said<T>>,
    ) -> Option<T> {
        match said? {
            Said::Understood(said) => Some(said),
            Said::Odd => {
                self.metrics.dropped(field);
                if let Some(left_out) = self.complaints.pass_within(told, Instant::now()) {
                    info!(%satellite, field, left_out, "a field of a message was left out: it is not what it should be");
                }
                None
            }
        }
    }
}

/// A socket on its way to being authenticated.
pub struct Handshake {
    /// Where the satellite is.
    pub client: IpAddr,
    /// Until when it must have said who it is.
    pub deadline: Instant,
    /// Its place at the door.
    pub place: Place,
}

/// The gateway's only route.
pub fn routes(gateway: Arc<Gateway>) -> Router {
    Router::new().route("/api/ws/satellite", get(accept)).with_state(gateway)
}

async fn accept(
    State(gateway): State<Arc<Gateway>>,
    Extension(arrival): Extension<Arrival>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    if gateway.health.is_draining() {
        let retry = [(header::RETRY_AFTER, "1".to_owned())];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, "draining").into_response();
    }
    let handshake = match admit(&gateway.door, &arrival, &headers) {
        Ok(handshake) => handshake,
        Err(refusal) => {
            gateway.metrics.refused(refusal);
            return refuse(refusal);
        }
    };
    let limits = gateway.door.settings().socket;
    let (room, metrics) = (gateway.room.clone(), gateway.metrics.clone());
    socket::upgrade(upgrade, limits, room, metrics, |socket| async move {
        let sockets = gateway.sockets.clone();
        sockets.track_future(session::run(socket, gateway, handshake)).await;
    })
}

/// What can be said before the upgrade: cheap, and without a look at the database.
fn admit(door: &Door, arrival: &Arrival, headers: &HeaderMap) -> Result<Handshake, Refusal> {
    door.check_origin(headers)?;
    let place = door.handshake(arrival.client)?;
    Ok(Handshake { client: arrival.client, deadline: arrival.deadline, place })
}

fn refuse(refusal: Refusal) -> Response {
    let (status, words) = match refusal {
        Refusal::Origin => return (StatusCode::FORBIDDEN, "origin not allowed").into_response(),
        Refusal::HandshakesPerAddress => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many sockets of this address are not authenticated",
        ),
        Refusal::HandshakesPerNetwork => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many sockets of this network are not authenticated",
        ),
        Refusal::FailedAuthenticationsPerNetwork => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many authentications from this network have failed",
        ),
        Refusal::FailedAuthenticationsPerAddress => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many authentications from this address have failed",
        ),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "too many satellites are connecting at once"),
    };
    let retry = [(header::RETRY_AFTER, refusal.retry_after().as_secs().to_string())];
    (status, retry, words).into_response()
}
