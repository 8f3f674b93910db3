//! A disk on which the log cannot grow: no edge is acknowledged falsely, the pod turns unready, and goes on by itself
//! when there is room again.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::harness::refusal::Refused;
use crate::harness::{CALM, Fleet, Heard, Satellite};

/// The largest file size in bytes. Postgres treats the limit as a full disk. Its journal's files are exactly as long
/// and can still be written.
const LIMIT: &str = "16777216";

/// Makes the log's file longer than the limit, by rows that are never committed and so small that
/// no page has room left for a real one. Triggers that look at each row would take most of the time.
const SWELL: &str = r#"
    begin;
    set local session_replication_role = replica;
    insert into entity_transitions
    select p, 1, md5('change ' || p)::uuid, 'swell', md5('satellite ' || p)::uuid, 'connected', 'connect', 1,
           null, '{"status": "online", "name": "swell", "region": "eu", "lastSeenAt": null, "lastEvent": null}',
           'system', 'system', null, 1, now(), now()
      from generate_series(1, 120000) p;
    rollback"#;

/// Runs as the user who owns the process: even root may not limit another user's everywhere. A process that has ended
/// needs no limit.
fn limit(pid: u32, limit: &str) {
    let folder = format!("/proc/{pid}");
    let Ok(process) = std::fs::metadata(&folder) else { return };
    let status = Command::new("prlimit")
        .args(["--pid", &pid.to_string(), &format!("--fsize={limit}:")])
        .uid(process.uid())
        .gid(process.gid())
        .status();
    let limited = status.expect("prlimit runs").success();
    assert!(limited || std::fs::metadata(&folder).is_err(), "no limit for {pid}");
}

/// Limits the server, for its later sessions, and the sessions it has.
async fn limit_all(fleet: &Fleet, size: &str) {
    const SESSIONS: &str = "select pid from pg_stat_activity where backend_type = 'client backend'";
    limit(fleet.own_postgres().pid(), size);
    for row in fleet.sql().await.query(SESSIONS, &[]).await.expect("the sessions") {
        limit(row.get::<_, i32>(0).unsigned_abs(), size);
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn while_the_disk_is_full_nothing_is_acknowledged_and_then_it_goes_on() {
    let help = Command::new("prlimit").arg("--version").stdout(Stdio::null()).status();
    if !help.is_ok_and(|status| status.success()) {
        println!("skipped: this system has no prlimit");
        return;
    }
    let fleet = Fleet::with_own_postgres(CALM).await;
    fleet.sql().await.batch_execute(SWELL).await.expect("swollen");
    let pod = fleet.pod("a").await;
    let mut refused = Refused::prepare(&fleet, &pod).await;
    let registered = fleet.register(&pod, "filler", 50).await;
    limit_all(&fleet, LIMIT).await;
    let mut fillers = Vec::new();
    for filler in &registered {
        let satellite = Satellite::open(pod.address).await;
        satellite.authenticate(filler);
        fillers.push(satellite);
    }
    pod.expect_metric("groundstation_append_failures_total", 1.0).await;
    refused.nothing_is_acknowledged().await;
    limit_all(&fleet, "unlimited").await;
    refused.everything_is_made_up_for().await;
    for filler in &mut fillers {
        match filler.hear().await {
            Heard::Message(message) if message["type"] == "authenticated" => {}
            // It was to come back, as the disk was full for almost as long as an edge is waited for.
            Heard::Closed(1013) => {}
            other => panic!("a satellite heard {other:?}"),
        }
    }
}
