//! Each transition is on the stream once and in order, whichever pod relays and whatever dies.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;

use crate::harness::log_and_stream::{differences, read_log, read_stream};
use crate::harness::relaying::{
    STREAM, come_and_go, expect_relay, forgetful_stream, leader_and_standby, relay_state,
};
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Proxy, Satellite, eventually};

#[tokio::test]
async fn another_pod_relays_within_ten_seconds_of_the_relays_death() {
    let fleet = Fleet::new(CALM).await;
    let (mut leader, standby) = leader_and_standby(&fleet).await;
    assert_eq!(relay_state(&standby).await["state"], "standby");
    let credentials = standby.register("edge", "eu").await;
    for _ in 0..5 {
        come_and_go(&standby, &credentials).await;
    }
    let mut subscriber = fleet.subscribe().await;
    leader.kill();
    let died = Instant::now();
    let late = standby.register("late", "eu").await;
    let _satellite = Satellite::connect(standby.address, &late).await;
    subscriber.expect("satellite.connected", late.id).await;
    assert!(died.elapsed() < Duration::from_secs(10), "{:?}", died.elapsed());
    expect_relay(&standby, "leading").await;
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_that_ends_in_order_hands_the_relay_over_at_once() {
    let fleet = Fleet::new(CALM).await;
    let (mut leader, standby) = leader_and_standby(&fleet).await;
    leader.terminate();
    leader.exit().await;
    let ended = Instant::now();
    expect_relay(&standby, "leading").await;
    // Shorter than a lease.
    assert!(ended.elapsed() < Duration::from_millis(4_500), "{:?}", ended.elapsed());
    fleet.check().await;
}

fn header(message: &async_nats::Message, name: &str) -> String {
    let headers = message.headers.as_ref().expect("headers");
    headers.get(name).expect(name).to_string()
}

/// Waits until the stream no longer knows this message id.
async fn forgotten(fleet: &Fleet, id: &str) {
    let jetstream = jetstream::new(fleet.nats().await);
    eventually("the stream to forget", async || {
        // Never stored: it is either a duplicate, or does not follow.
        let message = PublishMessage::build().message_id(id).expected_last_sequence(u64::MAX >> 1);
        let sent = jetstream.send_publish("satellite.connected", message).await.expect("sent");
        match sent.await {
            Ok(ack) => Err(format!("{ack:?}")),
            Err(refused) if refused.kind() == PublishErrorKind::WrongLastSequence => Ok(()),
            Err(other) => panic!("{other}"),
        }
    })
    .await;
}

#[tokio::test]
async fn a_relay_that_sleeps_longer_than_its_lease_doubles_nothing_when_it_wakes() {
    let fleet = Fleet::new(CALM).await;
    forgetful_stream(&fleet).await;
    let (sleeper, other) = leader_and_standby(&fleet).await;
    let credentials = other.register("edge", "eu").await;
    let mut subscriber = fleet.subscribe().await;
    sleeper.suspend();
    for _ in 0..20 {
        come_and_go(&other, &credentials).await;
    }
    expect_relay(&other, "leading").await;
    let last = other.register("last", "eu").await;
    let _satellite = Satellite::connect(other.address, &last).await;
    let newest = subscriber.expect("satellite.connected", last.id).await;
    forgotten(&fleet, &header(&newest, "Nats-Msg-Id")).await;
    sleeper.wake();
    // It goes on where it stopped, and notices.
    sleeper.expect_log("this pod no longer relays").await;
    expect_relay(&sleeper, "standby").await;
    come_and_go(&sleeper, &credentials).await;
    fleet.check().await;
}

#[tokio::test]
async fn nats_that_dies_while_edges_flow_gets_them_all_in_order_when_it_is_back() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let pod = fleet.pod("a").await;
    expect_relay(&pod, "leading").await;
    let credentials = pod.register("edge", "eu").await;
    for _ in 0..3 {
        for _ in 0..5 {
            come_and_go(&pod, &credentials).await;
        }
        fleet.own_nats().kill();
        for _ in 0..5 {
            come_and_go(&pod, &credentials).await;
        }
        eventually("the pod to know", async || {
            let report = pod.get("/readyz").await;
            assert_eq!(report.status, 200, "a pod is ready without NATS");
            if report.json()["nats"] == "down" { Ok(()) } else { Err(report.text) }
        })
        .await;
        fleet = blocking(move || {
            fleet.own_nats().restart().expect("NATS restarts");
            fleet
        })
        .await;
    }
    come_and_go(&pod, &credentials).await;
    fleet.expect_log_length(2 * 31).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_pod_starts_without_nats_says_so_and_its_edges_arrive_when_nats_does() {
    let fleet = Fleet::new(CALM).await;
    let (nats, nats_url) = Proxy::before(&fleet.nats_url).await;
    nats.refuse();
    let pod = fleet.plan("a").with("NATS_URL", &nats_url).start().await;
    let said = pod.expect_log("cannot reach NATS").await;
    assert!(["WARN", "ERROR"].contains(&said["level"].as_str().expect("a level")), "{said}");
    assert_eq!(pod.get("/readyz").await.json()["nats"], "down");
    let mut subscriber = fleet.subscribe().await;
    let credentials = pod.register("edge", "eu").await;
    come_and_go(&pod, &credentials).await;
    nats.admit();
    subscriber.expect("satellite.connected", credentials.id).await;
    subscriber.expect("satellite.disconnected", credentials.id).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_stream_that_was_lost_is_made_again_from_the_whole_log() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    for _ in 0..3 {
        come_and_go(&pod, &credentials).await;
    }
    fleet.expect_log_length(6).await;
    fleet.check().await;
    let sql = fleet.sql().await;
    eventually("the relay to remember where it is", async || {
        let row = sql.query_one("select position from relay", &[]).await.expect("the relay's row");
        let position: i64 = row.get(0);
        if position == 6 { Ok(()) } else { Err(position.to_string()) }
    })
    .await;
    let jetstream = jetstream::new(fleet.nats().await);
    jetstream.delete_stream(STREAM).await.expect("the stream is deleted");
    come_and_go(&pod, &credentials).await;
    fleet.expect_log_length(8).await;
    fleet.check().await;
}

#[tokio::test]
async fn somebody_elses_message_on_our_subjects_is_passed_over_and_counted() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    come_and_go(&pod, &credentials).await;
    fleet.expect_log_length(2).await;
    fleet.check().await;
    let nats = fleet.nats().await;
    let jetstream = jetstream::new(nats.clone());
    for _ in 0..3 {
        let foreign = jetstream.publish("satellite.connected", "{}".into()).await;
        foreign.expect("published").await.expect("stored");
    }
    come_and_go(&pod, &credentials).await;
    fleet.expect_log_length(4).await;
    let sql = fleet.sql().await;
    eventually("our messages to be those of the log", async || {
        let mut stream = read_stream(&nats).await;
        stream.retain(|message| message.headers.contains_key("Groundstation-Position"));
        let found = differences(&read_log(&sql).await, &stream);
        if found.is_empty() { Ok(()) } else { Err(found.join("\n")) }
    })
    .await;
    assert_eq!(read_stream(&nats).await.len(), 4 + 3);
    assert_eq!(pod.metric("groundstation_relay_foreign_messages_total").await, 3.0);
}

#[tokio::test]
async fn a_database_restored_to_the_past_halts_the_relay_which_says_so_and_touches_nothing() {
    let fleet = Fleet::new(CALM).await;
    let mut first = fleet.pod("first").await;
    let credentials = first.register("edge", "eu").await;
    come_and_go(&first, &credentials).await;
    fleet.expect_log_length(2).await;
    fleet.check().await;
    first.terminate();
    first.exit().await;
    const RESTORE: &str = "
        alter table entity_transitions disable trigger all;
        delete from entity_transitions where position = 2;
        alter table entity_transitions enable trigger all;
        update satellite_connections
           set revision = 1, last_event = 'connected', last_heartbeat_at = clock_timestamp()";
    fleet.sql().await.batch_execute(RESTORE).await.expect("restored");

    let second = fleet.pod("second").await;
    let halted = expect_relay(&second, "halted").await;
    assert!(halted["reason"].as_str().expect("a reason").contains("ahead"), "{halted}");
    assert_eq!(second.metric("groundstation_relay_halted").await, 1.0);
    assert_eq!(second.expect_log("the relay has halted").await["level"], "ERROR");
    // Edges go on being appended, and the stream stays as it is.
    let satellite = Satellite::connect(second.address, &credentials).await;
    assert_eq!(fleet.history(credentials.id).await.last().unwrap(), "2 connected takeover");
    let halted = eventually("the other contradiction", async || {
        let relay = relay_state(&second).await;
        let says = relay["reason"].as_str().is_some_and(|r| r.contains("another change"));
        if says { Ok(relay) } else { Err(relay.to_string()) }
    })
    .await;
    assert_eq!(halted["state"], "halted");
    assert_eq!(read_stream(&fleet.nats().await).await.len(), 2);
    drop(satellite);
}
