//! The current rows follow from the log: a check finds differences, a rebuild mends them, while traffic goes on.

use std::process::Output;
#[cfg(feature = "failpoints")]
use std::time::{Duration, Instant};

#[cfg(feature = "failpoints")]
use crate::harness::eventually;
#[cfg(feature = "failpoints")]
use crate::harness::program::command;
use crate::harness::program::run;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Satellite, written_log};

async fn rebuild(fleet: &Fleet, arguments: &[&'static str]) -> Output {
    let url = fleet.database_url.clone();
    let arguments: Vec<&str> = ["rebuild"].iter().chain(arguments).copied().collect();
    blocking(move || run(&arguments, &[("DATABASE_URL", url.as_str())])).await
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

const ROWS: &str = "
    select coalesce(string_agg(c::text, E'\\n' order by satellite_id), '') from satellite_connections c";

async fn rows(fleet: &Fleet) -> String {
    fleet.sql().await.query_one(ROWS, &[]).await.expect("rows").get(0)
}

#[tokio::test]
async fn rows_that_do_not_follow_from_the_log_are_named_and_mended_and_heartbeats_survive() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut open = Vec::new();
    for n in 0..4 {
        let credentials = pod.register(&format!("edge-{n}"), "eu").await;
        open.push((credentials.id, Satellite::connect(pod.address, &credentials).await));
    }
    let (beating, satellite) = &open[0];
    satellite.beat();
    pod.expect_metric("groundstation_heartbeats_flushed_total", 1.0).await;
    assert!(rebuild(&fleet, &["--check"]).await.status.success());
    let before = rows(&fleet).await;
    let heard = pod.show(*beating).await["lastHeartbeatAt"].clone();

    let sql = fleet.sql().await;
    let damages = [
        "update satellite_connections set last_event = 'disconnected', last_heartbeat_at = null, pod = 0 where satellite_id = $1",
        "update satellite_connections set session = 7 where satellite_id = $1",
        "delete from satellite_connections where satellite_id = $1",
    ];
    for ((id, _), damage) in open[1..].iter().zip(damages) {
        sql.execute(damage, &[id]).await.expect("damage");
    }
    let unfounded =
        "insert into satellite_connections values (gen_random_uuid(), 1, 1, 'disconnected', null)";
    sql.execute(unfounded, &[]).await.expect("damage");

    let checked = rebuild(&fleet, &["--check"]).await;
    assert!(!checked.status.success());
    assert!(said(&checked).contains("4 differed"), "{}", said(&checked));
    for (id, _) in &open[1..] {
        assert!(said(&checked).contains(&id.to_string()), "{}", said(&checked));
    }
    let length = fleet.log_length().await;
    let mended = rebuild(&fleet, &[]).await;
    assert!(mended.status.success(), "{}", said(&mended));
    assert!(said(&mended).contains("4 differed"), "{}", said(&mended));
    assert_eq!(pod.show(*beating).await["lastHeartbeatAt"], heard);
    // A connected row that was missing comes back with the heartbeat of its connect.
    assert_eq!(rows(&fleet).await.lines().count(), before.lines().count());

    let again = rebuild(&fleet, &[]).await;
    assert!(said(&again).contains("0 differed"), "{}", said(&again));
    assert_eq!(fleet.log_length().await, length, "a rebuild appends nothing");
    // It publishes nothing: the stream still equals the log.
    fleet.check().await;
}

#[tokio::test]
async fn an_empty_log_folds_to_no_rows() {
    let fleet = Fleet::new(CALM).await;
    for arguments in [&["--check"][..], &[], &[]] {
        let output = rebuild(&fleet, arguments).await;
        assert!(output.status.success(), "{}", said(&output));
        assert!(
            said(&output).contains("0 rows from 0 transitions; 0 differed"),
            "{}",
            said(&output)
        );
    }
}

#[tokio::test]
async fn a_rebuild_beside_traffic_changes_nothing_and_loses_nothing() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let mut credentials = Vec::new();
    for n in 0..8 {
        credentials.push(a.register(&format!("edge-{n}"), "eu").await);
    }
    let traffic = tokio::spawn(async move {
        for round in 0..12 {
            for satellite in &credentials {
                let pod = if round % 2 == 0 { a.address } else { b.address };
                let open = Satellite::connect(pod, satellite).await;
                open.beat();
                if round % 3 == 0 { open.close().await } else { open.vanish() }
            }
        }
        (a, b)
    });
    let mut rebuilds = 0;
    while !traffic.is_finished() {
        let output = rebuild(&fleet, &[]).await;
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("; 0 differed"), "{}", said(&output));
        rebuilds += 1;
    }
    let _pods = traffic.await.expect("traffic");
    assert!(rebuilds > 0);
    fleet.check().await;
}

/// A rebuild that was stopped right before its commit, with all its locks.
#[cfg(feature = "failpoints")]
struct Stopped(std::process::Child);

#[cfg(feature = "failpoints")]
impl Stopped {
    async fn with_its_locks(fleet: &Fleet) -> Stopped {
        let points = ("FAILPOINTS", "projector::before_commit=sleep(15000)");
        let mut command = command(&[("DATABASE_URL", fleet.database_url.as_str()), points]);
        command.arg("rebuild");
        command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let rebuild = Stopped(command.spawn().expect("the program starts"));
        const HOLDS: &str = "
            select count(*) from pg_locks l join pg_stat_activity a using (pid)
             where a.application_name = 'groundstation rebuild' and a.datname = current_database()
               and a.state = 'idle in transaction' and l.locktype = 'advisory' and l.granted";
        let sql = fleet.sql().await;
        eventually("the rebuild to hold the log's lock", async || {
            let row = sql.query_one(HOLDS, &[]).await.expect("the locks");
            if row.get::<_, i64>(0) > 0 { Ok(()) } else { Err("it does not".to_owned()) }
        })
        .await;
        rebuild.signal("STOP");
        rebuild
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let sent = std::process::Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(sent.expect("kill runs").success());
    }

    async fn goes_on(self) -> Output {
        self.signal("CONT");
        blocking(move || self.0.wait_with_output().expect("it ends")).await
    }
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_rebuild_that_is_stopped_with_its_locks_holds_edges_up_for_seconds_and_can_be_run_again()
{
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let damaged = pod.register("damaged", "eu").await;
    let other = pod.register("other", "eu").await;
    let open = Satellite::connect(pod.address, &damaged).await;
    let damage = "update satellite_connections set session = 9 where satellite_id = $1";
    fleet.sql().await.execute(damage, &[&damaged.id]).await.expect("damage");

    let stopped = Stopped::with_its_locks(&fleet).await;
    let begun = Instant::now();
    Satellite::connect(pod.address, &other).await.close().await;
    fleet.expect_history(other.id, &["1 connected connect", "1 disconnected client_close"]).await;
    let held_up = begun.elapsed();
    // It holds its locks for three seconds; the rest is for a busy machine.
    assert!(held_up < Duration::from_secs(10), "{held_up:?}");
    let gave_up = stopped.goes_on().await;
    assert!(!gave_up.status.success(), "{}", said(&gave_up));
    assert!(said(&gave_up).contains("run `groundstation rebuild` again"), "{}", said(&gave_up));

    let again = rebuild(&fleet, &[]).await;
    assert!(again.status.success() && said(&again).contains("; 1 differed"), "{}", said(&again));
    assert!(rebuild(&fleet, &["--check"]).await.status.success());
    open.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn a_rebuild_with_nothing_to_mend_waits_for_no_lock_and_holds_none() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    fleet
        .expect_history(credentials.id, &["1 connected connect", "1 disconnected client_close"])
        .await;
    // An append waits and makes no progress.
    let sql = fleet.sql().await;
    let lock = "begin; select from satellite_connections for update;
                select pg_advisory_xact_lock(hashtextextended('groundstation: entity_transitions', 0))";
    sql.batch_execute(lock).await.expect("the locks");
    let output = rebuild(&fleet, &[]).await;
    assert!(output.status.success() && said(&output).contains("; 0 differed"), "{}", said(&output));
    sql.batch_execute("rollback").await.expect("released");
}

/// More rows than are replaced under one lock.
#[tokio::test]
async fn a_lost_table_is_made_again_from_the_log() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    written_log::write(&sql, 1, 2_000).await;
    const MANY: &str = "
        begin;
        set local session_replication_role = replica;
        insert into entity_transitions
        select 2000 + n, 1, gen_random_uuid(), kind, gen_random_uuid(), event, reason, 1, null, next,
               actor_type, actor_id, null, 1, t.occurred_at, t.recorded_at
          from generate_series(1, 2500) n, entity_transitions t where t.position = 2000;
        commit";
    sql.batch_execute(MANY).await.expect("many satellites");
    sql.batch_execute("delete from satellite_connections").await.expect("lost");
    let output = rebuild(&fleet, &[]).await;
    assert!(
        output.status.success()
            && said(&output).contains("2510 rows from 4500 transitions; 2510 differed"),
        "{}",
        said(&output)
    );
    let checked = rebuild(&fleet, &["--check"]).await;
    assert!(said(&checked).contains("; 0 differed"), "{}", said(&checked));
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn an_interrupted_rebuild_has_changed_nothing() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    let gone = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(credentials.id, &gone).await;
    let sql = fleet.sql().await;
    sql.execute("update satellite_connections set session = 9", &[]).await.expect("damage");
    let damaged = rows(&fleet).await;

    let url = fleet.database_url.clone();
    let killed = blocking(move || {
        let points = ("FAILPOINTS", "projector::before_commit=return");
        command(&[("DATABASE_URL", url.as_str()), points]).arg("rebuild").output().expect("it runs")
    })
    .await;
    assert_eq!(killed.status.code(), None, "it was to be killed: {}", said(&killed));
    assert_eq!(rows(&fleet).await, damaged);
    assert!(said(&rebuild(&fleet, &[]).await).contains("1 differed"));
    fleet.check().await;
}
