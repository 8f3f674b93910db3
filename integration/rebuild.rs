//! The current rows follow from the log: checked, and made so, while traffic goes on.

use std::process::Output;

#[cfg(feature = "failpoints")]
use crate::harness::program::command;
use crate::harness::program::run;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Satellite};

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
    let unfounded = "insert into satellite_connections values (gen_random_uuid(), 1, 1, 1, 'disconnected', null)";
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
    // A connected row that was lost comes back with the heartbeat of its connect.
    assert_eq!(rows(&fleet).await.lines().count(), before.lines().count());

    let again = rebuild(&fleet, &[]).await;
    assert!(said(&again).contains("0 differed"), "{}", said(&again));
    assert_eq!(fleet.log_length().await, length, "a rebuild appends nothing");
    // And publishes nothing: the stream is still the log.
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
