//! A client at the door has one deadline, from the acceptance of its connection until it is authenticated, however it
//! spends the time.

use std::time::{Duration, Instant};

use crate::harness::raw::{Raw, UPGRADE};
use crate::harness::{CALM, Fleet, Pod, Proxy, Satellite};

const DEADLINE: Duration = Duration::from_secs(3);

async fn pod(fleet: &Fleet) -> Pod {
    fleet.plan("a").with("GROUNDSTATION_AUTHENTICATION_TIMEOUT", "3s").start().await
}

const TIMEOUTS: &str = "groundstation_door_refusals_total{reason=\"authentication_timeout\"}";

/// Not before the deadline, and well before twice the deadline.
fn assert_at_the_deadline(begun: Instant) {
    let waited = begun.elapsed();
    assert!(waited > DEADLINE - Duration::from_millis(100), "{waited:?}");
    assert!(waited < DEADLINE + Duration::from_millis(1_800), "{waited:?}");
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_ended_at_the_deadline() {
    let fleet = Fleet::new(CALM).await;
    let pod = pod(&fleet).await;
    let begun = Instant::now();
    let mut silent = Raw::connect(pod.address).await;
    assert_eq!(silent.ended().await, b"");
    assert_at_the_deadline(begun);
    pod.expect_metric(TIMEOUTS, 1.0).await;
}

#[tokio::test]
async fn headers_that_come_byte_by_byte_do_not_move_the_deadline() {
    let fleet = Fleet::new(CALM).await;
    let pod = pod(&fleet).await;
    let begun = Instant::now();
    let mut slow = Raw::connect(pod.address).await;
    for byte in UPGRADE.as_bytes() {
        if !slow.send([*byte]).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        if begun.elapsed() > DEADLINE + Duration::from_millis(1_500) {
            break;
        }
    }
    slow.ended().await;
    let waited = begun.elapsed();
    assert!(waited < DEADLINE * 2, "{waited:?}");
    pod.expect_metric(TIMEOUTS, 1.0).await;
    assert_eq!(fleet.log_length().await, 0);
}

#[tokio::test]
async fn time_spent_before_the_upgrade_is_not_given_again_after_it() {
    let fleet = Fleet::new(CALM).await;
    let pod = pod(&fleet).await;
    let begun = Instant::now();
    let mut late = Raw::connect(pod.address).await;
    late.send(UPGRADE).await;
    // A part of its time: the rest has to end when the whole time is over, not later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    late.send("\r\n").await;
    assert!(late.head().await.starts_with("HTTP/1.1 101"));
    // Its credentials stay valid: it may try again.
    late.read_until(&1013u16.to_be_bytes()).await;
    assert_at_the_deadline(begun);
    pod.expect_metric(TIMEOUTS, 1.0).await;
    assert_eq!(fleet.log_length().await, 0);
}

#[tokio::test]
async fn a_kept_connection_that_asks_nothing_more_is_ended() {
    let fleet = Fleet::new(CALM).await;
    let pod = pod(&fleet).await;
    let mut kept = Raw::connect(pod.address).await;
    for _ in 0..2 {
        kept.send("GET /livez HTTP/1.1\r\nHost: pod\r\n\r\n").await;
        kept.read_until(b"HTTP/1.1 200").await;
        kept.head().await;
    }
    let begun = Instant::now();
    kept.ended().await;
    assert!(begun.elapsed() < DEADLINE * 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn whoever_has_asked_waits_for_his_answer_as_long_as_that_takes() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_AUTHENTICATION_TIMEOUT", "1s");
    let pod = plan.with("DATABASE_URL", &database_url).start().await;
    database.stall();
    let resume = async {
        // Longer than it has until it asks.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        database.resume();
    };
    let (answer, ()) = tokio::join!(pod.get("/v1/satellites"), resume);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test]
async fn who_is_authenticated_has_no_deadline() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_AUTHENTICATION_TIMEOUT", "1s").start().await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    // By then it would have been closed, had its time gone on.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    satellite.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    satellite.close().await;
}
