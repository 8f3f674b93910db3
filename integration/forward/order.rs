//! The order of each satellite is kept while answers fail, and one satellite's failures are its own.

use std::collections::HashMap;
use std::time::Duration;

use super::world::{World, expect_order, satellites};
use crate::harness::hooks::{Answer, Hook};

#[tokio::test]
async fn each_satellites_webhooks_are_taken_in_order_while_many_fail() {
    let mut world = World::new().await;
    let some = satellites(6);
    let chance = fastrand::Rng::with_seed(7);
    let mut chances = chance.clone();
    world.hooks.say(move |_, _| match chances.u8(0..10) {
        0..3 => Answer::Status(500),
        3 => Answer::Status(404),
        4 => Answer::After(Duration::from_millis(30), 204),
        _ => Answer::Status(204),
    });
    for n in 0..90 {
        world.publish(some[n % some.len()]).await;
    }
    let _forwarder = world.forward(&[]);
    let hooks = world.hooks.expect_taken(90).await;
    expect_order(&hooks);
    let taken = hooks.iter().filter(|hook| hook.is_taken()).count();
    assert_eq!(taken, 90, "nothing is taken twice");
    assert!(hooks.len() > 100, "{} attempts: too few failed for this test", hooks.len());
}

#[tokio::test]
async fn attempts_of_several_satellites_run_at_once_and_no_more_than_there_may() {
    let mut world = World::new().await;
    let some = satellites(12);
    world.hooks.say(|_, _| Answer::After(Duration::from_millis(400), 204));
    for satellite in &some {
        world.publish(*satellite).await;
    }
    let _forwarder = world.forward(&[("GROUNDSTATION_FORWARD_CONCURRENCY", "4")]);
    let hooks = world.hooks.expect_taken(12).await;
    // Whoever came within the time of an answer was there at the same time.
    let at_once = |hook: &Hook| {
        let near =
            |other: &&Hook| other.at <= hook.at && hook.at - other.at < Duration::from_millis(390);
        hooks.iter().filter(near).count()
    };
    assert_eq!(hooks.iter().map(at_once).max(), Some(4));
}

#[tokio::test]
async fn a_satellite_whose_webhooks_fail_holds_back_the_others_only_when_all_in_hand_are_its_own() {
    let mut world = World::new().await;
    let some = satellites(3);
    let failing = some[0].to_string();
    world
        .hooks
        .say(move |hook, _| Answer::Status(if hook.satellite() == failing { 500 } else { 204 }));
    let _forwarder = world.forward(&[
        ("GROUNDSTATION_FORWARD_MAX_PENDING", "8"),
        ("GROUNDSTATION_FORWARD_OPS_LISTEN", "127.0.0.1:0"),
    ]);
    // Seven of the failing one: one place is left for the others.
    for _ in 0..7 {
        world.publish(some[0]).await;
    }
    for n in 0..20 {
        world.publish(some[1 + n % 2]).await;
    }
    world.hooks.expect_taken(20).await;
    // With one more all places are its own, and what comes then stays on the stream.
    world.publish(some[0]).await;
    for n in 0..6 {
        world.publish(some[1 + n % 2]).await;
    }
    let before = world.hooks.all().len();
    world.hooks.expect(before + 10).await;
    let mut taken: HashMap<bool, usize> = HashMap::new();
    for hook in world.hooks.all().iter().filter(|hook| hook.is_taken()) {
        *taken.entry(hook.satellite() == some[0].to_string()).or_default() += 1;
    }
    assert!(taken[&false] <= 20 + 6, "{taken:?}");
    world.hooks.say_always(204);
    let hooks = world.hooks.expect_taken(34).await;
    expect_order(&hooks);
}
