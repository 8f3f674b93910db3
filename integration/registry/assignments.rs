//! A satellite checks what was assigned last, on any pod, and never goes back to an earlier list.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Heard, Pod, Satellite};

/// A satellite hears of a change within this time. Twice what is promised: the machine is busy.
const PROMPT: Duration = Duration::from_secs(2);

/// A list of one assignment that identifies itself.
fn list(n: u32) -> Value {
    json!([{"configId": format!("c{n}"), "systemId": "s", "strategyId": "http",
            "config": {"n": n}, "intervalSeconds": 60}])
}

fn number(list: &Value) -> u64 {
    list[0]["config"]["n"].as_u64().unwrap_or(0)
}

fn path(id: Uuid) -> String {
    format!("/v1/satellites/{id}/assignments")
}

/// The next list this satellite is sent.
async fn updated(satellite: &mut Satellite) -> Value {
    satellite.expect("config_updated").await["assignments"].clone()
}

#[tokio::test]
async fn a_list_is_replaced_whole_read_back_and_sent_with_the_welcome() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let none = pod.get(&path(credentials.id)).await.json();
    assert_eq!(none, json!({"version": 0, "assignments": []}));

    let full = json!([
        {"configId": "c1", "systemId": "s1", "strategyId": "http", "config": {"url": "https://x"},
         "intervalSeconds": 30, "configName": "Home", "systemName": "Web", "somethingNew": [1],
         "collectors": [{"id": "k", "collectorId": "script", "config": {}, "assertions": [{}]}]},
        {"configId": "c2", "systemId": "s1", "strategyId": "ping", "config": {}, "intervalSeconds": 5},
    ]);
    let first = pod.assign(credentials.id, &full).await;
    assert_eq!(pod.get(&path(credentials.id)).await.json()["assignments"], full);
    // A bare list is accepted too, and nothing of the earlier one is left.
    let answer = pod.put(&path(credentials.id), &list(7)).await.json();
    assert!(answer["version"].as_i64().expect("a version") > first);
    let read = pod.get(&path(credentials.id)).await.json();
    assert_eq!((&read["assignments"], &read["version"]), (&list(7), &answer["version"]));

    let (_satellite, welcome) = Satellite::welcomed(pod.address, &credentials).await;
    let expected =
        json!({"type": "authenticated", "satelliteId": credentials.id, "assignments": list(7)});
    assert_eq!(welcome, expected);

    // Only the administrator assigns, any token may read, and only registered satellites have lists.
    let read_only = Some(fleet.read_token.as_str());
    assert_eq!(pod.call("GET", &path(credentials.id), read_only, None).await.status, 200);
    let body = Some(list(8).to_string());
    assert_eq!(pod.call("PUT", &path(credentials.id), read_only, body).await.status, 403);
    assert_eq!(pod.put(&path(Uuid::new_v4()), &list(8)).await.status, 404);
    assert_eq!(pod.get(&path(Uuid::new_v4())).await.status, 404);
    fleet.check().await;
}

#[tokio::test]
async fn what_is_refused_is_named_by_its_path_and_changes_nothing() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let version = pod.assign(credentials.id, &list(1)).await;
    let (good, mut twice) = (list(2)[0].clone(), list(2)[0].clone());
    twice["intervalSeconds"] = json!(7);
    let with = |field: &str, value: Value| {
        let mut wrong = list(3)[0].clone();
        wrong[field] = value;
        wrong
    };
    let cases = [
        (json!([good, twice]), "assignments[1].configId"),
        (json!([good, with("intervalSeconds", json!(0))]), "assignments[1].intervalSeconds"),
        (json!([with("intervalSeconds", json!(-1))]), "assignments[0].intervalSeconds"),
        (json!([with("config", json!("x"))]), "assignments[0].config"),
        (json!([with("configName", json!("a\u{0}b"))]), "assignments[0].configName"),
        (json!({"something": "else"}), "assignments"),
        (json!([vec![0; 2_000]]), "assignments[0]"),
    ];
    for (sent, field) in cases {
        let answer = pod.put(&path(credentials.id), &sent).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        assert_eq!(answer.json()["path"], field);
        assert!(answer.json()["detail"].as_str().expect("a detail").starts_with(field));
    }
    let large = json!({"assignments": [], "padding": "x".repeat(1_100_000)});
    assert_eq!(pod.put(&path(credentials.id), &large).await.status, 413);
    let read = pod.get(&path(credentials.id)).await.json();
    assert_eq!(read, json!({"version": version, "assignments": list(1)}));
    fleet.check().await;
}

#[tokio::test]
async fn one_config_on_two_systems_is_two_assignments() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let on = |system: &str, interval: u32| {
        json!({"configId": "c", "systemId": system, "strategyId": "http", "config": {},
               "intervalSeconds": interval})
    };
    let both = json!([on("s1", 60), on("s2", 30)]);
    let answer = pod.put(&path(credentials.id), &both).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(pod.get(&path(credentials.id)).await.json()["assignments"], both);
    let (mut satellite, welcome) = Satellite::welcomed(pod.address, &credentials).await;
    assert_eq!(welcome["assignments"], both);
    let result = |system: &str| {
        json!({"type": "result", "configId": "c", "systemId": system, "status": "healthy",
               "executedAt": "2026-03-01T12:00:00Z"})
    };
    let outcome = |word: &str| format!("groundstation_results_total{{outcome=\"{word}\"}}");
    for system in ["s1", "s2", "s3"] {
        satellite.send(&result(system));
    }
    pod.expect_metric(&outcome("delivered"), 2.0).await;
    pod.expect_metric(&outcome("not_assigned"), 1.0).await;
    // One of the two is removed; the other stays.
    let second = json!([on("s2", 30)]);
    pod.assign(credentials.id, &second).await;
    assert_eq!(updated(&mut satellite).await, second);
    satellite.send(&result("s1"));
    satellite.send(&result("s2"));
    pod.expect_metric(&outcome("not_assigned"), 2.0).await;
    pod.expect_metric(&outcome("delivered"), 3.0).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_session_on_another_pod_hears_of_a_change_within_a_second() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let credentials = a.register("edge", "eu").await;
    let bystander = a.register("bystander", "eu").await;
    let mut satellite = Satellite::connect(b.address, &credentials).await;
    let mut bystanding = Satellite::connect(b.address, &bystander).await;
    for n in 1..=5 {
        a.assign(credentials.id, &list(n)).await;
        let assigned = Instant::now();
        assert_eq!(updated(&mut satellite).await, list(n));
        assert!(assigned.elapsed() < PROMPT, "{:?}", assigned.elapsed());
    }
    // The other satellite of that pod hears nothing of it.
    a.assign(bystander.id, &list(9)).await;
    assert_eq!(updated(&mut bystanding).await, list(9));
    fleet.check().await;
}

#[tokio::test]
async fn it_hears_of_it_within_a_second_while_nats_is_away() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = a.register("edge", "eu").await;
    let mut satellite = Satellite::connect(b.address, &credentials).await;
    fleet.own_nats().kill();
    for n in 1..=3 {
        a.assign(credentials.id, &list(n)).await;
        let assigned = Instant::now();
        assert_eq!(updated(&mut satellite).await, list(n));
        assert!(assigned.elapsed() < PROMPT, "{:?}", assigned.elapsed());
    }
    let fleet = blocking(move || {
        fleet.own_nats().restart().expect("NATS restarts");
        fleet
    })
    .await;
    fleet.check().await;
}

/// Lists that a satellite hears, up to the list of this number.
async fn hears_until(satellite: &mut Satellite, first: &Value, last: u64) -> Vec<u64> {
    let mut heard = vec![number(&first["assignments"])];
    while heard.last().is_some_and(|n| *n < last) {
        match satellite.hear().await {
            Heard::Message(message) if message["type"] == "config_updated" => {
                heard.push(number(&message["assignments"]));
            }
            other => panic!("heard {other:?} after {heard:?}"),
        }
    }
    heard
}

async fn assign_many(pod: &Pod, id: Uuid, numbers: std::ops::RangeInclusive<u32>) {
    for n in numbers {
        pod.assign(id, &list(n)).await;
    }
}

#[tokio::test]
async fn whoever_authenticates_while_lists_are_replaced_ends_with_the_newest_and_never_goes_back() {
    const ROUNDS: u32 = 15;
    const LISTS: u32 = 8;
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let credentials = a.register("edge", "eu").await;
    for round in 0..ROUNDS {
        let numbers = round * LISTS + 1..=(round + 1) * LISTS;
        let last = u64::from(*numbers.end());
        let pause = Duration::from_millis(u64::from(round) * 2);
        let listen = async {
            tokio::time::sleep(pause).await;
            let (mut satellite, welcome) = Satellite::welcomed(b.address, &credentials).await;
            let heard = hears_until(&mut satellite, &welcome, last).await;
            satellite.close().await;
            heard
        };
        let (heard, ()) = tokio::join!(listen, assign_many(&a, credentials.id, numbers));
        assert!(heard.is_sorted_by(|a, b| a < b), "{heard:?}");
        assert_eq!(heard.last(), Some(&last));
    }
    fleet.check().await;
}

#[tokio::test]
async fn lists_replaced_on_all_pods_at_once_leave_every_pod_and_session_with_the_same_one() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let credentials = a.register("edge", "eu").await;
    let (mut satellite, _) = Satellite::welcomed(b.address, &credentials).await;
    let id = credentials.id;
    tokio::join!(assign_many(&a, id, 1..=20), assign_many(&b, id, 101..=120));
    let stored = a.get(&path(id)).await.json();
    assert_eq!(b.get(&path(id)).await.json(), stored);
    assert!([20, 120].contains(&number(&stored["assignments"])));
    while updated(&mut satellite).await != stored["assignments"] {}
    // Nothing older follows: the next thing it hears is this one.
    a.assign(id, &list(999)).await;
    assert_eq!(updated(&mut satellite).await, list(999));
    fleet.check().await;
}

#[tokio::test]
async fn a_list_goes_with_its_satellite() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let version = pod.assign(credentials.id, &list(1)).await;
    let (mut satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    assert_eq!(pod.remove(credentials.id).await.status, 204);
    satellite.expect("shutdown").await;
    assert_eq!(pod.get(&path(credentials.id)).await.status, 404);
    assert_eq!(pod.put(&path(credentials.id), &list(2)).await.status, 404);
    let sql = fleet.sql().await;
    let kept = sql.query("select version from satellite_assignments", &[]).await.expect("rows");
    assert!(kept.is_empty());
    // Versions go on growing: a satellite that connects later gets nothing older.
    let other = pod.register("other", "eu").await;
    assert!(pod.assign(other.id, &list(1)).await > version + 1);
    fleet.check().await;
}
