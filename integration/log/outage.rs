//! While the database is away nothing is lost: sockets stay, edges wait, and `/readyz` says so.

use crate::harness::written::written;
use crate::harness::{CALM, Fleet, Heard, Pod, Proxy, Satellite, eventually};

async fn readiness(pod: &Pod, status: u16) -> serde_json::Value {
    eventually(&format!("/readyz to be {status}"), async || {
        let answer = pod.get("/readyz").await;
        if answer.status == status { Ok(answer.json()) } else { Err(answer.text) }
    })
    .await
}

written!(edges_of_a_time_without_database_are_in_the_log_when_it_is_back);

#[tokio::test]
async fn edges_of_a_time_without_database_are_in_the_log_when_it_is_back() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let (stays, leaves) = (pod.register("stays", "eu").await, pod.register("leaves", "eu").await);
    let staying = fleet.beating(&pod, &stays).await;
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

#[tokio::test]
async fn what_comes_by_the_hundred_without_database_is_told_of_a_few_times() {
    const COUNT: u32 = 150;
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let credentials = pod.register("edge", "eu").await;
    database.refuse();
    readiness(&pod, 503).await;
    for _ in 0..COUNT {
        assert_eq!(pod.get("/v1/satellites").await.status, 503);
        let mut stranger = Satellite::open(pod.address).await;
        stranger.authenticate(&credentials);
        assert_eq!(stranger.hear().await, Heard::Closed(1013));
    }
    for line in ["a request failed", "cannot check credentials"] {
        let told = pod.told(line);
        // A burst of twenty, and one each six seconds.
        assert!((20..60).contains(&told), "{told} times {line:?}");
    }
    database.admit();
    readiness(&pod, 200).await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    fleet.check().await;
}
