//! The newest session of a satellite counts, on any pod, whatever the older one does late.

use tokio_tungstenite::tungstenite::Message;

use crate::harness::written::written;
use crate::harness::{CALM, Credentials, Fleet, Heard, Pod, Proxy, Satellite, eventually};

const STALE: &str = "groundstation_unchanged_edges_total{reason=\"stale_session\"}";
const TAKEN_OVER: [&str; 2] = ["1 connected connect", "2 connected takeover"];

/// Hears the goodbye of a session that was taken over.
async fn hears_shutdown(satellite: &mut Satellite) {
    let shutdown = satellite.expect("shutdown").await;
    assert!(!shutdown["reason"].as_str().expect("a reason").is_empty());
    assert_eq!(satellite.hear().await, Heard::Closed(1000));
}

async fn holds(pod: &Pod, sessions: f64) {
    eventually(&format!("{} to hold {sessions} sessions", pod.name), async || {
        let held = pod.metric("groundstation_sessions").await;
        if held == sessions { Ok(()) } else { Err(held.to_string()) }
    })
    .await;
}

written!(
    the_satellites_of_a_killed_pod_come_back_on_another_as_takeover,
    a_heartbeat_of_an_older_session_moves_nothing_and_ends_it,
);

#[tokio::test]
async fn the_satellites_of_a_killed_pod_come_back_on_another_as_takeover() {
    let fleet = Fleet::new(CALM).await;
    let (mut a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let all = fleet.register(&a, "edge", 10).await;
    let satellites = fleet.all_beating(&a, &all).await;
    let mut held: Vec<_> = all.into_iter().zip(satellites).collect();
    a.kill();
    for (credentials, satellite) in &mut held {
        assert_eq!(satellite.hear().await, Heard::Dropped);
        *satellite = Satellite::connect(b.address, credentials).await;
    }
    for (Credentials { id, .. }, _) in &held {
        assert_eq!(fleet.history(*id).await, TAKEN_OVER);
        assert_eq!(b.show(*id).await["status"], "online");
    }
    fleet.check().await;
}

#[tokio::test]
async fn a_newer_session_on_another_pod_ends_the_older_one_within_seconds() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let credentials = a.register("edge", "eu").await;
    // Silent, so that no heartbeat of its own gives the older one away.
    let mut older = Satellite::connect(a.address, &credentials).await;
    let _newer = Satellite::connect(b.address, &credentials).await;
    let taken_over = std::time::Instant::now();
    hears_shutdown(&mut older).await;
    // Promised within a second or two; the rest is for a busy machine.
    assert!(taken_over.elapsed().as_secs() < 5, "{:?}", taken_over.elapsed());
    holds(&a, 0.0).await;
    assert_eq!(fleet.history(credentials.id).await, TAKEN_OVER);
    fleet.check().await;
}

#[tokio::test]
async fn a_newer_session_on_the_same_pod_ends_the_older_one() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let mut older = Satellite::connect(pod.address, &credentials).await;
    let mut newer = Satellite::connect(pod.address, &credentials).await;
    hears_shutdown(&mut older).await;
    holds(&pod, 1.0).await;
    let newest = Satellite::connect(pod.address, &credentials).await;
    hears_shutdown(&mut newer).await;
    let history = ["1 connected connect", "2 connected takeover", "3 connected takeover"];
    assert_eq!(fleet.history(credentials.id).await, history);
    newest.close().await;
    let ended: Vec<&str> = history.into_iter().chain(["3 disconnected client_close"]).collect();
    fleet.expect_history(credentials.id, &ended).await;
    fleet.check().await;
}

/// A pod that hears nothing from the others, and the proxy that cuts it off.
async fn deaf_pod(fleet: &Fleet) -> (Pod, Proxy) {
    let (nats, nats_url) = Proxy::before(&fleet.nats_url).await;
    let pod = fleet.plan("deaf").with("NATS_URL", &nats_url).start().await;
    nats.stall();
    (pod, nats)
}

#[tokio::test]
async fn a_late_close_on_the_old_pod_does_not_touch_the_new_session() {
    let fleet = Fleet::new(CALM).await;
    let (a, nats) = deaf_pod(&fleet).await;
    let b = fleet.pod("b").await;
    let credentials = b.register("edge", "eu").await;
    let socket = Proxy::to(a.address).await;
    let older = Satellite::connect(socket.address, &credentials).await;
    // The goodbye is under way until after the takeover.
    socket.stall();
    older.send_frame(Message::Close(None));
    older.expect_sent().await;
    let newer = Satellite::connect(b.address, &credentials).await;
    assert_eq!(fleet.history(credentials.id).await, TAKEN_OVER);
    socket.resume();
    a.expect_metric(STALE, 1.0).await;
    assert_eq!(fleet.history(credentials.id).await, TAKEN_OVER);
    assert_eq!(b.show(credentials.id).await["status"], "online");
    // Only the new session can end.
    newer.close().await;
    let ended: Vec<&str> = TAKEN_OVER.into_iter().chain(["2 disconnected client_close"]).collect();
    fleet.expect_history(credentials.id, &ended).await;
    nats.resume();
    fleet.check().await;
}

#[tokio::test]
async fn a_close_that_waits_for_the_database_does_not_touch_the_new_session() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let a = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let b = fleet.pod("b").await;
    let credentials = b.register("edge", "eu").await;
    let older = Satellite::connect(a.address, &credentials).await;
    database.stall();
    older.close().await;
    let newer = Satellite::connect(b.address, &credentials).await;
    database.resume();
    a.expect_metric(STALE, 1.0).await;
    assert_eq!(fleet.history(credentials.id).await, TAKEN_OVER);
    drop(newer);
    fleet.check().await;
}

#[tokio::test]
async fn a_heartbeat_of_an_older_session_moves_nothing_and_ends_it() {
    let fleet = Fleet::new(CALM).await;
    let (a, nats) = deaf_pod(&fleet).await;
    let b = fleet.pod("b").await;
    let credentials = b.register("edge", "eu").await;
    // It goes on beating, so that it is no exception: the pod that vouches for it finds out in another way.
    let mut older = fleet.beating(&a, &credentials).await;
    let newer = Satellite::connect(b.address, &credentials).await;
    newer.close().await;
    let ended: Vec<&str> = TAKEN_OVER.into_iter().chain(["2 disconnected client_close"]).collect();
    fleet.expect_history(credentials.id, &ended).await;
    older.beat();
    hears_shutdown(&mut older).await;
    a.expect_metric("groundstation_heartbeats_stale_total", 1.0).await;
    holds(&a, 0.0).await;
    let shown = b.show(credentials.id).await;
    assert_eq!(shown["status"], "offline", "{shown}");
    assert_eq!(fleet.history(credentials.id).await, ended);
    nats.resume();
    fleet.check().await;
}

#[tokio::test]
async fn who_goes_away_while_authenticating_is_not_left_connected() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::open(pod.address).await;
    database.stall();
    satellite.authenticate(&credentials);
    satellite.expect_sent().await;
    satellite.vanish();
    database.resume();
    eventually("the socket to be over", async || {
        let said = pod.get("/metrics").await.text;
        let over = said.contains("groundstation_authentications_total")
            && said.contains("groundstation_handshakes 0")
            && said.contains("groundstation_sessions 0");
        if over { Ok(()) } else { Err(said) }
    })
    .await;
    eventually("the last edge not to be `connected`", async || {
        let history = fleet.history(credentials.id).await;
        let left_connected = history.last().is_some_and(|last| last.contains(" connected "));
        if left_connected { Err(format!("{history:?}")) } else { Ok(()) }
    })
    .await;
    assert_eq!(pod.show(credentials.id).await["status"], "offline");
    fleet.check().await;
}

#[tokio::test]
async fn a_connect_whose_satellite_left_while_its_pod_was_cut_off_takes_nothing_over() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let a = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let b = fleet.pod("b").await;
    let (edge, other) = (b.register("edge", "eu").await, b.register("other", "eu").await);
    // Its credentials are right, and then its connect has to wait.
    let holder = fleet.sql().await;
    let lock = format!("begin; select 1 from satellites where id = '{}' for update", edge.id);
    holder.batch_execute(&lock).await.expect("locked");
    let impatient = Satellite::open(a.address).await;
    impatient.authenticate(&edge);
    // A message that comes too early; later ones must still be heard.
    impatient.beat();
    a.expect_metric("groundstation_locked_satellites{what=\"edges\"}", 1.0).await;
    database.refuse();
    holder.batch_execute("rollback").await.expect("let go");
    impatient.vanish();
    a.expect_metric("groundstation_authentications_total{result=\"gone\"}", 1.0).await;
    let mut elsewhere = Satellite::connect(b.address, &edge).await;
    database.admit();
    // Let in after the session that is gone.
    eventually("the pod to take satellites again", async || {
        let mut behind = Satellite::open(a.address).await;
        behind.authenticate(&other);
        match behind.hear().await {
            Heard::Message(message) if message["type"] == "authenticated" => Ok(()),
            heard => Err(format!("{heard:?}")),
        }
    })
    .await;
    assert_eq!(fleet.history(edge.id).await, ["1 connected connect"]);
    assert_eq!(b.show(edge.id).await["status"], "online");
    let beats = "groundstation_heartbeats_flushed_total";
    let before = b.metric(beats).await;
    elsewhere.beat();
    b.expect_metric(beats, before + 1.0).await;
    holds(&b, 1.0).await;
    elsewhere.send_frame(Message::Close(None));
    assert!(matches!(elsewhere.hear().await, Heard::Closed(_)), "its socket was closed before");
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn who_is_not_let_in_within_its_time_is_told_to_come_again_and_not_let_in_later() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (edge, other) = (pod.register("edge", "eu").await, pod.register("other", "eu").await);
    let holder = fleet.sql().await;
    let lock = format!("begin; select 1 from satellites where id = '{}' for update", edge.id);
    holder.batch_execute(&lock).await.expect("locked");
    let mut waiting = Satellite::open(pod.address).await;
    waiting.authenticate(&edge);
    assert_eq!(waiting.hear().await, Heard::Closed(1013));
    holder.batch_execute("rollback").await.expect("let go");
    let _behind = Satellite::connect(pod.address, &other).await;
    assert_eq!(fleet.history(edge.id).await, Vec::<String>::new());
    let mut again = Satellite::connect(pod.address, &edge).await;
    again.send_frame(Message::Close(None));
    assert!(matches!(again.hear().await, Heard::Closed(_)));
    let history = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(edge.id, &history).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_connect_that_is_in_the_log_when_its_satellite_has_left_is_ended_there() {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let edge = pod.register("edge", "eu").await;
    let satellite = Satellite::open(pod.address).await;
    database.lose_commit_about(edge.id);
    satellite.authenticate(&edge);
    eventually("the answer to be lost", async || match database.commits_lost() {
        0 => Err("it is not".to_owned()),
        _ => Ok(()),
    })
    .await;
    database.refuse();
    satellite.vanish();
    database.admit();
    let history = ["1 connected connect", "1 disconnected connection_dropped"];
    fleet.expect_history(edge.id, &history).await;
    holds(&pod, 0.0).await;
    fleet.check().await;
}
