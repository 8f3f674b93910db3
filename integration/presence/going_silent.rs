//! A satellite that goes silent is declared lost, once, by any pod.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::harness::fleet::Timing;
use crate::harness::subscriber::body;
use crate::harness::written::written;
use crate::harness::{BRISK, Credentials, Fleet, Heard, SWEPT_OFTEN, Satellite, eventually};

const POD_LOST: &str = "groundstation_edges_total{event=\"heartbeat_lost\",reason=\"pod_lost\"}";

const ALREADY_ENDED: &str = "groundstation_unchanged_edges_total{reason=\"already_ended\"}";

written!(
    a_silent_satellite_is_lost_once_however_many_pods_sweep,
    #[ignore = "long: `make test-faults` runs it"]
    the_satellites_of_a_killed_pod_are_lost_once_each_by_pods_that_never_saw_them,
    #[ignore = "long: `make test-faults` runs it"]
    a_satellite_that_goes_on_beating_is_not_lost,
    #[ignore = "long: `make test-faults` runs it"]
    a_heartbeat_on_a_session_given_up_brings_it_back_as_recovered_and_it_can_be_lost_again,
);

#[tokio::test]
async fn a_silent_satellite_is_lost_once_however_many_pods_sweep() {
    let fleet = Fleet::new(BRISK).await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await, fleet.pod("c").await];
    let mut subscriber = fleet.subscribe().await;
    let credentials = pods[0].register("edge", "eu").await;
    let satellite = fleet.beating(&pods[0], &credentials).await;
    satellite.fall_silent();

    let lost = subscriber.expect("satellite.heartbeat_lost", credentials.id).await;
    let shown = pods[1].show(credentials.id).await;
    let heard_last = &shown["lastHeartbeatAt"];
    assert!(heard_last.is_string(), "the aged heartbeat stays: {shown}");
    assert_eq!(
        (&shown["status"], &shown["lastEvent"]),
        (&json!("offline"), &json!("heartbeat_lost"))
    );
    assert_eq!(
        body(&lost),
        json!({"satelliteId": credentials.id, "name": "edge", "region": "eu",
               "status": "offline", "lastSeenAt": heard_last})
    );
    for pod in &pods {
        pod.sweeps(5).await;
    }
    let history = fleet.history(credentials.id).await;
    assert_eq!(history, ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"]);
    fleet.check().await;
}

#[tokio::test]
async fn a_loss_that_three_pods_find_in_the_same_moment_is_declared_by_one_of_them() {
    let fleet = Fleet::new(BRISK).await;
    let mut holding = fleet.pod("holding").await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await, fleet.pod("c").await];
    let credentials = pods[0].register("edge", "eu").await;
    let _satellite = fleet.beating(&holding, &credentials).await;
    holding.kill();
    // A lock on this row holds up every append about the satellite, and no sweep: each sweep proposes the loss again.
    let holder = fleet.sql().await;
    holder.batch_execute("begin; select 1 from satellites for update").await.expect("held");
    for pod in &pods {
        pod.expect_metric("groundstation_losses_locked_total", 2.0).await;
    }
    holder.batch_execute("rollback").await.expect("let go");
    let lost = ["1 connected connect", "1 heartbeat_lost pod_lost"];
    fleet.expect_history(credentials.id, &lost).await;
    for pod in &pods {
        pod.sweeps(3).await;
    }
    let history = fleet.history(credentials.id).await;
    assert_eq!(history, ["1 connected connect", "1 heartbeat_lost pod_lost"]);
    fleet.check().await;
}

#[tokio::test]
async fn the_satellites_of_a_killed_pod_are_lost_once_each_by_pods_that_never_saw_them() {
    const SATELLITES: usize = 20;
    let fleet = Fleet::new(BRISK).await;
    let mut a = fleet.pod("a").await;
    let (b, c) = (fleet.pod("b").await, fleet.pod("c").await);
    let all = fleet.register(&b, "edge", SATELLITES).await;
    let _satellites = fleet.all_beating(&a, &all).await;
    assert_eq!(a.metric("groundstation_sessions").await, SATELLITES as f64);
    a.kill();
    for credentials in &all {
        let lost = ["1 connected connect", "1 heartbeat_lost pod_lost"];
        fleet.expect_history(credentials.id, &lost).await;
    }
    b.sweeps(5).await;
    c.sweeps(5).await;
    assert_eq!(fleet.log_length().await, 2 * SATELLITES as i64);
    let declared = b.metric(POD_LOST).await + c.metric(POD_LOST).await;
    assert_eq!(declared, SATELLITES as f64);
    fleet.check().await;
}

#[tokio::test]
async fn a_session_that_is_over_is_taken_from_a_silent_pod_and_one_that_is_not_stays_with_it() {
    // Watched for three times a threshold.
    let fleet = Fleet::new(Timing { threshold: Duration::from_secs(15), ..SWEPT_OFTEN }).await;
    let mut a = fleet.pod("a").await;
    let b = fleet.pod("b").await;
    let (left, stays) = (b.register("left", "eu").await, b.register("stays", "eu").await);
    let leaving = Satellite::connect(a.address, &left).await;
    let _staying = Satellite::connect(a.address, &stays).await;
    leaving.close().await;
    fleet.expect_history(left.id, &["1 connected connect", "1 disconnected client_close"]).await;
    let sql = fleet.sql().await;
    let pod_of = async |satellite: Uuid| -> i32 {
        let query = "select pod from satellite_connections where satellite_id = $1";
        sql.query_one(query, &[&satellite]).await.expect("a row").get(0)
    };
    let held_by = pod_of(stays.id).await;
    assert_eq!(pod_of(left.id).await, held_by);
    a.kill();
    eventually("the session that is over to be nobody's", async || match pod_of(left.id).await {
        0 => Ok(()),
        pod => Err(pod.to_string()),
    })
    .await;
    assert_eq!(pod_of(stays.id).await, held_by);
    let _back = Satellite::connect(b.address, &left).await;
    assert_ne!(pod_of(left.id).await, 0);
}

/// Otherwise an update is not HOT, which is what makes edges and heartbeats cheap.
#[tokio::test]
async fn the_index_of_no_satellites_row_knows_more_of_it_than_whose_it_is_and_where() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let indexes = "
        select indexdef from pg_indexes where tablename = 'satellite_connections' order by 1";
    let rows = fleet.sql().await.query(indexes, &[]).await.expect("the catalogue");
    let definitions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        definitions,
        [
            "CREATE INDEX sessions_by_pod ON public.satellite_connections USING btree (pod)",
            "CREATE UNIQUE INDEX one_connection_a_satellite ON public.satellite_connections \
             USING btree (satellite_id)"
        ]
    );
}

#[tokio::test]
async fn a_satellite_that_goes_on_beating_is_not_lost() {
    let fleet = Fleet::new(BRISK).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let beating = a.register("beating", "eu").await;
    let silent = a.register("silent", "eu").await;
    let _heart = fleet.beating(&a, &beating).await;
    // It connects after the other, so its loss comes after the other's would have.
    let _silence = Satellite::connect(a.address, &silent).await;
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(silent.id, &lost).await;
    b.sweeps(2).await;
    assert_eq!(fleet.history(beating.id).await, ["1 connected connect"]);
    assert_eq!(b.show(beating.id).await["status"], "online");
    fleet.check().await;
}

#[tokio::test]
async fn a_threshold_of_its_own_counts_for_its_satellite_alone() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let pod = fleet.pod("a").await;
    let hasty = json!({"name": "hasty", "region": "eu", "offlineThresholdMs": 400});
    let (hasty, patient) = (pod.register_with(hasty).await, pod.register("patient", "eu").await);
    let _patience = Satellite::connect(pod.address, &patient).await;
    let _haste = Satellite::connect(pod.address, &hasty).await;
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(hasty.id, &lost).await;
    assert_eq!(fleet.history(patient.id).await, ["1 connected connect"]);
    fleet.check().await;
}

/// A satellite that beat and was declared lost while its socket survived.
async fn lost_on_a_surviving_socket(
    fleet: &Fleet,
    pod: &crate::harness::Pod,
) -> (Credentials, Satellite) {
    let credentials = pod.register("edge", "eu").await;
    let satellite = fleet.beating(pod, &credentials).await;
    satellite.fall_silent();
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(credentials.id, &lost).await;
    (credentials, satellite)
}

#[tokio::test]
async fn a_heartbeat_on_a_session_given_up_brings_it_back_as_recovered_and_it_can_be_lost_again() {
    let fleet = Fleet::new(BRISK).await;
    let (pod, other) = (fleet.pod("a").await, fleet.pod("b").await);
    let mut subscriber = fleet.subscribe().await;
    let (Credentials { id, .. }, satellite) = lost_on_a_surviving_socket(&fleet, &pod).await;
    satellite.beat();
    subscriber.expect("satellite.heartbeat_lost", id).await;
    let recovered = subscriber.expect("satellite.connected", id).await;
    assert_eq!(body(&recovered)["status"], "online");
    let mut history =
        vec!["1 connected connect", "1 heartbeat_lost heartbeat_timeout", "1 connected recovered"];
    fleet.expect_history(id, &history).await;
    assert_eq!(other.show(id).await["status"], "online");
    // The next real loss fires again.
    history.push("1 heartbeat_lost heartbeat_timeout");
    fleet.expect_history(id, &history).await;
    fleet.check().await;
}

#[tokio::test]
async fn the_end_of_a_connection_already_given_up_is_no_second_edge() {
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.pod("a").await;
    let (Credentials { id, .. }, satellite) = lost_on_a_surviving_socket(&fleet, &pod).await;
    satellite.close().await;
    pod.expect_metric(ALREADY_ENDED, 1.0).await;
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    assert_eq!(fleet.history(id).await, lost);
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_socket_that_says_nothing_for_long_is_closed_and_comes_back_as_a_new_connection() {
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.pod("a").await;
    let (credentials, mut satellite) = lost_on_a_surviving_socket(&fleet, &pod).await;
    assert_eq!(satellite.hear().await, Heard::Dropped);
    eventually("the session to end", async || {
        let sessions = pod.metric("groundstation_sessions").await;
        if sessions == 0.0 { Ok(()) } else { Err(sessions.to_string()) }
    })
    .await;
    let again = Satellite::connect(pod.address, &credentials).await;
    again.beat_every(fleet.timing.heartbeat);
    let history =
        ["1 connected connect", "1 heartbeat_lost heartbeat_timeout", "2 connected connect"];
    fleet.expect_history(credentials.id, &history).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_satellite_that_never_connected_is_offline_and_never_lost() {
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.pod("a").await;
    let Credentials { id, .. } = pod.register("edge", "eu").await;
    pod.sweeps(3).await;
    let shown = pod.show(id).await;
    assert_eq!((&shown["status"], &shown["lastSeenAt"]), (&json!("offline"), &json!(null)));
    assert!(shown.get("lastEvent").is_none() && shown.get("lastHeartbeatAt").is_none(), "{shown}");
    assert_eq!(fleet.history(id).await, Vec::<String>::new());
    let unknown = pod.get(&format!("/v1/satellites/{}", Uuid::new_v4())).await;
    assert_eq!(unknown.status, 404);
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_stood_still_reads_its_sockets_before_it_declares_a_loss() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    // So many are a brown-out by default, and held.
    let pod = fleet.plan("a").with("GROUNDSTATION_BROWN_OUT_FLOOR", "1000").start().await;
    let (mut all, mut satellites) = (Vec::new(), Vec::new());
    for n in 0..40 {
        let described =
            json!({"name": format!("edge-{n}"), "region": "eu", "offlineThresholdMs": 1_400});
        let credentials = pod.register_with(described).await;
        let satellite = Satellite::connect(pod.address, &credentials).await;
        satellite.beat_every(Duration::from_millis(100));
        all.push(credentials);
        satellites.push(satellite);
    }
    for _ in 0..3 {
        // Longer than their threshold, and shorter than what counts as blind. They go on beating.
        pod.suspend();
        tokio::time::sleep(Duration::from_millis(1_700)).await;
        pod.wake();
        pod.sweeps(5).await;
    }
    for credentials in &all {
        assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    }
    fleet.check().await;
}
