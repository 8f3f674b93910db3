//! Stores are lost and restored from their backups by the steps of docs/operations.md: log, rows and stream agree
//! again, the satellites come back, and no two things share a name.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::{self, AckKind};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::backup::{PostgresBackup, StreamBackup};
use crate::harness::log_and_stream::{differences, read_log, read_stream};
use crate::harness::relaying::{STREAM, come_and_go};
use crate::harness::wait::{PATIENCE, blocking};
use crate::harness::{
    Agents, CALM, Credentials, Fleet, Pod, Proxy, Satellite, eventually, program,
};
use crate::stream::audit::{Ended, audit};

/// A header of every message but those of the first epoch.
const EPOCH: &str = "Groundstation-Epoch";

/// The least distance, in transitions, of two moments that this test tells apart.
const WHILE: i64 = 8;

/// A satellite that comes and goes until told to end.
struct Traffic {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Traffic {
    fn start(address: SocketAddr, credentials: Credentials) -> Traffic {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            while !stopped.is_cancelled() {
                Satellite::connect(address, &credentials).await.close().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Traffic { stop, task }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("the traffic goes on until it is ended");
    }
}

/// Waits until the log has grown. Returns its new length.
async fn grown(fleet: &Fleet) -> i64 {
    let before = fleet.log_length().await;
    eventually("the log to grow", async || match fleet.log_length().await {
        length if length >= before + WHILE => Ok(length),
        length => Err(length.to_string()),
    })
    .await
}

/// The identity of every message: which change has which position in which epoch.
type Told = BTreeMap<(i64, i64), String>;

/// What is on the stream now.
async fn told(nats: &async_nats::Client) -> Told {
    let number = |value: Option<&String>| value.map_or(1, |value| value.parse().expect("a number"));
    let of = |headers: &BTreeMap<String, String>| {
        let position = number(headers.get("Groundstation-Position"));
        ((number(headers.get(EPOCH)), position), headers["Nats-Msg-Id"].clone())
    };
    let messages = read_stream(nats).await;
    let told: Told = messages.iter().map(|message| of(&message.headers)).collect();
    assert_eq!(told.len(), messages.len(), "one message for one position");
    told
}

/// What a consumer receives next: this many, by epoch and position.
async fn received(consumer: &PullConsumer, count: usize) -> Vec<(i64, i64)> {
    let mut messages = consumer.messages().await.expect("messages");
    let mut received = Vec::new();
    while received.len() < count {
        let next = tokio::time::timeout(PATIENCE, messages.next()).await;
        let message = next.expect("a message in time").expect("a message").expect("a message");
        let headers = message.headers.as_ref().expect("headers");
        let number = |name| headers.get(name).map(|value| value.as_str().parse().expect("one"));
        let position: i64 = number("Groundstation-Position").expect("a position");
        received.push((number(EPOCH).unwrap_or(1), position));
        message.ack_with(AckKind::Ack).await.expect("acknowledged");
    }
    received
}

async fn engine(fleet: &Fleet) -> PullConsumer {
    let stream = jetstream::new(fleet.nats().await).get_stream(STREAM).await.expect("the stream");
    let config = pull::Config { durable_name: Some("engine".to_owned()), ..Default::default() };
    stream.get_or_create_consumer("engine", config).await.expect("a durable consumer")
}

/// The last step of a restore: the log is whole, and the rows follow from it.
async fn expect_sound(fleet: &Fleet) {
    let chain = audit(fleet, &["--chain"]).await;
    assert!(chain.is_ok && chain.out.contains("sealed up to position"), "{chain:?}");
    let database = [("DATABASE_URL".to_owned(), fleet.database_url.clone())];
    let checked = blocking(move || program::run(&["rebuild", "--check"], &database)).await;
    assert!(checked.status.success(), "{checked:?}");
}

/// The log holds at least this.
async fn expect_to_begin_with(fleet: &Fleet, earlier: &[String]) {
    let log = log(fleet).await;
    assert!(log.len() >= earlier.len(), "{} of {}", log.len(), earlier.len());
    assert_eq!(log[..earlier.len()], *earlier);
}

async fn log(fleet: &Fleet) -> Vec<String> {
    read_log(&fleet.sql().await).await.iter().map(|row| format!("{row:?}")).collect()
}

/// Like [`Fleet::check`], for a stream that was built in a later epoch.
async fn expect_agreement(fleet: &Fleet, epoch: &str) {
    let (sql, nats) = (fleet.sql().await, fleet.nats().await);
    eventually("the stream to equal the log", async || {
        let mut stream = read_stream(&nats).await;
        for message in &mut stream {
            assert_eq!(message.headers.remove(EPOCH).as_deref(), Some(epoch));
        }
        let found = differences(&read_log(&sql).await, &stream);
        if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
    })
    .await;
}

/// A fleet in use: agents behind a proxy that outlives pods, and one satellite that comes and goes.
struct Used {
    fleet: Fleet,
    pod: Pod,
    door: Proxy,
    agents: Agents,
    flighty: Credentials,
    traffic: Traffic,
}

async fn used() -> Used {
    let fleet = Fleet::with_own_stores(CALM).await;
    let pod = fleet.plan("before").with("GROUNDSTATION_SEAL_INTERVAL", "1s").start().await;
    let door = Proxy::to(pod.address).await;
    let agents = Agents::start(&fleet, door.address, fleet.register(&pod, "agent", 3).await);
    agents.expect_all().await;
    let flighty = pod.register("flighty", "eu").await;
    let traffic = Traffic::start(pod.address, flighty.clone());
    pod.expect_metric("groundstation_relay_published_messages_total", WHILE as f64).await;
    Used { fleet, pod, door, agents, flighty, traffic }
}

/// Starts pods on the restored stores: the agents come back, and edges flow until positions are given out again that
/// were published before.
async fn expect_life(
    fleet: &Fleet,
    door: &Proxy,
    agents: &Agents,
    flighty: &Credentials,
    told: usize,
) -> Pod {
    let before = agents.authenticated();
    let pod = fleet.plan("after").with("GROUNDSTATION_SEAL_INTERVAL", "1s").start().await;
    door.lead_to(pod.address);
    agents.expect_all_within(Duration::from_secs(90)).await;
    assert!(agents.authenticated() >= before + agents.credentials.len() as u64);
    while fleet.log_length().await <= told as i64 + WHILE {
        come_and_go(&pod, flighty).await;
    }
    pod
}

fn expect_repaired(repaired: &Ended, epoch: i64) {
    assert!(repaired.is_ok, "{repaired:?}");
    assert!(repaired.out.contains(&format!("{EPOCH}: {epoch}")), "{repaired:?}");
    assert!(repaired.out.contains("restored to an earlier point"), "{repaired:?}");
}

/// No identity that was published names another change.
fn expect_one_name_each(before: &Told, after: &Told) {
    for (name, change) in after {
        assert_eq!(before.get(name).unwrap_or(change), change, "epoch and position {name:?}");
    }
}

#[tokio::test]
async fn both_stores_come_back_from_backups_that_were_taken_while_edges_went_on() {
    let Used { mut fleet, mut pod, door, agents, flighty, traffic } = used().await;
    let consumer = engine(&fleet).await;
    // First the stream, then the database.
    let stream = StreamBackup::take(&fleet.nats().await).await;
    grown(&fleet).await;
    let mut postgres = PostgresBackup::begin(&fleet.database_url).await;
    let saved = grown(&fleet).await;
    postgres.receives("what came after the base backup").await;
    postgres.end();
    grown(&fleet).await;
    traffic.end().await;
    fleet.check().await;
    let (log_before, told_before) = (log(&fleet).await, told(&fleet.nats().await).await);
    let all = told_before.len();
    assert_eq!(received(&consumer, all).await.len(), all, "everybody was told of everything");

    pod.kill();
    fleet.lose_postgres();
    fleet.lose_nats();
    let (restored, postgres) = blocking(move || (postgres.restore(), postgres)).await;
    fleet.has_postgres(restored);
    drop(postgres);
    fleet.has_new_nats().await;
    stream.restore(&fleet.nats().await).await;

    let log_restored = log(&fleet).await;
    assert!((saved as usize..all).contains(&log_restored.len()), "{}", log_restored.len());
    assert_eq!(log_restored, log_before[..log_restored.len()]);
    assert!(stream.last_sequence() < log_restored.len() as u64, "it is older than the log");
    // Before any pod starts: to pods, stream and log do not contradict each other.
    let repaired = audit(&fleet, &["--wait", "10ms", "--repair", "--new-epoch", "--yes"]).await;
    expect_repaired(&repaired, 2);

    let _pod = expect_life(&fleet, &door, &agents, &flighty, all).await;
    expect_to_begin_with(&fleet, &log_restored).await;
    expect_agreement(&fleet, "2").await;
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok, "{ended:?}");
    let told_after = told(&fleet.nats().await).await;
    assert!(told_after.len() > all, "positions that were told of are given out again");
    expect_one_name_each(&told_before, &told_after);
    // The consumer is the one in the backup, and receives everything again.
    let expected: Vec<(i64, i64)> = (1..=told_after.len() as i64).map(|n| (2, n)).collect();
    assert_eq!(received(&engine(&fleet).await, told_after.len()).await, expected);
    expect_sound(&fleet).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_database_that_was_restored_alone_is_repaired_before_anything_is_told_twice() {
    let Used { mut fleet, mut pod, door, agents, flighty, traffic } = used().await;
    let consumer = engine(&fleet).await;
    let mut postgres = PostgresBackup::begin(&fleet.database_url).await;
    postgres.end();
    grown(&fleet).await;
    traffic.end().await;
    fleet.check().await;
    let (log_before, told_before) = (log(&fleet).await, told(&fleet.nats().await).await);
    let all = told_before.len();
    assert_eq!(received(&consumer, all).await.len(), all);

    pod.kill();
    fleet.lose_postgres();
    let (restored, postgres) = blocking(move || (postgres.restore(), postgres)).await;
    fleet.has_postgres(restored);
    drop(postgres);
    let log_restored = log(&fleet).await;
    assert!(log_restored.len() < all, "{}", log_restored.len());
    assert_eq!(log_restored, log_before[..log_restored.len()]);
    let ended = audit(&fleet, &["--wait", "10ms"]).await;
    assert_eq!(ended.faults().len(), all - log_restored.len(), "{ended:?}");
    assert!(ended.faults().iter().all(|fault| fault.starts_with("extra")), "{ended:?}");
    let repaired = audit(&fleet, &["--wait", "10ms", "--repair", "--new-epoch", "--yes"]).await;
    expect_repaired(&repaired, 2);

    let _pod = expect_life(&fleet, &door, &agents, &flighty, all).await;
    expect_to_begin_with(&fleet, &log_restored).await;
    expect_agreement(&fleet, "2").await;
    let told_after = told(&fleet.nats().await).await;
    expect_one_name_each(&told_before, &told_after);
    let expected: Vec<(i64, i64)> = (1..=told_after.len() as i64).map(|n| (2, n)).collect();
    assert_eq!(received(&consumer, told_after.len()).await, expected);
    expect_sound(&fleet).await;
}
