//! A program that writes to the log without the pods, and parts of a pod that end by themselves: no edge of ours is
//! lost, and no pod goes on without a part.

use uuid::Uuid;

use crate::harness::{CALM, Fleet, Satellite, eventually};

/// A transition of an unknown satellite, on top of the log.
const APPEND: &str = "
    insert into entity_transitions
           (position, revision, change_id, kind, entity_id, event, reason, session, prev, next,
            actor_type, actor_id, traceparent, schema_version, occurred_at, recorded_at)
    select position + 1, 1, gen_random_uuid(), kind, $1, event, reason, session, prev, next,
           actor_type, actor_id, $2, schema_version, occurred_at,
           greatest(recorded_at, date_trunc('milliseconds', clock_timestamp()))
      from entity_transitions order by position desc limit 1";

#[tokio::test]
async fn who_appends_past_the_logs_lock_costs_no_edge_of_ours() {
    const WAITS: &str = "
        select count(*) from pg_stat_activity
         where datname = current_database() and wait_event = 'transactionid'";
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (first, second) = (pod.register("first", "eu").await, pod.register("second", "eu").await);
    let _first = Satellite::connect(pod.address, &first).await;
    let (mut stranger, sql) = (fleet.sql().await, fleet.sql().await);
    let appending = stranger.transaction().await.expect("a transaction");
    appending.execute(APPEND, &[&Uuid::new_v4(), &None::<&str>]).await.expect("appended");
    let mut waiting = Satellite::open(pod.address).await;
    waiting.authenticate(&second);
    eventually("the pod to want the same position", async || {
        let waiting: i64 = sql.query_one(WAITS, &[]).await.expect("the activity").get(0);
        if waiting > 0 { Ok(()) } else { Err("it does not".to_owned()) }
    })
    .await;
    appending.commit().await.expect("committed");
    waiting.expect("authenticated").await;
    fleet.expect_history(second.id, &["1 connected connect"]).await;
    assert_eq!(fleet.log_length().await, 3);
}

#[tokio::test]
async fn a_traceparent_that_is_none_stops_no_relay() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (first, second) = (pod.register("first", "eu").await, pod.register("second", "eu").await);
    let _first = Satellite::connect(pod.address, &first).await;
    let no_header = "00-x\r\nGroundstation-Position: 1";
    fleet
        .sql()
        .await
        .execute(APPEND, &[&Uuid::new_v4(), &Some(no_header)])
        .await
        .expect("appended");
    let _second = Satellite::connect(pod.address, &second).await;
    pod.expect_metric("groundstation_relay_published_messages_total", 3.0).await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_pod_whose_appender_has_died_ends() {
    let fleet = Fleet::new(CALM).await;
    let mut pod = fleet.plan("a").with("FAILPOINTS", "append::rows_locked=1*panic").start().await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::open(pod.address).await;
    satellite.authenticate(&credentials);
    let status = pod.exit().await;
    assert_ne!(status.code(), Some(0), "{}", pod.log());
    assert!(pod.log().contains("the appender ended by itself"), "{}", pod.log());
}
