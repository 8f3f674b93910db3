//! The same credential on two pods at once, again and again: one session lives, and the history is that of one
//! satellite.

use crate::harness::faults::{chance, repetitions};
use crate::harness::{CALM, Fleet, Pod, Satellite, eventually};

/// Waits until both pods together hold this many sessions and no connect is under way.
async fn expect_sessions(pods: &[Pod; 2], expected: f64) {
    eventually(&format!("{expected} sessions"), async || {
        let mut found = [0.0, 0.0];
        for pod in pods {
            found[0] += pod.metric("groundstation_sessions").await;
            found[1] += pod.metric("groundstation_handshakes").await;
        }
        if found == [expected, 0.0] { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test]
async fn races_of_one_token_on_two_pods_leave_one_live_session_and_an_orderly_history() {
    let mut random = chance("races_of_one_token_on_two_pods");
    let fleet = Fleet::new(CALM).await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await];
    let edge = pods[0].register("edge", "eu").await;
    let mut kept = Vec::new();
    for _ in 0..repetitions(40, 1_000) {
        let race = pods.each_ref().map(|pod| Satellite::open(pod.address));
        let [one, two] = race;
        let (one, two) = tokio::join!(one, two);
        one.authenticate(&edge);
        two.authenticate(&edge);
        for satellite in [one, two] {
            satellite.beat();
            match random.u8(..4) {
                // It may have been told to go, or not been let in yet, so its end may come late or early.
                0 => satellite.vanish(),
                1 => satellite.send_frame(tokio_tungstenite::tungstenite::Message::Close(None)),
                _ => kept.push(satellite),
            }
        }
        if kept.len() > 8 {
            kept.drain(..4);
        }
    }
    drop(kept);
    expect_sessions(&pods, 0.0).await;
    let history = fleet.history(edge.id).await;
    let before = history.iter().filter(|line| line.contains(" connected ")).count();
    // The last race gets no help.
    let (one, two) =
        tokio::join!(Satellite::open(pods[0].address), Satellite::open(pods[1].address));
    for satellite in [&one, &two] {
        satellite.authenticate(&edge);
        satellite.beat_every(fleet.timing.heartbeat);
    }
    // One of them may hear of the other before its welcome.
    eventually("the race to be run", async || {
        let history = fleet.history(edge.id).await;
        let connected = history.iter().filter(|line| line.contains(" connected ")).count();
        if connected > before { Ok(()) } else { Err(format!("{connected}")) }
    })
    .await;
    expect_sessions(&pods, 1.0).await;

    let history = fleet.history(edge.id).await;
    let (mut newest, mut live) = (0, false);
    for line in &history {
        let mut words = line.split(' ');
        let session: i64 = words.next().expect("a session").parse().expect("a number");
        match (words.next().expect("an event"), words.next().expect("a reason")) {
            ("connected", reason) => {
                assert_eq!(session, newest + 1, "{history:?}");
                assert_eq!(reason, if live { "takeover" } else { "connect" }, "{history:?}");
                (newest, live) = (session, true);
            }
            ("disconnected", _) => {
                assert!(live && session == newest, "{line} in {history:?}");
                live = false;
            }
            _ => panic!("{line} in {history:?}"),
        }
    }
    assert!(live, "{history:?}");
    assert_eq!(pods[0].show(edge.id).await["status"], "online");
    fleet.check().await;
}
