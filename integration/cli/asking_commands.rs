//! What the HTTP API tells, on the command line: tables for people, JSON for programs.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::program::{self, ran};
use crate::harness::running::Running;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Pod, Proxy, Satellite};

fn api(fleet: &Fleet, pod: &Pod) -> Vec<(String, String)> {
    let url = format!("http://{}", pod.address);
    // As a pod may have it, for rotation: the first counts.
    let token = format!("{},older", fleet.admin_token);
    let variables = [("GROUNDSTATION_URL", url), ("GROUNDSTATION_ADMIN_TOKEN", token)];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

#[tokio::test]
async fn a_satellite_is_changed_and_its_transitions_are_read_on_the_command_line() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = api(&fleet, &pod);
    let create = ["satellite", "create", "--name", "edge", "--region", "eu", "--tag", "rack:7"];
    let keyed = [&create[..], &["--idempotency-key", "k", "--json"]].concat();
    let (created, said, error) = ran(&keyed, &api).await;
    assert!(created, "{error}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let id = said["satellite"]["id"].as_str().expect("an id").to_owned();
    let (created, said, _) = ran(&keyed[..keyed.len() - 1], &api).await;
    assert!(created && said.contains(&id) && said.contains("was shown before"), "{said}");

    let update = [
        "satellite",
        "update",
        &id,
        "--region",
        "us",
        "--no-tags",
        "--offline-threshold",
        "90s",
        "--json",
    ];
    let (updated, said, error) = ran(&update, &api).await;
    assert!(updated, "{error}");
    let said: Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&said["region"], &said["offlineThresholdMs"]), (&"us".into(), &90_000.into()));
    assert_eq!((&said["name"], &said["tags"]), (&"edge".into(), &serde_json::json!({})));
    let (updated, said, _) =
        ran(&["satellite", "update", &id, "--no-offline-threshold"], &api).await;
    assert!(updated && said.contains("edge") && said.contains("us"), "{said}");
    assert_eq!(pod.show(id.parse().expect("a UUID")).await.get("offlineThresholdMs"), None);
    let (updated, _, why) = ran(&["satellite", "update", &id], &api).await;
    assert!(!updated && why.contains("nothing to change"), "{why}");

    let credentials = pod.register("other", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    fleet.expect_log_length(2).await;
    let (_, table, _) = ran(&["transitions"], &api).await;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("POSITION"), "{table}");
    assert!(lines[2].contains("disconnected") && lines[2].contains("other (eu)"), "{table}");
    let one = ["transitions", "--event", "connected", "--limit", "1", "--json"];
    let (_, page, _) = ran(&one, &api).await;
    let page: Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!(page["transitions"][0]["position"], 1);
    let (_, none, _) = ran(&["transitions", "--satellite", &id], &api).await;
    assert_eq!(none.lines().count(), 1, "{none}");

    let (_, status, _) = ran(&["status"], &api).await;
    for word in ["ready", "true", "satellites", "online"] {
        assert!(status.contains(word), "{word}: {status}");
    }
    let (_, status, _) = ran(&["status", "--json"], &api).await;
    let status: Value = serde_json::from_str(&status).expect("JSON");
    assert_eq!(
        (&status["fleet"]["satellites"], &status["fleet"]["online"]),
        (&2.into(), &0.into())
    );
}

#[tokio::test]
async fn a_follower_prints_the_log_without_a_gap_across_pods_and_broken_connections() {
    let fleet = Fleet::new(CALM).await;
    let (mut a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let proxy = Proxy::to(a.address).await;
    let mut environment = api(&fleet, &a);
    environment[0].1 = format!("http://{}", proxy.address);
    let arguments = ["transitions", "--follow", "--after", "0", "--json"];
    let follower = Running::start(&arguments, &environment, &std::env::temp_dir());
    follower.says("following").await;
    let credentials = b.register("edge", "eu").await;
    for round in 0..4_i64 {
        Satellite::connect(b.address, &credentials).await.close().await;
        follower.prints(&format!("\"position\":{},", 2 * round + 1)).await;
        match round {
            0 => proxy.cut(),
            1 => {
                proxy.lead_to(b.address);
                a.kill();
            }
            _ => {}
        }
    }
    follower.prints("\"position\":8,").await;
    let all = follower.everything();
    let printed = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let positions: Vec<_> = printed.map(|t| t["position"].as_i64().expect("a position")).collect();
    assert_eq!(positions, (1..=8).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_not_there_is_said_in_one_line() {
    let nobody = [("GROUNDSTATION_URL", "http://127.0.0.1:9"), ("GROUNDSTATION_ADMIN_TOKEN", "x")];
    let nobody = nobody.map(|(name, value)| (name.to_owned(), value.to_owned()));
    for arguments in
        [&["status"][..], &["transitions"], &["transitions", "--follow"], &["triggers"]]
    {
        let (succeeded, _, why) = ran(arguments, &nobody).await;
        assert!(!succeeded && why.contains("is `groundstation serve` running there?"), "{why}");
        assert_eq!(why.lines().count(), 1, "{why}");
    }
    let nobody = [("NATS_URL".to_owned(), "nats://127.0.0.1:9".to_owned())];
    let (succeeded, _, why) = ran(&["watch"], &nobody).await;
    assert!(!succeeded && why.contains("cannot connect to NATS at 127.0.0.1:9"), "{why}");
    assert_eq!(why.lines().count(), 1, "{why}");
    let (succeeded, _, why) = ran(&["watch"], &[]).await;
    assert!(!succeeded && why.contains("NATS_URL is missing"), "{why}");
}

#[tokio::test]
async fn the_triggers_are_a_table_for_people_and_the_catalogue_for_programs() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut api = api(&fleet, &pod);
    // To look, the read token is enough; options go before the environment.
    api[1].1 = "wrong".to_owned();
    let asked = ["triggers", "--token", &fleet.read_token];
    let (succeeded, table, error) = ran(&asked, &api).await;
    assert!(succeeded, "{error}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 4 && lines[0].starts_with("ID"), "{table}");
    assert!(lines[3].starts_with("satellite.heartbeat_lost"), "{table}");
    let url = std::mem::replace(&mut api[0].1, "http://127.0.0.1:9".to_owned());
    let asked = ["triggers", "--json", "--token", &fleet.read_token, "--url", &url];
    let (succeeded, catalogue, error) = ran(&asked, &api).await;
    assert!(succeeded, "{error}");
    let catalogue: Value = serde_json::from_str(&catalogue).expect("JSON");
    assert_eq!(catalogue, pod.get("/v1/triggers").await.json());
}

#[tokio::test]
async fn a_follower_of_another_log_ends_with_the_reason() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (succeeded, _, why) =
        ran(&["transitions", "--follow", "--after", "7"], &api(&fleet, &pod)).await;
    assert!(!succeeded && why.contains("Ahead of the log (422)"), "{why}");
}

#[tokio::test]
async fn completions_know_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let (succeeded, script, _) = ran(&["completions", shell], &[]).await;
        assert!(succeeded);
        for word in ["transitions", "rotate-token", "idempotency-key"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    // The script is one that a shell takes. It is longer than an argument may be.
    let (_, script, _) = ran(&["completions", "bash"], &[]).await;
    let mut bash =
        Command::new("bash").args(["-n", "-s"]).stdin(Stdio::piped()).spawn().expect("bash runs");
    bash.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
    assert!(bash.wait().expect("it ends").success());
}

#[tokio::test]
async fn whoever_has_read_enough_may_close_the_pipe_of_any_command_that_tells_something() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = api(&fleet, &pod);
    let edge = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &edge).await.close().await;
    fleet.expect_log_length(2).await;
    let id = edge.id.to_string();
    for arguments in [
        &["satellite", "list"][..],
        &["satellite", "show", &id],
        &["satellite", "intervals", &id],
        &["fleet"],
        &["fleet", "timeline"],
        &["transitions"],
        &["status"],
        &["triggers"],
    ] {
        let mut command = program::command(&api);
        command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        drop(child.stdout.take());
        let ended = blocking(move || child.wait_with_output()).await.expect("it ends");
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.success(), "{arguments:?}: {} {said}", ended.status);
    }
}
