//! What satellites at rest cost the database: rows updated and write-ahead log for each heartbeat that a pod hears,
//! where it vouches and where it writes every one.

use std::time::{Duration, Instant};

use crate::Scale;
use crate::pod::{Pod, Simulator, sockets_allowed};
use crate::stores::{Stores, Written};
use crate::table::{self, compared, note};

/// A setting of a pod.
const EVERY_HEARTBEAT_IS_WRITTEN: (&str, &str) = ("GROUNDSTATION_VOUCH_WINDOW", "0");

/// Heartbeats a second of a million satellites that send one in 15 s.
const A_MILLION: f64 = 1e6 / 15.0;

/// What was written while a pod heard so many heartbeats.
struct AtRest {
    heartbeats: f64,
    written: Written,
    /// Cores of Postgres.
    cores: f64,
    /// The part of the satellites for which the pod vouched in the end.
    vouched: f64,
}

impl AtRest {
    fn rows(&self) -> f64 {
        self.written.rows / self.heartbeats
    }

    fn wal(&self) -> f64 {
        self.written.wal / self.heartbeats
    }
}

pub fn measure(scale: Scale) {
    let satellites = scale.choose(19_000.min(sockets_allowed()), 30);
    let vouching = at_rest(scale, satellites, &[]);
    let writing = at_rest(scale, satellites, &[EVERY_HEARTBEAT_IS_WRITTEN]);
    let (ours, bare) = (&vouching, &writing);

    table::section(&format!(
        "One pod, {satellites} satellites at rest; bare: it writes every heartbeat"
    ));
    compared(
        "rows updated for a heartbeat (satellites' and pods')",
        format!("{:.4}", ours.rows()),
        format!("{:.4}", bare.rows()),
        ours.rows() / bare.rows(),
        "0.01 rows",
    );
    let bytes = |at_rest: &AtRest| format!("{:.2} bytes", at_rest.wal());
    let part = ours.wal() / bare.wal();
    compared("write-ahead log for a heartbeat", bytes(ours), bytes(bare), part, "0.1");
    let million = |at_rest: &AtRest| format!("{:.3} MB/s", at_rest.wal() * A_MILLION / 1e6);
    let what = "computed for a million satellites, a heartbeat in 15 s";
    compared(what, million(ours), million(bare), part, "0.1");
    let cores = |at_rest: &AtRest| format!("{:.4}", at_rest.cores);
    compared("cores of Postgres", cores(ours), cores(bare), ours.cores / bare.cores, "");
    note(&format!(
        "{:.0} and {:.0} heartbeats were heard; the pod vouched for {:.1} % and {:.0} %",
        ours.heartbeats,
        bare.heartbeats,
        ours.vouched * 100.0,
        bare.vouched * 100.0
    ));
    note(
        "no checkpoint in it: a page's first change after one writes all of it, which both would pay alike",
    );
}

fn at_rest(scale: Scale, satellites: usize, settings: &[(&str, &str)]) -> AtRest {
    let interval = scale.choose(Duration::from_secs(15), Duration::from_millis(300));
    let stores = Stores::start();
    let (pod, _) = Pod::start_with(&stores, "bench", settings);
    let _simulator = Simulator::start(&pod, "rest", satellites, &format!("{interval:?}"));
    pod.reached("groundstation_sessions", satellites as f64);
    // Each has sent its first heartbeat by then, and that is written.
    std::thread::sleep(interval * 4 / 3);
    let heartbeats = || pod.metric("groundstation_heartbeats_received_total");
    let (before, began) = ((heartbeats(), stores.written(), stores.postgres_cpu()), Instant::now());
    std::thread::sleep(interval * 2);
    let took = began.elapsed().as_secs_f64();
    let after = (heartbeats(), stores.written(), stores.postgres_cpu());
    AtRest {
        heartbeats: after.0 - before.0,
        written: after.1.since(before.1),
        cores: (after.2 - before.2) / took,
        vouched: pod.metric("groundstation_vouched_sessions") / satellites as f64,
    }
}
