//! Thresholds of a satellite's own: each has its own truth, in every read and in the monitor, right
//! after a change too.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, eventually};

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

#[tokio::test]
async fn a_second_and_a_day_side_by_side_are_each_true_on_every_pod_and_in_every_read() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let with =
        |name: &str, ms: i64| json!({"name": name, "region": "eu", "offlineThresholdMs": ms});
    let hasty = a.register_with(with("hasty", 1_000)).await;
    let patient = a.register_with(with("patient", DAY_MS)).await;
    let beating = a.register_with(with("beating", 1_000)).await;
    let _hasty = Satellite::connect(a.address, &hasty).await;
    let _patient = Satellite::connect(b.address, &patient).await;
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
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let edge = a.register("edge", "eu").await;
    let satellite = Satellite::connect(a.address, &edge).await;
    a.sweeps(3).await;
    assert_eq!(b.show(edge.id).await["status"], "online");
    // Shorter than its silence already is.
    let changed = change(&b, &edge, json!({"offlineThresholdMs": 1})).await;
    assert_eq!(changed["offlineThresholdMs"], 1);
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(edge.id, &lost).await;
    // Longer: who was given up stays so until it is heard, and then has the new time.
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
    let fleet = Fleet::new(CALM).await;
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
