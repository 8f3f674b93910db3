//! Many satellites on several pods at once leave one log without a gap, and a stream equal to it.

use tokio::task::JoinSet;
use uuid::Uuid;

use crate::harness::{CALM, Fleet, Satellite};

#[tokio::test]
async fn satellites_that_come_and_go_on_three_pods_at_once_are_in_one_log_without_a_gap() {
    const SATELLITES: usize = 30;
    const LIVES: usize = 4;
    let fleet = Fleet::new(CALM).await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await, fleet.pod("c").await];
    let mut lives = JoinSet::new();
    let mut ids: Vec<Uuid> = Vec::new();
    for n in 0..SATELLITES {
        let pod = &pods[n % pods.len()];
        let address = pod.address;
        let credentials = pod.register(&format!("edge-{n}"), "eu").await;
        ids.push(credentials.id);
        lives.spawn(async move {
            for _ in 0..LIVES {
                Satellite::connect(address, &credentials).await.close().await;
            }
        });
    }
    lives.join_all().await;
    let expected: Vec<String> = (1..=LIVES)
        .flat_map(|n| [format!("{n} connected connect"), format!("{n} disconnected client_close")])
        .collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    for id in ids {
        fleet.expect_history(id, &expected).await;
    }
    fleet.check().await;
}

#[tokio::test]
async fn one_credential_used_on_three_pods_at_once_leaves_the_newest_session_alone() {
    const ROUNDS: usize = 8;
    let fleet = Fleet::new(CALM).await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await, fleet.pod("c").await];
    let credentials = pods[0].register("edge", "eu").await;
    let mut agents = JoinSet::new();
    for pod in &pods {
        let (address, credentials) = (pod.address, credentials.clone());
        agents.spawn(async move {
            let mut sockets = Vec::new();
            for _ in 0..ROUNDS {
                let satellite = Satellite::open(address).await;
                satellite.authenticate(&credentials);
                sockets.push(satellite);
            }
            sockets
        });
    }
    let mut sockets: Vec<Satellite> = agents.join_all().await.into_iter().flatten().collect();
    let sessions = pods.len() * ROUNDS;
    // A session that is not the newest is told so, before or after it was let in.
    let mut left = Vec::new();
    for mut socket in sockets.drain(..) {
        socket.hear().await;
        left.push(socket);
    }
    crate::harness::eventually("one session to be left", async || {
        let mut held = 0.0;
        for pod in &pods {
            held += pod.metric("groundstation_sessions").await;
        }
        if held == 1.0 { Ok(()) } else { Err(held.to_string()) }
    })
    .await;
    let history = fleet.history(credentials.id).await;
    let takeovers = (2..=sessions).map(|n| format!("{n} connected takeover"));
    let expected: Vec<String> =
        ["1 connected connect".to_owned()].into_iter().chain(takeovers).collect();
    assert_eq!(history, expected);
    assert_eq!(pods[0].show(credentials.id).await["status"], "online");
    fleet.check().await;
}
