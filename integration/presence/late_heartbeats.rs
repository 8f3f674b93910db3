//! A heartbeat counts from when it was heard, however late its pod could write it; one older than the threshold
//! brings no satellite back.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::sleep;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::written::written;
use crate::harness::{BRISK, CALM, Fleet, Pod, Proxy, Satellite, eventually, within};

const RECEIVED: &str = "groundstation_heartbeats_received_total";
const TOO_OLD: &str = "groundstation_unchanged_edges_total{reason=\"heard_too_long_ago\"}";

/// How far a time may be off: a round trip, on a busy machine.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// How long a message or a write is held up: several times that.
const HELD_UP: Duration = Duration::from_secs(5);

async fn database_time(sql: &Client) -> OffsetDateTime {
    sql.query_one("select clock_timestamp()", &[]).await.expect("the time").get(0)
}

async fn last_heartbeat(sql: &Client, satellite: Uuid) -> OffsetDateTime {
    const HEARD: &str =
        "select last_heartbeat_at from satellite_connections where satellite_id = $1";
    sql.query_one(HEARD, &[&satellite]).await.expect("a row").get(0)
}

/// Sends one heartbeat. Returns the moments of the database's clock between which it was heard.
async fn beat(pod: &Pod, satellite: &Satellite, sql: &Client) -> (OffsetDateTime, OffsetDateTime) {
    let received = pod.metric(RECEIVED).await;
    let before = database_time(sql).await;
    satellite.beat();
    pod.expect_metric(RECEIVED, received + 1.0).await;
    (before, database_time(sql).await)
}

/// Waits until a heartbeat newer than `than` is written, and checks that its time is when it was heard.
async fn expect_stamped(
    sql: &Client,
    satellite: Uuid,
    than: OffsetDateTime,
    (from, to): (OffsetDateTime, OffsetDateTime),
) {
    let written = eventually("the heartbeat to be written", async || {
        let at = last_heartbeat(sql, satellite).await;
        if at > than { Ok(at) } else { Err(at.to_string()) }
    })
    .await;
    assert!(written > from - ROUND_TRIP, "too old: {written}, heard after {from}");
    assert!(written < to + ROUND_TRIP, "too young: {written}, heard before {to}");
}

written!(a_heartbeat_older_than_the_threshold_brings_no_dead_satellite_back);

#[tokio::test]
async fn a_heartbeat_older_than_the_threshold_brings_no_dead_satellite_back() {
    let fleet = Fleet::new(BRISK).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let cut_off = fleet.plan("cut-off").with("DATABASE_URL", &database_url).start().await;
    let other = fleet.pod("other").await;
    let credentials = other.register("edge", "eu").await;
    let sql = fleet.sql().await;
    let satellite = fleet.beating(&cut_off, &credentials).await;
    satellite.fall_silent();
    database.stall();
    // Its last sign of life, heard by a pod that cannot reach its database. The socket stays open.
    let (_, heard) = beat(&cut_off, &satellite, &sql).await;
    let lost = ["1 connected connect", "1 heartbeat_lost pod_lost"];
    fleet.expect_history(credentials.id, &lost).await;
    within(fleet.timing.threshold * 2, "the heartbeat to be old", async || {
        let age = database_time(&sql).await - heard;
        if age > fleet.timing.threshold + ROUND_TRIP { Ok(()) } else { Err(age.to_string()) }
    })
    .await;
    database.resume();
    eventually("the late heartbeat to be decided", async || {
        let history = fleet.history(credentials.id).await;
        let decided = history.len() > lost.len() || cut_off.metric(TOO_OLD).await >= 1.0;
        if decided { Ok(()) } else { Err(format!("{history:?}")) }
    })
    .await;
    cut_off.sweeps(3).await;
    assert_eq!(fleet.history(credentials.id).await, lost);
    assert_eq!(other.show(credentials.id).await["status"], "offline");
    // A young one brings it back.
    satellite.beat();
    fleet.expect_history(credentials.id, &[lost[0], lost[1], "1 connected recovered"]).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_flush_that_is_held_up_makes_no_heartbeat_younger() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let credentials = pod.register("edge", "eu").await;
    let sql = fleet.sql().await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    let connected = last_heartbeat(&sql, credentials.id).await;
    database.stall();
    let heard = beat(&pod, &satellite, &sql).await;
    sleep(HELD_UP).await;
    database.resume();
    expect_stamped(&sql, credentials.id, connected, heard).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_is_held_up_says_no_more_than_it_had_written() {
    const KEEP: &str = "
        create table said (seen_at timestamptz, at timestamptz default clock_timestamp());
        create function keep() returns trigger language plpgsql security definer as $$
        begin
            insert into public.said (seen_at) values (new.seen_at);
            return new;
        end
        $$;
        create trigger keep after update of seen_at on pods for each row execute function keep()";
    const FIRST: &str = "select seen_at from said where at > $1 order by at limit 1";
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    // A pod that vouches also asks what is written of its sessions, and what it says after that was held up is new.
    let plan = fleet.plan("a").with("GROUNDSTATION_VOUCH_WINDOW", "0s");
    let _pod = plan.with("DATABASE_URL", &database_url).start().await;
    let sql = fleet.sql().await;
    sql.batch_execute(KEEP).await.expect("a trigger");
    // A pod that has just begun opens more connections; what it says over one that was opened after the stall
    // was not held up.
    eventually("the pod to have said it a few times", async || {
        let said = sql.query_one("select count(*) from said", &[]).await.expect("what was said");
        let times = said.get::<_, i64>(0);
        if times >= 3 { Ok(()) } else { Err(format!("{times} times")) }
    })
    .await;
    // Not an answer: what the pod says after a late answer is new.
    database.stall_requests();
    let stalled = database_time(&sql).await;
    sleep(HELD_UP).await;
    database.resume();
    let held_up = stalled + HELD_UP - ROUND_TRIP;
    let said = eventually("the pod to say something again", async || {
        let said = sql.query_opt(FIRST, &[&held_up]).await.expect("what was said");
        said.map(|row| row.get::<_, OffsetDateTime>(0)).ok_or_else(|| "nothing".to_owned())
    })
    .await;
    assert!(said < stalled + ROUND_TRIP * 2, "it had written up to {stalled} and said {said}");
}

#[tokio::test]
async fn a_heartbeat_that_waited_for_its_row_is_no_younger_for_it() {
    const HOLD: &str = "select from satellite_connections where satellite_id = $1 for update";
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let (sql, holder) = (fleet.sql().await, fleet.sql().await);
    let satellite = Satellite::connect(pod.address, &credentials).await;
    let connected = last_heartbeat(&sql, credentials.id).await;
    holder.batch_execute("begin").await.expect("a transaction");
    holder.query_one(HOLD, &[&credentials.id]).await.expect("a row");
    let heard = beat(&pod, &satellite, &sql).await;
    sleep(Duration::from_secs(3)).await;
    holder.batch_execute("rollback").await.expect("let go");
    expect_stamped(&sql, credentials.id, connected, heard).await;
    fleet.check().await;
}

/// The pod stands still between the answer with the time and its use.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_edge_happened_when_it_did_however_long_its_pod_stood_still_after_that() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("FAILPOINTS", "append::rows_locked=1*return(3000)->off");
    let pod = plan.start().await;
    let credentials = pod.register("edge", "eu").await;
    let sql = fleet.sql().await;
    let from = database_time(&sql).await;
    let mut satellite = Satellite::open(pod.address).await;
    satellite.authenticate(&credentials);
    satellite.expect("authenticated").await;
    let to = database_time(&sql).await;
    assert!(to - from > Duration::from_secs(3), "it did not stand still: {}", to - from);
    let at = last_heartbeat(&sql, credentials.id).await;
    assert!(at > from - ROUND_TRIP && at < from + ROUND_TRIP * 2, "{at}, and it came at {from}");
    fleet.check().await;
}
