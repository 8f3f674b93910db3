//! The receivers of `docs/examples/` do what they promise, each in its language: they take what is signed and lately sent,
//! once, and nothing else.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use time::OffsetDateTime;

use super::world::{SECRET, World, change, satellites};
use crate::harness::eventually;
use crate::harness::foreign;
use crate::harness::hooks::{Answer, Hooks};
use crate::harness::running::Running;
use crate::harness::wait::blocking;

const OTHER_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

/// Starts a receiver that knows both secrets; returns its address.
async fn start(mut command: Command, more: &[(&str, &str)]) -> (Running, String) {
    let secrets = format!("{OTHER_SECRET} {SECRET}");
    command
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("WEBHOOK_SECRET", secrets)
        .env("PORT", "0")
        .envs(more.iter().copied());
    let running = Running::of(command);
    let line = running.prints("listening on ").await;
    let address = line.rsplit(' ').next().expect("an address");
    (running, format!("http://{address}/"))
}

/// The status of a webhook that this test makes itself.
async fn send(to: &str, id: &str, age: i64, secret: &str) -> u16 {
    let body = json!({"satelliteId": "forged"}).to_string();
    let at = OffsetDateTime::now_utc().unix_timestamp() - age;
    let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("base64");
    let mut hmac = Hmac::<Sha256>::new_from_slice(&key).expect("a key");
    hmac.update(format!("{id}.{at}.{body}").as_bytes());
    let signature = format!("v1,{}", STANDARD.encode(hmac.finalize().into_bytes()));
    let request = ureq::http::Request::post(to)
        .header("content-type", "application/json")
        .header("webhook-id", id)
        .header("webhook-timestamp", at.to_string())
        .header("webhook-signature", format!("v1,AAAA {signature}"))
        .header("ce-type", "satellite.connected")
        .header("ce-sequence", "00000000000000000099")
        .body(body)
        .expect("a request");
    blocking(move || {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        agent.run(request).expect("an answer").status().as_u16()
    })
    .await
}

fn positions(running: &Running) -> Vec<i64> {
    let said = running.everything();
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| line["position"].as_i64()).collect()
}

async fn keeps_its_promises(command: Command) {
    let (receiver, to) = start(command, &[]).await;
    let mut world = World::new().await;
    let satellite = satellites(1)[0];
    for _ in 0..3 {
        world.publish(satellite).await;
    }
    let forwarder = world.forward(&[("GROUNDSTATION_FORWARD_TO", &to)]);
    eventually("three webhooks to be handled", async || {
        if positions(&receiver).len() == 3 { Ok(()) } else { Err(receiver.everything()) }
    })
    .await;
    assert_eq!(positions(&receiver), [1, 2, 3], "{}", receiver.everything());
    let said = receiver.everything();
    assert!(
        said.contains(&satellite.to_string()) && said.contains("satellite.connected"),
        "{said}"
    );
    drop(forwarder);

    let wrong = "whsec_d3JvbmcgYW5kIHN0aWxsIGxvbmcgZW5vdWdo";
    assert_eq!(send(&to, "forged", 0, wrong).await, 401, "another secret");
    assert_eq!(send(&to, "old", 600, SECRET).await, 401, "long ago");
    assert_eq!(send(&to, "early", -600, SECRET).await, 401, "from the future");
    assert_eq!(send(&to, &change(2).to_string(), 0, SECRET).await, 204, "handled before");
    assert_eq!(positions(&receiver), [1, 2, 3], "{}", receiver.everything());
    assert_eq!(send(&to, "new", 0, OTHER_SECRET).await, 204, "the other secret");
    receiver.prints("forged").await;
}

#[tokio::test]
async fn the_receiver_in_python_takes_what_is_signed_once() {
    keeps_its_promises(foreign::python("docs/examples/receive.py")).await;
}

#[tokio::test]
async fn the_receiver_in_typescript_takes_what_is_signed_once() {
    let (command, _folder) = foreign::node("docs/examples/receive.ts");
    keeps_its_promises(command).await;
}

#[tokio::test]
async fn the_receiver_in_rust_takes_what_is_signed_once() {
    let program = Path::new(env!("CARGO_BIN_EXE_groundstation")).with_file_name("examples");
    keeps_its_promises(Command::new(program.join("receive"))).await;
}

#[tokio::test]
async fn what_slack_and_alertmanager_are_told_is_in_their_words_and_comes_again_where_they_do_not_take_it()
 {
    let (slack, alertmanager) = (Hooks::new().await, Hooks::new().await);
    slack.say(|_, before| Answer::Status(if before == 0 { 500 } else { 200 }));
    let (slack_url, alertmanager_url) = (
        format!("http://{}/services/x", slack.address),
        format!("http://{}", alertmanager.address),
    );
    let urls = [("SLACK_URL", slack_url.as_str()), ("ALERTMANAGER_URL", &alertmanager_url)];
    let (_receiver, to) = start(foreign::python("docs/examples/translate.py"), &urls).await;
    let mut world = World::new().await;
    let satellite = satellites(1)[0];
    world.publish_lost(satellite, "<edge> & co").await;
    world.publish(satellite).await;
    let _forwarder = world.forward(&[("GROUNDSTATION_FORWARD_TO", &to)]);
    let told = alertmanager.expect(2).await;
    let alerts: Vec<Value> = told.iter().map(|hook| hook.json()[0].clone()).collect();
    assert_eq!(alerts[0]["labels"], alerts[1]["labels"]);
    assert_eq!(alerts[0]["labels"]["satellite"], satellite.to_string());
    let is_time = |value: &Value| value.as_str().is_some_and(|text| text.ends_with('Z'));
    assert!(is_time(&alerts[0]["startsAt"]) && alerts[0]["endsAt"].is_null(), "{alerts:?}");
    assert!(is_time(&alerts[1]["endsAt"]), "{alerts:?}");
    let lines: Vec<Value> = slack.all().iter().map(|hook| hook.json()["text"].clone()).collect();
    let lost = "&lt;edge&gt; &amp; co went silent (heartbeat_timeout)";
    assert_eq!(lines, [lost, lost, "edge is connected (connect)"]);
}
