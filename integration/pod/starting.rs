//! A pod that cannot run says why, in one line, and its exit status says of which kind that is.

use std::net::TcpListener;

use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Proxy, program, stores};

/// Exit statuses.
const FAILED: i32 = 1;
const WRONG_SETTING: i32 = 2;
const UNREACHABLE: i32 = 6;

/// Runs `serve` with this environment, which must fail with this status. Returns its one line.
async fn refusal(status: i32, environment: Vec<(String, String)>) -> String {
    let output = blocking(move || program::run(&["serve"], &environment)).await;
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(status), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty());
    said
}

/// The error of a fleet's pod with one changed variable.
async fn refusal_with(status: i32, fleet: &Fleet, name: &str, value: &str) -> String {
    refusal(status, fleet.plan("a").with(name, value).environment()).await
}

#[tokio::test]
async fn variables_that_are_missing_are_all_named() {
    let said = refusal(WRONG_SETTING, Vec::new()).await;
    assert!(said.contains("DATABASE_URL") && said.contains("NATS_URL"), "{said}");
    let fleet = Fleet::new(CALM).await;
    let said = refusal(WRONG_SETTING, fleet.plan("a").without("NATS_URL").environment()).await;
    assert!(said.contains("NATS_URL") && !said.contains("DATABASE_URL"), "{said}");
    let said = refusal_with(WRONG_SETTING, &fleet, "DATABASE_URL", "").await;
    assert!(said.contains("DATABASE_URL") && !said.contains("NATS_URL"), "{said}");
}

#[tokio::test]
async fn settings_that_are_wrong_are_named_with_what_is_wrong() {
    let fleet = Fleet::new(CALM).await;
    let cases = [
        ("NATS_URL", "http://127.0.0.1:4222", "NATS_URL"),
        ("NATS_URL", "nats://host:port", "NATS_URL"),
        ("NATS_CREDS", "/does/not/exist", "NATS_CREDS"),
        ("NATS_NKEY", "/dev/null", "NATS_NKEY"),
        ("NATS_CA", "/dev/null", "NATS_CA"),
        ("NATS_CERT", "/dev/null", "NATS_CERT is set without NATS_KEY"),
        ("NATS_KEY", "/dev/null", "NATS_KEY is set without NATS_CERT"),
        ("NATS_URL_FILE", "/dev/null", "NATS_URL and NATS_URL_FILE are both set"),
        ("DATABASE_URL_FILE", "/dev/null", "DATABASE_URL and DATABASE_URL_FILE are both set"),
        ("NATS_INBOX_PREFIX", "mine.>", "NATS_INBOX_PREFIX"),
        ("DATABASE_URL", "mysql://127.0.0.1/x", "DATABASE_URL"),
        ("GROUNDSTATION_LISTEN", "nowhere", "GROUNDSTATION_LISTEN"),
        ("GROUNDSTATION_HEARTBEAT_INTERVAL", "soon", "GROUNDSTATION_HEARTBEAT_INTERVAL"),
        ("GROUNDSTATION_OFFLINE_THRESHOLD", "1ms", "GROUNDSTATION_OFFLINE_THRESHOLD"),
        ("GROUNDSTATION_LOG_FORMAT", "xml", "GROUNDSTATION_LOG_FORMAT"),
        ("GROUNDSTATION_STREAM_REPLICAS", "many", "it must be auto or a number from 1 to 5"),
        ("GROUNDSTATION_ADMIN_TOKEN_FILE", "/does/not/exist", "GROUNDSTATION_ADMIN_TOKEN"),
    ];
    for (name, value, expected) in cases {
        let said = refusal_with(WRONG_SETTING, &fleet, name, value).await;
        assert!(said.contains(expected), "{name}={value}: {said}");
    }
}

/// A port of this machine without a listener.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port()
}

#[tokio::test]
async fn a_database_that_is_not_there_is_named_without_its_password() {
    let fleet = Fleet::new(CALM).await;
    let port = closed_port();
    let nobody = format!("127.0.0.1:{port}/fleet");
    let cases = [
        (UNREACHABLE, format!("postgres://me:hidden@{nobody}"), nobody),
        (FAILED, fleet.database_url.replace("/test_", "/absent_"), "does not exist".to_owned()),
        (
            FAILED,
            fleet.database_url.replace("//postgres:", "//postgres:hidden"),
            "password".to_owned(),
        ),
    ];
    for (status, url, expected) in cases {
        let said = refusal_with(status, &fleet, "DATABASE_URL", &url).await;
        assert!(said.contains(&expected) && !said.contains("hidden"), "{said}");
        let output = blocking(move || program::migrate(&url)).await;
        let migrate = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(status), "{migrate}");
        assert_eq!(migrate.lines().count(), 1, "{migrate}");
        assert!(migrate.contains(&expected) && !migrate.contains("hidden"), "{migrate}");
    }
}

#[tokio::test]
async fn a_database_without_schema_is_refused_with_what_to_do() {
    let fleet = Fleet::new(CALM).await;
    let empty = blocking(stores::share_without_schema).await.database_url;
    let said = refusal_with(FAILED, &fleet, "DATABASE_URL", &empty).await;
    assert!(said.contains("groundstation migrate"), "{said}");
}

#[tokio::test]
async fn a_pooler_that_drops_what_sessions_ask_for_is_refused_with_what_to_change() {
    let fleet = Fleet::new(CALM).await;
    let (pooler, url) = Proxy::before(&fleet.database_url).await;
    pooler.lose_settings();
    let said = refusal_with(FAILED, &fleet, "DATABASE_URL", &url).await;
    for word in
        ["pool_mode", "groundstation_service", "statement_timeout", "DATABASE_URL", "pooler"]
    {
        assert!(said.contains(word), "{word}: {said}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let fleet = Fleet::new(CALM).await;
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let said = refusal_with(FAILED, &fleet, "GROUNDSTATION_LISTEN", &address).await;
    assert!(said.contains(&address) && said.contains("in use"), "{said}");
}

#[tokio::test]
async fn a_pod_without_tokens_runs_says_so_and_answers_401() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").without("GROUNDSTATION_ADMIN_TOKEN");
    let pod = plan.without("GROUNDSTATION_READ_TOKEN").start().await;
    assert_eq!(pod.expect_log("GROUNDSTATION_ADMIN_TOKEN").await["level"], "WARN");
    assert_eq!(pod.get("/v1/satellites").await.status, 401);
    assert_eq!(pod.call("GET", "/v1/satellites", Some(""), None).await.status, 401);
    assert_eq!(pod.get("/livez").await.status, 200);
}
