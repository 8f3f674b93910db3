//! Builds the parts of a pod from what they share, and spawns them.

use std::sync::{Arc, Mutex};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::config::Config;
use super::doors::Doors;
use super::running::{Running, Signals};
use super::stores::Stores;
use super::token_files;
use crate::api::access::Access;
use crate::api::enrolment::Enrolments;
use crate::api::live::Streams;
use crate::api::micro::Micro;
use crate::api::{self, Api};
use crate::console;
use crate::domain::lifecycle::Position;
use crate::gateway::backends::Backends;
use crate::gateway::backends::packages::Packages;
use crate::gateway::backends::results::Results;
use crate::gateway::backends::results::publisher::Publisher;
use crate::gateway::backends::secrets::Provider;
use crate::gateway::room::Room;
use crate::gateway::{self, Gateway};
use crate::ingress::listener::{self, Door};
use crate::log::append::{self, Appender, Log};
use crate::log::audit::notices::Notices;
use crate::log::audit::retention::AuditKeeper;
use crate::log::continuity;
use crate::log::request::Appended;
use crate::log::retention::{Keeper, Retention};
use crate::log::seal::Sealer;
use crate::log::transaction::Rules;
use crate::platform::batch_loader::BatchLoader;
use crate::platform::health::Health;
use crate::platform::log_gate::LogGate;
use crate::platform::metrics::Metrics;
use crate::platform::migrations;
use crate::platform::replicas::Replication;
use crate::presence::census::Census;
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
use crate::stream::tail;

/// Administrators' changes that have a connection at once: each may wait for a satellite's row, and
/// the log's own work needs the other connections.
const CHANGES_AT_ONCE: usize = 2;

/// Questions of satellites that have a connection at once.
const QUESTIONS_AT_ONCE: usize = 2;

/// What the parts of a pod share.
pub struct Pod<'a> {
    config: &'a Config,
    stores: Stores,
    nats: async_nats::Client,
    metrics: Metrics,
    health: Arc<Health>,
    heartbeats: Arc<Heartbeats>,
    sessions: Arc<SessionTable>,
    /// The way into the log.
    log: Log,
    /// The log's head, as far as this pod knows it.
    head: watch::Sender<Position>,
    changed: Changed,
    /// Sign-ins and refusals on their way into the audit.
    notices: Arc<Notices>,
    results: Arc<Results>,
    packages: Arc<Packages>,
    /// Limits the log lines about what satellites do and ask.
    complaints: Arc<LogGate>,
    signals: Signals,
}

/// The receiving end of the way into the log, and the announcements to the other pods.
pub struct LogEnd {
    appender: Appender,
    announcements: mpsc::Receiver<Appended>,
}

impl<'a> Pod<'a> {
    /// Builds what the parts share; nothing runs yet.
    pub fn new(
        config: &'a Config,
        stores: Stores,
        nats: async_nats::Client,
        metrics: Metrics,
    ) -> (Pod<'a>, LogEnd) {
        let (health, heartbeats) = (Arc::new(Health::default()), Arc::new(Heartbeats::default()));
        let (head, _) = watch::channel(Position::ZERO);
        let (announce, announcements) = mpsc::channel(peers::QUEUE);
        let rules = Rules {
            default_threshold: config.offline_threshold,
            flapping: config.flapping,
            pod: stores.number,
        };
        let (log, appender) = append::appender(
            stores.database.clone(),
            rules,
            head.clone(),
            announce,
            health.clone(),
            metrics.clone(),
        );
        let complaints = Arc::new(LogGate::new(gateway::COMPLAINTS_TOLD));
        let packages =
            Packages::new(nats.clone(), config.max_blob_bytes, complaints.clone(), metrics.clone());
        let pod = Pod {
            config,
            sessions: SessionTable::new(heartbeats.clone(), metrics.clone()),
            results: Arc::new(Results::new(config.door.results, metrics.clone())),
            packages: Arc::new(packages),
            complaints,
            changed: Changed::default(),
            notices: Arc::new(Notices::new(stores.database.clone(), metrics.clone())),
            signals: Signals::default(),
            stores,
            nats,
            metrics,
            health,
            heartbeats,
            log,
            head,
        };
        (pod, LogEnd { appender, announcements })
    }

    /// Spawns all parts. This function keeps no sender into the log: the log's end stops when the
    /// last part that may have an edge has stopped.
    pub async fn spawn(self, log: LogEnd, doors: Doors) -> anyhow::Result<Running> {
        let changes = Changes::begin(
            self.stores.database.clone(),
            self.nats.clone(),
            self.sessions.clone(),
            self.changed.clone(),
        )
        .await?;
        let settings = self.config.access.clone();
        let people = self.config.sign_on.people()?;
        let access = Access::begin(settings, people, self.stores.database.clone()).await?;
        let gateway = self.gateway(doors.door.clone());
        let api = self.api(doors.door.clone(), access.clone());
        let past = continuity::watch(self.stores.database.clone(), self.signals.stop.clone());
        let (past, appender) = (tokio::spawn(past), tokio::spawn(log.appender.run()));
        let (database, reads) = (self.stores.database.clone(), self.stores.reads.clone());
        let schema = tokio::spawn(migrations::watch(
            database.clone(),
            reads.clone(),
            self.signals.stop.clone(),
        ));
        let shared = tokio::spawn(database.watch(reads, self.signals.stop.clone()));
        let mut parts = JoinSet::new();
        self.spawn_presence(&mut parts);
        self.spawn_followers_of_the_log(&mut parts);
        self.spawn_exchange_with_pods(&mut parts, log.announcements, changes);
        self.spawn_exchange_with_backends(&mut parts, &gateway);
        self.spawn_upkeep(&mut parts, &doors.door);
        self.spawn_followers_of_tokens(&mut parts, access);
        let micro =
            Micro { api: api.clone(), nats: self.nats.clone(), pod: self.config.pod.clone() };
        parts.spawn(micro.run(self.signals.stop.clone()));
        let sockets = gateway.sockets.clone();
        let provider = self.config.sign_on.provider.clone();
        let page = console::routes(api.clone(), self.config.sign_in.clone(), provider)?;
        let routes = api::routes(api.clone()).merge(page).merge(gateway::routes(gateway));
        let requests = doors.serve(routes, api::ops_routes(api), &self.signals.stop_http);
        let (signals, health) = (self.signals, self.health);
        Ok(Running { signals, health, sockets, requests, parts, appender, past, schema, shared })
    }

    fn gateway(&self, door: Arc<Door>) -> Arc<Gateway> {
        let (config, metrics) = (self.config, &self.metrics);
        let backends = Backends::new(
            self.results.clone(),
            self.packages.clone(),
            Provider::new(config.secrets_dir.clone(), self.nats.clone()),
            self.stores.database.lane(QUESTIONS_AT_ONCE),
            self.nats.clone(),
            self.complaints.clone(),
            metrics.clone(),
        );
        let room = Room::new(
            config.door.large_message_bytes,
            config.door.max_message_bytes,
            config.door.large_message_timeout,
            metrics.clone(),
        );
        Arc::new(Gateway {
            credentials: Credentials::new(self.stores.database.clone()),
            desired_state: BatchLoader::new(&self.stores.database),
            backends: Arc::new(backends),
            log: self.log.clone(),
            heartbeats: self.heartbeats.clone(),
            sessions: self.sessions.clone(),
            health: self.health.clone(),
            metrics: metrics.clone(),
            sockets: TaskTracker::new(),
            drain: self.signals.drain.clone(),
            drain_spread: config.drain.spread,
            default_threshold: config.offline_threshold,
            room,
            door,
            connects: Mutex::new(Budgets::new(config.door.connects)),
            refusals: LogGate::new(listener::REFUSALS_TOLD),
            complaints: self.complaints.clone(),
        })
    }

    fn api(&self, door: Arc<Door>, access: Arc<Access>) -> Arc<Api> {
        let (config, reads) = (self.config, &self.stores.reads);
        let streams = Streams::new(
            config.streams,
            reads,
            self.head.subscribe(),
            self.signals.drain.clone(),
            self.metrics.clone(),
        );
        Arc::new(Api {
            writes: self.stores.database.lane(CHANGES_AT_ONCE),
            enrolments: Enrolments::new(
                config.enrolments,
                self.stores.database.clone(),
                self.metrics.clone(),
            ),
            reads: reads.clone(),
            scans: reads.lane(config.reads.of_many_rows()),
            log: self.log.clone(),
            access,
            door,
            notices: self.notices.clone(),
            wrong_tokens: LogGate::new(listener::REFUSALS_TOLD),
            default_threshold: config.offline_threshold,
            health: self.health.clone(),
            changed: self.changed.clone(),
            vouch_window: config.vouch_window.unwrap_or_default(),
            metrics: self.metrics.clone(),
            streams: Arc::new(streams),
        })
    }

    /// Presence: writes heartbeats, finds losses, moves the watermark, and counts the fleet.
    fn spawn_presence(&self, parts: &mut JoinSet<()>) {
        let (config, stores) = (self.config, &self.stores);
        let flusher = Flusher {
            pod: stores.number,
            default_threshold: config.offline_threshold,
            vouch_window: config.vouch_window,
            reconcile_interval: config.heartbeat_interval,
            heartbeats: self.heartbeats.clone(),
            sessions: self.sessions.clone(),
            database: stores.database.clone(),
            log: self.log.clone(),
            metrics: self.metrics.clone(),
        };
        let monitor = Monitor {
            pod: stores.number,
            database: stores.database.clone(),
            sessions: self.sessions.clone(),
            log: self.log.clone(),
            interval: config.sweep_interval,
            default_threshold: config.offline_threshold,
            heartbeat_interval: config.heartbeat_interval,
            brown_out: config.brown_out,
            health: self.health.clone(),
            metrics: self.metrics.clone(),
        };
        let probe = Probe {
            health: self.health.clone(),
            name: config.pod.clone(),
            pod: stores.number,
            vouch_window: config.vouch_window,
            database: stores.database.clone(),
            reads: stores.reads.clone(),
            partition_width: config.partition_width,
            nats: self.nats.clone(),
            metrics: self.metrics.clone(),
        };
        let census = Census {
            reads: stores.reads.lane(1),
            default_threshold: config.offline_threshold,
            interval: config.census_interval,
            health: self.health.clone(),
            metrics: self.metrics.clone(),
        };
        parts.spawn(census.run(self.signals.stop.clone()));
        parts.spawn(flusher.run(self.signals.stop.clone()));
        parts.spawn(monitor.run(self.signals.stop.clone()));
        parts.spawn(probe.run(self.signals.stop.clone()));
    }

    /// The followers of the log: the relay and the sealer.
    fn spawn_followers_of_the_log(&self, parts: &mut JoinSet<()>) {
        let relay = Relay {
            pod: self.config.pod.clone(),
            database: self.stores.database.clone(),
            nats: self.nats.clone(),
            head: self.head.subscribe(),
            health: self.health.clone(),
            replication: Replication::of(tail::NAME, self.config.replicas),
            cell: self.config.cell.clone(),
            metrics: self.metrics.clone(),
        };
        let sealer = Sealer {
            database: self.stores.database.clone(),
            head: self.head.subscribe(),
            interval: self.config.seal_interval,
            metrics: self.metrics.clone(),
        };
        parts.spawn(relay.run(self.signals.stop.clone()));
        parts.spawn(sealer.run(self.signals.stop.clone()));
    }

    /// The exchange between pods: announcements, and administrators' changes at other pods.
    fn spawn_exchange_with_pods(
        &self,
        parts: &mut JoinSet<()>,
        announcements: mpsc::Receiver<Appended>,
        changes: Changes,
    ) {
        let peers = Peers {
            nats: self.nats.clone(),
            announcements,
            head: self.head.clone(),
            sessions: self.sessions.clone(),
            database: self.stores.database.clone(),
        };
        parts.spawn(peers.run(self.signals.stop.clone()));
        parts.spawn(changes.run(self.signals.stop.clone()));
    }

    /// The exchange with other backends: what satellites report and what they need.
    fn spawn_exchange_with_backends(&self, parts: &mut JoinSet<()>, gateway: &Gateway) {
        let publisher = Publisher {
            results: self.results.clone(),
            nats: self.nats.clone(),
            database: self.stores.database.clone(),
            complaints: self.complaints.clone(),
            replicas: self.config.replicas,
            cell: self.config.cell.clone(),
            metrics: self.metrics.clone(),
        };
        parts.spawn(publisher.run(self.signals.stop.clone()));
        parts.spawn(self.packages.clone().listen(self.signals.stop.clone()));
        let (wanted, nats) = (gateway.backends.wanted.clone(), self.nats.clone());
        let stop = self.signals.stop.clone();
        parts.spawn(async move { wanted.watch(&nats, stop).await });
    }

    /// What keeps the tokens of the HTTP API up to date: the named ones, and those in files.
    fn spawn_followers_of_tokens(&self, parts: &mut JoinSet<()>, access: Arc<Access>) {
        let (files, stop) = (self.config.token_files.clone(), &self.signals.stop);
        if !files.is_empty() {
            parts.spawn(token_files::follow(files, access.clone(), stop.clone()));
        }
        parts.spawn(access.follow(self.nats.clone(), stop.clone()));
    }

    /// Periodic work, if it is configured.
    fn spawn_upkeep(&self, parts: &mut JoinSet<()>, door: &Door) {
        let (config, stop) = (self.config, &self.signals.stop);
        if let Some(tls) = door.tls() {
            let every = config.door.tls_reload_interval;
            parts.spawn(tls.clone().follow(every, self.metrics.clone(), stop.clone()));
        }
        let (notices, stopped) = (self.notices.clone(), stop.clone());
        parts.spawn(async move { notices.run(stopped).await });
        if let Some(older_than) = config.audit_retention {
            let (database, metrics) = (self.stores.database.clone(), self.metrics.clone());
            parts.spawn(AuditKeeper { database, older_than, metrics }.run(stop.clone()));
        }
        if let Some(older_than) = config.retention {
            let (database, archive) = (self.stores.database.clone(), config.archive.clone());
            let retention = Retention { database, older_than, archive };
            parts.spawn(Keeper { retention, metrics: self.metrics.clone() }.run(stop.clone()));
        }
    }
}
