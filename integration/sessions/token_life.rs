//! A token is valid on every pod until there is a newer one, and on none afterwards.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::imported::{imported, stored};
use crate::harness::wait::blocking;
use crate::harness::{CALM, Credentials, Fleet, Heard, Pod, Satellite, eventually};

/// A session ends within this time. Twice what is promised: the machine is busy.
const PROMPT: Duration = Duration::from_secs(2);

const ROTATED: [&str; 2] = ["1 connected connect", "1 disconnected token_rotated"];

async fn rotate(pod: &Pod, credentials: &Credentials) -> Credentials {
    let answer = pod.post(&format!("/v1/satellites/{}/token", credentials.id), &json!({})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    assert_ne!(token, credentials.token);
    Credentials { id: credentials.id, token }
}

async fn is_refused(pod: &Pod, credentials: &Credentials) {
    let mut satellite = Satellite::open(pod.address).await;
    satellite.authenticate(credentials);
    assert_eq!(satellite.expect("auth_failed").await["reason"], "Invalid client ID or token");
}

#[tokio::test]
async fn a_new_token_voids_the_old_one_and_ends_its_session_on_whichever_pod() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let old = a.register("edge", "eu").await;
    let bystander = a.register("bystander", "eu").await;
    let mut satellite = Satellite::connect(b.address, &old).await;
    let bystanding = Satellite::connect(b.address, &bystander).await;
    let new = rotate(&a, &old).await;
    let rotated = Instant::now();
    is_refused(&a, &old).await;
    is_refused(&b, &old).await;
    satellite.expect_shutdown("token_rotated").await;
    assert!(rotated.elapsed() < PROMPT, "{:?}", rotated.elapsed());
    fleet.expect_history(old.id, &ROTATED).await;
    assert_eq!(a.show(old.id).await["status"], "offline");
    let again = Satellite::connect(b.address, &new).await;
    let back: Vec<&str> = ROTATED.into_iter().chain(["2 connected connect"]).collect();
    assert_eq!(fleet.history(old.id).await, back);
    assert_eq!(fleet.history(bystander.id).await, ["1 connected connect"]);
    let unknown = format!("/v1/satellites/{}/token", uuid::Uuid::new_v4());
    assert_eq!(a.post(&unknown, &json!({})).await.status, 404);
    let path = format!("/v1/satellites/{}/token", old.id);
    assert_eq!(a.call("POST", &path, Some(&fleet.read_token), None).await.status, 403);
    again.close().await;
    bystanding.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn a_rotation_and_a_removal_end_sessions_within_a_second_while_nats_is_away() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let (first, second) = (a.register("edge", "eu").await, a.register("other", "eu").await);
    // Both are silent: no heartbeat tells their pod.
    let mut rotated = Satellite::connect(b.address, &first).await;
    let mut removed = Satellite::connect(b.address, &second).await;
    fleet.own_nats().kill();
    rotate(&a, &first).await;
    let begun = Instant::now();
    rotated.expect_shutdown("token_rotated").await;
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    assert_eq!(a.remove(second.id).await.status, 204);
    let begun = Instant::now();
    removed.expect_shutdown("Satellite removed").await;
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());
    fleet.expect_history(first.id, &ROTATED).await;
    fleet.expect_history(second.id, &["1 connected connect", "1 removed removed"]).await;
    let fleet = blocking(move || {
        fleet.own_nats().restart().expect("NATS restarts");
        fleet
    })
    .await;
    fleet.check().await;
}

#[tokio::test]
async fn a_heartbeat_on_a_session_that_a_rotation_ended_ends_it_as_one() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let old = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &old).await;
    satellite.beat_every(Duration::from_millis(5));
    rotate(&pod, &old).await;
    satellite.expect_shutdown("token_rotated").await;
    fleet.expect_history(old.id, &ROTATED).await;
    assert_eq!(pod.show(old.id).await["status"], "offline");
    fleet.check().await;
}

#[tokio::test]
async fn whoever_authenticates_while_the_token_is_rotated_does_not_stay_with_the_old_one() {
    const ROUNDS: u64 = 15;
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let mut credentials = a.register("edge", "eu").await;
    for round in 0..ROUNDS {
        let old = credentials.clone();
        let come = async {
            tokio::time::sleep(Duration::from_millis(round)).await;
            let mut satellite = Satellite::open(b.address).await;
            satellite.authenticate(&old);
            // Refused, let in and shut down, or shut down at once: it has ended in any case.
            loop {
                match satellite.hear().await {
                    Heard::Closed(code) => return code,
                    Heard::Message(message) if message["type"] == "shutdown" => {
                        assert_eq!(message["reason"], "token_rotated");
                    }
                    Heard::Message(_) => {}
                    Heard::Dropped => panic!("dropped without a goodbye"),
                }
            }
        };
        let (code, new) = tokio::join!(come, rotate(&a, &old));
        assert!([1000, 4001].contains(&code), "{code}");
        credentials = new;
        eventually("nobody to be connected", async || {
            let history = fleet.history(old.id).await;
            let connected = history.last().is_some_and(|last| last.contains(" connected "));
            if connected { Err(format!("{history:?}")) } else { Ok(()) }
        })
        .await;
    }
    Satellite::connect(a.address, &credentials).await.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn an_imported_token_opens_the_door_and_is_stored_in_the_fast_form_from_then_on() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for prefix in ["$2a$", "$2b$", "$2y$"] {
        let credentials = imported(&fleet, &pod, "csat_imported", prefix, 6).await;
        let wrong = Credentials { token: "csat_wrong".to_owned(), ..credentials.clone() };
        is_refused(&pod, &wrong).await;
        assert!(stored(&fleet, &credentials).await.starts_with(prefix));
        Satellite::connect(pod.address, &credentials).await.close().await;
        let fast = stored(&fleet, &credentials).await;
        assert!(fast.starts_with("sha256:"), "{prefix}");
        is_refused(&pod, &wrong).await;
        let satellite = Satellite::connect(pod.address, &credentials).await;
        assert_eq!(stored(&fleet, &credentials).await, fast);
        // Another stored form is no rotation: the session stays.
        satellite.beat();
        satellite.close().await;
    }
    fleet.check().await;
}

/// Satellites that come at once with a wrong token: more than a pod verifies.
const CROWD: usize = 60;

/// What each of a crowd with these credentials hears, once the pod has turned the first away.
async fn crowd_with(pod: &Pod, credentials: &Credentials) -> JoinSet<Heard> {
    let mut crowd = JoinSet::new();
    for _ in 0..CROWD {
        let (address, credentials) = (pod.address, credentials.clone());
        crowd.spawn(async move {
            let mut satellite = Satellite::open(address).await;
            satellite.authenticate(&credentials);
            satellite.hear().await
        });
    }
    pod.expect_metric("groundstation_authentications_total{result=\"unavailable\"}", 1.0).await;
    crowd
}

#[tokio::test]
async fn slow_tokens_are_verified_a_few_at_a_time_and_hold_nobody_else_up() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    // So slow that all of them together take longer than they may wait.
    let slow = imported(&fleet, &pod, "csat_imported", "$2b$", 12).await;
    let fast = pod.register("fast", "eu").await;
    let wrong = Credentials { token: "csat_wrong".to_owned(), ..slow.clone() };
    let mut crowd = crowd_with(&pod, &wrong).await;
    // Other satellites come in meanwhile, and the pod answers.
    let begun = Instant::now();
    let satellite = Satellite::connect(pod.address, &fast).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    satellite.close().await;
    let (mut busy, mut refused) = (0, 0);
    while let Some(heard) = crowd.join_next().await {
        match heard.expect("a satellite") {
            // The answer is that of a busy door: it says nothing about the token.
            Heard::Closed(1013) => busy += 1,
            Heard::Message(message) => {
                assert_eq!(message["reason"], "Invalid client ID or token");
                refused += 1;
            }
            other => panic!("heard {other:?}"),
        }
    }
    assert_eq!(busy + refused, CROWD);
    assert!(busy > 0 && refused > 0, "{busy} busy, {refused} refused");
    fleet.check().await;
}

#[tokio::test]
async fn strangers_with_the_id_of_one_imported_satellite_keep_no_other_imported_one_out() {
    /// What the pod has for the slow tokens of all satellites.
    const WAITING: usize = 32;
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let known = imported(&fleet, &pod, "csat_imported", "$2b$", 12).await;
    let other = imported(&fleet, &pod, "csat_of_another", "$2b$", 6).await;
    let wrong = Credentials { token: "csat_wrong".to_owned(), ..known };
    let mut crowd = crowd_with(&pod, &wrong).await;
    // On a busy machine the cores are not soon enough there for everybody: it comes back, as agents do.
    eventually("another imported satellite to come in", async || {
        let mut satellite = Satellite::open(pod.address).await;
        satellite.authenticate(&other);
        match satellite.hear().await {
            Heard::Message(message) if message["type"] == "authenticated" => Ok(()),
            heard => Err(format!("{heard:?}")),
        }
    })
    .await;
    let mut busy = 0;
    while let Some(heard) = crowd.join_next().await {
        busy += usize::from(matches!(heard.expect("a satellite"), Heard::Closed(1013)));
    }
    assert!(
        busy > CROWD - WAITING,
        "{busy} were turned away: the others took more than their places"
    );
    fleet.check().await;
}
