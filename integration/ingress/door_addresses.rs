//! What an address does at the door counts against that address. The connection tells the address; a header does so
//! only if a configured proxy wrote it.

use std::net::SocketAddr;

use tokio_tungstenite::tungstenite::Error;
use uuid::Uuid;

use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, eventually};

const LIMIT: u32 = 4;

fn refusals(reason: &str) -> String {
    format!("groundstation_door_refusals_total{{reason=\"{reason}\"}}")
}

/// Opens a socket as a proxy does for this address. Returns the status and `Retry-After` if refused.
async fn open(pod: SocketAddr, client: &str) -> Result<Satellite, (u16, String)> {
    match Satellite::try_open_with(pod, &[("x-forwarded-for", client)]).await {
        Ok(satellite) => Ok(satellite),
        Err(Error::Http(answer)) => {
            let retry = answer.headers().get("retry-after");
            let retry = retry.map_or("", |value| value.to_str().expect("text"));
            Err((answer.status().as_u16(), retry.to_owned()))
        }
        Err(error) => panic!("{error}"),
    }
}

/// Fails to authenticate from this address.
async fn fail(pod: &Pod, client: &str) {
    let mut satellite = open(pod.address, client).await.expect("a socket");
    let nobody = Credentials { id: Uuid::new_v4(), token: "csat_void".to_owned() };
    satellite.authenticate(&nobody);
    satellite.expect("auth_failed").await;
}

async fn behind_a_proxy(fleet: &Fleet) -> Pod {
    let plan = fleet.plan("a").with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.0.0/8");
    let plan = plan.with("GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS_PER_ADDRESS", "4");
    plan.with("GROUNDSTATION_MAX_HANDSHAKES_PER_ADDRESS", "4").start().await
}

#[tokio::test]
async fn an_address_whose_authentications_fail_is_refused_before_the_upgrade_and_no_other_is() {
    let fleet = Fleet::new(CALM).await;
    let pod = behind_a_proxy(&fleet).await;
    let credentials = pod.register("edge", "eu").await;
    for _ in 0..LIMIT {
        fail(&pod, "198.51.100.1").await;
    }
    let refused = Some((429, "30".to_owned()));
    for _ in 0..20 {
        assert_eq!(open(pod.address, "198.51.100.1").await.err(), refused);
        // Whatever else the header claims: the proxy wrote the last entry.
        assert_eq!(open(pod.address, "203.0.113.5, 198.51.100.1").await.err(), refused);
    }
    pod.expect_metric(&refusals("failed_authentications_per_address"), 40.0).await;
    // None of the forty got as far as its credentials.
    let refused = pod.metric("groundstation_authentications_total{result=\"refused\"}").await;
    assert_eq!(refused, f64::from(LIMIT));

    let mut other = open(pod.address, "198.51.100.2").await.expect("a socket");
    other.authenticate(&credentials);
    other.expect("authenticated").await;
    fleet.expect_history(credentials.id, &["1 connected connect"]).await;
}

#[tokio::test]
async fn an_ipv6_network_of_64_bits_is_one_address() {
    let fleet = Fleet::new(CALM).await;
    let pod = behind_a_proxy(&fleet).await;
    for n in 1..=LIMIT {
        fail(&pod, &format!("2001:db8:1:2::{n}")).await;
    }
    let refused = open(pod.address, "2001:db8:1:2:aaaa:bbbb:cccc:dddd").await.err();
    assert_eq!(refused, Some((429, "30".to_owned())));
    assert!(open(pod.address, "2001:db8:1:3::1").await.is_ok());
}

#[tokio::test]
async fn sockets_that_are_not_authenticated_are_bounded_for_each_address() {
    let fleet = Fleet::new(CALM).await;
    let pod = behind_a_proxy(&fleet).await;
    let mut waiting = Vec::new();
    for _ in 0..LIMIT {
        waiting.push(open(pod.address, "198.51.100.1").await.expect("a socket"));
    }
    let refused = open(pod.address, "198.51.100.1").await.err();
    assert_eq!(refused, Some((429, "1".to_owned())));
    assert!(open(pod.address, "198.51.100.2").await.is_ok());
    assert_eq!(pod.metric(&refusals("handshakes_per_address")).await, 1.0);
    waiting.pop().expect("a socket").vanish();
    eventually("a place", async || {
        open(pod.address, "198.51.100.1").await.map(drop).map_err(|refused| format!("{refused:?}"))
    })
    .await;
}

#[tokio::test]
async fn what_a_stranger_forwards_is_not_believed() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_TRUSTED_PROXIES", "10.0.0.0/8");
    let plan = plan.with("GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS_PER_ADDRESS", "4");
    let pod = plan.start().await;
    for n in 1..=LIMIT {
        fail(&pod, &format!("198.51.100.{n}")).await;
    }
    let refused = open(pod.address, "198.51.100.99").await.err();
    assert_eq!(refused, Some((429, "30".to_owned())));
}

#[tokio::test]
async fn agents_with_void_credentials_that_come_back_for_ever_leave_the_others_alone() {
    let fleet = Fleet::new(CALM).await;
    let pod = behind_a_proxy(&fleet).await;
    let credentials = pod.register("honest", "eu").await;
    let mut honest = open(pod.address, "203.0.113.1").await.expect("a socket");
    honest.authenticate(&credentials);
    honest.expect("authenticated").await;
    honest.beat_every(fleet.timing.heartbeat);
    let mut comers = tokio::task::JoinSet::new();
    for agent in 0..20u8 {
        let pod = pod.address;
        comers.spawn(async move {
            // Each in a network of its own.
            let client = format!("198.51.{agent}.1");
            let nobody = Credentials { id: Uuid::new_v4(), token: "csat_void".to_owned() };
            for _ in 0..20 {
                if let Ok(mut satellite) = open(pod, &client).await {
                    satellite.authenticate(&nobody);
                    satellite.expect("auth_failed").await;
                }
            }
        });
    }
    comers.join_all().await;
    let refused = pod.metric("groundstation_authentications_total{result=\"refused\"}").await;
    // Four of each, and one in fifteen seconds.
    assert!((80.0..160.0).contains(&refused), "{refused}");
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    assert_eq!(pod.show(credentials.id).await["status"], "online");
    fleet.check().await;
}
