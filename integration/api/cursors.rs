//! A client that reads page by page misses nothing that existed all the time and gets nothing twice, whatever is
//! written meanwhile.

use std::collections::BTreeSet;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::harness::{CALM, Fleet, Pod, Satellite};

/// Registers and removes satellites that sort before, between and after the others, until told to stop.
async fn come_and_go(pod: &Pod, stop: CancellationToken) -> u32 {
    let mut rounds = 0;
    while !stop.is_cancelled() {
        let mut fleeting = Vec::new();
        for name in ["a", "edge-03", "edge-07x", "z"] {
            fleeting.push(pod.register(name, "eu").await);
        }
        for credentials in fleeting {
            assert_eq!(pod.remove(credentials.id).await.status, 204);
        }
        rounds += 1;
    }
    rounds
}

#[tokio::test]
async fn pages_of_the_fleet_hold_everybody_who_stays_exactly_once() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let mut staying = BTreeSet::new();
    for n in 0..12 {
        staying.insert(a.register(&format!("edge-{n:02}"), "eu").await.id.to_string());
    }
    let stop = CancellationToken::new();
    let read = async {
        for _ in 0..6 {
            let (mut query, mut seen) = ("limit=2".to_owned(), Vec::new());
            loop {
                let page = a.get(&format!("/v1/satellites?{query}")).await.json();
                let satellites = page["satellites"].as_array().expect("a list").iter();
                seen.extend(satellites.map(|s| s["id"].as_str().expect("an id").to_owned()));
                let Some(cursor) = page["nextCursor"].as_str() else { break };
                query = format!("limit=2&cursor={cursor}");
            }
            let all: BTreeSet<String> = seen.iter().cloned().collect();
            assert_eq!(all.len(), seen.len(), "nobody twice");
            assert!(all.is_superset(&staying), "everybody who stayed");
        }
        stop.cancel();
    };
    let ((), rounds) = tokio::join!(read, come_and_go(&b, stop.clone()));
    assert!(rounds > 0, "something was written meanwhile");
}

#[tokio::test]
async fn pages_of_the_log_are_the_whole_log_while_it_grows() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = fleet.register(&a, "edge", 3).await;
    let write = async {
        for _ in 0..5 {
            for credentials in &credentials {
                Satellite::connect(b.address, credentials).await.close().await;
            }
        }
    };
    let read = async {
        let (mut positions, mut after) = (Vec::new(), 0);
        while positions.len() < 30 {
            let page = a.get(&format!("/v1/transitions?limit=2&after={after}")).await.json();
            let transitions = page["transitions"].as_array().expect("a list").iter();
            positions.extend(transitions.map(|t| t["position"].as_i64().expect("a position")));
            after = page["nextAfter"].as_i64().expect("a position");
        }
        positions
    };
    let reading = async { tokio::time::timeout(std::time::Duration::from_secs(60), read).await };
    let ((), positions) = tokio::join!(write, reading);
    assert_eq!(positions.expect("all of it"), (1..=30).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_text_that_the_database_cannot_hold_is_refused_by_name() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for query in ["region=%00", "q=a%00b", "tag=%00:x", "tag=k:%00"] {
        let answer = pod.get(&format!("/v1/satellites?{query}")).await;
        assert_eq!(answer.status, 422, "{query}: {answer:?}");
        let name = query.split('=').next().expect("a name");
        assert!(answer.text.contains(&format!("{name} must not contain")), "{answer:?}");
    }
    assert_eq!(pod.post("/v1/satellites", &json!({"name": "a", "region": "b"})).await.status, 201);
}
