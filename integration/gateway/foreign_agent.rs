//! An agent that shares no line with this program holds the whole conversation of the contract:
//! `tools/foreign_agent.py`, in Python, on another WebSocket library.

use std::path::{Path, PathBuf};
use std::process::Command;

use async_nats::{Client, jetstream};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256, Sha512};
use uuid::Uuid;

use crate::harness::running::Running;
use crate::harness::subscriber::body;
use crate::harness::{CALM, Credentials, Fleet, Proxy, eventually};

const SECRET: &str = "a value with \"quotes\" and ümlauts";
const PACKAGE: &[u8] = b"the content of a package";

fn integrity() -> String {
    format!("sha512-{}", STANDARD.encode(Sha512::digest(PACKAGE)))
}

fn agent(proxy: &Proxy, credentials: &Credentials) -> Running {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let library = root.join(".tools/foreign_agent");
    assert!(library.join("websockets").is_dir(), "run `make test-tools` first");
    let mut command = Command::new("python3");
    command
        .arg(root.join("tools/foreign_agent.py"))
        .env("PYTHONPATH", library)
        .env("AGENT_URL", format!("ws://{}/api/ws/satellite", proxy.address))
        .env("AGENT_CLIENT_ID", credentials.id.to_string())
        .env("AGENT_TOKEN", &credentials.token)
        .env("AGENT_HEARTBEAT", "0.2")
        .env("AGENT_FIRST_PAUSE", "0.1");
    Running::of(command)
}

/// Waits until the agent reports something that has all of these fields.
async fn tells(agent: &Running, wanted: Value) {
    eventually(&format!("the agent to tell {wanted}"), async || {
        let said = agent.everything();
        let mut events = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let fields = wanted.as_object().expect("fields");
        let is_it = |event: &Value| fields.iter().all(|(name, value)| event[name] == *value);
        if events.any(|event| is_it(&event)) { Ok(()) } else { Err(said) }
    })
    .await;
}

/// The backend for script packages.
async fn packages(nats: &Client) {
    let mut asked = nats.subscribe("script-packages.*").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let nats = nats.clone();
    tokio::spawn(async move {
        while let Some(question) = asked.next().await {
            let answer = match question.subject.as_str() {
                "script-packages.lockfile-hash" => json!({"lockfileHash": "lock-1"}),
                "script-packages.manifest" => json!({"entries": [
                    {"name": "there", "version": "1.0.0", "integrity": integrity()},
                    {"name": "gone", "version": "1.0.0", "integrity": "sha512-gone"}]}),
                "script-packages.blob" if body(&question)["integrity"] == integrity() => {
                    json!({"data": STANDARD.encode(PACKAGE)})
                }
                "script-packages.blob" => json!({"data": null}),
                _ => continue,
            };
            let reply = question.reply.expect("a request");
            nats.publish(reply, answer.to_string().into()).await.expect("published");
        }
    });
}

fn assignment(config: &str) -> Value {
    json!({"configId": config, "systemId": "s", "strategyId": "script", "config": {},
           "intervalSeconds": 60, "collectors": [
               {"id": "k1", "collectorId": "script",
                "config": {"secretEnv": {"TOKEN": "${{ secrets.TOKEN }}"}}},
               {"id": "k2", "collectorId": "script",
                "config": {"secretEnv": {"TOKEN": "${{ secrets.MISSING }}"}}}]})
}

/// How many results of each config are on the stream.
async fn results(fleet: &Fleet) -> Vec<(String, bool)> {
    let jetstream = jetstream::new(fleet.nats().await);
    let stream = jetstream.get_stream("SATELLITE_RESULTS").await.expect("the stream");
    let state = stream.cached_info().state.clone();
    let mut found = Vec::new();
    for sequence in state.first_sequence..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("a message");
        let result: Value = serde_json::from_slice(&message.payload).expect("JSON");
        assert_eq!(result["sourceLabel"], "edge (eu)");
        let cut_off = result["result"]["metadata"]["while_cut_off"].as_bool().expect("a word");
        found.push((result["configId"].as_str().expect("a config").to_owned(), cut_off));
    }
    found
}

async fn expect_results(fleet: &Fleet, expected: &[(&str, bool)]) {
    eventually(&format!("results {expected:?}"), async || {
        let found = results(fleet).await;
        let has = |wanted: &&(&str, bool)| {
            found.iter().any(|(config, cut_off)| (config.as_str(), *cut_off) == **wanted)
        };
        if expected.iter().all(|wanted| has(&wanted)) { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// A folder with one secret; removed when dropped.
struct Secrets(PathBuf);

impl Secrets {
    fn new() -> Secrets {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("of-{}", Uuid::new_v4()));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("TOKEN"), SECRET).expect("a file");
        Secrets(folder)
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("the folder can be removed");
    }
}

#[tokio::test]
async fn an_agent_in_another_language_holds_the_whole_conversation() {
    let fleet = Fleet::new(CALM).await;
    let nats = fleet.nats().await;
    packages(&nats).await;
    let mut said = nats.subscribe("satellite.*").await.expect("a subscription");
    nats.flush().await.expect("NATS answers");
    let secrets = Secrets::new();
    let folder = secrets.0.display().to_string();
    let pod = fleet.plan("a").with("GROUNDSTATION_SECRETS_DIR", &folder).start().await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    pod.assign(credentials.id, &json!([assignment("c1")])).await;
    let proxy = Proxy::to(pod.address).await;
    let mut agent = agent(&proxy, &credentials);

    tells(
        &agent,
        json!({"event": "refused_first", "reason": "Must authenticate first", "code": 4001}),
    )
    .await;
    let wrong = "Invalid client ID or token";
    tells(&agent, json!({"event": "refused_first", "reason": wrong, "code": 4001})).await;
    tells(&agent, json!({"event": "authenticated", "configs": ["c1"], "hash": "lock-1"})).await;
    tells(&agent, json!({"event": "manifest", "hash": "lock-1", "names": ["there", "gone"]})).await;
    tells(&agent, json!({"event": "blob", "integrity": integrity(), "intact": true})).await;
    tells(&agent, json!({"event": "blob", "integrity": "sha512-gone", "intact": null})).await;
    let digest: String = Sha256::digest(SECRET).iter().map(|byte| format!("{byte:02x}")).collect();
    tells(&agent, json!({"event": "run_secrets", "request": "q1", "digests": {"TOKEN": digest}}))
        .await;
    let missing = "Secret not found: MISSING";
    tells(&agent, json!({"event": "run_secrets", "request": "q2", "error": missing})).await;
    expect_results(&fleet, &[("c1", false)]).await;
    pod.expect_metric("groundstation_heartbeats_received_total", 3.0).await;
    let shown = pod.show(credentials.id).await;
    assert_eq!((&shown["status"], &shown["version"]), (&json!("online"), &json!("0.5.0-foreign")));
    assert_eq!(shown["capabilities"], json!(["http", "script"]));

    pod.assign(credentials.id, &json!([assignment("c1"), assignment("c2")])).await;
    tells(&agent, json!({"event": "config_updated", "configs": ["c1", "c2"]})).await;
    expect_results(&fleet, &[("c2", false)]).await;
    let changed = json!({"lockfileHash": "lock-2"}).to_string();
    nats.publish("script-packages.changed", changed.into()).await.expect("published");
    tells(&agent, json!({"event": "refresh_script_packages", "hash": "lock-2"})).await;
    tells(&agent, json!({"event": "manifest", "hash": "lock-2"})).await;

    proxy.cut();
    tells(&agent, json!({"event": "cut_off"})).await;
    tells(&agent, json!({"event": "authenticated", "configs": ["c1", "c2"]})).await;
    expect_results(&fleet, &[("c1", true), ("c2", true)]).await;

    let rotated = pod.post(&format!("/v1/satellites/{}/token", credentials.id), &json!({})).await;
    assert_eq!(rotated.status, 200);
    tells(&agent, json!({"event": "shutdown", "reason": "token_rotated"})).await;
    tells(&agent, json!({"event": "refused", "reason": wrong})).await;
    let ended = agent.ends().await;
    assert!(ended.success(), "{}", agent.everything());

    let (mut errors, mut states) = (0, Vec::new());
    while errors < 2 || states.len() < 4 {
        let message = tokio::time::timeout(std::time::Duration::from_secs(30), said.next()).await;
        let message = message.expect("all that was said").expect("a message");
        match message.subject.as_str() {
            "satellite.strategy_error" => errors += 1,
            "satellite.script_package_sync_state" => states.push(body(&message)["status"].clone()),
            _ => {}
        }
    }
    assert!(states.contains(&json!("syncing")) && states.contains(&json!("ready")), "{states:?}");
    let history = fleet.history(credentials.id).await;
    assert_eq!(history.last().map(String::as_str), Some("2 disconnected token_rotated"));
    fleet.check().await;
}
