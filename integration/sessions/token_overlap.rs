//! A rotation with an overlap: two tokens are valid until the old one's time is over, by the database's clock.

use std::time::{Duration, Instant};

use groundstation::contract::wire::Timestamp;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::harness::asked::ask;
use crate::harness::imported::{imported, stored};
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, eventually};

/// A session ends within this time after its token. Twice what is promised: the machine is busy.
const PROMPT: Duration = Duration::from_secs(4);

const CONNECTED: &str = "1 connected connect";

/// Rotates a token; returns the new one, and until when the old one is valid.
async fn rotate(
    pod: &Pod,
    old: &Credentials,
    overlap: Option<&str>,
) -> (Credentials, Option<OffsetDateTime>) {
    let body = overlap.map_or(json!({}), |overlap| json!({"overlap": overlap}));
    let answer = pod.post(&format!("/v1/satellites/{}/token", old.id), &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = answer.json();
    let token = answer["token"].as_str().expect("a token").to_owned();
    let ends = answer.get("previousTokenEndsAt").map(|at| {
        let at: Timestamp = at.as_str().expect("a time").parse().expect("a time");
        at.moment()
    });
    assert_eq!(ends.is_some(), overlap.is_some(), "{answer}");
    (Credentials { id: old.id, token }, ends)
}

async fn is_refused(pod: &Pod, credentials: &Credentials) {
    let mut satellite = Satellite::open(pod.address).await;
    satellite.authenticate(credentials);
    assert_eq!(satellite.expect("auth_failed").await["reason"], "Invalid client ID or token");
}

/// A live session hears of a change, and nothing came before that.
async fn lives(pod: &Pod, credentials: &Credentials, satellite: &mut Satellite) {
    pod.assign(credentials.id, &json!([])).await;
    satellite.expect("config_updated").await;
}

/// How many previous tokens are stored.
async fn previous_tokens(fleet: &Fleet) -> i64 {
    let count = "select count(*) from previous_tokens";
    fleet.sql().await.query_one(count, &[]).await.expect("a count").get(0)
}

/// The newest change in the registry's history of a satellite, after it.
async fn newest_change(fleet: &Fleet, credentials: &Credentials) -> Value {
    const NEWEST: &str = "
        select after from registry_changes
         where satellite_id = $1 and action = 'token_rotated' order by change desc limit 1";
    fleet.sql().await.query_one(NEWEST, &[&credentials.id]).await.expect("a change").get(0)
}

#[tokio::test]
async fn with_an_overlap_both_tokens_open_every_pod_and_the_live_session_stays() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let old = a.register("edge", "eu").await;
    let mut satellite = Satellite::connect(b.address, &old).await;
    let (new, ends) = rotate(&a, &old, Some("1h")).await;
    let ends = ends.expect("an end");
    let left = ends - OffsetDateTime::now_utc();
    assert!((left - time::Duration::HOUR).abs() < time::Duration::minutes(1), "{left}");
    lives(&a, &old, &mut satellite).await;
    assert_eq!(fleet.history(old.id).await, [CONNECTED]);
    for pod in [&a, &b] {
        for credentials in [&old, &new] {
            let coming = Satellite::connect(pod.address, credentials).await;
            satellite.expect_shutdown("A newer connection of this satellite took over").await;
            satellite = coming;
        }
        is_refused(pod, &Credentials { token: "csat_wrong".to_owned(), ..old.clone() }).await;
    }
    lives(&b, &new, &mut satellite).await;
    // Who did it is kept, and until when; of the tokens only their numbers.
    let told = Timestamp::new(ends).to_string();
    let expected = json!({"tokenVersion": 2, "previousTokenEndsAt": told});
    assert_eq!(newest_change(&fleet, &old).await, expected);
    satellite.close().await;
    assert_eq!(a.remove(old.id).await.status, 204);
    assert_eq!(previous_tokens(&fleet).await, 0);
    fleet.check().await;
}

#[tokio::test]
async fn when_the_overlap_ends_so_do_sessions_of_the_old_token_and_those_of_the_new_one_stay() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let (one, other) = (a.register("edge", "eu").await, a.register("other", "eu").await);
    let mut with_old = Satellite::connect(b.address, &one).await;
    let (_, ends) = rotate(&a, &one, Some("3s")).await;
    let (new, _) = rotate(&a, &other, Some("3s")).await;
    let mut with_new = Satellite::connect(b.address, &new).await;
    with_old.expect_shutdown("token_rotated").await;
    let late = OffsetDateTime::now_utc() - ends.expect("an end");
    // Not before its time; the millisecond is cut.
    assert!(late > time::Duration::milliseconds(-1) && late < PROMPT, "{late}");
    fleet.expect_history(one.id, &[CONNECTED, "1 disconnected token_rotated"]).await;
    eventually("the time of both to be over", async || match previous_tokens(&fleet).await {
        0 => Ok(()),
        left => Err(left.to_string()),
    })
    .await;
    for pod in [&a, &b] {
        is_refused(pod, &one).await;
        is_refused(pod, &other).await;
    }
    lives(&a, &new, &mut with_new).await;
    assert_eq!(fleet.history(other.id).await, [CONNECTED]);
    with_new.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn the_overlap_ends_by_the_databases_clock_even_if_the_pod_that_rotated_is_gone() {
    const HOUR: i64 = 3_600;
    let (fleet, clock) = Fleet::with_clock(CALM).await;
    let (mut a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let old = a.register("edge", "eu").await;
    let mut satellite = Satellite::connect(b.address, &old).await;
    rotate(&a, &old, Some("1h")).await;
    a.kill();
    clock.shift(HOUR - 60);
    lives(&b, &old, &mut satellite).await;
    clock.shift(HOUR + 1);
    let begun = Instant::now();
    satellite.expect_shutdown("token_rotated").await;
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    is_refused(&b, &old).await;
    fleet.expect_history(old.id, &[CONNECTED, "1 disconnected token_rotated"]).await;
    // What is over stays so.
    clock.shift(0);
    is_refused(&b, &old).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_rotation_within_an_overlap_voids_the_token_before_the_last_and_an_immediate_one_both() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let first = a.register("edge", "eu").await;
    let mut satellite = Satellite::connect(b.address, &first).await;
    let (second, _) = rotate(&a, &first, Some("1h")).await;
    let (third, _) = rotate(&a, &second, Some("2h")).await;
    let begun = Instant::now();
    satellite.expect_shutdown("token_rotated").await;
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    is_refused(&b, &first).await;
    assert_eq!(previous_tokens(&fleet).await, 1);
    Satellite::connect(b.address, &third).await.close().await;
    let mut satellite = Satellite::connect(b.address, &second).await;
    let (fourth, _) = rotate(&a, &third, None).await;
    satellite.expect_shutdown("token_rotated").await;
    for void in [&first, &second, &third] {
        is_refused(&a, void).await;
        is_refused(&b, void).await;
    }
    assert_eq!(previous_tokens(&fleet).await, 0);
    assert_eq!(newest_change(&fleet, &first).await, json!({"tokenVersion": 4}));
    Satellite::connect(b.address, &fourth).await.close().await;
    fleet.check().await;
}

/// A program of before knows nothing of previous tokens, and voids all earlier ones all the same.
#[tokio::test]
async fn a_token_that_is_replaced_by_a_program_that_knows_no_overlap_voids_both() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let first = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &first).await;
    let (second, _) = rotate(&pod, &first, Some("1h")).await;
    const ROTATE: &str = "
        update satellites set token_hash = 'sha256:x', token_version = token_version + 1 where id = $1";
    fleet.sql().await.execute(ROTATE, &[&first.id]).await.expect("rotated");
    satellite.expect_shutdown("token_rotated").await;
    is_refused(&pod, &first).await;
    is_refused(&pod, &second).await;
    fleet.check().await;
}

#[tokio::test]
async fn an_imported_token_overlaps_with_the_first_that_is_made_here() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let old = imported(&fleet, &pod, "csat_imported", "$2b$", 6).await;
    let (new, _) = rotate(&pod, &old, Some("1h")).await;
    let previous = async || -> String {
        const HASH: &str = "select token_hash from previous_tokens where satellite_id = $1";
        fleet.sql().await.query_one(HASH, &[&old.id]).await.expect("a token").get(0)
    };
    assert!(previous().await.starts_with("$2b$"));
    Satellite::connect(pod.address, &new).await.close().await;
    is_refused(&pod, &Credentials { token: "csat_wrong".to_owned(), ..old.clone() }).await;
    let present = stored(&fleet, &old).await;
    let mut satellite = Satellite::connect(pod.address, &old).await;
    // In its own place, not in the present one's.
    assert!(previous().await.starts_with("sha256:"));
    assert_eq!(stored(&fleet, &old).await, present);
    lives(&pod, &old, &mut satellite).await;
    rotate(&pod, &new, None).await;
    satellite.expect_shutdown("token_rotated").await;
    is_refused(&pod, &old).await;
    fleet.check().await;
}

#[tokio::test]
async fn an_overlap_out_of_bounds_is_refused_by_name_and_nothing_is_rotated() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let path = format!("/v1/satellites/{}/token", edge.id);
    for overlap in ["999ms", "31days", "soon", "", "5"] {
        let answer = pod.post(&path, &json!({"overlap": overlap})).await;
        assert_eq!(answer.status, 422, "{overlap}: {answer:?}");
        let problem = answer.json();
        assert_eq!(problem["path"], "overlap");
        let limit = "overlap must be a duration such as 1h, from 1s to 30days.";
        assert_eq!(problem["detail"], limit, "{overlap}");
    }
    let bearer = format!("Bearer {}", fleet.admin_token);
    let authorized = ("Authorization", bearer.as_str());
    let json_typed = ("Content-Type", "application/json");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let body = r#"{"overlap": "1h"}"#;
    for (headers, body, status) in [
        (&[authorized, json_typed][..], r#"{"overlap": 3600}"#, 422),
        (&[authorized, json_typed], "{", 400),
        (&[authorized, json_typed], "3600", 422),
        // What is not said to be JSON may mean anything: a rotation could not be undone.
        (&[authorized, form], body, 415),
        (&[authorized], body, 415),
    ] {
        let answer = ask(&pod, "POST", &path, headers, body).await;
        assert_eq!(answer.status, status, "{headers:?} {body}: {answer:?}");
    }
    // None of them was a rotation.
    Satellite::connect(pod.address, &edge).await.close().await;
    assert_eq!(previous_tokens(&fleet).await, 0);
    // Each of these is one, at once, as it always was.
    let mut before = edge.clone();
    for (headers, body) in [
        (&[authorized][..], ""),
        (&[authorized, form], ""),
        (&[authorized, json_typed], ""),
        (&[authorized, json_typed], "{}"),
        (&[authorized, json_typed], "null"),
        (&[authorized, json_typed], r#"{"overlap": null}"#),
    ] {
        let answer = ask(&pod, "POST", &path, headers, body).await;
        assert_eq!(answer.status, 200, "{headers:?} {body}: {answer:?}");
        let answer = answer.json();
        let fields: Vec<&String> = answer.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["satellite", "token"], "{answer}");
        is_refused(&pod, &before).await;
        before.token = answer["token"].as_str().expect("a token").to_owned();
    }
    assert_eq!(previous_tokens(&fleet).await, 0);
    fleet.check().await;
}

#[tokio::test]
async fn a_token_whose_time_is_over_opens_nothing_before_any_pod_has_deleted_it() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let old = pod.register("edge", "eu").await;
    let (_, ends) = rotate(&pod, &old, Some("1s")).await;
    // Pods wait for no row that somebody has locked.
    let holder = fleet.sql().await;
    holder.batch_execute("begin; select from previous_tokens for update").await.expect("a lock");
    let ends = ends.expect("an end");
    eventually("its time to be over", async || {
        let now = "select clock_timestamp()";
        let now = fleet.sql().await.query_one(now, &[]).await.expect("a time");
        let left = ends - now.get::<_, OffsetDateTime>(0);
        if left.is_negative() { Ok(()) } else { Err(left.to_string()) }
    })
    .await;
    is_refused(&pod, &old).await;
    assert_eq!(previous_tokens(&fleet).await, 1);
    holder.batch_execute("rollback").await.expect("the lock is free");
    eventually("it to be deleted", async || match previous_tokens(&fleet).await {
        0 => Ok(()),
        left => Err(left.to_string()),
    })
    .await;
    fleet.check().await;
}

/// It authenticated in time, and its session enters its pod's table when the token's time is over.
#[cfg(feature = "failpoints")]
#[tokio::test]
async fn whoever_authenticates_with_the_old_token_as_its_time_ends_does_not_stay() {
    let fleet = Fleet::new(CALM).await;
    let a = fleet.pod("a").await;
    let stands = "session::appended=1*return(4000)->off";
    let b = fleet.plan("b").with("FAILPOINTS", stands).start().await;
    let old = a.register("edge", "eu").await;
    rotate(&a, &old, Some("2s")).await;
    let mut satellite = Satellite::open(b.address).await;
    satellite.authenticate(&old);
    fleet.expect_history(old.id, &[CONNECTED]).await;
    satellite.expect_shutdown("token_rotated").await;
    fleet.expect_history(old.id, &[CONNECTED, "1 disconnected token_rotated"]).await;
    fleet.check().await;
}
