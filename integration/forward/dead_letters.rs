//! What is given up is kept, listed, sent again or dropped; the satellite's next webhooks go on.

use serde_json::Value;

use super::delivery::{expect_acknowledged, is_signed_with};
use super::world::{SECRET, World, change, satellites};
use crate::harness::eventually;
use crate::harness::hooks::Answer;

const GIVES_UP_SOON: [(&str, &str); 2] = [
    ("GROUNDSTATION_FORWARD_GIVE_UP_AFTER", "1s"),
    ("GROUNDSTATION_FORWARD_LONGEST_PAUSE", "50ms"),
];

async fn listed(world: &World) -> Vec<Value> {
    let (is_ok, out, err) = world.dead_letters(&["list", "-o", "json"]).await;
    assert!(is_ok, "{err}");
    serde_json::from_str(&out).expect("a list")
}

async fn expect_listed(world: &World, count: usize) -> Vec<Value> {
    eventually(&format!("{count} dead letters"), async || {
        let listed = listed(world).await;
        if listed.len() == count { Ok(listed) } else { Err(format!("{listed:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_webhook_that_is_never_taken_becomes_a_dead_letter_that_can_be_sent_again() {
    let mut world = World::new().await;
    let some = satellites(2);
    assert!(listed(&world).await.is_empty());
    world.hooks.say(|hook, _| Answer::Status(if hook.position() == 2 { 422 } else { 204 }));
    for n in 0..4 {
        world.publish(some[n % 2]).await;
    }
    let forwarder = world.forward(&GIVES_UP_SOON);
    let letters = expect_listed(&world, 1).await;
    let letter = &letters[0];
    assert_eq!(letter["position"], 2);
    assert_eq!(letter["changeId"], change(2).to_string());
    assert_eq!(letter["satellite"], some[1].to_string());
    assert_eq!(letter["trigger"], "satellite.connected");
    assert_eq!(letter["reason"], "answered 422");
    assert!(letter["attempts"].as_u64() >= Some(8), "{letter}");
    // Its satellite's next one came after it, and not before.
    world.hooks.expect_taken(3).await;
    expect_acknowledged(&world, "forward-webhooks").await;
    assert_eq!(world.hooks.all().last().map(|hook| hook.position()), Some(4));

    // Where it is still not taken it stays.
    let number = letter["number"].to_string();
    let (is_ok, _, err) = world.dead_letters(&["send", &number]).await;
    assert!(!is_ok && err.contains("stays: answered 422"), "{err}");
    assert_eq!(listed(&world).await.len(), 1);
    world.hooks.say_always(204);
    let (is_ok, out, err) = world.dead_letters(&["send", "--all"]).await;
    assert!(is_ok && out.contains(&change(2).to_string()), "{out}{err}");
    let all = world.hooks.all();
    let sent = all.last().expect("a webhook");
    let first = all.iter().find(|hook| hook.position() == 2).expect("the first attempt");
    assert_eq!((sent.id(), &sent.body), (first.id(), &first.body));
    assert!(is_signed_with(sent, SECRET));
    let names = |hook: &crate::harness::hooks::Hook| {
        let mut names: Vec<String> = hook.headers.keys().cloned().collect();
        names.sort();
        names
    };
    assert_eq!(names(sent), names(first), "it is what it was");
    assert!(listed(&world).await.is_empty());
    let (_, table, _) = world.dead_letters(&["list"]).await;
    assert!(table.contains("NUMBER"), "{table}");
    drop(forwarder);
}

#[tokio::test]
async fn dead_letters_are_dropped_by_number_and_belong_to_a_name() {
    let mut world = World::new().await;
    let satellite = satellites(1)[0];
    world.hooks.say_always(400);
    world.publish(satellite).await;
    world.publish(satellite).await;
    let _forwarder = world.forward(&GIVES_UP_SOON);
    let letters = expect_listed(&world, 2).await;
    let (_, out, _) = world.dead_letters(&["list", "--name", "another", "-o", "name"]).await;
    assert_eq!(out, "");
    let number = letters[0]["number"].to_string();
    let (is_ok, _, err) = world.dead_letters(&["drop", &number, "--yes"]).await;
    assert!(is_ok, "{err}");
    assert_eq!(listed(&world).await.len(), 1);
    let (is_ok, _, err) = world.dead_letters(&["drop", &number]).await;
    assert!(!is_ok && err.contains("there is no dead letter"), "{err}");
}

#[tokio::test]
async fn where_there_is_no_room_for_a_dead_letter_the_message_stays_in_its_queue() {
    let mut world = World::new().await;
    let some = satellites(2);
    world.hooks.say_always(400);
    let settings =
        [&GIVES_UP_SOON[..], &[("GROUNDSTATION_FORWARD_MAX_DEAD_LETTERS", "1")]].concat();
    let forwarder = world.forward(&settings);
    world.publish(some[0]).await;
    expect_listed(&world, 1).await;
    world.publish(some[1]).await;
    forwarder.says("a message that is given up stays in its queue").await;
    world.hooks.say_always(204);
    world.hooks.expect_taken(1).await;
    expect_acknowledged(&world, "forward-webhooks").await;
    assert_eq!(world.hooks.taken(), [2]);
    assert_eq!(listed(&world).await.len(), 1);
}
