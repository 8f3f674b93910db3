//! A pod that is asked to end says goodbye, and its satellites go on elsewhere.

use std::time::{Duration, Instant};

use tokio_tungstenite::tungstenite::Error;

use crate::harness::written::written;
use crate::harness::{CALM, Credentials, Fleet, Heard, Satellite, eventually};

written!(
    #[ignore = "long: `make test-faults` runs it"]
    a_pod_that_is_asked_to_end_closes_with_1012_makes_no_edge_and_exits_with_0
);

#[tokio::test]
async fn a_pod_that_is_asked_to_end_closes_with_1012_makes_no_edge_and_exits_with_0() {
    let fleet = Fleet::new(CALM).await;
    let (mut a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let all = fleet.register(&a, "edge", 6).await;
    let satellites = fleet.all_beating(&a, &all).await;
    let mut held: Vec<_> = all.into_iter().zip(satellites).collect();
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
async fn a_pod_that_nobody_is_on_ends_without_waiting() {
    let fleet = Fleet::new(CALM).await;
    let mut pod = fleet.pod("a").await;
    pod.expect_nats().await;
    pod.terminate();
    let begun = Instant::now();
    assert_eq!(pod.exit().await.code(), Some(0));
    // It waits five seconds at most for questions over NATS, and none is under way.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
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

#[tokio::test]
async fn a_pod_takes_nobody_from_the_moment_it_says_so_and_closes_nobody_before_its_delay_is_over()
{
    let fleet = Fleet::new(CALM).await;
    let pod = fleet
        .plan("a")
        .with("GROUNDSTATION_DRAIN_DELAY", "10m")
        .with("GROUNDSTATION_DRAIN_DEADLINE", "11m")
        .start()
        .await;
    let credentials = pod.register("edge", "eu").await;
    let held = Satellite::connect(pod.address, &credentials).await;
    let mut at_the_door = Satellite::open(pod.address).await;
    pod.terminate();
    eventually("the pod to say that it drains", async || {
        let answer = pod.get("/readyz").await;
        if answer.status == 503 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    match Satellite::try_open(pod.address).await {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 503),
        other => panic!("a draining pod answered {other:?}"),
    }
    // A satellite that was not let in yet is not let in any more.
    assert_eq!(at_the_door.hear().await, Heard::Closed(1013));
    held.beat_every(Duration::from_millis(100));
    let heartbeats = "groundstation_heartbeats_received_total";
    let heard = pod.metric(heartbeats).await;
    pod.expect_metric(heartbeats, heard + 3.0).await;
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
}
