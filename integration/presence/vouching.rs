//! Pods vouch: the heartbeats of satellites without trouble are not written, and every promise about their status
//! holds all the same.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::fleet::Timing;
use crate::harness::{CALM, Credentials, Fleet, Pod, Proxy, Satellite, eventually};

const FLUSHED: &str = "groundstation_heartbeats_flushed_total";
const RECEIVED: &str = "groundstation_heartbeats_received_total";
const VOUCHED: &str = "groundstation_vouched_sessions";
const EXCEPTIONS: &str = "groundstation_vouch_exceptions_total";

/// A window of a second, which is enough on a busy machine, and a threshold of several windows.
const VOUCHING: Timing = Timing {
    heartbeat: Duration::from_millis(600),
    threshold: Duration::from_secs(4),
    sweep: Duration::from_millis(100),
};

/// How often satellites of these tests beat: several times a window.
const BEAT: Duration = Duration::from_millis(100);

async fn database_time(sql: &Client) -> OffsetDateTime {
    sql.query_one("select clock_timestamp()", &[]).await.expect("the time").get(0)
}

/// When the row says that the satellite was heard, and whether its pod vouches for it.
async fn row(sql: &Client, satellite: Uuid) -> (OffsetDateTime, bool) {
    const ROW: &str =
        "select last_heartbeat_at, vouched from satellite_connections where satellite_id = $1";
    let row = sql.query_one(ROW, &[&satellite]).await.expect("a row");
    (row.get(0), row.get(1))
}

/// The moment up to which pod a has written everything it heard.
async fn seen_at(sql: &Client) -> OffsetDateTime {
    const SEEN: &str = "select seen_at from pods where name = 'a'";
    sql.query_one(SEEN, &[]).await.expect("the pod").get(0)
}

async fn expect_vouched(sql: &Client, satellite: Uuid, expected: bool) -> OffsetDateTime {
    eventually("what the row says", async || match row(sql, satellite).await {
        (heard, vouched) if vouched == expected => Ok(heard),
        other => Err(format!("{other:?}")),
    })
    .await
}

fn moment(shown: &Value, field: &str) -> OffsetDateTime {
    let text = shown[field].as_str().unwrap_or_else(|| panic!("no {field} in {shown}"));
    OffsetDateTime::parse(text, &Rfc3339).expect("a time")
}

/// A satellite that beats and is vouched for by its pod.
async fn vouched(fleet: &Fleet, pod: &Pod, sql: &Client, name: &str) -> (Credentials, Satellite) {
    let credentials = pod.register(name, "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    satellite.beat_every(BEAT);
    expect_vouched(sql, credentials.id, true).await;
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    (credentials, satellite)
}

#[tokio::test]
async fn satellites_that_beat_cost_no_row_and_are_online_on_every_pod() {
    let fleet = Fleet::new(CALM).await;
    let (a, b, sql) = (fleet.pod("a").await, fleet.pod("b").await, fleet.sql().await);
    let mut satellites = Vec::new();
    for n in 0..5 {
        satellites.push(vouched(&fleet, &a, &sql, &format!("edge-{n}")).await);
    }
    a.expect_metric(VOUCHED, 5.0).await;
    let exceptions = a.metric(EXCEPTIONS).await;
    let (flushed, received) = (a.metric(FLUSHED).await, a.metric(RECEIVED).await);
    let last = &satellites[4].0;
    let before = expect_vouched(&sql, last.id, true).await;
    a.expect_metric(RECEIVED, received + 200.0).await;
    // On a machine that also runs other tests, a heartbeat may be late by a window: it is then written.
    let missed = a.metric(EXCEPTIONS).await - exceptions;
    let written = a.metric(FLUSHED).await - flushed;
    assert!(written <= 2.0 * missed, "{written} written, {missed} missed");
    if missed == 0.0 {
        assert_eq!(row(&sql, last.id).await, (before, true), "the row is not touched");
    }
    for pod in [&a, &b] {
        let shown = pod.show(last.id).await;
        let now = database_time(&sql).await;
        assert_eq!(shown["status"], "online");
        let behind = now - moment(&shown, "lastSeenAt");
        assert!(
            behind < fleet.timing.window() + Duration::from_secs(3),
            "{behind} behind: {shown}"
        );
        assert!(moment(&shown, "lastSeenAt") <= now, "from the future: {shown}");
        assert!(moment(&shown, "lastSeenAt") > before, "it moves on: {shown}");
    }
    fleet.check().await;
}

#[tokio::test]
async fn a_satellite_that_misses_its_heartbeat_gets_its_exact_time_and_is_lost_by_that() {
    let fleet = Fleet::new(VOUCHING).await;
    let (a, b, sql) = (fleet.pod("a").await, fleet.pod("b").await, fleet.sql().await);
    let (credentials, satellite) = vouched(&fleet, &a, &sql, "edge").await;
    // The last heartbeat is written on its own, so its time is known.
    satellite.beat_every(Duration::from_secs(3_600));
    let received = a.metric(RECEIVED).await;
    let before = database_time(&sql).await;
    satellite.beat();
    a.expect_metric(RECEIVED, received + 1.0).await;
    let after = database_time(&sql).await;
    let heard = expect_vouched(&sql, credentials.id, false).await;
    let round_trip = Duration::from_secs(1);
    assert!(heard > before - round_trip && heard < after + round_trip, "{heard}: {before} {after}");
    assert_eq!(b.show(credentials.id).await["status"], "online", "missing one is no loss");
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(credentials.id, &lost).await;
    let path = format!("/v1/satellites/{}/transitions", credentials.id);
    let transitions = b.get(&path).await.json();
    let loss = &transitions["transitions"][1];
    let (seen, due) = (moment(&loss["next"], "lastSeenAt"), moment(loss, "occurredAt"));
    assert!((seen - heard).abs() < Duration::from_millis(2), "{seen} {heard}");
    assert_eq!(due - seen, fleet.timing.threshold, "{loss}");
    // Heard again it recovers, and is vouched for again.
    satellite.beat_every(BEAT);
    let recovered = [&lost[..], &["1 connected recovered"]].concat();
    fleet.expect_history(credentials.id, &recovered).await;
    expect_vouched(&sql, credentials.id, true).await;
    fleet.check().await;
}

#[tokio::test]
async fn the_satellites_of_a_pod_that_dies_are_lost_a_threshold_after_it_and_not_before() {
    let fleet = Fleet::new(VOUCHING).await;
    let (mut a, b, sql) = (fleet.pod("a").await, fleet.pod("b").await, fleet.sql().await);
    let (credentials, _satellite) = vouched(&fleet, &a, &sql, "edge").await;
    a.kill();
    let died = seen_at(&sql).await;
    let lost = ["1 connected connect", "1 heartbeat_lost pod_lost"];
    fleet.expect_history(credentials.id, &lost).await;
    let path = format!("/v1/satellites/{}/transitions", credentials.id);
    let transitions = b.get(&path).await.json();
    let loss = &transitions["transitions"][1];
    assert_eq!(moment(loss, "occurredAt") - died, fleet.timing.threshold, "{loss}");
    let proven = died - moment(&loss["next"], "lastSeenAt");
    assert!(proven >= Duration::ZERO && proven <= fleet.timing.window(), "{proven}: {loss}");
    assert!(moment(loss, "recordedAt") >= moment(loss, "occurredAt"), "{loss}");
    fleet.check().await;
}

#[tokio::test]
async fn a_threshold_shorter_than_two_windows_is_written_heartbeat_by_heartbeat() {
    let fleet = Fleet::new(CALM).await;
    let (a, b, sql) = (fleet.pod("a").await, fleet.pod("b").await, fleet.sql().await);
    let (credentials, _satellite) = vouched(&fleet, &a, &sql, "edge").await;
    let path = format!("/v1/satellites/{}", credentials.id);
    let set = async |threshold: Value| {
        let body = serde_json::json!({"offlineThresholdMs": threshold});
        assert_eq!(b.patch(&path, &body).await.status, 200);
    };
    set(serde_json::json!(2_500)).await;
    let first = expect_vouched(&sql, credentials.id, false).await;
    eventually("a heartbeat to be written", async || match row(&sql, credentials.id).await {
        (heard, false) if heard > first => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    set(Value::Null).await;
    expect_vouched(&sql, credentials.id, true).await;
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    fleet.check().await;
}

#[tokio::test]
async fn without_a_window_every_heartbeat_is_written_and_a_dead_pods_satellite_is_lost_by_its_own()
{
    let fleet = Fleet::new(VOUCHING).await;
    let mut a = fleet.plan("a").with("GROUNDSTATION_VOUCH_WINDOW", "0").start().await;
    let (b, sql) = (fleet.pod("b").await, fleet.sql().await);
    let credentials = a.register("edge", "eu").await;
    let satellite = Satellite::connect(a.address, &credentials).await;
    let (mut heard, _) = row(&sql, credentials.id).await;
    for _ in 0..3 {
        satellite.beat();
        heard = eventually("it to be written", async || match row(&sql, credentials.id).await {
            (at, false) if at > heard => Ok(at),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
    assert_eq!(a.metric(VOUCHED).await, 0.0);
    a.kill();
    let lost = ["1 connected connect", "1 heartbeat_lost pod_lost"];
    fleet.expect_history(credentials.id, &lost).await;
    let shown = b.show(credentials.id).await;
    assert!((moment(&shown, "lastSeenAt") - heard).abs() < Duration::from_millis(2), "{shown}");
    fleet.check().await;
}

#[tokio::test]
async fn a_satellite_that_is_given_up_while_its_pod_stands_still_recovers_when_that_wakes() {
    let fleet = Fleet::new(VOUCHING).await;
    let (a, _b, sql) = (fleet.pod("a").await, fleet.pod("b").await, fleet.sql().await);
    let (credentials, _satellite) = vouched(&fleet, &a, &sql, "edge").await;
    a.suspend();
    let lost = ["1 connected connect", "1 heartbeat_lost pod_lost"];
    fleet.expect_history(credentials.id, &lost).await;
    a.wake();
    let recovered = [&lost[..], &["1 connected recovered"]].concat();
    fleet.expect_history(credentials.id, &recovered).await;
    expect_vouched(&sql, credentials.id, true).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_session_that_moved_to_another_pod_is_vouched_for_by_that_one_alone() {
    let fleet = Fleet::new(VOUCHING).await;
    let (a, mut b, sql) = (fleet.pod("a").await, fleet.pod("b").await, fleet.sql().await);
    let (credentials, _first) = vouched(&fleet, &a, &sql, "edge").await;
    let second = Satellite::connect(b.address, &credentials).await;
    second.beat_every(BEAT);
    expect_vouched(&sql, credentials.id, true).await;
    let taken_over = ["1 connected connect", "2 connected takeover"];
    fleet.expect_history(credentials.id, &taken_over).await;
    // The pod that had the satellite lives on and goes on reporting; the satellite is lost with the pod that has it
    // now.
    b.kill();
    let lost = [&taken_over[..], &["2 heartbeat_lost pod_lost"]].concat();
    fleet.expect_history(credentials.id, &lost).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_row_that_is_vouched_for_and_whose_session_nobody_holds_is_lost_all_the_same() {
    let fleet = Fleet::new(VOUCHING).await;
    let (a, sql) = (fleet.pod("a").await, fleet.sql().await);
    let (credentials, satellite) = vouched(&fleet, &a, &sql, "edge").await;
    satellite.close().await;
    let closed = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(credentials.id, &closed).await;
    // A session's last heartbeat is written after it ends: wait for that, so that it does not mend the row.
    let left = database_time(&sql).await;
    eventually("what waits to be written", async || {
        let seen = seen_at(&sql).await;
        if seen > left { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
    // As if the pod had lost the session without knowing it.
    const ORPHAN: &str = "
        update satellite_connections
           set last_event = 'connected', last_heartbeat_at = clock_timestamp(), vouched = true
         where satellite_id = $1";
    sql.execute(ORPHAN, &[&credentials.id]).await.expect("an orphan");
    a.expect_log("sessions that this pod does not hold were vouched for").await;
    let lost = [&closed[..], &["1 heartbeat_lost heartbeat_timeout"]].concat();
    fleet.expect_history(credentials.id, &lost).await;
}

#[tokio::test]
async fn what_a_write_without_an_answer_left_behind_is_mended_and_nobody_is_lost() {
    let fleet = Fleet::new(VOUCHING).await;
    let sql = fleet.sql().await;
    let (database, url) = Proxy::before(&fleet.database_url).await;
    let a = fleet.plan("a").with("DATABASE_URL", &url).start().await;
    let b = fleet.pod("b").await;
    let (credentials, satellite) = vouched(&fleet, &a, &sql, "edge").await;
    // The row changes under the pod, as if a write had been rolled back that the pod takes for committed.
    const TAKEN_BACK: &str =
        "update satellite_connections set vouched = false where satellite_id = $1";
    sql.execute(TAKEN_BACK, &[&credentials.id]).await.expect("taken back");
    expect_vouched(&sql, credentials.id, true).await;
    // Also with its connections cut in the middle of their work.
    for _ in 0..5 {
        database.cut();
        let received = a.metric(RECEIVED).await;
        a.expect_metric(RECEIVED, received + 3.0).await;
    }
    expect_vouched(&sql, credentials.id, true).await;
    satellite.beat_every(Duration::from_secs(3_600));
    expect_vouched(&sql, credentials.id, false).await;
    satellite.beat_every(BEAT);
    expect_vouched(&sql, credentials.id, true).await;
    assert_eq!(b.show(credentials.id).await["status"], "online");
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    fleet.check().await;
}

#[tokio::test]
async fn a_satellite_whose_row_somebody_has_locked_gets_its_time_when_that_is_free() {
    let fleet = Fleet::new(VOUCHING).await;
    let (a, sql) = (fleet.pod("a").await, fleet.sql().await);
    let (silent, satellite) = vouched(&fleet, &a, &sql, "silent").await;
    let (other, _beats) = vouched(&fleet, &a, &sql, "other").await;
    let holder = fleet.sql().await;
    let lock = format!(
        "begin; select from satellite_connections where satellite_id = '{}' for update",
        silent.id
    );
    holder.batch_execute(&lock).await.expect("locked");
    satellite.beat_every(Duration::from_secs(3_600));
    a.expect_log("somebody keeps rows of satellites locked").await;
    // No other satellite waits for it.
    assert!(row(&sql, other.id).await.1);
    assert_eq!(a.show(other.id).await["status"], "online");
    holder.batch_execute("rollback").await.expect("let go");
    let at = expect_vouched(&sql, silent.id, false).await;
    let age = database_time(&sql).await - at;
    assert!(age > fleet.timing.window(), "when it was heard, not when it was free: {age}");
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(silent.id, &lost).await;
    assert_eq!(fleet.history(other.id).await, ["1 connected connect"]);
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_that_drains_slowly_vouches_no_more_for_those_that_it_has_closed() {
    let fleet = Fleet::new(VOUCHING).await;
    let slow = fleet.plan("a").with("GROUNDSTATION_DRAIN_SPREAD", "20s");
    let (a, b, sql) = (slow.start().await, fleet.pod("b").await, fleet.sql().await);
    let mut satellites = Vec::new();
    for n in 0..20 {
        satellites.push(vouched(&fleet, &a, &sql, &format!("edge-{n}")).await);
    }
    a.terminate();
    // The first satellite that it closes does not come back, and is lost while the others are still there.
    eventually("the first loss", async || match fleet.edges("edge", "heartbeat_lost").await {
        0 => Err("none".to_owned()),
        _ => Ok(()),
    })
    .await;
    assert!(a.metric("groundstation_sessions").await > 0.0, "the pod still drains");
    for (credentials, _) in &satellites {
        let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
        fleet.expect_history(credentials.id, &lost).await;
    }
    assert_eq!(b.metric("groundstation_sessions").await, 0.0);
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_stood_still_for_less_than_its_window_goes_on_vouching_however_slow_the_database_is()
 {
    const SESSIONS: usize = 60;
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_VOUCH_WINDOW", "20s");
    let (pod, sql) = (plan.start().await, fleet.sql().await);
    let all = fleet.register_many("edge", SESSIONS).await;
    let mut satellites = Vec::with_capacity(SESSIONS);
    for credentials in &all {
        let satellite = Satellite::connect(pod.address, credentials).await;
        satellite.beat();
        satellites.push(satellite);
    }
    for credentials in &all {
        expect_vouched(&sql, credentials.id, true).await;
    }
    // To write all of them takes three seconds now.
    const SLOW: &str = "
        create function slow() returns trigger language plpgsql as
            $$ begin perform pg_sleep(0.05); return new; end $$;
        create trigger slow before update on satellite_connections
            for each row when (new.last_event = 'connected') execute function slow()";
    sql.batch_execute(SLOW).await.expect("a slow database");
    pod.suspend();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    pod.wake();
    let woken = database_time(&sql).await;
    eventually("the pod to observe again, twice", async || match seen_at(&sql).await - woken {
        since if since > time::Duration::milliseconds(500) => Ok(()),
        since => Err(since.to_string()),
    })
    .await;
    eventually("the pod to vouch for all of them", async || {
        let vouched = pod.metric(VOUCHED).await;
        if vouched == SESSIONS as f64 { Ok(()) } else { Err(vouched.to_string()) }
    })
    .await;
    fleet.check().await;
}
