//! An edge is in the log exactly once, even where the answer to its COMMIT was lost.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{CALM, Credentials, Fleet, Heard, Proxy, Satellite};

/// Comes and goes until it was let in this many times.
async fn live(address: SocketAddr, credentials: Credentials, lives: usize) {
    let mut lived = 0;
    while lived < lives {
        // A pod without its database takes nobody: the satellite tries again.
        let Ok(mut satellite) = Satellite::try_open(address).await else { continue };
        satellite.authenticate(&credentials);
        match satellite.hear().await {
            Heard::Message(message) if message["type"] == "authenticated" => lived += 1,
            Heard::Closed(1013) | Heard::Dropped => continue,
            other => panic!("{other:?}"),
        }
        satellite.send_frame(Message::Close(None));
        assert!(matches!(satellite.hear().await, Heard::Closed(_)));
    }
}

fn expected(lives: usize) -> Vec<String> {
    (1..=lives)
        .flat_map(|n| [format!("{n} connected connect"), format!("{n} disconnected client_close")])
        .collect()
}

/// Lets satellites live while `disturb` spoils the way to the database, and checks the log.
async fn every_edge_is_there_once(
    satellites: usize,
    lives: usize,
    disturb: impl AsyncFn(&Proxy),
) -> Fleet {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let mut all = JoinSet::new();
    let mut ids = Vec::new();
    for n in 0..satellites {
        let credentials = pod.register(&format!("edge-{n}"), "eu").await;
        ids.push(credentials.id);
        all.spawn(live(pod.address, credentials, lives));
    }
    let finished = async { while all.join_next().await.transpose().expect("a life").is_some() {} };
    tokio::select! {
        () = disturb(&database) => panic!("the disturbance is to go on until the end"),
        () = finished => {}
    }
    database.lose_commits(0);
    let expected = expected(lives);
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    for id in ids {
        fleet.expect_history(id, &expected).await;
    }
    assert!(
        pod.metric("groundstation_append_failures_total").await >= 1.0,
        "nothing was disturbed"
    );
    fleet.check().await;
    fleet
}

#[tokio::test]
async fn a_lost_answer_to_commit_is_found_in_the_log_and_not_appended_again() {
    const LOST: u32 = 12;
    every_edge_is_there_once(4, 5, async |database| {
        // A third of all edges and more: one satellite's edges come one by one.
        database.lose_commits(LOST);
        crate::harness::eventually("the answers to be lost", async || {
            let lost = database.commits_lost();
            if lost == LOST { Ok(()) } else { Err(lost.to_string()) }
        })
        .await;
        std::future::pending::<()>().await;
    })
    .await;
}

#[tokio::test]
async fn connections_that_break_at_any_moment_lose_and_double_no_edge() {
    every_edge_is_there_once(6, 6, async |database| {
        // Moments spread over an append's milliseconds; which of them hit what differs each time.
        let mut pause = Duration::from_millis(100);
        loop {
            tokio::time::sleep(pause).await;
            database.cut();
            pause = Duration::from_micros(100_000 + (pause.as_micros() as u64 * 7_919) % 150_000);
        }
    })
    .await;
}
