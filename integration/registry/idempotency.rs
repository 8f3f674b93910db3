//! A registration that is sent again, because its answer was lost, makes no second satellite.

use serde_json::{Value, json};

use crate::harness::pod::Answer;
use crate::harness::{CALM, Fleet, Pod};

async fn register(pod: &Pod, key: &str, body: &Value) -> Answer {
    let headers = [("Idempotency-Key", key)];
    pod.call_with("POST", "/v1/satellites", &headers, Some(body.to_string())).await
}

fn edge() -> Value {
    json!({"name": "edge", "region": "eu", "tags": {"rack": "7"}})
}

async fn count(pod: &Pod) -> usize {
    pod.get("/v1/satellites").await.json()["satellites"].as_array().expect("a list").len()
}

#[tokio::test]
async fn the_same_key_and_body_answer_the_same_satellite_and_no_token_twice() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let first = register(&a, "order 1", &edge()).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert!(
        first.json()["token"].is_string() && !first.headers.contains_key("idempotency-replayed")
    );
    // Written another way, to another pod.
    let again = json!({"tags": {"rack": "7"}, "region": "eu", "name": "edge", "unknown": 1});
    let again = register(&b, "order 1", &again).await;
    assert_eq!(again.status, 201, "{again:?}");
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["location"], first.headers["location"]);
    assert_eq!(again.json()["satellite"], first.json()["satellite"]);
    assert_eq!(again.json().get("token"), None);
    assert_eq!(count(&a).await, 1);
    let other = register(&a, "order 2", &edge()).await;
    assert_ne!(other.headers["location"], first.headers["location"]);
    assert_eq!(count(&a).await, 2);
}

#[tokio::test]
async fn of_many_at_once_with_one_key_one_makes_the_satellite_and_has_its_token() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let edge = edge();
    let calls = (0..10).map(|n| register(if n % 2 == 0 { &a } else { &b }, "once", &edge));
    let answers = futures_util::future::join_all(calls).await;
    let tokens = answers.iter().filter(|answer| answer.json()["token"].is_string()).count();
    assert_eq!(tokens, 1);
    for answer in &answers {
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(answer.headers["location"], answers[0].headers["location"]);
    }
    assert_eq!(count(&a).await, 1);
}

#[tokio::test]
async fn a_key_that_stands_for_something_else_is_refused_with_what_to_do() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let created = register(&pod, "k", &edge()).await;
    let other = register(&pod, "k", &json!({"name": "other", "region": "eu"})).await;
    let kind = "urn:groundstation:problem:key-of-another-request";
    assert_eq!((other.status, &other.json()["type"]), (422, &json!(kind)), "{other:?}");
    let id = created.json()["satellite"]["id"].as_str().expect("an id").parse().expect("a UUID");
    pod.remove(id).await;
    let removed = register(&pod, "k", &edge()).await;
    let kind = "urn:groundstation:problem:key-of-removed-satellite";
    assert_eq!((removed.status, &removed.json()["type"]), (409, &json!(kind)), "{removed:?}");
    assert!(removed.text.contains("another key"), "{removed:?}");
    for bad in ["", &"k".repeat(201)] {
        let answer = register(&pod, bad, &edge()).await;
        assert_eq!(answer.status, 422, "{answer:?}");
        assert!(answer.text.contains("Idempotency-Key must have 1 to 200"), "{answer:?}");
    }
    // A refused request uses up no key.
    assert_eq!(register(&pod, "l", &json!({"name": "", "region": "eu"})).await.status, 422);
    assert_eq!(register(&pod, "l", &edge()).await.status, 201);
}

#[tokio::test]
async fn keys_are_forgotten_after_a_day_and_no_more_than_so_many_are_kept() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let sql = fleet.sql().await;
    let first = register(&pod, "k", &edge()).await;
    // Almost a day later, and a little more.
    let age = async |age: &str| {
        let aged =
            format!("update idempotency_keys set used_at = clock_timestamp() - interval '{age}'");
        sql.execute(&aged, &[]).await.expect("aged");
    };
    age("23 hours 59 minutes").await;
    assert_eq!(register(&pod, "k", &edge()).await.headers["location"], first.headers["location"]);
    age("24 hours 1 second").await;
    let second = register(&pod, "k", &edge()).await;
    assert_ne!(second.headers["location"], first.headers["location"]);

    let fill = "insert into idempotency_keys (key, request_digest, satellite_id, used_at)
                select 'filled ' || n, '', gen_random_uuid(), clock_timestamp() - interval '1 hour'
                  from generate_series(2, 100000) n";
    sql.execute(fill, &[]).await.expect("filled");
    let full = register(&pod, "one more", &edge()).await;
    let kind = "urn:groundstation:problem:too-many-keys";
    assert_eq!((full.status, &full.json()["type"]), (429, &json!(kind)), "{full:?}");
    // Existing keys still count, and without a key nothing has changed.
    assert_eq!(register(&pod, "k", &edge()).await.headers["idempotency-replayed"], "true");
    assert_eq!(pod.post("/v1/satellites", &edge()).await.status, 201);
    age("25 hours").await;
    assert_eq!(register(&pod, "one more", &edge()).await.status, 201);
    let kept: i64 =
        sql.query_one("select count(*) from idempotency_keys", &[]).await.unwrap().get(0);
    assert!(kept < 100_000, "the oldest go: {kept}");
}
