//! A forwarder that is killed loses nothing and puts nothing out of order.

use std::time::Duration;

use uuid::Uuid;

use super::delivery::expect_acknowledged;
use super::world::{World, expect_order, satellites};
use crate::harness::eventually;
use crate::harness::hooks::Answer;

async fn publish(world: &mut World, some: &[Uuid], count: usize) {
    for n in 0..count {
        world.publish(some[n % some.len()]).await;
    }
}

#[tokio::test]
async fn after_each_kill_it_goes_on_in_order_and_everything_is_delivered() {
    let mut world = World::new().await;
    let some = satellites(8);
    // Slow and failing, so that a kill finds some under way, some waiting and some not yet in hand.
    let mut chances = fastrand::Rng::with_seed(11);
    world.hooks.say(move |_, _| match chances.u8(0..4) {
        0 => Answer::Status(503),
        n => Answer::After(Duration::from_millis(u64::from(n) * 15), 204),
    });
    let pending = [("GROUNDSTATION_FORWARD_MAX_PENDING", "40")];
    let mut count = 0;
    for _ in 0..3 {
        let forwarder = world.forward(&pending);
        forwarder.says("forwarding").await;
        publish(&mut world, &some, 64).await;
        count += 64;
        let before = world.hooks.all().len();
        world.hooks.expect(before + 30).await;
        forwarder.kill();
        // What happens while nobody forwards waits.
        publish(&mut world, &some, 8).await;
        count += 8;
    }
    let _forwarder = world.forward(&pending);
    let hooks = world.hooks.expect_taken(count).await;
    expect_order(&hooks);
    let taken = hooks.iter().filter(|hook| hook.is_taken()).count();
    // Of each satellite only what was under way may come again.
    assert!(taken <= count + 3 * some.len(), "{taken} of {count}");
    expect_acknowledged(&world, "forward-webhooks").await;
}

#[tokio::test]
async fn one_that_is_told_to_end_gives_everything_back_and_nothing_comes_twice() {
    let mut world = World::new().await;
    let some = satellites(5);
    world.hooks.say(|_, _| Answer::After(Duration::from_millis(20), 204));
    publish(&mut world, &some, 100).await;
    for n in 1..=3 {
        let mut forwarder = world.forward(&[("GROUNDSTATION_FORWARD_TAKEOVER", "60s")]);
        world.hooks.expect_taken(n * 20).await;
        forwarder.interrupt();
        assert!(forwarder.ends().await.success(), "{}", forwarder.everything());
    }
    // None had to wait for the minute after which it would take over from one that died.
    let _forwarder = world.forward(&[("GROUNDSTATION_FORWARD_TAKEOVER", "60s")]);
    let hooks = world.hooks.expect_taken(100).await;
    expect_order(&hooks);
    assert_eq!(world.hooks.taken().len(), 100, "{:?}", world.hooks.taken());
}

#[cfg(feature = "failpoints")]
#[tokio::test]
async fn one_that_dies_between_delivery_and_acknowledgement_delivers_that_one_again() {
    let mut world = World::new().await;
    let some = satellites(1);
    publish(&mut world, &some, 3).await;
    let mut forwarder = world.forward(&[("FAILPOINTS", "forward::delivered=return")]);
    assert!(!forwarder.ends().await.success());
    assert_eq!(world.hooks.taken(), [1]);
    let _forwarder = world.forward(&[]);
    world.hooks.expect_taken(3).await;
    assert_eq!(world.hooks.taken(), [1, 1, 2, 3]);
    let all = world.hooks.all();
    assert_eq!(all[0].id(), all[1].id());
}

#[tokio::test]
async fn a_second_one_of_the_same_name_stands_by_and_takes_over() {
    let mut world = World::new().await;
    let some = satellites(2);
    let first = world.forward(&[]);
    first.says("forwarding").await;
    let second = world.forward(&[]);
    second.says("another forwarder of this name runs").await;
    publish(&mut world, &some, 6).await;
    world.hooks.expect_taken(6).await;
    assert!(!second.everything().contains("forwarding"), "{}", second.everything());
    first.kill();
    publish(&mut world, &some, 6).await;
    let hooks = world.hooks.expect_taken(12).await;
    expect_order(&hooks);
    second.says("forwarding").await;
}

#[tokio::test]
async fn one_that_stood_still_while_another_took_over_sends_nothing_more() {
    let mut world = World::new().await;
    let some = satellites(2);
    let signal = |id: u32, name: &str| {
        let kill = std::process::Command::new("kill").args(["-s", name, &id.to_string()]).status();
        assert!(kill.expect("kill runs").success());
    };
    let first = world.forward(&[]);
    publish(&mut world, &some, 4).await;
    world.hooks.expect_taken(4).await;
    signal(first.id(), "STOP");
    let second = world.forward(&[]);
    second.says("forwarding").await;
    publish(&mut world, &some, 4).await;
    world.hooks.expect_taken(8).await;
    signal(first.id(), "CONT");
    first.says("beginning anew").await;
    publish(&mut world, &some, 4).await;
    let hooks = world.hooks.expect_taken(12).await;
    expect_order(&hooks);
    assert_eq!(world.hooks.taken().len(), 12, "{:?}", world.hooks.taken());
}

#[tokio::test]
async fn nats_may_go_away_and_come_back() {
    let mut fleet = crate::harness::Fleet::with_own_nats(crate::harness::CALM).await;
    crate::harness::relaying::forgetful_stream(&fleet).await;
    let nats = fleet.own_nats();
    let port_before = nats.url();
    let mut world = World::of(fleet).await;
    let some = satellites(4);
    world.hooks.say(|_, _| Answer::After(Duration::from_millis(10), 204));
    let forwarder = world.forward(&[]);
    publish(&mut world, &some, 40).await;
    world.hooks.expect_taken(10).await;
    world.fleet.own_nats().kill();
    forwarder.says("beginning anew").await;
    world.fleet.own_nats().restart().expect("it starts again");
    assert_eq!(world.fleet.own_nats().url(), port_before);
    let hooks = world.hooks.expect_taken(40).await;
    expect_order(&hooks);
    eventually("publishing to be possible again", async || {
        world.jetstream.get_stream("SATELLITE_TRANSITIONS").await.map_err(|e| e.to_string())
    })
    .await;
    publish(&mut world, &some, 4).await;
    expect_order(&world.hooks.expect_taken(44).await);
}
