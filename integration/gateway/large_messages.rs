//! A result may be as large as a page: it is accepted, its status arrives whatever the bus carries, and the memory
//! for large messages of a pod is bounded without turning any satellite away.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::harness::raw::{Raw, UPGRADE, frame};
use crate::harness::{BRISK, CALM, Credentials, Fleet, Pod, Satellite, eventually};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
const TEXT: u8 = 0x81;

fn assignment(config: &str) -> Value {
    json!({"configId": config, "systemId": "s", "strategyId": "http", "config": {},
           "intervalSeconds": 60})
}

/// The result of the HTTP check for a page of this many bytes.
fn page(config: &str, bytes: usize) -> Value {
    json!({"type": "result", "configId": config, "systemId": "s", "status": "degraded",
           "latencyMs": 12.5, "executedAt": "2026-03-01T12:00:00Z", "environmentId": "blue",
           "result": {"metadata": {"body": "x".repeat(bytes)}}})
}

/// A message of exactly this many bytes that is no sign of life.
fn padded(bytes: usize) -> String {
    let message = |padding: &str| json!({"type": "heartbeat", "padding": padding}).to_string();
    message(&"x".repeat(bytes - message("").len()))
}

async fn assigned(pod: &Pod, name: &str) -> (Credentials, Satellite) {
    let credentials = pod.register(name, "eu").await;
    pod.assign(credentials.id, &json!([assignment("c")])).await;
    let (satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    (credentials, satellite)
}

/// The bodies on the stream of results, once there are this many.
async fn delivered(fleet: &Fleet, count: u64) -> Vec<Value> {
    let jetstream = jetstream::new(fleet.nats().await);
    let stream = eventually(&format!("{count} results on the stream"), async || {
        let stream = jetstream.get_stream("SATELLITE_RESULTS").await;
        let stream = stream.map_err(|error| error.to_string())?;
        let there = stream.cached_info().state.messages;
        if there == count { Ok(stream) } else { Err(there.to_string()) }
    })
    .await;
    let mut bodies = Vec::new();
    for sequence in 1..=count {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        bodies.push(serde_json::from_slice(&message.payload).expect("JSON"));
    }
    bodies
}

async fn beats(pod: &Pod) -> f64 {
    pod.metric("groundstation_heartbeats_received_total").await
}

/// An authenticated socket that writes raw bytes.
async fn raw(pod: &Pod, credentials: &Credentials) -> Raw {
    let mut raw = Raw::connect(pod.address).await;
    raw.send(format!("{UPGRADE}\r\n")).await;
    raw.head().await;
    let Credentials { id, token } = credentials;
    let authenticate = json!({"type": "authenticate", "clientId": id, "token": token});
    raw.send(frame(TEXT, authenticate.to_string().as_bytes())).await;
    raw.read_until(b"\"authenticated\"").await;
    raw
}

#[tokio::test]
async fn a_whole_page_is_taken_and_what_nats_does_not_carry_of_it_is_said() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let (credentials, satellite) = assigned(&pod, "edge").await;
    for bytes in [200 * KIB, 5 * MIB, 15 * MIB] {
        satellite.send(&page("c", bytes));
    }
    satellite.beat();
    let found = delivered(&fleet, 3).await;
    let mut expected = page("c", 200 * KIB);
    expected["sourceId"] = json!(credentials.id);
    expected["sourceLabel"] = json!("edge (eu)");
    assert!(found[0] == expected, "the small one is as it was sent");
    for (body, bytes) in found[1..].iter().zip([5 * MIB, 15 * MIB]) {
        let result = page("c", bytes)["result"].to_string().len();
        expected["result"] = json!({"truncated": true, "bytes": result});
        assert_eq!(*body, expected);
    }
    pod.expect_metric("groundstation_results_truncated_total", 2.0).await;
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    pod.expect_metric("groundstation_large_message_bytes", 0.0).await;
    assert_eq!(fleet.history(credentials.id).await, ["1 connected connect"]);
    satellite.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn a_page_in_fragments_is_a_page() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    pod.assign(credentials.id, &json!([assignment("c")])).await;
    let mut raw = raw(&pod, &credentials).await;
    // Umlauts of two bytes, some of which are cut in two.
    let mut sent = page("c", 0);
    sent["result"] = json!({"body": "ä".repeat(150 * KIB)});
    let text = sent.to_string();
    let pieces: Vec<&[u8]> = text.as_bytes().chunks(70_001).collect();
    for (n, piece) in pieces.iter().enumerate() {
        let opcode = if n == 0 { 0x1 } else { 0x0 };
        let last = if n + 1 == pieces.len() { 0x80 } else { 0x0 };
        raw.send(frame(opcode | last, piece)).await;
        // Questions in between are answered.
        raw.send(frame(0x89, b"ping")).await;
    }
    let found = delivered(&fleet, 1).await;
    assert_eq!(found[0]["result"], sent["result"]);
    raw.read_until(b"ping").await;
    fleet.check().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_frame_that_is_only_announced_costs_next_to_nothing() {
    const SOCKETS: usize = 60;
    let fleet = Fleet::new(CALM).await;
    // There is room for all of them: the announcement itself must cost nothing.
    let room = (SOCKETS * 16 * MIB).to_string();
    let pod = fleet.plan("a").with("GROUNDSTATION_LARGE_MESSAGE_BYTES", &room).start().await;
    let size = |field: &str| -> usize {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", pod.pid())).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        line.trim().trim_end_matches(" kB").trim().parse::<usize>().expect("a number") * KIB
    };
    let mut sockets = Vec::new();
    for credentials in fleet.register_many("edge", SOCKETS).await {
        sockets.push(raw(&pod, &credentials).await);
    }
    let before = (size("VmSize:"), size("VmRSS:"));
    let mut announced = frame(TEXT, &[]);
    announced.splice(1..2, [0xff].into_iter().chain((16 * MIB as u64).to_be_bytes()));
    for socket in &mut sockets {
        socket.send(&announced).await;
        socket.send(b"{\"type\": \"heartbeat\", ").await;
    }
    let given = (SOCKETS * MIB) as f64;
    pod.expect_metric("groundstation_large_message_bytes", given).await;
    let after = (size("VmSize:"), size("VmRSS:"));
    assert!(after.0 < before.0 + 200 * MIB, "address space: {before:?}, then {after:?}");
    assert!(after.1 < before.1 + 40 * MIB, "memory: {before:?}, then {after:?}");
    assert_eq!(pod.metric("groundstation_sessions").await, SOCKETS as f64);
    // A socket that dies gives its room back.
    drop(sockets);
    pod.expect_metric("groundstation_large_message_bytes", 0.0).await;
    fleet.check().await;
}

/// The head of a message of 16 MiB, and this many bytes of it.
fn begun(bytes: usize) -> Vec<u8> {
    frame(TEXT, padded(16 * MIB).as_bytes())[..bytes].to_vec()
}

/// The whole room of a pod with the least room there may be: one message takes it.
const LEAST_ROOM: (&str, &str) = ("GROUNDSTATION_LARGE_MESSAGE_BYTES", "16777216");

#[tokio::test]
async fn who_finds_no_room_for_a_large_message_waits_unread_and_is_neither_closed_nor_lost() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with(LEAST_ROOM.0, LEAST_ROOM.1).start().await;
    let holder = pod.register("holder", "eu").await;
    let mut holding = raw(&pod, &holder).await;
    let whole = frame(TEXT, padded(16 * MIB).as_bytes());
    let (first, rest) = whole.split_at(MIB);
    holding.send(first).await;
    pod.expect_metric("groundstation_large_message_bytes", (16 * MIB) as f64).await;

    let (waiter, waiting) = assigned(&pod, "waiter").await;
    waiting.send(&page("c", 300 * KIB));
    pod.expect_metric("groundstation_large_messages_waiting", 1.0).await;
    let small = pod.register("small", "eu").await;
    let beside = Satellite::connect(pod.address, &small).await;
    beside.beat();
    pod.expect_metric("groundstation_heartbeats_received_total", 1.0).await;
    assert_eq!(pod.metric("groundstation_large_messages_waiting").await, 1.0);
    assert_eq!(pod.metric("groundstation_held_back_total{by=\"room\"}").await, 1.0);
    // It ends, and the next one has its turn.
    holding.send(rest).await;
    assert_eq!(delivered(&fleet, 1).await[0]["status"], "degraded");
    pod.expect_metric("groundstation_large_messages_waiting", 0.0).await;
    for known in [waiter.id, small.id, holder.id] {
        assert_eq!(fleet.history(known).await, ["1 connected connect"]);
    }
    fleet.check().await;
}

#[tokio::test]
async fn who_waits_for_room_and_falls_silent_is_lost_and_was_not_heard_meanwhile() {
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.plan("a").with(LEAST_ROOM.0, LEAST_ROOM.1).start().await;
    let holder = pod.register("holder", "eu").await;
    let mut holding = raw(&pod, &holder).await;
    holding.send(&begun(MIB)).await;
    pod.expect_metric("groundstation_large_message_bytes", (16 * MIB) as f64).await;
    let silent = pod.register("silent", "eu").await;
    let mut waiting = raw(&pod, &silent).await;
    let fell_silent_at = OffsetDateTime::now_utc();
    waiting.send(&frame(TEXT, padded(100_000).as_bytes())[..19]).await;
    pod.expect_metric("groundstation_large_messages_waiting", 1.0).await;
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(silent.id, &lost).await;
    let shown = pod.show(silent.id).await;
    let heard_at = shown["lastHeartbeatAt"].as_str().or_else(|| shown["lastSeenAt"].as_str());
    let heard_at = OffsetDateTime::parse(heard_at.expect("a moment"), &Rfc3339).expect("a moment");
    assert!(heard_at < fell_silent_at + BRISK.threshold / 2, "{heard_at}, {fell_silent_at}");
}

#[tokio::test]
async fn a_large_message_that_comes_slowly_is_heard_to_come() {
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.pod("a").await;
    let slow = pod.register("slow", "eu").await;
    let mut coming = raw(&pod, &slow).await;
    let whole = frame(TEXT, padded(MIB).as_bytes());
    let mut pieces = whole.chunks(KIB);
    let until = Instant::now() + 3 * fleet.timing.threshold;
    while Instant::now() < until {
        coming.send(pieces.next().expect("a piece")).await;
        assert_eq!(pod.show(slow.id).await["status"], "online");
        tokio::time::sleep(fleet.timing.heartbeat).await;
    }
    assert_eq!(fleet.history(slow.id).await, ["1 connected connect"]);
}

/// They announce more than all the room there is, and send next to nothing.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn what_others_announce_and_do_not_send_keeps_nobody_waiting() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut others = Vec::new();
    for credentials in fleet.register_many("other", 20).await {
        let mut other = raw(&pod, &credentials).await;
        other.send(&begun(KIB)).await;
        others.push(other);
    }
    pod.expect_metric("groundstation_large_message_bytes", (20 * MIB) as f64).await;
    let (_, satellite) = assigned(&pod, "edge").await;
    satellite.send(&page("c", 300 * KIB));
    satellite.send(&page("c", 3 * MIB));
    delivered(&fleet, 2).await;
    assert_eq!(pod.metric("groundstation_held_back_total{by=\"room\"}").await, 0.0);
    assert_eq!(pod.metric("groundstation_sessions").await, 21.0);
    drop(others);
    fleet.check().await;
}

/// This many send a large message except for its end, and another one waits for room.
async fn fill(fleet: &Fleet, pod: &Pod, count: usize) -> Vec<JoinHandle<Raw>> {
    let mut others = Vec::new();
    for credentials in fleet.register_many("other", count).await {
        let mut other = raw(pod, &credentials).await;
        let bytes = begun(16 * MIB - KIB);
        others.push(tokio::spawn(async move {
            other.send(&bytes).await;
            other
        }));
    }
    eventually("somebody to wait for room", async || {
        let held_back = pod.metric("groundstation_held_back_total{by=\"room\"}").await;
        if held_back > 0.0 { Ok(()) } else { Err(held_back.to_string()) }
    })
    .await;
    others
}

const GIVEN_UP: &str = "groundstation_door_refusals_total{reason=\"large_message\"}";

#[tokio::test]
async fn who_fills_the_room_and_goes_no_further_keeps_no_smaller_message_waiting() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_LARGE_MESSAGE_TIMEOUT", "30m").start().await;
    let others = fill(&fleet, &pod, 6).await;
    let (_, satellite) = assigned(&pod, "edge").await;
    satellite.send(&page("c", 300 * KIB));
    delivered(&fleet, 1).await;
    // In fragments too.
    let credentials = pod.register("fragments", "eu").await;
    pod.assign(credentials.id, &json!([assignment("c")])).await;
    let mut fragments = raw(&pod, &credentials).await;
    let text = page("c", 301 * KIB).to_string();
    let (first, second) = text.as_bytes().split_at(100 * KIB);
    fragments.send(frame(0x1, first)).await;
    fragments.send(frame(0x80, second)).await;
    delivered(&fleet, 2).await;
    assert!(pod.metric("groundstation_large_messages_waiting").await >= 1.0);
    assert_eq!(pod.metric(GIVEN_UP).await, 0.0);
    drop(others);
    fleet.check().await;
}

#[tokio::test]
async fn who_fills_the_room_and_goes_no_further_is_closed_where_others_wait() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_LARGE_MESSAGE_TIMEOUT", "12s").start().await;
    let others = fill(&fleet, &pod, 6).await;
    let (_, satellite) = assigned(&pod, "edge").await;
    satellite.send(&page("c", 3 * MIB));
    delivered(&fleet, 1).await;
    assert!(pod.metric(GIVEN_UP).await >= 1.0);
    drop(others);
    fleet.check().await;
}

/// Its messages in between are read slowly; the large one is not.
#[tokio::test]
async fn who_says_other_things_in_a_large_message_keeps_others_waiting_no_longer() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with(LEAST_ROOM.0, LEAST_ROOM.1);
    let plan = plan.with("GROUNDSTATION_LARGE_MESSAGE_TIMEOUT", "12s");
    let plan =
        plan.with("GROUNDSTATION_MESSAGE_RATE", "1").with("GROUNDSTATION_MESSAGE_BURST", "10");
    let pod = plan.start().await;
    let holder = pod.register("holder", "eu").await;
    let mut holding = raw(&pod, &holder).await;
    let whole = padded(MIB);
    holding.send(frame(0x1, &whole.as_bytes()[..128 * KIB])).await;
    for _ in 0..100 {
        holding.send(frame(0x89, b"ping")).await;
    }
    pod.expect_metric("groundstation_large_message_bytes", (16 * MIB) as f64).await;
    let (_, satellite) = assigned(&pod, "edge").await;
    satellite.send(&page("c", 300 * KIB));
    delivered(&fleet, 1).await;
    assert_eq!(pod.metric(GIVEN_UP).await, 1.0);
    fleet.check().await;
}

/// More of them than there is room for in the part for such as theirs, each at the pace it must have.
#[tokio::test]
async fn who_sends_a_megabyte_slowly_keeps_no_other_waiting_while_there_is_room() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_LARGE_MESSAGE_TIMEOUT", "30m").start().await;
    let mut others = Vec::new();
    let begun = frame(TEXT, padded(MIB).as_bytes())[..512 * KIB].to_vec();
    for credentials in fleet.register_many("other", 24).await {
        let mut other = raw(&pod, &credentials).await;
        other.send(&begun).await;
        others.push(other);
    }
    pod.expect_metric("groundstation_large_message_bytes", (24 * MIB) as f64).await;
    let (_, satellite) = assigned(&pod, "edge").await;
    satellite.send(&page("c", 300 * KIB));
    satellite.send(&page("c", 3 * MIB));
    delivered(&fleet, 2).await;
    assert_eq!(pod.metric("groundstation_held_back_total{by=\"room\"}").await, 0.0);
    assert_eq!(pod.metric(GIVEN_UP).await, 0.0);
    drop(others);
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn who_waits_for_room_for_long_is_not_cut_off_by_the_pod_that_does_not_read_it() {
    let fleet = Fleet::new(BRISK).await;
    let plan = fleet.plan("a").with(LEAST_ROOM.0, LEAST_ROOM.1);
    let pod = plan.with("GROUNDSTATION_LARGE_MESSAGE_TIMEOUT", "30m").start().await;
    let holder = pod.register("holder", "eu").await;
    let mut holding = raw(&pod, &holder).await;
    let whole = frame(TEXT, padded(16 * MIB).as_bytes());
    let (mut first, mut rest) = whole.split_at(MIB);
    holding.send(first).await;
    pod.expect_metric("groundstation_large_message_bytes", (16 * MIB) as f64).await;
    let (waiter, waiting) = assigned(&pod, "waiter").await;
    waiting.send(&page("c", 300 * KIB));
    pod.expect_metric("groundstation_large_messages_waiting", 1.0).await;
    // Longer than a pod keeps a silent socket.
    let until = Instant::now() + 5 * fleet.timing.threshold;
    while Instant::now() < until {
        (first, rest) = rest.split_at(KIB);
        holding.send(first).await;
        tokio::time::sleep(fleet.timing.heartbeat).await;
    }
    holding.send(rest).await;
    delivered(&fleet, 1).await;
    let history =
        ["1 connected connect", "1 heartbeat_lost heartbeat_timeout", "1 connected recovered"];
    waiting.beat();
    fleet.expect_history(waiter.id, &history).await;
}

#[tokio::test]
async fn who_dies_with_half_a_message_gives_its_room_back() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_LARGE_MESSAGE_BYTES", "16777216").start().await;
    let holder = pod.register("holder", "eu").await;
    let mut holding = raw(&pod, &holder).await;
    holding.send(&frame(TEXT, padded(16 * MIB).as_bytes())[..MIB]).await;
    pod.expect_metric("groundstation_large_message_bytes", (16 * MIB) as f64).await;
    let (_, waiting) = assigned(&pod, "waiter").await;
    waiting.send(&page("c", 300 * KIB));
    pod.expect_metric("groundstation_large_messages_waiting", 1.0).await;
    drop(holding);
    delivered(&fleet, 1).await;
    pod.expect_metric("groundstation_large_message_bytes", 0.0).await;
    fleet.check().await;
}

/// One satellite sends large messages without end and takes all the room each time: room is given in turn.
#[tokio::test]
async fn one_that_sends_nothing_but_large_messages_takes_nobody_elses_turn() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_LARGE_MESSAGE_BYTES", "16777216").start().await;
    let credentials = pod.register("greedy", "eu").await;
    let mut greedy = raw(&pod, &credentials).await;
    let large = frame(TEXT, padded(16 * MIB).as_bytes());
    let greedy = tokio::spawn(async move { while greedy.send(&large).await {} });
    let (_, other) = assigned(&pod, "other").await;
    for n in 1..=5 {
        let before = beats(&pod).await;
        eventually("another large one", async || {
            let now = beats(&pod).await;
            if now > before { Ok(()) } else { Err(now.to_string()) }
        })
        .await;
        other.send(&page("c", 300 * KIB + n));
        delivered(&fleet, n as u64).await;
    }
    assert!(!greedy.is_finished(), "it was closed");
    let status = std::fs::read_to_string(format!("/proc/{}/status", pod.pid())).unwrap_or_default();
    println!("{:?}", status.lines().find(|line| line.starts_with("VmHWM:")));
    greedy.abort();
    fleet.check().await;
}

#[tokio::test]
async fn who_keeps_room_that_others_wait_for_and_sends_nothing_is_closed() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet
        .plan("a")
        .with("GROUNDSTATION_LARGE_MESSAGE_BYTES", "16777216")
        .with("GROUNDSTATION_LARGE_MESSAGE_TIMEOUT", "2s")
        .start()
        .await;
    let holder = pod.register("holder", "eu").await;
    let mut holding = raw(&pod, &holder).await;
    holding.send(&frame(TEXT, padded(16 * MIB).as_bytes())[..MIB]).await;
    pod.expect_metric("groundstation_large_message_bytes", (16 * MIB) as f64).await;
    // While no other message needs the room, it may take its time.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(pod.metric("groundstation_sessions").await, 1.0);
    let (_, waiting) = assigned(&pod, "waiter").await;
    waiting.send(&page("c", 300 * KIB));
    delivered(&fleet, 1).await;
    assert_eq!(pod.metric(GIVEN_UP).await, 1.0);
    let said = holding.ended().await;
    assert!(said.windows(2).any(|code| code == 1008u16.to_be_bytes()), "{said:?}");
    let ended = ["1 connected connect", "1 disconnected connection_dropped"];
    fleet.expect_history(holder.id, &ended).await;
    fleet.check().await;
}

/// Each socket sends messages of this many bytes without end, as slowly as it may.
async fn slow_ones(
    fleet: &Fleet,
    pod: &Pod,
    count: usize,
    bytes: usize,
    may_take: Duration,
) -> JoinSet<()> {
    const PIECES: u32 = 24;
    let whole: Arc<Vec<u8>> = Arc::new(frame(TEXT, padded(bytes).as_bytes()));
    let mut all = JoinSet::new();
    for credentials in fleet.register_many("slow", count).await {
        let (mut slow, whole) = (raw(pod, &credentials).await, whole.clone());
        all.spawn(async move {
            loop {
                for piece in whole.chunks(whole.len() / PIECES as usize) {
                    if !slow.send(piece).await {
                        return;
                    }
                    tokio::time::sleep(may_take * 9 / 10 / PIECES).await;
                }
            }
        });
    }
    pod.expect_metric("groundstation_held_back_total{by=\"room\"}", 1.0).await;
    all
}

/// How long a page of this many bytes of somebody else takes at most, of some.
async fn longest(fleet: &Fleet, pod: &Pod, bytes: usize) -> Duration {
    let (_, satellite) = assigned(pod, "edge").await;
    let mut longest = Duration::ZERO;
    for n in 1..=4 {
        let sent_at = Instant::now();
        satellite.send(&page("c", bytes + n));
        delivered(fleet, n as u64).await;
        println!("{n}: {:?}", sent_at.elapsed());
        longest = longest.max(sent_at.elapsed());
    }
    longest
}

#[tokio::test]
async fn fifty_that_send_a_megabyte_as_slowly_as_they_may_keep_another_no_longer_than_one_may_take()
{
    const MAY_TAKE: Duration = Duration::from_secs(6);
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_LARGE_MESSAGE_TIMEOUT", "6s").start().await;
    let _slow = slow_ones(&fleet, &pod, 50, MIB, MAY_TAKE).await;
    let longest = longest(&fleet, &pod, 300 * KIB).await;
    assert!(longest < MAY_TAKE + Duration::from_secs(1), "{longest:?}");
}
