//! One pod: spawn its parts, wait, drain, join.

pub mod config;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use deadpool_postgres::Object;
use futures_util::future::OptionFuture;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::api::micro::Micro;
use crate::api::stream::Streams;
use crate::api::{self, Api};
use crate::domain::lifecycle::Position;
use crate::gateway::backends::Backends;
use crate::gateway::backends::packages::Packages;
use crate::gateway::backends::results::{Publisher, Results};
use crate::gateway::backends::secrets::Provider;
use crate::gateway::room::Room;
use crate::gateway::{self, Gateway};
use crate::ingress::listener::{self, Door};
use crate::ingress::log_gate::LogGate;
use crate::log::retention::{Keeper, Retention};
use crate::log::rights;
use crate::log::seal::Sealer;
use crate::log::transaction::Rules;
use crate::log::watermark;
use crate::log::{append, continuity};
use crate::platform::batch_loader::Lookup;
use crate::platform::health::Health;
use crate::platform::metrics::Metrics;
use crate::platform::migrations;
use crate::pod::config::Config;
use crate::pod::config::plain_text;
use crate::presence::flusher::Flusher;
use crate::presence::monitor::Monitor;
use crate::presence::probe::Probe;
use crate::registry::credentials::Credentials;
use crate::sessions::budgets::Budgets;
use crate::sessions::changes::{Changed, Changes};
use crate::sessions::heartbeats::Heartbeats;
use crate::sessions::peers::{self, Peers};
use crate::sessions::table::SessionTable;
use crate::stream::relay::Relay;

/// What is left of the drain's deadline for the last edges, and before that for the other parts.
const APPEND_RESERVE: Duration = Duration::from_secs(2);

/// Changes by administrators that have a connection at once: each may wait for a satellite's row, and
/// the log's own work needs the others.
const CHANGES_AT_ONCE: usize = 2;

/// Questions of satellites that have a connection at once.
const QUESTIONS_AT_ONCE: usize = 2;

/// Runs a pod until `shutdown` resolves, then drains it. `ready` is told the address it listens on.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(SocketAddr),
) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    let database = config.database.clone().for_writing().pool(&config.pod)?;
    let database = database.counted(metrics.clone());
    let reads = config.database.clone().for_writing().reads(&config.pod, &config.reads)?;
    let reads = reads.counted(metrics.clone());
    migrations::check(&database, &config.database).await?;
    // These sessions too are what was asked for, and the first reader finds one open.
    reads.check(&config.database).await?;
    let rights = database.run(async |client: &mut Object| rights::beyond_the_service(client).await);
    let rights = rights.await.context("cannot look at the rights")?;
    let sign_on = async |client: &mut Object| {
        watermark::sign_on(client, &config.pod, config.vouch_window).await
    };
    let pod = database.run(sign_on).await.context("cannot sign on")?;
    let listener = listen("GROUNDSTATION_LISTEN", config.listen)?;
    let address = listener.local_addr().context("cannot tell the listening address")?;
    let ops_listener =
        config.ops_listen.map(|address| listen("GROUNDSTATION_OPS_LISTEN", address)).transpose()?;
    let door = Door::new(config.door.clone(), metrics.clone())?;
    let ops_door = Door::for_operators(&config.door, metrics.clone())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    metrics.started.set(now.as_secs_f64());
    let client_name = format!("groundstation {}", config.pod);
    let nats = config.nats.connect_in_background(&client_name, metrics.clone()).await?;

    let health = Arc::new(Health::default());
    let heartbeats = Arc::new(Heartbeats::default());
    let sessions = SessionTable::new(heartbeats.clone(), metrics.clone());
    let (head, head_watch) = watch::channel(Position::ZERO);
    let (announce, announcements) = mpsc::channel(peers::QUEUE);
    let (log, appender) = append::appender(
        database.clone(),
        Rules { default_threshold: config.offline_threshold, flapping: config.flapping, pod },
        head.clone(),
        announce,
        health.clone(),
        metrics.clone(),
    );
    let (drain, stop, stop_http) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let changed = Changed::default();
    let changes =
        Changes::begin(database.clone(), nats.clone(), sessions.clone(), changed.clone()).await?;
    let results = Arc::new(Results::new(config.door.results, metrics.clone()));
    let packages = Arc::new(Packages::new(nats.clone(), config.max_blob_bytes, metrics.clone()));
    let backends = Arc::new(Backends::new(
        results.clone(),
        packages.clone(),
        Provider::new(config.secrets_dir.clone(), nats.clone()),
        database.lane(QUESTIONS_AT_ONCE),
        nats.clone(),
        metrics.clone(),
    ));
    let wanted = backends.wanted.clone();
    let room = Room::new(
        config.door.large_message_bytes,
        config.door.max_message_bytes,
        config.door.large_message_timeout,
        metrics.clone(),
    );
    let gateway = Arc::new(Gateway {
        credentials: Credentials::new(database.clone()),
        standing: Lookup::new(&database),
        backends,
        log: log.clone(),
        heartbeats: heartbeats.clone(),
        sessions: sessions.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
        sockets: TaskTracker::new(),
        drain: drain.clone(),
        drain_spread: config.drain.spread,
        default_threshold: config.offline_threshold,
        room,
        door: door.clone(),
        connects: Mutex::new(Budgets::new(config.door.connects)),
        refusals: LogGate::new(listener::REFUSALS_TOLD),
        complaints: LogGate::new(gateway::COMPLAINTS_TOLD),
    });
    let sockets = gateway.sockets.clone();
    let api = Arc::new(Api {
        writes: database.lane(CHANGES_AT_ONCE),
        scans: reads.lane(config.reads.of_many_rows()),
        log: log.clone(),
        access: config.access.clone(),
        door: door.clone(),
        wrong_tokens: LogGate::new(listener::REFUSALS_TOLD),
        default_threshold: config.offline_threshold,
        health: health.clone(),
        changed,
        metrics: metrics.clone(),
        streams: Arc::new(Streams::new(
            config.streams,
            &reads,
            head.subscribe(),
            drain.clone(),
            metrics.clone(),
        )),
        reads: reads.clone(),
    });

    let past = tokio::spawn(continuity::watch(database.clone(), stop.clone()));
    let mut tasks = JoinSet::new();
    let mut appender = tokio::spawn(appender.run());
    tasks.spawn(
        Flusher {
            pod,
            default_threshold: config.offline_threshold,
            vouch_window: config.vouch_window,
            reconcile_interval: config.heartbeat_interval,
            heartbeats,
            sessions: sessions.clone(),
            database: database.clone(),
            log: log.clone(),
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );
    tasks.spawn(
        Monitor {
            pod,
            database: database.clone(),
            sessions: sessions.clone(),
            log,
            interval: config.sweep_interval,
            default_threshold: config.offline_threshold,
            heartbeat_interval: config.heartbeat_interval,
            brown_out: config.brown_out,
            health: health.clone(),
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
        Peers { nats: nats.clone(), announcements, head, sessions, database: database.clone() }
            .run(stop.clone()),
    );
    let micro = Micro { api: api.clone(), nats: nats.clone(), pod: config.pod.clone() };
    tasks.spawn(micro.run(stop.clone()));
    tasks.spawn(changes.run(stop.clone()));
    tasks.spawn(packages.listen(stop.clone()));
    let (looking, until) = (nats.clone(), stop.clone());
    tasks.spawn(async move { wanted.watch(&looking, until).await });
    let results_waiting = metrics.results_waiting.clone();
    let publisher = tasks.spawn(
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
            name: config.pod.clone(),
            pod,
            vouch_window: config.vouch_window,
            database: database.clone(),
            reads,
            partition_width: config.partition_width,
            nats,
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );
    if let Some(tls) = door.tls() {
        let every = config.door.tls_reload_interval;
        tasks.spawn(tls.clone().follow(every, metrics.clone(), stop.clone()));
    }
    if let Some(older_than) = config.retention {
        let retention = Retention { database, older_than, archive: config.archive.clone() };
        tasks.spawn(Keeper { retention, metrics }.run(stop.clone()));
    }
    let mut routes = api::routes(api.clone()).merge(gateway::routes(gateway));
    let ops = match ops_listener {
        Some(listener) => {
            let address = listener.local_addr().context("cannot tell the listening address")?;
            info!(%address, "probes and metrics are here");
            let ops = api::ops_routes(api).fallback(api::no_route);
            Some(tokio::spawn(ops_door.serve(listener, ops, stop_http.clone())))
        }
        None => {
            routes = routes.merge(api::ops_routes(api));
            None
        }
    };
    let http = tokio::spawn(door.serve(listener, routes, stop_http.clone()));

    info!(pod = %config.pod, %address, tls = config.door.tls.is_some(), "listening");
    if config.access.admin.is_empty() {
        warn!("no GROUNDSTATION_ADMIN_TOKEN is set: /v1 answers 401");
    }
    if !rights.is_empty() {
        let could_be = rights.join(", ");
        warn!(could_be, "DATABASE_URL has more rights than a pod needs: see deploy/postgres");
    }
    for warning in plain_text::warnings(&config) {
        warn!("{warning}");
    }
    ready(address);
    tokio::select! {
        () = shutdown => info!("draining"),
        Ok(Some(went_back)) = past => {
            error!(%went_back, "this pod knows what is no longer there, and ends to begin anew");
            return Err(went_back.into());
        }
        ended = &mut appender => {
            error!(?ended, "the appender ended by itself");
            bail!("the appender ended by itself: {ended:?}");
        }
        ended = tasks.join_next() => {
            error!(?ended, "a part of the pod ended by itself");
            bail!("a part of the pod ended by itself: {ended:?}");
        }
    }

    let by = Instant::now() + config.drain.deadline;
    // Unready and closed to whoever comes, with the sockets it has until nobody is sent here any more.
    health.drain();
    tokio::time::sleep(config.drain.delay).await;
    // Sockets first: while they say goodbye, everything they need still runs.
    drain.cancel();
    sockets.close();
    if timeout_at(by - APPEND_RESERVE * 2, sockets.wait()).await.is_err() {
        warn!(sockets = sockets.len(), "sockets did not close in time");
    }
    stop_http.cancel();
    let requests = async { tokio::join!(http, OptionFuture::from(ops)) };
    if timeout_at(by - APPEND_RESERVE * 2, requests).await.is_err() {
        warn!("requests did not end in time");
    }
    stop.cancel();
    let rest = async { while tasks.join_next().await.is_some() {} };
    if timeout_at(by - APPEND_RESERVE, rest).await.is_err() {
        warn!("parts of the pod did not end in time");
        // Otherwise it has said so itself.
        let was_publishing = !publisher.is_finished();
        tasks.shutdown().await;
        let lost = results_waiting.get();
        if was_publishing && lost > 0 {
            warn!(lost, "the pod ends with results that were not delivered");
        }
    }
    // Every way into the log is gone now: the appender ends when it has appended what it took.
    if timeout_at(by, appender).await.is_err() {
        bail!(
            "the last edges of this pod are not in the log: the database does not answer, or somebody \
             keeps a satellite's row locked"
        );
    }
    info!("drained");
    Ok(())
}

fn listen(setting: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    listener::listen(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => anyhow::anyhow!(
            "the port of {setting} ({address}) is in use: choose another, or end whoever has it"
        ),
        _ => anyhow::anyhow!("cannot listen on {setting} ({address}): {error}"),
    })
}
