//! The live stream is the log: from any position, without a gap, whatever happens to the pod, and a slow or stuck
//! reader holds nothing up.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::watch;

use crate::harness::reader::{Opened, Reader};
use crate::harness::{CALM, Fleet, Pod, Satellite, eventually, written_log};

/// The whole log, page by page, as the other route shows it.
async fn whole_log(pod: &Pod) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = pod.get(&format!("/v1/transitions?limit=1000&after={after}")).await.json();
        let transitions = page["transitions"].as_array().expect("a list");
        if transitions.is_empty() {
            return all;
        }
        all.extend(transitions.iter().cloned());
        after = page["nextAfter"].as_i64().expect("a position");
    }
}

async fn come_and_go(pod: &Pod, credentials: &crate::harness::Credentials) {
    Satellite::connect(pod.address, credentials).await.close().await;
}

async fn next(reader: &mut Reader) -> Value {
    let next = tokio::time::timeout(Duration::from_secs(30), reader.next()).await;
    next.expect("an event in time").expect("an event")
}

#[tokio::test]
async fn a_stream_goes_on_where_its_reader_was_and_is_what_the_log_holds() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = a.register("edge", "eu").await;
    come_and_go(&a, &credentials).await;
    fleet.expect_log_length(2).await;

    let mut present = Reader::open(a.address, &fleet.read_token, "", None).await;
    present.begun().await;
    assert_eq!(present.last.as_deref(), Some("2"), "it says where the present begins");
    let mut all = Reader::open(b.address, &fleet.read_token, "?after=0", None).await;
    let mut seen = vec![next(&mut all).await, next(&mut all).await];
    // Made on one pod, streamed by both.
    come_and_go(&a, &credentials).await;
    seen.extend([next(&mut all).await, next(&mut all).await]);
    assert_eq!(seen, whole_log(&a).await);
    assert_eq!([next(&mut present).await, next(&mut present).await][..], seen[2..]);

    // The position that a reader has reached counts more than the one it asked for first.
    let mut again = Reader::open(a.address, &fleet.read_token, "?after=0", Some("3")).await;
    assert_eq!(next(&mut again).await, seen[3]);
    assert_eq!(again.last.as_deref(), Some("4"));
}

#[tokio::test]
async fn what_a_stream_cannot_begin_with_is_refused_with_the_reason() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let cases = [
        ("?after=1", None, 422, "ahead-of-log"),
        ("?after=-1", None, 422, "after must be a position"),
        ("?after=x", None, 422, "after"),
        ("", Some("x"), 422, "Last-Event-ID"),
        ("", Some("7"), 422, "ahead-of-log"),
    ];
    for (query, last, status, said) in cases {
        let opened = Reader::try_open(pod.address, &fleet.read_token, query, last).await;
        let Opened::Refused(refused, body) = opened.expect("an answer") else {
            panic!("{query} {last:?} was not refused")
        };
        assert_eq!(refused, status, "{query} {last:?}: {body}");
        assert!(body.contains(said), "{query} {last:?}: {body}");
    }
    let opened = Reader::try_open(pod.address, "wrong", "", None).await.expect("an answer");
    assert!(matches!(opened, Opened::Refused(401, _)));
}

#[tokio::test]
async fn a_reader_who_was_away_until_retention_dropped_what_follows_is_told_so() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    written_log::narrow(&sql, 1_000).await;
    written_log::write(&sql, 1, 2_500).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let mut reader = Reader::open(pod.address, &fleet.read_token, "?after=10", None).await;
    assert_eq!(next(&mut reader).await["position"], 11);
    eventually("the relay to have published all", async || {
        let row = sql.query_one("select position from relay", &[]).await;
        let position: i64 = row.map_err(|error| error.to_string())?.get(0);
        if position == 2_500 { Ok(()) } else { Err(position.to_string()) }
    })
    .await;
    let database = [("DATABASE_URL".to_owned(), fleet.database_url.clone())];
    let drop = ["retention", "--older-than", "1h"];
    let dropped =
        crate::harness::wait::blocking(move || crate::harness::program::run(&drop, &database))
            .await;
    assert!(dropped.status.success(), "{dropped:?}");

    let opened = Reader::try_open(pod.address, &fleet.read_token, "", Some("11")).await;
    let Opened::Refused(410, body) = opened.expect("an answer") else { panic!("not refused") };
    assert!(body.contains("history begins at position 2001"), "{body}");
    // The stream now begins where the log begins.
    let mut reader = Reader::open(pod.address, &fleet.read_token, "?after=0", None).await;
    assert_eq!(next(&mut reader).await["position"], 2_001);
}

/// Reads on from any pod that runs, until it has everything up to `through`. Returns how many streams it has opened.
async fn follow(
    token: String,
    mut address: watch::Receiver<std::net::SocketAddr>,
    mut through: watch::Receiver<Option<i64>>,
    opened: watch::Sender<u32>,
) -> Vec<Value> {
    let (mut seen, mut last) = (Vec::new(), Some("0".to_owned()));
    loop {
        let here = *address.borrow_and_update();
        let stream = Reader::try_open(here, &token, "", last.as_deref()).await;
        let Ok(Opened::Stream(mut reader)) = stream else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        opened.send_modify(|opened| *opened += 1);
        loop {
            let position = seen.last().map_or(0, |t: &Value| t["position"].as_i64().expect("one"));
            if through.borrow().is_some_and(|through| position >= through) {
                return seen;
            }
            tokio::select! {
                next = reader.next() => match next {
                    Some(transition) => {
                        last = Some(transition["position"].to_string());
                        seen.push(transition);
                    }
                    None => break,
                },
                changed = through.changed() => changed.expect("the test goes on"),
                changed = address.changed() => {
                    changed.expect("the test goes on");
                    break;
                }
            }
        }
    }
}

#[tokio::test]
async fn pods_die_and_the_stream_that_is_resumed_on_others_is_the_whole_log() {
    let fleet = Fleet::new(CALM).await;
    let quiet = fleet.pod("quiet").await;
    let mut told = fleet.plan("told-0").start().await;
    let credentials = fleet.register(&quiet, "edge", 3).await;
    let (lead, address) = watch::channel(told.address);
    let (end, through) = watch::channel(None);
    let (opened, mut openings) = watch::channel(0);
    let reader = tokio::spawn(follow(fleet.read_token.clone(), address, through, opened));
    for round in 1..=4 {
        // Otherwise a pod may be dead again before its reader has found it.
        openings.wait_for(|opened| *opened >= round).await.expect("the reader goes on");
        for credentials in &credentials {
            come_and_go(&quiet, credentials).await;
        }
        // In the middle of a write.
        told.kill();
        for credentials in &credentials {
            come_and_go(&quiet, credentials).await;
        }
        told = fleet.plan(&format!("told-{round}")).start().await;
        lead.send(told.address).expect("the reader goes on");
    }
    fleet.expect_log_length(48).await;
    end.send(Some(48)).expect("the reader goes on");
    let seen = tokio::time::timeout(Duration::from_secs(60), reader)
        .await
        .expect("everything in time")
        .expect("a reader");
    assert_eq!(seen, whole_log(&quiet).await);
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn who_does_not_read_is_dropped_and_leaves_his_place() {
    let fleet = Fleet::new(CALM).await;
    written_log::write(&fleet.sql().await, 1, 12_000).await;
    let mut pod = fleet
        .plan("a")
        .with("GROUNDSTATION_MAX_STREAMS", "1")
        .with("GROUNDSTATION_WRITE_TIMEOUT", "2s")
        .start()
        .await;
    const DROPPED: &str = "groundstation_door_refusals_total{reason=\"write_timeout\"}";
    let mut stuck = Reader::open_narrow(pod.address, &fleet.read_token, "?after=0").await;
    assert_eq!(next(&mut stuck).await["position"], 1);
    // The only place is taken.
    let second = Reader::try_open(pod.address, &fleet.read_token, "?after=0", None).await;
    let Opened::Refused(503, body) = second.expect("an answer") else { panic!("not refused") };
    assert!(body.contains("too-many-streams"), "{body}");
    pod.expect_metric(DROPPED, 1.0).await;
    let mut reader = eventually("the place to be free", async || {
        match Reader::try_open(pod.address, &fleet.read_token, "?after=0", None).await {
            Ok(Opened::Stream(reader)) => Ok(reader),
            Ok(Opened::Refused(status, body)) => Err(format!("{status}: {body}")),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    // The client that reads has all of it, while the other has only what was on its way.
    for position in 1..=12_000 {
        assert_eq!(next(&mut reader).await["position"], position);
    }
    // A client that leaves by itself frees its place at once.
    drop(reader);
    eventually("the place to be free", async || {
        match Reader::try_open(pod.address, &fleet.read_token, "", None).await {
            Ok(Opened::Stream(_)) => Ok(()),
            _ => Err("taken".to_owned()),
        }
    })
    .await;
    // Its connection is gone, not only its stream: the pod does not wait for it.
    pod.terminate();
    assert!(pod.exit().await.success());
    assert!(pod.logged("requests did not end in time").is_none(), "{}", pod.log());
    let mut had = 1;
    while stuck.next().await.is_some() {
        had += 1;
    }
    assert!(had < 12_000, "he was cut off: {had}");
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_silent_stream_is_kept_alive_beyond_every_deadline_and_ends_with_its_pod() {
    let fleet = Fleet::new(CALM).await;
    let mut pod = fleet
        .plan("a")
        .with("GROUNDSTATION_AUTHENTICATION_TIMEOUT", "500ms")
        .with("GROUNDSTATION_WRITE_TIMEOUT", "500ms")
        .start()
        .await;
    let mut reader = Reader::open(pod.address, &fleet.read_token, "", None).await;
    let begun = Instant::now();
    tokio::time::timeout(Duration::from_secs(40), reader.comment()).await.expect("a comment");
    assert!(begun.elapsed() > Duration::from_secs(5), "no more often than needed");
    let credentials = pod.register("edge", "eu").await;
    come_and_go(&pod, &credentials).await;
    assert_eq!(next(&mut reader).await["event"], "connected");
    pod.terminate();
    while reader.next().await.is_some() {}
    assert!(pod.exit().await.success(), "a stream does not hold its pod up");
}

#[tokio::test]
async fn a_stream_ends_after_its_lifetime() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_STREAM_LIFETIME", "300ms").start().await;
    let mut reader = Reader::open(pod.address, &fleet.read_token, "", None).await;
    let ended = tokio::time::timeout(Duration::from_secs(30), reader.next()).await;
    assert_eq!(ended.expect("it ends"), None);
    assert_eq!(reader.last.as_deref(), Some("0"));
}

#[tokio::test]
async fn open_streams_are_told_and_one_too_many_is_told_when_to_come_back() {
    const OPEN: &str = "groundstation_streams";
    let fleet = Fleet::new(CALM).await;
    let pod = fleet
        .plan("a")
        .with("GROUNDSTATION_MAX_STREAMS", "2")
        .with("GROUNDSTATION_STREAM_LIFETIME", "2m")
        .start()
        .await;
    assert_eq!(pod.metric(OPEN).await, 0.0);
    assert_eq!(pod.metric("groundstation_streams_max").await, 2.0);
    let mut first = Reader::open(pod.address, &fleet.read_token, "", None).await;
    first.begun().await;
    assert_eq!(pod.metric(OPEN).await, 1.0);
    // Refused because of its parameters: it has no stream.
    assert_eq!(pod.get("/v1/transitions/stream?after=-1").await.status, 422);
    assert_eq!(pod.get("/v1/transitions/stream?after=7").await.status, 422);
    assert_eq!(pod.metric(OPEN).await, 1.0);
    let mut second = Reader::open(pod.address, &fleet.read_token, "", None).await;
    second.begun().await;
    assert_eq!(pod.metric(OPEN).await, 2.0);

    let refused = pod.get("/v1/transitions/stream").await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert_eq!(refused.headers["content-type"], "application/problem+json", "{refused:?}");
    let pause: u64 = refused.headers["retry-after"].parse().expect("seconds");
    assert!(pause > 0, "{refused:?}");
    assert_eq!(refused.json()["type"], "urn:groundstation:problem:too-many-streams");
    assert_eq!(pod.metric(OPEN).await, 2.0);

    drop(first);
    eventually("one stream to be open", async || match pod.metric(OPEN).await {
        1.0 => Ok(()),
        open => Err(open.to_string()),
    })
    .await;
    drop(second);
    eventually("no stream to be open", async || match pod.metric(OPEN).await {
        0.0 => Ok(()),
        open => Err(open.to_string()),
    })
    .await;
}

#[tokio::test]
async fn a_stream_with_filters_has_what_passes_them_and_goes_on_behind_what_does_not() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let (eu, us) = (a.register("eu", "eu").await, a.register("us", "us").await);
    for credentials in [&eu, &us, &eu] {
        come_and_go(&a, credentials).await;
    }
    fleet.expect_log_length(6).await;
    let of = async |query: String| Reader::open(b.address, &fleet.read_token, &query, None).await;
    let log = whole_log(&a).await;
    for (query, expected) in [
        ("region=eu".to_owned(), &[1, 2, 5, 6][..]),
        ("event=disconnected".to_owned(), &[2, 4, 6]),
        (format!("satellite={}", us.id), &[3, 4]),
        (format!("satellite={}&event=connected&region=eu", eu.id), &[1, 5]),
    ] {
        let mut reader = of(format!("?after=0&{query}")).await;
        for position in expected {
            assert_eq!(next(&mut reader).await, log[*position - 1], "{query}");
        }
    }

    // Nothing passes for a while: its reader is told how far the log was looked through all the same.
    let mut reader = of("?after=0&region=nowhere".to_owned()).await;
    reader.begun().await;
    while reader.last.as_deref() != Some("6") {
        let moved = tokio::time::timeout(Duration::from_secs(30), reader.mark()).await;
        moved.expect("a mark in time");
    }
    let last = reader.last.clone();
    drop(reader);
    come_and_go(&a, &us).await;
    // Whoever comes back from there, to any pod and with other filters, has what followed.
    let query = "?after=0&region=us";
    let mut reader = Reader::open(a.address, &fleet.read_token, query, last.as_deref()).await;
    assert_eq!(next(&mut reader).await["position"], 7);
    assert_eq!(next(&mut reader).await["position"], 8);

    for (query, words) in [
        ("?event=moved", "event must be one of"),
        ("?satellite=edge", "satellite must be"),
        ("?region=%00", "region must not contain a NUL"),
        ("?regio=eu", "nearest it knows is"),
    ] {
        let opened = Reader::try_open(a.address, &fleet.read_token, query, None).await;
        let Opened::Refused(_, body) = opened.expect("an answer") else { panic!("{query}") };
        assert!(body.contains(words), "{query}: {body}");
    }
}
