//! All satellites drop at once and come back at once: all are online again, none is falsely lost, the pod sheds the
//! excess instead of letting all of them time out, and its memory goes down again.

use std::time::Duration;

use groundstation::clients::agent::Order;

use crate::harness::faults::{full, repetitions};
use crate::harness::{Agents, Fleet, steady, within};

/// The most sockets that one process may have here, less what else it needs.
fn satellites() -> usize {
    let limit = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limit.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)?.parse::<usize>().ok());
    (repetitions(400, 20_000) as usize).min(soft.unwrap_or(1_024).saturating_sub(1_000).max(100))
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn everybody_drops_at_once_and_comes_back_and_nobody_is_lost() {
    let fleet = Fleet::new(steady()).await;
    let count = satellites();
    println!("{count} satellites");
    let plan = fleet.plan("a").with("GROUNDSTATION_HEARTBEAT_INTERVAL", "2s");
    // A plain run has few satellites, so the limit is low as well.
    let at_once = if full() { "512" } else { "40" };
    let plan = plan
        .with("GROUNDSTATION_MAX_HANDSHAKES", at_once)
        .with("GROUNDSTATION_MAX_HANDSHAKES_PER_ADDRESS", "100000")
        .with("GROUNDSTATION_MAX_CONNECTIONS_PER_ADDRESS", "100000");
    let pod = plan.start().await;
    let credentials = fleet.register_many("beating", count).await;
    let agents = Agents::start(&fleet, pod.address, credentials);
    agents.expect_all_within(Duration::from_secs(240)).await;
    // The first round allocates what is needed; after that memory must not grow.
    let mut resident = Vec::new();
    for storm in 1..=3 {
        agents.order(Order::Drop);
        // Each came back once more, whether its end was seen before or not.
        fleet.expect_edges("beating", "connected", (storm + 1) * count).await;
        agents.expect_all_within(Duration::from_secs(240)).await;
        pod.sweeps(5).await;
        resident.push(pod.resident());
    }
    let growth = resident[2] as f64 / resident[0] as f64;
    assert!(growth < 1.15, "resident bytes after each storm: {resident:?}");
    println!("resident bytes after each storm: {resident:?}");
    assert!(pod.metric("groundstation_door_refusals_total{reason=\"handshakes\"}").await > 0.0);
    assert_eq!(fleet.edges("beating", "heartbeat_lost").await, 0);
    drop(agents);
    within(Duration::from_secs(240), "everybody to be gone and told", async || {
        let sessions = pod.metric("groundstation_sessions").await;
        let lag = pod.metric("groundstation_relay_lag_positions").await;
        if sessions + lag == 0.0 { Ok(()) } else { Err(format!("{sessions}, {lag}")) }
    })
    .await;
    // Every other test runs this check by default; this log is too long for that.
    let audited = fleet.audit().await;
    assert!(audited.status.success(), "{audited:?}");
}
