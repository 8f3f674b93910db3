//! The satellites' door: `GET /api/ws/satellite`.
//!
//! [`session`] is one socket's life, [`live`] the authenticated part of it, [`line`] how it reads
//! while it writes, [`protocol`] its messages. [`registry`] and [`standings`] are the sessions of this
//! pod; [`questions`] and [`backends`] what satellites ask of others and say to them. The gateway
//! hands edges to the log, heartbeats to the flusher and results to their queue, and answers no
//! questions about the fleet.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::extract::ws::WebSocketUpgrade;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::credentials::Credentials;
use crate::database::Database;
use crate::heartbeats::Heartbeats;
use crate::log::append::Log;
use crate::metrics::Metrics;
use crate::packages;
use backends::Backends;
use registry::Registry;
use standings::Standings;

pub mod backends;
mod line;
mod live;
pub mod protocol;
mod questions;
pub mod registry;
mod session;
pub mod standings;

/// The largest message, and the largest frame, of a satellite.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// axum's default of 128 KiB is allocated for every socket; a heartbeat has a hundred bytes.
const READ_BUFFER_BYTES: usize = 4 * 1024;

/// What may wait to be written to a satellite that does not read: one message, of which the largest
/// is a script package.
const MAX_WRITE_BUFFER_BYTES: usize = packages::MAX_ANSWER_BYTES + 64 * 1024;

/// Sockets that are not authenticated yet, in one pod; more are answered 503.
const MAX_HANDSHAKES: usize = 2_048;

/// What every socket of this pod needs.
pub struct Gateway {
    /// Who can tell a right token from a wrong one.
    pub credentials: Credentials,
    /// Where it is written what satellites are to be told.
    pub database: Database,
    /// What they were told.
    pub standings: Arc<Standings>,
    /// Whom they ask and tell.
    pub backends: Arc<Backends>,
    /// Where edges go.
    pub log: Log,
    /// Where heartbeats go.
    pub heartbeats: Arc<Heartbeats>,
    /// The sessions of this pod.
    pub registry: Arc<Registry>,
    /// What it counts.
    pub metrics: Metrics,
    /// The sockets' tasks, waited for at the end.
    pub sockets: TaskTracker,
    /// Cancelled when the pod drains: sockets are closed with 1012.
    pub drain: CancellationToken,
    /// Over how long a draining pod spreads its goodbyes.
    pub drain_spread: Duration,
    /// After how long without any frame a socket is taken for dead.
    pub idle_timeout: Duration,
    /// The places for sockets that are not authenticated yet, see [`handshakes`].
    pub handshakes: Arc<Semaphore>,
}

/// As many places as one pod has for sockets that are not authenticated yet.
pub fn handshakes() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_HANDSHAKES))
}

/// The gateway's only route.
pub fn routes(gateway: Arc<Gateway>) -> Router {
    Router::new().route("/api/ws/satellite", get(accept)).with_state(gateway)
}

async fn accept(State(gateway): State<Arc<Gateway>>, upgrade: WebSocketUpgrade) -> Response {
    if gateway.drain.is_cancelled() {
        return busy("draining");
    }
    let Ok(handshake) = gateway.handshakes.clone().try_acquire_owned() else {
        gateway.metrics.authentication("shed");
        return busy("too many satellites are connecting at once");
    };
    upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_WRITE_BUFFER_BYTES)
        .on_failed_upgrade(|error| tracing::debug!(%error, "upgrade failed"))
        .on_upgrade(|socket| async move {
            let sockets = gateway.sockets.clone();
            sockets.track_future(session::run(socket, gateway, handshake)).await;
        })
}

fn busy(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], why).into_response()
}
