//! One pod: its settings, its parts put together, and its drain.
//!
//! [`Stores`] and [`Doors`] are opened first, so that an error comes before anything runs. [`Pod`]
//! is what the parts share; it builds and spawns them. [`Running`](running::Running) waits, and
//! ends them.

pub mod config;
mod doors;
mod parts;
mod running;
mod stores;
pub mod token_files;

use std::net::SocketAddr;
use std::time::SystemTime;

use tracing::{info, warn};

use crate::domain::cell::Cell;
use crate::platform::metrics::Metrics;
use crate::pod::config::{Config, plain_text};
use crate::pod::doors::Doors;
use crate::pod::parts::Pod;
use crate::pod::stores::Stores;

/// Runs a pod until `shutdown` resolves, then drains it. Calls `ready` with the listening address.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let stores = Stores::open(&config, &metrics).await?;
    let doors = Doors::open(&config, &metrics)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics.started.set(now.as_secs_f64());
    let client_name = format!("groundstation {}", config.pod);
    let nats = config.nats.connect_in_background(&client_name, metrics.clone()).await?;

    let (address, rights, drain) = (doors.address, stores.rights.clone(), config.drain);
    let (pod, log) = Pod::new(&config, stores, nats, metrics);
    let mut running = pod.spawn(log, doors).await?;
    tell(&config, address, &rights);
    ready(address);
    let outgrown = running.until(shutdown).await?;
    let drained = running.drain(drain).await;
    match outgrown {
        // It says why the rest could not be appended, too.
        Some(outgrown) => Err(outgrown.into()),
        None => drained,
    }
}

/// Logs that the pod listens, and warns of settings that operators may not have meant.
fn tell(config: &Config, address: SocketAddr, rights: &[String]) {
    let cell = config.cell.as_ref().map(Cell::as_str);
    info!(pod = %config.pod, cell, %address, tls = config.door.tls.is_some(), "listening");
    if config.access.admin.is_empty() {
        warn!("no GROUNDSTATION_ADMIN_TOKEN is set: /v1 answers 401");
    }
    if !rights.is_empty() {
        let could_be = rights.join(", ");
        warn!(could_be, "DATABASE_URL has more rights than a pod needs: see deploy/postgres");
    }
    for warning in plain_text::warnings(config) {
        warn!("{warning}");
    }
}
