//! Heartbeats are bookkeeping: they move a time and update what the agent says of itself, and make no edge.

use std::time::Duration;

use serde_json::json;

use crate::harness::written::written;
use crate::harness::{CALM, Fleet, Pod, Satellite, eventually};

/// Waits until the satellite was heard later than `before`.
async fn heard_after(pod: &Pod, id: uuid::Uuid, before: &str) -> String {
    eventually("a newer heartbeat", async || {
        let at = pod.show(id).await["lastHeartbeatAt"].as_str().expect("a time").to_owned();
        // Times of the same length compare as text.
        if at.as_str() > before { Ok(at) } else { Err(at) }
    })
    .await
}

written!(heartbeats_move_the_time_last_heard_on_every_pod_and_make_no_transition);

#[tokio::test]
async fn heartbeats_move_the_time_last_heard_on_every_pod_and_make_no_transition() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = a.register("edge", "eu").await;
    let satellite = Satellite::connect(a.address, &credentials).await;
    let connected = b.show(credentials.id).await["lastHeartbeatAt"].as_str().unwrap().to_owned();
    satellite.beat_every(Duration::from_millis(50));
    let first = heard_after(&b, credentials.id, &connected).await;
    heard_after(&b, credentials.id, &first).await;
    a.expect_metric("groundstation_heartbeats_received_total", 10.0).await;
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    assert_eq!(b.show(credentials.id).await["status"], "online");
    fleet.check().await;
}

#[tokio::test]
async fn what_an_agent_says_of_itself_is_kept_until_it_says_otherwise() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = a.register("edge", "eu").await;
    let id = credentials.id;
    let says = async |version: Option<&str>, capabilities: &[&str]| {
        eventually("what the agent says", async || {
            let shown = b.show(id).await;
            let version = version.map_or(json!(null), |version| json!(version));
            let kept = shown["version"] == version && shown["capabilities"] == json!(capabilities);
            if kept { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
    };
    assert_eq!(b.show(id).await["capabilities"], json!([]));

    let mut first = Satellite::open(a.address).await;
    first.send(&json!({"type": "authenticate", "clientId": id, "token": credentials.token,
                       "capabilities": ["http", "script"]}));
    first.expect("authenticated").await;
    says(None, &["http", "script"]).await;
    first.send(&json!({"type": "heartbeat", "version": "0.5.1", "uptimeSeconds": 3}));
    says(Some("0.5.1"), &["http", "script"]).await;
    first.close().await;
    fleet.expect_history(id, &["1 connected connect", "1 disconnected client_close"]).await;

    let second = Satellite::connect(b.address, &credentials).await;
    says(Some("0.5.1"), &["http", "script"]).await;
    second.send(&json!({"type": "heartbeat", "version": "0.6.0", "uptimeSeconds": 1,
                        "capabilities": ["tcp"]}));
    says(Some("0.6.0"), &["tcp"]).await;
    fleet.check().await;
}

#[tokio::test]
async fn one_with_an_odd_version_or_uptime_is_heard_all_the_same() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    satellite.send(&json!({"type": "heartbeat", "version": "0.5.1", "uptimeSeconds": 1}));
    let odd = [
        (json!(5), json!(2)),
        (json!({"major": 5}), json!(3)),
        (json!("x".repeat(201)), json!(4)),
        (json!(null), json!("five")),
        (json!("0.5.2"), json!("six")),
        (json!("0.5.3"), json!(null)),
    ];
    for (version, uptime) in &odd {
        satellite.send(&json!({"type": "heartbeat", "version": version, "uptimeSeconds": uptime}));
    }
    let heard = 1.0 + odd.len() as f64;
    pod.expect_metric("groundstation_heartbeats_received_total", heard).await;
    for (field, times) in [("version", 3.0), ("uptime_seconds", 2.0)] {
        let left_out = format!("groundstation_dropped_messages_total{{reason=\"{field}\"}}");
        assert_eq!(pod.metric(&left_out).await, times, "{field}");
    }
    pod.expect_log("a field of a message was left out").await;
    eventually("what was well said beside it to be kept", async || {
        let shown = pod.show(credentials.id).await;
        if shown["version"] == "0.5.3" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    fleet.check().await;
}
