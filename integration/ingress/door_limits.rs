//! Every limit of the door refuses exactly the clients it is meant for, and counts them.

use serde_json::json;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Error;

use crate::harness::raw::{Raw, UPGRADE, frame};
use crate::harness::wait::PATIENCE;
use crate::harness::{CALM, Fleet, Satellite, eventually};

fn refusals(reason: &str) -> String {
    format!("groundstation_door_refusals_total{{reason=\"{reason}\"}}")
}

#[tokio::test]
async fn headers_over_their_limit_are_answered_431_and_counted() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_MAX_HEADER_BYTES", "2048").start().await;
    let mut fits = Raw::connect(pod.address).await;
    fits.send(format!("{UPGRADE}X-Fill: {}\r\n\r\n", "x".repeat(1_000))).await;
    assert!(fits.head().await.starts_with("HTTP/1.1 101"));
    let mut large = Raw::connect(pod.address).await;
    large.send(format!("{UPGRADE}X-Fill: {}\r\n\r\n", "x".repeat(3_000))).await;
    assert!(large.head().await.starts_with("HTTP/1.1 431"));
    large.ended().await;
    pod.expect_metric(&refusals("headers"), 1.0).await;
}

#[tokio::test]
async fn more_connections_than_an_address_may_have_are_closed_at_once() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_MAX_CONNECTIONS_PER_ADDRESS", "4").start().await;
    let mut held = Vec::new();
    for _ in 0..12 {
        held.push(Raw::connect(pod.address).await);
    }
    assert_eq!(held[11].ended().await, b"");
    let ask = format!(
        "GET /metrics HTTP/1.1\r\nHost: pod\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        fleet.admin_token
    );
    held[0].send(&ask).await;
    let metrics = String::from_utf8(held[0].ended().await).expect("text");
    // One more if the connection that asked for readiness still has its place.
    let refused = |count: u32| format!("{} {count}\n", refusals("connections_per_address"));
    assert!([8, 9].iter().any(|count| metrics.contains(&refused(*count))), "{metrics}");
    drop(held);
    eventually("a place for the next", async || {
        let mut next = Raw::connect(pod.address).await;
        next.send(&ask).await;
        let answer = next.ended().await;
        if answer.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// More at once than the 128 that would wait by default.
#[tokio::test]
async fn a_burst_of_connections_waits_for_a_pod_that_does_not_get_round_to_them() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_MAX_CONNECTIONS_PER_ADDRESS", "1000");
    let pod = plan.with("GROUNDSTATION_MAX_HANDSHAKES_PER_ADDRESS", "1000").start().await;
    let allowed = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    let burst: usize = allowed.trim().parse().unwrap_or(128).min(500);
    pod.suspend();
    let mut waiting = Vec::new();
    for nth in 0..burst {
        // Otherwise the system sends nothing at all while no connection is accepted.
        let connected = timeout(PATIENCE, Raw::connect(pod.address)).await;
        waiting.push(connected.unwrap_or_else(|_| panic!("connection {nth} was dropped")));
    }
    pod.wake();
    for connection in &mut waiting {
        connection.send(format!("{UPGRADE}\r\n")).await;
        assert!(connection.head().await.starts_with("HTTP/1.1 101"));
    }
}

#[tokio::test]
async fn a_websocket_is_no_connection_any_more_and_takes_no_place_of_one() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_MAX_CONNECTIONS", "3").start().await;
    let mut held = Vec::new();
    for n in 0..8 {
        let credentials = pod.register(&format!("edge-{n}"), "eu").await;
        held.push(Satellite::connect(pod.address, &credentials).await);
    }
    assert_eq!(pod.metric("groundstation_sessions").await, 8.0);
}

#[tokio::test]
async fn a_browser_is_refused_unless_its_origin_is_allowed() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let open = async |address, origin: &str| match Satellite::try_open_with(
        address,
        &[("origin", origin)],
    )
    .await
    {
        Ok(_) => 101,
        Err(Error::Http(answer)) => answer.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(open(pod.address, "https://ops.example").await, 403);
    assert_eq!(open(pod.address, "null").await, 403);
    assert_eq!(pod.metric(&refusals("origin")).await, 2.0);
    let allowing = fleet.plan("b").with("GROUNDSTATION_ALLOWED_ORIGINS", "https://ops.example");
    let allowing = allowing.start().await;
    assert_eq!(open(allowing.address, "https://ops.example").await, 101);
    assert_eq!(open(allowing.address, "https://ops.example.evil").await, 403);
    assert_eq!(open(allowing.address, "http://ops.example").await, 403);
}

#[tokio::test]
async fn compression_is_never_negotiated_and_a_compressed_frame_breaks_the_protocol() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut raw = Raw::connect(pod.address).await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    raw.send(format!("{UPGRADE}{offer}")).await;
    let head = raw.head().await.to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101"), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    const FINAL_COMPRESSED_TEXT: u8 = 0x80 | 0x40 | 0x1;
    raw.send(frame(FINAL_COMPRESSED_TEXT, b"\x02\x00")).await;
    let said = raw.ended().await;
    assert!(said.windows(2).any(|code| code == 1002u16.to_be_bytes()), "{said:?}");
    assert_eq!(pod.metric(&refusals("protocol")).await, 1.0);
    assert_eq!(fleet.log_length().await, 0);
}

#[tokio::test]
async fn an_agent_that_kept_a_hundred_results_may_send_them_all_at_once() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    for n in 0..100 {
        satellite.send(&json!({"type": "result", "configId": n.to_string(), "systemId": "s",
            "status": "healthy", "executedAt": "2026-01-01T00:00:00Z"}));
    }
    satellite.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    satellite.close().await;
}

#[tokio::test]
async fn sockets_that_are_not_authenticated_are_bounded_for_the_pod() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_MAX_HANDSHAKES", "3").start().await;
    let credentials = pod.register("edge", "eu").await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(Satellite::open(pod.address).await);
    }
    let Err(Error::Http(answer)) = Satellite::try_open(pod.address).await else {
        panic!("a fourth was let in");
    };
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
    assert_eq!(pod.metric(&refusals("handshakes")).await, 1.0);
    // An authenticated satellite leaves its place.
    let mut first = waiting.pop().expect("a socket");
    first.authenticate(&credentials);
    first.expect("authenticated").await;
    eventually("a place", async || {
        Satellite::try_open(pod.address).await.map(drop).map_err(|error| error.to_string())
    })
    .await;
}
