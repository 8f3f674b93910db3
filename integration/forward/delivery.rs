//! An edge of a satellite becomes a webhook that its receiver can trust.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::world::{SECRET, World, change, expect_order, satellites};
use crate::harness::hooks::Hook;
use crate::harness::relaying::{STREAM, come_and_go};
use crate::harness::{CALM, Fleet, eventually};

/// What Standard Webhooks says of a receiver, written once more.
pub fn is_signed_with(hook: &Hook, secret: &str) -> bool {
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("base64");
    let mut hmac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    hmac.update(format!("{}.{}.", hook.id(), hook.header("webhook-timestamp")).as_bytes());
    hmac.update(&hook.body);
    let expected = format!("v1,{}", STANDARD.encode(hmac.finalize().into_bytes()));
    hook.header("webhook-signature").split(' ').any(|one| one == expected)
}

#[tokio::test]
async fn an_edge_reaches_the_receiver_signed_and_as_a_cloud_event() {
    let world = World::of(Fleet::new(CALM).await).await;
    // It is there before any pod is, and waits for the stream.
    let forwarder = world.forward(&[]);
    forwarder.says("waiting for a pod to make the stream").await;
    let pod = world.fleet.pod("a").await;
    let satellite = pod.register("edge", "eu").await;
    come_and_go(&pod, &satellite).await;

    let hooks = world.hooks.expect_taken(2).await;
    let listed = pod.get("/v1/transitions").await.json();
    for (hook, transition) in hooks.iter().zip(listed["transitions"].as_array().expect("a list")) {
        assert_eq!(hook.id(), transition["changeId"], "{hook:?}");
        assert_eq!(hook.header("ce-id"), hook.id());
        assert_eq!(hook.header("ce-specversion"), "1.0");
        assert_eq!(hook.header("ce-source"), "/groundstation");
        assert_eq!(hook.satellite(), satellite.id.to_string());
        assert_eq!(hook.header("ce-time"), transition["occurredAt"]);
        let event = transition["event"].as_str().expect("text");
        assert_eq!(hook.header("ce-type"), format!("satellite.{event}"));
        assert_eq!(hook.header("content-type"), "application/json");
        assert_eq!(hook.header("ce-datacontenttype"), "", "in HTTP this is content-type");
        assert!(!hook.headers.keys().any(|name| name.starts_with("nats-")), "{hook:?}");
        assert_eq!(hook.json()["satelliteId"], satellite.id.to_string());
        assert_eq!(hook.json()["name"], "edge");
        assert!(is_signed_with(hook, SECRET), "{hook:?}");
        let sent: i64 = hook.header("webhook-timestamp").parse().expect("seconds");
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        assert!((now - 60..=now).contains(&sent), "{sent} at {now}");
    }
    // The body is that of the message, byte for byte.
    let stream = world.jetstream.get_stream(STREAM).await.expect("the stream");
    assert_eq!(stream.get_raw_message(1).await.expect("a message").payload, hooks[0].body);
}

#[tokio::test]
async fn only_the_named_triggers_are_forwarded_and_nothing_of_somebody_else() {
    let mut world = World::new().await;
    let satellite = satellites(1)[0];
    for _ in 0..4 {
        world.publish(satellite).await;
    }
    let foreign = world.jetstream.publish("satellite.disconnected", "{}".into()).await;
    foreign.expect("published").await.expect("stored");
    for _ in 0..2 {
        world.publish(satellite).await;
    }
    let _forwarder = world.forward(&[("GROUNDSTATION_FORWARD_TRIGGERS", "satellite.disconnected")]);
    let hooks = world.hooks.expect_taken(3).await;
    let positions: Vec<i64> = hooks.iter().map(Hook::position).collect();
    assert_eq!(positions, [2, 4, 6]);
    expect_acknowledged(&world, "forward-webhooks").await;
}

/// Waits until the consumer has nothing out and nothing left.
pub async fn expect_acknowledged(world: &World, consumer: &str) {
    let stream = world.jetstream.get_stream(STREAM).await.expect("the stream");
    eventually("everything to be acknowledged", async || {
        let info = stream.consumer_info(consumer).await.map_err(|error| error.to_string())?;
        let left = (info.num_ack_pending, info.num_pending);
        if left == (0, 0) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_new_forwarder_begins_with_what_happens_from_then_on() {
    let mut world = World::new().await;
    let satellite = satellites(1)[0];
    world.publish(satellite).await;
    let forwarder = world.forward(&[("GROUNDSTATION_FORWARD_START", "new")]);
    forwarder.says("forwarding").await;
    world.publish(satellite).await;
    world.publish(satellite).await;
    let hooks = world.hooks.expect_taken(2).await;
    assert_eq!(hooks[0].position(), 2);
    assert_eq!(hooks[0].id(), change(2).to_string());
}

#[tokio::test]
async fn a_stream_that_is_built_anew_is_not_forwarded_anew() {
    let mut world = World::new().await;
    let some = satellites(3);
    for n in 0..9 {
        world.publish(some[n % 3]).await;
    }
    let forwarder = world.forward(&[]);
    world.hooks.expect_taken(9).await;
    world.expect_place(9).await;
    world.begin_epoch().await;
    for n in 0..9i64 {
        world.publish_again(n + 1, some[n as usize % 3], n / 3 + 1).await;
    }
    world.publish(some[0]).await;
    let hooks = world.hooks.expect_taken(10).await;
    assert_eq!(hooks.len(), 10, "{:?}", world.hooks.taken());
    assert_eq!(hooks[9].header("groundstation-epoch"), "2");
    expect_order(&hooks);

    // The same where the consumer was lost with it.
    world.expect_place(10).await;
    drop(forwarder);
    let stream = world.jetstream.get_stream(STREAM).await.expect("the stream");
    stream.delete_consumer("forward-webhooks").await.expect("deleted");
    let _forwarder = world.forward(&[]);
    world.publish(some[1]).await;
    let hooks = world.hooks.expect_taken(11).await;
    assert_eq!(hooks.last().map(Hook::position), Some(11));
    expect_acknowledged(&world, "forward-webhooks").await;
    assert_eq!(world.hooks.all().len(), 11, "{:?}", world.hooks.taken());
}
