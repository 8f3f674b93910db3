//! Time in which no pod could hear satellites counts against none of them, and is itself counted.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::harness::faults::full;
use crate::harness::written::written;
use crate::harness::{Agents, Credentials, Fleet, Onlooker, Pod, Satellite, steady, within};

const BLIND: &str = "groundstation_blind_seconds_total";

/// How many satellites go on beating all the time.
fn many() -> usize {
    if full() { 100 } else { 16 }
}

/// How long a loss may take after blind time: the rest of the outage, a threshold to come back, and a margin for a
/// busy machine.
fn patience(fleet: &Fleet) -> Duration {
    fleet.timing.threshold * 2 + Duration::from_secs(30)
}

async fn blind_spans(fleet: &Fleet) -> i64 {
    let sql = fleet.sql().await;
    sql.query_one("select count(*) from blind_spans", &[]).await.expect("the spans").get(0)
}

async fn expect_lost(fleet: &Fleet, silent: &Credentials) {
    within(patience(fleet), "the silent one to be lost", async || {
        let history = fleet.history(silent.id).await;
        let is_lost = history.last().is_some_and(|last| last.contains("heartbeat_lost"));
        if is_lost { Ok(()) } else { Err(format!("{history:?}")) }
    })
    .await;
}

/// No satellite that went on beating was declared lost or shown offline.
async fn expect_no_false_alarm(fleet: &Fleet, onlooker: Onlooker) {
    assert_eq!(onlooker.saw_offline("beating").await, [""; 0], "said to be offline");
    assert_eq!(fleet.edges("beating", "heartbeat_lost").await, 0);
}

async fn last_transition(pod: &Pod, id: uuid::Uuid) -> Value {
    let page = pod.get(&format!("/v1/satellites/{id}/transitions")).await.json();
    page["transitions"].as_array().expect("a page").last().expect("a transition").clone()
}

/// Seconds between two RFC 3339 times.
fn seconds(from: &Value, to: &Value) -> f64 {
    let parse = |time: &Value| {
        let text = time.as_str().expect("a time");
        text.parse::<groundstation::contract::wire::Timestamp>().expect("a time").moment()
    };
    (parse(to) - parse(from)).as_seconds_f64()
}

/// Agents beat on two pods while Postgres is stopped for this long; meanwhile one other satellite leaves and one
/// falls silent.
async fn postgres_stops_for(outage: Duration) {
    let mut fleet = Fleet::with_own_postgres(steady()).await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await];
    let addresses = pods.each_ref().map(|pod| pod.address);
    let mut beating = fleet.register(&pods[0], "beating", many()).await;
    let other_half = beating.split_off(many() / 2);
    let on_a = Agents::start(&fleet, pods[0].address, beating);
    let on_b = Agents::start(&fleet, pods[1].address, other_half);
    on_a.expect_all().await;
    on_b.expect_all().await;
    let others = fleet.register(&pods[0], "other", 2).await;
    let leaving = Satellite::connect(pods[0].address, &others[0]).await;
    let silent = Satellite::connect(pods[1].address, &others[1]).await;
    silent.beat_every(fleet.timing.heartbeat);
    leaving.beat_every(fleet.timing.heartbeat);
    let onlooker = Onlooker::at(&fleet, &addresses);

    fleet.own_postgres_mut().stop();
    let stopped = Instant::now();
    sleep(outage / 3).await;
    leaving.close().await;
    let left = stopped.elapsed();
    sleep((outage * 9 / 10).saturating_sub(stopped.elapsed())).await;
    // Its socket stays open and sends nothing more.
    silent.fall_silent();
    sleep(outage.saturating_sub(stopped.elapsed())).await;
    fleet.own_postgres_mut().restart().expect("Postgres starts again");
    let back = stopped.elapsed();

    expect_lost(&fleet, &others[1]).await;
    expect_no_false_alarm(&fleet, onlooker).await;
    assert_eq!(on_a.authenticated() + on_b.authenticated(), many() as u64, "sockets stayed up");
    fleet
        .expect_history(others[0].id, &["1 connected connect", "1 disconnected client_close"])
        .await;
    let departure = last_transition(&pods[0], others[0].id).await;
    let waited = seconds(&departure["occurredAt"], &departure["recordedAt"]);
    let expected = (back - left).as_secs_f64();
    assert!(waited > expected - 2.0 && waited < expected + 30.0, "{waited} for {expected}");
    let observed = pods[0].metric(BLIND).await + pods[1].metric(BLIND).await;
    if outage > Duration::from_secs(3) {
        assert!(observed > outage.as_secs_f64() - 2.0, "{observed} of {outage:?}");
        let path = format!("/v1/satellites/{}/stats?field=status&window=1h", others[1].id);
        let stats = pods[1].get(&path).await.json();
        let told = 3_600_000 - stats["unknownMs"].as_i64().expect("ms");
        let known = fleet.sql().await;
        const KNOWN: &str = "
            select (extract(epoch from clock_timestamp() - min(occurred_at)) * 1000)::bigint
              from entity_transitions where entity_id = $1";
        let known: i64 = known.query_one(KNOWN, &[&others[1].id]).await.expect("ms").get(0);
        let hidden = (known - told) as f64 / 1_000.0;
        assert!(hidden > outage.as_secs_f64() - 3.0, "{hidden} s unknown of {outage:?}");
    }
    fleet.check().await;
}

written!(
    #[ignore = "long: `make test-faults` runs it"]
    most_of_a_threshold_without_postgres_is_no_alarm,
    #[ignore = "long: `make test-faults` runs it"]
    pods_that_are_all_killed_and_come_back_late_find_everybody_again,
    #[ignore = "long: `make test-faults` runs it"]
    a_pod_that_sleeps_longer_than_a_threshold_loses_nobody_when_it_wakes,
    #[ignore = "long: `make test-faults` runs it"]
    a_pod_beside_others_that_sleeps_for_two_thirds_of_a_threshold_loses_nobody,
);

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_moment_without_postgres_is_no_alarm() {
    postgres_stops_for(if full() { Duration::from_secs(5) } else { Duration::from_secs(1) }).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn most_of_a_threshold_without_postgres_is_no_alarm() {
    postgres_stops_for(steady().threshold * 2 / 3).await;
}

#[tokio::test]
async fn more_than_a_threshold_without_postgres_is_no_alarm_and_counted_as_unknown() {
    postgres_stops_for(steady().threshold * 8 / 3 / if full() { 1 } else { 2 }).await;
}

#[tokio::test]
async fn many_thresholds_without_postgres_are_no_alarm() {
    if full() {
        postgres_stops_for(Duration::from_secs(300)).await;
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn pods_that_are_all_killed_and_come_back_late_find_everybody_again() {
    let fleet = Fleet::new(steady()).await;
    let (mut a, mut b) = (fleet.pod("a").await, fleet.pod("b").await);
    let addresses = [a.address, b.address];
    let mut beating = fleet.register(&a, "beating", many()).await;
    let other_half = beating.split_off(many() / 2);
    let on_a = Agents::start(&fleet, a.address, beating);
    let on_b = Agents::start(&fleet, b.address, other_half);
    let gone = fleet.register(&a, "gone", 1).await;
    let leaves = fleet.beating(&a, &gone[0]).await;
    on_a.expect_all().await;
    on_b.expect_all().await;
    let onlooker = Onlooker::at(&fleet, &addresses);
    a.kill();
    b.kill();
    leaves.vanish();
    sleep(fleet.timing.threshold + Duration::from_secs(1)).await;
    let restart = |name, address: std::net::SocketAddr| {
        fleet.plan(name).with("GROUNDSTATION_LISTEN", &address.to_string()).start()
    };
    let _pods = tokio::join!(restart("a", addresses[0]), restart("b", addresses[1]));
    on_a.expect_all_within(patience(&fleet)).await;
    on_b.expect_all_within(patience(&fleet)).await;
    // By now every false loss would have been declared: this one is the last in order.
    expect_lost(&fleet, &gone[0]).await;
    expect_no_false_alarm(&fleet, onlooker).await;
    assert_eq!(blind_spans(&fleet).await, 1);
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_sleeps_longer_than_a_threshold_loses_nobody_when_it_wakes() {
    let fleet = Fleet::new(steady()).await;
    let pod = fleet.pod("a").await;
    let beating = fleet.register(&pod, "beating", many()).await;
    let silent = fleet.register(&pod, "silent", 1).await;
    let agents = Agents::start(&fleet, pod.address, beating);
    let _silent = Satellite::connect(pod.address, &silent[0]).await;
    agents.expect_all().await;
    let onlooker = Onlooker::at(&fleet, &[pod.address]);
    pod.suspend();
    sleep(fleet.timing.threshold + Duration::from_secs(2)).await;
    pod.wake();
    expect_lost(&fleet, &silent[0]).await;
    expect_no_false_alarm(&fleet, onlooker).await;
    assert_eq!(agents.authenticated(), many() as u64);
    assert_eq!(blind_spans(&fleet).await, 1);
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_beside_others_that_sleeps_for_two_thirds_of_a_threshold_loses_nobody() {
    let fleet = Fleet::new(steady()).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let beating = fleet.register(&a, "beating", many()).await;
    let agents = Agents::start(&fleet, a.address, beating);
    agents.expect_all().await;
    let onlooker = Onlooker::at(&fleet, &[b.address]);
    for _ in 0..if full() { 3 } else { 2 } {
        // In the field: 30 s, with heartbeats every 15 s and a threshold of 45 s.
        a.suspend();
        sleep(fleet.timing.threshold * 2 / 3).await;
        a.wake();
        a.sweeps(5).await;
        b.sweeps(5).await;
    }
    expect_no_false_alarm(&fleet, onlooker).await;
    assert_eq!(agents.authenticated(), many() as u64);
    assert_eq!(blind_spans(&fleet).await, 0, "the other pod observed all the time");
    fleet.check().await;
}

#[tokio::test]
async fn without_nats_nobody_is_lost_who_goes_on_beating() {
    let mut fleet = Fleet::with_own_nats(steady()).await;
    let pod = fleet.pod("a").await;
    let beating = fleet.register(&pod, "beating", many()).await;
    let silent = fleet.register(&pod, "silent", 1).await;
    let agents = Agents::start(&fleet, pod.address, beating);
    agents.expect_all().await;
    let onlooker = Onlooker::at(&fleet, &[pod.address]);
    fleet.own_nats().kill();
    let _silent = Satellite::connect(pod.address, &silent[0]).await;
    expect_lost(&fleet, &silent[0]).await;
    expect_no_false_alarm(&fleet, onlooker).await;
    fleet.own_nats().restart().expect("nats-server starts again");
    assert_eq!(agents.authenticated(), many() as u64);
    fleet.check().await;
}

#[tokio::test]
async fn blind_spans_are_never_changed() {
    let fleet = Fleet::new(steady()).await;
    let sql = fleet.sql().await;
    sql.batch_execute(
        "insert into blind_spans values (now() - interval '2 hours', now() - interval '1 hour',
                                         now() - interval '2 hours')",
    )
    .await
    .expect("a span");
    for change in
        ["update blind_spans set to_at = now()", "delete from blind_spans", "truncate blind_spans"]
    {
        let error = sql.batch_execute(change).await.expect_err(change);
        assert!(error.as_db_error().expect("refused").message().contains("append-only"), "{error}");
    }
}
