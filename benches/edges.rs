//! How fast edges get into the log and onto the stream, as ratios against what the two stores do
//! bare, measured in the same run: machines differ and are noisy, ratios less so.
//!
//! `make bench` runs it against a private Postgres and nats-server, with fsync on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use groundstation::database::{Address, Database};
use groundstation::dev::stores::{self, Nats, Postgres};
use groundstation::dev::tools::Tools;
use groundstation::flapping;
use groundstation::health::Health;
use groundstation::lifecycle::{Edge, Position, SatelliteId};
use groundstation::liveness::DEFAULT_OFFLINE_THRESHOLD;
use groundstation::log::append::{Outcome, appender};
use groundstation::log::transaction::Rules;
use groundstation::metrics::Metrics;
use groundstation::relay::{Relay, stream};
use groundstation::schema;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const SATELLITES: usize = 20_000;
const ROUNDS: usize = 3;
/// Rows in one bare INSERT: the most an append takes.
const BATCH: usize = 1_000;
/// Bare publishes not acknowledged yet: as many as the relay has.
const IN_FLIGHT: usize = 1_000;

fn main() {
    let here = std::env::current_dir().expect("a folder");
    let tools = Tools::find(&here).expect("run `make tools`");
    let folder = std::env::temp_dir().join(format!("groundstation-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut postgres = Postgres::start(&tools, &folder.join("postgres"), &[]).expect("Postgres");
    let mut nats = Nats::start(&tools, &folder.join("nats"), "").expect("nats-server");
    let address = Address::parse("bench", &postgres.url("postgres")).expect("address");
    schema::migrate(&address).expect("schema");

    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    println!("Postgres {}, {SATELLITES} satellites, {ROUNDS} rounds\n", tools.postgres_version);
    println!("{:<46} {:>12} {:>12} {:>7}", "", "edges/s", "bare", "ratio");
    runtime.block_on(measure(&address, &nats.url()));
    drop(runtime);
    nats.stop();
    postgres.stop();
    stores::remove_all(&folder).expect("removed");
}

async fn measure(address: &Address, nats_url: &str) {
    let database = address.pool("bench").expect("pool");
    let nats = async_nats::connect(nats_url).await.expect("NATS");
    let satellites = register(&database).await;
    let edges = SATELLITES * ROUNDS;

    let bare_sql = bare_inserts(&database, edges).await;
    let bare_publish = bare_publishes(&nats, edges).await;
    let (appended, streamed) = through_groundstation(&database, &nats, &satellites).await;
    report("append to a durable row, bare INSERT", edges, appended, bare_sql);
    let slower = bare_sql.max(bare_publish);
    report("append to JetStream ack, the slower bare store", edges, streamed, slower);
}

fn report(what: &str, edges: usize, ours: Duration, bare: Duration) {
    let rate = |took: Duration| edges as f64 / took.as_secs_f64();
    let ratio = bare.as_secs_f64() / ours.as_secs_f64();
    println!("{what:<46} {:>12.0} {:>12.0} {ratio:>7.2}", rate(ours), rate(bare));
}

async fn register(database: &Database) -> Vec<SatelliteId> {
    let ids: Vec<Uuid> = (0..SATELLITES).map(|_| Uuid::new_v4()).collect();
    let client = database.get().await.expect("connection");
    let insert = "insert into satellites (id, name, region, token_hash)
                  select id, 'bench', 'eu', '' from unnest($1::uuid[]) as i (id)";
    client.execute(insert, &[&ids]).await.expect("satellites");
    ids.into_iter().map(SatelliteId).collect()
}

/// Appends connects and disconnects of every satellite while a relay runs; how long until all are
/// in the log, and until all are on the stream.
async fn through_groundstation(
    database: &Database,
    nats: &async_nats::Client,
    satellites: &[SatelliteId],
) -> (Duration, Duration) {
    let metrics = Metrics::new();
    let (head, head_watch) = watch::channel(Position::ZERO);
    let (announce, _announcements) = mpsc::channel(1);
    let rules = Rules {
        default_threshold: DEFAULT_OFFLINE_THRESHOLD,
        flapping: flapping::Rules::default(),
        pod: 1,
    };
    let (log, appender) =
        appender(database.clone(), rules, head, announce, Arc::default(), metrics.clone());
    let (stop, appender) = (CancellationToken::new(), tokio::spawn(appender.run()));
    let relay = Relay {
        pod: "bench".to_owned(),
        database: database.clone(),
        nats: nats.clone(),
        head: head_watch,
        health: Arc::new(Health::default()),
        metrics,
    };
    let relay = tokio::spawn(relay.run(stop.clone()));
    let context = jetstream::new(nats.clone());
    while context.get_stream(stream::NAME).await.is_err() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    let began = Instant::now();
    for _ in 0..ROUNDS {
        let edges = satellites.iter().map(|id| (*id, Edge::Connect)).collect();
        let outcomes = log.append_all(edges).await.expect("open");
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Appended { .. })));
    }
    let appended = began.elapsed();
    let last = (satellites.len() * ROUNDS) as u64;
    while context.get_stream(stream::NAME).await.expect("stream").cached_info().state.messages
        < last
    {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let streamed = began.elapsed();
    stop.cancel();
    drop(log);
    relay.await.expect("relay");
    appender.await.expect("appender");
    (appended, streamed)
}

/// The same number of rows by set-based INSERTs into a table like the log, one commit a batch.
async fn bare_inserts(database: &Database, rows: usize) -> Duration {
    let client = database.get().await.expect("connection");
    client
        .batch_execute(
            "set role none;
             create table bare (like entity_transitions including all);
             grant all on bare to groundstation_service;
             set role groundstation_service",
        )
        .await
        .expect("a table");
    let state = r#"{"name": "bench", "region": "eu", "status": "online", "lastEvent": "connected", "lastSeenAt": "2026-03-01T12:00:00.000Z"}"#;
    let insert = client
        .prepare(
            "insert into bare (position, revision, change_id, kind, entity_id, event, reason, session,
                               prev, next, actor_type, actor_id, schema_version, occurred_at, recorded_at)
             select $1 + n, 1, c, 'satellite-connection', c, 'connected', 'connect', 1,
                    ($3::text)::jsonb, ($3::text)::jsonb, 'system', 'system', 1, now(), now()
               from unnest($2::uuid[]) with ordinality as u (c, n)",
        )
        .await
        .expect("statement");
    let began = Instant::now();
    for batch in 0..rows / BATCH {
        let ids: Vec<Uuid> = (0..BATCH).map(|_| Uuid::now_v7()).collect();
        let first = (batch * BATCH) as i64;
        client.execute(&insert, &[&first, &ids, &state]).await.expect("insert");
    }
    began.elapsed()
}

/// The same number of messages of the same size, pipelined, without expectations.
async fn bare_publishes(nats: &async_nats::Client, messages: usize) -> Duration {
    let context = jetstream::context::ContextBuilder::new()
        .max_ack_inflight(IN_FLIGHT + 1)
        .build(nats.clone());
    let config = jetstream::stream::Config {
        name: "BARE".to_owned(),
        subjects: vec!["bare".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await.expect("stream");
    let body: bytes::Bytes = vec![b'x'; 180].into();
    let padding = "x".repeat(420);
    let mut in_flight = VecDeque::new();
    let began = Instant::now();
    for n in 0..messages {
        if in_flight.len() == IN_FLIGHT {
            let oldest: jetstream::context::PublishAckFuture = in_flight.pop_front().expect("one");
            oldest.await.expect("ack");
        }
        let message = PublishMessage::build()
            .message_id(n.to_string())
            .header("Padding", padding.as_str())
            .payload(body.clone());
        in_flight.push_back(context.send_publish("bare", message).await.expect("publish"));
    }
    for ack in in_flight {
        ack.await.expect("ack");
    }
    began.elapsed()
}
