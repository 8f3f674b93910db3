//! The listeners of a pod: the public one and, if it is configured, one for its operators.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::config::Config;
use crate::api;
use crate::ingress::listener::{self, Door};
use crate::platform::metrics::Metrics;

/// The bound listeners. Connections wait until they are served.
pub struct Doors {
    /// The public door.
    pub door: Arc<Door>,
    /// Its address.
    pub address: SocketAddr,
    listener: TcpListener,
    ops: Option<Ops>,
}

/// The operators' door.
struct Ops {
    door: Arc<Door>,
    address: SocketAddr,
    listener: TcpListener,
}

impl Doors {
    /// Binds the listeners.
    pub fn open(config: &Config, metrics: &Metrics) -> anyhow::Result<Doors> {
        let (listener, address) = listen("GROUNDSTATION_LISTEN", config.listen)?;
        let ops = config.ops_listen.map(|address| {
            let (listener, address) = listen("GROUNDSTATION_OPS_LISTEN", address)?;
            let door = Door::for_operators(&config.door, metrics.clone())?;
            anyhow::Ok(Ops { door, address, listener })
        });
        let door = Door::new(config.door.clone(), metrics.clone())?;
        Ok(Doors { door, address, listener, ops: ops.transpose()? })
    }

    /// Serves until told to stop, then until the last request has ended. The public door serves the
    /// operators' routes if they have no door of their own.
    pub fn serve(
        self,
        mut routes: Router,
        ops_routes: Router,
        stop: &CancellationToken,
    ) -> JoinSet<()> {
        let mut requests = JoinSet::new();
        match self.ops {
            Some(Ops { door, address, listener }) => {
                info!(%address, "probes and metrics are here");
                let routes = ops_routes.fallback(api::no_route);
                requests.spawn(door.serve(listener, routes, stop.clone()));
            }
            None => routes = routes.merge(ops_routes),
        }
        requests.spawn(self.door.serve(self.listener, routes, stop.clone()));
        requests
    }
}

/// A listener and its address.
fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = listener::listen(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "the port of {setting} ({address}) is in use: choose another, or end the program that has it"
        ),
        _ => anyhow::anyhow!("cannot listen on {setting} ({address}): {error}"),
    })?;
    let address = listener.local_addr().context("cannot tell the listening address")?;
    Ok((listener, address))
}
