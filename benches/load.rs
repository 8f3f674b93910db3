//! A real pod under load over real sockets: how soon it is ready and what it costs idle, connects,
//! and heartbeats from frame to stored row.

use std::time::{Duration, Instant};

use groundstation::clients::simulate::cost::Cost;
use uuid::Uuid;

use crate::Scale;
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
    heartbeats(scale, &stores, pod);
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

/// About as many as can be stored. Of a session only the newest heartbeat is: where more come than there
/// is time for, frames are read and never stored.
fn heartbeats(scale: Scale, stores: &Stores, pod: Pod) {
    let satellites = scale.choose(19_000.min(sockets_allowed()), 100);
    let interval = Duration::from_millis(scale.choose(400, 350));
    let simulator = Simulator::start(&pod, "beat", satellites, &format!("{interval:?}"));
    pod.reached("groundstation_sessions", satellites as f64);
    std::thread::sleep(scale.choose(Duration::from_secs(3), Duration::from_millis(500)));
    let heartbeats = || {
        let received = pod.metric("groundstation_heartbeats_received_total");
        (received, pod.metric("groundstation_heartbeats_flushed_total"))
    };
    let (before, began) = ((heartbeats(), costs(&pod, &simulator)), Instant::now());
    std::thread::sleep(scale.choose(Duration::from_secs(15), Duration::from_secs(1)));
    let after = heartbeats();
    let took = began.elapsed().as_secs_f64();
    let shares = shares(before.1, costs(&pod, &simulator), took);
    let (received, stored) = ((after.0 - before.0.0) / took, (after.1 - before.0.1) / took);
    let hot = hot_ratio(stores);
    drop(simulator);
    // Nobody else is to write the rows.
    drop(pod);
    let bare =
        bare_updates(stores, scale.choose(Duration::from_secs(5), Duration::from_millis(200)));

    table::section(&format!(
        "The same pod: {satellites} satellites, a heartbeat every {interval:?}"
    ));
    compared(
        "heartbeats, from frame to stored row",
        format!("{stored:.0}/s"),
        format!("{bare:.0}/s"),
        stored / bare,
        "0.3, 40,000/s",
    );
    note(&format!("{received:.0} frames/s were read; {shares}"));
    figure("updates of satellites' rows that were HOT", format!("{:.1} %", hot * 100.0), "");
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
