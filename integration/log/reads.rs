//! No read delays an edge, and a reader that has gone leaves nothing behind.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::Client;

use crate::harness::raw::Raw;
use crate::harness::wait::PATIENCE;
use crate::harness::{CALM, Fleet, Pod, Proxy, Satellite, eventually, faults, within, written_log};

/// As many readers as once were enough to stop the log.
const READERS: usize = 50;

/// Statements that look at many rows and run at once: half of a pod's connections for reads.
const BOUND: i64 = 3;

const CANCELLED: &str = "groundstation_database_cancellations_total";

/// Pause of a reader that does not wait for answers. In a full run fifty of them come a thousand times a second; that
/// takes a whole machine, which a plain run does not have.
fn impatience() -> Duration {
    Duration::from_millis(if faults::full() { 50 } else { 1_000 })
}

/// How long a reader that got its answer rests before it comes back, for the same reason.
fn rest() -> Duration {
    if faults::full() { Duration::ZERO } else { Duration::from_millis(500) }
}

/// From now on questions about the earlier fleet wait until the database gives up the statement.
async fn slow_past(sql: &Client) {
    const SLOW: &str = "
        create or replace view remembered_transitions with (security_invoker = true) as
        select e.* from pg_sleep(600) as slow, entity_transitions e";
    sql.batch_execute(SLOW).await.expect("a slow view");
}

/// A question about the fleet right after this position.
fn question(fleet: &Fleet, position: i64) -> String {
    let token = &fleet.read_token;
    format!(
        "GET /v1/satellites?position={position} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    )
}

/// Asks, and reads the answer to its end.
async fn ask(address: SocketAddr, question: String) -> String {
    let mut raw = Raw::connect(address).await;
    raw.send(question).await;
    String::from_utf8(raw.ended().await).expect("an answer in text")
}

/// Asks, and goes away before there is an answer. In a plain run it stays until some statement runs, however slow the
/// machine is.
async fn ask_and_go(address: SocketAddr, question: String, mut running: watch::Receiver<i64>) {
    let mut raw = Raw::connect(address).await;
    raw.send(question).await;
    tokio::time::sleep(impatience()).await;
    if !faults::full() {
        tokio::select! {
            _ = raw.ended() => {}
            _ = running.wait_for(|running| *running > 0) => {}
        }
    }
}

/// How many database processes run statements about the past. Counts pods only: the counting statement contains the
/// word itself.
async fn running(sql: &Client) -> i64 {
    const RUNNING: &str = "
        select count(*) from pg_stat_activity
         where datname = current_database() and application_name like 'groundstation %'
           and state = 'active' and query like '%remembered_transitions%'";
    sql.query_one(RUNNING, &[]).await.expect("the activity").get(0)
}

/// Readers that come back until told to stop.
struct Crowd {
    stop: Arc<AtomicBool>,
    readers: JoinSet<()>,
}

impl Crowd {
    fn gather(fleet: &Fleet, watch: &Watch, position: i64, is_patient: bool) -> Crowd {
        let address = watch.address;
        let stop = Arc::new(AtomicBool::new(false));
        let mut readers = JoinSet::new();
        for _ in 0..READERS {
            let (stop, running) = (stop.clone(), watch.running.clone());
            let question = question(fleet, position);
            readers.spawn(async move {
                while !stop.load(Ordering::SeqCst) {
                    if is_patient {
                        ask(address, question.clone()).await;
                        tokio::time::sleep(rest()).await;
                    } else {
                        ask_and_go(address, question.clone(), running.clone()).await;
                    }
                }
            });
        }
        Crowd { stop, readers }
    }

    /// All of them go at once, wherever they are.
    async fn disperse(mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.readers.shutdown().await;
    }
}

/// Pods under observation. On a machine that also runs other tests, two seconds without a turn are normal: a plain
/// run does not count them, nor an unready moment, against the pod.
async fn expect_no_blind_span(fleet: &Fleet) {
    if faults::full() {
        let sql = fleet.sql().await;
        let spans = sql.query_one("select count(*) from blind_spans", &[]).await;
        assert_eq!(spans.expect("the spans").get::<_, i64>(0), 0, "nobody observed for a while");
    }
}

async fn expect_no_statement_of_a_reader(sql: &Client) {
    let patience = if faults::full() { Duration::from_secs(8) } else { PATIENCE };
    within(patience, "no statement of a reader that has gone", async || match running(sql).await {
        0 => Ok(()),
        running => Err(running.to_string()),
    })
    .await;
}

/// An observer that looks at the database all the time, and in a full run at `/readyz`.
struct Watch {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// How many statements about the past ran at each look.
    running: watch::Receiver<i64>,
    looking: JoinHandle<i64>,
}

impl Watch {
    async fn begin(fleet: &Fleet, pod: Arc<Pod>) -> Watch {
        let (sql, stop) = (fleet.sql().await, Arc::new(AtomicBool::new(false)));
        let (address, stopped) = (pod.address, stop.clone());
        let (tell, seen) = watch::channel(0);
        let looking = tokio::spawn(async move {
            let (mut most, mut before) = (0, 0);
            while !stopped.load(Ordering::SeqCst) {
                let running = running(&sql).await;
                // A statement may be answered a moment before its process is told to be idle, and the next one begins:
                // what runs is there at two looks.
                most = most.max(running.min(before));
                before = running;
                tell.send_replace(running);
                if faults::full() {
                    let answer = pod.get("/readyz").await;
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            most
        });
        Watch { address, stop, running: seen, looking }
    }

    /// The most statements about the past that ran at once.
    async fn end(self) -> i64 {
        self.stop.store(true, Ordering::SeqCst);
        self.looking.await.expect("the pod was ready all the time")
    }
}

/// Readers of one kind whose questions never end, with edges meanwhile.
async fn edges_while_reads_hang(is_patient: bool) {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_READ_TIMEOUT", "1m");
    let pod = Arc::new(plan.with("GROUNDSTATION_READ_WAIT", "1m").start().await);
    let first = pod.register("first", "eu").await;
    Satellite::connect(pod.address, &first).await.close().await;
    fleet.expect_log_length(2).await;
    let sql = fleet.sql().await;
    slow_past(&sql).await;
    let edges = fleet.register(&pod, "edge", 5).await;

    let watch = Watch::begin(&fleet, pod.clone()).await;
    let crowd = Crowd::gather(&fleet, &watch, 2, is_patient);
    if is_patient {
        eventually("as many statements as there may be", async || match running(&sql).await {
            BOUND => Ok(()),
            running => Err(running.to_string()),
        })
        .await;
    } else {
        pod.expect_metric(CANCELLED, 1.0).await;
    }
    for edge in &edges {
        let satellite = Satellite::connect(pod.address, edge).await;
        satellite.beat();
        satellite.close().await;
        let left = ["1 connected connect", "1 disconnected client_close"];
        fleet.expect_history(edge.id, &left).await;
    }
    assert_eq!(pod.show(edges[0].id).await["status"], "offline", "a short read has its place");
    let most = watch.end().await;
    assert!(most <= BOUND, "{most} statements at once");
    crowd.disperse().await;
    // Long before any time-out of these statements.
    expect_no_statement_of_a_reader(&sql).await;
    assert!(pod.metric(CANCELLED).await > 0.0);
    expect_no_blind_span(&fleet).await;
    fleet.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_wait_for_answers_that_do_not_come_keep_no_edge_waiting() {
    edges_while_reads_hang(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_hang_up_keep_no_edge_waiting_and_leave_no_statement_running() {
    edges_while_reads_hang(false).await;
}

/// Fifty readers of one kind on a long log, and how late edges are meanwhile.
async fn edges_beside_fifty_readers(is_patient: bool) {
    let fleet = Fleet::new(CALM).await;
    let pod = Arc::new(fleet.pod("a").await);
    let edges = fleet.register(&pod, "edge", 5).await;
    let sql = fleet.sql().await;
    let length = if faults::full() { 150_000 } else { 15_000 };
    written_log::write(&sql, 1, length).await;
    let rounds = faults::repetitions(4, 60);

    let watch = Watch::begin(&fleet, pod.clone()).await;
    let crowd = Crowd::gather(&fleet, &watch, length, is_patient);
    let mut delays = Vec::new();
    for _ in 0..rounds {
        for edge in &edges {
            let began = Instant::now();
            let satellite = Satellite::connect(pod.address, edge).await;
            delays.push(began.elapsed());
            satellite.beat();
            satellite.close().await;
        }
    }
    let most = watch.end().await;
    crowd.disperse().await;
    delays.sort();
    let p99 = delays[delays.len() * 99 / 100];
    println!(
        "{length} transitions, {most} statements at once, edges: p50 {:?}, p99 {p99:?}",
        delays[delays.len() / 2]
    );
    assert!(most <= BOUND, "{most} statements at once");
    assert!(!faults::full() || p99 < Duration::from_secs(1), "{p99:?}");
    expect_no_statement_of_a_reader(&sql).await;
    fleet.expect_log_length(length + 2 * i64::from(rounds) * edges.len() as i64).await;
    expect_no_blind_span(&fleet).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: `make test-faults` runs it"]
async fn edges_are_in_time_beside_fifty_readers_of_the_past_that_wait_for_their_answers() {
    edges_beside_fifty_readers(true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: `make test-faults` runs it"]
async fn edges_are_in_time_beside_fifty_readers_of_the_past_that_hang_up() {
    edges_beside_fifty_readers(false).await;
}

#[tokio::test]
async fn a_read_whose_turn_does_not_come_is_told_to_come_again() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_READ_TIMEOUT", "1m");
    let pod = plan.with("GROUNDSTATION_READ_WAIT", "300ms").start().await;
    let satellite = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &satellite).await.close().await;
    fleet.expect_log_length(2).await;
    let sql = fleet.sql().await;
    slow_past(&sql).await;

    let (question, mut waiting) = (question(&fleet, 2), JoinSet::new());
    for _ in 0..BOUND + 1 {
        waiting.spawn(ask(pod.address, question.clone()));
    }
    let turned_away = waiting.join_next().await.expect("a reader").expect("an answer");
    assert!(turned_away.starts_with("HTTP/1.1 503"), "{turned_away}");
    assert!(turned_away.to_lowercase().contains("retry-after: 1"), "{turned_away}");
    assert!(turned_away.contains("urn:groundstation:problem:busy"), "{turned_away}");
    eventually("the others to have their turn", async || match running(&sql).await {
        BOUND => Ok(()),
        running => Err(running.to_string()),
    })
    .await;
    pod.show(satellite.id).await;
    pod.expect_metric(r#"groundstation_database_connection_failures_total{pool="reads"}"#, 1.0)
        .await;
}

#[tokio::test]
async fn a_connection_whose_answer_did_not_come_is_never_handed_out_again() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let satellite = pod.register("edge", "eu").await;
    let (address, token) = (pod.address, fleet.read_token.clone());
    let question = format!(
        "GET /v1/satellites/{} HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\n\r\n",
        satellite.id
    );
    // As many connections as there may be.
    let mut all = JoinSet::new();
    for _ in 0..READERS {
        all.spawn(ask(address, question.clone()));
    }
    for answer in all.join_all().await {
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    database.swallow();
    // Each of the six is noticed once; other slow reads have their share too.
    let allowed = 6 + 3;
    let mut unanswered = 0;
    loop {
        let answer = ask(address, question.clone());
        match tokio::time::timeout(Duration::from_secs(2), answer).await {
            Ok(answer) if answer.starts_with("HTTP/1.1 200") => break,
            _ => unanswered += 1,
        }
        assert!(unanswered <= allowed, "a connection without answers was handed out again");
    }
    assert!(unanswered > 0, "the connections were not swallowed");
}
