//! Who asks and does not read the answers keeps no place at the door.

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
