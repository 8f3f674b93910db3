//! A satellite that sends more than its rate is slowed down and never lost for it. The rate grows with its
//! assignments.

use std::time::Duration;

use async_nats::jetstream;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{BRISK, CALM, Fleet, Heard, Satellite, eventually, within};

/// The most assignments that the API accepts.
const CHECKS: usize = 500;

fn result(check: usize, round: usize) -> Value {
    json!({"type": "result", "configId": format!("c-{check}"), "systemId": "s",
           "status": "healthy", "latencyMs": round, "executedAt": "2026-03-01T12:00:00Z"})
}

async fn expect_delivered(fleet: &Fleet, count: usize) {
    let jetstream = jetstream::new(fleet.nats().await);
    within(Duration::from_secs(60), &format!("{count} results"), async || {
        let stream = jetstream.get_stream("SATELLITE_RESULTS").await;
        let there = stream.map_err(|error| error.to_string())?.cached_info().state.messages;
        if there == count as u64 { Ok(()) } else { Err(there.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn five_hundred_checks_that_report_at_once_are_all_heard() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let list: Vec<Value> = (0..CHECKS)
        .map(|n| {
            json!({"configId": format!("c-{n}"), "systemId": "s", "strategyId": "http",
                   "config": {}, "intervalSeconds": 1})
        })
        .collect();
    pod.assign(credentials.id, &json!(list)).await;
    let (satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    // Their timers fire together, and again before the answers have come.
    for round in 0..3 {
        for check in 0..CHECKS {
            satellite.send(&result(check, round));
        }
    }
    satellite.beat();
    expect_delivered(&fleet, 3 * CHECKS).await;
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    assert_eq!(pod.metric("groundstation_held_back_total{by=\"rate\"}").await, 0.0);
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    satellite.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn the_rate_follows_what_is_assigned_while_the_satellite_is_there() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_MESSAGE_RATE", "1");
    let pod = pod.with("GROUNDSTATION_MESSAGE_BURST", "1").start().await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    let list: Vec<Value> = (0..CHECKS)
        .map(|n| {
            json!({"configId": format!("c-{n}"), "systemId": "s", "strategyId": "http",
                   "config": {}, "intervalSeconds": 60})
        })
        .collect();
    pod.assign(credentials.id, &json!(list)).await;
    satellite.expect("config_updated").await;
    for check in 0..CHECKS {
        satellite.send(&result(check, 1));
    }
    // At the rate of a satellite without assignments this would take eight minutes.
    expect_delivered(&fleet, CHECKS).await;
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn who_sends_more_than_its_rate_is_read_slowly_and_stays_online_all_the_while() {
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_MESSAGE_RATE", "10");
    let pod = pod.with("GROUNDSTATION_MESSAGE_BURST", "20").start().await;
    let (loud, calm) = (pod.register("loud", "eu").await, pod.register("calm", "eu").await);
    let beside = Satellite::connect(pod.address, &calm).await;
    beside.beat_every(fleet.timing.heartbeat);
    let satellite = Satellite::connect(pod.address, &loud).await;
    // Nine seconds' worth: three times its threshold, and its heartbeats queue behind it.
    for n in 0..110 {
        match n % 2 {
            0 => satellite.send(&json!({"type": "reboot"})),
            // Pings count too.
            _ => satellite.send_frame(Message::Ping("x".into())),
        }
    }
    satellite.beat_every(fleet.timing.heartbeat);
    let dropped = "groundstation_dropped_messages_total{reason=\"unknown_type\"}";
    let begun = std::time::Instant::now();
    within(Duration::from_secs(60), "all of it to be read", async || {
        assert_eq!(pod.show(loud.id).await["status"], "online");
        let read = pod.metric(dropped).await;
        if read == 55.0 { Ok(()) } else { Err(read.to_string()) }
    })
    .await;
    assert!(begun.elapsed() > Duration::from_secs(7), "{:?}", begun.elapsed());
    assert!(pod.metric("groundstation_held_back_total{by=\"rate\"}").await >= 1.0);
    assert_eq!(pod.metric("groundstation_door_refusals_total{reason=\"message_rate\"}").await, 0.0);
    for id in [loud.id, calm.id] {
        assert_eq!(fleet.history(id).await, ["1 connected connect"]);
    }
    satellite.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn who_does_not_stop_for_as_long_as_a_pod_has_patience_is_closed_with_1008_and_no_other_is() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet
        .plan("a")
        .with("GROUNDSTATION_MESSAGE_RATE", "10")
        .with("GROUNDSTATION_MESSAGE_BURST", "20")
        .with("GROUNDSTATION_MESSAGE_PATIENCE", "3s")
        .start()
        .await;
    let (loud, calm) = (pod.register("loud", "eu").await, pod.register("calm", "eu").await);
    let beside = Satellite::connect(pod.address, &calm).await;
    let mut satellite = Satellite::connect(pod.address, &loud).await;
    for _ in 0..200 {
        satellite.beat();
    }
    assert_eq!(satellite.hear().await, Heard::Closed(1008));
    let ended = ["1 connected connect", "1 disconnected connection_dropped"];
    fleet.expect_history(loud.id, &ended).await;
    assert_eq!(pod.metric("groundstation_door_refusals_total{reason=\"message_rate\"}").await, 1.0);
    // Slowed down before: of two hundred, the pod has read what three seconds have room for.
    let read = pod.metric("groundstation_heartbeats_received_total").await;
    assert!((20.0..150.0).contains(&read), "{read}");
    beside.beat();
    pod.expect_metric("groundstation_sessions", 1.0).await;
    assert_eq!(fleet.history(calm.id).await, ["1 connected connect"]);
    beside.close().await;
}

/// Its messages come in pieces, and for a moment in between there is nothing to read.
#[tokio::test]
async fn a_moment_in_which_nothing_comes_does_not_begin_a_pods_patience_anew() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_MESSAGE_RATE", "10");
    let plan = plan.with("GROUNDSTATION_MESSAGE_BURST", "20");
    let pod = plan.with("GROUNDSTATION_MESSAGE_PATIENCE", "3s").start().await;
    let loud = pod.register("loud", "eu").await;
    let satellite = Satellite::connect(pod.address, &loud).await;
    let refused = "groundstation_door_refusals_total{reason=\"message_rate\"}";
    let mut sent = 0.0;
    while pod.metric(refused).await < 1.0 {
        assert!(sent < 400.0, "it is still there");
        for _ in 0..12 {
            satellite.beat();
            sent += 1.0;
        }
        // All of it is read, or the socket is closed for it.
        eventually("all to be read", async || {
            let read = pod.metric("groundstation_heartbeats_received_total").await;
            let is_over = pod.metric(refused).await > 0.0;
            if read >= sent || is_over { Ok(()) } else { Err(read.to_string()) }
        })
        .await;
        // The moment is longer than the pause it owes for the last piece.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
