//! Postgres fails over to its synchronous standby: no edge is lost, and nobody who goes on beating.

use std::time::Duration;

use tokio::time::sleep;

use crate::harness::wait::blocking;
use crate::harness::{Agents, Fleet, Onlooker, Satellite, eventually, steady, stores, within};

#[tokio::test]
async fn a_fail_over_to_the_synchronous_standby_loses_no_edge_and_nobody() {
    let (fleet, mut primary, standby) = Fleet::with_standby(steady()).await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await];
    let beating = fleet.register(&pods[0], "beating", 12).await;
    let others = fleet.register(&pods[0], "other", 2).await;
    let agents = Agents::start(&fleet, pods[0].address, beating);
    agents.expect_all().await;
    let leaving = Satellite::connect(pods[1].address, &others[0]).await;
    let silent = Satellite::connect(pods[1].address, &others[1]).await;
    let before = fleet.log_length().await;
    assert_eq!(before, 14);
    let onlooker = Onlooker::at(&fleet, &[pods[0].address, pods[1].address]);

    primary.kill();
    leaving.close().await;
    sleep(Duration::from_secs(2)).await;
    let url = fleet.database_url.clone();
    let standby = blocking(move || {
        stores::promote(&standby, &url);
        standby
    })
    .await;

    for pod in &pods {
        eventually("the pod to be ready again", async || {
            let answer = pod.get("/readyz").await;
            if answer.status == 200 { Ok(()) } else { Err(answer.text) }
        })
        .await;
    }
    let left = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(others[0].id, &left).await;
    within(
        fleet.timing.threshold * 2 + Duration::from_secs(30),
        "the silent one to be lost",
        async || {
            let history = fleet.history(others[1].id).await;
            if history.len() == 2 { Ok(()) } else { Err(format!("{history:?}")) }
        },
    )
    .await;
    drop(silent);
    assert_eq!(onlooker.saw_offline("beating").await, [""; 0]);
    assert_eq!(fleet.log_length().await, before + 2, "and nobody else was given up");
    assert_eq!(agents.authenticated(), 12, "sockets stayed up");
    fleet.check().await;
    drop(standby);
}
