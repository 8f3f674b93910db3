//! Each satellite can have its own threshold. It counts in every read and in the monitor, right after a change too.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::fleet::Timing;
use crate::harness::written::written;
use crate::harness::{Credentials, Fleet, Pod, Proxy, SWEPT_OFTEN, Satellite, eventually};

const DAY_MS: i64 = 86_400_000;

async fn change(pod: &Pod, satellite: &Credentials, change: Value) -> Value {
    let answer = pod.patch(&format!("/v1/satellites/{}", satellite.id), &change).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn listed(pod: &Pod, status: &str) -> Vec<String> {
    let page = pod.get(&format!("/v1/satellites?status={status}")).await.json();
    let page = page["satellites"].as_array().expect("a page").clone();
    page.iter().map(|s| s["name"].as_str().expect("a name").to_owned()).collect()
}

written!(
    a_second_and_a_day_side_by_side_are_each_true_on_every_pod_and_in_every_read,
    #[ignore = "long: `make test-faults` runs it"]
    a_changed_threshold_counts_at_once_whichever_pod_was_told,
);

#[tokio::test]
async fn a_second_and_a_day_side_by_side_are_each_true_on_every_pod_and_in_every_read() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let with =
        |name: &str, ms: i64| json!({"name": name, "region": "eu", "offlineThresholdMs": ms});
    let hasty = a.register_with(with("hasty", 1_000)).await;
    let patient = a.register_with(with("patient", DAY_MS)).await;
    let beating = a.register_with(with("beating", 1_000)).await;
    let _hasty = Satellite::connect(a.address, &hasty).await;
    let quiet = fleet.beating(&b, &patient).await;
    quiet.fall_silent();
    let beats = Satellite::connect(b.address, &beating).await;
    beats.beat_every(Duration::from_millis(100));
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(hasty.id, &lost).await;
    for pod in [&a, &b] {
        pod.sweeps(5).await;
        assert_eq!(listed(pod, "online").await, ["beating", "patient"]);
        assert_eq!(listed(pod, "offline").await, ["hasty"]);
        assert_eq!(pod.show(hasty.id).await["status"], "offline");
        assert_eq!(pod.show(patient.id).await["status"], "online");
    }
    assert_eq!(fleet.log_length().await, 4, "nobody else was given up");
    fleet.check().await;
}

#[tokio::test]
async fn a_changed_threshold_counts_at_once_whichever_pod_was_told() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let edge = a.register("edge", "eu").await;
    let satellite = fleet.beating(&a, &edge).await;
    satellite.fall_silent();
    a.sweeps(3).await;
    assert_eq!(b.show(edge.id).await["status"], "online");
    // Shorter than its present silence.
    let changed = change(&b, &edge, json!({"offlineThresholdMs": 1})).await;
    assert_eq!(changed["offlineThresholdMs"], 1);
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(edge.id, &lost).await;
    // Its last heartbeat may still wait for its row. By a longer threshold it would be young enough to bring it back.
    a.sweeps(10).await;
    // Longer: a lost satellite stays lost until it is heard, and then has the new threshold.
    change(&b, &edge, json!({"offlineThresholdMs": DAY_MS})).await;
    assert_eq!(b.show(edge.id).await["status"], "offline");
    satellite.beat();
    let back = [lost[0], lost[1], "1 connected recovered"];
    fleet.expect_history(edge.id, &back).await;
    a.sweeps(3).await;
    b.sweeps(3).await;
    assert_eq!(b.show(edge.id).await["status"], "online");
    let cleared = change(&b, &edge, json!({"offlineThresholdMs": null})).await;
    assert!(cleared.get("offlineThresholdMs").is_none(), "{cleared}");
    assert_eq!(fleet.history(edge.id).await, back);
    fleet.check().await;
}

#[tokio::test]
async fn a_change_is_taken_whole_or_refused_with_its_field_and_is_in_the_registrys_history() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let path = format!("/v1/satellites/{}", edge.id);
    for (asked, field) in [
        (json!({"offlineThresholdMs": 0}), "offlineThresholdMs"),
        (json!({"offlineThresholdMs": "soon"}), "offlineThresholdMs"),
        (json!({"region": "us", "name": ""}), "name"),
    ] {
        let answer = pod.patch(&path, &asked).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(answer.text.contains(field), "{answer:?}");
    }
    assert_eq!(pod.show(edge.id).await["region"], "eu", "nothing of a refused change is kept");
    let changed = change(&pod, &edge, json!({"name": "rim", "tags": {"tier": "gold"}})).await;
    assert_eq!((&changed["name"], &changed["region"]), (&json!("rim"), &json!("eu")));
    let unknown = format!("/v1/satellites/{}", uuid::Uuid::new_v4());
    assert_eq!(pod.patch(&unknown, &json!({})).await.status, 404);

    let sql = fleet.sql().await;
    const CHANGES: &str = "
        select action, before ->> 'name', after ->> 'name', actor_id from registry_changes
         where satellite_id = $1 order by change";
    eventually("the history of the registry", async || {
        let rows = sql.query(CHANGES, &[&edge.id]).await.expect("the changes");
        let row = |row: &tokio_postgres::Row| {
            let text = |n| row.get::<_, Option<String>>(n).unwrap_or_default();
            format!("{} {} {} {}", text(0), text(1), text(2), text(3))
        };
        let rows: Vec<String> = rows.iter().map(row).collect();
        let expected = ["created  edge admin", "updated edge rim admin"];
        if rows == expected { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
}

const LOST: [&str; 2] = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
const RECOVERED: [&str; 3] = [LOST[0], LOST[1], "1 connected recovered"];

/// Four default thresholds are over before a threshold of [`PATIENT_MS`] is.
const HASTY: Timing = Timing { threshold: Duration::from_secs(2), ..SWEPT_OFTEN };
const PATIENT_MS: i64 = 12_000;

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_socket_is_kept_as_long_as_its_satellite_has_patience_for() {
    let fleet = Fleet::new(HASTY).await;
    let pod = fleet.pod("a").await;
    let with = json!({"name": "patient", "region": "eu", "offlineThresholdMs": PATIENT_MS});
    let (patient, becomes) = (pod.register_with(with).await, pod.register("becomes", "eu").await);
    let first = Satellite::connect(pod.address, &patient).await;
    let second = Satellite::connect(pod.address, &becomes).await;
    change(&pod, &becomes, json!({"offlineThresholdMs": PATIENT_MS})).await;
    for (credentials, satellite) in [(&patient, &first), (&becomes, &second)] {
        fleet.expect_history(credentials.id, &LOST).await;
        // Its socket is still there: it has some time to be heard again.
        satellite.beat();
        fleet.expect_history(credentials.id, &RECOVERED).await;
    }
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_connection_that_died_without_a_word_is_lost_by_its_threshold_and_then_let_go() {
    let fleet = Fleet::new(HASTY).await;
    let pod = fleet.pod("a").await;
    let with = json!({"name": "patient", "region": "eu", "offlineThresholdMs": DAY_MS});
    let patient = pod.register_with(with).await;
    let cable = Proxy::to(pod.address).await;
    let mut satellite = Satellite::connect(cable.address, &patient).await;
    // The end of the connection does not get through either.
    cable.stall();
    // Longer than the socket of a satellite with the default threshold is kept.
    pod.sweeps(100).await;
    assert_eq!(fleet.history(patient.id).await, ["1 connected connect"]);
    assert_eq!(pod.metric("groundstation_sessions").await, 1.0);
    // Its patience ended at once, and some time ago: it is lost, and the end of its socket must not come first.
    change(&pod, &patient, json!({"offlineThresholdMs": null})).await;
    fleet.expect_history(patient.id, &LOST).await;
    eventually("the socket to be let go", async || {
        let sessions = pod.metric("groundstation_sessions").await;
        if sessions == 0.0 { Ok(()) } else { Err(sessions.to_string()) }
    })
    .await;
    assert_eq!(fleet.history(patient.id).await, LOST, "one loss is one edge");
    cable.resume();
    while satellite.hear().await != crate::harness::Heard::Dropped {}
    fleet.check().await;
}

#[tokio::test]
async fn a_changed_threshold_counts_on_a_pod_that_hears_nothing_of_the_others() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let (nats, nats_url) = Proxy::before(&fleet.nats_url).await;
    nats.stall();
    let deaf = fleet.plan("deaf").with("NATS_URL", &nats_url).start().await;
    let other = fleet.pod("other").await;
    let edge = other.register("edge", "eu").await;
    let _satellite = Satellite::connect(deaf.address, &edge).await;
    change(&other, &edge, json!({"offlineThresholdMs": 1})).await;
    let changed = std::time::Instant::now();
    fleet.expect_history(edge.id, &LOST).await;
    // Promised within a second and a sweep; the rest is for a busy machine.
    assert!(changed.elapsed() < Duration::from_secs(8), "{:?}", changed.elapsed());
    nats.resume();
    fleet.check().await;
}

/// The change comes when the session is in the log but not yet in its pod's table.
#[cfg(feature = "failpoints")]
async fn changed_while_a_session_enters(own_ms: Option<i64>) {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let pod =
        fleet.plan("a").with("FAILPOINTS", "session::appended=1*return(4000)->off").start().await;
    let with = json!({"name": "edge", "region": "eu", "offlineThresholdMs": own_ms});
    let edge = pod.register_with(with).await;
    let mut satellite = Satellite::open(pod.address).await;
    satellite.authenticate(&edge);
    fleet.expect_history(edge.id, &LOST[..1]).await;
    change(&pod, &edge, json!({"offlineThresholdMs": 1_000})).await;
    // The tasks that look for changes and for silent satellites have both seen this one.
    pod.sweeps(15).await;
    satellite.expect("authenticated").await;
    fleet.expect_history(edge.id, &LOST).await;
    fleet.check().await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_threshold_made_shorter_while_its_session_enters_counts() {
    changed_while_a_session_enters(Some(3_600_000)).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_first_threshold_given_while_its_session_enters_counts() {
    changed_while_a_session_enters(None).await;
}
