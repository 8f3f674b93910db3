//! What a script can tell from how a command ended: 0 done, 1 failed, 2 wrong usage or a wrong setting, 3 not there,
//! 4 refused, 5 conflict, 6 unreachable.

use serde_json::json;
use uuid::Uuid;

use crate::harness::program;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet};

/// Runs each command and compares its exit status; each that fails says why.
async fn expect(status: i32, environment: &[(&str, &str)], commands: &[&[&str]]) {
    for &arguments in commands {
        let owned: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        let variables: Vec<(String, String)> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let output = blocking(move || {
            let arguments: Vec<&str> = owned.iter().map(String::as_str).collect();
            program::run(&arguments, &variables)
        })
        .await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{arguments:?} {environment:?}: {said}");
        let last = said.lines().last().unwrap_or_default();
        let is_told = last.starts_with("groundstation: ") || said.starts_with("error: ");
        assert!(status == 0 || is_told, "{arguments:?}: {said}");
    }
}

/// As strong as a pod demands.
const TOKEN: (&str, &str) = (
    "GROUNDSTATION_ADMIN_TOKEN",
    "3f9c2b7e8a1d4056b7c8e9f0a1b2c3d4e5f60718293a4b5c6d7e8f9012345678",
);

/// Nothing listens there.
const NO_POD: (&str, &str) = ("GROUNDSTATION_URL", "http://127.0.0.1:9");
const NO_DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://nobody@127.0.0.1:9/nowhere");
const NO_NATS: (&str, &str) = ("NATS_URL", "nats://127.0.0.1:9");

#[tokio::test]
async fn a_command_with_wrong_arguments_or_settings_ends_with_2_before_it_tries_anything() {
    let id = Uuid::nil().to_string();
    let needing_settings: [&[&str]; 19] = [
        &["serve"],
        &["migrate"],
        &["audit"],
        &["audit", "--chain"],
        &["replay"],
        &["rebuild"],
        &["retention", "--older-than", "90d"],
        &["import", "checkstack", "--from", "postgres://nobody@127.0.0.1:9/x"],
        &["watch"],
        &["forward"],
        &["forward", "dead-letters", "list"],
        &["satellite", "list"],
        &["token", "list"],
        &["assignment-set", "list"],
        &["fleet"],
        &["fleet", "timeline"],
        &["transitions"],
        &["triggers"],
        &["simulate"],
    ];
    expect(2, &[], &needing_settings).await;
    let all = [TOKEN, NO_POD, NO_DATABASE, NO_NATS];
    let wrong: [&[&str]; 27] = [
        &["serve", "--heartbeat-interval", "soon"],
        &["serve", "--listen", "here"],
        &["serve", "--database-url", "here"],
        &["migrate", "--retention-floor", "soon"],
        &["dev", "--duration", "soon"],
        &["agent", "--client-id", &id, "--token", "x", "--heartbeat-interval", "soon"],
        &["agent", "--client-id", "x", "--token", "x"],
        &["simulate", "--flap=-1"],
        &["simulate", "--silence", "soon"],
        &["audit", "--wait", "soon"],
        &["replay", "--first", "2", "--last", "1"],
        &["replay", "--prefix", "replay."],
        &["replay", "--since", "0000-01-01T00:00:00Z"],
        &["retention", "--older-than", "soon"],
        &["import", "checkstack", "--from", "here"],
        &["health", "--url", "here"],
        &["status", "--url", "ftp://here"],
        &["fleet", "--url", "here"],
        &["fleet", "--region", "eu", "timeline"],
        &["satellite", "update", &id],
        &["satellite", "create", "--name", "a", "--region", "eu", "--tag", "b"],
        &["satellite", "moves"],
        &["token", "create", "--name", "a", "--role", "root"],
        &["token", "create", "--name", "a", "--role", "read", "--tag", "b"],
        &["token", "create", "--name", "a", "--role", "read", "--expires-in", "soon"],
        &["token", "create", "--name", "a", "--role", "read", "--expires-at", "soon"],
        // Mistyped: its checksum does not fit.
        &["satellite", "list", "--token", "gst_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"],
    ];
    expect(2, &all, &wrong).await;
    expect(2, &[], &[&["health", "--ops-listen", "here"]]).await;
    let logging = [TOKEN, NO_POD, NO_DATABASE, NO_NATS, ("GROUNDSTATION_LOG_FORMAT", "xml")];
    expect(2, &logging, &[&["serve"], &["watch"], &["audit"]]).await;
    let replicas = [TOKEN, NO_DATABASE, NO_NATS, ("GROUNDSTATION_STREAM_REPLICAS", "many")];
    expect(2, &replicas, &[&["serve"], &["audit"]]).await;
}

#[tokio::test]
async fn a_command_whose_server_is_not_there_ends_with_6() {
    let id = Uuid::nil().to_string();
    let all = [TOKEN, NO_POD, NO_DATABASE, NO_NATS];
    let commands: [&[&str]; 22] = [
        &["serve"],
        &["migrate"],
        &["audit"],
        &["audit", "--chain"],
        &["replay"],
        &["rebuild"],
        &["rebuild", "--check"],
        &["retention", "--older-than", "90d"],
        &["import", "checkstack", "--from", NO_DATABASE.1],
        &["watch"],
        &["satellite", "list"],
        &["satellite", "show", &id],
        &["satellite", "show", "edge"],
        &["token", "list"],
        &["token", "revoke", "deploy"],
        &["assignment-set", "show", "web"],
        &["fleet"],
        &["fleet", "timeline"],
        &["transitions", "--follow"],
        &["triggers"],
        &["status"],
        &["health"],
    ];
    expect(6, &all, &commands).await;
}

#[tokio::test]
async fn a_command_ends_with_what_the_pod_answered() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let url = format!("http://{}", pod.address);
    let of = |token| [("GROUNDSTATION_URL", url.as_str()), ("GROUNDSTATION_ADMIN_TOKEN", token)];
    let (admin, reader) = (of(fleet.admin_token.as_str()), of(fleet.read_token.as_str()));
    let stranger = of("wrong");
    let unknown = Uuid::new_v4().to_string();
    let edge = pod.register("edge", "eu").await.id.to_string();
    let create = ["satellite", "create", "--name", "a", "--region", "eu"];

    expect(0, &admin, &[&["satellite", "show", &edge], &["fleet"], &["health"], &["status"]]).await;
    expect(1, &admin, &[&["satellite", "assign", &edge, "/nowhere/list.json"]]).await;
    let wrong: [&[&str]; 4] = [
        &["satellite", "list", "--status", "away"],
        &["satellite", "create", "--name", "", "--region", "eu"],
        &["fleet", "--at", "2999-01-01T00:00:00Z"],
        &["transitions", "--follow", "--after", "7"],
    ];
    expect(2, &admin, &wrong).await;
    let not_there: [&[&str]; 7] = [
        &["satellite", "show", &unknown],
        &["satellite", "show", "nobody"],
        &["satellite", "remove", &unknown],
        &["satellite", "assignments", &unknown],
        &["transitions", "--satellite", "nobody"],
        &["token", "revoke", "nobody"],
        &["token", "revoke", &unknown, "--yes"],
    ];
    expect(3, &admin, &not_there).await;
    expect(4, &stranger, &[&["satellite", "list"], &["fleet"], &["transitions", "--follow"]]).await;
    let token = ["token", "create", "--name", "deploy", "--role", "read"];
    expect(4, &reader, &[&create, &["satellite", "remove", &edge], &token]).await;
    expect(4, &reader, &[&["token", "list"], &["token", "revoke", "deploy"]]).await;
    expect(0, &admin, &[&token]).await;
    expect(5, &admin, &[&token]).await;
    expect(2, &admin, &[&["token", "create", "--name", "", "--role", "read"]]).await;
    let body = json!({"name": "a", "region": "eu", "tags": {}}).to_string();
    let key = [("Idempotency-Key", "k")];
    let made = pod.call_with("POST", "/v1/satellites", &key, Some(body)).await;
    let made = made.json()["satellite"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(pod.remove(made.parse().expect("a UUID")).await.status, 204);
    expect(5, &admin, &[&[&create[..], &["--idempotency-key", "k"]].concat()]).await;
}
