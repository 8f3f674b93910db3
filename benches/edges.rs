//! The speed of edges into the log and onto the stream: one pod, then two and four on one database.

use std::time::Instant;

use async_nats::jetstream;
use groundstation::domain::lifecycle::{Reason, SatelliteId, Signal};
use groundstation::log::request::Outcome;
use groundstation::log::watermark::PodNumber;
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::Scale;
use crate::bare;
use crate::cpu;
use crate::engine::{self, Engine};
use crate::stores::Stores;
use crate::table::{self, compared, figure, rate};

/// How often each number of pods is measured.
const TURNS: usize = 2;

/// Rounds: in each, every satellite connects or leaves, in turn.
pub const ROUNDS: usize = 4;

/// The duration of a run of all rounds, in seconds.
pub struct Took {
    /// Until all edges are durable.
    pub appended: f64,
    /// Until the stream has acknowledged all edges.
    pub streamed: f64,
    /// Seconds of CPU, of all processes.
    pub cpu: f64,
}

pub fn measure(scale: Scale) {
    let stores = Stores::start();
    let satellites = scale.choose(20_000, 500);
    let ids = stores.register(satellites);
    stores.sql().batch_execute("select extend_transition_log(1000000, 1000000)").expect("room");
    let runtime = Runtime::new().expect("runtime");
    let edges = satellites * ROUNDS;
    let one = runtime.block_on(run(&stores, &ids, 1));
    let sql = bare::appends(&stores, edges);
    let publish = runtime.block_on(async { bare::publishes(&stores.nats().await, edges).await });
    // One pod is measured again, so that all runs have a history of the same size, and in turns,
    // because machines are noisy.
    let mut by_pods = [1, 2, 4].map(|pods| (pods, f64::MAX));
    for _ in 0..TURNS {
        for (pods, streamed) in &mut by_pods {
            *streamed = streamed.min(runtime.block_on(run(&stores, &ids, *pods)).streamed);
        }
    }

    let title = format!(
        "Edges: {satellites} satellites, {edges} edges, PostgreSQL {}",
        stores.tools.postgres_version
    );
    table::section(&title);
    let show = |bare: f64| format!("{bare:.0}/s");
    figure("bare set-based INSERT of the same rows, by pgbench", show(sql.rate), "");
    figure("bare pipelined JetStream publish of the same messages", show(publish.rate), "");
    let of = |took: f64, bare: f64| edges as f64 / took / bare;
    let slower = sql.rate.min(publish.rate);
    compared(
        "edges into the log",
        rate(edges, one.appended),
        show(sql.rate),
        of(one.appended, sql.rate),
        "",
    );
    compared(
        "edges to the stream's acknowledgement",
        rate(edges, one.streamed),
        show(slower),
        of(one.streamed, slower),
        "0.5, 20,000/s",
    );
    let (ours, bare) = (one.cpu / edges as f64, sql.cpu + publish.cpu);
    let micros = |seconds: f64| format!("{:.1} µs", seconds * 1e6);
    let what = "CPU of an edge, all processes; bare: both of the above";
    compared(what, micros(ours), micros(bare), ours / bare, "1.6 times");
    let [(_, single), more @ ..] = by_pods;
    let single = edges as f64 / single;
    compared(
        "edges to the stream, the best of some runs",
        show(single),
        show(slower),
        single / slower,
        "",
    );
    for (pods, streamed) in more {
        let what = format!("the same, {pods} pods, against one");
        compared(&what, rate(edges, streamed), show(single), of(streamed, single), "1.2");
    }
}

/// Appends [`ROUNDS`] edges of each satellite by this many pods, each with its share, while they
/// relay.
pub async fn run(stores: &Stores, ids: &[Uuid], pods: usize) -> Took {
    let nats = stores.nats().await;
    let jetstream = jetstream::new(nats.clone());
    let mut engines = Vec::new();
    for n in 0..pods {
        let name = format!("bench-{n}");
        engines.push(Engine::start(&stores.pool(&name), &nats, &name, PodNumber(n as i32 + 1)));
    }
    engine::stream_there(&jetstream).await;
    let before = engine::messages(&jetstream).await;
    let (used, began) = (cpu::seconds(), Instant::now());
    let shares = ids.chunks(ids.len().div_ceil(pods));
    let rounds = engines.iter().zip(shares).map(|(engine, share)| come_and_go(engine, share));
    futures_util::future::join_all(rounds).await;
    let appended = began.elapsed().as_secs_f64();
    engine::reached(&jetstream, before + ids.len() * ROUNDS).await;
    let streamed = began.elapsed().as_secs_f64();
    let cpu = cpu::seconds() - used;
    for engine in engines {
        engine.end().await;
    }
    Took { appended, streamed, cpu }
}

async fn come_and_go(engine: &Engine, ids: &[Uuid]) {
    for _ in 0..ROUNDS / 2 {
        let comes = ids.iter().map(|id| (SatelliteId(*id), Signal::Connect)).collect();
        let outcomes = engine.log.append_all(comes).await.expect("open");
        let goes = ids.iter().zip(outcomes).map(|(id, outcome)| match outcome {
            Outcome::Appended { session, .. } => {
                (SatelliteId(*id), Signal::Disconnect { session, reason: Reason::ClientClose })
            }
            other => panic!("{other:?}"),
        });
        let outcomes = engine.log.append_all(goes.collect()).await.expect("open");
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Appended { .. })));
    }
}
