//! While NATS is away edges are still appended and the pod does not grow with them. When NATS is back, all of them
//! are published in order.

use std::time::Instant;

use async_nats::jetstream;
use tokio::task::JoinSet;

use crate::harness::faults::repetitions;
use crate::harness::relaying::{STREAM, come_and_go, expect_relay};
use crate::harness::wait::{blocking, eventually};
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite};

/// How much a pod may grow, whatever waits: less than a hundred thousand edges would take at 400 bytes each.
const GROWTH: u64 = 40 << 20;

const SATELLITES: u32 = 20;

/// Every satellite comes and goes this often.
async fn come_and_go_all(pod: &Pod, satellites: &[Credentials], times: u32) {
    let address = pod.address;
    let mut all = JoinSet::new();
    for credentials in satellites {
        let credentials = credentials.clone();
        all.spawn(async move {
            for _ in 0..times {
                Satellite::connect(address, &credentials).await.close().await;
            }
        });
    }
    while let Some(ended) = all.join_next().await {
        ended.expect("the satellite");
    }
}

async fn stream_length(fleet: &Fleet) -> i64 {
    let stream = jetstream::new(fleet.nats().await).get_stream(STREAM).await;
    stream.map_or(0, |stream| stream.cached_info().state.messages as i64)
}

#[tokio::test]
async fn a_pod_does_not_grow_while_nats_is_away_and_then_publishes_everything_in_order() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let pod = fleet.pod("a").await;
    expect_relay(&pod, "leading").await;
    let mut satellites = Vec::new();
    for n in 0..SATELLITES {
        satellites.push(pod.register(&format!("edge-{n}"), "eu").await);
    }
    // The memory of a warm pod, before there is anything to keep.
    come_and_go_all(&pod, &satellites, 20).await;
    fleet.check().await;

    fleet.own_nats().kill();
    let before = pod.resident();
    let begun = Instant::now();
    let edges = repetitions(5_000, 100_000);
    come_and_go_all(&pod, &satellites, edges / SATELLITES / 2).await;
    let length = i64::from(edges + SATELLITES * 20 * 2);
    fleet.expect_log_length(length).await;
    let grown = pod.resident().saturating_sub(before);
    println!("{edges} edges in {:?}, the pod has grown by {} KiB", begun.elapsed(), grown >> 10);
    assert!(grown < GROWTH, "grown by {grown} bytes from {before}");

    let fleet = blocking(move || {
        fleet.own_nats().restart().expect("NATS restarts");
        fleet
    })
    .await;
    expect_relay(&pod, "leading").await;
    let begun = Instant::now();
    let mut on_stream = stream_length(&fleet).await;
    let first = on_stream;
    while on_stream < length {
        // While it grows, it may take its time.
        on_stream = eventually("the stream to grow", async || {
            let now = stream_length(&fleet).await;
            if now > on_stream { Ok(now) } else { Err(format!("{now} of {length}")) }
        })
        .await;
    }
    let rate = (length - first) as f64 / begun.elapsed().as_secs_f64();
    println!("{} messages drained at {rate:.0} a second", length - first);
    let grown = pod.resident().saturating_sub(before);
    println!("the pod has grown by {} KiB", grown >> 10);
    assert!(grown < GROWTH, "grown by {grown} bytes from {before}");
    come_and_go(&pod, &satellites[0]).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_has_nothing_to_deliver_ends_at_once_while_nats_is_away() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let mut pod = fleet.pod("a").await;
    expect_relay(&pod, "leading").await;
    fleet.own_nats().kill();
    pod.expect_log("NATS is away: edges wait in the log").await;
    pod.terminate();
    assert!(pod.exit().await.success());
    let log = pod.log();
    assert!(log.contains("drained") && !log.contains("did not end in time"), "{log}");
}
