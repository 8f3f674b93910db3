//! The log takes additions and no changes: the service has no right to change it, and the owner cannot by accident.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::harness::{CALM, Fleet, Satellite};

/// What would change the log.
const CHANGES: [&str; 6] = [
    "update entity_transitions set reason = 'shutdown'",
    "update entity_transitions set reason = 'shutdown' where position = 1",
    "delete from entity_transitions",
    "truncate entity_transitions",
    "truncate entity_transitions cascade",
    "truncate entity_transitions_from_1",
];

async fn refusal(sql: &Client, change: &str) -> SqlState {
    let error = sql.batch_execute(change).await.expect_err(change);
    error.code().expect("the server's own refusal").clone()
}

/// A log with two transitions in it.
async fn with_a_log() -> Fleet {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    let ended = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(credentials.id, &ended).await;
    fleet.check().await;
    fleet
}

#[tokio::test]
async fn the_role_the_service_runs_as_has_no_right_to_change_the_log() {
    let fleet = with_a_log().await;
    let sql = fleet.sql().await;
    sql.batch_execute("set role groundstation_service").await.expect("the role");
    let changes = CHANGES.into_iter().chain([
        "delete from entity_transitions_from_1",
        "update entity_transitions_from_1 set reason = 'shutdown'",
        "drop table entity_transitions",
        "drop table entity_transitions_from_1",
        "alter table entity_transitions disable trigger all",
        "alter table entity_transitions detach partition entity_transitions_from_1",
        "insert into transition_partitions values (1, 2, 'x')",
        "delete from refinery_schema_history",
    ]);
    for change in changes {
        assert_eq!(refusal(&sql, change).await, SqlState::INSUFFICIENT_PRIVILEGE, "{change}");
    }
    assert_eq!(fleet.log_length().await, 2);
    fleet.check().await;
}

#[tokio::test]
async fn even_the_owner_is_refused_by_a_trigger() {
    let fleet = with_a_log().await;
    let sql = fleet.sql().await;
    for change in CHANGES.into_iter().chain(["delete from entity_transitions_from_1"]) {
        assert_eq!(refusal(&sql, change).await, SqlState::RESTRICT_VIOLATION, "{change}");
    }
    assert_eq!(fleet.log_length().await, 2);
    fleet.check().await;
}

#[tokio::test]
async fn a_partition_made_later_refuses_changes_too() {
    let fleet = with_a_log().await;
    let sql = fleet.sql().await;
    const WIDTH: i64 = 1_000_000;
    let made: i32 = sql
        .query_one("select extend_transition_log($1, $2)", &[&WIDTH, &(3 * WIDTH)])
        .await
        .expect("room is made")
        .get(0);
    assert!(made >= 1, "{made}");
    let newest: String = sql
        .query_one(
            "select relation::text from transition_partitions order by first_position desc limit 1",
            &[],
        )
        .await
        .expect("the partitions")
        .get(0);
    assert_eq!(refusal(&sql, &format!("truncate {newest}")).await, SqlState::RESTRICT_VIOLATION);
    sql.batch_execute("set role groundstation_service").await.expect("the role");
    let read = refusal(&sql, &format!("delete from {newest}")).await;
    assert_eq!(read, SqlState::INSUFFICIENT_PRIVILEGE);
}

#[tokio::test]
async fn constraints_refuse_what_the_program_never_writes() {
    let fleet = with_a_log().await;
    let sql = fleet.sql().await;
    // The newest row once more, changed.
    let copy = |change: &str| {
        format!(
            "insert into entity_transitions
             select (jsonb_populate_record(t, '{{\"position\": 3}}'::jsonb || '{change}'::jsonb)).*
               from entity_transitions t where position = 2"
        )
    };
    let cases = [
        (r#"{"position": 2}"#, "positions_are_unique"),
        (r#"{"position": 0}"#, "position_is_positive"),
        (r#"{"revision": 0}"#, "revision_is_positive"),
        (r#"{"session": -1}"#, "session_is_not_negative"),
        (r#"{"event": "rebooted"}"#, "event_is_known"),
        (r#"{"event": "removed"}"#, "only_a_removal_has_no_next"),
        (r#"{"next": null}"#, "only_a_removal_has_no_next"),
    ];
    for (change, constraint) in cases {
        let error = sql.batch_execute(&copy(change)).await.expect_err(change);
        let error = error.as_db_error().expect("the server's own refusal").clone();
        // A position without a partition is refused before its constraint is checked.
        let named = error.constraint().unwrap_or(error.message());
        let expected = named.ends_with(constraint)
            || named == "entity_transitions_from_1_pkey" && constraint == "positions_are_unique"
            || named.contains("no partition") && constraint == "position_is_positive";
        assert!(expected, "{change}: {error:?}");
    }
    assert_eq!(fleet.log_length().await, 2);
}
