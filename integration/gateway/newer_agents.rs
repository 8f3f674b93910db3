//! Agents of later versions ask questions that nothing answers here: they are told so at once, and stay connected.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::stream::Config;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::subscriber::body;
use crate::harness::wait::PATIENCE;
use crate::harness::{CALM, Fleet, Heard, Pod, Satellite, eventually};

fn batch(id: &str, items: usize) -> Value {
    json!({"type": "telemetry_batch", "batchId": id, "kind": "logstream",
           "payload": vec![json!({"line": "x"}); items], "droppedByGroup": {"a": 1}})
}

fn capability_status() -> Value {
    json!({"type": "capability_status", "kind": "metric-scrape", "payload": {"targets": []}})
}

async fn connected(fleet: &Fleet) -> (Pod, uuid::Uuid, Satellite) {
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    (pod, credentials.id, satellite)
}

#[tokio::test]
async fn what_nobody_serves_is_answered_at_once_and_the_session_stays() {
    let fleet = Fleet::new(CALM).await;
    let (pod, id, mut satellite) = connected(&fleet).await;
    let asked = Instant::now();
    satellite.send(&json!({"type": "request_config_secrets", "requestId": "r-1", "configId": "c",
                           "runId": "run"}));
    let answer = satellite.expect("config_secrets").await;
    assert_eq!(answer["requestId"], "r-1");
    assert!(answer["error"].is_string(), "{answer}");
    assert_eq!(answer.as_object().map(serde_json::Map::len), Some(3), "{answer}");

    satellite.send(&json!({"type": "capability_secret_request", "requestId": "r-2",
                           "kind": "metric-scrape", "payload": {"targetId": "t"}}));
    let answer = satellite.expect("capability_secret_response").await;
    assert_eq!(answer["requestId"], "r-2");
    assert!(answer["error"].is_string(), "{answer}");
    assert_eq!(answer.as_object().map(serde_json::Map::len), Some(3), "{answer}");

    satellite.send(&capability_status());
    satellite.send(&batch("7", 3));
    assert_eq!(
        satellite.expect("telemetry_ack").await,
        json!({"type": "telemetry_ack", "batchId": "7", "accepted": 0, "rejected": 3,
               "retryable": false})
    );
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(
        pod.metric("groundstation_dropped_messages_total{reason=\"unknown_type\"}").await,
        0.0
    );
    satellite.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    assert_eq!(fleet.history(id).await, ["1 connected connect"]);
    satellite.close().await;
    fleet.check().await;
}

/// An agent has a few batches on the way at a time and goes on as they are acknowledged; another one does not read
/// for a while. Neither is sent away.
#[tokio::test]
async fn hundreds_of_batches_at_once_are_all_acknowledged() {
    const BATCHES: usize = 300;
    let fleet = Fleet::new(CALM).await;
    let (_pod, id, mut satellite) = connected(&fleet).await;
    for n in 0..BATCHES {
        satellite.send(&batch(&n.to_string(), 1));
    }
    for n in 0..BATCHES {
        assert_eq!(satellite.expect("telemetry_ack").await["batchId"], n.to_string());
    }
    assert_eq!(fleet.history(id).await, ["1 connected connect"]);
    fleet.check().await;
}

#[tokio::test]
async fn what_somebody_made_a_stream_for_is_passed_on_to_it_with_who_said_it() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let stream = Config {
        name: "TELEMETRY".to_owned(),
        subjects: vec!["satellite.telemetry_batch".into(), "satellite.capability_status".into()],
        ..Config::default()
    };
    let stream = jetstream::new(nats).create_stream(stream).await.expect("a stream");
    let (pod, id, mut satellite) = connected(&fleet).await;
    // A pod looks for such streams by itself from time to time.
    eventually("the stream to be known", async || {
        satellite.send(&batch("7", 3));
        let ack = satellite.expect("telemetry_ack").await;
        assert_eq!(ack["retryable"], false);
        if ack["accepted"] == 3 && ack["rejected"] == 0 { Ok(()) } else { Err(ack.to_string()) }
    })
    .await;
    satellite.send(&capability_status());
    let found = eventually("both on the stream", async || {
        let mut found = Vec::new();
        for sequence in [1, 2] {
            match stream.get_raw_message(sequence).await {
                Ok(message) => found.push(message),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(found)
    })
    .await;
    for (message, (subject, mut sent)) in found.iter().zip([
        ("satellite.telemetry_batch", batch("7", 3)),
        ("satellite.capability_status", capability_status()),
    ]) {
        sent["sourceId"] = json!(id);
        sent["sourceLabel"] = json!("edge (eu)");
        assert_eq!(message.subject.as_str(), subject);
        assert_eq!(serde_json::from_slice::<Value>(&message.payload).expect("JSON"), sent);
    }
    // What the bus does not carry is refused, and must not be sent again.
    let mut large = batch("8", 1);
    large["payload"] = json!(["x".repeat(2 * 1024 * 1024)]);
    satellite.send(&large);
    let ack = satellite.expect("telemetry_ack").await;
    assert_eq!(
        (&ack["accepted"], &ack["rejected"], &ack["retryable"]),
        (&json!(0), &json!(1), &json!(false))
    );
    let too_large = "groundstation_passed_on_messages_total{subject=\"satellite.telemetry_batch\",outcome=\"too_large\"}";
    assert_eq!(pod.metric(too_large).await, 1.0);
    fleet.check().await;
}

#[tokio::test]
async fn a_sandbox_policy_is_pushed_where_a_backend_has_one() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let mut asked = nats.subscribe("satellite.sandbox-policy").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let policy = json!({"network": {"mode": "deny"}, "limits": {"memoryMb": 1.50}});
    let told = json!({"policy": policy}).to_string();
    tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            assert_eq!(body(&question), json!({}));
            let reply = question.reply.expect("a request");
            nats.publish(reply, told.clone().into()).await.expect("published");
        }
    });
    let (_pod, _, mut satellite) = connected(&fleet).await;
    let pushed = satellite.expect("sandbox_policy").await;
    assert_eq!(pushed, json!({"type": "sandbox_policy", "policy": policy}));
    fleet.check().await;
}

#[tokio::test]
async fn a_backend_that_does_not_say_what_the_policy_is_delays_no_welcome() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let mut asked = nats.subscribe("satellite.sandbox-policy").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    // Welcomed while the question is open. An answer that is no policy counts as none.
    let question = timeout(PATIENCE, asked.next()).await.expect("in time").expect("a question");
    nats.publish(question.reply.expect("a request"), r#"{"policy":["x"]}"#.into())
        .await
        .expect("published");
    satellite.send(&batch("1", 1));
    assert!(
        matches!(satellite.hear().await, Heard::Message(said) if said["type"] == "telemetry_ack")
    );
    let malformed = "groundstation_backend_requests_total{subject=\"satellite.sandbox-policy\",outcome=\"malformed\"}";
    pod.expect_metric(malformed, 1.0).await;
    fleet.check().await;
}
