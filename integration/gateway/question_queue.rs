//! Questions of a satellite wait their turn: none is refused because it comes with others, and no satellite's
//! questions delay another's.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::subscriber::body;
use crate::harness::wait::PATIENCE;
use crate::harness::{CALM, Fleet, Satellite};

/// The most assignments that the API accepts.
const CHECKS: usize = 500;

/// How long an agent waits for an answer.
const AGENTS_PATIENCE: Duration = Duration::from_secs(30);

fn checks(count: usize) -> Value {
    let check = |n: usize| {
        let declared = json!({"A": format!("${{{{ secrets.S{n} }}}}")});
        json!({"configId": format!("c-{n}"), "systemId": "s", "strategyId": "script", "config": {},
               "intervalSeconds": 60, "collectors": [
                   {"id": "k", "collectorId": "script", "config": {"secretEnv": declared}}]})
    };
    (0..count).map(check).collect()
}

fn asks_for_secrets(check: usize) -> Value {
    json!({"type": "request_run_secrets", "requestId": check.to_string(), "runId": "r",
           "configId": format!("c-{check}"), "collectorId": "k"})
}

fn asks_for_manifest(hash: &str) -> Value {
    json!({"type": "request_script_package_manifest", "lockfileHash": hash})
}

/// Answers every secret with its name in small letters, after a while.
async fn keep_secrets(fleet: &Fleet, after: Duration) {
    let nats = fleet.nats().await;
    let mut asked = nats.subscribe("secrets.resolve").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            let nats = nats.clone();
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                let names = body(&question)["names"].clone();
                let names: Vec<String> = serde_json::from_value(names).expect("names");
                let secrets: serde_json::Map<String, Value> = names
                    .into_iter()
                    .map(|name| (name.clone(), name.to_lowercase().into()))
                    .collect();
                let answer = json!({"secrets": secrets}).to_string();
                nats.publish(question.reply.expect("a request"), answer.into())
                    .await
                    .expect("published");
            });
        }
    });
}

async fn heard(asked: &mut mpsc::UnboundedReceiver<String>) -> String {
    timeout(PATIENCE, asked.recv()).await.expect("a question in time").expect("a question")
}

#[tokio::test]
async fn as_many_secrets_as_the_satellite_has_checks_may_be_asked_for_at_once() {
    let fleet = Fleet::new(CALM).await;
    keep_secrets(&fleet, Duration::from_millis(20)).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    pod.assign(credentials.id, &checks(CHECKS)).await;
    let (mut satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    let asked = Instant::now();
    for check in 0..CHECKS {
        satellite.send(&asks_for_secrets(check));
    }
    let mut answered = BTreeSet::new();
    while answered.len() < CHECKS {
        let answer = satellite.expect("run_secrets").await;
        let check = answer["requestId"].as_str().expect("an id").to_owned();
        assert_eq!(answer["env"], json!({"A": format!("s{check}")}), "{answer}");
        assert!(answered.insert(check), "answered twice: {answer}");
    }
    println!("{CHECKS} questions answered in {:?}", asked.elapsed());
    assert!(asked.elapsed() < AGENTS_PATIENCE, "{:?}", asked.elapsed());
    pod.expect_metric("groundstation_questions_waiting", 0.0).await;
    fleet.check().await;
}

/// While a backend answers none, each question takes its full time. Those behind learn in time that they will get no
/// answer.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn what_cannot_be_answered_in_time_is_told_so_in_time() {
    const MANY: usize = 100;
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    let _silent = nats.subscribe("secrets.resolve").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    pod.assign(credentials.id, &checks(MANY)).await;
    let (mut satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    let asked = Instant::now();
    for check in 0..MANY {
        satellite.send(&asks_for_secrets(check));
    }
    for _ in 0..MANY {
        let answer = satellite.expect("run_secrets").await;
        assert!(answer["error"].is_string(), "{answer}");
        assert_ne!(answer["error"], "Too many requests at once, try again", "{answer}");
    }
    assert!(asked.elapsed() < AGENTS_PATIENCE, "{:?}", asked.elapsed());
    // It is heard all the while, and gets no more questions than it can answer.
    satellite.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    fleet.check().await;
}

#[tokio::test]
async fn hundreds_of_questions_of_one_satellite_delay_nobody_elses_one() {
    let fleet = Fleet::new(CALM).await;
    // A fifth of a second each: eight hundred take long, eight at a time.
    keep_secrets(&fleet, Duration::from_millis(200)).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let (many, one) = (pod.register("many", "eu").await, pod.register("one", "eu").await);
    for known in [&many, &one] {
        pod.assign(known.id, &checks(CHECKS)).await;
    }
    let (mut asking, _) = Satellite::welcomed(pod.address, &many).await;
    let (mut other, _) = Satellite::welcomed(pod.address, &one).await;
    for check in 0..CHECKS {
        asking.send(&asks_for_secrets(check));
    }
    // All of them have arrived.
    asking.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    other.send(&asks_for_secrets(3));
    assert_eq!(other.expect("run_secrets").await["env"], json!({"A": "s3"}));
    let mut before = 0;
    while pod.metric("groundstation_questions_waiting").await > 0.0 {
        let answer = asking.expect("run_secrets").await;
        assert_eq!(answer["error"], Value::Null, "{answer}");
        before += 1;
        if before == 10 {
            break;
        }
    }
    assert_eq!(before, 10, "the other's was the last to be answered");
    fleet.check().await;
}

/// More questions than the pod asks at once, and a backend that answers none. Each satellite has its turn: a newcomer
/// waits behind one question of each, not behind all.
#[tokio::test]
async fn a_pod_asks_so_many_at_once_and_the_others_in_turn() {
    const AT_ONCE: usize = 256;
    const OF_SESSION: usize = 8;
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let nats = fleet.nats().await;
    let (tell, mut asked) = mpsc::unbounded_channel();
    let mut hears = nats.subscribe("script-packages.manifest").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    tokio::spawn(async move {
        while let Some(question) = hears.next().await {
            if tell
                .send(body(&question)["lockfileHash"].as_str().unwrap_or_default().to_owned())
                .is_err()
            {
                return;
            }
        }
    });
    let mut satellites = Vec::new();
    for credentials in fleet.register_many("edge", AT_ONCE / OF_SESSION + 1).await {
        satellites.push(Satellite::connect(pod.address, &credentials).await);
    }
    let late = satellites.pop().expect("one more");
    for (n, satellite) in satellites.iter().enumerate() {
        for m in 0..3 * OF_SESSION {
            satellite.send(&asks_for_manifest(&format!("{n}-{m}")));
        }
    }
    let first: Vec<String> = {
        let mut first = Vec::new();
        while first.len() < AT_ONCE {
            first.push(heard(&mut asked).await);
        }
        first
    };
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), AT_ONCE);
    late.send(&asks_for_manifest("late"));
    // One of each of the thirty-two may come first, and what was asked in the same moment.
    let mut between = 0;
    while heard(&mut asked).await != "late" {
        between += 1;
    }
    assert!(between <= 2 * AT_ONCE / OF_SESSION, "{between} questions came before it");
    fleet.check().await;
}
