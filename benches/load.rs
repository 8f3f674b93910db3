//! A real pod under load over real sockets: how soon it is ready and what it costs idle, connects, and heartbeats:
//! from frame to a right status on another pod, and, where none is vouched for, from frame to stored row.

use std::time::{Duration, Instant};

use groundstation::clients::simulate::cost::Cost;
use uuid::Uuid;

use crate::Scale;
use crate::fleet;
use crate::pod::{Pod, Simulator, percentile, sockets_allowed};
use crate::stores::Stores;
use crate::table::{self, compared, figure, mib, note, seconds};

/// Rows in one bare UPDATE: as many as the pod writes at once.
const BATCH: usize = 1_000;

pub fn measure(scale: Scale) {
    let stores = Stores::start();
    starts(scale, &stores);
    let (pod, _) = Pod::start(&stores, "bench");
    std::thread::sleep(scale.choose(Duration::from_secs(5), Duration::from_millis(100)));
    figure("memory of a pod without satellites", mib(pod.cost().resident_bytes), "30 MB");
    connects(scale, &pod);
    drop((pod, stores));
    heartbeats(scale);
}

fn starts(scale: Scale, stores: &Stores) {
    let once = || {
        let (pod, took) = Pod::start(stores, "start");
        // The pod leaves in order, so that the next one need not wait for its lease.
        drop(pod);
        took
    };
    let mut starts: Vec<f64> = (0..scale.choose(9, 2)).map(|_| once()).collect();
    table::section("A pod with both stores up");
    figure("start to ready (median)", seconds(percentile(&mut starts, 0.5)), "0.5 s");
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_groundstation")).expect("the binary").len();
    figure("size of the binary", mib(binary), "25 MB");
}

/// Heartbeats come as in the field, so that the figure is that of connecting.
fn connects(scale: Scale, pod: &Pod) {
    let satellites = scale.choose(15_000.min(sockets_allowed()), 100);
    let simulator = Simulator::start(pod, "come", satellites, "15s");
    while pod.metric("groundstation_sessions") == 0.0 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (before, began) = (costs(pod, &simulator), Instant::now());
    pod.reached("groundstation_sessions", satellites as f64);
    let shares = shares(before, costs(pod, &simulator), began.elapsed().as_secs_f64());
    let summary = simulator.end();
    table::section(&format!("One pod under load: {satellites} satellites connect"));
    // The simulator's own clock: from the first connect to the last answer.
    let all = summary["allOnlineAfterSeconds"].as_f64().expect("all were online");
    figure("authenticated connects, each a durable edge", table::rate(satellites, all), "5,000/s");
    note(&shares);
}

/// What a pod takes of heartbeats. With window 0 it writes them: of a session only the newest, so where more come than
/// there is time for, frames are read and never stored. Where it vouches none is written, and what counts is that a read
/// on another pod is right: online while frames come, offline once they do not.
struct Taken {
    /// Frames a second.
    received: f64,
    /// Rows a second.
    stored: f64,
    /// Cores of Postgres.
    cores: f64,
    shares: String,
    /// Reads of a satellite on the other pod, before its threshold was over, and how many of them said offline.
    reads: (usize, usize),
    /// From the last frame until all of them were offline there.
    offline: f64,
    hot: f64,
    /// Rows a second of the bare UPDATE.
    bare: f64,
}

fn heartbeats(scale: Scale) {
    let satellites = scale.choose(19_000.min(sockets_allowed()), 100);
    // More than can be taken, and about as many as can be stored.
    let often = scale.choose(Duration::from_millis(200), Duration::from_millis(350));
    let seldom = scale.choose(Duration::from_millis(400), Duration::from_millis(350));
    let vouching = taken(scale, satellites, often, &[]);
    let writing = taken(scale, satellites, seldom, &[("GROUNDSTATION_VOUCH_WINDOW", "0")]);

    table::section(&format!(
        "A pod under heartbeats: {satellites} satellites; bare: a batched UPDATE of their rows"
    ));
    let rate = |n: f64| format!("{n:.0}/s");
    compared(
        "from frame to a right status on another pod",
        rate(vouching.received),
        rate(vouching.bare),
        vouching.received / vouching.bare,
        "0.35, 70,000/s",
    );
    figure("cores of Postgres meanwhile", format!("{:.3}", vouching.cores), "0.05");
    let (reads, wrong) = vouching.reads;
    note(&format!("a heartbeat every {often:?}; {}", vouching.shares));
    note(&format!(
        "{wrong} of {reads} reads on the other pod said offline before the threshold was over"
    ));
    let offline = seconds(vouching.offline);
    figure("from the last frame until all are offline there", offline, "the threshold");
    compared(
        "window 0: from frame to stored row",
        rate(writing.stored),
        rate(writing.bare),
        writing.stored / writing.bare,
        "0.3, 40,000/s",
    );
    figure("window 0: cores of Postgres meanwhile", format!("{:.3}", writing.cores), "");
    note(&format!(
        "a heartbeat every {seldom:?}; {:.0} frames/s were read; {}",
        writing.received, writing.shares
    ));
    figure(
        "updates of satellites' rows that were HOT",
        format!("{:.1} %", writing.hot * 100.0),
        "",
    );
}

fn taken(scale: Scale, satellites: usize, interval: Duration, settings: &[(&str, &str)]) -> Taken {
    let stores = Stores::start();
    let threshold = scale.choose(Duration::from_secs(45), Duration::from_secs(1));
    let times = [("GROUNDSTATION_HEARTBEAT_INTERVAL", scale.choose("15s", "300ms"))];
    let shown = format!("{threshold:?}");
    let settings = [settings, &times, &[("GROUNDSTATION_OFFLINE_THRESHOLD", &shown)]].concat();
    let (pod, _) = Pod::start_with(&stores, "bench", &settings);
    let (other, _) = Pod::start_with(&stores, "other", &settings);
    let simulator = Simulator::start(&pod, "beat", satellites, &format!("{interval:?}"));
    pod.reached("groundstation_sessions", satellites as f64);
    std::thread::sleep(scale.choose(Duration::from_secs(3), Duration::from_millis(800)));
    let mut reads = (0, 0);
    let mut read = |filter: &str| {
        let (online, all) = fleet::online(&other, filter);
        reads = (reads.0 + all, reads.1 + all - online);
    };
    read("");
    let so_far = || {
        let received = pod.metric("groundstation_heartbeats_received_total");
        let stored = pod.metric("groundstation_heartbeats_flushed_total");
        (received, stored, stores.postgres_cpu(), costs(&pod, &simulator))
    };
    let (before, began) = (so_far(), Instant::now());
    for _ in 0..scale.choose(15, 2) {
        std::thread::sleep(scale.choose(Duration::from_secs(1), Duration::from_millis(500)));
        // The reads are to cost next to nothing.
        read("&q=beat-000");
    }
    let (after, took) = (so_far(), began.elapsed().as_secs_f64());
    read("");
    let hot = hot_ratio(&stores);
    simulator.fall_silent();
    let silent_at = Instant::now();
    std::thread::sleep(threshold * 4 / 5);
    read("");
    std::thread::sleep(threshold.saturating_sub(silent_at.elapsed()));
    while fleet::online(&other, "&status=online").1 > 0 {
        std::thread::sleep(Duration::from_millis(50));
    }
    let offline = silent_at.elapsed().as_secs_f64();
    drop(simulator);
    // Nobody else is to write the rows.
    drop((pod, other));
    let bare =
        bare_updates(&stores, scale.choose(Duration::from_secs(5), Duration::from_millis(200)));
    Taken {
        received: (after.0 - before.0) / took,
        stored: (after.1 - before.1) / took,
        cores: (after.2 - before.2) / took,
        shares: shares(before.3, after.3, took),
        reads,
        offline,
        hot,
        bare,
    }
}

fn costs(pod: &Pod, simulator: &Simulator) -> (Cost, Cost) {
    (pod.cost(), simulator.cost())
}

/// The share of a core that each process used meanwhile.
fn shares(before: (Cost, Cost), after: (Cost, Cost), took: f64) -> String {
    let share = |before: Cost, after: Cost| (after.cpu_seconds - before.cpu_seconds) / took * 100.0;
    format!(
        "of a core: the pod {:.0} %, the simulator {:.0} % (it has {})",
        share(before.0, after.0),
        share(before.1, after.1),
        mib(after.1.resident_bytes)
    )
}

/// The part of the updates of satellites' rows that touched no index.
fn hot_ratio(stores: &Stores) -> f64 {
    let query = "select coalesce(n_tup_hot_upd::float8 / nullif(n_tup_upd, 0), 0)
                   from pg_stat_user_tables where relname = 'satellite_connections'";
    stores.sql().query_one(query, &[]).expect("statistics").get(0)
}

/// Rows a second of a bare batched UPDATE of the same rows.
fn bare_updates(stores: &Stores, how_long: Duration) -> f64 {
    let mut sql = stores.sql();
    let ids = "select id from satellites where name like 'beat-%'";
    let ids = sql.query(ids, &[]).expect("rows");
    let ids: Vec<Uuid> = ids.iter().map(|row| row.get(0)).collect();
    let update = sql
        .prepare(
            "update satellite_connections c
                set last_heartbeat_at = clock_timestamp(), last_event = 'connected'
               from unnest($1::uuid[]) b (id) where c.satellite_id = b.id",
        )
        .expect("a statement");
    // The first round only turns them into rows that a heartbeat may touch.
    sql.execute(&update, &[&ids]).expect("update");
    let (began, mut rows) = (Instant::now(), 0);
    for batch in ids.chunks(BATCH).cycle() {
        rows += sql.execute(&update, &[&batch]).expect("update");
        if began.elapsed() > how_long {
            break;
        }
    }
    rows as f64 / began.elapsed().as_secs_f64()
}
