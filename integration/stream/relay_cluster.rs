//! The stream on three nats-servers, of the versions that check a publish only where they store it (2.10, 2.11) and
//! of the newest. Whichever server leads, restarts or dies in the middle of a burst, nothing is skipped, all servers
//! store the same, and the feed goes on.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use tokio::time::{sleep, timeout};

use crate::harness::cluster::{Cluster, Version};
use crate::harness::relaying::{SHORT_MEMORY, STREAM};
use crate::harness::wait::within;
use crate::harness::{CALM, Fleet, Pod, eventually, written_log};

/// Transitions that wait for the relay.
const BACKLOG: i64 = 600;

/// How many of them are on the stream when the fault comes.
const IN_THE_MIDDLE: u64 = 150;

/// How long the feed may stand still while the stream has a leader.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How long a server that was away may take to catch up before it is started once more.
const A_WHILE: Duration = Duration::from_secs(60);

/// A cluster with the stream on it, and a pod that has begun with the backlog.
async fn in_the_middle_of_a_burst(version: Version, window: Duration) -> (Cluster, Fleet, Pod) {
    let cluster = Cluster::start(version).await;
    let fleet = cluster.fleet(CALM).await;
    cluster.make_stream(&fleet, window).await;
    written_log::write(&fleet.sql().await, 1, BACKLOG).await;
    let pod = fleet.pod("a").await;
    eventually("the middle of the burst", async || match last_sequence(&fleet).await {
        Some(last) if last >= IN_THE_MIDDLE => Ok(()),
        last => Err(format!("{last:?}")),
    })
    .await;
    (cluster, fleet, pod)
}

async fn last_sequence(fleet: &Fleet) -> Option<u64> {
    let jetstream = jetstream::new(fleet.nats().await);
    let stream = jetstream.get_stream(STREAM).await.ok()?;
    Some(stream.cached_info().state.last_sequence)
}

/// Waits until the backlog is on the stream. Returns the longest time in which nothing was added to it while it had a
/// leader.
async fn longest_pause(fleet: &Fleet) -> Duration {
    let (mut longest, mut reached, mut since) = (Duration::ZERO, 0, Instant::now());
    within(Duration::from_secs(300), "the whole backlog", async || {
        match last_sequence(fleet).await {
            // Without a leader nothing can be added.
            None => since = Instant::now(),
            Some(last) if last != reached => (reached, since) = (last, Instant::now()),
            Some(_) => longest = longest.max(since.elapsed()),
        }
        if reached >= BACKLOG as u64 { Ok(()) } else { Err(reached.to_string()) }
    })
    .await;
    longest
}

/// Waits until every server has the stream up to the log's head. A server that was away may first have to wait for
/// the others to try again.
async fn expect_the_same_everywhere(cluster: &Cluster, fleet: &Fleet) {
    let jetstream = jetstream::new(fleet.nats().await);
    within(Duration::from_secs(180), "every server to have everything", async || {
        let last = cluster.last_sequences().await;
        if last.iter().all(|last| *last == Some(BACKLOG as u64)) {
            return Ok(());
        }
        let stream = jetstream.get_stream(STREAM).await.map_err(|error| error.to_string())?;
        Err(format!("{last:?}, its leader says {:?}", stream.cached_info().cluster))
    })
    .await;
}

async fn a_leader_that_steps_down(version: Version) {
    let (cluster, fleet, _pod) = in_the_middle_of_a_burst(version, SHORT_MEMORY).await;
    cluster.step_down(&fleet.nats().await).await;
    let paused = longest_pause(&fleet).await;
    assert!(paused < LONGEST_PAUSE, "{paused:?}");
    fleet.check().await;
    expect_the_same_everywhere(&cluster, &fleet).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_leader_that_steps_down_in_the_middle_of_a_burst_costs_nothing_on_2_10() {
    a_leader_that_steps_down(Version::V2_10).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_leader_that_steps_down_in_the_middle_of_a_burst_costs_nothing_on_2_11() {
    a_leader_that_steps_down(Version::V2_11).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_leader_that_steps_down_in_the_middle_of_a_burst_costs_nothing_on_the_newest() {
    a_leader_that_steps_down(Version::Newest).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_leader_that_dies_in_the_middle_of_a_burst_costs_nothing_on_2_10() {
    let (cluster, fleet, _pod) = in_the_middle_of_a_burst(Version::V2_10, SHORT_MEMORY).await;
    let leader = cluster.leader(&fleet.nats().await).await;
    let cluster = cluster.crash(leader).await;
    let paused = longest_pause(&fleet).await;
    assert!(paused < LONGEST_PAUSE, "{paused:?}");
    fleet.check().await;
    expect_the_same_everywhere(&cluster, &fleet).await;
}

/// A server compares an expected id with one that it remembers, and forgets it on a restart. It would then refuse
/// what the others store, and have less than they when it leads.
async fn a_server_that_restarts(version: Version) {
    let (cluster, fleet, _pod) = in_the_middle_of_a_burst(version, SHORT_MEMORY).await;
    let leader = cluster.leader(&fleet.nats().await).await;
    let follower = (leader + 1) % 3;
    let mut cluster = cluster.crash(follower).await;
    longest_pause(&fleet).await;
    // On a busy machine a returning server may not find its way to the others again.
    for _ in 0..2 {
        if timeout(A_WHILE, the_same_everywhere(&cluster)).await.is_ok() {
            break;
        }
        cluster = cluster.crash(follower).await;
    }
    expect_the_same_everywhere(&cluster, &fleet).await;
    fleet.check().await;
}

async fn the_same_everywhere(cluster: &Cluster) {
    while cluster.last_sequences().await.iter().any(|last| *last != Some(BACKLOG as u64)) {
        sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_server_that_restarts_in_the_middle_of_a_burst_has_what_the_others_have_on_2_10() {
    a_server_that_restarts(Version::V2_10).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_server_that_restarts_in_the_middle_of_a_burst_has_what_the_others_have_on_2_11() {
    a_server_that_restarts(Version::V2_11).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_long_duplicate_window_on_a_replicated_stream_is_spoken_of_once() {
    let two_minutes = Duration::from_secs(120);
    let (cluster, fleet, pod) = in_the_middle_of_a_burst(Version::V2_11, two_minutes).await;
    let said = pod.expect_log("has a long duplicate window").await;
    assert_eq!(said["level"], "WARN", "{said}");
    pod.expect_metric("groundstation_relay_duplicate_window_seconds", 120.0).await;
    cluster.step_down(&fleet.nats().await).await;
    longest_pause(&fleet).await;
    fleet.check().await;
    assert_eq!(pod.log().matches("has a long duplicate window").count(), 1);
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn somebody_elses_messages_in_the_middle_of_a_burst_cost_none_of_ours_on_2_10() {
    let (_cluster, fleet, _pod) = in_the_middle_of_a_burst(Version::V2_10, SHORT_MEMORY).await;
    let jetstream = jetstream::new(fleet.nats().await);
    for _ in 0..20 {
        let foreign = jetstream.publish("satellite.connected", "{}".into()).await;
        foreign.expect("published").await.expect("stored");
        sleep(Duration::from_millis(20)).await;
    }
    crate::stream::relay_among_others::expect_ours_to_be_the_log(&fleet).await;
}
