//! An agent enrols its satellite once, keeps the credentials in a file of its own, and comes back with them.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::pod::NamedToken;
use crate::harness::running::Running;
use crate::harness::stores::random;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Pod, Proxy, eventually, program};

/// An agent's machine: a folder with the token to enrol with, and its file of credentials.
struct Machine {
    folder: PathBuf,
    url: String,
}

impl Machine {
    fn new(address: SocketAddr, token: &str) -> Machine {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("agent-{}", random()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("enrol.token"), token).expect("the token");
        Machine { folder, url: format!("http://{address}") }
    }

    fn file(&self) -> PathBuf {
        self.folder.join("satellite.json")
    }

    /// What the file holds.
    fn kept(&self) -> Value {
        let text = std::fs::read_to_string(self.file()).expect("a file of credentials");
        serde_json::from_str(&text).expect("JSON")
    }

    fn keep(&self, content: &Value, mode: u32) {
        std::fs::write(self.file(), content.to_string()).expect("written");
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.file(), permissions).expect("a mode");
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let own = ["agent", "--url", &self.url, "--credentials", "satellite.json"];
        [&own, more, &["--heartbeat-interval", "1s"]].concat()
    }

    /// Starts the agent as at its first start.
    fn start(&self, more: &[&str]) -> Running {
        let first = ["--enrol-file", "enrol.token", "--name", "edge"];
        Running::start(&self.arguments(&[&first, more].concat()), &[], &self.folder)
    }

    /// Starts the agent with what it has kept.
    fn come_back(&self) -> Running {
        Running::start(&self.arguments(&[]), &[], &self.folder)
    }

    /// Runs the agent until it ends by itself, which it does with this status and for this reason.
    async fn ends_with(&self, status: i32, reason: &str, more: &[&str]) {
        let first = ["--enrol-file", "enrol.token", "--name", "edge"];
        let mut running = self.start(more);
        let ended = running.ends().await;
        let said = running.everything();
        assert_eq!(ended.code(), Some(status), "{first:?} {more:?}: {said}");
        assert!(said.contains(reason), "{said}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn for_one() -> Value {
    json!({"name": "shop", "role": "enrol", "selector": {"region": "eu", "tags": {"tier": "gold"}}, "uses": 1})
}

async fn satellites(pod: &Pod) -> Vec<Value> {
    pod.get("/v1/satellites").await.json()["satellites"].as_array().expect("a list").clone()
}

async fn expect_online(pod: &Pod) -> Value {
    expect_one(pod, "online").await
}

async fn expect_offline(pod: &Pod) -> Value {
    expect_one(pod, "offline").await
}

async fn expect_one(pod: &Pod, status: &str) -> Value {
    eventually("one satellite to have a status", async || match satellites(pod).await.as_slice() {
        [one] if one["status"] == status => Ok(one.clone()),
        others => Err(format!("{others:?}, not {status}")),
    })
    .await
}

async fn with_token(described: &Value) -> (Fleet, Pod, NamedToken) {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = pod.make_token(described).await;
    (fleet, pod, token)
}

#[tokio::test]
async fn an_agent_enrols_once_and_comes_back_as_the_same_satellite_without_its_token() {
    let (fleet, pod, token) = with_token(&for_one()).await;
    let machine = Machine::new(pod.address, &token.secret);
    let mut agent = machine.start(&["--tag", "rack:7"]);
    let satellite = expect_online(&pod).await;
    assert_eq!((&satellite["name"], &satellite["region"]), (&json!("edge"), &json!("eu")));
    assert_eq!(satellite["tags"], json!({"tier": "gold", "rack": "7"}));
    let kept = machine.kept();
    assert_eq!((&kept["clientId"], &kept["service"]), (&satellite["id"], &json!(machine.url)));
    let mode = std::fs::metadata(machine.file()).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let listed = pod.get("/v1/tokens").await.json();
    assert_eq!(listed["tokens"][0]["usesLeft"], 0);
    agent.interrupt();
    assert!(agent.ends().await.success(), "{}", agent.everything());
    let secret = kept["token"].as_str().expect("a token").to_owned();
    let said = agent.everything();
    assert!(!said.contains(&secret) && !said.contains(&token.secret), "{said}");

    // Neither the token to enrol with nor the name is asked for again, and the token may be revoked.
    pod.revoke(&token).await;
    std::fs::remove_file(machine.folder.join("enrol.token")).expect("it was there");
    let mut agent = machine.come_back();
    expect_online(&pod).await;
    let id: Uuid = satellite["id"].as_str().expect("an id").parse().expect("a UUID");
    let history = ["1 connected connect", "1 disconnected client_close", "2 connected connect"];
    fleet.expect_history(id, &history).await;
    assert_eq!(machine.kept(), kept);
    agent.interrupt();
    assert!(agent.ends().await.success());
    let left: Vec<_> = std::fs::read_dir(&machine.folder).expect("a folder").collect();
    assert_eq!(left.len(), 1, "nothing is left beside the file: {left:?}");
}

#[tokio::test]
async fn an_agent_keeps_its_credentials_beside_it_unless_it_is_told_where() {
    let (_fleet, pod, token) = with_token(&for_one()).await;
    let machine = Machine::new(pod.address, &token.secret);
    let arguments = ["agent", "--url", &machine.url, "--enrol", &token.secret, "--name", "edge"];
    // The second start is the same command, with a token that is used up.
    for _ in 0..2 {
        let mut agent = Running::start(&arguments, &[], &machine.folder);
        let satellite = expect_online(&pod).await;
        assert_eq!(machine.kept()["clientId"], satellite["id"]);
        agent.interrupt();
        assert!(agent.ends().await.success(), "{}", agent.everything());
        expect_offline(&pod).await;
    }
}

#[tokio::test]
async fn an_agent_whose_answer_was_lost_gets_the_same_satellite_of_a_token_for_one() {
    let (_fleet, pod, token) = with_token(&for_one()).await;
    let machine = Machine::new(pod.address, &token.secret);
    // As an agent leaves it that dies between the answer and the file.
    let key = Uuid::new_v4().simple().to_string();
    machine.keep(&json!({"service": machine.url, "enrolmentKey": key}), 0o600);
    let lost = pod.enrol(&token.secret, Some(&key), &json!({"name": "edge"})).await;
    assert_eq!(lost.status, 201, "{lost:?}");
    let mut agent = machine.start(&[]);
    let satellite = expect_online(&pod).await;
    assert_eq!(satellite["id"], lost.json()["satellite"]["id"]);
    assert_eq!(machine.kept()["token"], lost.json()["token"]);
    agent.interrupt();
    assert!(agent.ends().await.success());

    // A copy of the machine's disk from before takes nobody's place.
    machine.keep(&json!({"service": machine.url, "enrolmentKey": key}), 0o600);
    machine.ends_with(5, "remove it to enrol anew", &[]).await;
    assert_eq!(satellites(&pod).await.len(), 1);
}

#[tokio::test]
async fn an_agent_is_patient_with_what_passes_and_asks_with_one_key() {
    let (_fleet, pod, token) = with_token(&for_one()).await;
    let proxy = Proxy::to(pod.address).await;
    proxy.refuse();
    let machine = Machine::new(proxy.address, &token.secret);
    let mut agent = machine.start(&[]);
    agent.says("cannot enrol yet").await;
    let begun = machine.kept();
    assert!(begun["enrolmentKey"].is_string() && begun.get("token").is_none(), "{begun}");
    agent.interrupt();
    assert!(agent.ends().await.success(), "it ends at once: {}", agent.everything());
    // What the pod answers gets lost, once its work is done.
    proxy.admit();
    proxy.stall();
    let mut agent = machine.start(&[]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    proxy.swallow();
    proxy.resume();
    eventually("the enrolment to be made", async || match satellites(&pod).await.len() {
        1 => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
    proxy.cut();
    let satellite = expect_online(&pod).await;
    assert_eq!(machine.kept()["clientId"], satellite["id"]);
    agent.interrupt();
    assert!(agent.ends().await.success());
}

#[tokio::test]
async fn an_agent_ends_with_what_does_not_pass_and_says_why() {
    let (fleet, pod, token) = with_token(&for_one()).await;
    let machine = Machine::new(pod.address, &token.secret);
    machine.ends_with(4, "region must be \"eu\"", &["--region", "us"]).await;
    machine.ends_with(4, "tags.tier must be \"gold\"", &["--tag", "tier:iron"]).await;
    machine
        .ends_with(2, "tags.k must have at most 200", &["--tag", &format!("k:{}", "x".repeat(201))])
        .await;
    machine.ends_with(2, "must be written NAME:VALUE", &["--tag", "k=v"]).await;
    // The key of all these tries was used for nothing.
    let mut agent = machine.start(&[]);
    expect_online(&pod).await;
    agent.interrupt();
    assert!(agent.ends().await.success());

    let another = Machine::new(pod.address, &token.secret);
    another.ends_with(4, "as many satellites as it may", &[]).await;
    let reader = Machine::new(pod.address, &fleet.read_token);
    reader.ends_with(4, "may only GET", &[]).await;
    let wrong = Machine::new(pod.address, &random());
    wrong.ends_with(4, "not valid here", &[]).await;
    let mistyped = Machine::new(pod.address, &token.secret[..50]);
    mistyped.ends_with(2, "mistyped or cut off", &[]).await;
    assert!(!mistyped.file().exists(), "nothing was begun");
    // The file can be written before anything is asked for.
    let nowhere = Machine::new(pod.address, &token.secret);
    let mut arguments = nowhere.arguments(&["--enrol-file", "enrol.token", "--name", "edge"]);
    arguments[4] = "none/satellite.json";
    let mut agent = Running::start(&arguments, &[], &nowhere.folder);
    assert_eq!(agent.ends().await.code(), Some(1));
    assert!(agent.everything().contains("cannot keep credentials"), "{}", agent.everything());
    assert_eq!(satellites(&pod).await.len(), 1);
}

async fn run(machine: &Machine, more: &[&str], variables: &[(&str, &str)]) -> Output {
    let file = machine.file().to_string_lossy().into_owned();
    let own = ["agent", "--url", &machine.url, "--credentials", &file];
    let arguments: Vec<String> = own.iter().chain(more).map(|&word| word.to_owned()).collect();
    let variables: Vec<(String, String)> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        program::run(&arguments, &variables)
    })
    .await
}

#[tokio::test]
async fn a_file_that_is_not_the_agents_alone_or_of_another_service_is_refused_before_anything() {
    let (_fleet, pod, token) = with_token(&for_one()).await;
    let machine = Machine::new(pod.address, &token.secret);
    let refused = async |reason: &str| {
        let enrol = ["--enrol", token.secret.as_str(), "--name", "edge"];
        let output = run(&machine, &enrol, &[]).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(reason) && !said.contains("csat_"), "{said}");
    };
    let mut kept =
        json!({"service": machine.url, "clientId": Uuid::new_v4(), "token": "csat_secret"});
    for mode in [0o644, 0o640, 0o622] {
        machine.keep(&kept, mode);
        refused("chmod 600").await;
    }
    kept["service"] = json!("https://other.example");
    machine.keep(&kept, 0o600);
    refused("are for https://other.example, not for http://").await;
    for tampered in [json!("csat_secret"), json!({"service": machine.url, "token": "csat_secret"})]
    {
        machine.keep(&tampered, 0o600);
        refused("is no file of credentials").await;
    }
    assert_eq!(satellites(&pod).await.len(), 0);
}

#[tokio::test]
async fn what_an_agent_needs_to_enrol_comes_from_its_environment_too_and_what_is_missing_is_named()
{
    let (_fleet, pod, token) = with_token(&for_one()).await;
    let machine = Machine::new(pod.address, &token.secret);
    let missing = async |more: &[&str], variables: &[(&str, &str)], words: &str| {
        let output = run(&machine, more, variables).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    };
    let secret = [("GROUNDSTATION_ENROL_TOKEN", token.secret.as_str())];
    missing(&[], &[], "to enrol give --enrol-file").await;
    missing(&[], &secret, "to enrol give --name").await;
    let client = Uuid::nil().to_string();
    missing(&["--client-id", &client], &secret, "cannot be used with").await;
    missing(&["--enrol-file", "x"], &secret, "cannot be used with").await;
    assert!(!machine.file().exists(), "nothing was begun");

    let file = machine.file().to_string_lossy().into_owned();
    let websocket = format!("ws://{}/api/ws/satellite", pod.address);
    let variables = [
        ("GROUNDSTATION_WS_URL", websocket.as_str()),
        ("GROUNDSTATION_ENROL_TOKEN", &token.secret),
        ("SATELLITE_CREDENTIALS", &file),
        ("SATELLITE_NAME", "edge"),
        ("SATELLITE_REGION", "eu"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut agent = Running::start(&["agent"], &variables, &machine.folder);
    expect_online(&pod).await;
    assert_eq!(machine.kept()["service"], machine.url, "the address of its WebSocket is the pod's");
    agent.interrupt();
    assert!(agent.ends().await.success());
}

#[tokio::test]
async fn two_agents_that_begin_with_one_file_have_one_satellite() {
    let described = json!({"name": "shop", "role": "enrol", "selector": {"region": "eu"}});
    let (_fleet, pod, token) = with_token(&described).await;
    let machine = Machine::new(pod.address, &token.secret);
    let agents: Vec<Running> = (0..4).map(|_| machine.start(&[])).collect();
    for agent in &agents {
        agent.says("Authenticated").await;
    }
    assert_eq!(satellites(&pod).await.len(), 1);
    assert_eq!(machine.kept()["clientId"], satellites(&pod).await[0]["id"]);
}
