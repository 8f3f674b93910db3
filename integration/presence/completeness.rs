//! A satellite that goes silent is lost within its threshold, a sweep and a second, whichever pod held it and
//! whatever happened to its socket; and the transition says when the loss was due.

use std::collections::HashMap;
use std::time::Duration;

use groundstation::contract::wire::Timestamp;
use serde_json::Value;
use time::OffsetDateTime;

use crate::harness::faults::full;
use crate::harness::written::written;
use crate::harness::{Fleet, Pod, Proxy, Satellite, steady};

const DETECTED: &str = "groundstation_detection_delay_seconds_count";

/// What is promised in addition to threshold and sweep, plus a margin for a machine that does other work too.
fn allowance() -> Duration {
    Duration::from_secs(if full() { 1 } else { 10 })
}

fn time(value: &Value) -> OffsetDateTime {
    value.as_str().expect("a time").parse::<Timestamp>().expect("a time").moment()
}

/// Checks the times in the transition. Returns when the loss was due.
async fn expect_in_time(fleet: &Fleet, pod: &Pod, id: uuid::Uuid, reason: &str) -> OffsetDateTime {
    let page = pod.get(&format!("/v1/satellites/{id}/transitions")).await.json();
    let lost = page["transitions"].as_array().expect("a page").last().expect("a loss").clone();
    assert_eq!((&lost["event"], &lost["reason"]), (&"heartbeat_lost".into(), &reason.into()));
    let last_seen = time(&lost["prev"]["lastSeenAt"]);
    assert_eq!(time(&lost["next"]["lastSeenAt"]), last_seen);
    let (due, detected) = (time(&lost["occurredAt"]), time(&lost["recordedAt"]));
    // A satellite whose pod died counts as heard when that pod last reported, because it vouched for the satellite.
    let is_vouched = reason == "pod_lost" && fleet.is_vouching();
    let vouched = if is_vouched { fleet.timing.window() } else { Duration::ZERO };
    let beyond = due - last_seen - fleet.timing.threshold;
    assert!(beyond >= Duration::ZERO && beyond <= vouched, "{beyond} beyond: {lost}");
    assert!(detected >= due, "{lost}");
    let late = detected - due;
    assert!(late <= fleet.timing.sweep + allowance(), "{late} late: {lost}");
    assert_eq!(
        (&lost["prev"]["status"], &lost["next"]["status"]),
        (&"online".into(), &"offline".into())
    );
    due
}

written!(a_satellite_that_goes_silent_is_lost_in_time_with_an_open_a_half_open_and_a_dead_end,);

#[tokio::test]
async fn a_satellite_that_goes_silent_is_lost_in_time_with_an_open_a_half_open_and_a_dead_end() {
    let fleet = Fleet::new(steady()).await;
    let (a, mut dies) = (fleet.pod("a").await, fleet.pod("dies").await);
    let mut subscriber = fleet.subscribe().await;
    let credentials = fleet.register(&a, "edge", 3).await;
    let half = Proxy::to(a.address).await;
    let open = Satellite::connect(a.address, &credentials[0]).await;
    let half_open = Satellite::connect(half.address, &credentials[1]).await;
    let on_dying = Satellite::connect(dies.address, &credentials[2]).await;
    for satellite in [&open, &half_open, &on_dying] {
        satellite.beat_every(fleet.timing.heartbeat);
    }
    fleet.expect_heard(&credentials).await;
    // All three at once: one sends nothing more, one cannot be heard and does not know it, and one lost its pod.
    open.fall_silent();
    half.stall();
    dies.kill();
    let patience = fleet.timing.threshold + Duration::from_secs(30);
    let mut told = HashMap::new();
    while told.len() < credentials.len() {
        let lost = tokio::time::timeout(patience, subscriber.next("satellite.heartbeat_lost"));
        let id = lost.await.expect("a loss in time");
        assert_eq!(told.insert(id, OffsetDateTime::now_utc()), None, "lost twice");
    }
    for (satellite, reason) in
        credentials.iter().zip(["heartbeat_timeout", "heartbeat_timeout", "pod_lost"])
    {
        let due = expect_in_time(&fleet, &a, satellite.id, reason).await;
        let late = told[&satellite.id] - due;
        assert!(late <= fleet.timing.sweep + allowance(), "on NATS {late} after it was due");
    }
    a.expect_metric(DETECTED, 3.0).await;
    fleet.check().await;
}
