//! `/openapi.json` describes what the routes do: a tester that knows only the document drives every operation in it,
//! and finds no server error and no answer that is not described.

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;

use crate::harness::{CALM, Fleet, Satellite, faults};

/// How long the tester may take. It counts cases and not seconds, and machines are busy.
const PATIENCE: Duration = Duration::from_secs(900);

#[tokio::test]
async fn the_document_is_open_and_says_of_each_operation_what_it_takes_and_answers() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let answer = pod.call("GET", "/openapi.json", None, None).await;
    let document = answer.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    let routes = [
        ("/livez", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
        ("/openapi.json", "get"),
        ("/v1/satellites", "get"),
        ("/v1/satellites", "post"),
        ("/v1/enrol", "post"),
        ("/v1/satellites/{id}", "get"),
        ("/v1/satellites/{id}", "patch"),
        ("/v1/satellites/{id}", "delete"),
        ("/v1/satellites/{id}/token", "post"),
        ("/v1/satellites/{id}/kick", "post"),
        ("/v1/satellites/{id}/disable", "post"),
        ("/v1/satellites/{id}/enable", "post"),
        ("/v1/satellites/{id}/assignments", "get"),
        ("/v1/satellites/{id}/assignments", "put"),
        ("/v1/satellites/{id}/stats", "get"),
        ("/v1/satellites/{id}/transitions", "get"),
        ("/v1/transitions", "get"),
        ("/v1/transitions/stream", "get"),
        ("/v1/fleet", "get"),
        ("/v1/fleet/timeline", "get"),
        ("/v1/intervals", "get"),
        ("/v1/tokens", "get"),
        ("/v1/tokens", "post"),
        ("/v1/tokens/{id}", "delete"),
    ];
    let mut ids = std::collections::BTreeSet::new();
    for (path, method) in routes {
        let operation = &document["paths"][path][method];
        assert!(operation["summary"].is_string(), "{method} {path}");
        let id = operation["operationId"].as_str().expect("an id");
        assert!(ids.insert(id), "{id} is there twice");
        if path.starts_with("/v1") {
            let problem = &operation["responses"]["401"]["content"]["application/problem+json"];
            assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem", "{path}");
        } else {
            assert_eq!(operation["security"], json!([{}]), "{path} is open");
        }
    }
    assert!(!answer.text.contains("token_hash") && !answer.text.contains("token_digest"));
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_tester_that_knows_only_the_document_finds_nothing_it_does_not_say() {
    let fleet = Fleet::new(CALM).await;
    // A stream ends before the tester's patience does.
    let pod = fleet.plan("a").with("GROUNDSTATION_STREAM_LIFETIME", "50ms").start().await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    fleet.expect_log_length(2).await;
    let library = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/api_tester");
    assert!(library.join("schemathesis").is_dir(), "run `make test-tools` first");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("api-{}", pod.address.port()));
    std::fs::create_dir_all(&folder).expect("a folder");
    // Every test case of a known kind, and a few random ones; more of them, and whole conversations, in a full run.
    let (phases, examples) = match faults::full() {
        true => ("examples,coverage,fuzzing,stateful", 60),
        false => ("coverage,fuzzing", 3),
    };
    let seed = faults::chance("openapi").u32(..);
    let mut command = Command::new("python3");
    command
        .args(["-c", "from schemathesis.cli import schemathesis; schemathesis()", "run"])
        .arg(format!("http://{}/openapi.json", pod.address))
        .args(["--header", &format!("Authorization: Bearer {}", fleet.admin_token)])
        // Without `use_after_free`: the history of a removed satellite stays readable.
        .args([
            "--checks",
            "not_a_server_error,status_code_conformance,content_type_conformance,\
             response_headers_conformance,response_schema_conformance,unsupported_method,\
             allow_header_conformance,ignored_auth",
        ])
        .args(["--phases", phases, "--max-examples", &examples.to_string()])
        .args(["--seed", &seed.to_string()])
        .args(["--request-timeout", "20", "--no-shrink", "--suppress-health-check", "all"])
        .env("PYTHONPATH", library)
        .env("NO_COLOR", "1")
        .env("COLUMNS", "100")
        .current_dir(&folder)
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let output = output.expect("it ends in time").expect("python3 runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // The tester was authorized, and it tried everything.
    assert!(!said.contains("Authentication failed"), "{said}");
    let tested = said.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    let described: usize = pod.get("/openapi.json").await.json()["paths"]
        .as_object()
        .expect("paths")
        .values()
        .map(|path| path.as_object().map_or(0, count))
        .sum();
    let tested: usize = tested.expect("a sum").trim().parse().expect("a number");
    // It does not request the document that it was given.
    assert!(tested >= described - 1, "{tested} of {described}: {said}");
    std::fs::remove_dir_all(&folder).expect("the folder");
    fleet.check().await;
}

fn count(methods: &serde_json::Map<String, serde_json::Value>) -> usize {
    let known = ["get", "put", "post", "patch", "delete"];
    methods.keys().filter(|method| known.contains(&method.as_str())).count()
}
