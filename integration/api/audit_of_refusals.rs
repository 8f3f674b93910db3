//! Who signs in at the page and who is refused is in the audit, within bounds whatever comes from outside, and never a token.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::asked::{Asked, ask, ask_from, written};
use crate::harness::raw::Raw;
use crate::harness::{CALM, Fleet, Pod, eventually};

const SESSION: &str = "/console/session";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// All entries of the audit, page by page.
async fn entries(pod: &Pod) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), 0);
    loop {
        let page = pod.get(&format!("/v1/audit?limit=1000&after={after}")).await.json();
        let entries = page["entries"].as_array().expect("entries");
        if entries.is_empty() {
            return all;
        }
        all.extend(entries.iter().cloned());
        after = page["nextAfter"].as_i64().expect("a position");
    }
}

/// Waits until there are so many with this action.
async fn expect(pod: &Pod, action: &str, count: usize) -> Vec<Value> {
    eventually(&format!("{count} entries of {action}"), async || {
        let mut all = entries(pod).await;
        all.retain(|entry| entry["action"] == action);
        if all.len() == count { Ok(all) } else { Err(format!("{all:?}")) }
    })
    .await
}

/// How often what an entry tells has happened.
fn times(entry: &Value) -> u64 {
    entry["after"]["times"].as_u64().unwrap_or(1)
}

async fn sign_in(pod: &Pod, token: &str) -> Asked {
    ask(pod, "POST", SESSION, &[JSON], &json!({"token": token}).to_string()).await
}

#[tokio::test]
async fn who_signs_in_with_a_token_and_who_is_refused_there_is_in_the_audit() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let deploy = pod.make_token(&json!({"name": "deploy", "role": "operator"})).await;
    let agents = pod.make_token(&json!({"name": "agents", "role": "enrol"})).await;
    assert_eq!(sign_in(&pod, &deploy.secret).await.status, 204);
    assert_eq!(sign_in(&pod, &fleet.admin_token).await.status, 204);
    assert_eq!(sign_in(&pod, &agents.secret).await.status, 403);
    assert_eq!(sign_in(&pod, "wrong").await.status, 401);

    let signed_in = expect(&pod, "page.signed_in", 2).await;
    for (entry, (name, role)) in signed_in.iter().zip([("deploy", "operator"), ("admin", "admin")])
    {
        assert_eq!(entry["actor"], json!({"type": "token", "id": name}));
        assert_eq!(entry["after"], json!({"role": role, "by": "token"}));
        assert_eq!(entry["target"], json!({"kind": "route", "id": "POST /console/session"}));
        assert_eq!(entry["address"], "127.0.0.1");
    }
    let refused = expect(&pod, "page.sign_in_refused", 2).await;
    let of = |kind: &str| refused.iter().find(|entry| entry["actor"]["type"] == kind).expect(kind);
    assert_eq!(of("token")["actor"]["id"], "agents");
    assert_eq!(of("token")["after"]["status"], 403);
    assert_eq!(of("unknown")["after"], json!({"status": 401}));
}

#[tokio::test]
async fn somebody_whom_a_proxy_names_has_signed_in_once_and_in_no_group_is_refused() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet
        .plan("a")
        .with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.0.2")
        .with("GROUNDSTATION_OIDC_ADMIN_GROUPS", "root")
        .with("GROUNDSTATION_PROXY_USER_HEADER", "X-Forwarded-User")
        .start()
        .await;
    let proxy = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let ada = [("X-Forwarded-User", "ada"), ("X-Forwarded-Groups", "root")];
    for _ in 0..3 {
        assert_eq!(ask_from(proxy, &pod, SESSION, &ada).await.status, 200);
        expect(&pod, "page.signed_in", 1).await;
    }
    let eve = [("X-Forwarded-User", "eve"), ("X-Forwarded-Groups", "none")];
    assert_eq!(ask_from(proxy, &pod, "/v1/fleet", &eve).await.status, 403);
    assert_eq!(ask_from(proxy, &pod, SESSION, &eve).await.status, 403);
    let at_the_page = &expect(&pod, "page.sign_in_refused", 1).await[0];
    assert_eq!(at_the_page["target"]["id"], "GET /console/session");
    let signed_in = &expect(&pod, "page.signed_in", 1).await[0];
    assert_eq!(signed_in["actor"], json!({"type": "person", "id": "ada"}));
    assert_eq!(signed_in["after"], json!({"role": "admin", "by": "proxy"}));
    let refused = &expect(&pod, "api.refused", 1).await[0];
    assert_eq!(refused["actor"]["type"], "unknown");
    assert!(refused["after"]["why"].as_str().is_some_and(|why| why.contains("eve")), "{refused}");
}

#[tokio::test]
async fn what_a_token_may_not_do_is_in_the_audit_with_its_name_and_the_reason() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let board = pod.make_token(&json!({"name": "board", "role": "read"})).await;
    let new = json!({"name": "edge", "region": "eu"}).to_string();
    let made = pod.call("POST", "/v1/satellites", Some(&board.secret), Some(new)).await;
    assert_eq!(made.status, 403);
    assert_eq!(pod.status_with(&fleet.read_token, "/v1/tokens").await, 403);
    assert_eq!(pod.status_with("wrong", "/v1/tokens").await, 401);
    // Nobody tries anything.
    assert_eq!(pod.call("GET", "/v1/tokens", None, None).await.status, 401);
    // A page of another origin, with the cookie of the person.
    let cookie = sign_in(&pod, &fleet.admin_token).await.cookie();
    let foreign = [("Cookie", cookie.as_str()), ("Origin", "http://evil.example"), JSON];
    assert_eq!(ask(&pod, "POST", "/v1/satellites", &foreign, "{}").await.status, 403);

    let refused = expect(&pod, "api.refused", 4).await;
    let of = |id: &str| {
        let entry = refused.iter().find(|entry| entry["actor"]["id"] == id);
        entry.unwrap_or_else(|| panic!("{id}: {refused:?}"))
    };
    assert_eq!(of("board")["target"]["id"], "POST /v1/satellites");
    let why = of("board")["after"]["why"].as_str().expect("a reason");
    assert!(why.contains("\"board\" may only GET"), "{why}");
    assert_eq!(of("read")["target"]["id"], "GET /v1/tokens");
    assert_eq!(of("unknown")["after"], json!({"status": 401}));
    assert_eq!(of("admin")["after"]["status"], 403);
}

#[tokio::test]
async fn no_entry_has_a_token_a_digest_or_a_cookie() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let wrong = "gst_0123456789abcdefghijklmnopqrstuvwxyz0123456";
    let deploy = pod.make_token(&json!({"name": "deploy", "role": "admin"})).await;
    let edge = pod.register("edge", "eu").await;
    let rotated = pod.post(&format!("/v1/satellites/{}/token", edge.id), &json!({})).await.json();
    pod.assign(
        edge.id,
        &json!([{"configId": "c", "systemId": "s", "strategyId": "http",
        "config": {"password": "hidden-in-the-config"}, "intervalSeconds": 60}]),
    )
    .await;
    let cookie = sign_in(&pod, &deploy.secret).await.cookie();
    assert_eq!(sign_in(&pod, wrong).await.status, 401);
    assert_eq!(pod.status_with(wrong, "/v1/tokens").await, 401);
    assert_eq!(pod.status_with(&fleet.read_token, &format!("/v1/audit?target={wrong}")).await, 403);
    pod.revoke(&deploy).await;
    expect(&pod, "api.refused", 2).await;
    expect(&pod, "page.sign_in_refused", 1).await;
    expect(&pod, "page.signed_in", 1).await;

    const ALL: &str = "select coalesce(string_agg(e::text, ' '), '') from audit_entries e";
    let sql = fleet.sql().await;
    let all: String = sql.query_one(ALL, &[]).await.expect("the audit").get(0);
    let rotated = rotated["token"].as_str().expect("a token");
    let cookie = cookie.split('=').nth(1).expect("a value");
    let secrets = [wrong, &deploy.secret, &edge.token, rotated, cookie, "hidden-in-the-config"];
    let own = [fleet.admin_token.as_str(), &fleet.read_token, "gst_", "csat_", "sha256:"];
    for secret in secrets.into_iter().chain(own) {
        assert!(!all.contains(secret), "{secret}: {all}");
    }
    const DIGESTS: &str = "
        select string_agg(digest, ' ') from (
            select token_hash from satellites union all select token_digest from tokens) all_of_them (digest)";
    let digests: String = sql.query_one(DIGESTS, &[]).await.expect("digests").get(0);
    for digest in digests.split(' ') {
        assert!(!all.contains(digest.rsplit(':').next().expect("a digest")), "{digest}");
    }
}

/// Twenty wrong tokens from one address, one after the other.
async fn knock(address: std::net::SocketAddr, from: IpAddr, request: String) -> u64 {
    let mut answered = 0;
    for _ in 0..20 {
        let mut raw = Raw::connect_from(address, from).await.expect("a connection");
        raw.send(&request).await;
        let heard = raw.ended().await;
        assert!(heard.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&heard));
        answered += 1;
    }
    answered
}

#[tokio::test]
async fn ten_thousand_wrong_tokens_make_few_entries_that_count_all_and_hold_nobody_up() {
    const LEFT_OUT: &str = "groundstation_audit_left_out_total";
    let fleet = Fleet::new(CALM).await;
    let mut pod = fleet.pod("a").await;
    let request = written(&pod, "GET", "/v1/tokens", &[("Authorization", "Bearer wrong")], "");
    let begun = Instant::now();
    let knocking: Vec<_> = (0..500u16)
        .map(|n| {
            let from = IpAddr::V4(Ipv4Addr::new(127, 1, (n / 250) as u8, (n % 250) as u8 + 1));
            tokio::spawn(knock(pod.address, from, request.clone()))
        })
        .collect();
    // Whoever is known gets an answer, and is in the audit, meanwhile.
    let mut slowest = Duration::ZERO;
    let mut asked = 0;
    while !knocking.iter().all(|knocking| knocking.is_finished()) {
        let asks = Instant::now();
        assert_eq!(pod.get("/v1/fleet").await.status, 200);
        slowest = slowest.max(asks.elapsed());
        asked += 1;
        if asked == 20 {
            assert_eq!(pod.status_with(&fleet.read_token, "/v1/audit").await, 403);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed();
    let mut knocks = 0;
    for knocking in knocking {
        knocks += knocking.await.expect("answers");
    }
    assert_eq!(knocks, 10_000);
    eprintln!("10,000 in {took:?}; the slowest of {asked} other requests took {slowest:?}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let known = |entries: &[Value]| entries.iter().any(|entry| entry["actor"]["id"] == "read");
    assert!(known(&entries(&pod).await), "a stranger's flood hides nobody who is known");

    // A pod that drains writes what waits, as far as the rate lets it, and tells the rest as a number.
    let left_out = pod.metric(LEFT_OUT).await;
    pod.terminate();
    assert!(pod.exit().await.success());
    let again = fleet.pod("b").await;
    let all = entries(&again).await;
    let minutes = took.as_secs() / 60 + 2;
    assert!((all.len() as u64) < 60 + 10 * minutes + 5, "{} entries", all.len());
    assert!(left_out > 0.0, "more came from different addresses than may wait");
    let told: u64 = all.iter().filter_map(|entry| entry["after"]["leftOut"].as_u64()).sum();
    let strangers = all.iter().filter(|entry| entry["actor"]["type"] == "unknown");
    let counted: u64 = strangers.map(times).sum();
    eprintln!("{} entries: {counted} with their address, {told} left out", all.len());
    assert_eq!(counted + told, 10_000, "each is in the audit, or in a number");
}
