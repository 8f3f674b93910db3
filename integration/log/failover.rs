//! Postgres fails over to its standby. With a synchronous standby nothing is lost. With one that lacks the newest
//! commits no pod goes on with what it remembers of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::harness::faults::full;
use crate::harness::reader::Reader;
use crate::harness::relaying::expect_relay;
use crate::harness::wait::{PATIENCE, blocking};
use crate::harness::{
    Agents, Credentials, Fleet, Heard, Onlooker, SWEPT_OFTEN, Satellite, eventually, steady, within,
};
use crate::stream::audit::audit;

/// Comes and goes until told to end, whatever becomes of the pod's database. Returns how often it was welcomed, which
/// it is told after the commit.
async fn comes_and_goes(pod: SocketAddr, credentials: Credentials, end: CancellationToken) -> i64 {
    let mut welcomed = 0;
    while !end.is_cancelled() {
        let opened = Satellite::try_open(pod).await;
        if let Ok(mut satellite) = opened {
            satellite.authenticate(&credentials);
            if matches!(satellite.hear().await, Heard::Message(said) if said["type"] == "authenticated")
            {
                welcomed += 1;
            }
            satellite.send_frame(Message::Close(None));
            satellite.hear().await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    welcomed
}

#[tokio::test]
async fn a_fail_over_to_the_synchronous_standby_loses_no_edge_and_nobody() {
    let (fleet, mut primary, standby) = Fleet::with_standby(steady(), "*").await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await];
    let beating = fleet.register(&pods[0], "beating", 12).await;
    let others = fleet.register(&pods[0], "other", 2).await;
    let agents = Agents::start(&fleet, pods[0].address, beating);
    agents.expect_all().await;
    let leaving = Satellite::connect(pods[1].address, &others[0]).await;
    let silent = Satellite::connect(pods[1].address, &others[1]).await;
    assert_eq!(fleet.log_length().await, 14);
    let onlooker = Onlooker::at(&fleet, &[pods[0].address, pods[1].address]);
    let (mut passing, end) = (JoinSet::new(), CancellationToken::new());
    for (n, credentials) in fleet.register_many("passing", 10).await.into_iter().enumerate() {
        passing.spawn(comes_and_goes(pods[n % 2].address, credentials, end.clone()));
    }
    fleet.expect_some_edges("passing", "disconnected", 50).await;

    primary.kill();
    leaving.close().await;
    // An outage that pods notice.
    sleep(Duration::from_secs(2)).await;
    let standby = fleet.promote(standby).await;

    let promoted = Instant::now();
    for pod in &pods {
        pod.expect_ready().await;
    }
    let unready = promoted.elapsed();
    println!("ready {unready:?} after the promotion");
    assert!(!full() || unready < Duration::from_secs(5), "{unready:?}");
    let so_far = fleet.edges("passing", "disconnected").await;
    fleet.expect_some_edges("passing", "disconnected", so_far + 50).await;
    end.cancel();
    let mut welcomed = 0;
    while let Some(ended) = passing.join_next().await {
        welcomed += ended.expect("a satellite");
    }
    let left = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(others[0].id, &left).await;
    within(
        fleet.timing.threshold * 2 + Duration::from_secs(30),
        "the silent one to be lost",
        async || {
            let history = fleet.history(others[1].id).await;
            if history.len() == 2 { Ok(()) } else { Err(format!("{history:?}")) }
        },
    )
    .await;
    drop(silent);
    assert_eq!(onlooker.saw_offline("beating").await, [""; 0]);
    assert_eq!(fleet.edges("", "heartbeat_lost").await, 1, "nobody else was given up");
    let connected = fleet.edges("passing", "connected").await;
    assert!(connected >= welcomed, "{welcomed} were welcomed, {connected} are in the log");
    assert_eq!(agents.authenticated(), 12, "sockets stayed up");
    fleet.check().await;
    drop(standby);
}

/// A list of one check.
fn list(config: &str) -> serde_json::Value {
    json!([{"configId": config, "systemId": "s", "strategyId": "http", "config": {}, "intervalSeconds": 60}])
}

#[tokio::test]
async fn pods_that_remember_what_a_standby_never_got_begin_anew_and_follow_what_is_there() {
    let (fleet, mut primary, mut standby) = Fleet::with_standby(SWEPT_OFTEN, "").await;
    let mut pods = [fleet.pod("a").await, fleet.pod("b").await];
    let known = fleet.register(&pods[0], "known", 2).await;
    let [held, other] = [&known[0], &known[1]];
    let mut satellite = Satellite::connect(pods[1].address, held).await;
    pods[0].assign(held.id, &list("first")).await;
    satellite.expect("config_updated").await;
    let mut reader = Reader::open(pods[1].address, &fleet.read_token, "", None).await;
    const RECEIVED: &str = "
        select coalesce(bool_or(replay_lsn >= pg_current_wal_flush_lsn()), false) from pg_stat_replication";
    let sql = fleet.sql().await;
    eventually("the standby to have everything", async || {
        let received = sql.query_one(RECEIVED, &[]).await.expect("the standby's row");
        if received.get(0) { Ok(()) } else { Err("it lags".to_owned()) }
    })
    .await;

    // From here on changes, sessions and positions die with the primary.
    standby = blocking(move || {
        standby.stop();
        standby
    })
    .await;
    for n in 0..5 {
        pods[0].assign(held.id, &list(&format!("lost-{n}"))).await;
        satellite.expect("config_updated").await;
        Satellite::connect(pods[0].address, other).await.close().await;
    }
    fleet.expect_log_length(11).await;
    while reader.last.as_deref() != Some("11") {
        reader.next().await.expect("the stream goes on");
    }
    pods[1].sweeps(20).await;
    primary.kill();
    let standby = blocking(move || {
        standby.restart().expect("the standby starts again");
        standby
    })
    .await;
    let standby = fleet.promote(standby).await;

    for pod in &mut pods {
        let ended = pod.exit().await;
        assert!(!ended.success(), "{ended:?}");
        let line = pod.log();
        assert!(line.contains("went back to an earlier point"), "{line}");
    }
    let rest = timeout(PATIENCE, async { while reader.next().await.is_some() {} }).await;
    rest.expect("the stream has ended");
    assert_eq!(reader.last.as_deref(), Some("11"), "and told nothing else before");
    // Pods that are started afterwards know what is there, and follow it.
    let pod = fleet.pod("c").await;
    let (mut satellite, told) = Satellite::welcomed(pod.address, held).await;
    assert_eq!(told["assignments"][0]["configId"], "first", "{told}");
    pod.assign(held.id, &list("second")).await;
    let told = satellite.expect("config_updated").await;
    assert_eq!(told["assignments"][0]["configId"], "second", "{told}");

    // The stream has what the log has not. The way out is a new epoch.
    expect_relay(&pod, "halted").await;
    drop((satellite, pod));
    let repaired = audit(&fleet, &["--wait", "10ms", "--repair", "--new-epoch", "--yes"]).await;
    assert!(repaired.is_ok, "{repaired:?}");
    let pod = fleet.pod("d").await;
    let _satellite = Satellite::welcomed(pod.address, held).await;
    eventually("log and stream to agree", async || {
        let ended = audit(&fleet, &[]).await;
        if ended.is_ok { Ok(()) } else { Err(ended.out) }
    })
    .await;
    drop(standby);
}
