//! A satellite that comes and goes too often is marked, in reads and on its messages, until it is calm
//! again; no edge of it is held back.

use groundstation::contract::wire::Timestamp;
use serde_json::json;

use crate::harness::{CALM, Fleet, Satellite, eventually};

#[tokio::test]
async fn a_satellite_is_marked_from_one_edge_too_many_until_it_is_calm_and_no_edge_is_missing() {
    let fleet = Fleet::new(CALM).await;
    let plan = |name| {
        fleet
            .plan(name)
            .with("GROUNDSTATION_FLAPPING_WINDOW", "6s")
            .with("GROUNDSTATION_FLAPPING_EDGES", "4")
            .with("GROUNDSTATION_FLAPPING_CALM", "2")
    };
    let (a, b) = (plan("a").start().await, plan("b").start().await);
    let mut subscriber = fleet.subscribe().await;
    let edge = a.register("edge", "eu").await;
    let calm = a.register("calm", "eu").await;
    let _calm = Satellite::connect(a.address, &calm).await;
    let mut marks = Vec::new();
    for n in 0..3 {
        let pod = if n % 2 == 0 { &a } else { &b };
        let satellite = Satellite::connect(pod.address, &edge).await;
        let connected = subscriber.expect("satellite.connected", edge.id).await;
        satellite.close().await;
        let left = subscriber.expect("satellite.disconnected", edge.id).await;
        for message in [connected, left] {
            let headers = message.headers.expect("headers");
            marks.push(headers.get("Groundstation-Flapping").map(|v| v.as_str().to_owned()));
        }
    }
    let marked = Some("true".to_owned());
    assert_eq!(marks, [None, None, None, None, marked.clone(), marked]);
    for pod in [&a, &b] {
        assert_eq!(pod.show(edge.id).await["flapping"], true);
        assert!(pod.show(calm.id).await.get("flapping").is_none());
    }
    let listed = a.get("/v1/satellites?q=edge").await.json();
    assert_eq!(listed["satellites"][0]["flapping"], true);
    let transitions = a.get(&format!("/v1/satellites/{}/transitions", edge.id)).await.json();
    let transitions = transitions["transitions"].as_array().expect("a page").clone();
    assert_eq!(transitions.len(), 6, "no edge is held back");
    assert_eq!(transitions[4]["delta"]["flapping"], json!(true));
    assert!(transitions[3]["next"].get("flapping").is_none());
    let until = transitions[5]["next"]["flappingUntil"].as_str().expect("until when");
    assert_eq!(transitions[5]["delta"]["flappingUntil"], until);
    assert!(transitions[3]["next"].get("flappingUntil").is_none());

    eventually("the mark to go by itself", async || {
        let shown = a.show(edge.id).await;
        if shown.get("flapping").is_none() { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    // It was marked then, and is not for ever after.
    let until: Timestamp = until.parse().expect("a time");
    let millisecond = time::Duration::MILLISECOND;
    for (at, is_marked) in [(until.moment() - millisecond, true), (until.moment(), false)] {
        let at = Timestamp::new(at);
        let page = a.get(&format!("/v1/satellites?at={at}")).await.json();
        let mut all = page["satellites"].as_array().expect("a page").iter();
        let then = all.find(|satellite| satellite["name"] == "edge").expect("it was there");
        assert_eq!(then.get("flapping").is_some(), is_marked, "{at}: {then}");
        let page = a.get(&format!("/v1/satellites?flapping=true&at={at}")).await.json();
        let found = page["satellites"].as_array().expect("a page").len();
        let counted = a.get(&format!("/v1/fleet?at={at}")).await.json();
        assert_eq!((found, &counted["flapping"]), (is_marked.into(), &json!(found)), "{at}");
    }
    fleet.check().await;
}

#[tokio::test]
async fn two_agents_with_one_credential_are_marked_while_they_take_each_other_over() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let edge = a.register("edge", "eu").await;
    let mut held = Vec::new();
    for n in 0..12 {
        let pod = if n % 2 == 0 { &a } else { &b };
        held.push(Satellite::connect(pod.address, &edge).await);
    }
    let shown = b.show(edge.id).await;
    assert_eq!((&shown["status"], &shown["flapping"]), (&json!("online"), &json!(true)));
    assert_eq!(fleet.history(edge.id).await.len(), 12);
    fleet.check().await;
}
