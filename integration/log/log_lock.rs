//! As little as possible happens under the log's lock, an append waits long enough for it, and what an append wrote
//! before it got the lock is rolled back if the append fails.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::harness::faults::repetitions;
use crate::harness::relaying::come_and_go;
use crate::harness::{CALM, Fleet, Satellite, eventually, written_log};

const LOCK: &str =
    "begin; select pg_advisory_xact_lock(hashtextextended('groundstation: entity_transitions', 0))";
const APPEND_FAILURES: &str = "groundstation_append_failures_total";

/// How long other locks are waited for, and how long the log's.
const OTHERS: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(12);

/// What ten edges may take on a busy machine.
const PROMPTLY: Duration = Duration::from_secs(3);

async fn expect_somebody_waits(sql: &Client, words: &str) {
    const WAITING: &str = "
        select count(*) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and query like '%' || $1 || '%'";
    eventually("somebody to wait for a lock", async || {
        let waiting = sql.query_one(WAITING, &[&words]).await.expect("the activity");
        if waiting.get::<_, i64>(0) > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
    })
    .await;
}

async fn rows(sql: &Client) -> i64 {
    let rows = sql.query_one("select count(*) from satellite_connections", &[]).await;
    rows.expect("the projection").get(0)
}

#[tokio::test]
async fn an_append_that_the_log_refuses_leaves_nothing_in_the_projection() {
    let fleet = Fleet::new(CALM).await;
    let (pod, sql) = (fleet.pod("a").await, fleet.sql().await);
    let credentials = pod.register("edge", "eu").await;
    sql.batch_execute(
        "create function refuse() returns trigger language plpgsql as
             $$ begin raise exception 'not now' using errcode = 'object_in_use'; end $$;
         create trigger refused before insert on entity_transitions for each row execute function refuse()",
    )
    .await
    .expect("the owner");
    let mut coming = Satellite::open(pod.address).await;
    coming.authenticate(&credentials);
    pod.expect_metric(APPEND_FAILURES, 2.0).await;
    assert_eq!((rows(&sql).await, fleet.log_length().await), (0, 0));
    sql.batch_execute("drop trigger refused on entity_transitions").await.expect("the owner");
    coming.expect("authenticated").await;
    fleet.expect_history(credentials.id, &["1 connected connect"]).await;
    assert_eq!(rows(&sql).await, 1);
    fleet.check().await;
}

#[tokio::test]
async fn the_logs_lock_is_waited_for_longer_than_others_and_who_gives_up_says_so_and_tries_again() {
    let fleet = Fleet::new(CALM).await;
    let (pod, sql) = (fleet.pod("a").await, fleet.sql().await);
    let credentials = pod.register("edge", "eu").await;
    let holder = fleet.sql().await;
    holder.batch_execute(LOCK).await.expect("the lock");
    let held_since = Instant::now();
    let mut coming = Satellite::open(pod.address).await;
    coming.authenticate(&credentials);
    expect_somebody_waits(&sql, "lock_log").await;
    // By then a wait for any other lock would have given up.
    tokio::time::sleep(OTHERS + Duration::from_secs(2)).await;
    assert_eq!(pod.metric(APPEND_FAILURES).await, 0.0, "it gave up");
    pod.expect_metric(APPEND_FAILURES, 1.0).await;
    assert!(held_since.elapsed() >= PATIENCE, "{:?}", held_since.elapsed());
    let told = pod.expect_log("append failed, trying again").await;
    let cause = told["cause"].as_str().or(told["fields"]["cause"].as_str()).unwrap_or_default();
    assert!(cause.contains("the log's lock"), "{told}");
    assert_eq!(rows(&sql).await, 0);
    holder.batch_execute("rollback").await.expect("held all the time");
    coming.expect("authenticated").await;
    fleet.expect_history(credentials.id, &["1 connected connect"]).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_row_that_somebody_is_about_to_bring_holds_up_no_other_pod() {
    let fleet = Fleet::new(CALM).await;
    let (a, b, sql) = (fleet.pod("a").await, fleet.pod("b").await, fleet.sql().await);
    let (held, other) = (a.register("held", "eu").await, a.register("other", "eu").await);
    let holder = fleet.sql().await;
    holder.batch_execute("begin").await.expect("a transaction");
    let bring = "insert into satellite_connections (satellite_id, session, revision, last_event)
                 values ($1, 1, 1, 'disconnected')";
    holder.execute(bring, &[&held.id]).await.expect("the owner");
    let mut coming = Satellite::open(a.address).await;
    coming.authenticate(&held);
    expect_somebody_waits(&sql, "insert into satellite_connections").await;
    let begun = Instant::now();
    for _ in 0..repetitions(2, 5) {
        come_and_go(&b, &other).await;
    }
    assert!(begun.elapsed() < PROMPTLY, "held up: {:?}", begun.elapsed());
    holder.batch_execute("rollback").await.expect("it was open all the time");
    coming.expect("authenticated").await;
    fleet.expect_history(held.id, &["1 connected connect"]).await;
    fleet.check().await;
}

#[tokio::test]
async fn removals_of_one_batch_are_each_at_its_place_in_the_registrys_history() {
    let fleet = Fleet::new(CALM).await;
    let (pod, sql) = (fleet.pod("a").await, fleet.sql().await);
    let going = fleet.register(&pod, "going", 5).await;
    let staying = fleet.register(&pod, "staying", 5).await;
    let mut sockets = Vec::new();
    for credentials in going.iter().chain(&staying) {
        sockets.push(Satellite::connect(pod.address, credentials).await);
    }
    let holder = fleet.sql().await;
    // One of them waits for the lock, and everything else for that one.
    holder.batch_execute(LOCK).await.expect("the lock");
    let remove = async |n: usize| pod.remove(going[n].id).await.status;
    let removals = async { tokio::join!(remove(0), remove(1), remove(2), remove(3), remove(4)) };
    let let_go = async {
        expect_somebody_waits(&sql, "lock_log").await;
        for socket in sockets {
            socket.vanish();
        }
        holder.batch_execute("rollback").await.expect("held all the time");
    };
    let (statuses, ()) = tokio::join!(removals, let_go);
    assert_eq!(statuses, (204, 204, 204, 204, 204));
    const PLACED: &str = "
        select count(*) from registry_changes r
          join entity_transitions t on t.position = r.position and t.entity_id = r.satellite_id
         where r.action = 'removed' and t.event = 'removed'";
    assert_eq!(sql.query_one(PLACED, &[]).await.expect("the history").get::<_, i64>(0), 5);
    fleet.check().await;
}

#[tokio::test]
async fn an_append_reads_what_is_new_of_a_partition_that_nobody_has_counted() {
    let fleet = Fleet::new(CALM).await;
    let mut sql = fleet.sql().await;
    sql.batch_execute("alter table entity_transitions_from_1 set (autovacuum_enabled = off)")
        .await
        .expect("the owner");
    // Only the trigger reads.
    const APPEND: &str = r#"
        insert into entity_transitions
        values ($1, 1, gen_random_uuid(), 'satellite-connection', gen_random_uuid(), 'connected', 'connect',
                1, null,
                '{"status": "online", "name": "edge", "region": "eu", "lastSeenAt": null, "lastEvent": "connected"}',
                'system', 'system', null, 1, now(), now())"#;
    const READ: &str = "
        select coalesce(sum(seq_tup_read), 0)::bigint from pg_stat_xact_user_tables
         where relname like 'entity_transitions%'";
    sql.batch_execute("set plan_cache_mode = force_generic_plan").await.expect("a setting");
    // Planned while the table is nearly empty, and used when it has grown.
    for (first, last) in [(1_i64, 10), (11, 5_000)] {
        written_log::write(&sql, first, last).await;
        let append = sql.transaction().await.expect("a transaction");
        // The count includes what this session has not reported yet, so also what came before.
        let read =
            async || -> i64 { append.query_one(READ, &[]).await.expect("statistics").get(0) };
        let before = read().await;
        append.execute(APPEND, &[&(last + 1)]).await.expect("an append");
        assert_eq!(read().await - before, 0, "of {last} rows");
        append.rollback().await.expect("a rollback");
    }
}
