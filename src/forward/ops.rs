//! The listener for operators: `/livez`, `/readyz`, `/metrics`.

use std::net::SocketAddr;

use anyhow::Context as _;
use async_nats::connection::State as Connection;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::numbers::Numbers;
use crate::ingress::listener::{self, Door};
use crate::ingress::settings::Settings;
use crate::platform::metrics::Metrics;
use crate::platform::metrics::exposition::Form;

/// What the routes tell of.
#[derive(Clone)]
struct Ops {
    nats: async_nats::Client,
    numbers: Numbers,
}

/// Listens and serves until told to stop.
pub fn serve(
    address: SocketAddr,
    settings: &Settings,
    nats: async_nats::Client,
    numbers: Numbers,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let listener = listener::listen(address).with_context(|| {
        format!("cannot listen on GROUNDSTATION_FORWARD_OPS_LISTEN ({address})")
    })?;
    let address = listener.local_addr().context("cannot tell the listening address")?;
    info!(%address, "probes and metrics are here");
    let routes = Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Ops { nats, numbers });
    let door = Door::for_operators(settings, Metrics::new())?;
    Ok(tokio::spawn(door.serve(listener, routes, stop)))
}

/// It is ready while it forwards, or stands by for the one that does.
async fn ready(State(ops): State<Ops>) -> (StatusCode, &'static str) {
    match (ops.nats.connection_state(), ops.numbers.active.get()) {
        (Connection::Connected, 1) => (StatusCode::OK, "forwarding"),
        (Connection::Connected, _) => (StatusCode::OK, "standing by"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "NATS is away"),
    }
}

async fn metrics(State(ops): State<Ops>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let form = Form::accepted(accept.unwrap_or_default());
    match ops.numbers.encode(form) {
        Ok(text) => ([(header::CONTENT_TYPE, form.content_type())], text).into_response(),
        Err(std::fmt::Error) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
