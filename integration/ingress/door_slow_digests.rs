//! The digests of imported satellites are slow to verify. Strangers that know ids of such satellites keep nobody else
//! waiting for long.

use std::net::{IpAddr, Ipv4Addr};

use tokio::time::Instant;

use crate::harness::{CALM, Credentials, Fleet, Satellite};

/// Long enough that most of those that come at once still wait when the next comes.
const COST: u32 = 11;

/// Satellites whose tokens have a slow digest.
async fn imported(fleet: &Fleet, count: usize) -> Vec<Credentials> {
    let token = "csat_made_elsewhere";
    let hash = bcrypt::hash(token, COST).expect("a hash");
    let sql = fleet.sql().await;
    let mut all = fleet.register_many("imported", count).await;
    for credentials in &mut all {
        let stored = "update satellites set token_hash = $2 where id = $1";
        assert_eq!(sql.execute(stored, &[&credentials.id, &hash]).await.expect("stored"), 1);
        token.clone_into(&mut credentials.token);
    }
    all
}

fn address(network: u8, n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, network, n).into()
}

#[tokio::test]
async fn who_knows_the_ids_of_eight_imported_satellites_keeps_no_other_out() {
    const REFUSED: &str = "groundstation_authentications_total{result=\"refused\"}";
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_AUTHENTICATION_TIMEOUT", "60s");
    let pod = plan.start().await;
    let mut known = imported(&fleet, 9).await;
    let honest = known.pop().expect("one");
    let mut strangers = Vec::new();
    for _ in 0..32 {
        let opened = Satellite::try_open_from(pod.address, address(8, 1)).await;
        strangers.push(opened.expect("a socket"));
    }
    for (stranger, Credentials { id, .. }) in strangers.iter().zip(known.iter().cycle()) {
        stranger.authenticate(&Credentials { id: *id, token: "wrong".to_owned() });
    }
    pod.expect_metric(REFUSED, 1.0).await;
    let began = Instant::now();
    let opened = Satellite::try_open_from(pod.address, address(9, 1)).await;
    let mut satellite = opened.expect("a socket");
    satellite.authenticate(&honest);
    satellite.expect("authenticated").await;
    println!("let in after {:?}", began.elapsed());
    assert!(pod.metric(REFUSED).await < 16.0, "it waited for most of the others");
    // One of the known satellites comes in as well, though all of its own places are taken.
    let opened = Satellite::try_open_from(pod.address, address(9, 2)).await;
    let mut attacked = opened.expect("a socket");
    attacked.authenticate(&known[7]);
    attacked.expect("authenticated").await;
}
