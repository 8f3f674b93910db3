//! The metrics have the fleet by region and status. One pod counts it, whichever that is.

use crate::harness::{CALM, Fleet, Pod, Satellite, eventually};

/// The samples of the fleet that a pod shows, sorted.
async fn shown(pod: &Pod) -> Vec<String> {
    let text = pod.get("/metrics").await.text;
    let of_fleet = |line: &&str| {
        line.starts_with("groundstation_satellites") && !line.contains("_timestamp_seconds")
    };
    let mut samples: Vec<String> = text.lines().filter(of_fleet).map(str::to_owned).collect();
    samples.sort();
    samples
}

async fn expect_shown(pod: &Pod, expected: &[&str]) {
    eventually(&format!("{expected:?} in the metrics of {}", pod.name), async || {
        let samples = shown(pod).await;
        if samples == expected { Ok(()) } else { Err(format!("{samples:?}")) }
    })
    .await;
}

#[tokio::test]
async fn the_pod_that_relays_shows_the_fleet_and_the_next_one_does_after_it() {
    let fleet = Fleet::new(CALM).await;
    let plan = |name| fleet.plan(name).with("GROUNDSTATION_CENSUS_INTERVAL", "100ms");
    let mut first = plan("a").start().await;
    first.expect_metric("groundstation_relay_leader", 1.0).await;
    let second = plan("b").start().await;
    let there = first.register("there", "eu").await;
    let left = first.register("left", "eu").await;
    let _never = second.register("never", "us \"1\"").await;
    let satellite = Satellite::connect(second.address, &there).await;
    let other = Satellite::connect(second.address, &left).await;
    other.close().await;
    fleet.expect_history(left.id, &["1 connected connect", "1 disconnected client_close"]).await;
    let all = [
        r#"groundstation_satellites_flapping{region="eu"} 0"#,
        r#"groundstation_satellites_flapping{region="us \"1\""} 0"#,
        r#"groundstation_satellites_never_connected{region="eu"} 0"#,
        r#"groundstation_satellites_never_connected{region="us \"1\""} 1"#,
        r#"groundstation_satellites{region="eu",status="offline"} 1"#,
        r#"groundstation_satellites{region="eu",status="online"} 1"#,
        r#"groundstation_satellites{region="us \"1\"",status="offline"} 1"#,
        r#"groundstation_satellites{region="us \"1\"",status="online"} 0"#,
    ];
    expect_shown(&first, &all).await;
    assert_eq!(shown(&second).await, [""; 0], "a sum over all pods counts each satellite once");
    assert!(first.metric("groundstation_satellites_counted_timestamp_seconds").await > 1e9);
    first.kill();
    expect_shown(&second, &all).await;
    drop(satellite);
}

#[tokio::test]
async fn a_region_that_nobody_is_in_any_more_is_shown_no_longer() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_CENSUS_INTERVAL", "100ms").start().await;
    let only = pod.register("only", "eu").await;
    let of_eu = [
        r#"groundstation_satellites_flapping{region="eu"} 0"#,
        r#"groundstation_satellites_never_connected{region="eu"} 1"#,
        r#"groundstation_satellites{region="eu",status="offline"} 1"#,
        r#"groundstation_satellites{region="eu",status="online"} 0"#,
    ];
    expect_shown(&pod, &of_eu).await;
    pod.remove(only.id).await;
    expect_shown(&pod, &[]).await;
}
