//! A cluster that loses one nats-server after the other while edges flow: the feed goes on on the other two, and is
//! never later than it promises while they have a leader. How long they take to elect one is theirs: 2.10 may need
//! more than one election.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::jetstream;
use futures_util::StreamExt;
use tokio::time::{Instant, sleep_until, timeout};

use crate::harness::cluster::{Cluster, LONG, Version};
use crate::harness::log_and_stream::{from_the_beginning, read_log};
use crate::harness::relaying::{STREAM, relay_state};
use crate::harness::traffic::Traffic;
use crate::harness::wait::within;
use crate::harness::{CALM, Fleet};

/// How late a transition may be on the stream while two servers are there and have a leader.
const LATEST: Duration = Duration::from_secs(15);

/// So many satellites come and go, each once in this time: fifty edges a second.
const SATELLITES: usize = 25;
const EVERY: Duration = Duration::from_secs(1);

/// How long a server is away.
const AWAY: Duration = Duration::from_secs(20);

/// How long a server that was away may take to catch up before it is started once more.
const A_WHILE: Duration = Duration::from_secs(60);

/// Waits until all that is in the log now is on the stream of so many servers.
async fn expect_on(servers: usize, cluster: &Cluster, fleet: &Fleet) {
    let head = fleet.log_length().await as u64;
    within(LONG, &format!("{head} transitions on {servers} servers"), async || {
        let last = cluster.last_sequences().await;
        let there = last.iter().flatten().filter(|last| **last >= head).count();
        if there >= servers { Ok(()) } else { Err(format!("{last:?}")) }
    })
    .await;
}

/// A time in which the stream had no leader that stored messages.
struct Leaderless {
    since: SystemTime,
    until: SystemTime,
}

/// Lets the fault last, and sees that the feed is not held up by it. Tells how long there was no leader.
async fn goes_on_without_one(lost: usize, cluster: &Cluster, fleet: &Fleet) -> Leaderless {
    let (since, begun) = (SystemTime::now(), Instant::now());
    cluster.expect_leader_but(Some(lost)).await;
    println!("the others follow a leader after {:?}", begun.elapsed());
    let until = SystemTime::now();
    sleep_until(begun + AWAY).await;
    expect_on(2, cluster, fleet).await;
    Leaderless { since, until }
}

/// Waits until the server that was away has what the others have.
async fn is_back(mut cluster: Cluster, n: usize, fleet: &Fleet) -> Cluster {
    // On a busy machine a returning server may not find its way to the others again.
    if timeout(A_WHILE, expect_on(3, &cluster, fleet)).await.is_err() {
        cluster = cluster.crash(n).await;
        expect_on(3, &cluster, fleet).await;
    }
    cluster
}

/// The latest transition: how late it was, with its position. Time without a leader does not count.
async fn latest(fleet: &Fleet, leaderless: &[Leaderless]) -> (Duration, i64) {
    let jetstream = jetstream::new(fleet.nats().await);
    let stream = jetstream.get_stream(STREAM).await.expect("the stream");
    let count = stream.cached_info().state.messages as usize;
    let messages = from_the_beginning(&stream).await.take(count);
    let stored: HashMap<i64, SystemTime> = messages
        .map(|message| {
            let message = message.expect("a message");
            let headers = message.headers.as_ref().expect("headers");
            let position = headers.get("Groundstation-Position").expect("a position");
            let published = message.info().expect("what the server says of it").published;
            (position.as_str().parse().expect("a number"), SystemTime::from(published))
        })
        .collect()
        .await;
    let late = read_log(&fleet.sql().await).await.into_iter().map(|row| {
        let stored = stored[&row.position];
        let recorded = UNIX_EPOCH + Duration::from_micros(row.recorded_at as u64);
        let begun = |gone: &&Leaderless| gone.since <= stored && recorded <= gone.until;
        let had_one = leaderless.iter().filter(begun).map(|gone| gone.until).max();
        let since = had_one.map_or(recorded, |until| recorded.max(until));
        (stored.duration_since(since).unwrap_or_default(), row.position)
    });
    late.max().expect("transitions")
}

async fn the_feed_goes_on(version: Version) {
    let mut cluster = Cluster::start(version).await;
    let fleet = cluster.fleet(CALM).await;
    let pod = fleet.pod("a").await;
    within(LONG, "the relay to lead", async || {
        let state = relay_state(&pod).await;
        if state["state"] == "leading" { Ok(()) } else { Err(state.to_string()) }
    })
    .await;
    let nats = fleet.nats().await;
    let traffic = Traffic::begin(&fleet, &pod, SATELLITES, EVERY).await;
    let mut leaderless = Vec::new();

    let leader = cluster.leader(&nats).await;
    println!("n{leader} leads and is killed");
    cluster = cluster.kill(leader).await;
    leaderless.push(goes_on_without_one(leader, &cluster, &fleet).await);
    cluster = cluster.start_again(leader).await;
    cluster = is_back(cluster, leader, &fleet).await;

    let leader = cluster.leader(&nats).await;
    println!("n{leader} leads and is suspended");
    cluster.suspend(leader);
    leaderless.push(goes_on_without_one(leader, &cluster, &fleet).await);
    cluster.wake(leader);
    cluster = is_back(cluster, leader, &fleet).await;

    let leader = cluster.leader(&nats).await;
    println!("n{leader} leads and is cut off from the others");
    cluster.cut_off(leader);
    leaderless.push(goes_on_without_one(leader, &cluster, &fleet).await);
    cluster.join(leader);
    cluster = is_back(cluster, leader, &fleet).await;

    let pods = cluster.server_of("groundstation").await;
    println!("the pod is connected to n{pods}, which is cut off from the others");
    cluster.cut_off(pods);
    leaderless.push(goes_on_without_one(pods, &cluster, &fleet).await);
    cluster.join(pods);
    cluster = is_back(cluster, pods, &fleet).await;

    let leader = cluster.leader(&nats).await;
    println!("n{leader} leads, is killed, and loses all it has stored");
    cluster = cluster.wipe(leader).await;
    leaderless.push(goes_on_without_one(leader, &cluster, &fleet).await);
    cluster = is_back(cluster, leader, &fleet).await;

    println!("all are killed and started again");
    let since = SystemTime::now();
    cluster = cluster.crash_all().await;
    cluster.expect_leader_but(None).await;
    leaderless.push(Leaderless { since, until: SystemTime::now() });
    expect_on(2, &cluster, &fleet).await;
    traffic.end().await;
    expect_on(3, &cluster, &fleet).await;

    fleet.check().await;
    let (late, position) = latest(&fleet, &leaderless).await;
    println!("{version:?}: position {position} was {late:?} late, the latest of all");
    assert!(late < LATEST, "position {position} was {late:?} late");
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_feed_goes_on_while_one_server_after_the_other_is_lost_on_2_10() {
    the_feed_goes_on(Version::V2_10).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_feed_goes_on_while_one_server_after_the_other_is_lost_on_2_11() {
    the_feed_goes_on(Version::V2_11).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_feed_goes_on_while_one_server_after_the_other_is_lost_on_2_12() {
    the_feed_goes_on(Version::V2_12).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_feed_goes_on_while_one_server_after_the_other_is_lost_on_the_newest() {
    the_feed_goes_on(Version::Newest).await;
}
