//! The commands people and scripts use, as they use them.

use std::io::Write;
use std::process::Stdio;

use serde_json::Value;
use uuid::Uuid;

use crate::harness::program::{command, ran};
use crate::harness::running::Running;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, eventually};

/// Runs a command with JSON on its standard input, as [`ran`] does without.
async fn ran_with(
    arguments: &[&str],
    environment: &[(String, String)],
    input: &Value,
) -> (bool, String, String) {
    let mut command = command(environment);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let input = input.to_string();
    let output = blocking(move || {
        let mut child = command.spawn().expect("the program starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        child.wait_with_output().expect("it ends")
    })
    .await;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn assignments_and_tokens_are_replaced_on_the_command_line() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = pod.variables();
    let credentials = pod.register("edge", "eu").await;
    let id = credentials.id.to_string();
    let list = serde_json::json!([{"configId": "c", "systemId": "s", "strategyId": "http",
                                   "config": {}, "intervalSeconds": 60}]);
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{id}.json"));
    std::fs::write(&file, list.to_string()).expect("a file");
    let path = file.display().to_string();
    let (assigned, said, error) = ran(&["satellite", "assign", &id, &path], &api).await;
    assert!(assigned && said.contains(": 1 assigned"), "{said}{error}");
    let (_, shown, _) = ran(&["satellite", "assignments", &id], &api).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["assignments"], list);
    // What it shows it takes back, from standard input too.
    let (assigned, said, error) = ran_with(&["satellite", "assign", &id, "-"], &api, &shown).await;
    assert!(assigned && said.contains(": 1 assigned"), "{said}{error}");

    std::fs::write(&file, r#"[{"configId": "c"}]"#).expect("a file");
    let (assigned, _, error) = ran(&["satellite", "assign", &id, &path], &api).await;
    assert!(!assigned && error.contains("assignments[0].systemId"), "{error}");
    std::fs::write(&file, "[").expect("a file");
    let (assigned, _, error) = ran(&["satellite", "assign", &id, &path], &api).await;
    assert!(!assigned && error.contains("is not JSON"), "{error}");
    std::fs::remove_file(&file).expect("the file");
    let (assigned, _, error) = ran(&["satellite", "assign", &id, &path], &api).await;
    assert!(!assigned && error.contains("cannot read"), "{error}");

    let (rotated, said, error) = ran(&["satellite", "rotate-token", &id], &api).await;
    assert!(
        rotated && said.contains("token  csat_") && said.contains("shown this once"),
        "{error}"
    );
    assert!(!said.contains(&credentials.token));
    let (rotated, said, _) = ran(&["satellite", "rotate-token", &id, "--json"], &api).await;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert!(rotated && said["satellite"]["id"] == id);
    let token = said["token"].as_str().expect("a token").to_owned();
    let new = crate::harness::Credentials { token, ..credentials };
    crate::harness::Satellite::welcomed(pod.address, &new).await.0.close().await;
}

#[tokio::test]
async fn satellites_are_created_listed_shown_and_removed_on_the_command_line() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = pod.variables();
    let create = [
        "satellite",
        "create",
        "--name",
        "edge",
        "--region",
        "eu",
        "--tag",
        "rack:7",
        "--offline-threshold",
        "90s",
        "--json",
    ];
    let (created, printed, _) = ran(&create, &api).await;
    assert!(created);
    let printed: Value = serde_json::from_str(&printed).expect("JSON");
    let satellite = &printed["satellite"];
    assert!(printed["token"].as_str().expect("a token").starts_with("csat_"));
    assert_eq!(satellite["offlineThresholdMs"], 90_000);
    assert_eq!(satellite["tags"]["rack"], "7");
    let id = satellite["id"].as_str().expect("an id").to_owned();

    let (_, human, _) =
        ran(&["satellite", "create", "--name", "other", "--region", "us"], &api).await;
    assert!(human.contains("token  csat_") && human.contains("shown this once"), "{human}");
    // All that it takes to start an agent, with what was just made for it.
    let line = |name: &str| {
        let found = human.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("{name} in {human}")).trim().to_owned()
    };
    assert_eq!(line("CHECKSTACK_CORE_URL="), format!("http://{}", pod.address));
    assert_eq!(line("CHECKSTACK_SATELLITE_CLIENT_ID="), line("id "));
    let token = line("CHECKSTACK_SATELLITE_TOKEN=");
    assert!(line("token ").starts_with(&token) && token.starts_with("csat_"), "{human}");
    assert!(line("docker run ").contains("--env-file satellite.env"));
    assert!(line("ExecStart=").contains("--env-file /etc/satellite.env"));
    let (_, listed, _) = ran(&["satellite", "list", "--region", "eu"], &api).await;
    assert!(listed.contains(&id) && !listed.contains("other"), "{listed}");
    for (second, is_listed) in [("rack:7", true), ("rack:8", false)] {
        let both = ["satellite", "list", "--tag", "rack:7", "--tag", second];
        let (listed, printed, said) = ran(&both, &api).await;
        assert!(listed, "{said}");
        assert_eq!(printed.contains(&id), is_listed, "{second}: {printed}");
    }
    let (_, shown, _) = ran(&["satellite", "show", &id, "--json"], &api).await;
    assert_eq!(&serde_json::from_str::<Value>(&shown).expect("JSON"), satellite);

    let (removed, said, _) = ran(&["satellite", "remove", &id, "--json"], &api).await;
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert!(removed && said["removed"] == id, "{said}");
    let (again, _, why) = ran(&["satellite", "remove", &id], &api).await;
    assert!(!again && why.contains("Unknown satellite (404)") && why.contains(&id), "{why}");
    let (bad, _, why) = ran(&["satellite", "create", "--name", "", "--region", "eu"], &api).await;
    assert!(!bad && why.contains("name must have 1 to 200 characters"), "{why}");
    fleet.check().await;
}

#[tokio::test]
async fn a_command_without_a_server_or_a_token_says_so_in_one_line() {
    let nobody = [("GROUNDSTATION_URL", "http://127.0.0.1:9"), ("GROUNDSTATION_ADMIN_TOKEN", "x")];
    let nobody = nobody.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (succeeded, _, why) = ran(&["satellite", "list"], &nobody).await;
    assert!(
        !succeeded && why.contains("cannot reach groundstation at http://127.0.0.1:9"),
        "{why}"
    );
    assert_eq!(why.lines().count(), 1, "{why}");
    let (succeeded, _, why) = ran(&["satellite", "list"], &nobody[..1]).await;
    assert!(!succeeded && why.contains("GROUNDSTATION_ADMIN_TOKEN"), "{why}");
    let (succeeded, _, why) = ran(&["health"], &nobody[..1]).await;
    assert!(!succeeded && why.contains("does not answer"), "{why}");
}

#[tokio::test]
async fn an_agent_is_a_satellite_that_watch_sees_come_and_say_goodbye() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    // The relay has made the stream once something is on it.
    let first = pod.register("first", "eu").await;
    assert_eq!(pod.remove(first.id).await.status, 204);
    let nats = [("NATS_URL".to_owned(), fleet.nats_url.clone())];
    let here = std::env::temp_dir();
    let watch = Running::start(&["watch", "--json"], &nats, &here);
    watch.says("watching").await;

    let url = format!("ws://{}/api/ws/satellite", pod.address);
    let id = credentials.id.to_string();
    let token = [("SATELLITE_TOKEN".to_owned(), credentials.token.clone())];
    let agent = [
        "agent",
        "--url",
        &url,
        "--client-id",
        &id,
        "--heartbeat-interval",
        "100ms",
        "--capability",
        "http",
    ];
    let mut agent = Running::start(&agent, &token, &here);
    agent.says("Authenticated").await;
    pod.expect_metric("groundstation_heartbeats_received_total", 2.0).await;
    eventually("what the agent says of itself", async || {
        let shown = pod.show(credentials.id).await;
        if shown["capabilities"][0] == "http" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
    agent.interrupt();
    assert!(agent.ends().await.success(), "{}", agent.everything());
    assert!(!agent.everything().contains(&credentials.token));

    let gone = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(credentials.id, &gone).await;
    let line = watch.prints("satellite.disconnected").await;
    let seen: Value = serde_json::from_str(&line).expect("one JSON object a line");
    assert_eq!(seen["body"]["satelliteId"], id);
    assert_eq!(
        (seen["reason"].as_str(), seen["session"].as_i64()),
        (Some("client_close"), Some(1))
    );
    fleet.check().await;
}

#[tokio::test]
async fn a_simulation_connects_flaps_sums_up_and_leaves_nobody_registered() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let arguments = [
        "simulate",
        "--satellites",
        "20",
        "--flap",
        "30",
        "--heartbeat-interval",
        "200ms",
        "--duration",
        "3s",
        "--seed",
        "7",
    ];
    let (succeeded, summary, progress) = ran(&arguments, &pod.variables()).await;
    assert!(succeeded, "{progress}");
    assert!(summary.contains("/20 online") && summary.contains("p99"), "{summary}");
    assert!(progress.contains("seed 7"), "{progress}");
    assert_eq!(
        pod.get("/v1/satellites").await.json()["satellites"].as_array().map(Vec::len),
        Some(0)
    );
    let connects =
        pod.metric("groundstation_edges_total{event=\"connected\",reason=\"connect\"}").await;
    assert!(connects >= 20.0, "{connects}");
    fleet.check().await;
}

#[tokio::test]
async fn every_command_has_a_complete_help() {
    let (_, help, _) = ran(&["--help"], &[]).await;
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    for command in ["serve", "migrate", "dev", "satellite", "agent", "simulate", "watch"] {
        assert!(commands.contains(&command), "{command} is not among {commands:?}");
    }
    for command in commands.into_iter().filter(|command| *command != "help") {
        let (succeeded, help, _) = ran(&[command, "--help"], &[]).await;
        assert!(succeeded && help.contains("Usage: groundstation"), "{command}: {help}");
        // Every option says what it is for: its line goes on, or the next one is indented text.
        assert!(!help.contains("Options:\n\n"), "{command}: {help}");
    }
    let (_, serve, _) = ran(&["serve", "--help"], &[]).await;
    for variable in [
        "DATABASE_URL",
        "NATS_URL",
        "NATS_CREDS",
        "GROUNDSTATION_LISTEN",
        "GROUNDSTATION_ADMIN_TOKEN_FILE",
        "GROUNDSTATION_READ_TOKEN_FILE",
        "GROUNDSTATION_POD",
        "GROUNDSTATION_SWEEP_INTERVAL",
    ] {
        assert!(serve.contains(variable), "{variable} is not in\n{serve}");
    }
}

#[tokio::test]
async fn an_agent_that_is_refused_says_why_and_tries_again() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let url = format!("ws://{}/api/ws/satellite", pod.address);
    let id = Uuid::new_v4().to_string();
    let arguments = ["agent", "--url", &url, "--client-id", &id, "--token", "csat_wrong"];
    let agent = Running::start(&arguments, &[], &std::env::temp_dir());
    agent.says("Invalid client ID or token").await;
    agent.says("Pausing").await;
    pod.expect_metric("groundstation_authentications_total{result=\"refused\"}", 2.0).await;
}
