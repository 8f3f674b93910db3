//! The satellites' door: `GET /api/ws/satellite`.
//!
//! [`session`] is one socket's life and [`active_session`] its authenticated part. [`duplex_socket`] reads
//! while it writes. [`protocol`] has the messages. [`intake`] bounds the size of what comes in; large
//! messages wait for [`room`]. [`crate::sessions::table`] has the sessions of this pod. [`questions`] and
//! [`backends`] pass on what satellites ask and say. The gateway hands edges to the log, heartbeats to the
//! flusher and results to their queue. It answers no questions about the fleet.

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
use crate::ingress::arrival::{Arrival, ClientCertificate};
use crate::ingress::listener::Door;
use crate::ingress::problem::{self, ProblemJson};
use crate::ingress::refusal::Refusal;
use crate::ingress::settings::Certificates;
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

/// Rate of log lines about dropped messages and about satellites' complaints: a burst, then one a second.
pub const COMPLAINTS_TOLD: Rate = Rate { burst: 50.0, per_second: 1.0 };

/// The title of what may work again in a moment.
const NOT_NOW: &str = "Not now";

/// The part of that rate that one session may take.
const COMPLAINTS_OF_A_SESSION: Rate = Rate { burst: 10.0, per_second: 0.1 };

/// What every socket of this pod needs.
pub struct Gateway {
    /// Checks tokens.
    pub credentials: Credentials,
    /// The desired state of satellites.
    pub desired_state: BatchLoader<DesiredState>,
    /// The backends that satellites ask and report to.
    pub backends: Arc<Backends>,
    /// Where edges go.
    pub log: Log,
    /// Where heartbeats go.
    pub heartbeats: Arc<Heartbeats>,
    /// The sessions of this pod.
    pub sessions: Arc<SessionTable>,
    /// Whether the pod accepts new satellites.
    pub health: Arc<Health>,
    /// The pod's metrics.
    pub metrics: Metrics,
    /// The sockets' tasks, waited for at the end.
    pub sockets: TaskTracker,
    /// Cancelled when a draining pod closes its sockets, with 1012.
    pub drain: CancellationToken,
    /// The time over which a draining pod spreads its goodbyes.
    pub drain_spread: Duration,
    /// The default offline threshold.
    pub default_threshold: Duration,
    /// The memory that large messages may take.
    pub room: Arc<Room>,
    /// The limits that hold before authentication.
    pub door: Arc<Door>,
    /// How often each satellite may still connect.
    pub connects: Mutex<Budgets>,
    /// Bounds the log lines about refused satellites.
    pub refusals: LogGate,
    /// Bounds the log lines about dropped messages and satellites' complaints.
    pub complaints: Arc<LogGate>,
}

impl Gateway {
    /// Counts a dropped message and logs it.
    fn drop_message(&self, told: &mut Share, satellite: SatelliteId, reason: &'static str) {
        self.metrics.dropped(reason);
        if let Some(left_out) = self.complaints.pass_within(told, Instant::now()) {
            info!(%satellite, reason, left_out, "a message was dropped");
        }
    }

    /// The value of a field that a satellite sent, if it was understood.
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
                    info!(%satellite, field, left_out, "a field of a message was left out: it is not valid");
                }
                None
            }
        }
    }
}

/// A socket that is not authenticated yet.
pub struct Handshake {
    /// The satellite's address.
    pub client: IpAddr,
    /// When it must have authenticated.
    pub deadline: Instant,
    /// The names in its certificate, if it showed one.
    pub certificate: Option<Arc<[String]>>,
    /// Its place at the door.
    pub place: Place,
}

/// The gateway's only route.
pub fn routes(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/api/ws/satellite", get(accept))
        .method_not_allowed_fallback(problem::no_method)
        .with_state(gateway)
}

async fn accept(
    State(gateway): State<Arc<Gateway>>,
    Extension(arrival): Extension<Arrival>,
    Extension(certificate): Extension<ClientCertificate>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Response {
    if gateway.health.is_draining() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let detail = "This pod is about to end; connect to another.";
        let problem = ProblemJson::new(status, "draining", NOT_NOW, detail);
        return ([(header::RETRY_AFTER, "1")], problem).into_response();
    }
    let handshake = match admit(&gateway.door, &arrival, certificate, &headers) {
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

/// The checks before the upgrade: cheap, without a look at the database.
fn admit(
    door: &Door,
    arrival: &Arrival,
    ClientCertificate(certificate): ClientCertificate,
    headers: &HeaderMap,
) -> Result<Handshake, Refusal> {
    door.check_origin(headers)?;
    if certificate.is_none() && door.settings().certificates == Certificates::Required {
        return Err(Refusal::NoCertificate);
    }
    let place = door.handshake(arrival.client)?;
    Ok(Handshake { client: arrival.client, deadline: arrival.deadline, certificate, place })
}

fn refuse(refusal: Refusal) -> Response {
    let many = StatusCode::TOO_MANY_REQUESTS;
    let (status, title, detail) = match refusal {
        Refusal::Origin => {
            let detail = "This pod does not take sockets of this origin; an agent sends no Origin.";
            return problem_of(refusal, StatusCode::FORBIDDEN, "Not allowed", detail)
                .into_response();
        }
        Refusal::NoCertificate => {
            let detail = "A satellite of this pod shows a client certificate that names it.";
            return problem_of(refusal, StatusCode::FORBIDDEN, "Not allowed", detail)
                .into_response();
        }
        Refusal::HandshakesPerAddress => {
            (many, "Too many", "Too many sockets of this address are not authenticated.")
        }
        Refusal::HandshakesPerNetwork => {
            (many, "Too many", "Too many sockets of this network are not authenticated.")
        }
        Refusal::FailedAuthenticationsPerNetwork => {
            (many, "Too many", "Too many authentications from this network have failed.")
        }
        Refusal::FailedAuthenticationsPerAddress => {
            (many, "Too many", "Too many authentications from this address have failed.")
        }
        _ => {
            let detail = "Too many satellites are connecting at once.";
            (StatusCode::SERVICE_UNAVAILABLE, NOT_NOW, detail)
        }
    };
    let retry = [(header::RETRY_AFTER, refusal.retry_after().as_secs().to_string())];
    (retry, problem_of(refusal, status, title, detail)).into_response()
}

/// Its type is the word that the metric and the settings have for it.
fn problem_of(refusal: Refusal, status: StatusCode, title: &str, detail: &str) -> ProblemJson {
    ProblemJson::new(status, &refusal.as_str().replace('_', "-"), title, detail)
}
