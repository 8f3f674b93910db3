//! How a forwarder treats what a receiver says, or does not say.

use std::time::Duration;

use super::delivery::is_signed_with;
use super::world::{SECRET, World, expect_order, satellites};
use crate::harness::hooks::{Answer, Hook};
use crate::harness::{eventually, pod};

const OTHER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

#[tokio::test]
async fn a_receiver_that_asks_for_time_is_left_alone_by_all_satellites() {
    let mut world = World::new().await;
    let some = satellites(3);
    let mut asked = false;
    world.hooks.say(move |_, _| match std::mem::replace(&mut asked, true) {
        false => Answer::With(429, "retry-after", "2".to_owned()),
        true => Answer::Status(204),
    });
    let one_by_one = [("GROUNDSTATION_FORWARD_CONCURRENCY", "1")];
    let _forwarder = world.forward(&one_by_one);
    for satellite in &some {
        world.publish(*satellite).await;
    }
    let hooks = world.hooks.expect_taken(3).await;
    let pause = hooks[1].at - hooks[0].at;
    assert!(pause >= Duration::from_secs(2), "{pause:?}");
    assert!(pause < Duration::from_secs(20), "{pause:?}");
    expect_order(&hooks);
}

#[tokio::test]
async fn a_failure_that_asks_for_time_without_being_an_overload_is_its_satellites_own() {
    let mut world = World::new().await;
    let some = satellites(2);
    let failing = some[0].to_string();
    world.hooks.say(move |hook, before| match hook.satellite() == failing && before == 0 {
        true => Answer::With(500, "retry-after", "3".to_owned()),
        false => Answer::Status(204),
    });
    let _forwarder = world.forward(&[]);
    world.publish(some[0]).await;
    world.hooks.expect(1).await;
    world.publish(some[1]).await;
    let hooks = world.hooks.expect_taken(2).await;
    let positions: Vec<i64> = hooks.iter().map(Hook::position).collect();
    assert_eq!(positions, [1, 2, 1]);
    assert!(hooks[2].at - hooks[0].at >= Duration::from_secs(3));
}

#[tokio::test]
async fn a_receiver_that_is_gone_ends_the_forwarder_and_nothing_is_lost() {
    let mut world = World::new().await;
    let satellite = satellites(1)[0];
    world.hooks.say_always(410);
    world.publish(satellite).await;
    let mut forwarder = world.forward(&[]);
    let status = forwarder.ends().await;
    assert_eq!(status.code(), Some(3), "{}", forwarder.everything());
    assert!(forwarder.everything().contains("410 Gone"), "{}", forwarder.everything());
    world.hooks.say_always(204);
    let _forwarder = world.forward(&[]);
    world.hooks.expect_taken(1).await;
    assert_eq!(world.hooks.taken(), [1]);
}

#[tokio::test]
async fn a_receiver_that_hangs_costs_one_attempt_and_holds_back_nobody_else() {
    let mut world = World::new().await;
    let some = satellites(2);
    let hanging = some[0].to_string();
    world.hooks.say(move |hook, before| match hook.satellite() == hanging && before == 0 {
        true => Answer::Hangs,
        false => Answer::Status(204),
    });
    for n in 0..4 {
        world.publish(some[n % 2]).await;
    }
    let forwarder = world.forward(&[("GROUNDSTATION_FORWARD_TIMEOUT", "700ms")]);
    let hooks = world.hooks.expect_taken(4).await;
    expect_order(&hooks);
    let of_hanging: Vec<&Hook> =
        hooks.iter().filter(|hook| hook.satellite() == some[0].to_string()).collect();
    assert!(of_hanging[1].at - of_hanging[0].at >= Duration::from_millis(700));
    let last_of_other = hooks.iter().rfind(|hook| hook.satellite() == some[1].to_string());
    assert!(last_of_other.expect("one").at < of_hanging[1].at);
    forwarder.says("no answer in time").await;
}

#[tokio::test]
async fn secrets_are_rotated_without_a_restart() {
    let mut world = World::new().await;
    let satellite = satellites(1)[0];
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("secret-{}", uuid::Uuid::new_v4()));
    std::fs::write(&path, SECRET).expect("a file");
    let file = path.to_str().expect("text");
    let forwarder = world.forward(&[
        ("GROUNDSTATION_FORWARD_SECRET", ""),
        ("GROUNDSTATION_FORWARD_SECRET_FILE", file),
    ]);
    let next = async |world: &mut World, count: usize| -> Hook {
        world.publish(satellite).await;
        world.hooks.expect_taken(count).await.pop().expect("a webhook")
    };
    let signed = |hook: &Hook| [SECRET, OTHER_SECRET].map(|secret| is_signed_with(hook, secret));
    assert_eq!(signed(&next(&mut world, 1).await), [true, false]);
    std::fs::write(&path, format!("{OTHER_SECRET}\n{SECRET}\n")).expect("a file");
    forwarder.says("other secrets sign from now on").await;
    assert_eq!(signed(&next(&mut world, 2).await), [true, true]);
    // A file that is no secret changes nothing.
    std::fs::write(&path, "whsec_").expect("a file");
    forwarder.says("the secrets before go on signing").await;
    assert_eq!(signed(&next(&mut world, 3).await), [true, true]);
    std::fs::write(&path, OTHER_SECRET).expect("a file");
    eventually("only the other secret to sign", async || {
        let said = forwarder.everything();
        if said.matches("other secrets sign").count() == 2 { Ok(()) } else { Err(said) }
    })
    .await;
    assert_eq!(signed(&next(&mut world, 4).await), [false, true]);
    std::fs::remove_file(&path).expect("the file is there");
}

#[tokio::test]
async fn its_numbers_and_its_health_are_on_a_listener_of_its_own() {
    let mut world = World::new().await;
    let some = satellites(3);
    let failing = some[0].to_string();
    world
        .hooks
        .say(move |hook, _| Answer::Status(if hook.satellite() == failing { 500 } else { 204 }));
    let forwarder = world.forward(&[("GROUNDSTATION_FORWARD_OPS_LISTEN", "127.0.0.1:0")]);
    let line = forwarder.says("probes and metrics are here").await;
    let address = line.split("address=").nth(1).expect("an address").trim().parse().expect("one");
    for n in 0..6 {
        world.publish(some[n % 3]).await;
    }
    world.hooks.expect_taken(4).await;
    let get = async |path| {
        let answer = pod::try_call(address, "GET", path, None, None, Duration::from_secs(5)).await;
        answer.expect("an answer")
    };
    assert_eq!(get("/livez").await.status, 200);
    assert_eq!(get("/readyz").await.text, "forwarding");
    eventually("the numbers", async || {
        let text = get("/metrics").await.text;
        let has = [
            "groundstation_forward_attempts_total{outcome=\"delivered\"} 4",
            "groundstation_forward_pending 2",
            "groundstation_forward_pending_max 1000",
            "groundstation_forward_satellites 1",
            "groundstation_forward_lag 0",
            "groundstation_forward_active 1",
            "groundstation_forward_dead_letters 0",
        ];
        match has.iter().find(|line| !text.contains(*line)) {
            None => Ok(()),
            Some(missing) => Err(format!("{missing} in {text}")),
        }
    })
    .await;
    let text = get("/metrics").await.text;
    assert!(!text.contains(&some[0].to_string()), "no label names a satellite");
    // What the alerts ask for is there.
    let rules =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus/rules.yaml");
    let rules = std::fs::read_to_string(rules).expect("the alerts");
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let asked: Vec<&str> =
        words.filter(|word| word.starts_with("groundstation_forward_")).collect();
    assert!(asked.len() >= 2, "{asked:?}");
    for metric in asked {
        assert!(text.contains(&format!("\n{metric} ")), "{metric} in {text}");
    }
    let said = crate::harness::wait::blocking(move || {
        crate::harness::promtool::promtool(&["check", "metrics"].map(str::to_owned), &text)
    });
    said.await.expect("promtool has nothing to say");
}
