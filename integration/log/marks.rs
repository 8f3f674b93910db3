//! What a transition belongs to beside its satellite is told wherever the transition is, and sealed with it.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::log_and_stream::{differences, read_log, read_stream};
use crate::harness::{CALM, Fleet, Satellite, eventually};
use crate::stream::audit::audit;

const SEALED: &str = "groundstation_sealed_position";

/// A transition of a satellite of its own, on top of the log.
const APPEND: &str = "
    insert into entity_transitions
           (position, revision, change_id, kind, entity_id, event, reason, session, prev, next, actor_type, actor_id,
            schema_version, occurred_at, recorded_at, outage_id, maintenance_id, goodbye)
    select position + 1, 1, gen_random_uuid(), kind, gen_random_uuid(), event, reason, session, prev, next, actor_type,
           actor_id, schema_version, occurred_at,
           greatest(recorded_at, date_trunc('milliseconds', clock_timestamp())), $1, $2, $3
      from entity_transitions order by position desc limit 1";

#[tokio::test]
async fn marks_are_told_by_the_log_and_by_the_stream_and_are_sealed() {
    let fleet = Fleet::new(CALM).await;
    let mut pod = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "20ms").start().await;
    let credentials = pod.register("edge", "eu").await;
    let _satellite = Satellite::connect(pod.address, &credentials).await;
    let sql = fleet.sql().await;
    let (outage, maintenance) = (Uuid::new_v4(), Uuid::new_v4());
    let goodbye = json!({"reason": "an upgrade", "backWithinMs": 60_000});
    sql.execute(APPEND, &[&Some(outage), &Some(maintenance), &Some(&goodbye)]).await.expect("one");
    sql.execute(APPEND, &[&None::<Uuid>, &Some(maintenance), &None::<Value>]).await.expect("two");
    let short = json!({"reason": ""});
    sql.execute(APPEND, &[&None::<Uuid>, &None::<Uuid>, &Some(&short)]).await.expect("three");
    let fourth = pod.register("other", "eu").await;
    let _fourth = Satellite::connect(pod.address, &fourth).await;

    let told = pod.get("/v1/transitions").await.json();
    let marks = |n: usize| {
        ["outageId", "maintenanceId", "goodbye"].map(|name| &told["transitions"][n][name])
    };
    let none = &Value::Null;
    assert_eq!(marks(0), [none, none, none]);
    assert_eq!(marks(1), [&json!(outage), &json!(maintenance), &goodbye]);
    assert_eq!(marks(2), [none, &json!(maintenance), none]);
    assert_eq!(marks(3), [none, none, &short]);
    assert!(told["transitions"][0].get("goodbye").is_none(), "{told}");

    let nats = fleet.nats().await;
    eventually("the marks on the stream", async || {
        let differences = differences(&read_log(&sql).await, &read_stream(&nats).await);
        if differences.is_empty() { Ok(()) } else { Err(differences.join("\n")) }
    })
    .await;
    assert!(audit(&fleet, &[]).await.is_ok);

    pod.expect_metric(SEALED, 5.0).await;
    pod.kill();
    let tampering = [
        "outage_id = null where position = 2",
        "maintenance_id = gen_random_uuid() where position = 3",
        "goodbye = null where position = 4",
        "goodbye = '{\"reason\": \"a fault\"}' where position = 5",
    ];
    assert!(audit(&fleet, &["--chain"]).await.is_ok);
    for change in tampering {
        let tamper = format!(
            "create table before_it as table entity_transitions;
             alter table entity_transitions disable trigger user;
             update entity_transitions set {change}"
        );
        sql.batch_execute(&tamper).await.expect("tampered");
        assert!(!audit(&fleet, &["--chain"]).await.is_ok, "{change}");
        let undo = "
            delete from entity_transitions;
            insert into entity_transitions table before_it;
            alter table entity_transitions enable trigger user;
            drop table before_it";
        sql.batch_execute(undo).await.expect("undone");
    }
    assert!(audit(&fleet, &["--chain"]).await.is_ok);
}

/// A pod of the version before, during an upgrade, leaves the marks out of what it hashes.
#[tokio::test]
async fn a_program_that_does_not_know_the_marks_seals_no_row_that_has_one() {
    const SEAL: &str = "
        insert into log_seals (first_position, last_position, transitions, previous_hash, hash, sealed_at)
        values ($1, $1, 1, $2, $2, now())";
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "1h").start().await;
    let credentials = pod.register("edge", "eu").await;
    let _satellite = Satellite::connect(pod.address, &credentials).await;
    let sql = fleet.sql().await;
    sql.execute(APPEND, &[&None::<Uuid>, &Some(Uuid::new_v4()), &None::<Value>])
        .await
        .expect("one");
    let hash = |n: u8| vec![n; 32];
    let refused = sql.execute(SEAL, &[&2_i64, &hash(0)]).await.expect_err("a mark");
    let refused = refused.as_db_error().expect("of the database").message().to_owned();
    assert!(refused.contains("covers the marks"), "{refused}");
    sql.execute(SEAL, &[&1_i64, &hash(0)]).await.expect("no mark");
}

#[tokio::test]
async fn the_database_takes_no_goodbye_that_a_program_cannot_read() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let _satellite = Satellite::connect(pod.address, &credentials).await;
    let sql = fleet.sql().await;
    for unreadable in [
        json!("bye"),
        json!({}),
        json!({"reason": 1}),
        json!({"reason": "ä".repeat(201)}),
        json!({"reason": "x", "backWithinMs": 0}),
        json!({"reason": "x", "backWithinMs": -1}),
        json!({"reason": "x", "backWithinMs": 1.5}),
        json!({"reason": "x", "backWithinMs": "1"}),
        json!({"reason": "x", "backWithinMs": null}),
    ] {
        let appended =
            sql.execute(APPEND, &[&None::<Uuid>, &None::<Uuid>, &Some(&unreadable)]).await;
        assert!(appended.is_err(), "{unreadable}");
    }
    let longest = json!({"reason": "ä".repeat(200), "backWithinMs": 1});
    sql.execute(APPEND, &[&None::<Uuid>, &None::<Uuid>, &Some(&longest)]).await.expect("readable");
}
