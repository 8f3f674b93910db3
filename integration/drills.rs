//! Disasters, rehearsed: `make drill` runs each on stores of its own and prints what an operator does and sees.
//!
//! What must hold in them is held by other tests too; here it is told in the operator's order, with the programs'
//! own words.

use std::collections::HashSet;
use std::time::Instant;

use crate::harness::backup::{PostgresBackup, StreamBackup};
use crate::harness::relaying::{come_and_go, expect_relay, with_nats_stopped};
use crate::harness::wait::blocking;
use crate::harness::{Agents, CALM, Credentials, Fleet, Pod, Proxy, eventually};
use crate::stream::audit::audit;

/// Tells a drill.
struct Teller {
    begun: Instant,
    told: HashSet<String>,
}

impl Teller {
    fn begin(title: &str) -> Teller {
        println!("\n== {title}");
        Teller { begun: Instant::now(), told: HashSet::new() }
    }

    /// What happens, or what the operator does.
    fn now(&self, what: &str) {
        println!("{:6.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    fn sees(&self, what: &str) {
        println!("          | {what}");
    }

    /// What a pod says of itself, and its warnings and errors since it was looked at last.
    async fn sees_pod(&mut self, pod: &Pod) {
        self.sees_log(pod);
        let ready = pod.get("/readyz").await;
        self.sees(&format!("{} /readyz {} {}", pod.name, ready.status, ready.text));
    }

    fn sees_log(&mut self, pod: &Pod) {
        for line in pod.log().lines() {
            let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let is_loud = line["level"] == "WARN" || line["level"] == "ERROR";
            let told = format!("{} {}: {}", pod.name, line["level"], line["message"]);
            if is_loud && self.told.insert(told.clone()) {
                self.sees(&told);
            }
        }
    }

    /// Runs `groundstation audit`; returns whether log and stream agree.
    async fn audits(&self, fleet: &Fleet, arguments: &[&str]) -> bool {
        self.now(&format!("groundstation audit {}", arguments.join(" ")));
        let ended = audit(fleet, arguments).await;
        for line in ended.out.lines().chain(ended.err.lines()).take(12) {
            self.sees(line);
        }
        ended.is_ok
    }
}

async fn expect_unready(pod: &Pod) {
    eventually("the pod to be unready", async || {
        let answer = pod.get("/readyz").await;
        if answer.status == 200 { Err(answer.text) } else { Ok(()) }
    })
    .await;
}

/// Some edges of one satellite.
async fn edges(pod: &Pod, satellite: &Credentials) {
    for _ in 0..10 {
        come_and_go(pod, satellite).await;
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_is_lost() {
    let mut teller = Teller::begin("Loss of a pod");
    let fleet = Fleet::new(CALM).await;
    let (mut a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let balancer = Proxy::to(a.address).await;
    let agents = Agents::start(&fleet, balancer.address, fleet.register(&a, "agent", 10).await);
    agents.expect_all().await;
    teller.now("ten satellites are online on pod a, of two pods; a is killed");
    a.kill();
    balancer.lead_to(b.address);
    eventually("all to be back", async || match agents.authenticated() {
        20.. => Ok(()),
        back => Err(back.to_string()),
    })
    .await;
    teller.now("all ten are back, on pod b");
    teller.sees_pod(&b).await;
    for (event, edges) in
        [("connected", 20), ("disconnected", 0), ("heartbeat_lost", 0)].map(|(e, n)| (e, n as i64))
    {
        let found = fleet.edges("agent", event).await;
        teller.sees(&format!("{found} {event} in the log"));
        assert_eq!(found, edges, "{event}");
    }
    expect_relay(&b, "leading").await;
    teller.now("pod b relays");
    fleet.check().await;
    assert!(teller.audits(&fleet, &[]).await);
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_stream_is_lost() {
    let mut teller = Teller::begin("Loss of the stream");
    let fleet = Fleet::with_own_nats(CALM).await;
    let pod = fleet.pod("a").await;
    let satellite = pod.register("edge", "eu").await;
    edges(&pod, &satellite).await;
    fleet.check().await;
    teller.now("twenty transitions are in the log and on the stream; NATS loses its disk and is started again");
    let fleet = with_nats_stopped(fleet, |streams| {
        std::fs::remove_dir_all(streams).expect("the streams are gone");
    })
    .await;
    expect_relay(&pod, "leading").await;
    fleet.check().await;
    teller.now("the whole log is on the stream again, in order");
    teller.sees_pod(&pod).await;
    assert!(teller.audits(&fleet, &[]).await);
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn postgres_fails_over() {
    let mut teller = Teller::begin("Fail-over of Postgres to a synchronous standby");
    let (fleet, mut primary, standby) = Fleet::with_standby(CALM, "*").await;
    let pod = fleet.pod("a").await;
    let agents = Agents::start(&fleet, pod.address, fleet.register(&pod, "agent", 10).await);
    agents.expect_all().await;
    teller.now("ten satellites are online; the primary is killed");
    primary.kill();
    expect_unready(&pod).await;
    teller.sees_pod(&pod).await;
    teller.now("the standby is promoted");
    let _standby = fleet.promote(standby).await;
    let promoted = Instant::now();
    pod.expect_ready().await;
    teller.now(&format!("the pod is ready again, {:.1?} after the promotion", promoted.elapsed()));
    teller.sees_pod(&pod).await;
    assert_eq!(fleet.edges("agent", "heartbeat_lost").await, 0);
    teller.sees("0 heartbeat_lost in the log; every socket stayed up");
    assert_eq!(agents.authenticated(), 10);
    assert!(teller.audits(&fleet, &[]).await);
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn both_stores_are_restored_from_backups() {
    let mut teller = Teller::begin("Restore of both stores");
    let mut fleet = Fleet::with_own_stores(CALM).await;
    let mut pod = fleet.pod("before").await;
    let satellite = pod.register("edge", "eu").await;
    edges(&pod, &satellite).await;
    fleet.check().await;
    teller.now("backups are taken while pods run: the stream first, the database after");
    let stream = StreamBackup::take(&fleet.nats().await).await;
    edges(&pod, &satellite).await;
    let mut postgres = PostgresBackup::begin(&fleet.database_url).await;
    postgres.end();
    edges(&pod, &satellite).await;
    fleet.check().await;
    teller.now("both stores are lost; the pods are ended");
    pod.kill();
    fleet.lose_postgres();
    fleet.lose_nats();
    let (restored, postgres) = blocking(move || (postgres.restore(), postgres)).await;
    fleet.has_postgres(restored);
    drop(postgres);
    fleet.has_new_nats().await;
    stream.restore(&fleet.nats().await).await;
    let length = fleet.log_length().await;
    teller.now(&format!(
        "both are restored: {length} of 60 transitions in the log, {} on the stream",
        stream.last_sequence()
    ));
    let repair = ["--wait", "10ms", "--repair", "--new-epoch", "--yes"];
    assert!(teller.audits(&fleet, &repair).await);
    teller.now("pods are started");
    let pod = fleet.pod("after").await;
    expect_relay(&pod, "leading").await;
    edges(&pod, &satellite).await;
    fleet.expect_log_length(length + 20).await;
    teller.sees_pod(&pod).await;
    eventually("log and stream to agree", async || {
        let ended = audit(&fleet, &[]).await;
        if ended.is_ok { Ok(()) } else { Err(ended.out) }
    })
    .await;
    assert!(teller.audits(&fleet, &["--chain"]).await);
}
