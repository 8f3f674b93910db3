//! A row that another transaction keeps locked (an open psql) holds back its own satellite and no other.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::harness::relaying::come_and_go;
use crate::harness::written::written;
use crate::harness::{
    BRISK, CALM, Credentials, Fleet, Onlooker, Pod, Satellite, eventually, within,
};

const APPEND_FAILURES: &str = "groundstation_append_failures_total";
const FLUSH_FAILURES: &str = "groundstation_heartbeat_flush_failures_total";
const RECEIVED: &str = "groundstation_heartbeats_received_total";

/// What ten edges may take on a busy machine. An edge that waits for a row takes longer than its share.
const PROMPTLY: Duration = Duration::from_secs(8);

const REGISTRY_ROW: &str = "select from satellites where id = $1 for update";
const CONNECTION_ROW: &str = "select from satellite_connections where satellite_id = $1 for update";

/// Another client's transaction, open until released.
struct Holder(Client);

impl Holder {
    async fn of(fleet: &Fleet, locks: &[&str], satellite: Uuid) -> Holder {
        let sql = fleet.sql().await;
        sql.batch_execute("begin").await.expect("a transaction");
        for lock in locks {
            // Pods hold a row for milliseconds.
            sql.query_one(*lock, &[&satellite]).await.expect("a row that can be locked");
        }
        Holder(sql)
    }

    async fn let_go(self) {
        self.0.batch_execute("rollback").await.expect("it was open all the time");
    }
}

/// Satellites come and go on a pod, and wait for no other satellite.
async fn expect_flow(pod: &Pod, others: &[Credentials]) {
    let begun = Instant::now();
    for _ in 0..5 {
        for credentials in others {
            come_and_go(pod, credentials).await;
        }
    }
    assert!(begun.elapsed() < PROMPTLY, "held up: {:?}", begun.elapsed());
    assert_eq!(pod.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_held_row_of_the_registry_holds_back_its_own_satellite_and_its_edges_come_in_order() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let held = pod.register("held", "eu").await;
    let others = fleet.register(&pod, "other", 2).await;
    let leaving = Satellite::connect(pod.address, &held).await;
    let holder = Holder::of(&fleet, &[REGISTRY_ROW], held.id).await;
    leaving.close().await;
    let mut coming = Satellite::open(pod.address).await;
    coming.authenticate(&held);
    coming.expect_sent().await;

    expect_flow(&pod, &others).await;
    pod.expect_metric("groundstation_locked_satellites{what=\"edges\"}", 1.0).await;
    expect_flow(&pod, &others).await;
    assert_eq!(pod.metric(APPEND_FAILURES).await, 0.0, "a held row is no failure of the log");
    assert_eq!(fleet.history(held.id).await, ["1 connected connect"]);

    holder.let_go().await;
    coming.expect("authenticated").await;
    let history = ["1 connected connect", "1 disconnected client_close", "2 connected connect"];
    assert_eq!(fleet.history(held.id).await, history);
    eventually("the pod to hold nobody back", async || {
        let held = pod.metric("groundstation_locked_satellites{what=\"edges\"}").await;
        if held == 0.0 { Ok(()) } else { Err(held.to_string()) }
    })
    .await;
    fleet.check().await;
}

#[tokio::test]
async fn a_held_row_of_a_connection_holds_back_no_edge_of_another_pod() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let mut both = fleet.register(&a, "edge", 2).await;
    // Rows are locked in this order: a transaction that waits for the second has the first.
    both.sort_by_key(|credentials| credentials.id);
    let (roaming, held) = (&both[0], &both[1]);
    let beating = Satellite::connect(a.address, held).await;
    let mut sockets = vec![Satellite::connect(a.address, roaming).await];
    let holder = Holder::of(&fleet, &[CONNECTION_ROW], held.id).await;
    beating.beat_every(Duration::from_millis(50));
    sockets[0].beat_every(Duration::from_millis(50));
    let received = a.metric(RECEIVED).await;
    a.expect_metric(RECEIVED, received + 10.0).await;

    let begun = Instant::now();
    for n in 0..5 {
        for pod in [&b, &a] {
            let socket = Satellite::connect(pod.address, roaming).await;
            socket.beat_every(Duration::from_millis(50));
            let received = pod.metric(RECEIVED).await;
            pod.expect_metric(RECEIVED, received + 10.0).await;
            sockets.push(socket);
            assert!(begun.elapsed() < PROMPTLY * 2, "round {n}: {:?}", begun.elapsed());
        }
    }
    for pod in [&a, &b] {
        assert_eq!(pod.metric(FLUSH_FAILURES).await, 0.0, "{}", pod.name);
        assert_eq!(pod.metric(APPEND_FAILURES).await, 0.0, "{}", pod.name);
    }
    holder.let_go().await;
    assert_eq!(fleet.history(held.id).await, ["1 connected connect"]);
    fleet.check().await;
}

written!(
    #[ignore = "long: `make test-faults` runs it"]
    held_rows_of_a_patient_satellite_get_nobody_of_its_pod_called_lost,
);

#[tokio::test]
async fn held_rows_of_a_patient_satellite_get_nobody_of_its_pod_called_lost() {
    let fleet = Fleet::new(BRISK).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let patient = json!({"name": "patient", "region": "eu", "offlineThresholdMs": 3_600_000});
    let patient = a.register_with(patient).await;
    let mut sockets = Vec::new();
    for credentials in fleet.register(&a, "beating", 6).await {
        let socket = Satellite::connect(a.address, &credentials).await;
        socket.beat_every(fleet.timing.heartbeat);
        sockets.push(socket);
    }
    let socket = Satellite::connect(a.address, &patient).await;
    let holder = Holder::of(&fleet, &[REGISTRY_ROW, CONNECTION_ROW], patient.id).await;
    // Its first heartbeat carries its version, which is stored in the registry's row.
    socket.beat_every(fleet.timing.heartbeat);
    let onlooker = Onlooker::at(&fleet, &[a.address, b.address]);
    // By then every false loss would have been declared.
    sleep(fleet.timing.threshold + Duration::from_secs(4)).await;
    b.sweeps(5).await;
    assert_eq!(fleet.edges("beating", "heartbeat_lost").await, 0);
    assert_eq!(onlooker.saw_offline("").await, [""; 0]);
    assert_eq!(a.metric(FLUSH_FAILURES).await, 0.0);
    holder.let_go().await;
    eventually("what the patient one said to be kept", async || {
        let shown = b.show(patient.id).await;
        if shown["version"] == "0.5.0" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(fleet.history(patient.id).await, ["1 connected connect"]);
    fleet.check().await;
}

#[tokio::test]
async fn a_satellite_whose_row_is_held_for_longer_than_its_threshold_is_not_lost_while_it_is_heard()
{
    let fleet = Fleet::new(BRISK).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let held = a.register("held", "eu").await;
    let socket = Satellite::connect(a.address, &held).await;
    // Before its first heartbeat: from then on its pod vouches for it, and has nothing to write.
    let holder = Holder::of(&fleet, &[CONNECTION_ROW], held.id).await;
    socket.beat_every(fleet.timing.heartbeat);
    // By then it would be lost, had it not been heard.
    sleep(fleet.timing.threshold + Duration::from_secs(4)).await;
    let told = a.metric("groundstation_locked_satellites{what=\"heartbeats\"}").await;
    holder.let_go().await;
    let said = eventually("it to be online again", async || {
        let shown = b.show(held.id).await;
        if shown["status"] == "online" { Ok(shown) } else { Err(shown.to_string()) }
    })
    .await;
    assert_eq!(said["lastEvent"], "connected");
    a.sweeps(5).await;
    b.sweeps(5).await;
    assert_eq!(fleet.history(held.id).await, ["1 connected connect"]);
    assert_eq!(told, 1.0, "operators are told");
    fleet.check().await;
}

#[tokio::test]
async fn a_loss_that_waits_for_a_held_row_keeps_no_other_from_being_declared() {
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.pod("a").await;
    let both = fleet.register(&pod, "edge", 2).await;
    let mut sockets = Vec::new();
    for credentials in &both {
        sockets.push(Satellite::connect(pod.address, credentials).await);
    }
    sockets[1].beat_every(fleet.timing.heartbeat);
    let holder = Holder::of(&fleet, &[CONNECTION_ROW], both[0].id).await;
    let received = pod.metric(RECEIVED).await;
    pod.expect_metric(RECEIVED, received + 5.0).await;
    // The first is due and cannot be declared; then the second falls silent.
    pod.expect_metric("groundstation_losses_locked_total", 1.0).await;
    sockets[1].fall_silent();
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    within(fleet.timing.threshold + PROMPTLY, "the second to be lost", async || {
        let history = fleet.history(both[1].id).await;
        if history == lost { Ok(()) } else { Err(format!("{history:?}")) }
    })
    .await;
    assert_eq!(fleet.history(both[0].id).await, ["1 connected connect"]);
    holder.let_go().await;
    fleet.expect_history(both[0].id, &lost).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_removal_waits_for_whoever_holds_anything_of_its_satellite_and_holds_up_nobody() {
    const KEY: &str = "select from satellites where id = $1 for key share";
    const ASSIGNMENTS: &str = "select from satellite_assignments where satellite_id = $1 for share";
    for lock in [KEY, ASSIGNMENTS] {
        let fleet = Fleet::new(CALM).await;
        let pod = fleet.pod("a").await;
        let held = pod.register("held", "eu").await;
        pod.assign(held.id, &json!([])).await;
        come_and_go(&pod, &held).await;
        let others = fleet.register(&pod, "other", 2).await;
        let holder = Holder::of(&fleet, &[lock], held.id).await;
        let (removed, ()) = tokio::join!(pod.remove(held.id), async {
            for _ in 0..3 {
                expect_flow(&pod, &others).await;
            }
            pod.expect_metric("groundstation_locked_satellites{what=\"edges\"}", 1.0).await;
            assert_eq!(pod.metric(APPEND_FAILURES).await, 0.0);
            holder.let_go().await;
        });
        // Accepted; the answer depends on how long it had to wait.
        assert!([204, 503].contains(&removed.status), "{removed:?}");
        let history = ["1 connected connect", "1 disconnected client_close", "1 removed removed"];
        fleet.expect_history(held.id, &history).await;
        fleet.check().await;
    }
}

#[tokio::test]
async fn a_pod_ends_in_time_while_somebody_holds_a_row_and_says_what_is_missing() {
    let fleet = Fleet::new(CALM).await;
    let mut pod = fleet.plan("a").with("GROUNDSTATION_DRAIN_DEADLINE", "8s").start().await;
    let held = pod.register("held", "eu").await;
    let others = fleet.register(&pod, "other", 1).await;
    let leaving = Satellite::connect(pod.address, &held).await;
    let other = Satellite::connect(pod.address, &others[0]).await;
    let holder = Holder::of(&fleet, &[REGISTRY_ROW], held.id).await;
    leaving.close().await;
    other.close().await;
    let gone = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(others[0].id, &gone).await;
    let asked = Instant::now();
    pod.terminate();
    let status = pod.exit().await;
    assert!(asked.elapsed() < Duration::from_secs(8) + PROMPTLY, "{:?}", asked.elapsed());
    assert!(!status.success(), "an edge is missing");
    assert!(pod.log().contains("locked"), "{}", pod.log());
    holder.let_go().await;
    assert_eq!(fleet.history(held.id).await, ["1 connected connect"]);
    fleet.check().await;
}
