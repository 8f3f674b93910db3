//! A change of the audit behind the service's back leaves a broken chain of seals.

use serde_json::json;

use crate::harness::{CALM, Fleet, eventually};
use crate::stream::audit::{Ended, audit};

pub async fn check(fleet: &Fleet) -> Ended {
    audit(fleet, &["--chain"]).await
}

/// Waits until so many entries are sealed.
pub async fn expect_sealed(fleet: &Fleet, entries: i64) {
    const SEALED: &str = "select coalesce(sum(cardinality(entries)), 0)::bigint from audit_seals";
    let sql = fleet.sql().await;
    eventually("the audit to be sealed", async || {
        let sealed: i64 = sql.query_one(SEALED, &[]).await.expect("the seals").get(0);
        if sealed == entries { Ok(()) } else { Err(format!("{sealed} of {entries}")) }
    })
    .await;
}

/// The breaks found after the owner has done this to the audit or its seals; it is undone afterwards.
pub async fn found_after(fleet: &Fleet, tampering: &str) -> Vec<String> {
    let sql = fleet.sql().await;
    let backup = "
        create table entries_backup as table audit_entries;
        create table audit_seals_backup as table audit_seals";
    sql.batch_execute(backup).await.expect("a backup");
    let as_superuser =
        |what: &str| format!("begin; set local session_replication_role = replica; {what}; commit");
    sql.batch_execute(&as_superuser(tampering)).await.expect(tampering);
    let ended = check(fleet).await;
    let undo = "
        delete from audit_entries; insert into audit_entries table entries_backup;
        delete from audit_seals; insert into audit_seals table audit_seals_backup;
        drop table entries_backup, audit_seals_backup";
    sql.batch_execute(&as_superuser(undo)).await.expect("undone");
    let words = ["dropped  ", "changed  ", "added  ", "missing  ", "seal  "];
    let lines = ended.out.lines().filter(|line| words.iter().any(|word| line.starts_with(word)));
    let lines: Vec<String> = lines.map(str::to_owned).collect();
    assert_eq!(ended.is_ok, lines.is_empty(), "{ended:?}");
    lines
}

/// Eight entries under four seals at least, and two that nobody has sealed; no pod seals any more.
async fn sealed(fleet: &Fleet) {
    let mut pod = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "20ms").start().await;
    for n in 1..=4 {
        let edge = pod.register(&format!("edge-{n}"), "eu").await;
        pod.assign(edge.id, &json!([])).await;
        expect_sealed(fleet, 2 * n).await;
    }
    pod.kill();
    const INSERT: &str = "
        insert into audit_entries (actor_type, actor_id, action, target_kind, target_id)
        select 'system', 'system', 'satellite.updated', 'satellite', 'x' from generate_series(1, 2)";
    fleet.sql().await.batch_execute(INSERT).await.expect("unsealed entries");
}

#[tokio::test]
async fn an_entry_that_was_changed_dropped_swapped_or_slipped_in_is_named() {
    let fleet = Fleet::new(CALM).await;
    sealed(&fleet).await;
    let none: [&str; 0] = [];
    assert_eq!(found_after(&fleet, "select 1").await, none);
    let ended = check(&fleet).await;
    assert!(ended.out.contains("8 entries of the audit under"), "{ended:?}");
    assert!(ended.out.contains("2 not sealed yet"), "{ended:?}");
    // Every column counts.
    let columns = [
        "recorded_at = recorded_at + interval '1 microsecond'",
        "actor_type = 'system'",
        "actor_id = 'nobody'",
        "address = '10.0.0.1'",
        "action = 'satellite.updated'",
        "target_kind = 'token'",
        "target_id = 'other'",
        "before = '{\"name\": \"other\"}'",
        "after = null",
    ];
    for column in columns {
        let change = format!("update audit_entries set {column} where position = 3");
        let changed = "changed    entry 3 of the audit: not what was sealed";
        assert_eq!(found_after(&fleet, &change).await, [changed], "{column}");
    }
    let dropped = "dropped    entry 3 of the audit: sealed, and no longer in its history";
    assert_eq!(
        found_after(&fleet, "delete from audit_entries where position = 3").await,
        [dropped]
    );
    let swap = "
        update audit_entries set position = 99 where position = 3;
        update audit_entries set position = 3 where position = 6;
        update audit_entries set position = 6 where position = 99";
    let changed = |n: i64| format!("changed    entry {n} of the audit: not what was sealed");
    assert_eq!(found_after(&fleet, swap).await, [changed(3), changed(6)]);
    // Nobody has sealed these, and their numbers are witness enough that they were there.
    for (gone, from, to) in [("= 9", 9, 9), ("= 10", 10, 10), ("> 8", 9, 10)] {
        let delete = format!("delete from audit_entries where position {gone}");
        let missing =
            format!("missing    entry {from} to {to} of the audit: never sealed, and not there");
        assert_eq!(found_after(&fleet, &delete).await, [missing]);
    }

    let edit = "update audit_seals set hash = sha256('x') where number = 2";
    let found = found_after(&fleet, edit).await;
    assert!(found[0].starts_with("seal       2 of the audit: the seal itself"), "{found:?}");
    let unseal = "delete from audit_seals where number = 2";
    let found = found_after(&fleet, unseal).await;
    let loose = "seal       3 of the audit: does not follow on the seal before it";
    assert!(found.iter().any(|line| line.starts_with(loose)), "{found:?}");
    // A forger that changes an entry and mends its seal breaks the next one.
    let mend = "
        update audit_entries set actor_id = 'nobody' where position = 3;
        update audit_seals set digests = sha256('x') || substr(digests, 33) where number = 2";
    assert!(!found_after(&fleet, mend).await.is_empty());
    assert_eq!(found_after(&fleet, "select 1").await, none, "all of it was undone");
}

#[tokio::test]
async fn the_service_adds_entries_and_seals_and_does_nothing_else_to_them() {
    let fleet = Fleet::new(CALM).await;
    sealed(&fleet).await;
    let sql = fleet.sql().await;
    let attempts = [
        ("audit_entries", "update audit_entries set actor_id = 'nobody'"),
        ("audit_entries", "delete from audit_entries"),
        ("audit_entries", "truncate audit_entries"),
        ("audit_seals", "update audit_seals set hash = sha256('x')"),
        ("audit_seals", "delete from audit_seals"),
        ("audit_seals", "truncate audit_seals"),
    ];
    for (table, attempt) in attempts {
        let as_service = format!("set role groundstation_service; {attempt}");
        let refused = sql.batch_execute(&as_service).await.expect_err(attempt);
        let refused = refused.as_db_error().expect("by the server").message().to_owned();
        assert!(refused.contains("permission denied"), "{attempt}: {refused}");
        sql.batch_execute("reset role").await.expect("itself");
        let refused = sql.batch_execute(attempt).await.expect_err(attempt);
        let refused = refused.as_db_error().expect("by the server").message().to_owned();
        assert!(refused.contains(&format!("{table} is append-only")), "{attempt}: {refused}");
    }
    for attempt in ["update audit_horizon set position = 8", "delete from audit_horizon"] {
        let as_service = format!("set role groundstation_service; {attempt}");
        let refused = sql.batch_execute(&as_service).await.expect_err(attempt);
        let refused = refused.as_db_error().expect("by the server").message().to_owned();
        assert!(refused.contains("permission denied"), "{attempt}: {refused}");
        sql.batch_execute("reset role").await.expect("itself");
    }
}
