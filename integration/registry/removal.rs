//! A removed satellite is gone from every part.

use serde_json::json;

use crate::harness::{CALM, Fleet, Heard, Proxy, Satellite};

#[tokio::test]
async fn a_removed_satellite_is_shut_down_on_whichever_pod_holds_it_and_not_let_in_again() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let credentials = a.register("edge", "eu").await;
    let bystander = a.register("bystander", "eu").await;
    // Both are silent: no heartbeat tells the satellite's pod.
    let mut satellite = Satellite::connect(b.address, &credentials).await;
    let bystanding = Satellite::connect(b.address, &bystander).await;
    assert_eq!(a.remove(credentials.id).await.status, 204);
    satellite.expect("shutdown").await;
    assert_eq!(satellite.hear().await, Heard::Closed(1000));

    let mut again = Satellite::open(b.address).await;
    again.authenticate(&credentials);
    let refused = again.expect("auth_failed").await;
    assert_eq!(refused["reason"], "Invalid client ID or token");
    for pod in [&a, &b] {
        let path = format!("/v1/satellites/{}", credentials.id);
        assert_eq!(pod.get(&path).await.status, 404);
        assert_eq!(pod.remove(credentials.id).await.status, 404);
    }
    let gone = ["1 connected connect", "1 removed removed"];
    assert_eq!(fleet.history(credentials.id).await, gone);
    // The other satellite of that pod hears nothing of it.
    assert_eq!(fleet.history(bystander.id).await, ["1 connected connect"]);
    bystanding.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_hears_nothing_from_nats_ends_a_removed_satellite_at_its_next_heartbeat() {
    let fleet = Fleet::new(CALM).await;
    let (nats, nats_url) = Proxy::before(&fleet.nats_url).await;
    let a = fleet.pod("a").await;
    let b = fleet.plan("b").with("NATS_URL", &nats_url).start().await;
    let credentials = a.register("edge", "eu").await;
    let mut satellite = Satellite::connect(b.address, &credentials).await;
    nats.stall();
    assert_eq!(a.remove(credentials.id).await.status, 204);
    satellite.beat();
    satellite.expect("shutdown").await;
    assert_eq!(satellite.hear().await, Heard::Closed(1000));
    nats.resume();
    fleet.check().await;
}

#[tokio::test]
async fn the_removal_of_a_satellite_that_never_connected_is_a_transition_too() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut subscriber = fleet.subscribe().await;
    let credentials = pod.register("edge", "eu").await;
    assert_eq!(pod.remove(credentials.id).await.status, 204);
    subscriber.expect("satellite.removed", credentials.id).await;
    assert_eq!(fleet.history(credentials.id).await, ["0 removed removed"]);
    let page = pod.get(&format!("/v1/satellites/{}/transitions", credentials.id)).await.json();
    let removed = &page["transitions"][0];
    assert_eq!((&removed["prev"], &removed["next"]), (&json!(null), &json!(null)));
    fleet.check().await;
}
