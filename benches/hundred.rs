//! What a hundred pods with ten thousand satellites each cost Postgres, of which one in a hundred misses each heartbeat:
//! by the pods' own statements, without sockets.
//!
//! The real flusher of each pod runs here, with its exceptions and its reconciliation; heartbeats come to the tables of
//! sessions as they would from sockets. Beside it what it costs where every heartbeat is written: measured with a tenth of
//! the pods, as no machine of this size writes all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use groundstation::domain::brown_out;
use groundstation::domain::lifecycle::{SatelliteId, Session, SessionKey};
use groundstation::log::append::Log;
use groundstation::log::watermark;
use groundstation::log::watermark::PodNumber;
use groundstation::platform::database::Database;
use groundstation::platform::database_clock::Moment;
use groundstation::platform::health::Health;
use groundstation::platform::metrics::Metrics;
use groundstation::presence::flusher::Flusher;
use groundstation::presence::monitor::Monitor;
use groundstation::registry::assignments::Assigned;
use groundstation::registry::desired::DesiredState;
use groundstation::registry::satellites::AgentInfo;
use groundstation::sessions::heartbeats::Heartbeats;
use groundstation::sessions::table::{Inbox, SessionGuard, SessionTable};
use groundstation::sessions::vouching::Recorded;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Scale;
use crate::engine;
use crate::stores::{Stores, Written};
use crate::table::{self, compared, figure, note};

/// In how many parts the satellites of a pod send their heartbeats, spread over an interval.
const PARTS: usize = 150;

/// One heartbeat in so many is missed.
const MISSED: usize = 100;

/// How much of what.
#[derive(Clone, Copy)]
struct Plan {
    pods: usize,
    satellites: usize,
    interval: Duration,
    threshold: Duration,
}

/// One pod of them.
struct Virtual {
    number: PodNumber,
    database: Database,
    sessions: Arc<SessionTable>,
    heartbeats: Arc<Heartbeats>,
    log: Log,
    health: Arc<Health>,
    metrics: Metrics,
    /// Whom it holds.
    held: Vec<(SessionGuard, Inbox)>,
    tasks: Vec<JoinHandle<()>>,
}

/// What they cost in a second.
struct Cost {
    heartbeats: f64,
    written: Written,
    cores: f64,
}

pub fn measure(scale: Scale) {
    let full = Plan {
        pods: 100,
        satellites: 10_000,
        interval: Duration::from_secs(15),
        threshold: Duration::from_secs(45),
    };
    let smoke = Plan {
        pods: 3,
        satellites: 20,
        interval: Duration::from_millis(300),
        threshold: Duration::from_secs(1),
    };
    let plan = scale.choose(full, smoke);
    let few = Plan { pods: plan.pods.div_ceil(10), ..plan };
    // A pod has a connection for its flusher and one for its monitor; some more for edges.
    let stores = Stores::start_with(&[("max_connections", "500")]);
    stores.begin_log();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let (writing, _) = runtime.block_on(run(&stores, few, None));
    let window = plan.interval * 4 / 3;
    let (vouching, sweeping) = runtime.block_on(run(&stores, plan, Some(window)));

    table::section(&format!(
        "{} pods with {} satellites each, 1 % of the heartbeats missed; bare: each is written",
        plan.pods, plan.satellites
    ));
    let bare = writing.cores / writing.heartbeats * vouching.heartbeats;
    let cores = |cores: f64| format!("{cores:.3}");
    let what = "cores of Postgres: heartbeats and vouching";
    compared(what, cores(vouching.cores), cores(bare), vouching.cores / bare, "0.2");
    if let Some(sweeping) = sweeping {
        figure("the same with their sweeps", cores(sweeping.cores), "");
    }
    note(&format!(
        "a second: {:.0} heartbeats, {:.0} rows updated, {:.3} MB of write-ahead log",
        vouching.heartbeats,
        vouching.written.rows,
        vouching.written.wal / 1e6
    ));
    note(&format!(
        "bare: {} pods, a second {:.0} heartbeats, {:.0} rows, {:.3} MB, {:.3} cores; computed for as many as ours",
        few.pods,
        writing.heartbeats,
        writing.written.rows,
        writing.written.wal / 1e6,
        writing.cores
    ));
}

/// What so many pods cost; where they vouch, once more with their monitors.
async fn run(stores: &Stores, plan: Plan, window: Option<Duration>) -> (Cost, Option<Cost>) {
    let ids = tokio::task::block_in_place(|| stores.register(plan.pods * plan.satellites));
    let shares: Vec<&[Uuid]> = ids.chunks(plan.satellites).collect();
    let numbers = sign_on(stores, &shares, window).await;
    let (stop, heard) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let mut pods = Vec::new();
    for (n, ids) in shares.iter().enumerate() {
        let database = stores.pool(&format!("bench-{n}"));
        let mut pod = Virtual::start(numbers[n], database, plan, window, &stop);
        let keys = pod.enter(ids, window.is_some());
        pod.beat(keys, plan.interval, heard.clone(), stop.clone());
        pods.push(pod);
        // As in the field, where not all pods compare what they vouch for at the same moment.
        tokio::time::sleep(plan.interval / plan.pods as u32).await;
    }
    // A session that misses its heartbeat is an exception after a window, and heard again after two intervals.
    tokio::time::sleep(plan.interval * 5 / 2).await;
    let without = cost(stores, &heard, plan.interval * 2).await;
    let mut with = None;
    if window.is_some() {
        for pod in &mut pods {
            pod.sweep(plan, &stop);
        }
        tokio::time::sleep(plan.interval / 3).await;
        with = Some(cost(stores, &heard, plan.interval * 2).await);
    }
    stop.cancel();
    for pod in pods {
        pod.end().await;
    }
    // Else they were pods that have died.
    tokio::task::block_in_place(|| stores.sql().execute(FORGET, &[&numbers])).expect("forgotten");
    (without, with)
}

/// A number for the pod of each share, and its sessions: connected, and vouched for where it has a window.
async fn sign_on(stores: &Stores, shares: &[&[Uuid]], window: Option<Duration>) -> Vec<PodNumber> {
    let database = stores.pool("bench");
    let client = database.get().await.expect("connection");
    let mut numbers = Vec::new();
    for _ in shares {
        numbers.push(watermark::sign_on(&client, "bench", window).await.expect("a pod"));
    }
    tokio::task::block_in_place(|| {
        let mut owner = stores.sql();
        for (number, ids) in numbers.iter().zip(shares) {
            owner.execute(CONNECTED, &[ids, number, &window.is_some()]).expect("sessions");
        }
        owner.batch_execute("vacuum analyze satellite_connections").expect("vacuum");
    });
    numbers
}

async fn cost(stores: &Stores, heard: &AtomicU64, how_long: Duration) -> Cost {
    let so_far = || {
        let written = tokio::task::block_in_place(|| stores.written());
        (heard.load(Ordering::Relaxed) as f64, written, stores.postgres_cpu())
    };
    let (before, began) = (so_far(), Instant::now());
    tokio::time::sleep(how_long).await;
    let (after, took) = (so_far(), began.elapsed().as_secs_f64());
    let written = after.1.since(before.1);
    Cost {
        heartbeats: (after.0 - before.0) / took,
        written: Written { rows: written.rows / took, wal: written.wal / took },
        cores: (after.2 - before.2) / took,
    }
}

impl Virtual {
    /// With a pod's flusher, as a pod has it.
    fn start(
        number: PodNumber,
        database: Database,
        plan: Plan,
        window: Option<Duration>,
        stop: &CancellationToken,
    ) -> Virtual {
        let (metrics, health) = (Metrics::new(), Arc::new(Health::default()));
        let (log, _, mut tasks) = engine::append(&database, number, &health, &metrics);
        let heartbeats = Arc::new(Heartbeats::default());
        let sessions = SessionTable::new(heartbeats.clone(), metrics.clone());
        let flusher = Flusher {
            pod: number,
            default_threshold: plan.threshold,
            vouch_window: window,
            reconcile_interval: plan.interval,
            heartbeats: heartbeats.clone(),
            sessions: sessions.clone(),
            database: database.clone(),
            log: log.clone(),
            metrics: metrics.clone(),
        };
        tasks.push(tokio::spawn(flusher.run(stop.clone())));
        let held = Vec::new();
        Virtual { number, database, sessions, heartbeats, log, health, metrics, held, tasks }
    }

    /// Enters its sessions, as their rows say.
    fn enter(&mut self, ids: &[Uuid], vouched: bool) -> Vec<SessionKey> {
        let assigned = Assigned::nothing().expect("a list");
        let key = |id: &Uuid| SessionKey { satellite: SatelliteId(*id), session: Session(1) };
        let keys: Vec<SessionKey> = ids.iter().map(key).collect();
        for key in &keys {
            self.held.push(self.sessions.enter(*key).expect("entered"));
            let desired_state = DesiredState {
                change: 1,
                token_version: Some(1),
                previous_token: None,
                disabled: false,
                ended_session: None,
                label: String::new(),
                threshold_ms: None,
                assigned: assigned.clone(),
                sent_version: None,
            };
            self.sessions.tell(key.satellite, desired_state);
        }
        if vouched {
            self.sessions.recorded(keys.iter().map(|key| (*key, Recorded::Vouched)));
        }
        keys
    }

    /// Its satellites send heartbeats from now on, but for those they miss.
    fn beat(
        &mut self,
        keys: Vec<SessionKey>,
        interval: Duration,
        heard: Arc<AtomicU64>,
        stop: CancellationToken,
    ) {
        let (sessions, heartbeats) = (self.sessions.clone(), self.heartbeats.clone());
        self.tasks.push(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(interval / PARTS as u32);
            for part in keys.chunks(keys.len().div_ceil(PARTS)).cycle() {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = stop.cancelled() => return,
                }
                for key in part.iter().filter(|_| fastrand::usize(..MISSED) > 0) {
                    let now = Moment::now();
                    if sessions.heard(*key, now) {
                        heartbeats.beat(*key, now, AgentInfo::default());
                    }
                    heard.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }

    /// Starts its monitor.
    fn sweep(&mut self, plan: Plan, stop: &CancellationToken) {
        let monitor = Monitor {
            pod: self.number,
            database: self.database.clone(),
            sessions: self.sessions.clone(),
            log: self.log.clone(),
            interval: Duration::from_secs(1),
            default_threshold: plan.threshold,
            heartbeat_interval: plan.interval,
            brown_out: brown_out::Rules::default(),
            health: self.health.clone(),
            metrics: self.metrics.clone(),
        };
        self.tasks.push(tokio::spawn(monitor.run(stop.clone())));
    }

    async fn end(self) {
        let Virtual { log, held, tasks, .. } = self;
        drop((log, held));
        for task in tasks {
            task.await.expect("a task");
        }
    }
}

const CONNECTED: &str = "
    insert into satellite_connections
           (satellite_id, session, revision, last_event, last_heartbeat_at, pod, vouched)
    select id, 1, 1, 'connected', now(), $2, $3 from unnest($1::uuid[]) as i (id)";

const FORGET: &str = "
    with over as (delete from satellite_connections where pod = any($1))
    delete from pods where number = any($1)";
