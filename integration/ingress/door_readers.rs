//! A client that asks and does not read the answers keeps no place at the door.

use std::net::IpAddr;
use std::time::Duration;

use crate::harness::raw::Raw;
use crate::harness::wait::within;
use crate::harness::{CALM, Fleet};

/// With default settings an answer has ten seconds to get further.
const SOON: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_reader_that_takes_nothing_of_its_answers_is_closed() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let ask = "GET /openapi.json HTTP/1.1\r\nHost: pod\r\n\r\n".repeat(200);
    let mut deaf = Vec::new();
    for n in 1..=8 {
        let from = IpAddr::from([127, 40, n, 1]);
        let mut raw = Raw::connect_narrow(pod.address, from).await.expect("a connection");
        assert!(raw.push(ask.as_bytes()));
        deaf.push(raw);
    }
    const TIMEOUTS: &str = "groundstation_door_refusals_total{reason=\"write_timeout\"}";
    within(SOON, "all of them to be closed", async || {
        let closed = pod.metric(TIMEOUTS).await;
        if closed >= 8.0 { Ok(()) } else { Err(format!("{closed} closed")) }
    })
    .await;
    // The connection is gone, and not only counted.
    for raw in &mut deaf {
        within(SOON, "the connection to be gone", async || {
            if raw.push(b"x") { Err("it takes more".to_owned()) } else { Ok(()) }
        })
        .await;
    }
}

/// Long before their time is over: a client that reads nothing makes room for newcomers.
#[tokio::test]
async fn a_room_full_of_readers_that_do_not_read_has_room_for_one_that_does() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_WRITE_TIMEOUT", "10m");
    let plan = plan.with("GROUNDSTATION_MAX_CONNECTIONS_PER_ADDRESS", "16");
    let pod = plan.with("GROUNDSTATION_MAX_CONNECTIONS", "64").start().await;
    let ask = "GET /openapi.json HTTP/1.1\r\nHost: pod\r\n\r\n".repeat(200);
    let mut deaf = Vec::new();
    for n in 0..96u8 {
        let from = IpAddr::from([127, 41, n / 8, 1]);
        if let Ok(mut raw) = Raw::connect_narrow(pod.address, from).await {
            raw.push(ask.as_bytes());
            deaf.push(raw);
        }
    }
    let honest = IpAddr::from([127, 42, 1, 1]);
    within(SOON, "somebody who reads to be answered", async || {
        let mut raw = Raw::connect_from(pod.address, honest).await.map_err(|e| e.to_string())?;
        raw.send("GET /livez HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n").await;
        if raw.ended_after(b"200 OK").await { Ok(()) } else { Err("closed".to_owned()) }
    })
    .await;
    drop(deaf);
}
