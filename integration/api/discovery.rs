//! Satellites as targets of Prometheus.

use serde_json::{Value, json};

use crate::harness::raw::Raw;
use crate::harness::{CALM, Fleet, Satellite};

#[tokio::test]
async fn satellites_with_an_address_in_a_tag_are_targets_with_what_is_known_of_them() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let with =
        |name: &str, region: &str, tags| json!({"name": name, "region": region, "tags": tags});
    let tags = json!({"prometheus-target": "10.0.0.1:9100", "rack/no": "7"});
    let edge = pod.register_with(with("edge", "eu", tags)).await;
    pod.register_with(with("other", "us", json!({"node": "10.0.0.2:9100"}))).await;
    pod.register_with(with("bare", "eu", json!({}))).await;
    let _satellite = Satellite::connect(pod.address, &edge).await;

    let token = fleet.read_token.clone();
    let ask = async |words: &str| {
        let path = format!("/v1/prometheus/sd{words}");
        pod.call("GET", &path, Some(&token), None).await
    };
    let all = ask("").await;
    assert_eq!(all.status, 200, "{all:?}");
    assert_eq!(all.headers["content-type"], "application/json");
    let expected = json!([{
        "targets": ["10.0.0.1:9100"],
        "labels": {
            "__meta_groundstation_id": edge.id,
            "__meta_groundstation_name": "edge",
            "__meta_groundstation_region": "eu",
            "__meta_groundstation_status": "online",
            "__meta_groundstation_tag_prometheus_target": "10.0.0.1:9100",
            "__meta_groundstation_tag_rack_no": "7",
        },
    }]);
    assert_eq!(all.json(), expected);
    assert_eq!(ask("?target=node").await.json()[0]["targets"], json!(["10.0.0.2:9100"]));
    assert_eq!(ask("?region=us").await.json(), json!([]));
    assert_eq!(ask("?status=online").await.json().as_array().map(Vec::len), Some(1));
    let past = ask("?position=1").await;
    assert!(past.status == 422 && past.text.contains("at and position"), "{past:?}");
}

#[tokio::test]
async fn more_targets_than_an_answer_holds_are_refused_and_not_cut() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    fleet.register_many("edge", 10_001).await;
    let sql = fleet.sql().await;
    let tagged =
        "update satellites set tags = jsonb_build_object('prometheus-target', name || ':9100')
                   where name <> 'edge-1'";
    sql.batch_execute(tagged).await.expect("tags");
    // However long a busy machine takes.
    let ask = async || {
        let mut raw = Raw::connect(pod.address).await;
        raw.send(format!(
            "GET /v1/prometheus/sd?region=eu HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\
             Authorization: Bearer {}\r\n\r\n",
            fleet.read_token
        ))
        .await;
        String::from_utf8(raw.ended().await).expect("text")
    };
    let whole = ask().await;
    let (_, body) = whole.split_once("\r\n\r\n").expect("a body");
    let targets: Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(targets.as_array().map(Vec::len), Some(10_000));
    sql.batch_execute(&tagged.replace("<>", "=")).await.expect("a tag");
    let refused = ask().await;
    let is_told = refused.contains("ask for a region or a tag");
    assert!(refused.starts_with("HTTP/1.1 422") && is_told, "{refused}");
}
