//! A frame that a satellite should not have sent costs that frame, or its own socket, and nothing else.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::raw::{Raw, UPGRADE, frame};
use crate::harness::{CALM, Credentials, Fleet, Heard, Satellite};

/// The contract's limit of a message, and the limit before authentication.
const LIMIT: usize = 16 * 1024 * 1024;
const STRANGERS_LIMIT: usize = 64 * 1024;

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
        ("invalid_fields", Message::text(json!({"type": "strategy_error"}).to_string())),
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

#[tokio::test]
async fn messages_that_are_dropped_by_the_thousand_are_counted_and_told_of_a_few_times() {
    const COUNT: usize = 1_000;
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    for _ in 0..COUNT {
        satellite.send_frame(Message::text("{"));
    }
    pod.expect_metric(&dropped("invalid_json"), COUNT as f64).await;
    let told = pod.told("a message was dropped");
    // A burst of ten, and one each ten seconds.
    assert!((10..25).contains(&told), "{told} lines");
    // The satellite with the most faults hides no other.
    let other = pod.register("other", "eu").await;
    let quiet = Satellite::connect(pod.address, &other).await;
    quiet.send(&json!({"type": "reboot"}));
    pod.expect_metric(&dropped("unknown_type"), 1.0).await;
    let (log, words) = (pod.log(), "a message was dropped");
    let lines = log.lines().filter(|line| line.contains(words));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of_other = lines.iter().filter(|line| line["satellite"] == json!(other.id));
    assert_eq!(of_other.count(), 1, "{lines:?}");
    let left_out = lines.iter().filter_map(|line| line["left_out"].as_u64()).sum::<u64>();
    assert_eq!(left_out as usize + lines.len(), COUNT + 1, "each was told of or counted");
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn strategy_errors_by_the_thousand_are_passed_on_and_told_of_a_few_times() {
    const COUNT: usize = 1_000;
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    for _ in 0..COUNT {
        satellite.send(&json!({"type": "strategy_error", "strategyId": "s", "message": "failed"}));
    }
    satellite.send_frame(Message::text("{"));
    pod.expect_metric(&dropped("invalid_json"), 1.0).await;
    let told = pod.told("that a strategy failed");
    assert!((10..25).contains(&told), "{told} lines");
}

/// A heartbeat of exactly this many bytes.
fn heartbeat_of(bytes: usize) -> Message {
    let frame = |padding: &str| json!({"type": "heartbeat", "padding": padding}).to_string();
    Message::text(frame(&"x".repeat(bytes - frame("").len())))
}

#[tokio::test]
async fn a_message_of_16_mib_is_taken_and_one_byte_more_closes_the_socket_with_1009() {
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
    assert_eq!(pod.metric("groundstation_large_message_bytes").await, 0.0);
    fleet.check().await;
}

#[tokio::test]
async fn a_message_over_16_mib_in_fragments_is_closed_with_1009_by_the_one_that_is_too_much() {
    const FRAGMENT: usize = 1024 * 1024;
    const TEXT: u8 = 0x1;
    const CONTINUATION: u8 = 0x0;
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let mut raw = Raw::connect(pod.address).await;
    raw.send(format!("{UPGRADE}\r\n")).await;
    raw.head().await;
    let Credentials { id, token } = &credentials;
    let authenticate = json!({"type": "authenticate", "clientId": id, "token": token});
    raw.send(frame(0x80 | TEXT, authenticate.to_string().as_bytes())).await;
    raw.read_until(b"\"authenticated\"").await;
    for n in 0..=LIMIT / FRAGMENT {
        let opcode = if n == 0 { TEXT } else { CONTINUATION };
        raw.send(frame(opcode, &vec![b'x'; FRAGMENT])).await;
    }
    let said = raw.ended().await;
    assert!(said.windows(2).any(|code| code == 1009u16.to_be_bytes()), "{said:?}");
    let ended = ["1 connected connect", "1 disconnected connection_dropped"];
    fleet.expect_history(credentials.id, &ended).await;
    pod.expect_metric("groundstation_large_message_bytes", 0.0).await;
    fleet.check().await;
}

#[tokio::test]
async fn before_it_has_said_who_it_is_64_kib_are_taken_and_one_byte_more_closes_with_1009() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut satellite = Satellite::open(pod.address).await;
    satellite.send_frame(heartbeat_of(STRANGERS_LIMIT));
    satellite.expect("auth_failed").await;
    assert_eq!(satellite.hear().await, Heard::Closed(4001));
    for bytes in [STRANGERS_LIMIT + 1, 10 * STRANGERS_LIMIT] {
        let mut satellite = Satellite::open(pod.address).await;
        satellite.send_frame(heartbeat_of(bytes));
        assert_eq!(satellite.hear().await, Heard::Closed(1009));
    }
    assert_eq!(fleet.log_length().await, 0);
    fleet.check().await;
}
