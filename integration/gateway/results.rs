//! A result is passed on if its satellite has the assignment at that moment. It counts as delivered once JetStream
//! has it.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::message::PublishMessage;
use serde_json::{Value, json};

use crate::harness::cluster::{Cluster, Version};
use crate::harness::wait::{blocking, eventually};
use crate::harness::{CALM, Credentials, Fleet, Heard, Pod, Proxy, Satellite};

const STREAM: &str = "SATELLITE_RESULTS";

fn outcome(word: &str) -> String {
    format!("groundstation_results_total{{outcome=\"{word}\"}}")
}

fn assignment(config: &str) -> Value {
    json!({"configId": config, "systemId": "s", "strategyId": "http", "config": {},
           "intervalSeconds": 60})
}

fn result(config: &str, n: u32) -> Value {
    json!({"type": "result", "configId": config, "systemId": "s", "status": "healthy",
           "latencyMs": n, "result": {"n": n}, "executedAt": "2026-03-01T12:00:00Z"})
}

/// What is on the stream of results, oldest first: bodies and message ids.
async fn delivered(fleet: &Fleet) -> Vec<(Value, String)> {
    let jetstream = jetstream::new(fleet.nats().await);
    let stream = jetstream.get_stream(STREAM).await.expect("the stream of results");
    let state = stream.cached_info().state.clone();
    let mut found = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        let id = message.headers.get("Nats-Msg-Id").expect("an id").to_string();
        assert_eq!(message.subject.as_str(), "satellite.result");
        found.push((serde_json::from_slice(&message.payload).expect("JSON"), id));
    }
    found
}

async fn expect_delivered(fleet: &Fleet, count: usize) -> Vec<(Value, String)> {
    eventually(&format!("{count} results on the stream"), async || {
        let jetstream = jetstream::new(fleet.nats().await);
        let stream = jetstream.get_stream(STREAM).await.map_err(|error| error.to_string())?;
        let there = stream.cached_info().state.messages;
        if there == count as u64 { Ok(()) } else { Err(there.to_string()) }
    })
    .await;
    delivered(fleet).await
}

/// Two pods, and a satellite on the second that may send results of `c`.
async fn with_assigned(fleet: &Fleet) -> (Pod, Pod, Credentials, Satellite) {
    // More at once than an agent's hundred buffered results.
    let b = fleet.plan("b").with("GROUNDSTATION_MESSAGE_BURST", "100000").start().await;
    let a = fleet.pod("a").await;
    let credentials = a.register("edge", "eu").await;
    a.assign(credentials.id, &json!([assignment("c")])).await;
    let (satellite, _) = Satellite::welcomed(b.address, &credentials).await;
    (a, b, credentials, satellite)
}

#[tokio::test]
async fn an_assigned_result_is_on_the_stream_as_it_was_sent_with_who_sent_it() {
    let fleet = Fleet::new(CALM).await;
    let (_a, b, credentials, satellite) = with_assigned(&fleet).await;
    let mut lying = result("c", 1);
    lying["sourceId"] = json!("somebody else");
    satellite.send(&lying);
    let mut expected = result("c", 1);
    expected["sourceId"] = json!(credentials.id);
    expected["sourceLabel"] = json!("edge (eu)");
    let found = expect_delivered(&fleet, 1).await;
    assert_eq!(found[0].0, expected);
    b.expect_metric(&outcome("delivered"), 1.0).await;
    // The same result again gets the same id.
    satellite.send(&lying);
    satellite.send(&result("c", 2));
    let found = expect_delivered(&fleet, 2).await;
    assert_eq!(found[1].0["latencyMs"], 2);
    assert_ne!(found[0].1, found[1].1);
    b.expect_metric(&outcome("delivered"), 3.0).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_result_that_is_not_assigned_is_dropped_logged_and_counted_and_the_socket_stays() {
    let fleet = Fleet::new(CALM).await;
    let (a, b, credentials, satellite) = with_assigned(&fleet).await;
    let other = a.register("other", "eu").await;
    a.assign(other.id, &json!([assignment("theirs")])).await;
    let mut wrong_system = result("c", 1);
    wrong_system["systemId"] = json!("another");
    satellite.send(&result("unknown", 1));
    satellite.send(&result("theirs", 1));
    satellite.send(&wrong_system);
    satellite.send(&result("c", 7));
    let found = expect_delivered(&fleet, 1).await;
    assert_eq!(found[0].0["latencyMs"], 7);
    assert_eq!(b.metric(&outcome("not_assigned")).await, 3.0);
    let line = b.expect_log("a message was dropped").await;
    assert_eq!(
        (&line["reason"], &line["satellite"]),
        (&json!("not_assigned"), &json!(credentials.id))
    );
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    fleet.check().await;
}

#[tokio::test]
async fn a_revoked_assignment_stops_its_results_at_once_on_every_pod() {
    const ROUNDS: u32 = 12;
    let fleet = Fleet::new(CALM).await;
    let (a, b, credentials, mut satellite) = with_assigned(&fleet).await;
    let kept = assignment("kept");
    for n in 0..ROUNDS {
        let both = json!([assignment("c"), kept]);
        a.assign(credentials.id, &both).await;
        while satellite.expect("config_updated").await["assignments"] != both {}
        a.assign(credentials.id, &json!([kept])).await;
        // The API says that it is revoked: whatever the satellite's pod knows, this result is too late.
        satellite.send(&result("c", n));
        satellite.send(&result("kept", n));
        let found = expect_delivered(&fleet, n as usize + 1).await;
        assert_eq!(found.last().expect("one").0["latencyMs"], n);
    }
    for (body, _) in delivered(&fleet).await {
        assert_eq!(body["configId"], "kept", "{body}");
    }
    let stopped = b.metric(&outcome("revoked")).await + b.metric(&outcome("not_assigned")).await;
    assert_eq!(stopped, f64::from(ROUNDS));
    fleet.check().await;
}

#[tokio::test]
async fn what_was_sent_before_a_pod_that_ends_said_goodbye_is_on_the_stream() {
    const SENT: u32 = 60;
    let fleet = Fleet::new(CALM).await;
    // So low a rate that most of them are not read by then.
    let slow = fleet.plan("a").with("GROUNDSTATION_MESSAGE_RATE", "1");
    let mut pod = slow.with("GROUNDSTATION_MESSAGE_BURST", "1").start().await;
    let credentials = pod.register("edge", "eu").await;
    pod.assign(credentials.id, &json!([assignment("c")])).await;
    let (mut satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    for n in 0..SENT {
        satellite.send(&result("c", n));
    }
    satellite.expect_sent().await;
    pod.terminate();
    assert_eq!(satellite.hear().await, Heard::Closed(1012));
    assert_eq!(pod.exit().await.code(), Some(0), "{}", pod.log());
    let found = delivered(&fleet).await;
    let found: Vec<Value> = found.into_iter().map(|(body, _)| body["latencyMs"].clone()).collect();
    assert_eq!(found, (0..SENT).map(|n| json!(n)).collect::<Vec<Value>>());
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
}

#[tokio::test]
async fn with_nats_away_results_wait_and_what_is_too_much_is_dropped_oldest_first() {
    // As many as one pod keeps, and some more.
    const KEPT: u32 = 10_000;
    const TOO_MUCH: u32 = 40;
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let (_a, b, credentials, satellite) = with_assigned(&fleet).await;
    b.expect_nats().await;
    fleet.own_nats().kill();
    eventually("the pod to miss NATS", async || {
        let up = b.metric("groundstation_nats_up").await;
        if up == 0.0 { Ok(()) } else { Err(up.to_string()) }
    })
    .await;
    for n in 0..KEPT + TOO_MUCH {
        satellite.send(&result("c", n));
    }
    b.expect_metric(&outcome("overflowed"), f64::from(TOO_MUCH)).await;
    b.expect_metric("groundstation_results_waiting", f64::from(KEPT)).await;
    assert_eq!(b.metric(&outcome("delivered")).await, 0.0);
    let fleet = blocking(move || {
        fleet.own_nats().restart().expect("NATS restarts");
        fleet
    })
    .await;
    b.expect_metric(&outcome("delivered"), f64::from(KEPT)).await;
    let found = expect_delivered(&fleet, KEPT as usize).await;
    let numbers: Vec<u64> =
        found.iter().filter_map(|(body, _)| body["latencyMs"].as_u64()).collect();
    let expected: Vec<u64> = (u64::from(TOO_MUCH)..u64::from(KEPT + TOO_MUCH)).collect();
    let wrong = numbers.iter().zip(&expected).find(|(found, wanted)| found != wanted);
    assert!(wrong.is_none(), "out of order, or not the oldest: {wrong:?}");
    assert_eq!(b.metric(&outcome("overflowed")).await, f64::from(TOO_MUCH));
    let line = b.expect_log("results were dropped").await;
    assert_eq!(line["satellite"], json!(credentials.id));
    fleet.check().await;
}

#[tokio::test]
async fn results_wait_while_the_database_cannot_say_whether_they_are_assigned() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let credentials = pod.register("edge", "eu").await;
    pod.assign(credentials.id, &json!([assignment("c")])).await;
    let (satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    satellite.send(&result("c", 0));
    expect_delivered(&fleet, 1).await;
    database.refuse();
    database.cut();
    satellite.send(&result("c", 1));
    pod.expect_log("results wait").await;
    assert_eq!(delivered(&fleet).await.len(), 1);
    // Revoked without this pod's knowledge.
    let other = fleet.pod("b").await;
    other.assign(credentials.id, &json!([])).await;
    database.admit();
    pod.expect_metric(&outcome("revoked"), 1.0).await;
    assert_eq!(delivered(&fleet).await.len(), 1);
    drop(satellite);
    fleet.check().await;
}

#[tokio::test]
async fn results_that_were_revoked_by_the_hundred_are_told_of_a_few_times() {
    const COUNT: u32 = 300;
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let credentials = pod.register("edge", "eu").await;
    pod.assign(credentials.id, &json!([assignment("c")])).await;
    let (satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    database.refuse();
    database.cut();
    for n in 0..COUNT {
        satellite.send(&result("c", n));
    }
    pod.expect_metric("groundstation_results_waiting", f64::from(COUNT)).await;
    let other = fleet.pod("b").await;
    other.assign(credentials.id, &json!([])).await;
    database.admit();
    pod.expect_metric(&outcome("revoked"), f64::from(COUNT)).await;
    let told = pod.told("assignment was revoked");
    // A burst of fifty, and one each second.
    assert!((50..100).contains(&told), "{told} lines");
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_ends_delivers_what_it_has_taken() {
    let fleet = Fleet::new(CALM).await;
    let (_a, mut b, _, satellite) = with_assigned(&fleet).await;
    for n in 0..500 {
        satellite.send(&result("c", n));
    }
    satellite.beat();
    b.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    b.terminate();
    assert!(b.exit().await.success());
    assert_eq!(expect_delivered(&fleet, 500).await.len(), 500);
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_ends_while_nats_is_away_says_how_many_results_are_lost() {
    // The second one's deadline passes before the pod has tried everything for its results.
    for deadline in ["20s", "7s"] {
        let mut fleet = Fleet::with_own_nats(CALM).await;
        let a = fleet.pod("a").await;
        let plan = fleet.plan("b").with("GROUNDSTATION_DRAIN_DEADLINE", deadline);
        let mut b = plan.start().await;
        let credentials = a.register("edge", "eu").await;
        a.assign(credentials.id, &json!([assignment("c")])).await;
        let (satellite, _) = Satellite::welcomed(b.address, &credentials).await;
        b.expect_nats().await;
        fleet.own_nats().kill();
        b.expect_log("NATS is away: edges wait in the log").await;
        for n in 0..3 {
            satellite.send(&result("c", n));
        }
        b.expect_metric("groundstation_results_waiting", 3.0).await;
        let begun = std::time::Instant::now();
        b.terminate();
        assert!(b.exit().await.success());
        println!("{deadline}: ended in {:?}", begun.elapsed());
        let line = b.logged("the pod ends with results that were not delivered");
        let line = line.unwrap_or_else(|| panic!("{deadline}: {}", b.log()));
        assert_eq!(line["lost"], 3, "{deadline}");
    }
}

/// In a cluster nats-server 2.10 remembers the id of a message it refused, and answers a repetition as a duplicate
/// with sequence 0 until its duplicate window is over.
#[tokio::test]
async fn what_is_called_a_repetition_of_something_that_was_not_stored_is_not_delivered_yet() {
    let cluster = Cluster::start(Version::V2_10).await;
    let fleet = cluster.fleet(CALM).await;
    let subjects = || vec!["satellite.result".to_owned()];
    let make = || cluster.make(&fleet, STREAM, subjects(), Duration::from_secs(3));
    make().await;
    let (_a, b, _, satellite) = with_assigned(&fleet).await;
    satellite.send(&result("c", 1));
    let id = expect_delivered(&fleet, 1).await[0].1.clone();
    let jetstream = jetstream::new(fleet.nats().await);
    jetstream.delete_stream(STREAM).await.expect("deleted");
    make().await;
    let message = PublishMessage::build().message_id(&id).expected_last_sequence(7);
    let sent = jetstream.send_publish("satellite.result", message).await.expect("sent");
    sent.await.expect_err("refused");
    satellite.send(&result("c", 1));
    assert_eq!(expect_delivered(&fleet, 1).await[0].1, id);
    b.expect_metric(&outcome("delivered"), 2.0).await;
}
