//! A satellite that does not read is heard while it is connected, and does not stay connected for ever.

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::faults::full;
use crate::harness::{CALM, Fleet, Satellite, eventually};

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn who_does_not_read_is_heard_meanwhile_and_dropped_after_ten_seconds() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let neighbour = pod.register("neighbour", "eu").await;
    let neighbouring = Satellite::connect(pod.address, &neighbour).await;
    let url = format!("ws://{}/api/ws/satellite", pod.address);
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a socket");
    let authenticate =
        json!({"type": "authenticate", "clientId": credentials.id, "token": credentials.token});
    socket.send(Message::text(authenticate.to_string())).await.expect("sent");
    socket.next().await.expect("an answer").expect("authenticated");

    // From here on it reads nothing. Lists are sent until the socket takes no more.
    let begun = Instant::now();
    let large = json!([{"configId": "c", "systemId": "s", "strategyId": "http",
        "config": {"padding": "x".repeat(400_000)}, "intervalSeconds": 60}]);
    let ended = ["1 connected connect", "1 disconnected connection_dropped"];
    let mut beats = 0.0;
    loop {
        pod.assign(credentials.id, &large).await;
        let heartbeat = json!({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 1});
        if socket.send(Message::text(heartbeat.to_string())).await.is_err() {
            break;
        }
        if fleet.history(credentials.id).await == ended {
            break;
        }
        beats += 1.0;
        // Heard while the pod's write is stuck; the last one may still be on its way.
        pod.expect_metric("groundstation_heartbeats_received_total", beats - 1.0).await;
        // Ten seconds with many heartbeats, and not too many lists.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(begun.elapsed() < Duration::from_secs(60), "it is still there");
    }
    assert!(begun.elapsed() >= Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(beats > if full() { 20.0 } else { 5.0 }, "{beats} heartbeats");
    fleet.expect_history(credentials.id, &ended).await;
    // The other satellites notice nothing.
    eventually("the other to be there still", async || {
        let sessions = pod.metric("groundstation_sessions").await;
        if sessions == 1.0 { Ok(()) } else { Err(sessions.to_string()) }
    })
    .await;
    assert_eq!(fleet.history(neighbour.id).await, ["1 connected connect"]);
    neighbouring.close().await;
    fleet.check().await;
}
