//! What another threshold would have done: the log's answer for silences that really were.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::program::ran;
use crate::harness::{Fleet, Pod, SWEPT_OFTEN, Satellite};

async fn ask(pod: &Pod, words: &str) -> Value {
    let answer = pod.get(&format!("/v1/what-if?{words}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Losses, spared, kept, undecided and added.
fn numbers(losses: &Value) -> [i64; 5] {
    ["losses", "spared", "kept", "undecided", "addedAtLeast"]
        .map(|name| losses[name].as_i64().expect("a number"))
}

#[tokio::test]
async fn a_loss_is_spared_by_a_threshold_within_which_the_satellite_was_heard_again() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let pod = fleet.pod("a").await;
    let in_region = |name: &str, region: &str| json!({"name": name, "region": region, "offlineThresholdMs": 500});
    let back = pod.register_with(in_region("back", "eu")).await;
    let gone = pod.register_with(in_region("gone", "us")).await;
    let came_back = Satellite::connect(pod.address, &back).await;
    let _gone = Satellite::connect(pod.address, &gone).await;
    let lost = ["1 connected connect", "1 heartbeat_lost heartbeat_timeout"];
    fleet.expect_history(back.id, &lost).await;
    fleet.expect_history(gone.id, &lost).await;
    came_back.beat_every(Duration::from_millis(100));
    fleet.expect_history(back.id, &[lost[0], lost[1], "1 connected recovered"]).await;

    let longer = ask(&pod, "threshold=1h").await;
    assert_eq!(numbers(&longer), [2, 1, 0, 1, 0], "{longer}");
    assert_eq!((&longer["thresholdMs"], longer.get("delay")), (&json!(3_600_000), None));
    assert_eq!(longer["regions"][0]["region"], "eu");
    assert_eq!(longer["satellites"].as_array().map(Vec::len), Some(1), "{longer}");
    assert_eq!(longer["satellites"][0]["name"], "back");
    assert!(longer["unknown"][0].as_str().is_some_and(|what| what.contains("addedAtLeast")));
    let of_region = ask(&pod, "threshold=1h&region=us").await;
    assert_eq!(numbers(&of_region), [1, 0, 0, 1, 0], "{of_region}");

    let shorter = ask(&pod, "threshold=100ms").await;
    assert_eq!(numbers(&shorter), [2, 0, 2, 0, 0], "{shorter}");
    assert_eq!(shorter["delay"], json!({"p50Ms": -400, "p99Ms": -400, "maxMs": -400}));

    let api = pod.variables();
    let (asked, said, error) = ran(&["what-if", "1h", "-o", "wide"], &api).await;
    assert!(asked, "{error}");
    for words in ["(all)   2       1       0     1", "back", "losses from", "not known:"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    let (_, said, _) = ran(&["what-if", "100ms"], &api).await;
    assert!(said.contains("400ms earlier"), "{said}");
    let (_, said, _) = ran(&["what-if", "1h", "-o", "json"], &api).await;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(numbers(&said), numbers(&longer));
}

#[tokio::test]
async fn a_shorter_threshold_adds_the_silences_that_a_takeover_ended() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    // Where every heartbeat is written a takeover tells exactly how long it was silent.
    let pod = fleet.plan("a").with("GROUNDSTATION_VOUCH_WINDOW", "0").start().await;
    let edge = pod.register("edge", "eu").await;
    let _first = Satellite::connect(pod.address, &edge).await;
    pod.sweeps(3).await;
    let _second = Satellite::connect(pod.address, &edge).await;
    fleet.expect_history(edge.id, &["1 connected connect", "2 connected takeover"]).await;
    let shorter = ask(&pod, "threshold=10ms").await;
    assert_eq!(numbers(&shorter), [0, 0, 0, 0, 1], "{shorter}");
    assert_eq!(numbers(&ask(&pod, "threshold=1h").await), [0; 5]);
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_by_name() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let pod = fleet.pod("a").await;
    for (words, why) in [
        ("", "threshold"),
        ("threshold=soon", "threshold must be a duration such as 24h, at most 1 days"),
        ("threshold=2d", "at most 1 days"),
        ("threshold=90s&since=yesterday", "since"),
        ("threshold=90s&regions=eu", "region"),
    ] {
        let answer = pod.get(&format!("/v1/what-if?{words}")).await;
        assert!([400, 422].contains(&answer.status), "{words}: {answer:?}");
        assert!(
            answer.json()["detail"].as_str().is_some_and(|said| said.contains(why)),
            "{answer:?}"
        );
    }
}

#[tokio::test]
async fn the_removal_of_a_satellite_that_never_connected_is_no_loss_and_no_obstacle() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let pod = fleet.pod("a").await;
    let never = pod.register("never", "eu").await;
    assert_eq!(pod.remove(never.id).await.status, 204);
    fleet.expect_log_length(1).await;
    assert_eq!(numbers(&ask(&pod, "threshold=1h").await), [0; 5]);
}
