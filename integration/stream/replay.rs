//! The log can be replayed, whole or in part, as lines or as messages, and a replay never passes for news.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::Config};
use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::log_and_stream::{StreamMessage, differences, read_log};
use crate::harness::wait::{PATIENCE, blocking};
use crate::harness::written_log::{self, SATELLITES, event, satellite};
use crate::harness::{CALM, Fleet, Proxy, Satellite, program, stores};

fn environment(fleet: &Fleet) -> Vec<(String, String)> {
    let stores = [("DATABASE_URL", &fleet.database_url), ("NATS_URL", &fleet.nats_url)];
    stores.map(|(name, url)| (name.to_owned(), url.clone())).to_vec()
}

async fn replay(fleet: &Fleet, arguments: &[&str]) -> Output {
    let environment = environment(fleet);
    let arguments: Vec<String> =
        ["replay"].iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
    blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        program::run(&arguments, &environment)
    })
    .await
}

/// The lines of a replay that must succeed.
async fn lines(fleet: &Fleet, arguments: &[&str]) -> Vec<Value> {
    let output = replay(fleet, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

async fn positions(fleet: &Fleet, arguments: &[&str]) -> Vec<i64> {
    let lines = lines(fleet, arguments).await;
    lines.iter().map(|line| line["position"].as_i64().expect("a position")).collect()
}

/// The one-line message of a replay that must fail.
async fn refusal(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = replay(fleet, arguments).await;
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success(), "{arguments:?} succeeded: {said}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    said
}

/// The position after `--after` in a replay's message.
fn go_on(said: &str) -> i64 {
    let (_, after) = said.rsplit_once("--after ").unwrap_or_else(|| panic!("no --after: {said}"));
    after.trim().parse().unwrap_or_else(|_| panic!("no position: {said}"))
}

/// A fleet whose log holds this many written transitions.
async fn with_a_log(length: i64) -> Fleet {
    let fleet = Fleet::new(CALM).await;
    written_log::write(&fleet.sql().await, 1, length).await;
    fleet
}

#[tokio::test]
async fn a_replay_is_what_the_api_shows() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for name in ["one", "two"] {
        let credentials = pod.register(name, "eu").await;
        Satellite::connect(pod.address, &credentials).await.close().await;
        fleet
            .expect_history(credentials.id, &["1 connected connect", "1 disconnected client_close"])
            .await;
    }
    let shown = pod.get("/v1/transitions").await.json();
    let replayed = lines(&fleet, &[]).await;
    assert_eq!(replayed.len(), 4);
    assert_eq!(Value::from(replayed), shown["transitions"]);
}

#[tokio::test]
async fn a_line_has_the_form_of_the_contract() {
    let fleet = with_a_log(11).await;
    let line = lines(&fleet, &["--first", "11"]).await.remove(0);
    let id = satellite(0).to_string();
    let name = format!("edge-{id}");
    let change = {
        let sql = fleet.sql().await;
        let row = sql.query_one("select md5('change 11')::uuid::text", &[]).await;
        row.expect("a change").get::<_, String>(0)
    };
    let expected = json!({
        "position": 11, "revision": 2, "changeId": change, "kind": "satellite-connection",
        "id": id, "event": "disconnected", "reason": "client_close", "session": 1,
        "prev": {"status": "online", "name": name, "region": "eu",
                 "lastSeenAt": "2020-01-01T00:00:01.000Z", "lastEvent": "connected"},
        "next": {"status": "offline", "name": name, "region": "eu", "lastSeenAt": null,
                 "lastEvent": "disconnected"},
        "delta": {"status": "offline", "lastSeenAt": null, "lastEvent": "disconnected"},
        "changedFields": ["status", "lastSeenAt", "lastEvent"],
        "actor": {"type": "system", "id": "system"},
        "occurredAt": "2020-01-01T00:00:11.000Z", "recordedAt": "2020-01-01T00:00:11.000Z",
    });
    assert_eq!(line, expected);
}

#[tokio::test]
async fn a_selection_is_what_was_asked_for_and_no_more() {
    // More than two pages.
    const LENGTH: i64 = 2_345;
    let fleet = with_a_log(LENGTH).await;
    let third = satellite(3).to_string();
    let is_third = |p: i64| (p - 1) % SATELLITES == 3;
    type Wanted<'a> = &'a dyn Fn(i64) -> bool;
    let cases: [(&[&str], Wanted<'_>); 15] = [
        (&[], &|_| true),
        (&["--first", "2", "--last", "2344"], &|p| (2..=2344).contains(&p)),
        (&["--first", "1000", "--last", "1000"], &|p| p == 1000),
        (&["--last", "99999"], &|_| true),
        (&["--after", "1000"], &|p| p > 1000),
        (&["--after", "0"], &|_| true),
        (&["--first", "10", "--after", "1000", "--last", "1010"], &|p| (1001..=1010).contains(&p)),
        (&["--after", "5", "--first", "1000"], &|p| p >= 1000),
        (&["--satellite", &third], &is_third),
        (&["--event", "disconnected"], &|p| event(p) == "disconnected"),
        (&["--satellite", &third, "--event", "connected"], &|p| {
            is_third(p) && event(p) == "connected"
        }),
        (&["--event", "removed"], &|_| false),
        // At or after the one, before the other.
        (&["--since", "2020-01-01T00:00:30Z", "--until", "2020-01-01T00:01:00Z"], &|p| {
            (30..60).contains(&p)
        }),
        (&["--since", "2020-01-01T00:00:29.001Z", "--until", "2020-01-01T01:00:30+01:00"], &|_| {
            false
        }),
        (&["--since", "2020-01-01T00:39:00Z", "--satellite", &third], &|p| {
            p >= 2340 && is_third(p)
        }),
    ];
    for (arguments, wanted) in cases {
        let expected: Vec<i64> = (1..=LENGTH).filter(|p| wanted(*p)).collect();
        assert_eq!(positions(&fleet, arguments).await, expected, "{arguments:?}");
    }
    let said = refusal(&fleet, &["--first", "3", "--last", "2"]).await;
    assert!(said.contains("--first must not be greater than --last"), "{said}");
    let never = ["--since", "2020-01-01T00:00:30Z", "--until", "2020-01-01T00:00:30Z"];
    let said = refusal(&fleet, &never).await;
    assert!(said.contains("--since must be earlier than --until"), "{said}");
}

#[tokio::test]
async fn an_empty_log_has_nothing_to_replay() {
    let fleet = Fleet::new(CALM).await;
    assert_eq!(positions(&fleet, &[]).await, Vec::<i64>::new());
    assert_eq!(positions(&fleet, &["--since", "2020-01-01T00:00:00Z"]).await, Vec::<i64>::new());
}

/// Everything that is published, except for the traffic between client and JetStream.
async fn hear_everything(fleet: &Fleet) -> Subscriber {
    let nats = fleet.nats().await;
    let everything = nats.subscribe(">").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    everything
}

/// The next messages that a replay published.
async fn hear(subscriber: &mut Subscriber, count: usize) -> Vec<Message> {
    let mut heard = Vec::new();
    while heard.len() < count {
        let message = timeout(PATIENCE, subscriber.next()).await;
        let message = message.unwrap_or_else(|_| panic!("only {} of {count}", heard.len()));
        let message = message.expect("the subscription goes on");
        if !message.subject.starts_with(['$', '_']) {
            heard.push(message);
        }
    }
    heard
}

/// The message as it was on the stream, if it was replayed under this prefix.
fn original(message: &Message, prefix: &str) -> StreamMessage {
    let headers = message.headers.as_ref().expect("headers");
    let mut headers: BTreeMap<String, String> =
        headers.iter().map(|(name, values)| (name.to_string(), values[0].to_string())).collect();
    assert_eq!(headers.remove("Groundstation-Replay").as_deref(), Some("true"));
    let subject = message.subject.strip_prefix(prefix);
    let subject = subject.unwrap_or_else(|| panic!("{} is not under {prefix}", message.subject));
    let body = serde_json::from_slice(&message.payload).expect("a body of JSON");
    StreamMessage { subject: subject.to_owned(), headers, body }
}

#[tokio::test]
async fn messages_are_those_of_the_stream_under_the_prefix_and_nothing_else() {
    const LENGTH: i64 = 2_100;
    let fleet = with_a_log(LENGTH).await;
    let mut everything = hear_everything(&fleet).await;
    let output = replay(&fleet, &["--to", "nats", "--prefix", "replay."]).await;
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty());
    assert_eq!(go_on(&String::from_utf8_lossy(&output.stderr)), LENGTH);
    let heard = hear(&mut everything, LENGTH as usize).await;
    let stream: Vec<StreamMessage> =
        heard.iter().map(|message| original(message, "replay.")).collect();
    // Byte for byte and in order: the checker also finds a missing or extra header.
    let log = read_log(&fleet.sql().await).await;
    assert_eq!(differences(&log, &stream), Vec::<String>::new());
    // A user's stream that takes the prefix: a replay that is run twice is stored once.
    let jetstream = jetstream::new(fleet.nats().await);
    let config = Config {
        name: "MINE".to_owned(),
        subjects: vec!["again.>".to_owned()],
        ..Config::default()
    };
    let stream = jetstream.create_stream(config).await.expect("a stream");
    for _ in 0..2 {
        let again = ["--to", "nats", "--prefix", "again.", "--first", "1", "--last", "50"];
        assert!(replay(&fleet, &again).await.status.success());
    }
    assert_eq!(stream.get_info().await.expect("its state").state.messages, 50);
}

#[tokio::test]
async fn nothing_is_replayed_onto_live_subjects() {
    let fleet = with_a_log(20).await;
    let mut everything = hear_everything(&fleet).await;
    let cases = [
        ("", "--prefix"),
        ("replay", "dot"),
        (".", "--prefix"),
        ("satellite.", "live"),
        ("satellite.old.", "live"),
        ("*.", "--prefix"),
        ("$JS.API.", "server's own"),
    ];
    for (prefix, expected) in cases {
        let said = refusal(&fleet, &["--to", "nats", "--prefix", prefix]).await;
        assert!(said.contains(expected), "{prefix}: {said}");
    }
    let said = refusal(&fleet, &["--to", "nats"]).await;
    assert!(said.contains("--prefix"), "{said}");
    // A live stream that an operator gave more subjects than it needs.
    let live = ["connected", "disconnected", "heartbeat_lost", "removed"];
    let mut subjects = live.map(|event| format!("satellite.{event}")).to_vec();
    subjects.push("replay.>".to_owned());
    let name = "SATELLITE_TRANSITIONS".to_owned();
    let jetstream = jetstream::new(fleet.nats().await);
    let stream = jetstream.create_stream(Config { name, subjects, ..Config::default() }).await;
    let said = refusal(&fleet, &["--to", "nats", "--prefix", "replay."]).await;
    assert!(said.contains("the live stream SATELLITE_TRANSITIONS takes"), "{said}");
    let state = stream.expect("a stream").get_info().await.expect("its state").state;
    assert_eq!(state.messages, 0);
    // The first message after those that must not come: none came before it.
    assert!(replay(&fleet, &["--to", "nats", "--prefix", "other."]).await.status.success());
    let first = hear(&mut everything, 1).await.remove(0);
    assert_eq!(first.subject.as_str(), "other.satellite.connected");
}

/// A replay that runs beside the test.
fn start(fleet: &Fleet, arguments: &[&str], nats_url: &str) -> Child {
    let mut environment = environment(fleet);
    environment.push(("NATS_URL".to_owned(), nats_url.to_owned()));
    let mut command = program::command(&environment);
    command.arg("replay").args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("the program starts")
}

#[tokio::test]
async fn a_replay_that_loses_nats_says_where_to_go_on() {
    // Fifty positions a second.
    let fleet = with_a_log(400).await;
    let (proxy, through) = Proxy::before(&fleet.nats_url).await;
    let mut everything = hear_everything(&fleet).await;
    let paced = ["--to", "nats", "--prefix", "replay.", "--speed", "50x"];
    let replaying = start(&fleet, &paced, &through);
    let mut heard = hear(&mut everything, 100).await;
    proxy.cut();
    let output = blocking(move || replaying.wait_with_output().expect("it ends")).await;
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    let lost = ["the connection to NATS was lost", "no answer from NATS"];
    assert!(lost.iter().any(|lost| said.contains(lost)), "{said}");
    let after = go_on(&said);
    assert!((99..400).contains(&after), "{said}");

    let rest = ["--to", "nats", "--prefix", "replay.", "--after", &after.to_string()];
    assert!(replay(&fleet, &rest).await.status.success());
    let place = |message: &Message| {
        original(message, "replay.").headers["Groundstation-Position"]
            .parse::<i64>()
            .expect("a position")
    };
    while heard.last().map(&place) != Some(400) {
        heard.extend(hear(&mut everything, 1).await);
    }
    // What had arrived is not sent again; what is sent twice was not known to have arrived.
    let mut places: Vec<i64> = heard.iter().map(place).collect();
    let repeated = places.windows(2).filter(|pair| pair[1] <= pair[0]).count();
    assert!(repeated <= 1, "{places:?}");
    assert_eq!(places.iter().filter(|place| **place <= after).count() as i64, after);
    places.sort_unstable();
    places.dedup();
    assert_eq!(places, (1..=400).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_replay_that_nats_refuses_is_no_success() {
    let mut fleet = with_a_log(20).await;
    let users = r#"authorization { users: [
        { user: reader, password: secret, permissions: { publish: { deny: "replay.>" } } } ] }"#;
    let nats = blocking(move || stores::own_nats_with(users)).await;
    fleet.nats_url = nats.url().replacen("//", "//reader:secret@", 1);
    let said = refusal(&fleet, &["--to", "nats", "--prefix", "replay."]).await;
    assert!(said.contains("NATS refuses") && go_on(&said) == 0, "{said}");
    // With the right to it, it succeeds.
    let output = replay(&fleet, &["--to", "nats", "--prefix", "other."]).await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn an_interrupted_replay_has_written_exactly_what_it_says() {
    let fleet = with_a_log(400).await;
    let mut replaying = start(&fleet, &["--speed", "50x"], &fleet.nats_url);
    let stdout = replaying.stdout.take().expect("piped");
    let lines = blocking(move || {
        let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("text"));
        let mut read: Vec<String> = lines.by_ref().take(50).collect();
        // The pipe closes only when the replay ends.
        let pid = replaying.id().to_string();
        let killed = std::process::Command::new("/bin/kill").args(["-INT", &pid]).status();
        assert!(killed.expect("kill").success());
        read.extend(lines);
        (read, replaying.wait_with_output().expect("it ends"))
    });
    let (read, output) = timeout(PATIENCE, lines).await.expect("it ends in time");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("interrupted"), "{said}");
    assert!((50..400).contains(&read.len()), "{}", read.len());
    assert_eq!(go_on(&said), read.len() as i64);
    let last: Value = serde_json::from_str(read.last().expect("a line")).expect("a whole line");
    assert_eq!(last["position"], read.len());
}

#[tokio::test]
async fn speed_is_that_of_the_record_and_a_multiple_of_it() {
    let fleet = with_a_log(41).await;
    // Forty seconds pass between the first and the last.
    let begun = Instant::now();
    assert_eq!(positions(&fleet, &["--speed", "20x"]).await.len(), 41);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let begun = Instant::now();
    assert_eq!(positions(&fleet, &["--first", "1", "--last", "3", "--speed", "1x"]).await.len(), 3);
    assert!(begun.elapsed() >= Duration::from_secs(2));
    for speed in ["fast", "0x", "10"] {
        assert!(refusal(&fleet, &["--speed", speed]).await.contains("--speed"), "{speed}");
    }
}

#[tokio::test]
async fn whoever_has_read_enough_may_close_the_lines() {
    let fleet = with_a_log(3_000).await;
    let mut replaying = start(&fleet, &[], &fleet.nats_url);
    let output = blocking(move || {
        let mut lines = BufReader::with_capacity(128, replaying.stdout.take().expect("piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("a line");
        drop(lines);
        replaying.wait_with_output().expect("it ends")
    });
    let output = timeout(PATIENCE, output).await.expect("it ends in time");
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn memory_does_not_grow_with_the_log() {
    // Some seventy megabytes of lines.
    const LENGTH: usize = 100_000;
    const MOST_KIB: u64 = 48 * 1024;
    let fleet = with_a_log(LENGTH as i64).await;
    let mut replaying = start(&fleet, &[], &fleet.nats_url);
    let stdout = replaying.stdout.take().expect("piped");
    let status = format!("/proc/{}/status", replaying.id());
    let (read, peak) = blocking(move || {
        let mut lines = BufReader::new(stdout).lines();
        // The pipe holds less than the rest, so it still runs.
        let read = lines.by_ref().take(LENGTH - 1_000).count();
        let status = std::fs::read_to_string(status).expect("its status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its peak");
        let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        let read = read + lines.count();
        assert!(replaying.wait().expect("it ends").success());
        (read, peak)
    })
    .await;
    assert_eq!(read, LENGTH);
    assert!(peak < MOST_KIB, "{peak} KiB");
}

#[tokio::test]
async fn a_replay_ends_at_the_head_it_found_while_the_log_grows() {
    let fleet = with_a_log(200).await;
    let mut replaying = start(&fleet, &["--speed", "50x"], &fleet.nats_url);
    let stdout = replaying.stdout.take().expect("piped");
    let (first, second) = std::sync::mpsc::channel();
    let reading = blocking(move || {
        let mut lines = BufReader::new(stdout).lines();
        lines.next().expect("a line").expect("text");
        first.send(()).expect("somebody waits");
        let read = 1 + lines.count();
        assert!(replaying.wait().expect("it ends").success());
        read
    });
    let began = blocking(move || second.recv_timeout(PATIENCE));
    let sql = fleet.sql().await;
    let (read, ()) = tokio::join!(reading, async {
        began.await.expect("the first line");
        written_log::write(&sql, 201, 300).await;
    });
    assert_eq!(read, 200);
}
