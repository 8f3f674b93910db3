//! The log from its newest end: the same transitions, the other way round.

use serde_json::{Value, json};

use crate::harness::relaying::come_and_go;
use crate::harness::{CALM, Fleet, Pod, written_log};

fn positions(page: &Value) -> Vec<i64> {
    let transitions = page["transitions"].as_array().expect("a list").iter();
    transitions.map(|t| t["position"].as_i64().expect("a position")).collect()
}

/// All pages, from the newest on.
async fn newest_first(pod: &Pod, route: &str, query: &str) -> Vec<i64> {
    let (mut all, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("{route}?order=desc&{query}{before}");
        let answer = pod.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let page = answer.json();
        all.extend(positions(&page));
        let Some(next) = page["nextBefore"].as_i64() else { return all };
        before = format!("&before={next}");
    }
}

#[tokio::test]
async fn the_log_from_its_newest_end_is_the_log_the_other_way_round() {
    let fleet = Fleet::new(CALM).await;
    written_log::write(&fleet.sql().await, 1, 100).await;
    let pod = fleet.pod("a").await;
    let one = format!("/v1/satellites/{}/transitions", written_log::satellite(3));
    for (route, query) in [
        ("/v1/transitions", String::new()),
        ("/v1/transitions", "&event=connected".to_owned()),
        ("/v1/transitions", "&region=eu".to_owned()),
        ("/v1/transitions", "&region=us".to_owned()),
        ("/v1/transitions", "&since=2020-01-01T00:00:10Z&until=2020-01-01T00:01:00Z".to_owned()),
        (&one, "&event=disconnected&region=eu".to_owned()),
    ] {
        let forward = positions(&pod.get(&format!("{route}?limit=1000{query}")).await.json());
        for limit in [1, 7, 100, 1000] {
            let mut found = newest_first(&pod, route, &format!("limit={limit}{query}")).await;
            found.reverse();
            assert_eq!(found, forward, "{route} {query} by {limit}");
        }
    }
    assert_eq!(newest_first(&pod, "/v1/transitions", "limit=50&before=4").await, [3, 2, 1]);

    // What comes meanwhile is found behind the first page, and moves none of the others.
    let page = pod.get("/v1/transitions?order=desc&limit=10").await.json();
    assert_eq!((&page["nextAfter"], &page["nextBefore"]), (&json!(100), &json!(91)));
    let credentials = pod.register("edge", "us").await;
    come_and_go(&pod, &credentials).await;
    fleet.expect_log_length(102).await;
    let next = pod.get("/v1/transitions?order=desc&limit=10&before=91").await.json();
    assert_eq!(positions(&next), (81..91).rev().collect::<Vec<_>>());
    assert_eq!(positions(&pod.get("/v1/transitions?after=100").await.json()), [101, 102]);
    assert_eq!(newest_first(&pod, "/v1/transitions", "region=us").await, [102, 101]);
}

#[tokio::test]
async fn an_order_that_is_none_and_a_place_of_the_other_one_are_refused() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let empty = pod.get("/v1/transitions?order=desc").await.json();
    assert_eq!(empty, json!({"transitions": [], "nextAfter": 0}));
    for (query, status, words) in [
        ("order=newest", 422, "order must be asc or desc"),
        ("before=5", 422, "before goes with order=desc"),
        ("order=asc&before=5", 422, "before goes with order=desc"),
        ("order=desc&after=5", 422, "after goes with order=asc"),
        ("order=desc&before=0", 422, "before must be a position, 1 or more"),
        ("order=desc&before=x", 422, "before"),
        ("region=%00", 422, "region must not contain a NUL"),
        ("befor=1", 400, "\"before\""),
    ] {
        let answer = pod.get(&format!("/v1/transitions?{query}")).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(words), "{query}: {detail}");
    }
}
