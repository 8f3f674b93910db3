//! Another program publishes on our subjects while the relay has many messages under way: none of ours is skipped.

use std::time::Duration;

use async_nats::jetstream;
use tokio_util::sync::CancellationToken;

use crate::harness::log_and_stream::{StreamMessage, differences, read_log, read_stream};
use crate::harness::wait::as_long_as_it_gets_further;
use crate::harness::{CALM, Fleet, written_log};
use crate::stream::audit::connect_times;

/// Transitions that wait for the relay: many times what it has under way at once.
const BACKLOG: i64 = 2_000;

/// Time between two foreign messages: long enough for the relay to have a burst under way, short enough to meet
/// dozens of them.
const PAUSE: Duration = Duration::from_millis(25);

/// Publishes on all our subjects in turn, `pause` apart, until told to stop. Returns how many the stream accepted.
async fn publish(nats: async_nats::Client, pause: Duration, stop: CancellationToken) -> usize {
    let jetstream = jetstream::new(nats);
    let subjects = ["connected", "disconnected", "heartbeat_lost", "removed"];
    for (sent, subject) in subjects.iter().cycle().enumerate() {
        if stop.is_cancelled() {
            return sent;
        }
        let published = jetstream.publish(format!("satellite.{subject}"), "{}".into()).await;
        published.expect("published").await.expect("stored");
        tokio::time::sleep(pause).await;
    }
    unreachable!("the subjects come round again")
}

/// Waits until the stream without foreign messages equals the log. Returns the number of foreign messages.
pub async fn expect_ours_to_be_the_log(fleet: &Fleet) -> usize {
    let (sql, nats) = (fleet.sql().await, fleet.nats().await);
    as_long_as_it_gets_further("ours to be those of the log", async || {
        let all = read_stream(&nats).await;
        let is_ours =
            |message: &StreamMessage| message.headers.contains_key("Groundstation-Position");
        let (ours, foreign): (Vec<_>, Vec<_>) = all.into_iter().partition(is_ours);
        let found = differences(&read_log(&sql).await, &ours);
        match found.first() {
            None => Ok(foreign.len()),
            Some(first) => Err((ours.len(), format!("{} differ, first: {first}", found.len()))),
        }
    })
    .await
}

#[tokio::test]
async fn somebody_elses_messages_in_the_middle_of_a_burst_cost_none_of_ours() {
    let fleet = Fleet::new(CALM).await;
    let first = fleet.pod("first").await;
    crate::harness::relaying::expect_relay(&first, "leading").await;
    drop(first);
    written_log::write(&fleet.sql().await, 1, BACKLOG).await;
    let stop = CancellationToken::new();
    let others = tokio::spawn(publish(fleet.nats().await, PAUSE, stop.clone()));
    let pod = fleet.pod("relays").await;
    as_long_as_it_gets_further("the backlog", async || {
        match pod.metric("groundstation_relay_published_messages_total").await as usize {
            published if published as i64 >= BACKLOG => Ok(()),
            published => Err((published, published.to_string())),
        }
    })
    .await;
    stop.cancel();
    let foreign = others.await.expect("the others");
    assert_eq!(expect_ours_to_be_the_log(&fleet).await, foreign);
    // Some came in between; otherwise there was no burst.
    assert!(pod.metric("groundstation_relay_rejected_publishes_total").await > 0.0);
}

/// A program that publishes without a pause comes in between again and again. The relay goes on behind it each time,
/// without waiting and without reading the tail again.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn somebody_who_publishes_without_a_pause_does_not_make_the_relay_wait() {
    const EDGES: usize = 40;
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("relays").await;
    crate::harness::relaying::expect_relay(&pod, "leading").await;
    let stop = CancellationToken::new();
    let others = tokio::spawn(publish(fleet.nats().await, Duration::ZERO, stop.clone()));
    let credentials = pod.register("edge", "eu").await;
    connect_times(&pod, &credentials, EDGES).await;
    as_long_as_it_gets_further("the edges", async || {
        match pod.metric("groundstation_relay_published_messages_total").await as usize {
            EDGES => Ok(()),
            published => Err((published, published.to_string())),
        }
    })
    .await;
    stop.cancel();
    let foreign = others.await.expect("the others");
    assert_eq!(expect_ours_to_be_the_log(&fleet).await, foreign);
    assert!(pod.metric("groundstation_relay_rejected_publishes_total").await > 0.0);
    assert_eq!(pod.logged("the relay waits"), None);
}
