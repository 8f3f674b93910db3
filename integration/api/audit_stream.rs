//! The audit's live stream has each entry once, in order, on every pod, however many changes are under way at once.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::reader::{Opened, Reader};
use crate::harness::{CALM, Fleet, Pod};

const STREAM: &str = "/v1/audit/stream";

async fn open(pod: &Pod, query: &str, token: &str, last: Option<&str>) -> Reader {
    let route = format!("{STREAM}{query}");
    match Reader::try_open_at(pod.address, &route, token, last).await.expect("an answer") {
        Opened::Stream(reader) => reader,
        Opened::Refused(status, body) => panic!("{status}: {body}"),
    }
}

async fn next(reader: &mut Reader) -> Value {
    let next = timeout(Duration::from_secs(30), reader.next()).await;
    next.expect("an entry in time").expect("an entry")
}

async fn read(reader: &mut Reader, count: usize) -> Vec<Value> {
    let mut all = Vec::new();
    while all.len() < count {
        all.push(next(reader).await);
    }
    all
}

fn positions(entries: &[Value]) -> Vec<i64> {
    entries.iter().map(|entry| entry["position"].as_i64().expect("a position")).collect()
}

/// Makes so many satellites at once, by two pods in turn.
async fn make_at_once(fleet: &Fleet, pods: [&Pod; 2], count: usize) {
    let making: Vec<_> = (0..count)
        .map(|n| {
            let (address, token) = (pods[n % 2].address, fleet.admin_token.clone());
            let body = json!({"name": format!("edge-{n}"), "region": "eu"}).to_string();
            tokio::spawn(async move {
                let limit = Duration::from_secs(30);
                let path = "/v1/satellites";
                crate::harness::pod::try_call(
                    address,
                    "POST",
                    path,
                    Some(&token),
                    Some(body),
                    limit,
                )
                .await
            })
        })
        .collect();
    for making in making {
        assert_eq!(making.await.expect("a call").expect("an answer").status, 201);
    }
}

#[tokio::test]
async fn fifty_changes_at_once_on_two_pods_are_in_each_stream_once_and_in_order() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let mut streams = Vec::new();
    for pod in [&a, &b] {
        streams.push(open(pod, "?after=0", &fleet.admin_token, None).await);
    }
    let mut present = open(&b, "", &fleet.admin_token, None).await;
    present.begun().await;
    make_at_once(&fleet, [&a, &b], 50).await;
    let all: Vec<i64> = (1..=50).collect();
    let page = a.get("/v1/audit?limit=1000").await.json();
    for reader in streams.iter_mut().chain([&mut present]) {
        let seen = read(reader, 50).await;
        assert_eq!(positions(&seen), all);
        assert_eq!(&json!(seen), &page["entries"], "it is what the other route shows");
        assert_eq!(reader.last.as_deref(), Some("50"));
    }
    // Nothing comes twice: the next is the next.
    a.register("later", "eu").await;
    for reader in &mut streams {
        assert_eq!(next(reader).await["position"], 51);
    }
}

#[tokio::test]
async fn an_entry_that_is_committed_late_is_not_skipped_and_one_rolled_back_leaves_no_gap() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    const INSERT: &str = "
        insert into audit_entries (actor_type, actor_id, action, target_kind, target_id)
        values ('system', 'late', 'satellite.updated', 'satellite', 'x')";
    let mut reader = open(&b, "?after=0", &fleet.admin_token, None).await;
    a.register("early", "eu").await;
    assert_eq!(next(&mut reader).await["position"], 1);
    for (end, first, count) in [("commit", 2, 7), ("rollback", 9, 6)] {
        let sql = fleet.sql().await;
        sql.batch_execute(&format!("begin; {INSERT}")).await.expect("an entry on its way");
        let ending = async {
            // The stream looks several times meanwhile.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            sql.batch_execute(end).await.expect("an end");
        };
        tokio::join!(make_at_once(&fleet, [&a, &b], 6), ending);
        let seen = read(&mut reader, count).await;
        assert_eq!(positions(&seen), (first..).take(count).collect::<Vec<_>>(), "{end}");
        let late = seen.iter().filter(|entry| entry["actor"]["id"] == "late").count();
        assert_eq!(late, count - 6, "{end}: {seen:?}");
    }
}

#[tokio::test]
async fn whoever_comes_back_with_the_last_id_goes_on_there_on_any_pod() {
    let fleet = Fleet::new(CALM).await;
    let (mut a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let mut reader = open(&a, "?after=0", &fleet.admin_token, None).await;
    make_at_once(&fleet, [&a, &b], 6).await;
    let seen = read(&mut reader, 4).await;
    assert_eq!(positions(&seen), [1, 2, 3, 4]);
    a.kill();
    while reader.next().await.is_some() {}
    make_at_once(&fleet, [&b, &b], 3).await;
    // The last id counts more than the parameter.
    let mut again = open(&b, "?after=0", &fleet.admin_token, Some("4")).await;
    assert_eq!(positions(&read(&mut again, 5).await), [5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_stream_with_filters_has_what_passes_them_and_says_how_far_it_is() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = pod.make_token(&json!({"name": "deploy", "role": "admin"})).await;
    let edge = pod.register("edge", "eu").await;
    let path = format!("/v1/satellites/{}", edge.id);
    let body = json!({"name": "other"}).to_string();
    let changed = pod.call("PATCH", &path, Some(&token.secret), Some(body)).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    pod.register("last", "eu").await;
    for (query, expected) in [
        ("actor=deploy".to_owned(), &[3][..]),
        ("action=satellite.created".to_owned(), &[2, 4]),
        (format!("target={}", edge.id), &[2, 3]),
    ] {
        let query = format!("?after=0&{query}");
        let mut reader = open(&pod, &query, &fleet.admin_token, None).await;
        assert_eq!(positions(&read(&mut reader, expected.len()).await), expected, "{query}");
    }
    let mut reader = open(&pod, "?after=0&actor=deploy", &fleet.admin_token, None).await;
    next(&mut reader).await;
    timeout(Duration::from_secs(30), reader.mark()).await.expect("how far it is");
    assert_eq!(reader.last.as_deref(), Some("4"));
}

#[tokio::test]
async fn what_the_stream_cannot_begin_with_and_who_may_not_read_it_is_refused() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let bounded = json!({"name": "eu", "role": "admin", "selector": {"region": "eu"}});
    let bounded = pod.make_token(&bounded).await;
    let cases = [
        ("?after=9", fleet.admin_token.as_str(), 422, "The audit ends at position"),
        ("?after=-1", &fleet.admin_token, 422, "after must be a position"),
        ("?satellite=x", &fleet.admin_token, 400, "unknown-parameter"),
        ("", &fleet.read_token, 403, "may not see the audit"),
        ("", &bounded.secret, 403, "may not see the audit"),
        ("", "wrong", 401, "not valid here"),
    ];
    for (query, token, status, said) in cases {
        let route = format!("{STREAM}{query}");
        let opened = Reader::try_open_at(pod.address, &route, token, None).await;
        let Opened::Refused(refused, body) = opened.expect("an answer") else {
            panic!("{query} was not refused")
        };
        assert_eq!(refused, status, "{query}: {body}");
        assert!(body.contains(said), "{query}: {body}");
    }
}
