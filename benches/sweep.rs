//! The cost of a sweep over a million satellites when none of them is due, against a plain count of
//! the same rows. Then the time until ten thousand that fall due together are on the stream,
//! against the bare append of the same rows.
//!
//! The real monitor, appender and relay run in this process. Of the million, this pod holds some,
//! other live pods the rest, and a dead pod the ten thousand.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use groundstation::domain::brown_out;
use groundstation::domain::lifecycle::{SatelliteId, Session, SessionKey};
use groundstation::domain::liveness::{DEFAULT_HEARTBEAT_INTERVAL, DEFAULT_OFFLINE_THRESHOLD};
use groundstation::log::watermark;
use groundstation::log::watermark::PodNumber;
use groundstation::platform::database::Database;
use groundstation::platform::metrics::Metrics;
use groundstation::platform::metrics::exposition::Form;
use groundstation::presence::monitor::Monitor;
use groundstation::sessions::table::SessionTable;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Scale;
use crate::bare;
use crate::engine::{self, Engine};
use crate::stores::Stores;
use crate::table::{self, compared, millis, note, seconds};

/// The satellites of this pod: as many sockets as one pod has.
const OWN: i64 = 50_000;

pub fn measure(scale: Scale) {
    let stores = Stores::start();
    stores.begin_log();
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    table::section("A sweep; bare: a plain count of the same rows");
    let due = runtime.block_on(sweeps_and_losses(scale, &stores));
    let bare = bare::appends(&stores, due.count).rate / due.count as f64;
    let what = format!("{} due together, until all are on the stream; bare append", due.count);
    compared(&what, seconds(due.took), seconds(1.0 / bare), due.took * bare, "1 s");
    note(&format!(
        "it wrote {:.1} KB of write-ahead log for each; an append took {} on average",
        due.wal / due.count as f64 / 1e3,
        millis(due.append)
    ));
    note("how the sessions of a silent pod are found:");
    due.plan.iter().for_each(|line| note(line));
}

/// The satellites that fell due together.
struct Due {
    count: usize,
    took: f64,
    /// Bytes of write-ahead log: each page's first change after a checkpoint writes the whole page.
    wal: f64,
    /// The duration of an append's transaction, in seconds.
    append: f64,
    plan: Vec<String>,
}

async fn sweeps_and_losses(scale: Scale, stores: &Stores) -> Due {
    let database = stores.pool("bench");
    let client = database.get().await.expect("connection");
    let mut pods = Vec::new();
    for name in ["own", "other", "dead"] {
        pods.push(watermark::sign_on(&client, name, None).await.expect("a pod"));
    }
    let [own, other, dead] = pods[..] else { unreachable!() };
    let nats = stores.nats().await;
    let engine = Engine::start(&database, &nats, "own", own);
    let sessions = SessionTable::new(Arc::default(), engine.metrics.clone());
    let jetstream = jetstream::new(nats);
    engine::stream_there(&jetstream).await;
    let stop = CancellationToken::new();
    let observers = tokio::spawn(observers(database.clone(), vec![own, other], stop.clone()));
    let dying = CancellationToken::new();
    let observer = tokio::spawn(self::observers(database.clone(), vec![dead], dying.clone()));
    let monitor = monitor(&engine, own, &database, &sessions, Duration::from_millis(200));
    let monitor = tokio::spawn(monitor.run(stop.clone()));

    let (mut there, mut held) = (0, Vec::new());
    let fleets: &[i64] = scale.choose(&[10_000, 100_000, 1_000_000], &[1_000]);
    let wanted = scale.choose(20, 2);
    for satellites in fleets {
        let (more, already) = (satellites - there, held.len() as i64);
        let ids = tokio::task::block_in_place(|| register(stores, more, own, other, already));
        there = *satellites;
        for id in ids {
            held.extend(
                sessions.enter(SessionKey { satellite: SatelliteId(id), session: Session(1) }),
            );
        }
        let (before, seconds_before) = observed(&engine.metrics, "sweep_seconds");
        while observed(&engine.metrics, "sweep_seconds").0 < before + wanted {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (after, seconds_after) = observed(&engine.metrics, "sweep_seconds");
        let sweep = (seconds_after - seconds_before) / (after - before) as f64;
        let count = count(&client).await;
        let what = format!("{satellites} satellites, none due");
        compared(&what, millis(sweep), millis(count), sweep / count, "20 ms");
    }

    // The dead pod's satellites, and the pod itself, were last heard long ago.
    let due = scale.choose(10_000, 500);
    dying.cancel();
    observer.await.expect("the observer");
    let before = wal(&client).await;
    client.execute(LET_DIE, &[&dead, &other, &(due as i64)]).await.expect("a death");
    let began = Instant::now();
    // The first transition is on the stream as well.
    engine::reached(&jetstream, due + 1).await;
    let took = began.elapsed().as_secs_f64();
    let after = wal(&client).await;
    let (appends, seconds) = observed(&engine.metrics, "append_seconds");
    let (wal, append) = (after - before, seconds / appends as f64);
    let plan = plan(&client, dead).await;
    stop.cancel();
    monitor.await.expect("the monitor");
    observers.await.expect("the observers");
    engine.end().await;
    Due { count: due, took, wal, append, plan }
}

/// The monitor of this pod. It holds no loss back: a pod whose satellites all fall due would be guarded.
pub fn monitor(
    engine: &Engine,
    pod: PodNumber,
    database: &Database,
    sessions: &Arc<SessionTable>,
    interval: Duration,
) -> Monitor {
    Monitor {
        pod,
        database: database.clone(),
        sessions: sessions.clone(),
        log: engine.log.clone(),
        interval,
        default_threshold: DEFAULT_OFFLINE_THRESHOLD,
        heartbeat_interval: DEFAULT_HEARTBEAT_INTERVAL,
        brown_out: brown_out::Rules { floor: u64::MAX, ..brown_out::Rules::default() },
        health: engine.health.clone(),
        metrics: engine.metrics.clone(),
    }
}

const LET_DIE: &str = "
    with dying as (
        update satellite_connections set pod = $1, last_heartbeat_at = now() - interval '1 minute'
         where satellite_id in (select satellite_id from satellite_connections where pod = $2 limit $3)
    )
    update pods set seen_at = now() - interval '1 minute' where number = $1";

/// Pods that write all they hear.
pub async fn observers(database: Database, pods: Vec<PodNumber>, stop: CancellationToken) {
    let client = database.get().await.expect("connection");
    while !stop.is_cancelled() {
        for pod in &pods {
            let observe = watermark::observe(
                &client,
                *pod,
                OffsetDateTime::now_utc(),
                None,
                DEFAULT_OFFLINE_THRESHOLD,
            );
            observe.await.expect("observed");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Registers satellites that are connected and were just heard, and returns those of this pod.
fn register(stores: &Stores, more: i64, own: PodNumber, other: PodNumber, held: i64) -> Vec<Uuid> {
    let mut client = stores.sql();
    let own_more = (OWN - held).clamp(0, more / 2);
    let rows = client.query(REGISTER, &[&more, &own_more, &own, &other]).expect("satellites");
    client.batch_execute("vacuum analyze satellites, satellite_connections").expect("vacuum");
    rows.iter().map(|row| row.get(0)).collect()
}

const REGISTER: &str = "
    with new as (
        insert into satellites (id, name, region, token_hash)
        select gen_random_uuid(), 'bench', 'eu', '' from generate_series(1, $1::bigint)
        returning id
    ), numbered as (
        select id, row_number() over () as n from new
    ), connected as (
        insert into satellite_connections
               (satellite_id, session, revision, last_event, last_heartbeat_at, pod)
        select id, 1, 1, 'connected', now() + interval '1 hour',
               case when n <= $2::bigint then $3::int else $4::int end
          from numbered
    )
    select id from numbered where n <= $2::bigint";

async fn count(client: &deadpool_postgres::Object) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        client.query_one("select count(*) from satellite_connections", &[]).await.expect("a count");
        best = best.min(began.elapsed().as_secs_f64());
    }
    best
}

/// Bytes of write-ahead log so far.
async fn wal(client: &deadpool_postgres::Object) -> f64 {
    let query = "select (pg_current_wal_insert_lsn() - '0/0')::float8";
    client.query_one(query, &[]).await.expect("a position").get(0)
}

/// How many of a histogram there were, and how many seconds all of them took.
pub fn observed(metrics: &Metrics, name: &str) -> (u64, f64) {
    let text = metrics.encode(Form::Text).expect("metrics");
    let value = |part: &str| {
        let name = format!("groundstation_{name}_{part} ");
        let line = text.lines().find(|line| line.starts_with(&name)).expect("a metric");
        line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")
    };
    (value("count") as u64, value("sum"))
}

/// How Postgres finds the sessions of a silent pod.
async fn plan(client: &deadpool_postgres::Object, dead: PodNumber) -> Vec<String> {
    let statement = groundstation::presence::monitor::STORED;
    let explain = format!(
        "prepare sweep (int[], bigint, bigint, uuid, bool) as {statement};
         explain (analyze, costs off, timing off, summary off, buffers off)
         execute sweep ('{{{dead}}}', 45000, 5000, null, true)"
    );
    let messages = client.simple_query(&explain).await.expect("a plan");
    let line = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    messages.iter().filter_map(line).collect()
}
