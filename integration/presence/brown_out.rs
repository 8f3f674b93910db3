//! When a large part of the fleet, or of one pod's sessions, goes silent together, its losses are held for a bounded
//! time, and reads and metrics show that they are held.

use serde_json::Value;

use crate::harness::fleet::Plan;
use crate::harness::written::written;
use crate::harness::{BRISK, Credentials, Fleet, Pod, Satellite, eventually};

const HOLDING: &str = "groundstation_brown_out";

/// Enough to be more than the floor.
const SATELLITES: usize = 20;

fn guarded<'a>(fleet: &'a Fleet, name: &str, hold: &str) -> Plan<'a> {
    fleet
        .plan(name)
        .with("GROUNDSTATION_BROWN_OUT_FLOOR", "5")
        .with("GROUNDSTATION_BROWN_OUT_HOLD", hold)
}

/// Satellites that beat, some of which fall silent later on request.
async fn beating(fleet: &Fleet, pod: &Pod, count: usize) -> Vec<(Credentials, Satellite)> {
    let all = fleet.register(pod, "edge", count).await;
    let satellites = fleet.all_beating(pod, &all).await;
    all.into_iter().zip(satellites).collect()
}

fn silence(satellites: &[(Credentials, Satellite)]) {
    for (_, satellite) in satellites {
        satellite.fall_silent();
    }
}

async fn expect_hold(pod: &Pod) -> Value {
    let report = eventually("a brown-out on /readyz", async || {
        let answer = pod.get("/readyz").await;
        let report = answer.json();
        let held = report["brownOut"].as_array().is_some_and(|held| !held.is_empty());
        if held && answer.status == 200 { Ok(report) } else { Err(answer.text) }
    })
    .await;
    pod.expect_metric(HOLDING, 1.0).await;
    pod.expect_log("losses are held").await;
    report["brownOut"].clone()
}

async fn expect_lost(fleet: &Fleet, count: usize) {
    eventually(&format!("{count} losses"), async || {
        let lost = fleet.edges("edge", "heartbeat_lost").await;
        if lost == count as i64 { Ok(()) } else { Err(lost.to_string()) }
    })
    .await;
}

/// This many of the fleet fall silent together: exactly those are held first, and then declared.
async fn held_and_then_declared(silent: usize) {
    let fleet = Fleet::new(BRISK).await;
    let pod = guarded(&fleet, "a", "4s").start().await;
    let satellites = beating(&fleet, &pod, SATELLITES).await;
    silence(&satellites[..silent]);
    let held = expect_hold(&pod).await;
    assert_eq!(held[0]["sessions"], SATELLITES);
    // More than the threshold has passed for those that are due, and no loss is published.
    eventually("losses to be due and held", async || {
        let held = pod.metric("groundstation_brown_out_held_edges").await;
        if held > 0.0 { Ok(()) } else { Err(held.to_string()) }
    })
    .await;
    assert_eq!(fleet.edges("edge", "heartbeat_lost").await, 0, "declared while held");
    expect_lost(&fleet, silent).await;
    pod.expect_log("held long enough").await;
    let still = pod.get("/readyz").await.json();
    assert_eq!(still["brownOut"], serde_json::json!([]));
    pod.sweeps(5).await;
    assert_eq!(fleet.edges("edge", "heartbeat_lost").await, silent as i64);
    fleet.check().await;
}

written!(
    #[ignore = "long: `make test-faults` runs it"]
    sixty_per_cent_of_a_fleet_that_fall_silent_together_are_held_and_then_declared,
    #[ignore = "long: `make test-faults` runs it"]
    who_is_heard_again_while_losses_are_held_was_never_lost,
    #[ignore = "long: `make test-faults` runs it"]
    the_sessions_of_a_dead_pod_are_guarded_by_the_others,
);

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn sixty_per_cent_of_a_fleet_that_fall_silent_together_are_held_and_then_declared() {
    held_and_then_declared(SATELLITES * 6 / 10).await;
}

#[tokio::test]
async fn a_whole_fleet_that_falls_silent_is_held_and_then_declared() {
    held_and_then_declared(SATELLITES).await;
}

#[tokio::test]
async fn half_of_a_fleet_is_declared_at_once() {
    let fleet = Fleet::new(BRISK).await;
    let pod = guarded(&fleet, "a", "1h").start().await;
    let satellites = beating(&fleet, &pod, SATELLITES).await;
    silence(&satellites[..SATELLITES / 2]);
    expect_lost(&fleet, SATELLITES / 2).await;
    assert_eq!(pod.metric(HOLDING).await, 0.0);
    fleet.check().await;
}

#[tokio::test]
async fn who_is_heard_again_while_losses_are_held_was_never_lost() {
    let fleet = Fleet::new(BRISK).await;
    let pod = guarded(&fleet, "a", "1h").start().await;
    let satellites = beating(&fleet, &pod, SATELLITES).await;
    silence(&satellites);
    expect_hold(&pod).await;
    let expect_held = async |count: usize| {
        eventually(&format!("{count} losses to be due and held"), async || {
            let held = pod.metric("groundstation_brown_out_held_edges").await;
            if held == count as f64 { Ok(()) } else { Err(held.to_string()) }
        })
        .await;
    };
    expect_held(SATELLITES).await;
    // So few that it lasts until each of them is heard, however busy the machine is.
    let (first, rest) = satellites.split_at(SATELLITES * 2 / 5);
    for (_, satellite) in first {
        satellite.beat_every(fleet.timing.heartbeat);
    }
    expect_held(rest.len()).await;
    assert_eq!(fleet.log_length().await, SATELLITES as i64, "connected once each, and that is all");
    // The last of these may be heard a moment after it is over, and were lost then.
    for (_, satellite) in rest {
        satellite.beat_every(fleet.timing.heartbeat);
    }
    pod.expect_log("brown-out is over").await;
    pod.sweeps(5).await;
    for (credentials, _) in first {
        assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    }
    for (credentials, _) in rest {
        eventually("it to be online", async || {
            let shown = pod.show(credentials.id).await;
            if shown["status"] == "online" { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
    }
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_sessions_of_one_pod_are_guarded_by_themselves_in_a_large_fleet() {
    let fleet = Fleet::new(BRISK).await;
    let few = guarded(&fleet, "few", "8s").start().await;
    let rest = guarded(&fleet, "rest", "4s").start().await;
    let on_few = beating(&fleet, &few, 10).await;
    let _on_rest = beating(&fleet, &rest, 30).await;
    silence(&on_few);
    let held = expect_hold(&few).await;
    assert_eq!(held.as_array().expect("a list").len(), 1, "{held}");
    assert_eq!(held[0]["scope"], "this pod");
    assert_eq!(rest.metric(HOLDING).await, 0.0, "a quarter of the fleet is no brown-out of it");
    few.expect_metric("groundstation_brown_out_held_edges", 1.0).await;
    assert_eq!(fleet.edges("edge", "heartbeat_lost").await, 0, "declared while held");
    expect_lost(&fleet, 10).await;
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_sessions_of_a_dead_pod_are_guarded_by_the_others() {
    let fleet = Fleet::new(BRISK).await;
    let mut dies = guarded(&fleet, "dies", "4s").start().await;
    let stays = guarded(&fleet, "stays", "4s").start().await;
    let _on_dead = beating(&fleet, &dies, 10).await;
    let _on_rest = beating(&fleet, &stays, 30).await;
    dies.kill();
    let held = expect_hold(&stays).await;
    assert!(held[0]["scope"].as_str().expect("a scope").starts_with("pod number"), "{held}");
    expect_lost(&fleet, 10).await;
    stays.expect_log("held long enough").await;
    fleet.check().await;
}
