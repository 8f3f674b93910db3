//! Pods are replaced while their satellites go on: each satellite is taken over once, and none is lost.

use std::time::Duration;

use crate::harness::faults::{full, repetitions};
use crate::harness::fleet::{Plan, Timing};
use crate::harness::written::written;
use crate::harness::{Agents, Fleet, Heard, Onlooker, Pod, Proxy, Satellite, eventually, steady};

/// How long goodbyes are spread: enough that the satellites do not come back all at once.
const SPREAD: &str = "3s";

/// Nobody is to be lost, so that a plain run can have all the patience that a busy machine needs.
fn unhurried() -> Timing {
    let timing = steady();
    if full() { timing } else { Timing { threshold: timing.threshold * 2, ..timing } }
}

fn plan<'a>(fleet: &'a Fleet, name: &str) -> Plan<'a> {
    // In the field they come from many addresses.
    fleet
        .plan(name)
        .with("GROUNDSTATION_DRAIN_SPREAD", SPREAD)
        .with("GROUNDSTATION_MAX_HANDSHAKES_PER_ADDRESS", "100000")
        .with("GROUNDSTATION_MAX_CONNECTIONS_PER_ADDRESS", "100000")
}

async fn end(mut pod: Pod) {
    pod.terminate();
    let status = pod.exit().await;
    assert_eq!(status.code(), Some(0), "{}", pod.log());
    assert!(pod.logged("did not").is_none(), "{}", pod.log());
}

written!(
    #[ignore = "long: `make test-faults` runs it"]
    a_rolling_restart_takes_each_satellite_over_once_and_loses_none,
    #[ignore = "long: `make test-faults` runs it"]
    all_pods_replaced_at_once_lose_nobody,
);

#[tokio::test]
async fn a_rolling_restart_takes_each_satellite_over_once_and_loses_none() {
    let fleet = Fleet::new(unhurried()).await;
    let count = repetitions(60, 5_000) as usize;
    let (a, b) = (plan(&fleet, "a").start().await, plan(&fleet, "b").start().await);
    // Like a load balancer, it sends new connections to ready pods and leaves old ones alone.
    let balancer = Proxy::to(a.address).await;
    let mut beating = fleet.register_many("beating", count).await;
    let half = beating.split_off(count / 2);
    let on_a = Agents::start(&fleet, balancer.address, beating);
    on_a.expect_all_within(Duration::from_secs(120)).await;
    balancer.lead_to(b.address);
    let on_b = Agents::start(&fleet, balancer.address, half);
    on_b.expect_all_within(Duration::from_secs(120)).await;

    let (new_a, new_b) = (plan(&fleet, "new-a").start().await, plan(&fleet, "new-b").start().await);
    let onlooker = Onlooker::at(&fleet, &[new_a.address, new_b.address]);
    balancer.lead_to(new_a.address);
    end(a).await;
    on_a.expect_all_within(Duration::from_secs(60)).await;
    balancer.lead_to(new_b.address);
    end(b).await;
    on_b.expect_all_within(Duration::from_secs(60)).await;
    new_a.sweeps(5).await;

    assert_eq!(onlooker.saw_offline("beating").await, [""; 0]);
    assert_eq!(fleet.edges("beating", "heartbeat_lost").await, 0);
    assert_eq!(fleet.edges("beating", "disconnected").await, 0);
    assert_eq!(fleet.edges("beating", "connected").await, 2 * count as i64);
    assert_eq!(on_a.authenticated() + on_b.authenticated(), 2 * count as u64);
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn all_pods_replaced_at_once_lose_nobody() {
    let fleet = Fleet::new(unhurried()).await;
    let count = repetitions(30, 1_000) as usize;
    let (mut a, mut b) = (plan(&fleet, "a").start().await, plan(&fleet, "b").start().await);
    let addresses = [a.address, b.address];
    let mut beating = fleet.register_many("beating", count).await;
    let half = beating.split_off(count / 2);
    let agents =
        [Agents::start(&fleet, addresses[0], beating), Agents::start(&fleet, addresses[1], half)];
    for agents in &agents {
        agents.expect_all_within(Duration::from_secs(60)).await;
    }
    let onlooker = Onlooker::at(&fleet, &addresses);
    a.terminate();
    b.terminate();
    assert_eq!((a.exit().await.code(), b.exit().await.code()), (Some(0), Some(0)));
    let again = |name, address: std::net::SocketAddr| {
        plan(&fleet, name).with("GROUNDSTATION_LISTEN", &address.to_string()).start()
    };
    let (a, b) = tokio::join!(again("a", addresses[0]), again("b", addresses[1]));
    for agents in &agents {
        agents.expect_all_within(Duration::from_secs(90)).await;
    }
    a.sweeps(5).await;
    b.sweeps(5).await;
    assert_eq!(onlooker.saw_offline("beating").await, [""; 0]);
    assert_eq!(fleet.edges("beating", "heartbeat_lost").await, 0);
    assert_eq!(fleet.edges("beating", "connected").await, 2 * count as i64);
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_goes_on_unready_for_its_delay_and_hands_the_relay_over_at_once() {
    let fleet = Fleet::new(steady()).await;
    let mut leads = fleet.plan("leads").with("GROUNDSTATION_DRAIN_DELAY", "3s").start().await;
    leads.expect_metric("groundstation_relay_leader", 1.0).await;
    let follows = fleet.pod("follows").await;
    let edge = follows.register("edge", "eu").await;
    let mut satellite = Satellite::connect(leads.address, &edge).await;
    satellite.beat_every(fleet.timing.heartbeat);
    let mut subscriber = fleet.subscribe().await;
    leads.terminate();
    eventually("the pod to be unready", async || {
        let answer = leads.get("/readyz").await;
        if answer.status == 503 { Ok(()) } else { Err(answer.text) }
    })
    .await;
    // A satellite that is sent there all the same is told to come again, and another pod lets it in meanwhile.
    assert!(Satellite::try_open(leads.address).await.is_err(), "a draining pod took a socket");
    let other = follows.register("other", "eu").await;
    let _elsewhere = Satellite::connect(follows.address, &other).await;
    subscriber.expect("satellite.connected", other.id).await;
    assert_eq!(satellite.hear().await, Heard::Closed(1012));
    assert_eq!(leads.exit().await.code(), Some(0), "{}", leads.log());
    let sql = fleet.sql().await;
    const HOLDER: &str = "select holder, lease_expires_at > clock_timestamp() from relay";
    eventually("the lease to be handed over", async || {
        let row = sql.query_one(HOLDER, &[]).await.expect("the lease");
        let holder: Option<String> = row.get(0);
        if holder.as_deref() == Some("follows") { Ok(()) } else { Err(format!("{holder:?}")) }
    })
    .await;
    drop(satellite);
    let _back = Satellite::connect(follows.address, &edge).await;
    fleet.expect_history(edge.id, &["1 connected connect", "2 connected takeover"]).await;
    fleet.check().await;
}
