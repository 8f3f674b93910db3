//! A pod that is asked to end says goodbye, and its satellites go on elsewhere.

use crate::harness::{CALM, Credentials, Fleet, Heard, Satellite, eventually};

#[tokio::test]
async fn a_pod_that_is_asked_to_end_closes_with_1012_makes_no_edge_and_exits_with_0() {
    let fleet = Fleet::new(CALM).await;
    let (mut a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let mut held = Vec::new();
    for n in 0..6 {
        let credentials = a.register(&format!("edge-{n}"), "eu").await;
        let satellite = Satellite::connect(a.address, &credentials).await;
        held.push((credentials, satellite));
    }
    a.terminate();
    for (_, satellite) in &mut held {
        assert_eq!(satellite.hear().await, Heard::Closed(1012));
    }
    let status = a.exit().await;
    assert_eq!(status.code(), Some(0), "{}", a.log());
    for (Credentials { id, .. }, _) in &held {
        assert_eq!(fleet.history(*id).await, ["1 connected connect"]);
    }
    for (credentials, satellite) in &mut held {
        *satellite = Satellite::connect(b.address, credentials).await;
        let history = fleet.history(credentials.id).await;
        assert_eq!(history, ["1 connected connect", "2 connected takeover"]);
    }
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_drains_is_not_ready_and_takes_nobody() {
    let fleet = Fleet::new(CALM).await;
    let mut pod = fleet.pod("a").await;
    let mut satellites = Vec::new();
    // Enough that their goodbyes, spread over two seconds, leave time to look.
    for n in 0..40 {
        let credentials = pod.register(&format!("edge-{n}"), "eu").await;
        satellites.push(Satellite::connect(pod.address, &credentials).await);
    }
    pod.terminate();
    let report = eventually("the pod to drain", async || {
        let answer = pod.get("/readyz").await;
        if answer.status == 503 { Ok(answer.json()) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(report["draining"], true);
    assert!(Satellite::try_open(pod.address).await.is_err(), "a draining pod took a socket");
    assert_eq!(pod.exit().await.code(), Some(0));
}
