//! A relay stands still for longer than its lease and then publishes what others have published meanwhile. The stream
//! accepts none of it; without the expected sequence it would.

use crate::harness::faults::repetitions;
use crate::harness::log_and_stream::{differences, read_log, read_stream};
use crate::harness::relaying::{expect_relay, forgetful_stream};
use crate::harness::{CALM, Fleet, Pod, Satellite, eventually, written_log};

/// How long a leader stands still after a read, in milliseconds: long enough to be stopped in that time.
const STANDSTILL: u32 = 6_000;

const REJECTED: &str = "groundstation_relay_rejected_publishes_total";

/// A leader publishes the first of many edges and stands still for longer than its lease; another pod publishes the
/// others. Returns both pods once the first goes on.
async fn stale_leader_publishes(fleet: &Fleet, more_failpoints: &str) -> (Pod, Pod) {
    forgetful_stream(fleet).await;
    let at_the_second = format!("relay::before_publish=1*off->1*sleep({STANDSTILL})->off");
    let points = format!("{at_the_second};{more_failpoints}");
    let stale = fleet.plan("stale").with("FAILPOINTS", &points).start().await;
    expect_relay(&stale, "leading").await;
    let other = fleet.pod("other").await;
    let mut subscriber = fleet.subscribe().await;
    // In one commit, so the leader reads all of them before it publishes the first.
    written_log::write(&fleet.sql().await, 1, 20).await;
    let nats = fleet.nats().await;
    eventually("the first on the stream", async || match read_stream(&nats).await.len() {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    })
    .await;
    stale.suspend();
    expect_relay(&other, "leading").await;
    let last = other.register("last", "eu").await;
    let _satellite = Satellite::connect(other.address, &last).await;
    subscriber.expect("satellite.connected", last.id).await;
    stale.wake();
    (stale, other)
}

#[tokio::test]
async fn what_a_stale_leader_publishes_is_rejected() {
    for _ in 0..repetitions(1, 5) {
        let fleet = Fleet::new(CALM).await;
        let (stale, other) = stale_leader_publishes(&fleet, "").await;
        stale.expect_log("this pod no longer relays").await;
        expect_relay(&stale, "standby").await;
        assert_eq!(other.metric(REJECTED).await, 0.0);
        fleet.check().await;
    }
}

#[tokio::test]
async fn without_the_expected_sequence_a_stale_leader_doubles_messages_and_the_checker_sees_it() {
    let fleet = Fleet::new(CALM).await;
    let (_stale, _other) = stale_leader_publishes(&fleet, "relay::no_expectation=return").await;
    let (sql, nats) = (fleet.sql().await, fleet.nats().await);
    let found = eventually("the checker to see the doubles", async || {
        let found = differences(&read_log(&sql).await, &read_stream(&nats).await);
        let seen = found.iter().any(|line| line.starts_with("beyond the log:"));
        if seen { Ok(found) } else { Err(found.join("\n")) }
    })
    .await;
    assert!(!found.is_empty());
}
