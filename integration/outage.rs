//! While the database is away nothing is lost: sockets stay, edges wait, and `/readyz` says so.

use crate::harness::{CALM, Fleet, Heard, Pod, Proxy, Satellite, eventually};

async fn readiness(pod: &Pod, status: u16) -> serde_json::Value {
    eventually(&format!("/readyz to be {status}"), async || {
        let answer = pod.get("/readyz").await;
        if answer.status == status { Ok(answer.json()) } else { Err(answer.text) }
    })
    .await
}

#[tokio::test]
async fn edges_of_a_time_without_database_are_in_the_log_when_it_is_back() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let (stays, leaves) = (pod.register("stays", "eu").await, pod.register("leaves", "eu").await);
    let staying = Satellite::connect(pod.address, &stays).await;
    staying.beat_every(fleet.timing.heartbeat);
    let leaving = Satellite::connect(pod.address, &leaves).await;

    database.refuse();
    let report = readiness(&pod, 503).await;
    assert_eq!((&report["database"], &report["draining"]), (&"down".into(), &false.into()));
    assert_eq!(pod.get("/livez").await.status, 200);
    assert_eq!(pod.get("/v1/satellites").await.status, 503);
    leaving.close().await;
    let mut newcomer = Satellite::open(pod.address).await;
    newcomer.authenticate(&leaves);
    assert_eq!(newcomer.hear().await, Heard::Closed(1013), "try again later");
    assert_eq!(fleet.history(leaves.id).await, ["1 connected connect"]);

    database.admit();
    readiness(&pod, 200).await;
    let left = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(leaves.id, &left).await;
    assert_eq!(fleet.history(stays.id).await, ["1 connected connect"]);
    staying.close().await;
    fleet.expect_history(stays.id, &left).await;
    fleet.check().await;
}
