//! Script packages belong to another backend: satellites get its answers through any pod, and answers
//! that say nothing where it is not there.

use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::harness::subscriber::body;
use crate::harness::{CALM, Fleet, Satellite};

/// Answers every request on this subject with what `answer` makes of it; with nothing where it makes
/// nothing.
async fn respond(
    nats: &Client,
    subject: &'static str,
    answer: impl Fn(Value) -> Option<Value> + Send + 'static,
) {
    let mut asked = nats.subscribe(subject).await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let nats = nats.clone();
    tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            if let (Some(answer), Some(reply)) = (answer(body(&question)), question.reply) {
                nats.publish(reply, answer.to_string().into()).await.expect("published");
            }
        }
    });
}

fn manifest_of(hash: &str) -> Value {
    json!({"type": "request_script_package_manifest", "lockfileHash": hash})
}

fn blob_of(integrity: &str) -> Value {
    json!({"type": "request_script_package_blob", "integrity": integrity})
}

#[tokio::test]
async fn where_nobody_answers_satellites_get_the_answers_of_the_contract_at_once() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    // `connect` holds the welcome against one without a hash.
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    let asked = Instant::now();
    satellite.send(&manifest_of("h1"));
    let answer = satellite.expect("script_package_manifest").await;
    assert_eq!(
        answer,
        json!({"type": "script_package_manifest", "lockfileHash": "h1", "entries": []})
    );
    satellite.send(&blob_of("sha512-x"));
    let answer = satellite.expect("script_package_blob").await;
    assert_eq!(
        answer,
        json!({"type": "script_package_blob", "integrity": "sha512-x", "data": null})
    );
    assert!(asked.elapsed() < Duration::from_secs(4), "it did not wait for anybody");
    fleet.check().await;
}

#[tokio::test]
async fn the_backends_answers_reach_the_satellite() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let entries = json!([{"name": "left-pad", "version": "1.3.0", "integrity": "sha512-x"}]);
    let told = entries.clone();
    respond(&nats, "script-packages.manifest", move |question| {
        Some(match question["lockfileHash"] == "h1" {
            true => json!({"lockfileHash": "h1", "entries": told}),
            false => json!({"entries": "something else"}),
        })
    })
    .await;
    respond(&nats, "script-packages.blob", |question| {
        let data = (question["integrity"] == "sha512-x").then(|| "aGVsbG8=".repeat(50_000));
        Some(json!({"data": data}))
    })
    .await;
    respond(&nats, "script-packages.lockfile-hash", |_| Some(json!({"lockfileHash": "h1"}))).await;

    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let (mut satellite, welcome) = Satellite::welcomed(pod.address, &credentials).await;
    assert_eq!(welcome["scriptPackagesLockfileHash"], "h1");
    satellite.send(&manifest_of("h1"));
    assert_eq!(satellite.expect("script_package_manifest").await["entries"], entries);
    satellite.send(&manifest_of("h2"));
    assert_eq!(satellite.expect("script_package_manifest").await["entries"], json!([]));
    satellite.send(&blob_of("sha512-x"));
    let blob = satellite.expect("script_package_blob").await;
    assert_eq!(blob["data"].as_str().map(str::len), Some(400_000));
    satellite.send(&blob_of("sha512-y"));
    assert_eq!(satellite.expect("script_package_blob").await["data"], json!(null));
    fleet.check().await;
}

#[tokio::test]
async fn a_backend_without_packages_is_told_as_null() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    respond(&nats, "script-packages.lockfile-hash", |_| Some(json!({"lockfileHash": null}))).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let (_satellite, welcome) = Satellite::welcomed(pod.address, &credentials).await;
    assert_eq!(welcome.get("scriptPackagesLockfileHash"), Some(&json!(null)));
    fleet.check().await;
}

#[tokio::test]
async fn a_backend_that_never_answers_holds_up_no_heartbeat_and_no_other_answer() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    respond(&nats, "script-packages.manifest", |_| None).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    let asked = Instant::now();
    for n in 0..8 {
        satellite.send(&manifest_of(&n.to_string()));
    }
    satellite.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    // Each ends within its time-out, with nothing.
    for _ in 0..8 {
        let answer = satellite.expect("script_package_manifest").await;
        assert_eq!(answer["entries"], json!([]));
    }
    assert!(asked.elapsed() >= Duration::from_millis(4_900), "{:?}", asked.elapsed());
    let timed_out = "groundstation_backend_requests_total{subject=\"script-packages.manifest\",outcome=\"timeout\"}";
    assert_eq!(pod.metric(timed_out).await, 8.0);
    fleet.check().await;
}

#[tokio::test]
async fn new_packages_are_told_to_the_satellites_of_every_pod() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let mut satellites = Vec::new();
    for (n, pod) in [&a, &b, &b].into_iter().enumerate() {
        let credentials = a.register(&format!("edge-{n}"), "eu").await;
        satellites.push(Satellite::connect(pod.address, &credentials).await);
    }
    nats.publish("script-packages.changed", "not JSON".into()).await.expect("published");
    let changed = json!({"lockfileHash": "h2"});
    nats.publish("script-packages.changed", changed.to_string().into()).await.expect("published");
    for satellite in &mut satellites {
        let refresh = satellite.expect("refresh_script_packages").await;
        assert_eq!(refresh, json!({"type": "refresh_script_packages", "lockfileHash": "h2"}));
    }
    fleet.check().await;
}

#[tokio::test]
async fn what_an_agent_says_of_its_strategies_and_packages_is_passed_on_with_who_said_it() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let mut errors = nats.subscribe("satellite.strategy_error").await.expect("a subscription");
    let mut states =
        nats.subscribe("satellite.script_package_sync_state").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    let error =
        json!({"type": "strategy_error", "strategyId": "http", "message": "no \"route\"\n"});
    let state = json!({"type": "script_package_sync_state", "lockfileHash": null, "status": "error",
                       "errorMessage": "disk full"});
    satellite.send(&error);
    satellite.send(&state);
    for (mut sent, heard) in [(error, &mut errors), (state, &mut states)] {
        sent["sourceId"] = json!(credentials.id);
        sent["sourceLabel"] = json!("edge (eu)");
        let message = tokio::time::timeout(Duration::from_secs(30), heard.next()).await;
        assert_eq!(body(&message.expect("in time").expect("a message")), sent);
    }
    let line = pod.expect_log("a strategy failed").await;
    assert_eq!((&line["level"], &line["satellite"]), (&json!("WARN"), &json!(credentials.id)));
    fleet.check().await;
}
