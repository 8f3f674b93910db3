//! No jump of a wall clock decides anything: neither of a pod's nor of the database's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use groundstation::contract::wire::Timestamp;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::time::sleep;

use crate::harness::fleet::Plan;
use crate::harness::program;
use crate::harness::wait::blocking;
use crate::harness::written::written;
use crate::harness::{
    Agents, CALM, Clock, Credentials, Fleet, Onlooker, Pod, Satellite, steady, within,
};

const HOUR: i64 = 3_600;

fn with_clock<'a>(plan: Plan<'a>, clock: &Clock) -> Plan<'a> {
    clock.environment().iter().fold(plan, |plan, (name, value)| plan.with(name, value))
}

/// How far a pod's clock is off, from its first log line about it.
async fn shift_of(pod: &Pod) -> f64 {
    let line = pod.expect_log("listening").await;
    let logged: Timestamp = line["timestamp"].as_str().expect("a time").parse().expect("a time");
    (logged.moment() - OffsetDateTime::now_utc()).as_seconds_f64()
}

#[tokio::test]
async fn pods_whose_clocks_are_five_minutes_off_or_jump_lose_nobody_and_tell_the_right_time() {
    let fleet = Fleet::new(steady()).await;
    let (fast, jumping) = (Clock::new(), Arc::new(Clock::new()));
    fast.shift(300);
    jumping.shift(-300);
    let a = with_clock(fleet.plan("fast"), &fast).start().await;
    let b = with_clock(fleet.plan("jumping"), &jumping).start().await;
    assert!((shift_of(&a).await - 300.0).abs() < 60.0 && (shift_of(&b).await + 300.0).abs() < 60.0);
    let mut beating = fleet.register(&a, "beating", 12).await;
    let half = beating.split_off(6);
    let (on_a, on_b) =
        (Agents::start(&fleet, a.address, beating), Agents::start(&fleet, b.address, half));
    on_a.expect_all().await;
    on_b.expect_all().await;
    let silent = fleet.register(&a, "silent", 2).await;
    let _on_a = Satellite::connect(a.address, &silent[0]).await;
    let _on_b = Satellite::connect(b.address, &silent[1]).await;
    let connected = OffsetDateTime::now_utc();
    let onlooker = Onlooker::at(&fleet, &[a.address, b.address]);

    let jumper = jumping.clone();
    let jumps = tokio::spawn(async move {
        for seconds in [300, -300, 0, 86_400].into_iter().cycle() {
            jumper.shift(seconds);
            sleep(Duration::from_millis(700)).await;
        }
    });
    for satellite in &silent {
        let patience = fleet.timing.threshold * 2 + Duration::from_secs(30);
        within(patience, "the silent ones to be lost", async || {
            let history = fleet.history(satellite.id).await;
            if history.len() == 2 { Ok(()) } else { Err(format!("{history:?}")) }
        })
        .await;
        let page = b.get(&format!("/v1/satellites/{}/transitions", satellite.id)).await.json();
        let lost = &page["transitions"][1];
        assert_eq!(lost["event"], "heartbeat_lost");
        let at: Timestamp = lost["occurredAt"].as_str().expect("a time").parse().expect("a time");
        let off = (at.moment() - connected - fleet.timing.threshold).as_seconds_f64();
        assert!(off.abs() < 10.0, "{off} s off: {lost}");
    }
    jumps.abort();
    assert_eq!(onlooker.saw_offline("beating").await, [""; 0]);
    assert_eq!(fleet.edges("beating", "heartbeat_lost").await, 0);
    assert_eq!(on_a.authenticated() + on_b.authenticated(), 12);
    fleet.check().await;
}

/// Two pods whose database has a clock of the test's. The first pod relays and holds a satellite that ends with it;
/// the second holds agents that beat, and a satellite that is silent from now on.
struct Stage {
    fleet: Fleet,
    clock: Clock,
    pods: [Pod; 2],
    agents: Agents,
    leaving: (Credentials, Satellite),
    silent: (Credentials, Satellite),
    onlooker: Onlooker,
}

const BEATING: usize = 8;

impl Stage {
    async fn set() -> Stage {
        let (fleet, clock) = Fleet::with_clock(steady()).await;
        let a = fleet.pod("a").await;
        a.expect_metric("groundstation_relay_leader", 1.0).await;
        let b = fleet.pod("b").await;
        let beating = fleet.register(&a, "beating", BEATING).await;
        let agents = Agents::start(&fleet, b.address, beating);
        agents.expect_all().await;
        let mut others = fleet.register(&a, "other", 2).await;
        let (silent, leaving) = (others.pop().expect("two"), others.pop().expect("two"));
        let on_first = fleet.beating(&a, &leaving).await;
        let on_second = fleet.beating(&b, &silent).await;
        on_second.fall_silent();
        let onlooker = Onlooker::at(&fleet, &[b.address]);
        let (leaving, silent) = ((leaving, on_first), (silent, on_second));
        Stage { fleet, clock, pods: [a, b], agents, leaving, silent, onlooker }
    }

    /// Sets the database's clock, and waits until the second pod has worked with it for a while.
    async fn step(&self, seconds: i64) {
        self.clock.shift(seconds);
        self.pods[1].sweeps(10).await;
    }

    /// How long a loss may take: the threshold that every satellite gets after a step, the rest of the one before,
    /// and a margin for a busy machine.
    fn patience(&self) -> Duration {
        self.fleet.timing.threshold * 2 + Duration::from_secs(30)
    }

    /// The silent satellite is lost, and so is the one whose pod died; both read offline.
    async fn expect_losses(&self) {
        let lost = [
            (&self.leaving.0, "1 heartbeat_lost pod_lost"),
            (&self.silent.0, "1 heartbeat_lost heartbeat_timeout"),
        ];
        for (satellite, loss) in lost {
            within(self.patience(), loss, async || {
                let history = self.fleet.history(satellite.id).await;
                let expected = ["1 connected connect", loss];
                if history == expected { Ok(()) } else { Err(format!("{history:?}")) }
            })
            .await;
            assert_eq!(self.pods[1].show(satellite.id).await["status"], "offline");
        }
    }

    /// An edge that happens now is on NATS within seconds, whichever pod held the lease.
    async fn expect_edges(&self) {
        let mut subscriber = self.fleet.subscribe().await;
        let late = self.pods[1].register("late", "eu").await;
        let _late = Satellite::connect(self.pods[1].address, &late).await;
        subscriber.expect("satellite.connected", late.id).await;
    }

    /// No satellite that went on beating was declared lost or shown offline.
    async fn expect_no_false_alarm(self) {
        assert_eq!(self.onlooker.saw_offline("beating").await, [""; 0], "said to be offline");
        assert_eq!(self.fleet.edges("beating", "heartbeat_lost").await, 0);
        assert_eq!(self.agents.authenticated(), BEATING as u64, "sockets stayed up");
        self.fleet.check().await;
    }
}

written!(
    #[ignore = "long: `make test-faults` runs it"]
    a_database_that_was_an_hour_ahead_for_seconds_loses_whom_it_should_and_relays_at_once,
    #[ignore = "long: `make test-faults` runs it"]
    pods_that_died_while_the_clock_was_ahead_find_everybody_again,
);

#[tokio::test]
async fn a_database_that_was_an_hour_ahead_for_seconds_loses_whom_it_should_and_relays_at_once() {
    let mut stage = Stage::set().await;
    stage.step(HOUR).await;
    // The times of their first heartbeats are still in the future.
    let ahead = stage.fleet.register(&stage.pods[1], "ahead", 2).await;
    let _silent = Satellite::connect(stage.pods[1].address, &ahead[0]).await;
    let goes_on = Satellite::connect(stage.pods[1].address, &ahead[1]).await;
    goes_on.beat_every(stage.fleet.timing.heartbeat);
    stage.pods[0].kill();
    sleep(Duration::from_secs(3)).await;
    stage.step(0).await;
    stage.expect_edges().await;
    stage.expect_losses().await;
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    stage.fleet.expect_history(ahead[0].id, &lost).await;
    assert_eq!(stage.fleet.history(ahead[1].id).await, ["1 connected connect"]);
    let shown = stage.pods[1].show(ahead[1].id).await;
    let heard: Timestamp = shown["lastSeenAt"].as_str().expect("a time").parse().expect("a time");
    assert_eq!(shown["status"], "online");
    assert!(heard.moment() < OffsetDateTime::now_utc() + Duration::from_secs(60), "{shown}");
    // Its first heartbeat is in the log, and later than any after it.
    let database = [("DATABASE_URL".to_owned(), stage.fleet.database_url.clone())];
    let checked = blocking(move || program::run(&["rebuild", "--check"], &database)).await;
    assert!(checked.status.success(), "{checked:?}");
    stage.expect_no_false_alarm().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_database_whose_clock_is_set_back_an_hour_loses_whom_it_should_and_relays_at_once() {
    let mut stage = Stage::set().await;
    stage.pods[0].kill();
    stage.step(-HOUR).await;
    stage.expect_edges().await;
    stage.expect_losses().await;
    stage.expect_no_false_alarm().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_database_whose_clock_jumps_to_and_fro_loses_only_whom_it_should() {
    let mut stage = Stage::set().await;
    for (n, seconds) in [HOUR, -HOUR, 0, 86_400, -5, 5, 0].into_iter().enumerate() {
        stage.clock.shift(seconds);
        sleep(Duration::from_millis(700)).await;
        if n == 3 {
            stage.pods[0].kill();
        }
    }
    stage.step(0).await;
    stage.expect_edges().await;
    stage.expect_losses().await;
    stage.expect_no_false_alarm().await;
}

/// Postgres stops for some seconds while its clock is ahead; `back` says whether the clock is set back
/// before Postgres is there again.
async fn outage_within_a_step(back: bool) {
    let mut stage = Stage::set().await;
    stage.step(HOUR).await;
    stage.fleet.own_postgres_mut().stop();
    let stopped = Instant::now();
    sleep(Duration::from_secs(5)).await;
    if back {
        stage.clock.shift(0);
    }
    stage.fleet.own_postgres_mut().restart().expect("Postgres starts again");
    let outage = stopped.elapsed().as_secs_f64();
    stage.step(if back { 0 } else { HOUR }).await;
    stage.step(0).await;

    // The blind time of the beating satellites is the outage: not less, and not the whole hour.
    const KNOWN: &str = "
        select extract(epoch from clock_timestamp() - min(occurred_at))::float8
          from entity_transitions where entity_id = $1";
    let sql = stage.fleet.sql().await;
    let id = stage.agents.credentials[0].id;
    let path = format!("/v1/satellites/{id}/stats?field=status&window=1h");
    let stats: Value = stage.pods[1].get(&path).await.json();
    let known: f64 = sql.query_one(KNOWN, &[&id]).await.expect("its first edge").get(0);
    let told = |field: &str| stats[field].as_i64().expect("ms") as f64 / 1_000.0;
    let hidden = known - (told("upMs") + told("downMs"));
    assert!(hidden > outage - 1.5, "{hidden} s unknown of {outage}: {stats}");
    assert!(hidden < outage + 8.0, "{hidden} s unknown of {outage}: {stats}");
    let seconds: Vec<f64> = sql
        .query("select extract(epoch from to_at - from_at)::float8 from blind_spans", &[])
        .await
        .expect("the spans")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let is_told = seconds.iter().any(|s| *s > outage - 1.5 && *s < outage + 8.0);
    assert!(is_told, "{outage} s: {seconds:?}");
    assert_eq!(stage.fleet.edges("beating", "heartbeat_lost").await, 0);
    stage.pods[0].kill();
    stage.expect_losses().await;
    stage.expect_no_false_alarm().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn an_outage_that_ends_with_a_step_of_the_clock_is_a_blind_span() {
    outage_within_a_step(true).await;
}

#[tokio::test]
async fn an_outage_within_a_step_of_the_clock_is_a_blind_span() {
    outage_within_a_step(false).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn pods_that_died_while_the_clock_was_ahead_find_everybody_again() {
    let mut stage = Stage::set().await;
    stage.step(HOUR).await;
    let address = stage.pods[1].address;
    stage.pods[0].kill();
    stage.pods[1].kill();
    sleep(stage.fleet.timing.threshold).await;
    stage.clock.shift(0);
    let again = stage.fleet.plan("b").with("GROUNDSTATION_LISTEN", &address.to_string());
    stage.pods[1] = again.start().await;
    stage.agents.expect_all_within(stage.patience()).await;
    stage.expect_edges().await;
    for satellite in [&stage.leaving.0, &stage.silent.0] {
        let lost = ["1 connected connect", "1 heartbeat_lost pod_lost"];
        within(stage.patience(), "the losses", async || {
            let history = stage.fleet.history(satellite.id).await;
            if history == lost { Ok(()) } else { Err(format!("{history:?}")) }
        })
        .await;
    }
    assert_eq!(stage.onlooker.saw_offline("beating").await, [""; 0], "said to be offline");
    assert_eq!(stage.fleet.edges("beating", "heartbeat_lost").await, 0);
    stage.fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_key_of_a_registration_outlives_days_that_did_not_pass() {
    let (fleet, clock) = Fleet::with_clock(CALM).await;
    let pod = fleet.pod("a").await;
    let register = async || {
        let headers = [("Idempotency-Key", "one")];
        let body = r#"{"name": "edge", "region": "eu"}"#.to_owned();
        let answer = pod.call_with("POST", "/v1/satellites", &headers, Some(body)).await;
        answer.headers["location"].clone()
    };
    let first = register().await;
    for seconds in [2 * 24 * HOUR, 0, -2 * 24 * HOUR, 0] {
        clock.shift(seconds);
        assert_eq!(register().await, first, "at once, {seconds} s off");
        pod.sweeps(10).await;
        assert_eq!(register().await, first, "{seconds} s off");
    }
}
