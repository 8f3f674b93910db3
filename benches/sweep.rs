//! What a sweep over a million satellites costs: when none of them is due, against a plain count of
//! the same rows; and how long ten thousand that fall due together take to be on the stream, against
//! the bare append of as many rows.
//!
//! The real monitor, appender and relay run in this process, against a private Postgres (fsync on)
//! and nats-server. Of the million, this pod holds some, other pods that speak the rest, and a pod
//! that has died the ten thousand.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use groundstation::database::{Address, Database};
use groundstation::dev::stores::{self, Nats, Postgres};
use groundstation::dev::tools::Tools;
use groundstation::flapping;
use groundstation::gateway::registry::{COMMANDS, Registry};
use groundstation::health::Health;
use groundstation::lifecycle::{Position, SatelliteId, Session};
use groundstation::liveness::{DEFAULT_HEARTBEAT_INTERVAL, DEFAULT_OFFLINE_THRESHOLD};
use groundstation::log::append::appender;
use groundstation::log::transaction::Rules;
use groundstation::metrics::Metrics;
use groundstation::metrics::exposition::Form;
use groundstation::monitor::{Monitor, brown_out};
use groundstation::observation;
use groundstation::relay::{Relay, stream};
use groundstation::schema;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SATELLITES: [i64; 3] = [10_000, 100_000, 1_000_000];
/// Held by this pod: as many sockets as one pod has.
const OWN: i64 = 50_000;
const DUE: i64 = 10_000;
const SWEEPS: u64 = 20;

fn main() {
    let here = std::env::current_dir().expect("a folder");
    let tools = Tools::find(&here).expect("run `make tools`");
    let folder = std::env::temp_dir().join(format!("groundstation-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let settings = [("shared_buffers", "1GB"), ("max_wal_size", "8GB")];
    let mut postgres =
        Postgres::start(&tools, &folder.join("postgres"), &settings).expect("Postgres");
    let mut nats = Nats::start(&tools, &folder.join("nats"), "").expect("nats-server");
    let address = Address::parse("bench", &postgres.url("postgres")).expect("address");
    schema::migrate(&address).expect("schema");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    println!("\nPostgres {}; a sweep, none due\n", tools.postgres_version);
    println!("{:<12} {:>12} {:>16} {:>7}", "satellites", "sweep ms", "plain count ms", "ratio");
    runtime.block_on(measure(&address, &nats.url()));
    drop(runtime);
    nats.stop();
    postgres.stop();
    stores::remove_all(&folder).expect("removed");
}

async fn measure(address: &Address, nats_url: &str) {
    let database = address.pool("bench").expect("pool");
    let nats = async_nats::connect(nats_url).await.expect("NATS");
    let client = database.get().await.expect("connection");
    let mut pods = Vec::new();
    for name in ["own", "other", "dead"] {
        pods.push(observation::sign_on(&client, name).await.expect("a pod"));
    }
    let [own, other, dead] = pods[..] else { unreachable!() };
    let registry = Arc::new(Registry::default());
    let metrics = Metrics::new();
    let stop = CancellationToken::new();
    let health = Arc::new(Health::default());
    let (head, head_watch) = watch::channel(Position::ZERO);
    let (announce, _announcements) = mpsc::channel(1);
    let rules = Rules {
        default_threshold: DEFAULT_OFFLINE_THRESHOLD,
        flapping: flapping::Rules::default(),
        pod: own,
    };
    let (log, task) =
        appender(database.clone(), rules, head, announce, health.clone(), metrics.clone());
    tokio::spawn(task.run());
    tokio::spawn(observers(database.clone(), vec![own, other, dead], stop.clone()));
    tokio::spawn(
        Relay {
            pod: "own".to_owned(),
            database: database.clone(),
            nats: nats.clone(),
            head: head_watch,
            health: health.clone(),
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );
    tokio::spawn(
        Monitor {
            pod: own,
            database: database.clone(),
            registry: registry.clone(),
            log,
            interval: Duration::from_millis(200),
            default_threshold: DEFAULT_OFFLINE_THRESHOLD,
            heartbeat_interval: DEFAULT_HEARTBEAT_INTERVAL,
            // A pod whose satellites all fall due would be guarded.
            brown_out: brown_out::Rules { floor: u64::MAX, ..brown_out::Rules::default() },
            health,
            metrics: metrics.clone(),
        }
        .run(stop.clone()),
    );

    let (commands, _orders) = mpsc::channel(COMMANDS);
    let mut there = 0;
    for satellites in SATELLITES {
        let ids = register(address, satellites - there, own, other, registry.len() as i64).await;
        there = satellites;
        for id in ids {
            registry.enter(SatelliteId(id), Session(1), commands.clone(), None);
        }
        let (sweeps_before, seconds_before) = sweeps(&metrics);
        while sweeps(&metrics).0 < sweeps_before + SWEEPS {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let (sweeps_after, seconds_after) = sweeps(&metrics);
        let sweep = (seconds_after - seconds_before) / (sweeps_after - sweeps_before) as f64;
        let count = count(&client).await;
        println!(
            "{satellites:<12} {:>12.1} {:>16.1} {:>7.2}",
            sweep * 1e3,
            count * 1e3,
            sweep / count
        );
    }

    // The dead pod's satellites were heard last long ago, and so was it.
    let bare = bare_append(&client).await;
    client.execute(LET_DIE, &[&dead, &other, &DUE]).await.expect("a death");
    let began = Instant::now();
    let context = jetstream::new(nats);
    loop {
        let stream = context.get_stream(stream::NAME).await;
        if stream.is_ok_and(|stream| stream.cached_info().state.messages >= DUE as u64) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed().as_secs_f64();
    println!(
        "\n{DUE} due together of {there}: on the stream after {took:.2} s; bare append {bare:.2} s; ratio {:.1}",
        took / bare
    );
    for line in plan(&client, dead).await {
        println!("{line}");
    }
    stop.cancel();
}

const LET_DIE: &str = "
    with dying as (
        update satellite_connections set pod = $1, last_heartbeat_at = now() - interval '1 minute'
         where satellite_id in (select satellite_id from satellite_connections where pod = $2 limit $3)
    )
    update pods set left_at = null, seen_at = now() - interval '1 minute', name = 'died' where number = $1";

/// Pods that write all they hear; one that has died does not.
async fn observers(database: Database, pods: Vec<i32>, stop: CancellationToken) {
    let client = database.get().await.expect("connection");
    while !stop.is_cancelled() {
        for pod in &pods {
            let alive = client
                .query_one("select name <> 'died' from pods where number = $1", &[pod])
                .await
                .expect("a pod");
            if alive.get(0) {
                let age = Duration::ZERO;
                observation::observe(&client, *pod, age, DEFAULT_OFFLINE_THRESHOLD)
                    .await
                    .expect("observed");
            }
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Registers satellites that are connected and heard just now, and returns those of this pod.
async fn register(address: &Address, more: i64, own: i32, other: i32, held: i64) -> Vec<Uuid> {
    let address = address.clone();
    tokio::task::spawn_blocking(move || {
        let mut client = address.connect_blocking().expect("a connection");
        let own_more = (OWN - held).clamp(0, more / 2);
        let rows = client
            .query(
                "with new as (
                     insert into satellites (id, name, region, token_hash)
                     select gen_random_uuid(), 'bench', 'eu', '' from generate_series(1, $1::bigint)
                     returning id
                 ), numbered as (
                     select id, row_number() over () as n from new
                 ), connected as (
                     insert into satellite_connections
                            (satellite_id, session, revision, position, last_event, last_heartbeat_at, pod)
                     select id, 1, 1, 1, 'connected', now() + interval '1 hour',
                            case when n <= $2::bigint then $3::int else $4::int end
                       from numbered
                 )
                 select id from numbered where n <= $2::bigint",
                &[&more, &own_more, &own, &other],
            )
            .expect("satellites");
        client.batch_execute("vacuum analyze satellites, satellite_connections").expect("vacuum");
        rows.iter().map(|row| row.get(0)).collect()
    })
    .await
    .expect("registered")
}

async fn count(client: &deadpool_postgres::Object) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        client.query_one("select count(*) from satellite_connections", &[]).await.expect("a count");
        best = best.min(began.elapsed().as_secs_f64());
    }
    best
}

/// As many rows as fall due, in the batches of an append, each with its own commit.
async fn bare_append(client: &deadpool_postgres::Object) -> f64 {
    client
        .batch_execute(
            "set role none; create table bare (like entity_transitions including all);
             grant all on bare to groundstation_service; set role groundstation_service",
        )
        .await
        .expect("a table");
    let began = Instant::now();
    for first in (0..DUE).step_by(1_000) {
        client
            .execute(
                "insert into bare (position, revision, change_id, kind, entity_id, event, reason, session,
                                   actor_type, actor_id, schema_version, next, occurred_at, recorded_at)
                 select $1::bigint + n, 1, gen_random_uuid(), 'satellite-connection', gen_random_uuid(), 'connected',
                        'connect', 1, 'system', 'system', 1, '{}', now(), now()
                   from generate_series(1, 1000) n",
                &[&first],
            )
            .await
            .expect("rows");
    }
    began.elapsed().as_secs_f64()
}

/// How many sweeps there were, and how long all of them took.
fn sweeps(metrics: &Metrics) -> (u64, f64) {
    let text = metrics.encode(Form::Text).expect("metrics");
    let value = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).expect("a metric");
        line.rsplit(' ').next().expect("a value").parse::<f64>().expect("a number")
    };
    (value("groundstation_sweep_seconds_count ") as u64, value("groundstation_sweep_seconds_sum "))
}

/// How Postgres finds the sessions of a silent pod.
async fn plan(client: &deadpool_postgres::Object, dead: i32) -> Vec<String> {
    let statement = groundstation::monitor::STORED;
    let explain = format!(
        "prepare sweep (int[], bigint, bigint) as {statement};
         explain (analyze, costs off, timing off, summary off, buffers off)
         execute sweep ('{{{dead}}}', 45000, 5000)"
    );
    let messages = client.simple_query(&explain).await.expect("a plan");
    let line = |message: &tokio_postgres::SimpleQueryMessage| match message {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    messages.iter().filter_map(line).collect()
}
