//! The fleet at an earlier time: the fold of the log up to a position or a moment never changes.

use std::collections::BTreeMap;

use groundstation::contract::wire::Timestamp;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::program::run;
use crate::harness::wait::{blocking, eventually};
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, written_log};

/// A few satellites come, go, are taken over and removed; returns all transitions, and the
/// satellites that stay.
async fn lived(fleet: &Fleet, pod: &Pod) -> (Vec<Value>, Vec<Satellite>) {
    let mut credentials: Vec<Credentials> = Vec::new();
    for n in 0..4 {
        credentials.push(pod.register(&format!("edge-{n}"), "eu").await);
    }
    let mut open = Vec::new();
    for satellite in &credentials {
        open.push(Satellite::connect(pod.address, satellite).await);
    }
    open.remove(0).close().await;
    fleet
        .expect_history(credentials[0].id, &["1 connected connect", "1 disconnected client_close"])
        .await;
    open.push(Satellite::connect(pod.address, &credentials[1]).await);
    assert_eq!(pod.remove(credentials[2].id).await.status, 204);
    open.push(Satellite::connect(pod.address, &credentials[0]).await);
    let answer = pod.get("/v1/transitions?limit=1000").await.json();
    let transitions = answer["transitions"].as_array().expect("transitions").clone();
    assert_eq!(transitions.len(), 8);
    (transitions, open)
}

/// Status, last event and time last seen of each satellite, by its id.
type States = BTreeMap<Uuid, (Value, Value, Value)>;

fn summary(state: &Value) -> (Value, Value, Value) {
    (state["status"].clone(), state["lastEvent"].clone(), state["lastSeenAt"].clone())
}

/// The fold of the log up to a position, computed from the transitions alone.
fn fold(transitions: &[Value], position: i64) -> States {
    let mut states = States::new();
    for transition in transitions.iter().filter(|t| t["position"].as_i64() <= Some(position)) {
        let id = transition["id"].as_str().expect("an id").parse().expect("a UUID");
        match &transition["next"] {
            Value::Null => states.remove(&id),
            next => states.insert(id, summary(next)),
        };
    }
    states
}

fn shown(page: &Value) -> States {
    let satellites = page["satellites"].as_array().expect("satellites");
    let state = |s: &Value| (s["id"].as_str().expect("id").parse().expect("UUID"), summary(s));
    satellites.iter().map(state).collect()
}

#[tokio::test]
async fn the_fleet_as_of_each_position_is_the_fold_of_the_log_up_to_there() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (transitions, _open) = lived(&fleet, &pod).await;
    for position in 0..=8 {
        let page = pod.get(&format!("/v1/satellites?position={position}")).await.json();
        assert_eq!(page["position"], position);
        assert_eq!(shown(&page), fold(&transitions, position), "as of {position}");
    }
    let third = pod.get("/v1/satellites?position=8&limit=2").await.json();
    assert_eq!(third["satellites"].as_array().expect("a page").len(), 2);
    let cursor = third["nextCursor"].as_str().expect("there is more");
    let rest = pod.get(&format!("/v1/satellites?position=8&limit=2&cursor={cursor}")).await.json();
    let mut both = shown(&third);
    both.append(&mut shown(&rest));
    assert_eq!(both, fold(&transitions, 8));
    fleet.check().await;
}

#[tokio::test]
async fn a_moment_is_the_newest_position_recorded_by_then() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (transitions, _open) = lived(&fleet, &pod).await;
    // The log settles before the next moment, so the last moment is past.
    eventually("the last moment to be past", async || {
        let at = transitions[7]["recordedAt"].as_str().expect("a time");
        let answer = pod.get(&format!("/v1/satellites?at={at}")).await;
        if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
    for transition in &transitions {
        let at = transition["recordedAt"].as_str().expect("a time");
        let mut newest = transitions.iter().filter(|t| t["recordedAt"].as_str() <= Some(at));
        let newest = newest.next_back().expect("itself")["position"].as_i64().expect("a number");
        let page = pod.get(&format!("/v1/satellites?at={at}")).await.json();
        assert_eq!(page["position"], newest, "at {at}");
        assert_eq!(shown(&page), fold(&transitions, newest), "at {at}");
    }
    fleet.check().await;
}

#[tokio::test]
async fn the_same_question_about_the_past_has_the_same_bytes_while_the_fleet_goes_on() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let (transitions, _open) = lived(&fleet, &a).await;
    let at = transitions[4]["recordedAt"].as_str().expect("a time");
    let questions = [format!("/v1/satellites?at={at}"), "/v1/satellites?position=5".to_owned()];
    let mut first = Vec::new();
    for question in &questions {
        first.push(a.get(question).await.text);
    }
    let late = a.register("late", "us").await;
    Satellite::connect(b.address, &late).await.close().await;
    let known = transitions[0]["id"].as_str().expect("an id").parse().expect("a UUID");
    assert_eq!(a.remove(known).await.status, 204);
    for (question, first) in questions.iter().zip(&first) {
        assert_eq!(&b.get(question).await.text, first, "{question}");
    }
    fleet.check().await;
}

#[tokio::test]
async fn the_future_is_refused_and_before_the_first_transition_nobody_was_there() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    assert_eq!(pod.get("/v1/satellites?position=0").await.json()["satellites"], json!([]));
    let _lived = lived(&fleet, &pod).await;
    for question in ["at=2020-01-01T00:00:00Z", "position=0"] {
        let answer = pod.get(&format!("/v1/satellites?{question}")).await;
        assert_eq!(answer.json()["satellites"], json!([]), "{question}");
    }
    for question in ["at=2999-01-01T00:00:00Z", "position=9"] {
        let answer = pod.get(&format!("/v1/satellites?{question}")).await;
        assert_eq!(answer.status, 422, "{question}");
        assert_eq!(answer.json()["type"], "urn:groundstation:problem:future", "{question}");
    }
    for question in
        ["at=yesterday", "position=-1", "at=2020-01-01T00:00:00Z&position=1", "position=1&cursor=x"]
    {
        let answer = pod.get(&format!("/v1/satellites?{question}")).await;
        assert_eq!(answer.status, 422, "{question}");
    }
    fleet.check().await;
}

#[tokio::test]
async fn the_command_line_lists_the_fleet_as_it_was() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (transitions, _open) = lived(&fleet, &pod).await;
    let (url, token) = (format!("http://{}", pod.address), fleet.admin_token.clone());
    let first_at = transitions[0]["recordedAt"].as_str().expect("a time").to_owned();
    let listed = blocking(move || {
        let environment =
            [("GROUNDSTATION_URL", url.as_str()), ("GROUNDSTATION_ADMIN_TOKEN", token.as_str())];
        let first = run(&["satellite", "list", "--at", &first_at, "--json"], &environment);
        let last = run(&["satellite", "list", "--position", "8"], &environment);
        [first, last].map(|output| String::from_utf8(output.stdout).expect("text"))
    })
    .await;
    let first: Vec<Value> = serde_json::from_str(&listed[0]).expect("JSON");
    assert!(first.iter().any(|satellite| satellite["name"] == "edge-0"), "{first:?}");
    for name in ["edge-0", "edge-1", "edge-3"] {
        assert!(listed[1].contains(name), "{}", listed[1]);
    }
    assert!(!listed[1].contains("edge-2"), "removed: {}", listed[1]);
    fleet.check().await;
}

#[tokio::test]
async fn a_moment_is_past_when_its_millisecond_is_over() {
    let (fleet, clock) = Fleet::with_clock(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    // The database's clock stands within a millisecond.
    let sql = fleet.sql().await;
    let soon = "select (extract(epoch from clock_timestamp()) * 1000)::bigint + 2000";
    let millisecond: i64 = sql.query_one(soon, &[]).await.expect("the time").get(0);
    clock.stop_at(millisecond * 1_000 + 400);
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millisecond) * 1_000_000);
    let at = Timestamp::new(moment.expect("a time")).to_string();
    let question = format!("/v1/satellites?at={at}");

    let asked = pod.get(&question).await;
    let _edge = Satellite::connect(pod.address, &credentials).await;
    let transitions = pod.get("/v1/transitions").await.json();
    assert_eq!(transitions["transitions"][0]["recordedAt"], at, "{transitions}");
    assert_eq!(asked.status, 422, "{asked:?}");
    assert_eq!(asked.json()["type"], "urn:groundstation:problem:future");
    clock.stop_at((millisecond + 1) * 1_000);
    let asked = pod.get(&question).await;
    assert_eq!((asked.status, &asked.json()["position"]), (200, &json!(1)), "{asked:?}");
}

#[tokio::test]
async fn the_past_of_satellites_that_have_been_quiet_is_found_without_reading_the_log() {
    // In a log of a few that come and go all the time.
    const QUIET: &str = "
        insert into satellite_connections (satellite_id, session, revision, last_event)
        select md5('quiet ' || n)::uuid, 1, 2, 'disconnected' from generate_series(1, 1000) n;
        analyze entity_transitions;
        analyze satellite_connections";
    const READ: &str = "
        select coalesce(sum(idx_tup_read) filter (where indexrelname like '%pkey'), 0)::bigint,
               coalesce(sum(idx_scan) filter (where indexrelname like '%entity_id_position%'), 0)::bigint
          from pg_stat_user_indexes where relname like 'entity_transitions_from_%'";
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    written_log::write(&sql, 1, 3_000).await;
    sql.batch_execute(QUIET).await.expect("quiet satellites");
    let pod = fleet.pod("a").await;
    let then = pod.get("/v1/fleet?position=3000").await;
    assert_eq!((then.status, &then.json()["total"]), (200, &json!(10)), "{then:?}");
    eventually("the server to tell what was looked up", async || {
        let row = sql.query_one(READ, &[]).await.map_err(|error| error.to_string())?;
        let (positions, lookups): (i64, i64) = (row.get(0), row.get(1));
        // All of it for each would be three millions.
        assert!(positions < 100_000, "{positions} read by position");
        if lookups >= 1_000 { Ok(()) } else { Err(format!("{lookups}")) }
    })
    .await;
}
