//! There are more losses than one sweep declares, and some stay due: each one is found all the same.

use crate::harness::{BRISK, Credentials, Fleet, Pod, Satellite};

const LOST: [&str; 2] = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
const POD_LOST: [&str; 2] = ["1 connected connect", "1 heartbeat_lost pod_lost"];

/// A pod whose sweeps take one loss from each source.
async fn one_at_a_time(fleet: &Fleet, name: &str) -> Pod {
    fleet.plan(name).with("FAILPOINTS", "monitor::max_due=return(1)").start().await
}

async fn connect_all(pod: &Pod, all: &[Credentials]) -> Vec<Satellite> {
    let mut sockets = Vec::new();
    for credentials in all {
        sockets.push(Satellite::connect(pod.address, credentials).await);
    }
    sockets
}

#[tokio::test]
async fn sessions_that_were_given_up_and_keep_their_sockets_keep_no_other_from_being_found() {
    let fleet = Fleet::new(BRISK).await;
    let pod = one_at_a_time(&fleet, "a").await;
    let silent = fleet.register(&pod, "silent", 3).await;
    let _sockets = connect_all(&pod, &silent).await;
    for credentials in &silent {
        fleet.expect_history(credentials.id, &LOST).await;
    }
    assert_eq!(
        pod.metric("groundstation_sessions").await,
        3.0,
        "the first to be lost is there still"
    );
    fleet.check().await;
}

#[tokio::test]
async fn losses_that_wait_for_somebody_keep_no_other_session_of_a_silent_pod_from_being_found() {
    const HOLD: &str = "
        select from satellite_connections where satellite_id = any($1) for update";
    let fleet = Fleet::new(BRISK).await;
    let mut dies = fleet.pod("dies").await;
    let _looks = one_at_a_time(&fleet, "looks").await;
    let mut all = fleet.register(&dies, "edge", 4).await;
    // The sources are searched in this order.
    all.sort_by_key(|credentials| credentials.id);
    let _sockets = connect_all(&dies, &all).await;
    let (held, free) = all.split_at(3);
    let holder = fleet.sql().await;
    holder.batch_execute("begin").await.expect("a transaction");
    let ids: Vec<_> = held.iter().map(|credentials| credentials.id).collect();
    holder.query(HOLD, &[&ids]).await.expect("rows");
    dies.kill();
    fleet.expect_history(free[0].id, &POD_LOST).await;
    holder.batch_execute("rollback").await.expect("let go");
    for credentials in held {
        fleet.expect_history(credentials.id, &POD_LOST).await;
    }
    fleet.check().await;
}
