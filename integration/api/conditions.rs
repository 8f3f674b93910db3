//! A writer that names the version it has seen cannot undo a change it does not know.

use serde_json::{Value, json};

use crate::harness::pod::Answer;
use crate::harness::{CALM, Fleet, Pod, Satellite};

const CHANGED: &str = "urn:groundstation:problem:changed-meanwhile";

async fn write(pod: &Pod, method: &str, path: &str, tag: &str, body: &Value) -> Answer {
    pod.call_with(method, path, &[("If-Match", tag)], Some(body.to_string())).await
}

#[tokio::test]
async fn a_description_is_changed_only_by_who_has_seen_the_present_one() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let created = pod.post("/v1/satellites", &json!({"name": "edge", "region": "eu"})).await;
    let first = created.headers["etag"].clone();
    let path = created.headers["location"].clone();
    assert_eq!(pod.get(&path).await.headers["etag"], first);

    let changed = write(&pod, "PATCH", &path, &first, &json!({"region": "us"})).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let second = changed.headers["etag"].clone();
    assert_ne!(second, first);
    let refused = write(&pod, "PATCH", &path, &first, &json!({"name": "other"})).await;
    assert_eq!((refused.status, &refused.json()["type"]), (412, &json!(CHANGED)), "{refused:?}");
    for none_of_ours in ["\"x\"", &format!("W/{second}"), "\"0\"", "nonsense", "\u{fc}"] {
        let refused = write(&pod, "PATCH", &path, none_of_ours, &json!({"name": "other"})).await;
        assert_eq!(refused.status, 412, "{none_of_ours}: {refused:?}");
    }
    let shown = pod.get(&path).await;
    assert_eq!((&shown.json()["name"], &shown.headers["etag"]), (&json!("edge"), &second));
    // Any version, and one of several.
    for tag in ["*", &format!("{first}, {second}")] {
        assert_eq!(write(&pod, "PATCH", &path, tag, &json!({"region": "us"})).await.status, 200);
    }
    assert_eq!(pod.get(&path).await.headers["etag"], second, "nothing was changed");
    assert_eq!(pod.patch(&path, &json!({"region": "ap"})).await.status, 200, "nothing expected");
}

#[tokio::test]
async fn a_tag_is_of_what_was_written_and_not_of_how_a_satellite_stands() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let path = format!("/v1/satellites/{}", credentials.id);
    let before = pod.get(&path).await.headers["etag"].clone();
    let satellite = Satellite::connect(pod.address, &credentials).await;
    satellite.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    pod.assign(credentials.id, &json!([])).await;
    let shown = pod.get(&path).await;
    assert_eq!(shown.json()["status"], "online");
    assert_eq!(shown.headers["etag"], before);
    assert_eq!(pod.post(&format!("{path}/token"), &json!({})).await.status, 200);
    assert_eq!(pod.get(&path).await.headers["etag"], before);
}

#[tokio::test]
async fn assignments_are_replaced_only_by_who_has_seen_the_present_ones() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let path = format!("/v1/satellites/{}/assignments", credentials.id);
    let list = |config: &str| {
        json!([{"configId": config, "systemId": "s", "strategyId": "http", "config": {},
                "intervalSeconds": 60}])
    };
    let none = pod.get(&path).await.headers["etag"].clone();
    assert_eq!(none, "\"0\"");
    let first = write(&pod, "PUT", &path, &none, &list("a")).await;
    assert_eq!(first.status, 200, "{first:?}");
    assert_eq!(first.headers["etag"], format!("\"{}\"", first.json()["version"]));
    let refused = write(&pod, "PUT", &path, &none, &list("b")).await;
    assert_eq!((refused.status, &refused.json()["type"]), (412, &json!(CHANGED)), "{refused:?}");
    let shown = pod.get(&path).await;
    assert_eq!(shown.json()["assignments"], list("a"));
    let second = write(&pod, "PUT", &path, &shown.headers["etag"], &list("b")).await;
    assert_eq!((second.status, &second.json()["assignments"]), (200, &list("b")));
}

/// Adds one to a number in a tag, however often another writer is faster.
async fn count_up(pod: &Pod, path: &str) -> u32 {
    let mut refusals = 0;
    loop {
        let shown = pod.get(path).await;
        let count: u32 = shown.json()["tags"]["count"].as_str().expect("it").parse().expect("it");
        let body = json!({"tags": {"count": (count + 1).to_string()}});
        match write(pod, "PATCH", path, &shown.headers["etag"], &body).await.status {
            200 => return refusals,
            412 => refusals += 1,
            other => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn of_many_who_count_up_at_once_on_two_pods_no_count_is_lost() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let new = json!({"name": "edge", "region": "eu", "tags": {"count": "0"}});
    let path = a.post("/v1/satellites", &new).await.headers["location"].clone();
    let counters = (0..12).map(|n| count_up(if n % 2 == 0 { &a } else { &b }, &path));
    let refusals: u32 = futures_util::future::join_all(counters).await.into_iter().sum();
    assert!(refusals > 0, "they were in each other's way");
    assert_eq!(a.get(&path).await.json()["tags"]["count"], "12");
}
