//! A change of the log behind the service's back leaves a broken chain of seals.

use crate::harness::{CALM, Fleet, eventually, written_log};
use crate::stream::audit::{Ended, audit, connect_times};

const SEALED: &str = "groundstation_sealed_position";

async fn check(fleet: &Fleet) -> Ended {
    audit(fleet, &["--chain"]).await
}

/// The breaks found after the owner has done this with the triggers disabled; it is undone afterwards.
async fn found_after(fleet: &Fleet, tampering: &str) -> Vec<String> {
    let sql = fleet.sql().await;
    let backup = "
        create table log_backup as table entity_transitions;
        create table seals_backup as table log_seals;";
    sql.batch_execute(backup).await.expect("a backup");
    let as_owner = |what: &str| {
        format!(
            "begin;
             alter table entity_transitions disable trigger user;
             alter table log_seals disable trigger user;
             {what};
             alter table entity_transitions enable trigger user;
             alter table log_seals enable trigger user;
             commit;"
        )
    };
    sql.batch_execute(&as_owner(tampering)).await.expect("tampered");
    let ended = check(fleet).await;
    let undo = "
        delete from entity_transitions; insert into entity_transitions table log_backup;
        delete from log_seals; insert into log_seals table seals_backup;
        drop table log_backup, seals_backup";
    sql.batch_execute(&as_owner(undo)).await.expect("undone");
    let words = ["dropped  ", "changed  ", "seal  ", "unsealed  "];
    let lines = ended.out.lines().filter(|line| words.iter().any(|word| line.starts_with(word)));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert_eq!(ended.is_ok, lines.is_empty(), "{ended:?}");
    lines
}

async fn seals(fleet: &Fleet) -> Vec<(i64, i64)> {
    const SEALS: &str = "select first_position, last_position from log_seals order by 1";
    let rows = fleet.sql().await.query(SEALS, &[]).await.expect("the seals");
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Three transitions under a seal each; no pod seals any more.
async fn three_seals(fleet: &Fleet) {
    let mut pod = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "20ms").start().await;
    let credentials = pod.register("edge", "eu").await;
    for n in 1..=3 {
        connect_times(&pod, &credentials, 1).await;
        pod.expect_metric(SEALED, f64::from(n)).await;
    }
    pod.kill();
}

#[tokio::test]
async fn a_row_changed_dropped_or_swapped_and_a_seal_edited_are_each_found() {
    let fleet = Fleet::new(CALM).await;
    written_log::write(&fleet.sql().await, 1, 2_500).await;
    let mut pod = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "20ms").start().await;
    pod.expect_metric(SEALED, 2_500.0).await;
    pod.kill();
    assert_eq!(seals(&fleet).await, [(1, 1_000), (1_001, 2_000), (2_001, 2_500)]);
    let changed = |first: i64, last: i64| {
        format!(
            "changed    positions {first} to {last}: not what was sealed (a row changed, or two were swapped)"
        )
    };
    let changed = |first, last| changed(first, last).replace("a row changed", "a row was changed");
    let none: [&str; 0] = [];
    assert_eq!(found_after(&fleet, "select 1").await, none);

    // Every column counts.
    let columns = [
        "revision = revision + 1",
        "change_id = gen_random_uuid()",
        "kind = 'other'",
        "entity_id = gen_random_uuid()",
        "event = 'heartbeat_lost'",
        "reason = 'takeover'",
        "session = 2",
        "prev = case when prev is null then next end",
        "next = next || '{\"name\": \"other\"}'",
        "actor_type = 'token'",
        "actor_id = 'admin'",
        "traceparent = ''",
        "schema_version = 2",
        "outage_id = gen_random_uuid()",
        "maintenance_id = gen_random_uuid()",
        "goodbye = '{\"reason\": \"x\"}'",
        "occurred_at = occurred_at + interval '1 microsecond'",
        "recorded_at = recorded_at - interval '1 microsecond'",
    ];
    for column in columns {
        let change = format!("update entity_transitions set {column} where position = 1500");
        assert_eq!(found_after(&fleet, &change).await, [changed(1_001, 2_000)], "{column}");
    }
    let drop = "delete from entity_transitions where position = 1500";
    assert_eq!(
        found_after(&fleet, drop).await,
        ["dropped    positions 1500 to 1500: sealed, and no longer in the log"]
    );
    let behead = "delete from entity_transitions where position > 2400";
    assert_eq!(
        found_after(&fleet, behead).await,
        ["dropped    positions 2401 to 2500: sealed, and no longer in the log"]
    );
    let swap = "
        update entity_transitions set position = 2600 where position = 999;
        update entity_transitions set position = 999 where position = 1000;
        update entity_transitions set position = 1000 where position = 2600";
    assert_eq!(found_after(&fleet, swap).await, [changed(1, 1_000)]);
    let swap = swap.replace("1000", "1001");
    assert_eq!(found_after(&fleet, &swap).await, [changed(1, 1_000), changed(1_001, 2_000)]);

    let edit = "update log_seals set hash = sha256('x') where first_position = 1001";
    assert_eq!(
        found_after(&fleet, edit).await,
        ["seal       positions 1001 to 2000: the seal itself was changed"]
    );
    let edit = "update log_seals set hash = sha256('x') where first_position = 2001";
    assert_eq!(found_after(&fleet, edit).await, [changed(2_001, 2_500)]);
    let edit = "update log_seals set previous_hash = sha256('x') where first_position = 1001";
    let loose = |first: i64, last: i64| {
        format!(
            "seal       positions {first} to {last}: does not follow on the seal before it (one was changed or dropped)"
        )
    };
    assert_eq!(found_after(&fleet, edit).await, [loose(1_001, 2_000)]);
    let edit =
        "update log_seals set sealed_at = sealed_at - interval '1 day' where first_position = 1";
    assert_eq!(found_after(&fleet, edit).await, [changed(1, 1_000)]);
    let unseal = "delete from log_seals where first_position = 1001";
    assert_eq!(
        found_after(&fleet, unseal).await,
        [
            "unsealed   positions 1001 to 2000: no seal covers them, but later ones are sealed",
            &loose(2_001, 2_500)
        ]
    );
    // A forger who also mends the seal breaks the next one.
    let mend = "
        update entity_transitions set reason = 'takeover' where position = 10;
        update log_seals set hash = sha256('as if it were right') where first_position = 1";
    assert!(!found_after(&fleet, mend).await.is_empty());
    assert_eq!(found_after(&fleet, "select 1").await, none, "all of it was undone");
}

#[tokio::test]
async fn pods_that_seal_at_the_same_time_make_one_chain() {
    let fleet = Fleet::new(CALM).await;
    let seal_often = |name| fleet.plan(name).with("GROUNDSTATION_SEAL_INTERVAL", "10ms").start();
    let pods = [seal_often("a").await, seal_often("b").await, seal_often("c").await];
    let credentials = pods[0].register("edge", "eu").await;
    for n in 0..30 {
        connect_times(&pods[n % 3], &credentials, 1).await;
    }
    for pod in &pods {
        pod.expect_metric(SEALED, 30.0).await;
    }
    let ended = check(&fleet).await;
    assert!(ended.is_ok && ended.out.contains("sealed up to position 30"), "{ended:?}");
    let seals = seals(&fleet).await;
    assert!(seals.len() > 1, "{seals:?}");
}

#[tokio::test]
async fn a_thousand_transitions_are_sealed_without_waiting_for_the_interval() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "24h").start().await;
    let credentials = pod.register("edge", "eu").await;
    // The pod's first look may have sealed this one, or have come before it.
    connect_times(&pod, &credentials, 1).await;
    written_log::write(&fleet.sql().await, 2, 1_000).await;
    assert!(seals(&fleet).await.len() <= 1, "nothing calls for a seal yet");
    connect_times(&pod, &credentials, 1).await;
    pod.expect_metric(SEALED, 1_000.0).await;
    let newest = *seals(&fleet).await.last().expect("a seal");
    assert!([(1, 1_000), (2, 1_001)].contains(&newest), "{newest:?}");
}

#[tokio::test]
async fn the_service_can_add_seals_and_do_nothing_else_to_them() {
    let fleet = Fleet::new(CALM).await;
    three_seals(&fleet).await;
    let sql = fleet.sql().await;
    let attempts =
        ["update log_seals set hash = sha256('x')", "delete from log_seals", "truncate log_seals"];
    for attempt in attempts {
        let as_service = format!("set role groundstation_service; {attempt}");
        let refused = sql.batch_execute(&as_service).await.expect_err("refused");
        let refused = refused.as_db_error().expect("by the server").message().to_owned();
        assert!(refused.contains("permission denied"), "{refused}");
        let as_owner = format!("reset role; {attempt}");
        let refused = sql.batch_execute(&as_owner).await.expect_err("refused");
        let refused = refused.as_db_error().expect("by the server").message().to_owned();
        assert!(refused.contains("append-only"), "{refused}");
    }
    assert_eq!(seals(&fleet).await, [(1, 1), (2, 2), (3, 3)]);
}

#[tokio::test]
async fn after_retention_the_chain_is_checked_from_the_first_seal_behind_the_horizon() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    written_log::narrow(&sql, 1_000).await;
    written_log::write(&sql, 1, 2_500).await;
    let mut pod = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "20ms").start().await;
    pod.expect_metric(SEALED, 2_500.0).await;
    pod.kill();
    const DROP: &str = "
        update relay set position = 2500;
        select drop_transition_partition(1, interval '1 hour')";
    sql.batch_execute(DROP).await.expect("dropped by retention");
    let ended = check(&fleet).await;
    assert!(
        ended.is_ok && ended.out.contains("1 seals cover rows that retention dropped"),
        "{ended:?}"
    );
    assert!(ended.out.contains("1500 transitions under 2 seals"), "{ended:?}");
    // Above the horizon everything is found as before, and a row below it does not count as dropped by hand.
    let tamper = "update entity_transitions set session = 99 where position = 1001";
    assert_eq!(found_after(&fleet, tamper).await.len(), 1);
    let tamper = "delete from entity_transitions where position = 1001";
    assert_eq!(
        found_after(&fleet, tamper).await,
        ["dropped    positions 1001 to 1001: sealed, and no longer in the log"]
    );
}

/// Eight changes of the registry under at least four seals, with gaps between them; no pod seals any more.
async fn sealed_registry(fleet: &Fleet) -> Vec<i64> {
    let sql = fleet.sql().await;
    let mut pod = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "20ms").start().await;
    for n in 1..=4 {
        let edge = pod.register(&format!("edge-{n}"), "eu").await;
        pod.assign(edge.id, &serde_json::json!([])).await;
        registry_sealed(fleet, 2 * n).await;
        // A change that failed has used a number.
        sql.execute("select nextval(pg_get_serial_sequence('registry_changes', 'change'))", &[])
            .await
            .expect("a number");
    }
    pod.kill();
    let rows = sql.query("select change from registry_changes order by 1", &[]).await;
    rows.expect("the history").iter().map(|row| row.get(0)).collect()
}

async fn registry_sealed(fleet: &Fleet, changes: i64) {
    const SEALED: &str =
        "select coalesce(sum(cardinality(changes)), 0)::bigint from registry_seals";
    let sql = fleet.sql().await;
    eventually("the registry's history to be sealed", async || {
        let row = sql.query_one(SEALED, &[]).await.expect("the seals");
        let sealed: i64 = row.get(0);
        if sealed == changes { Ok(()) } else { Err(format!("{sealed} of {changes}")) }
    })
    .await;
}

/// The breaks found after the owner has done this to the registry's history or its seals; it is undone afterwards.
async fn found_in_the_registry(fleet: &Fleet, tampering: &str) -> Vec<String> {
    let sql = fleet.sql().await;
    let backup = "
        create table changes_backup as table registry_changes;
        create table registry_seals_backup as table registry_seals";
    sql.batch_execute(backup).await.expect("a backup");
    let as_superuser =
        |what: &str| format!("begin; set local session_replication_role = replica; {what}; commit");
    sql.batch_execute(&as_superuser(tampering)).await.expect(tampering);
    let ended = check(fleet).await;
    let undo = "
        delete from registry_changes;
        insert into registry_changes overriding system value table changes_backup;
        delete from registry_seals; insert into registry_seals table registry_seals_backup;
        drop table changes_backup, registry_seals_backup";
    sql.batch_execute(&as_superuser(undo)).await.expect("undone");
    let words = ["dropped  ", "changed  ", "added  ", "seal  "];
    let lines = ended.out.lines().filter(|line| words.iter().any(|word| line.starts_with(word)));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert_eq!(ended.is_ok, lines.is_empty(), "{ended:?}");
    lines
}

#[tokio::test]
async fn a_change_of_the_registry_that_was_altered_dropped_or_slipped_in_is_named() {
    let fleet = Fleet::new(CALM).await;
    let changes = sealed_registry(&fleet).await;
    let [.., third, _, _, _, _, _] = changes[..] else { panic!("{changes:?}") };
    let none: [&str; 0] = [];
    assert_eq!(found_in_the_registry(&fleet, "select 1").await, none);
    let columns = [
        "position = position + 1",
        "changed_at = changed_at + interval '1 microsecond'",
        "satellite_id = gen_random_uuid()",
        "action = 'updated', before = '{}'",
        "actor_type = 'system'",
        "actor_id = 'nobody'",
        "after = after || '{\"name\": \"other\"}'",
    ];
    for column in columns {
        let change = format!("update registry_changes set {column} where change = {third}");
        let changed = format!("changed    change {third} of the registry: not what was sealed");
        assert_eq!(found_in_the_registry(&fleet, &change).await, [changed], "{column}");
    }
    let drop = format!("delete from registry_changes where change = {third}");
    assert_eq!(
        found_in_the_registry(&fleet, &drop).await,
        [format!(
            "dropped    change {third} of the registry: sealed, and no longer in its history"
        )]
    );
    let gap = (1..).find(|number| !changes.contains(number)).expect("one that failed");
    assert!(gap < changes[7], "{changes:?}");
    let add = format!(
        "insert into registry_changes (change, position, changed_at, satellite_id, action, actor_type, actor_id, after)
         overriding system value
         select {gap}, position, changed_at, satellite_id, 'created', actor_type, actor_id, '{{}}'
           from registry_changes where change = {third}"
    );
    assert_eq!(
        found_in_the_registry(&fleet, &add).await,
        [format!(
            "added      change {gap} of the registry: not there when those around it were sealed"
        )]
    );

    let edit = "update registry_seals set hash = sha256('x') where number = 2";
    let found = found_in_the_registry(&fleet, edit).await;
    assert!(found[0].starts_with("seal       2 of the registry: the seal itself"), "{found:?}");
    let unseal = "delete from registry_seals where number = 2";
    let found = found_in_the_registry(&fleet, unseal).await;
    assert!(found[0].starts_with("seal       3 of the registry: does not follow"), "{found:?}");
    // A forger that changes a row and mends its seal breaks the next one.
    let mend = format!(
        "update registry_changes set actor_id = 'nobody' where change = {third};
         update registry_seals set digests = sha256('x') || substr(digests, 33) where number = 2"
    );
    assert!(!found_in_the_registry(&fleet, &mend).await.is_empty());
    assert_eq!(found_in_the_registry(&fleet, "select 1").await, none, "all of it was undone");
    let ended = check(&fleet).await;
    assert!(ended.out.contains("8 changes of the registry under"), "{ended:?}");
}

#[tokio::test]
async fn the_service_adds_changes_of_the_registry_and_their_seals_and_chooses_no_number() {
    let fleet = Fleet::new(CALM).await;
    sealed_registry(&fleet).await;
    let sql = fleet.sql().await;
    let attempts = [
        "update registry_seals set hash = sha256('x')",
        "delete from registry_seals",
        "truncate registry_seals",
        "insert into registry_changes (change, position, changed_at, satellite_id, action, actor_type, actor_id, after)
         overriding system value
         values (9223372036854775807, 0, now(), gen_random_uuid(), 'created', 'system', 'system', '{}')",
    ];
    for attempt in attempts {
        let as_service = format!("set role groundstation_service; {attempt}");
        let refused = sql.batch_execute(&as_service).await.expect_err(attempt);
        let refused = refused.as_db_error().expect("by the server").message().to_owned();
        assert!(refused.contains("permission denied"), "{refused}");
        sql.batch_execute("reset role").await.expect("itself");
    }
    for attempt in &attempts[..3] {
        let refused = sql.batch_execute(attempt).await.expect_err(attempt);
        let refused = refused.as_db_error().expect("by the server").message().to_owned();
        assert!(refused.contains("registry_seals is append-only"), "{refused}");
    }
}
