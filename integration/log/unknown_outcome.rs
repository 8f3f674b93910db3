//! An edge is in the log exactly once, even if the answer to its COMMIT was lost.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use crate::harness::faults::{chance, repetitions};
use crate::harness::{CALM, Credentials, Fleet, Heard, Pod, Proxy, Satellite, eventually};

/// How many batches the pod has appended.
const APPENDED: &str = "groundstation_append_seconds_count";

/// Comes and goes until told to stop; returns how often it was let in.
async fn live(address: SocketAddr, credentials: Credentials, stop: CancellationToken) -> usize {
    let mut lives = 0;
    while !stop.is_cancelled() {
        // A pod without its database lets no satellite in: the satellite tries again.
        let Ok(mut satellite) = Satellite::try_open(address).await else { continue };
        satellite.authenticate(&credentials);
        match satellite.hear().await {
            Heard::Message(message) if message["type"] == "authenticated" => lives += 1,
            Heard::Closed(1013) | Heard::Dropped => continue,
            other => panic!("{other:?}"),
        }
        satellite.send_frame(Message::Close(None));
        assert!(matches!(satellite.hear().await, Heard::Closed(_)));
    }
    lives
}

/// Lets satellites come and go until `disturb` has broken the pod's connection to its database often enough, and
/// compares the log with what the satellites know.
async fn every_edge_is_there_once(satellites: usize, disturb: impl AsyncFnOnce(&Pod, &Proxy)) {
    let fleet = Fleet::new(CALM).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let stop = CancellationToken::new();
    let mut all = JoinSet::new();
    for n in 0..satellites {
        let credentials = pod.register(&format!("edge-{n}"), "eu").await;
        let (id, stop, address) = (credentials.id, stop.clone(), pod.address);
        all.spawn(async move { (id, live(address, credentials, stop).await) });
    }
    disturb(&pod, &database).await;
    stop.cancel();
    for (id, lives) in all.join_all().await {
        let expected: Vec<String> = (1..=lives)
            .flat_map(|n| {
                [format!("{n} connected connect"), format!("{n} disconnected client_close")]
            })
            .collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        fleet.expect_history(id, &expected).await;
    }
    fleet.check().await;
}

#[tokio::test]
async fn a_lost_answer_to_commit_is_found_in_the_log_and_not_appended_again() {
    every_edge_is_there_once(3, async |_, database| {
        for n in 1..=repetitions(12, 200) {
            database.lose_commits(1);
            eventually("the answer to be lost", async || {
                let lost = database.commits_lost();
                if lost == n { Ok(()) } else { Err(lost.to_string()) }
            })
            .await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_that_break_at_any_moment_lose_and_double_no_edge() {
    let failures = f64::from(repetitions(10, 200));
    let mut chance = chance("connections that break");
    every_edge_is_there_once(4, async |pod, database| {
        while pod.metric("groundstation_append_failures_total").await < failures {
            // A pod that has no time to connect again refuses satellites after their first edge.
            let appended = pod.metric(APPENDED).await;
            pod.expect_metric(APPENDED, appended + 4.0).await;
            // Spread over an append's milliseconds: each time it hits a different one.
            tokio::time::sleep(Duration::from_micros(chance.u64(0..150_000))).await;
            database.cut();
        }
    })
    .await;
}
