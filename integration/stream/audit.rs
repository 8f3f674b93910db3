//! `groundstation audit` names everything that is wrong with the stream, and `--repair` mends it.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::stream::{Config, Stream};
use async_nats::jetstream::{self, AckKind};
use futures_util::StreamExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::harness::log_and_stream::{differences, read_log, read_stream};
use crate::harness::wait::{PATIENCE, blocking};
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, eventually, program};

pub const STREAM: &str = "SATELLITE_TRANSITIONS";

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub is_ok: bool,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The lines that name faults.
    pub fn faults(&self) -> Vec<&str> {
        let words = ["missing  ", "extra  ", "different  ", "misplaced  "];
        self.out.lines().filter(|line| words.iter().any(|word| line.starts_with(word))).collect()
    }
}

/// Runs `groundstation audit` with these arguments.
pub async fn audit(fleet: &Fleet, arguments: &[&str]) -> Ended {
    let arguments: Vec<String> =
        ["audit"].iter().chain(arguments).map(|argument| argument.to_string()).collect();
    let urls = (fleet.database_url.clone(), fleet.nats_url.clone());
    let output = blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let environment = [("DATABASE_URL", urls.0.as_str()), ("NATS_URL", urls.1.as_str())];
        program::run(&arguments, &environment)
    })
    .await;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { is_ok: output.status.success(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// Each connect takes over the session before: one transition each.
pub async fn connect_times(pod: &Pod, credentials: &Credentials, times: usize) {
    for _ in 0..times {
        // A takeover follows only on a session that has not ended.
        let satellite = Satellite::connect(pod.address, credentials).await;
        std::mem::forget(satellite);
    }
}

/// A stream whose duplicate window is as short as can be.
pub async fn forgetful_stream(fleet: &Fleet, limit: i64) -> Stream {
    let subjects = ["connected", "disconnected", "heartbeat_lost", "removed"];
    let config = Config {
        name: STREAM.to_owned(),
        subjects: subjects.map(|subject| format!("satellite.{subject}")).to_vec(),
        duplicate_window: Duration::from_millis(100),
        max_messages: limit,
        ..Config::default()
    };
    let jetstream = jetstream::new(fleet.nats().await);
    jetstream.create_stream(config).await.expect("a stream")
}

/// A message as it can be published once more.
#[derive(Clone)]
struct Raw {
    subject: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Raw {
    fn with(mut self, name: &'static str, value: &str) -> Raw {
        self.headers.insert(name, value);
        self
    }
}

/// Everything on the stream.
async fn raw_messages(stream: &Stream) -> Vec<Raw> {
    let state = stream.get_info().await.expect("the stream").state;
    let mut messages = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        let mut headers = message.headers.clone();
        headers.insert("Nats-Expected-Last-Sequence", "");
        let headers = headers
            .iter()
            .filter(|(name, _)| !name.to_string().starts_with("Nats-Expected"))
            .map(|(name, values)| (name.clone(), values[0].clone()))
            .collect();
        let (subject, body) = (message.subject.to_string(), message.payload.to_vec());
        messages.push(Raw { subject, headers, body });
    }
    messages
}

/// Publishes until the stream no longer treats it as a duplicate.
pub async fn store(
    jetstream: &jetstream::Context,
    subject: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> u64 {
    eventually("the stream to take the message", async || {
        let (subject, body) = (subject.to_owned(), body.to_vec().into());
        let sent = jetstream.publish_with_headers(subject, headers.clone(), body).await;
        let ack = sent.expect("published").await.expect("stored");
        if ack.duplicate { Err("a repetition".to_owned()) } else { Ok(ack.sequence) }
    })
    .await
}

/// A log of twelve transitions, a pod that has ended, and the messages of the stream.
async fn twelve_published(fleet: &Fleet) -> Vec<Raw> {
    let stream = forgetful_stream(fleet, -1).await;
    let mut pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    connect_times(&pod, &credentials, 12).await;
    fleet.check().await;
    pod.kill();
    raw_messages(&stream).await
}

/// Publishes these on a new stream that replaces the old one.
async fn replace_stream(fleet: &Fleet, messages: &[Raw]) {
    let jetstream = jetstream::new(fleet.nats().await);
    jetstream.delete_stream(STREAM).await.expect("the old stream goes");
    forgetful_stream(fleet, -1).await;
    for message in messages {
        store(&jetstream, &message.subject, &message.headers, &message.body).await;
    }
}

#[tokio::test]
async fn every_kind_of_fault_is_named_and_nothing_else() {
    let fleet = Fleet::new(CALM).await;
    let good = twelve_published(&fleet).await;
    assert_eq!(good.len(), 12);
    type Spoil = fn(&mut Vec<Raw>);
    let faults: [(Spoil, &[&str]); 10] = [
        (|_| {}, &[]),
        (|m| drop(m.remove(4)), &["missing    position 5"]),
        (|m| drop(m.pop()), &["missing    position 12"]),
        (|m| m.clear(), &["missing    positions 1 to 12"]),
        (|m| m.insert(5, m[4].clone()), &["extra      position 5 at sequence 6: a second time"]),
        (|m| m.swap(6, 7), &["misplaced  position 8 at sequence 7: comes after position 6"]),
        (|m| m[2].body = b"{}".to_vec(), &["different  position 3 at sequence 3: the body"]),
        (
            |m| m[2] = m[2].clone().with("Groundstation-Reason", "connect"),
            &["different  position 3 at sequence 3: header Groundstation-Reason"],
        ),
        (
            |m| m.push(m[0].clone().with("Groundstation-Position", "99").with("Nats-Msg-Id", "x")),
            &["extra      position 99 at sequence 13: the log ends at 12"],
        ),
        (
            |m| {
                m.remove(9);
                m.swap(1, 2);
                m[5].subject = "satellite.removed".to_owned();
            },
            &[
                "misplaced  position 3 at sequence 2: comes after position 1",
                "different  position 6 at sequence 6: the subject is satellite.removed, not satellite.connected",
                "missing    position 10",
            ],
        ),
    ];
    for (spoil, expected) in faults {
        let mut messages = good.clone();
        spoil(&mut messages);
        replace_stream(&fleet, &messages).await;
        let ended = audit(&fleet, &["--wait", "10ms"]).await;
        assert_eq!(ended.faults(), expected, "{ended:?}");
        assert_eq!(ended.is_ok, expected.is_empty(), "{ended:?}");
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn somebody_elses_messages_are_counted_and_log_and_stream_agree() {
    let fleet = Fleet::new(CALM).await;
    let mut messages = twelve_published(&fleet).await;
    let subject = "satellite.connected".to_owned();
    let foreign = Raw { subject, headers: HeaderMap::new(), body: b"hello".to_vec() };
    messages.insert(3, foreign.clone());
    messages.insert(0, foreign);
    replace_stream(&fleet, &messages).await;
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok, "{ended:?}");
    assert!(ended.out.contains("2 of somebody else's messages"), "{ended:?}");
    assert!(ended.out.contains("agree on 12 transitions"), "{ended:?}");
}

#[tokio::test]
async fn what_the_streams_own_limits_removed_is_told_and_is_no_fault() {
    let fleet = Fleet::new(CALM).await;
    let stream = forgetful_stream(&fleet, 5).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    connect_times(&pod, &credentials, 12).await;
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok, "{ended:?}");
    assert!(ended.out.contains("the stream begins at position 8"), "{ended:?}");
    // After the stream's first message nothing may be missing.
    stream.delete_message(10).await.expect("deleted");
    let ended = audit(&fleet, &[]).await;
    assert_eq!(ended.faults(), ["missing    position 10"], "{ended:?}");
    assert!(!ended.is_ok);
}

#[tokio::test]
async fn audits_agree_while_two_pods_append_and_relay() {
    let fleet = Fleet::new(CALM).await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await];
    let credentials = [pods[0].register("a", "eu").await, pods[1].register("b", "eu").await];
    let stop = CancellationToken::new();
    let traffic = async {
        while !stop.is_cancelled() {
            for n in 0..2 {
                Satellite::connect(pods[n].address, &credentials[n]).await.vanish();
            }
        }
    };
    let audits = async {
        for _ in 0..5 {
            let before = fleet.log_length().await;
            let ended = audit(&fleet, &[]).await;
            assert!(ended.is_ok, "{ended:?}");
            assert!(fleet.log_length().await > before, "nothing happened meanwhile");
        }
        stop.cancel();
    };
    tokio::join!(traffic, audits);
    fleet.check().await;
}

#[tokio::test]
async fn a_repair_is_not_begun_unasked() {
    let fleet = Fleet::new(CALM).await;
    let messages = twelve_published(&fleet).await;
    replace_stream(&fleet, &messages[1..]).await;
    let ended = audit(&fleet, &["--wait", "10ms", "--repair"]).await;
    assert!(!ended.is_ok && ended.err.contains("--yes"), "{ended:?}");
    assert_eq!(read_stream(&fleet.nats().await).await.len(), 11);
    let epoch = fleet.sql().await.query_one("select epoch from relay", &[]).await;
    assert_eq!(epoch.expect("the relay's row").get::<_, i64>(0), 1);
}

/// What a durable consumer has received and acknowledged: position → epoch, in order.
async fn receive(consumer: &jetstream::consumer::PullConsumer, count: usize) -> Vec<(i64, String)> {
    let mut messages = consumer.messages().await.expect("messages");
    let mut received = Vec::new();
    while received.len() < count {
        let next = timeout(PATIENCE, messages.next()).await;
        let message = next.unwrap_or_else(|_| panic!("received only {received:?}"));
        let message = message.expect("goes on").expect("a message");
        let headers = message.headers.clone().expect("headers");
        let text = |name| headers.get(name).map_or(String::new(), ToString::to_string);
        received.push((
            text("Groundstation-Position").parse().expect("a position"),
            text("Groundstation-Epoch"),
        ));
        message.ack_with(AckKind::Ack).await.expect("acknowledged");
    }
    received
}

#[tokio::test]
async fn a_repair_while_pods_run_publishes_everything_again_and_durable_consumers_follow() {
    let fleet = Fleet::new(CALM).await;
    let pods = [fleet.pod("a").await, fleet.pod("b").await];
    let credentials = pods[0].register("edge", "eu").await;
    connect_times(&pods[0], &credentials, 10).await;
    fleet.check().await;
    let nats = fleet.nats().await;
    let stream = jetstream::new(nats.clone()).get_stream(STREAM).await.expect("the stream");
    let window = stream.cached_info().config.duplicate_window;
    let config = pull::Config { durable_name: Some("engine".to_owned()), ..Default::default() };
    let consumer = stream.create_consumer(config).await.expect("a durable consumer");
    let expected: Vec<(i64, String)> = (1..=10).map(|n| (n, String::new())).collect();
    assert_eq!(receive(&consumer, 10).await, expected);

    stream.delete_message(4).await.expect("deleted");
    let ended = audit(&fleet, &[]).await;
    assert_eq!(ended.faults(), ["missing    position 4"], "{ended:?}");
    let ended = audit(&fleet, &["--repair", "--yes"]).await;
    assert!(ended.is_ok, "{ended:?}");
    assert!(ended.out.contains("Groundstation-Epoch: 2"), "{ended:?}");
    connect_times(&pods[1], &credentials, 2).await;
    let expected: Vec<(i64, String)> = (1..=12).map(|n| (n, "2".to_owned())).collect();
    assert_eq!(receive(&consumer, 12).await, expected);

    let info = stream.get_info().await.expect("the stream");
    assert_eq!(info.config.duplicate_window, window, "the window is what it was");
    assert_eq!((info.state.first_sequence, info.state.last_sequence), (11, 22));
    let mut messages = read_stream(&nats).await;
    for message in &mut messages {
        assert_eq!(message.headers.remove("Groundstation-Epoch").as_deref(), Some("2"));
    }
    assert_eq!(differences(&read_log(&fleet.sql().await).await, &messages), Vec::<String>::new());
    let ended = audit(&fleet, &["--repair", "--yes"]).await;
    assert!(ended.is_ok && !ended.out.contains("epoch 3"), "nothing to repair: {ended:?}");
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_repair_that_died_after_it_began_is_finished_by_the_pods_and_by_another_repair() {
    let fleet = Fleet::new(CALM).await;
    let messages = twelve_published(&fleet).await;
    replace_stream(&fleet, &messages[..7]).await;
    // The first step of a repair does no more than this.
    const BEGUN: &str = "
        update relay set epoch = 2, position = 0, stream_sequence = 7, holder = 'repair',
                         lease_expires_at = clock_timestamp() + interval '1 second'";
    fleet.sql().await.batch_execute(BEGUN).await.expect("begun");
    let _pod = fleet.pod("b").await;
    let nats = fleet.nats().await;
    eventually("everything to be published again", async || {
        let stream = read_stream(&nats).await;
        let mut epochs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mut message in stream {
            let epoch = message.headers.remove("Groundstation-Epoch").unwrap_or_default();
            let position = message.headers.remove("Groundstation-Position").expect("ours");
            epochs.entry(epoch).or_default().push(position);
        }
        let all: Vec<String> = (1..=12).map(|n| n.to_string()).collect();
        let is_whole = epochs.get("2") == Some(&all) && epochs.get("").map(Vec::len) == Some(7);
        if is_whole { Ok(()) } else { Err(format!("{epochs:?}")) }
    })
    .await;
    let ended = audit(&fleet, &[]).await;
    assert_eq!(ended.faults().len(), 7, "{ended:?}");
    assert!(ended.faults()[0].ends_with("of epoch 1, the relay's is 2"), "{ended:?}");
    let ended = audit(&fleet, &["--repair", "--yes"]).await;
    assert!(ended.is_ok && ended.out.contains("epoch 3"), "{ended:?}");
}

#[tokio::test]
async fn a_new_epoch_begins_where_it_is_asked_for_and_is_never_an_earlier_one() {
    let fleet = Fleet::new(CALM).await;
    let messages = twelve_published(&fleet).await;
    replace_stream(&fleet, &messages).await;
    let ended = audit(&fleet, &["--new-epoch"]).await;
    assert!(!ended.is_ok && ended.err.contains("--repair"), "{ended:?}");
    let nats = fleet.nats().await;
    for (arguments, epoch) in [
        (&["--new-epoch"][..], "2"),
        (&["--new-epoch", "7"], "7"),
        (&["--new-epoch", "3"], "8"),
        (&[], "8"),
    ] {
        let asked = [&["--wait", "10ms", "--repair", "--yes"], arguments].concat();
        let ended = audit(&fleet, &asked).await;
        assert!(ended.is_ok, "{ended:?}");
        let says_so = ended.out.contains("restored to an earlier point (to position 12 at most)");
        assert_eq!(says_so, !arguments.is_empty(), "{ended:?}");
        let mut stream = read_stream(&nats).await;
        for message in &mut stream {
            assert_eq!(message.headers.remove("Groundstation-Epoch").as_deref(), Some(epoch));
        }
        assert_eq!(differences(&read_log(&fleet.sql().await).await, &stream), Vec::<String>::new());
    }
}
