//! Retention drops old entries of the audit, only what the database lets go, and the chain of seals stays whole.

use crate::harness::{CALM, Fleet, Pod};
use crate::log::audit_seals::{check, expect_sealed, found_after};

const DROPPED: &str = "groundstation_audit_entries_dropped_total";

/// 1,200 entries that are 500 days old, then 800 that are 100 days old, as a service of that time has written them.
async fn write_a_past(fleet: &Fleet) {
    const PAST: &str = "
        begin;
        set local session_replication_role = replica;
        insert into audit_entries (position, recorded_at, actor_type, actor_id, action, target_kind, target_id)
        select n, date_trunc('milliseconds', now() - case when n <= 1200 then interval '500 days' else interval '100 days' end)
                  + n * interval '1 second',
               'token', 'admin', 'satellite.updated', 'satellite', 'edge'
          from generate_series(1, 2000) n;
        update audit_head set position = 2000, recorded_at = now() - interval '99 days';
        commit";
    fleet.sql().await.batch_execute(PAST).await.expect("a past");
}

async fn positions(pod: &Pod) -> (i64, i64) {
    let at = async |order: &str| {
        let page = pod.get(&format!("/v1/audit?limit=1&order={order}")).await.json();
        page["entries"][0]["position"].as_i64().expect("a position")
    };
    (at("asc").await, at("desc").await)
}

#[tokio::test]
async fn old_entries_go_and_the_chain_is_proven_as_before() {
    let fleet = Fleet::new(CALM).await;
    write_a_past(&fleet).await;
    // What is not sealed stays, however old.
    let mut sealing = fleet.plan("a").with("GROUNDSTATION_SEAL_INTERVAL", "20ms").start().await;
    expect_sealed(&fleet, 2_000).await;
    assert_eq!(positions(&sealing).await, (1, 2_000));
    sealing.kill();
    let pod = fleet.plan("b").with("GROUNDSTATION_SEAL_INTERVAL", "24h").start().await;
    pod.expect_metric(DROPPED, 1_200.0).await;
    assert_eq!(positions(&pod).await, (1_201, 2_000));
    assert_eq!(pod.metric(DROPPED).await, 1_200.0);
    pod.expect_log("dropped old entries of the audit").await;

    let gone = pod.get("/v1/audit?after=7").await;
    assert_eq!(gone.status, 410, "{gone:?}");
    assert!(gone.text.contains("begins at position 1201"), "{gone:?}");
    assert_eq!(pod.get("/v1/audit/stream?after=7").await.status, 410);
    assert_eq!(pod.get("/v1/audit?after=1200").await.status, 200);

    let ended = check(&fleet).await;
    assert!(ended.is_ok, "{ended:?}");
    assert!(ended.out.contains("800 entries of the audit under 2 seals"), "{ended:?}");
    assert!(ended.out.contains("entries of the audit up to 1200 were dropped"), "{ended:?}");
    let dropped = "dropped    entry 1201 of the audit: sealed, and no longer in its history";
    let behead = "delete from audit_entries where position = 1201";
    assert_eq!(found_after(&fleet, behead).await, [dropped]);
    let changed = "changed    entry 1201 of the audit: not what was sealed";
    let change = "update audit_entries set actor_id = 'nobody' where position = 1201";
    assert_eq!(found_after(&fleet, change).await, [changed]);
    // The seals of what is gone count as before.
    let edit =
        "update audit_seals set digests = sha256('x') || substr(digests, 33) where number = 1";
    let found = found_after(&fleet, edit).await;
    assert_eq!(found, ["seal       1 of the audit: the seal itself was changed"]);
    // Something of a dropped position that comes back is found too.
    let back = "
        insert into audit_entries (position, recorded_at, actor_type, actor_id, action, target_kind, target_id)
        select 7, recorded_at, actor_type, actor_id, action, target_kind, target_id
          from audit_entries where position = 1300";
    let found = found_after(&fleet, back).await;
    assert_eq!(found, ["changed    entry 7 of the audit: not what was sealed"]);
}

#[tokio::test]
async fn pods_drop_nothing_that_is_young_or_not_sealed_whatever_they_ask_for() {
    let fleet = Fleet::new(CALM).await;
    write_a_past(&fleet).await;
    let sql = fleet.sql().await;
    let drop = async |span: &str| {
        let drop = format!("select drop_audit_entries(interval '{span}', 10000)");
        let as_service = "set role groundstation_service";
        sql.batch_execute(as_service).await.expect("the service's role");
        let dropped = sql.query_one(&drop, &[]).await.map(|row| row.get::<_, i64>(0));
        sql.batch_execute("reset role").await.expect("itself");
        dropped.map_err(|error| error.as_db_error().expect("by the server").message().to_owned())
    };
    assert_eq!(drop("30 days").await, Ok(0), "nothing is sealed");
    let mut pod = fleet
        .plan("a")
        .with("GROUNDSTATION_SEAL_INTERVAL", "20ms")
        .with("GROUNDSTATION_AUDIT_RETENTION", "forever")
        .start()
        .await;
    pod.register("edge", "eu").await;
    expect_sealed(&fleet, 2_001).await;
    pod.kill();
    let refused = drop("29 days").await.expect_err("too young");
    assert!(refused.contains("must keep 30 days"), "{refused}");
    // The log's retention floor keeps the audit too; only the owner has it.
    let floor = "update retention_floor set keep = interval '200 days'";
    sql.batch_execute(floor).await.expect("a floor");
    assert_eq!(drop("30 days").await, Ok(1_200));
    assert_eq!(drop("30 days").await, Ok(0));
    let floor = "update retention_floor set keep = interval '1 day'";
    sql.batch_execute(floor).await.expect("a floor");
    assert_eq!(drop("30 days").await, Ok(800), "what is young stays");
    let left: i64 =
        sql.query_one("select count(*) from audit_entries", &[]).await.expect("one").get(0);
    assert_eq!(left, 1);
    assert!(check(&fleet).await.is_ok);
}
