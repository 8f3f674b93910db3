//! What a satellite should not have sent costs it that frame, or its own socket, and nothing else.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{CALM, Fleet, Heard, Satellite};

/// The contract's limit of a frame.
const LIMIT: usize = 64 * 1024;

fn dropped(reason: &str) -> String {
    format!("groundstation_dropped_messages_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn frames_that_are_no_message_are_dropped_and_counted_and_the_socket_stays() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    let frames = [
        ("invalid_json", Message::text("{")),
        ("invalid_json", Message::text("")),
        ("unknown_type", Message::text(json!({"type": "reboot"}).to_string())),
        ("unknown_type", Message::text("[]")),
        ("invalid_fields", Message::text(json!({"type": "heartbeat", "version": 5}).to_string())),
        ("binary_frame", Message::binary(json!({"type": "heartbeat"}).to_string())),
        (
            "not_assigned",
            Message::text(
                json!({"type": "result", "configId": "c", "systemId": "s", "status": "healthy",
                       "executedAt": "2026-03-01T12:00:00Z"})
                .to_string(),
            ),
        ),
    ];
    for (_, frame) in &frames {
        satellite.send_frame(frame.clone());
    }
    satellite.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    for (reason, _) in &frames {
        let count = frames.iter().filter(|(other, _)| other == reason).count();
        assert_eq!(pod.metric(&dropped(reason)).await, count as f64, "{reason}");
    }
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    satellite.close().await;
    let ended = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(credentials.id, &ended).await;
    fleet.check().await;
}

/// A heartbeat of exactly this many bytes.
fn heartbeat_of(bytes: usize) -> Message {
    let frame = |padding: &str| json!({"type": "heartbeat", "padding": padding}).to_string();
    Message::text(frame(&"x".repeat(bytes - frame("").len())))
}

#[tokio::test]
async fn a_frame_of_64_kib_is_taken_and_one_byte_more_closes_the_socket_with_1009() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    satellite.send_frame(heartbeat_of(LIMIT));
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    satellite.send_frame(heartbeat_of(LIMIT + 1));
    assert_eq!(satellite.hear().await, Heard::Closed(1009));
    let ended = ["1 connected connect", "1 disconnected connection_dropped"];
    fleet.expect_history(credentials.id, &ended).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_first_frame_over_64_kib_is_closed_with_1009_and_leaves_no_edge() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut satellite = Satellite::open(pod.address).await;
    satellite.send_frame(heartbeat_of(10 * LIMIT));
    assert_eq!(satellite.hear().await, Heard::Closed(1009));
    assert_eq!(fleet.log_length().await, 0);
    fleet.check().await;
}
