//! No satellite is let in without valid credentials, and a refusal says nothing more than that.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::harness::{CALM, Credentials, Fleet, Heard, Pod, Satellite, eventually};

const NOT_AUTHENTICATED: u16 = 4001;

/// Sends a first frame. Returns the answer that comes before the socket is closed.
async fn refused(pod: &Pod, first: Message) -> Value {
    let mut satellite = Satellite::open(pod.address).await;
    satellite.send_frame(first);
    let answer = satellite.expect("auth_failed").await;
    assert_eq!(satellite.hear().await, Heard::Closed(NOT_AUTHENTICATED));
    answer
}

fn authenticate(client_id: &str, token: &str) -> Message {
    let message = json!({"type": "authenticate", "clientId": client_id, "token": token});
    Message::text(message.to_string())
}

/// No satellite came in: no edge, no session, and the satellite's state is unchanged.
async fn nobody_came_in(fleet: &Fleet, pod: &Pod, credentials: &Credentials) {
    assert_eq!(fleet.log_length().await, 0);
    assert_eq!(pod.metric("groundstation_sessions").await, 0.0);
    assert_eq!(pod.show(credentials.id).await["status"], "offline");
    fleet.check().await;
}

#[tokio::test]
async fn a_wrong_token_and_an_unknown_id_get_the_same_answer() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let other = pod.register("other", "eu").await;
    let id = credentials.id.to_string();
    let unknown = Uuid::new_v4().to_string();
    let answer = json!({"type": "auth_failed", "reason": "Invalid client ID or token"});
    let attempts = [
        authenticate(&id, "csat_wrong"),
        authenticate(&id, ""),
        authenticate(&id, &credentials.token[..credentials.token.len() - 1]),
        authenticate(&id, &other.token),
        authenticate(&unknown, &credentials.token),
        authenticate("00000000-0000-0000-0000-000000000000", &credentials.token),
        authenticate("not a uuid", &credentials.token),
        authenticate("'; drop table satellites; --\u{0}", &credentials.token),
        authenticate("", ""),
    ];
    let count = attempts.len() as f64;
    for attempt in attempts {
        assert_eq!(refused(&pod, attempt.clone()).await, answer, "{attempt}");
    }
    pod.expect_metric("groundstation_authentications_total{result=\"refused\"}", count).await;
    nobody_came_in(&fleet, &pod, &credentials).await;
}

#[tokio::test]
async fn a_first_message_that_is_not_authenticate_is_refused() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let answer = json!({"type": "auth_failed", "reason": "Must authenticate first"});
    let firsts = [
        Message::text(
            json!({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 1}).to_string(),
        ),
        Message::text(json!({"type": "authenticated"}).to_string()),
        Message::text(json!({"type": "authenticate"}).to_string()),
        Message::text(json!({"clientId": credentials.id, "token": credentials.token}).to_string()),
        Message::text("hello"),
        Message::text(""),
        Message::binary(authenticate(&credentials.id.to_string(), &credentials.token).into_data()),
    ];
    let count = firsts.len() as f64;
    for first in firsts {
        assert_eq!(refused(&pod, first.clone()).await, answer, "{first}");
    }
    pod.expect_metric("groundstation_authentications_total{result=\"not_authenticate\"}", count)
        .await;
    nobody_came_in(&fleet, &pod, &credentials).await;
}

#[tokio::test]
async fn who_says_nothing_is_sent_away_after_five_seconds_and_may_try_again() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let opened = Instant::now();
    let mut satellite = Satellite::open(pod.address).await;
    // A ping is no message.
    satellite.send_frame(Message::Ping("hello".into()));
    assert_eq!(satellite.hear().await, Heard::Closed(1013));
    let waited = opened.elapsed();
    assert!(waited >= Duration::from_millis(4_900), "{waited:?}");
    assert!(waited < Duration::from_secs(10), "{waited:?}");
    nobody_came_in(&fleet, &pod, &credentials).await;
}

#[tokio::test]
async fn who_says_odd_things_of_what_it_can_do_is_let_in_and_heard_all_the_same() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let odd = [json!("http"), json!([1, 2]), json!({"http": true}), json!(vec!["x"; 6_000])];
    for (n, capabilities) in odd.iter().enumerate() {
        let mut satellite = Satellite::open(pod.address).await;
        satellite.send(&json!({"type": "authenticate", "clientId": credentials.id,
                               "token": credentials.token, "capabilities": capabilities}));
        satellite.expect("authenticated").await;
        satellite.send(&json!({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 1,
                               "capabilities": capabilities}));
        let heard = (n + 1) as f64;
        pod.expect_metric("groundstation_heartbeats_received_total", heard).await;
        let left_out = "groundstation_dropped_messages_total{reason=\"capabilities\"}";
        pod.expect_metric(left_out, 2.0 * heard).await;
    }
    assert_eq!(pod.show(credentials.id).await["capabilities"], json!([]));
    pod.expect_log("a field of a message was left out").await;
}

#[tokio::test]
async fn a_second_authenticate_is_ignored() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let other = pod.register("other", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    satellite.send_frame(authenticate(&credentials.id.to_string(), "csat_wrong"));
    satellite.send_frame(authenticate(&other.id.to_string(), &other.token));
    // Heard after both, on the same socket.
    satellite.send(&json!({"type": "heartbeat", "version": "after", "uptimeSeconds": 1}));
    eventually("the heartbeat behind them", async || {
        let shown = pod.show(credentials.id).await;
        if shown["version"] == "after" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    assert_eq!(fleet.history(other.id).await, Vec::<String>::new());
    let dropped = pod.get("/metrics").await.text;
    assert!(!dropped.contains("groundstation_dropped_messages_total{"), "{dropped}");
    fleet.check().await;
}
