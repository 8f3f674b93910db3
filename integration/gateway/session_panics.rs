//! A session that panics ends like a broken connection, and leaves nothing behind.

use crate::harness::{CALM, Fleet, Heard, Satellite, eventually};

#[tokio::test]
async fn a_session_that_panics_is_over_everywhere_and_harms_no_other() {
    let fleet = Fleet::new(CALM).await;
    let point = ("FAILPOINTS", "session::heard_a_heartbeat=1*panic->off");
    let pod = fleet.plan("a").with(point.0, point.1).start().await;
    let (edge, other) = (pod.register("edge", "eu").await, pod.register("other", "eu").await);
    let mut satellite = Satellite::connect(pod.address, &edge).await;
    let beside = Satellite::connect(pod.address, &other).await;
    satellite.beat();
    assert_eq!(satellite.hear().await, Heard::Dropped);
    let history = ["1 connected connect", "1 disconnected connection_dropped"];
    fleet.expect_history(edge.id, &history).await;
    pod.expect_log("a session panicked").await;
    assert_eq!(pod.show(edge.id).await["status"], "offline");
    assert_eq!(pod.metric("groundstation_sessions").await, 1.0);
    let sql = fleet.sql().await;
    eventually("the monitor to count one session, which is fine", async || {
        let row = sql.query_one("select sessions, late from pods", &[]).await.expect("the pod");
        let counted: (i64, i64) = (row.get(0), row.get(1));
        if counted == (1, 0) { Ok(()) } else { Err(format!("{counted:?}")) }
    })
    .await;
    // The other session goes on, and the satellite that panicked comes back.
    beside.beat();
    pod.expect_metric("groundstation_heartbeats_flushed_total", 1.0).await;
    let again = Satellite::connect(pod.address, &edge).await;
    again.close().await;
    let history = [history[0], history[1], "2 connected connect", "2 disconnected client_close"];
    fleet.expect_history(edge.id, &history).await;
    assert_eq!(fleet.history(other.id).await, ["1 connected connect"]);
    fleet.check().await;
}
