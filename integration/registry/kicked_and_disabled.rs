//! An administrator ends a session, or has a satellite refused: on every pod, and whatever happens meanwhile.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::imported::{imported, stored};
use crate::harness::pod::Answer;
#[cfg(feature = "failpoints")]
use crate::harness::pod::try_call;
use crate::harness::subscriber::body;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Credentials, Fleet, Heard, Pod, Satellite, eventually};

/// A session ends within this time. Twice what is promised: the machine is busy.
const PROMPT: Duration = Duration::from_secs(2);

const DISABLED: &str = "Satellite is disabled";
const INVALID: &str = "Invalid client ID or token";

const CONNECTED: &str = "1 connected connect";

async fn order(fleet: &Fleet, pod: &Pod, id: Uuid, order: &str) -> Answer {
    let path = format!("/v1/satellites/{id}/{order}");
    pod.call("POST", &path, Some(&fleet.admin_token), None).await
}

/// The answer to an order that is followed.
async fn ordered(fleet: &Fleet, pod: &Pod, id: Uuid, word: &str) -> Value {
    let answer = order(fleet, pod, id, word).await;
    assert_eq!(answer.status, 200, "{word}: {answer:?}");
    answer.json()
}

async fn is_refused(pod: &Pod, credentials: &Credentials, reason: &str) {
    let mut satellite = Satellite::open(pod.address).await;
    satellite.authenticate(credentials);
    assert_eq!(satellite.expect("auth_failed").await["reason"], reason);
    assert_eq!(satellite.hear().await, Heard::Closed(4001));
}

/// Who caused the newest transition of a satellite.
async fn newest_actor(pod: &Pod, id: Uuid) -> Value {
    let path = format!("/v1/satellites/{id}/transitions?order=desc&limit=1");
    pod.get(&path).await.json()["transitions"][0]["actor"].clone()
}

/// What the registry's history says was done to a satellite, with the values after.
async fn done_to(fleet: &Fleet, id: Uuid) -> Vec<String> {
    const DONE: &str = "
        select action || coalesce(' ' || (after ->> 'disabled'), '') || ' by ' || actor_id
          from registry_changes where satellite_id = $1 order by change";
    let rows = fleet.sql().await.query(DONE, &[&id]).await.expect("the history");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn a_kick_through_one_pod_ends_the_session_on_another_and_the_satellite_may_come_back() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let edge = a.register("edge", "eu").await;
    let bystander = a.register("bystander", "eu").await;
    // Both are silent: no heartbeat tells their pod.
    let mut satellite = Satellite::connect(b.address, &edge).await;
    let bystanding = Satellite::connect(b.address, &bystander).await;
    let begun = Instant::now();
    let answer = ordered(&fleet, &a, edge.id, "kick").await;
    assert_eq!(answer["sessionEnded"], true, "{answer}");
    assert_eq!(answer["satellite"]["status"], "offline", "{answer}");
    satellite.expect_shutdown("kicked").await;
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    let kicked = [CONNECTED, "1 disconnected kicked"];
    assert_eq!(fleet.history(edge.id).await, kicked);
    assert_eq!(newest_actor(&b, edge.id).await, json!({"type": "token", "id": "admin"}));

    // Whoever is offline stays as it is, and it is said.
    let again = ordered(&fleet, &b, edge.id, "kick").await;
    assert_eq!(again["sessionEnded"], false, "{again}");
    let back = Satellite::connect(b.address, &edge).await;
    // A later change is told to it; the kick of the session before is not.
    a.patch(&format!("/v1/satellites/{}", edge.id), &json!({"name": "edge-2"})).await;
    a.assign(edge.id, &json!([])).await;
    let mut back = back;
    back.expect("config_updated").await;
    let expected: Vec<&str> = kicked.into_iter().chain(["2 connected connect"]).collect();
    assert_eq!(fleet.history(edge.id).await, expected);
    assert_eq!(fleet.history(bystander.id).await, [CONNECTED]);

    for word in ["kick", "disable", "enable"] {
        assert_eq!(order(&fleet, &a, Uuid::new_v4(), word).await.status, 404, "{word}");
        let path = format!("/v1/satellites/{}/{word}", edge.id);
        assert_eq!(a.call("POST", &path, Some(&fleet.read_token), None).await.status, 403);
        assert_eq!(a.get(&path).await.status, 405, "{word}");
    }
    back.close().await;
    bystanding.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn a_kick_and_a_disabling_end_sessions_within_a_second_while_nats_is_away() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let (first, second) = (a.register("edge", "eu").await, a.register("other", "eu").await);
    let mut kicked = Satellite::connect(b.address, &first).await;
    let mut disabled = Satellite::connect(b.address, &second).await;
    fleet.own_nats().kill();
    ordered(&fleet, &a, first.id, "kick").await;
    let begun = Instant::now();
    kicked.expect_shutdown("kicked").await;
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    ordered(&fleet, &a, second.id, "disable").await;
    let begun = Instant::now();
    disabled.expect_shutdown(DISABLED).await;
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    fleet.expect_history(first.id, &[CONNECTED, "1 disconnected kicked"]).await;
    fleet.expect_history(second.id, &[CONNECTED, "1 disconnected disabled"]).await;
    let fleet = blocking(move || {
        fleet.own_nats().restart().expect("NATS restarts");
        fleet
    })
    .await;
    fleet.check().await;
}

/// What would show that something was written or locked for a satellite.
async fn traces(fleet: &Fleet, id: Uuid) -> String {
    const TRACES: &str = "
        select concat_ws(' ',
            (select concat_ws(',', ctid, xmin, xmax) from satellites where id = $1),
            (select concat_ws(',', ctid, xmin, xmax) from satellite_connections where satellite_id = $1),
            (select change from satellite_changes where satellite_id = $1),
            (select count(*) from registry_changes where satellite_id = $1),
            (select count(*) from entity_transitions))";
    fleet.sql().await.query_one(TRACES, &[&id]).await.expect("the traces").get(0)
}

#[tokio::test]
async fn a_disabled_satellite_is_refused_on_every_pod_without_a_trace_until_it_is_enabled() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let pods = [&a, &b];
    let edge = a.register("edge", "eu").await;
    let mut satellite = Satellite::connect(b.address, &edge).await;
    let answer = ordered(&fleet, &a, edge.id, "disable").await;
    assert_eq!(
        (&answer["sessionEnded"], &answer["satellite"]["disabled"]),
        (&json!(true), &json!(true))
    );
    satellite.expect_shutdown(DISABLED).await;
    let ended = [CONNECTED, "1 disconnected disabled"];
    assert_eq!(fleet.history(edge.id).await, ended);

    // One that never connected is disabled too. No pod has anything left to write of it.
    let silent = a.register("silent", "eu").await;
    let answer = ordered(&fleet, &b, silent.id, "disable").await;
    assert_eq!(answer["sessionEnded"], false, "{answer}");
    let before = traces(&fleet, silent.id).await;
    let wrong = Credentials { token: "csat_wrong".to_owned(), ..silent.clone() };
    let nobody = Credentials { id: Uuid::new_v4(), ..silent.clone() };
    for pod in pods {
        for _ in 0..3 {
            is_refused(pod, &silent, DISABLED).await;
        }
        is_refused(pod, &edge, DISABLED).await;
        // Who has no token of it learns nothing.
        is_refused(pod, &wrong, INVALID).await;
        is_refused(pod, &nobody, INVALID).await;
        let counted = "groundstation_authentications_total{result=\"disabled\"}";
        pod.expect_metric(counted, 4.0).await;
        pod.sweeps(3).await;
    }
    assert_eq!(traces(&fleet, silent.id).await, before);
    assert_eq!(fleet.history(edge.id).await, ended);

    // Again is no change.
    let again = ordered(&fleet, &b, edge.id, "disable").await;
    assert_eq!(again["sessionEnded"], false, "{again}");
    for pod in pods {
        let enabled = ordered(&fleet, pod, edge.id, "enable").await;
        assert_eq!(enabled.get("disabled"), None, "{enabled}");
    }
    let done = ["created by admin", "disabled true by admin", "enabled false by admin"];
    assert_eq!(done_to(&fleet, edge.id).await, done);
    for pod in pods {
        Satellite::connect(pod.address, &edge).await.close().await;
    }
    is_refused(&a, &silent, DISABLED).await;
    assert_eq!(a.remove(silent.id).await.status, 204);
    is_refused(&a, &silent, INVALID).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_disabled_satellite_is_shown_so_in_every_read() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (edge, other) = (pod.register("edge", "eu").await, pod.register("other", "eu").await);
    ordered(&fleet, &pod, edge.id, "disable").await;
    let nats = fleet.nats().await;
    let asked = async |endpoint: &str, question: Value| {
        let subject = format!("groundstation.v1.{endpoint}");
        let answer = nats.request(subject, question.to_string().into()).await;
        body(&answer.expect("an answer"))
    };
    let listed = pod.get("/v1/satellites?sort=name").await.json();
    let mine = pod.get("/v1/satellites?sort=region&q=edge").await.json();
    let changed = pod.patch(&format!("/v1/satellites/{}", edge.id), &json!({"region": "us"})).await;
    let shown = [
        pod.show(edge.id).await,
        listed["satellites"][0].clone(),
        mine["satellites"][0].clone(),
        changed.json(),
        asked("satellites.get", json!({"id": edge.id})).await,
        asked("satellites.list", json!({})).await["satellites"][0].clone(),
    ];
    for shown in shown {
        assert_eq!((&shown["id"], &shown["disabled"]), (&json!(edge.id), &json!(true)), "{shown}");
    }
    // It is said only of those that are.
    assert_eq!(listed["satellites"][1].get("disabled"), None, "{listed}");
    assert_eq!(pod.show(other.id).await.get("disabled"), None);
    fleet.check().await;
}

#[tokio::test]
async fn as_of_reads_say_who_was_disabled_then() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let now = async || -> String {
        const NOW: &str = "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
        // Far enough from what was done before and what is done next.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = fleet.sql().await.query_one(NOW, &[]).await.expect("a time").get(0);
        tokio::time::sleep(Duration::from_millis(20)).await;
        now
    };
    let satellite = Satellite::connect(pod.address, &edge).await;
    let before = now().await;
    ordered(&fleet, &pod, edge.id, "disable").await;
    let disabled = now().await;
    ordered(&fleet, &pod, edge.id, "enable").await;
    let enabled = now().await;
    Satellite::connect(pod.address, &edge).await.close().await;
    fleet.expect_log_length(4).await;
    ordered(&fleet, &pod, edge.id, "disable").await;
    assert_eq!(pod.remove(edge.id).await.status, 204);
    drop(satellite);
    let cases = [
        ("position=1".to_owned(), false),
        (format!("at={before}"), false),
        ("position=2".to_owned(), true),
        (format!("at={disabled}"), true),
        (format!("at={enabled}"), false),
        ("position=3".to_owned(), false),
    ];
    for (then, expected) in cases {
        // A page by id, one in another order, and one that is selected.
        for more in ["", "&sort=name", "&q=edge"] {
            let page = pod.get(&format!("/v1/satellites?{then}{more}")).await.json();
            let shown = &page["satellites"][0];
            assert_eq!(shown["id"], json!(edge.id), "{then}{more}: {page}");
            let disabled = shown.get("disabled").cloned();
            assert_eq!(disabled, expected.then_some(json!(true)), "{then}{more}: {page}");
        }
    }
    fleet.check().await;
}

/// Whatever it hears of a session that is to end, until the socket closes.
async fn closed(satellite: &mut Satellite) -> u16 {
    loop {
        match satellite.hear().await {
            Heard::Closed(code) => return code,
            Heard::Message(_) => {}
            Heard::Dropped => panic!("dropped without a goodbye"),
        }
    }
}

async fn nobody_is_connected(fleet: &Fleet, id: Uuid) {
    eventually("nobody to be connected", async || {
        let history = fleet.history(id).await;
        let connected = history.last().is_some_and(|last| last.contains(" connected "));
        if connected { Err(format!("{history:?}")) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn whoever_authenticates_while_it_is_disabled_does_not_stay() {
    const ROUNDS: u64 = 15;
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let edge = a.register("edge", "eu").await;
    for round in 0..ROUNDS {
        let come = async {
            tokio::time::sleep(Duration::from_millis(round)).await;
            let mut satellite = Satellite::open(b.address).await;
            satellite.authenticate(&edge);
            // Refused, let in and shut down, or shut down at once: it has ended in any case.
            closed(&mut satellite).await
        };
        let (code, _) = tokio::join!(come, ordered(&fleet, &a, edge.id, "disable"));
        assert!([1000, 4001].contains(&code), "{code}");
        nobody_is_connected(&fleet, edge.id).await;
        is_refused(&b, &edge, DISABLED).await;
        ordered(&fleet, &b, edge.id, "enable").await;
    }
    Satellite::connect(b.address, &edge).await.close().await;
    fleet.check().await;
}

/// A pod at which a session stands still when it is in the log and not in the pod's table yet; and the satellite.
#[cfg(feature = "failpoints")]
async fn entering(fleet: &Fleet, edge: &Credentials) -> (Pod, Satellite) {
    let stands = "session::appended=1*return(3000)->off";
    let pod = fleet.plan("b").with("FAILPOINTS", stands).start().await;
    let satellite = Satellite::open(pod.address).await;
    satellite.authenticate(edge);
    fleet.expect_history(edge.id, &[CONNECTED]).await;
    (pod, satellite)
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_satellite_that_is_disabled_while_its_session_enters_is_never_welcomed() {
    let fleet = Fleet::new(CALM).await;
    let a = fleet.pod("a").await;
    let edge = a.register("edge", "eu").await;
    let (_b, mut satellite) = entering(&fleet, &edge).await;
    let answer = ordered(&fleet, &a, edge.id, "disable").await;
    assert_eq!(answer["sessionEnded"], true, "{answer}");
    satellite.expect_shutdown(DISABLED).await;
    assert_eq!(fleet.history(edge.id).await, [CONNECTED, "1 disconnected disabled"]);
    fleet.check().await;
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn a_session_that_a_disabling_ended_does_not_stay_because_the_satellite_is_enabled_again() {
    let fleet = Fleet::new(CALM).await;
    let a = fleet.pod("a").await;
    let edge = a.register("edge", "eu").await;
    let (b, mut satellite) = entering(&fleet, &edge).await;
    ordered(&fleet, &a, edge.id, "disable").await;
    ordered(&fleet, &a, edge.id, "enable").await;
    satellite.expect("shutdown").await;
    assert_eq!(satellite.hear().await, Heard::Closed(1000));
    assert_eq!(fleet.history(edge.id).await, [CONNECTED, "1 disconnected disabled"]);
    Satellite::connect(b.address, &edge).await.close().await;
    fleet.check().await;
}

/// Nothing but the log says that the session is over: the pod that was told to kick died before it noted it.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn whoever_was_kicked_by_a_pod_that_died_right_then_is_ended_at_its_next_heartbeat() {
    let fleet = Fleet::new(CALM).await;
    let b = fleet.pod("b").await;
    let mut a = fleet.plan("a").with("FAILPOINTS", "kick::appended=return(600000)").start().await;
    let edge = b.register("edge", "eu").await;
    let mut satellite = Satellite::connect(b.address, &edge).await;
    let (address, token) = (a.address, fleet.admin_token.clone());
    let path = format!("/v1/satellites/{}/kick", edge.id);
    let kick = tokio::spawn(async move {
        try_call(address, "POST", &path, Some(&token), None, Duration::from_secs(20)).await
    });
    fleet.expect_history(edge.id, &[CONNECTED, "1 disconnected kicked"]).await;
    a.kill();
    kick.await.expect("no panic").expect_err("it died");
    satellite.beat_every(fleet.timing.heartbeat);
    satellite.expect_shutdown("kicked").await;
    fleet.expect_history(edge.id, &[CONNECTED, "1 disconnected kicked"]).await;
    assert_eq!(b.show(edge.id).await["status"], "offline");
    fleet.check().await;
}

#[tokio::test]
async fn whoever_beats_while_its_session_is_ended_is_told_why() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    for (word, told) in [("kick", "kicked"), ("disable", DISABLED)] {
        let mut satellite = Satellite::connect(pod.address, &edge).await;
        satellite.beat_every(Duration::from_millis(5));
        ordered(&fleet, &pod, edge.id, word).await;
        satellite.expect_shutdown(told).await;
    }
    let ended =
        [CONNECTED, "1 disconnected kicked", "2 connected connect", "2 disconnected disabled"];
    fleet.expect_history(edge.id, &ended).await;
    fleet.check().await;
}

#[tokio::test]
async fn the_slow_digest_of_a_disabled_satellite_is_verified_and_costs_no_write() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let slow = imported(&fleet, &pod, "csat_imported", "$2b$", 6).await;
    ordered(&fleet, &pod, slow.id, "disable").await;
    let before = traces(&fleet, slow.id).await;
    is_refused(&pod, &slow, DISABLED).await;
    let wrong = Credentials { token: "csat_wrong".to_owned(), ..slow.clone() };
    is_refused(&pod, &wrong, INVALID).await;
    assert_eq!(traces(&fleet, slow.id).await, before);
    ordered(&fleet, &pod, slow.id, "enable").await;
    Satellite::connect(pod.address, &slow).await.close().await;
    assert!(stored(&fleet, &slow).await.starts_with("sha256:"));
    fleet.check().await;
}
