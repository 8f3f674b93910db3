//! One pod: spawn its parts, wait, drain, join.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::api::{self, Api};
use crate::changes::{Changed, Changes};
use crate::config::Config;
use crate::credentials::Credentials;
use crate::gateway::backends::Backends;
use crate::gateway::registry::Registry;
use crate::gateway::standings::Standings;
use crate::gateway::{self, Gateway};
use crate::health::Health;
use crate::heartbeats::{Flusher, Heartbeats};
use crate::lifecycle::Position;
use crate::log::append;
use crate::metrics::Metrics;
use crate::monitor::Monitor;
use crate::packages::Packages;
use crate::peers::{self, Peers};
use crate::probe::Probe;
use crate::relay::Relay;
use crate::results::{Publisher, Results};
use crate::retention::{Keeper, Retention};
use crate::schema;
use crate::seal::Sealer;
use crate::secrets::Provider;

/// A draining pod says goodbye to its satellites over this long.
const DRAIN_SPREAD: Duration = Duration::from_secs(2);

/// What a draining pod allows each of its steps.
const DRAIN_STEP: Duration = Duration::from_secs(8);

/// A socket that said nothing for this many offline thresholds is closed: the monitor has long
/// told what there was to tell.
const IDLE_THRESHOLDS: u32 = 4;

/// Runs a pod until `shutdown` resolves, then drains it. `ready` is told the address it listens on.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let database = config.database.clone().for_writing().pool(&config.pod)?;
    schema::check(&database, &config.database).await?;
    let listener = listen(config.listen).await?;
    let address = listener.local_addr().context("cannot tell the listening address")?;
    let metrics = Metrics::new();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics.started.set(now.as_secs_f64());
    let client_name = format!("groundstation {}", config.pod);
    let nats = config.nats.connect_in_background(&client_name, metrics.clone()).await?;

    let health = Arc::new(Health::default());
    let registry = Arc::new(Registry::default());
    let heartbeats = Arc::new(Heartbeats::default());
    let (head, head_watch) = watch::channel(Position::ZERO);
    let (announce, announcements) = mpsc::channel(peers::QUEUE);
    let (log, appender) = append::appender(
        database.clone(),
        config.offline_threshold,
        head.clone(),
        announce,
        health.clone(),
        metrics.clone(),
    );
    let (drain, stop, stop_http) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let standings = Arc::new(Standings::default());
    let changed = Changed::default();
    let changes =
        Changes::begin(database.clone(), nats.clone(), standings.clone(), changed.clone()).await?;
    let results = Arc::new(Results::new(metrics.clone()));
    let packages = Arc::new(Packages::new(nats.clone(), metrics.clone()));
    let backends = Arc::new(Backends::new(
        results.clone(),
        packages.clone(),
        Provider::new(config.secrets_dir.clone(), nats.clone()),
        database.clone(),
        nats.clone(),
        metrics.clone(),
    ));
    let gateway = Arc::new(Gateway {
        credentials: Credentials::new(database.clone()),
        database: database.clone(),
        standings,
        backends,
        log: log.clone(),
        heartbeats: heartbeats.clone(),
        registry: registry.clone(),
        metrics: metrics.clone(),
        sockets: TaskTracker::new(),
        drain: drain.clone(),
        drain_spread: DRAIN_SPREAD,
        idle_timeout: config.offline_threshold * IDLE_THRESHOLDS,
        handshakes: gateway::handshakes(),
    });
    let sockets = gateway.sockets.clone();
    let api = Arc::new(Api {
        database: database.clone(),
        log: log.clone(),
        access: config.access.clone(),
        default_threshold: config.offline_threshold,
        health: health.clone(),
        changed,
        metrics: metrics.clone(),
    });

    let mut tasks = JoinSet::new();
    let appender = tokio::spawn(appender.run());
    tasks.spawn(
        Flusher {
            heartbeats,
            registry: registry.clone(),
            database: database.clone(),
            log: log.clone(),
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );
    tasks.spawn(
        Monitor {
            database: database.clone(),
            log,
            interval: config.sweep_interval,
            default_threshold: config.offline_threshold,
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );
    tasks.spawn(
        Relay {
            pod: config.pod.clone(),
            database: database.clone(),
            nats: nats.clone(),
            head: head_watch,
            health: health.clone(),
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );
    tasks.spawn(
        Sealer {
            database: database.clone(),
            head: head.subscribe(),
            interval: config.seal_interval,
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );
    tasks.spawn(
        Peers { nats: nats.clone(), announcements, head, registry, database: database.clone() }
            .run(stop.clone()),
    );
    tasks.spawn(changes.run(stop.clone()));
    tasks.spawn(packages.listen(stop.clone()));
    tasks.spawn(
        Publisher {
            results,
            nats: nats.clone(),
            database: database.clone(),
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );
    tasks.spawn(
        Probe {
            health: health.clone(),
            pod: config.pod.clone(),
            database: database.clone(),
            partition_width: config.partition_width,
            nats,
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );
    if let Some(older_than) = config.retention {
        let retention = Retention { database, older_than, archive: config.archive };
        tasks.spawn(Keeper { retention, metrics }.run(stop.clone()));
    }
    let routes = api::routes(api).merge(gateway::routes(gateway));
    let listener = listener.tap_io(|socket| {
        if let Err(error) = socket.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let http =
        axum::serve(listener, routes).with_graceful_shutdown(stop_http.clone().cancelled_owned());
    let http = tokio::spawn(http.into_future());

    info!(pod = %config.pod, %address, "listening");
    if config.access.admin.is_none() {
        warn!("no GROUNDSTATION_ADMIN_TOKEN is set: /v1 answers 401");
    }
    ready(address);
    tokio::select! {
        () = shutdown => info!("draining"),
        ended = tasks.join_next() => {
            error!(?ended, "a part of the pod ended by itself");
            bail!("a part of the pod ended by itself: {ended:?}");
        }
    }

    // Sockets first: while they say goodbye, everything they need still runs.
    health.drain();
    drain.cancel();
    sockets.close();
    if timeout(DRAIN_SPREAD + DRAIN_STEP, sockets.wait()).await.is_err() {
        warn!(sockets = sockets.len(), "sockets did not close in time");
    }
    stop_http.cancel();
    if timeout(DRAIN_STEP, http).await.is_err() {
        warn!("requests did not end in time");
    }
    stop.cancel();
    if timeout(DRAIN_STEP, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
        warn!("parts of the pod did not end in time");
        tasks.shutdown().await;
    }
    // Every way into the log is gone now: the appender ends when it has appended what it took.
    if timeout(DRAIN_STEP, appender).await.is_err() {
        bail!("the database does not answer: the last edges of this pod are not in the log");
    }
    info!("drained");
    Ok(())
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "the port of GROUNDSTATION_LISTEN ({address}) is in use: choose another, or end whoever has it"
        ),
        _ => anyhow::anyhow!("cannot listen on GROUNDSTATION_LISTEN ({address}): {error}"),
    })
}
