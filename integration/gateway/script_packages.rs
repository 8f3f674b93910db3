//! Script packages belong to another backend. Satellites get its answers through any pod, and no answer where it gave
//! none, because an empty one would pass for the truth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::subscriber::body;
use crate::harness::wait::PATIENCE;
use crate::harness::{CALM, Fleet, Pod, Proxy, Satellite, eventually};

/// Answers every request on this subject with the result of `answer`, or not at all if that is none.
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

/// Announces a new hash to every satellite, so that earlier answers come before it.
async fn announce(nats: &Client, hash: &str) {
    let changed = json!({"lockfileHash": hash}).to_string();
    nats.publish("script-packages.changed", changed.into()).await.expect("published");
    nats.flush().await.expect("NATS answers");
}

/// The next message to the satellite is this hash: nothing was sent to it before.
async fn hears_next_of(satellite: &mut Satellite, hash: &str) {
    let refresh = satellite.expect("refresh_script_packages").await;
    assert_eq!(refresh, json!({"type": "refresh_script_packages", "lockfileHash": hash}));
}

async fn expect_asked(pod: &Pod, subject: &str, outcome: &str, count: f64) {
    let asked = format!(
        "groundstation_backend_requests_total{{subject=\"script-packages.{subject}\",outcome=\"{outcome}\"}}"
    );
    pod.expect_metric(&asked, count).await;
}

#[tokio::test]
async fn what_nobody_answers_is_not_answered_and_the_session_goes_on() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    // `connect` checks the welcome against one without a hash.
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    satellite.send(&manifest_of("h1"));
    satellite.send(&blob_of("sha512-x"));
    expect_asked(&pod, "manifest", "no_responders", 1.0).await;
    expect_asked(&pod, "blob", "no_responders", 1.0).await;
    announce(&fleet.nats().await, "h2").await;
    hears_next_of(&mut satellite, "h2").await;
    fleet.check().await;
}

#[tokio::test]
async fn an_answer_that_is_none_is_not_passed_on_as_an_empty_one() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    respond(&nats, "script-packages.manifest", |question| {
        Some(match question["lockfileHash"].as_str() {
            Some("empty") => json!({"entries": []}),
            Some("fails") => json!({"error": "the store is away"}),
            Some("texts") => json!({"entries": ["left-pad"]}),
            _ => json!({"entries": [{"name": "left-pad", "version": "1.3.0"}]}),
        })
    })
    .await;
    respond(&nats, "script-packages.blob", |question| {
        Some(match question["integrity"] == "missing" {
            true => json!({"data": null}),
            false => json!({"error": "the store is away"}),
        })
    })
    .await;
    // The message says nothing of packages, so none are removed.
    respond(&nats, "script-packages.lockfile-hash", |_| Some(json!({"error": "away"}))).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    for hash in ["fails", "texts", "half"] {
        satellite.send(&manifest_of(hash));
    }
    expect_asked(&pod, "manifest", "malformed", 3.0).await;
    satellite.send(&blob_of("fails"));
    expect_asked(&pod, "blob", "malformed", 1.0).await;
    satellite.send(&manifest_of("empty"));
    let answer = satellite.expect("script_package_manifest").await;
    let empty = json!({"type": "script_package_manifest", "lockfileHash": "empty", "entries": []});
    assert_eq!(answer, empty);
    satellite.send(&blob_of("missing"));
    let answer = satellite.expect("script_package_blob").await;
    let missing = json!({"type": "script_package_blob", "integrity": "missing", "data": null});
    assert_eq!(answer, missing);
    fleet.check().await;
}

#[tokio::test]
async fn answers_that_are_none_are_told_of_a_few_times_however_often_a_satellite_asks() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    respond(&nats, "script-packages.manifest", |_| Some(json!({"error": "away"}))).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    for n in 0..200 {
        satellite.send(&manifest_of(&format!("h{n}")));
    }
    expect_asked(&pod, "manifest", "malformed", 200.0).await;
    let told = pod.told("an answer is not valid");
    // A burst of fifty, and one each second.
    assert!((50..100).contains(&told), "{told} lines");
    fleet.check().await;
}

#[tokio::test]
async fn the_backends_answers_reach_the_satellite() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    // Other fields of the backend's answer are for the agent.
    let entries = json!([{"name": "left-pad", "version": "1.3.0", "integrity": "sha512-x",
                          "blobSha256": "abc", "size": 12345678901234567890u64}]);
    let told = entries.clone();
    respond(&nats, "script-packages.manifest", move |_| {
        Some(json!({"lockfileHash": "h1", "entries": told}))
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
    satellite.send(&blob_of("sha512-x"));
    let blob = satellite.expect("script_package_blob").await;
    assert_eq!(blob["data"].as_str().map(str::len), Some(400_000));
    satellite.send(&blob_of("sha512-y"));
    assert_eq!(satellite.expect("script_package_blob").await["data"], json!(null));
    fleet.check().await;
}

/// A backend whose packages take several answers: each question says where the next one begins.
async fn keep(nats: &Client, packages: &[(&'static str, String)], part: usize) -> Asked {
    let packages: HashMap<&str, String> = packages.iter().cloned().collect();
    let (note, asked) = tokio::sync::mpsc::unbounded_channel();
    respond(nats, "script-packages.blob", move |question| {
        let data = &packages[question["integrity"].as_str()?];
        let offset = question["offset"].as_u64().expect("where it begins") as usize;
        note.send(offset).expect("the test listens");
        let part = &data[offset..data.len().min(offset + part)];
        Some(json!({"data": part, "total": data.len()}))
    })
    .await;
    asked
}

/// Where each question began.
type Asked = tokio::sync::mpsc::UnboundedReceiver<usize>;

/// As large as the packages that agents in the field fetch first.
const TYPESCRIPT: usize = 5_900_000;

/// Text that shows a missing, doubled or misplaced part.
fn package(length: usize) -> String {
    let mut data: String = (0..length / 8 + 1).map(|n| format!("{n:08x}")).collect();
    data.truncate(length);
    data
}

async fn expect_blob(satellite: &mut Satellite, integrity: &str, data: &str) {
    let blob = satellite.expect("script_package_blob").await;
    assert_eq!(blob["integrity"], integrity);
    let got = blob["data"].as_str().expect("data");
    assert_eq!(got.len(), data.len());
    assert!(got == data, "something else came");
}

#[tokio::test]
async fn a_package_larger_than_a_message_of_nats_comes_whole_and_others_are_heard_meanwhile() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let data = package(TYPESCRIPT);
    let mut asked = keep(&nats, &[("typescript", data.clone())], 700_000).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    satellite.send(&blob_of("typescript"));
    satellite.beat();
    expect_blob(&mut satellite, "typescript", &data).await;
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    for part in 0..9 {
        assert_eq!(asked.try_recv(), Ok(part * 700_000));
    }
    assert!(asked.try_recv().is_err(), "that was all of it");
    // Afterwards it is a session like any other.
    announce(&nats, "h2").await;
    hears_next_of(&mut satellite, "h2").await;
    satellite.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn satellites_that_ask_for_the_same_package_at_once_share_one_fetch() {
    const SATELLITES: usize = 5;
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let mut questions = nats.subscribe("script-packages.blob").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let mut satellites = Vec::new();
    for credentials in fleet.register_many("edge", SATELLITES).await {
        satellites.push(Satellite::connect(pod.address, &credentials).await);
    }
    for satellite in &satellites {
        satellite.send(&blob_of("typescript"));
        satellite.beat();
    }
    // What a satellite sent before its heartbeat has been heard by now.
    pod.expect_metric("groundstation_heartbeats_received_total", SATELLITES as f64).await;
    let data = package(2_000_000);
    for (offset, part) in [
        (0, &data[..900_000]),
        (900_000, &data[900_000..1_800_000]),
        (1_800_000, &data[1_800_000..]),
    ] {
        let question = timeout(PATIENCE, questions.next()).await;
        let question = question.expect("in time").expect("a question");
        assert_eq!(body(&question), json!({"integrity": "typescript", "offset": offset}));
        let answer = json!({"data": part, "total": data.len()}).to_string();
        nats.publish(question.reply.expect("a request"), answer.into()).await.expect("published");
    }
    for satellite in &mut satellites {
        expect_blob(satellite, "typescript", &data).await;
    }
    expect_asked(&pod, "blob", "answered", 3.0).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_package_that_is_too_large_or_does_not_go_together_is_not_answered() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    respond(&nats, "script-packages.blob", |question| {
        let at_start = question["offset"] == 0;
        Some(match question["integrity"].as_str()? {
            "large" => json!({"data": "x", "total": 65_537}),
            "endless" => json!({"data": if at_start { "x" } else { "" }, "total": 9}),
            "long" => json!({"data": "xxxxx", "total": 9}),
            "gone" => json!({"data": if at_start { json!("x") } else { json!(null) }, "total": 9}),
            "good" => json!({"data": "x".repeat(65_536)}),
            _ => json!({"data": null}),
        })
    })
    .await;
    let pod = fleet.plan("a").with("GROUNDSTATION_MAX_BLOB_BYTES", "65536").start().await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    for integrity in ["large", "endless", "long", "gone"] {
        satellite.send(&blob_of(integrity));
    }
    pod.expect_log("a script package is larger than GROUNDSTATION_MAX_BLOB_BYTES").await;
    expect_asked(&pod, "blob", "answered", 7.0).await;
    satellite.send(&blob_of("good"));
    expect_blob(&mut satellite, "good", &"x".repeat(65_536)).await;
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
    for n in 0..8 {
        satellite.send(&manifest_of(&n.to_string()));
    }
    satellite.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    announce(&nats, "h2").await;
    hears_next_of(&mut satellite, "h2").await;
    // Each ends within its time-out, with no answer.
    expect_asked(&pod, "manifest", "timeout", 8.0).await;
    announce(&nats, "h3").await;
    hears_next_of(&mut satellite, "h3").await;
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
    // The same hash again makes an agent that has failed try again.
    for hash in ["h2", "h3", "h3"] {
        announce(&nats, hash).await;
        for satellite in &mut satellites {
            hears_next_of(satellite, hash).await;
        }
    }
    fleet.check().await;
}

/// The backend's desired hash, which a test may change.
async fn desired(nats: &Client, hash: Option<&str>) -> Arc<Mutex<Option<String>>> {
    let desired = Arc::new(Mutex::new(hash.map(str::to_owned)));
    let told = desired.clone();
    respond(nats, "script-packages.lockfile-hash", move |_| {
        Some(json!({"lockfileHash": *told.lock().expect("the hash")}))
    })
    .await;
    desired
}

fn assignments(config: &str) -> Value {
    json!([{"configId": config, "systemId": "s", "strategyId": "script", "config": {},
            "intervalSeconds": 60}])
}

#[tokio::test]
async fn new_assignments_come_with_the_hash_of_the_packages_they_need() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    // No hash is known, so none is sent.
    pod.assign(credentials.id, &assignments("c1")).await;
    let updated = satellite.expect("config_updated").await;
    assert_eq!(updated, json!({"type": "config_updated", "assignments": assignments("c1")}));
    announce(&nats, "h1").await;
    hears_next_of(&mut satellite, "h1").await;
    // For a pod whose connection to NATS broke meanwhile: it asks anew.
    let _desired = desired(&nats, Some("h1")).await;
    pod.assign(credentials.id, &assignments("c2")).await;
    let updated = satellite.expect("config_updated").await;
    assert_eq!(updated["scriptPackagesLockfileHash"], "h1");
    assert_eq!(updated["assignments"], assignments("c2"));
    fleet.check().await;
}

#[tokio::test]
async fn a_hash_announced_on_a_pods_first_connection_to_nats_is_not_forgotten() {
    let fleet = Fleet::new(CALM).await;
    let (way, nats_url) = Proxy::before(&fleet.nats_url).await;
    way.refuse();
    let pod = fleet.plan("a").with("NATS_URL", &nats_url).start().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    way.admit();
    pod.expect_nats().await;
    announce(&fleet.nats().await, "h1").await;
    hears_next_of(&mut satellite, "h1").await;
    // By then the pod has checked whether its connection to NATS broke, and nothing would answer it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    pod.assign(credentials.id, &assignments("c1")).await;
    assert_eq!(satellite.expect("config_updated").await["scriptPackagesLockfileHash"], "h1");
    fleet.check().await;
}

#[tokio::test]
async fn a_hash_that_changed_while_nats_was_away_reaches_live_sessions_when_it_is_back() {
    let fleet = Fleet::new(CALM).await;
    let backend = fleet.nats().await;
    let hash = desired(&backend, Some("h1")).await;
    let (way, nats_url) = Proxy::before(&fleet.nats_url).await;
    let pod = fleet.plan("a").with("NATS_URL", &nats_url).start().await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let (mut satellite, welcome) = Satellite::welcomed(pod.address, &credentials).await;
    assert_eq!(welcome["scriptPackagesLockfileHash"], "h1");
    let away = async || {
        way.refuse();
        pod.expect_metric("groundstation_nats_up", 0.0).await;
    };
    away().await;
    *hash.lock().expect("the hash") = Some("h2".to_owned());
    // The pod does not hear of it.
    announce(&backend, "h2").await;
    way.admit();
    hears_next_of(&mut satellite, "h2").await;

    // If nothing has changed nothing is sent: the next message is what is announced afterwards.
    away().await;
    let before = pod.metric(ANSWERED).await;
    way.admit();
    pod.expect_nats().await;
    eventually("the pod to ask again", async || {
        let asked = pod.metric(ANSWERED).await;
        if asked > before { Ok(()) } else { Err(asked.to_string()) }
    })
    .await;
    announce(&backend, "h3").await;
    hears_next_of(&mut satellite, "h3").await;

    // There is no message that says that there are no packages any more.
    away().await;
    *hash.lock().expect("the hash") = None;
    way.admit();
    let updated = satellite.expect("config_updated").await;
    let none = json!({"type": "config_updated", "assignments": [],
                      "scriptPackagesLockfileHash": null});
    assert_eq!(updated, none);
    fleet.check().await;
}

const ANSWERED: &str = "groundstation_backend_requests_total{subject=\"script-packages.lockfile-hash\",outcome=\"answered\"}";

#[tokio::test]
async fn a_backend_that_comes_late_is_asked_again_for_the_sessions_that_are_there() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    let _hash = desired(&nats, Some("h1")).await;
    hears_next_of(&mut satellite, "h1").await;
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
        let message = timeout(PATIENCE, heard.next()).await;
        assert_eq!(body(&message.expect("in time").expect("a message")), sent);
    }
    let line = pod.expect_log("a strategy failed").await;
    assert_eq!((&line["level"], &line["satellite"]), (&json!("WARN"), &json!(credentials.id)));
    fleet.check().await;
}

/// In addition to what the allocator keeps of it: a copy for each satellite would be ten times as much.
const MOST_KEPT: u64 = 60 * 1024 * 1024;

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_package_is_not_kept_once_for_every_satellite_that_got_it() {
    const SATELLITES: usize = 100;
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let data = package(TYPESCRIPT);
    let _asked = keep(&nats, &[("typescript", data.clone())], 700_000).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let mut satellites = Vec::new();
    for credentials in fleet.register_many("edge", SATELLITES).await {
        satellites.push(Satellite::connect(pod.address, &credentials).await);
    }
    let before = pod.resident();
    let mut most = 0;
    for ten in satellites.chunks_mut(10) {
        for satellite in ten.iter() {
            satellite.send(&blob_of("typescript"));
        }
        for satellite in ten {
            expect_blob(satellite, "typescript", &data).await;
        }
        most = most.max(pod.resident());
    }
    let (kept, most) = (pod.resident().saturating_sub(before), most.saturating_sub(before));
    eprintln!("kept {kept}, at most {most}");
    assert!(kept < MOST_KEPT, "{kept} bytes are kept");
    fleet.check().await;
}
