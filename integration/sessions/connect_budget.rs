//! Each connect writes rows that stay for ever, so a satellite has a budget of them. One that reconnects as fast as
//! it can gets 1013 before anything is written; honest satellites meet no limit.

use std::time::{Duration, Instant};

use crate::harness::{CALM, Credentials, Fleet, Heard, Pod, Satellite, eventually};

const REFUSED: &str = "groundstation_door_refusals_total{reason=\"connect_rate\"}";

/// How many connects a satellite has at once by default.
const BURST: i64 = 30;

/// A pod with the default budgets.
async fn pod(fleet: &Fleet, name: &str) -> Pod {
    fleet.plan(name).without("GROUNDSTATION_CONNECT_BURST").start().await
}

/// The pod's answer to one try.
async fn come(pod: &Pod, who: &Credentials) -> (Satellite, Heard) {
    let mut satellite = Satellite::open(pod.address).await;
    satellite.authenticate(who);
    let heard = satellite.hear().await;
    (satellite, heard)
}

fn is_welcome(heard: &Heard) -> bool {
    matches!(heard, Heard::Message(message) if message["type"] == "authenticated")
}

/// Connects allowed since `begun`, rounded up: a burst for each pod that has not seen it before, and one every ten
/// seconds.
fn allowed(begun: Instant, pods: i64) -> i64 {
    BURST * pods + begun.elapsed().as_secs() as i64 / 10 + 1
}

async fn connects(fleet: &Fleet, who: &Credentials) -> i64 {
    let history = fleet.history(who.id).await;
    history.iter().filter(|edge| edge.contains(" connected ")).count() as i64
}

#[tokio::test]
async fn a_satellite_that_comes_back_as_fast_as_it_can_is_told_1013_and_writes_no_more_rows() {
    let fleet = Fleet::new(CALM).await;
    let pod = pod(&fleet, "a").await;
    let (busy, calm) = (pod.register("busy", "eu").await, pod.register("calm", "eu").await);
    let begun = Instant::now();
    let mut told = 0;
    for _ in 0..200 {
        match come(&pod, &busy).await {
            (satellite, heard) if is_welcome(&heard) => satellite.vanish(),
            (_, Heard::Closed(1013)) => told += 1,
            (_, other) => panic!("{other:?}"),
        }
    }
    let written = connects(&fleet, &busy).await;
    assert!(written <= allowed(begun, 1), "{written} connects are in the log");
    assert!(written >= BURST, "only {written} connects were allowed");
    assert_eq!(i64::from(told) + written, 200);
    assert_eq!(pod.metric(REFUSED).await, f64::from(told));
    let line = pod.expect_log("connects too often").await;
    assert_eq!(line["satellite"], busy.id.to_string());
    assert!(is_welcome(&come(&pod, &calm).await.1), "the budget is each satellite's own");
    fleet.check().await;
}

#[tokio::test]
async fn a_budget_is_not_refilled_by_going_to_another_pod() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (pod(&fleet, "a").await, pod(&fleet, "b").await);
    let busy = a.register("busy", "eu").await;
    let begun = Instant::now();
    // Both have seen it before it is busy.
    for pod in [&a, &b] {
        assert!(is_welcome(&come(pod, &busy).await.1));
    }
    for n in 0..160 {
        let pod = if n % 2 == 0 { &a } else { &b };
        come(pod, &busy).await.0.vanish();
    }
    let written = connects(&fleet, &busy).await;
    assert!(written <= allowed(begun, 1) + 2, "{written} connects are in the log");
    // A third pod does not know it yet; the excess ends soon.
    let c = pod(&fleet, "c").await;
    for _ in 0..80 {
        come(&c, &busy).await.0.vanish();
    }
    let written = connects(&fleet, &busy).await;
    assert!(written <= allowed(begun, 2) + 2, "{written} connects are in the log");
    fleet.check().await;
}

#[tokio::test]
async fn two_agents_with_one_credential_are_slowed_down_and_marked_as_flapping() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (pod(&fleet, "a").await, pod(&fleet, "b").await);
    let shared = a.register("shared", "eu").await;
    let begun = Instant::now();
    // Each reconnects at once when it was taken over, and so does the other.
    let mut holder: Option<Satellite> = None;
    let mut refused = 0;
    for n in 0..120 {
        let pod = if n % 2 == 0 { &a } else { &b };
        match come(pod, &shared).await {
            (satellite, heard) if is_welcome(&heard) => drop(holder.replace(satellite)),
            (_, Heard::Closed(1013)) => refused += 1,
            (_, other) => panic!("{other:?}"),
        }
    }
    assert!(refused > 40, "{refused} were refused");
    let written = connects(&fleet, &shared).await;
    assert!(written <= allowed(begun, 2), "{written} connects are in the log");
    let shown = a.show(shared.id).await;
    assert_eq!(shown["flapping"], true, "{shown}");
    fleet.check().await;
}

/// A pod's drain moves every satellite, so a deploy moves each one as often as there are pods.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_rolling_restart_a_flaky_link_and_a_few_restarts_by_hand_meet_no_limit() {
    let fleet = Fleet::new(CALM).await;
    let pod = pod(&fleet, "a").await;
    let honest = pod.register("honest", "eu").await;
    for _ in 0..25 {
        let (satellite, heard) = come(&pod, &honest).await;
        assert!(is_welcome(&heard), "{heard:?}");
        satellite.vanish();
    }
    assert_eq!(pod.metric(REFUSED).await, 0.0);
    // Its budget refills by itself.
    for _ in 0..40 {
        come(&pod, &honest).await.0.vanish();
    }
    let begun = Instant::now();
    eventually("the budget to have flowed back", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        match come(&pod, &honest).await.1 {
            heard if is_welcome(&heard) => Ok(()),
            other => Err(format!("{other:?} after {:?}", begun.elapsed())),
        }
    })
    .await;
}
