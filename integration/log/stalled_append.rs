//! A pod that stands still in the middle of an append, with its locks, holds others up for no longer than the
//! database's time-outs. No reader ever passes a position that appears later.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::faults::{chance, repetitions};
use crate::harness::relaying::come_and_go;
use crate::harness::{CALM, Credentials, Fleet, Pod, Proxy, Satellite, eventually};

/// A wait for a lock takes 4 s at most (longer for the log's, but no transaction holds it that long), and so does a
/// transaction's wait for its pod. The rest is for a busy machine.
const HELD_UP: Duration = Duration::from_secs(4 + 4 + 3);

/// How a pod is made to stand still.
#[derive(Clone, Copy)]
enum Fault {
    Stopped,
    ConnectionStalled,
}

/// Keeps reading with `position > p` while the test runs, as any follower of the log does.
async fn tail(sql: Client, stop: CancellationToken) -> Vec<i64> {
    const AFTER: &str =
        "select position from entity_transitions where position > $1 order by position";
    let mut seen = Vec::new();
    loop {
        let stopping = stop.is_cancelled();
        let last = seen.last().copied().unwrap_or(0);
        let rows = sql.query(AFTER, &[&last]).await.expect("the log can be read");
        if stopping && rows.is_empty() {
            return seen;
        }
        seen.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A satellite that comes and goes until told to stop. Returns how often it did, and the longest time it took.
async fn flow(pod: Pod, stop: CancellationToken) -> (Pod, Uuid, usize, Duration) {
    let credentials = pod.register(&format!("edge-{}", pod.name), "eu").await;
    let (mut lives, mut worst) = (0, Duration::ZERO);
    while !stop.is_cancelled() {
        let begun = Instant::now();
        come_and_go(&pod, &credentials).await;
        worst = worst.max(begun.elapsed());
        lives += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (pod, credentials.id, lives, worst)
}

/// Waits until a transaction waits for the pod that stands still.
async fn expect_standing_still(fleet: &Fleet, pod: &str) {
    const STANDS: &str = "
        select count(*) from pg_stat_activity
         where application_name = $1 and datname = current_database()
           and state = 'idle in transaction' and state_change < clock_timestamp() - interval '150 ms'";
    let sql = fleet.sql().await;
    let name = format!("groundstation {pod}");
    eventually("the pod to stand still in its transaction", async || {
        let row = sql.query_one(STANDS, &[&name]).await.expect("the activity can be read");
        if row.get::<_, i64>(0) == 1 { Ok(()) } else { Err("it does not".to_owned()) }
    })
    .await;
}

/// The other pod lets the satellite in while the first stands still. Returns how long that took.
async fn let_in(pod: &Pod, credentials: &Credentials) -> (Satellite, Duration) {
    let begun = Instant::now();
    let satellite = Satellite::connect(pod.address, credentials).await;
    (satellite, begun.elapsed())
}

async fn one_stands_still(point: &str, fault: Fault) {
    let fleet = Fleet::new(CALM).await;
    let stop = CancellationToken::new();
    let reader = tokio::spawn(tail(fleet.sql().await, stop.clone()));
    let other = fleet.pod("other").await;
    let mut flows = JoinSet::new();
    for name in ["b", "c"] {
        flows.spawn(flow(fleet.pod(name).await, stop.clone()));
    }
    // Long enough to be noticed, and shorter than the server waits.
    let standstill = chance(point).u32(2_500..3_500);
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let stalling = fleet
        .plan("stalling")
        .with("DATABASE_URL", &database_url)
        .with("FAILPOINTS", &format!("{point}=1*return({standstill})->off"))
        .start()
        .await;
    let roaming = stalling.register("roaming", "eu").await;

    let mut waiting = Satellite::open(stalling.address).await;
    waiting.authenticate(&roaming);
    expect_standing_still(&fleet, "stalling").await;
    match fault {
        Fault::Stopped => stalling.suspend(),
        Fault::ConnectionStalled => database.stall(),
    }
    let (mut elsewhere, held_up) = let_in(&other, &roaming).await;
    assert!(held_up > Duration::from_millis(500), "nothing was in the way: {held_up:?}");
    assert!(held_up < HELD_UP, "held up for {held_up:?}");
    match fault {
        Fault::Stopped => stalling.wake(),
        Fault::ConnectionStalled => database.resume(),
    }
    waiting.expect("authenticated").await;
    elsewhere.expect("shutdown").await;
    fleet.expect_history(roaming.id, &["1 connected connect", "2 connected takeover"]).await;

    stop.cancel();
    while let Some(flowed) = flows.join_next().await {
        let (_pod, id, lives, worst) = flowed.expect("the flow");
        assert!(worst < HELD_UP, "held up for {worst:?}");
        let expected: Vec<String> = (1..=lives)
            .flat_map(|n| {
                [format!("{n} connected connect"), format!("{n} disconnected client_close")]
            })
            .collect();
        fleet.expect_history(id, &expected.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    let seen = reader.await.expect("the reader");
    let length = fleet.log_length().await;
    assert!(seen.len() as i64 <= length);
    let dense: Vec<i64> = (1..=seen.len() as i64).collect();
    assert_eq!(seen, dense, "a reader passed a position that appeared later, or there is a gap");
    fleet.check().await;
}

async fn again_and_again(point: &str, fault: Fault) {
    for _ in 0..repetitions(1, 5) {
        one_stands_still(point, fault).await;
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_stopped_with_satellites_locked_holds_nobody_up_for_long() {
    again_and_again("append::rows_locked", Fault::Stopped).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_stopped_with_the_log_locked_holds_nobody_up_for_long() {
    again_and_again("append::log_locked", Fault::Stopped).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_connection_stalled_with_satellites_locked_holds_nobody_up_for_long() {
    again_and_again("append::rows_locked", Fault::ConnectionStalled).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_connection_stalled_with_the_log_locked_holds_nobody_up_for_long() {
    again_and_again("append::log_locked", Fault::ConnectionStalled).await;
}
