//! A person signs in to the page with a token; the cookie opens what the token opens, for the page and for no other.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::json;
use sha2::Sha256;

use crate::harness::asked::{Asked, ask, written};
use crate::harness::raw::Raw;
use crate::harness::{CALM, Fleet, Pod, eventually, stores};

const SESSION: &str = "/console/session";
const JSON: (&str, &str) = ("Content-Type", "application/json");

async fn sign_in(pod: &Pod, token: &str) -> Asked {
    ask(pod, "POST", SESSION, &[JSON], &json!({"token": token}).to_string()).await
}

async fn signed_in(pod: &Pod, token: &str) -> String {
    let answer = sign_in(pod, token).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    answer.cookie()
}

async fn get(pod: &Pod, path: &str, cookie: &str) -> Asked {
    ask(pod, "GET", path, &[("Cookie", cookie)], "").await
}

/// Registers a satellite with these headers.
async fn create(pod: &Pod, headers: &[(&str, &str)]) -> Asked {
    let headers: Vec<_> = headers.iter().copied().chain([JSON]).collect();
    ask(pod, "POST", "/v1/satellites", &headers, r#"{"name":"edge","region":"eu"}"#).await
}

fn origin(pod: &Pod) -> String {
    format!("http://{}", pod.address)
}

#[tokio::test]
async fn a_token_signs_in_and_its_cookie_opens_every_pod_as_the_token_does() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = tokio::join!(fleet.pod("a"), fleet.pod("b"));
    for (token, role) in [(&fleet.admin_token, "admin"), (&fleet.read_token, "read")] {
        let answer = sign_in(&a, token).await;
        assert_eq!((answer.status, answer.body.len()), (204, 0), "{answer:?}");
        assert_eq!(answer.headers["cache-control"], "no-store");
        let set = answer.headers["set-cookie"].clone();
        assert!(set.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{set}");
        assert!(!set.contains(token.as_str()));
        let cookie = answer.cookie();
        for pod in [&a, &b] {
            let session = get(pod, SESSION, &cookie).await;
            assert_eq!((session.status, session.json()), (200, json!({"role": role})));
            assert_eq!(session.headers["cache-control"], "no-store");
            assert_eq!(get(pod, "/v1/fleet", &cookie).await.status, 200);
            assert_eq!(get(pod, "/v1/fleet?nonsense=1", &cookie).await.status, 400);
        }
        let mut live = Raw::connect(b.address).await;
        let headers = [("Cookie", cookie.as_str()), ("Accept", "text/event-stream")];
        live.send(written(&b, "GET", "/v1/transitions/stream", &headers, "")).await;
        let head = live.head().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    }
    assert_eq!(get(&a, SESSION, "").await.status, 401);
    assert_eq!(get(&a, "/v1/fleet", "groundstation_session_AAAAAAAA=").await.status, 401);
}

#[tokio::test]
async fn with_the_cookie_only_the_servers_own_page_may_write() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let cookie = signed_in(&pod, &fleet.admin_token).await;
    let (cookie, own) = (("Cookie", cookie.as_str()), origin(&pod));
    let own = ("Origin", own.as_str());
    let other_port = format!("http://127.0.0.1:{}", pod.address.port() ^ 1);
    let refused: [&[(&str, &str)]; 9] = [
        &[cookie],
        &[cookie, ("Origin", "null")],
        &[cookie, ("Origin", "http://evil.example")],
        &[cookie, ("Origin", &other_port)],
        &[cookie, own, ("Origin", "http://evil.example")],
        &[cookie, own, ("Sec-Fetch-Site", "cross-site")],
        &[cookie, own, ("Sec-Fetch-Site", "same-site")],
        &[cookie, ("Origin", "http://evil.example"), ("X-Forwarded-Host", "evil.example")],
        &[cookie, ("Referer", own.1)],
    ];
    for headers in refused {
        let answer = create(&pod, headers).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (403, "foreign-page"),
            "{headers:?}"
        );
        assert_eq!(answer.headers["content-type"], "application/problem+json");
    }
    assert_eq!(create(&pod, &[cookie, own, ("Sec-Fetch-Site", "same-origin")]).await.status, 201);
    // A page of another origin reads nothing either, where the browser says so.
    let foreign = [cookie, ("Sec-Fetch-Site", "same-site")];
    assert_eq!(ask(&pod, "GET", "/v1/satellites", &foreign, "").await.status, 403);

    // A token counts alone, whatever else is there: for programs nothing has changed.
    let bearer = format!("Bearer {}", fleet.admin_token);
    let bearer = ("Authorization", bearer.as_str());
    assert_eq!(create(&pod, &[bearer, ("Origin", "http://evil.example")]).await.status, 201);
    let wrong = [cookie, own, ("Authorization", "Bearer wrong")];
    assert_eq!(create(&pod, &wrong).await.status, 401);
    let reader = format!("Bearer {}", fleet.read_token);
    assert_eq!(create(&pod, &[cookie, own, ("Authorization", &reader)]).await.status, 403);
}

#[tokio::test]
async fn a_session_of_the_read_token_reads_and_changes_nothing() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let satellite = pod.register("edge", "eu").await;
    let cookie = signed_in(&pod, &fleet.read_token).await;
    let own = origin(&pod);
    let headers = [("Cookie", cookie.as_str()), ("Origin", own.as_str()), JSON];
    let path = format!("/v1/satellites/{}", satellite.id);
    let writes = [
        ("POST", "/v1/satellites".to_owned()),
        ("PATCH", path.clone()),
        ("DELETE", path.clone()),
        ("PUT", format!("{path}/assignments")),
        ("POST", format!("{path}/token")),
    ];
    for (method, path) in writes {
        let answer = ask(&pod, method, &path, &headers, "{}").await;
        assert_eq!((answer.status, answer.problem().as_str()), (403, "forbidden"), "{method}");
    }
    assert_eq!(get(&pod, &path, &cookie).await.status, 200);
    // Its own words do not make it an administrator's.
    let forged = cookie.replace(".read.", ".admin.");
    assert_ne!(forged, cookie);
    assert_eq!(get(&pod, SESSION, &forged).await.status, 401);
}

#[tokio::test]
async fn a_session_ends_with_the_token_that_opened_it() {
    let fleet = Fleet::new(CALM).await;
    let (old, new) = (fleet.admin_token.clone(), stores::random());
    let both = format!("{new},{old}");
    let before = fleet.pod("before").await;
    let during = fleet.plan("during").with("GROUNDSTATION_ADMIN_TOKEN", &both).start().await;
    let after = fleet.plan("after").with("GROUNDSTATION_ADMIN_TOKEN", &new);
    let after = Pod::start("after", &after.environment(), &new).await;
    let swapped = fleet.plan("swapped").with("GROUNDSTATION_ADMIN_TOKEN", &fleet.read_token);
    let swapped = swapped.with("GROUNDSTATION_READ_TOKEN", &old).environment();
    let swapped = Pod::start("swapped", &swapped, &fleet.read_token).await;

    let cookie = signed_in(&before, &old).await;
    assert_eq!(get(&during, "/v1/fleet", &cookie).await.status, 200);
    for pod in [&after, &swapped] {
        assert_eq!(get(pod, "/v1/fleet", &cookie).await.status, 401);
        assert_eq!(get(pod, SESSION, &cookie).await.status, 401);
    }
    let cookie = signed_in(&during, &new).await;
    assert_eq!(get(&after, "/v1/fleet", &cookie).await.status, 200);
    assert_eq!(get(&before, "/v1/fleet", &cookie).await.status, 401);
}

#[tokio::test]
async fn a_session_of_a_named_token_is_what_the_token_is_now_and_ends_with_it() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = tokio::join!(fleet.pod("a"), fleet.pod("b"));
    let (eu, us) = (a.register("edge", "eu").await, a.register("other", "us").await);
    let described = json!({"name": "ops", "role": "operator", "selector": {"region": "eu"}});
    let token = a.make_token(&described).await;
    let cookie = signed_in(&a, &token.secret).await;
    assert!(!cookie.contains("ops") && !cookie.contains(&token.secret[4..]), "{cookie}");
    let shown = json!({"role": "operator", "name": "ops", "isBounded": true});
    eventually("the other pod to know the token", async || {
        let session = get(&b, SESSION, &cookie).await;
        if session.status == 200 { Ok(()) } else { Err(session.status.to_string()) }
    })
    .await;
    for pod in [&a, &b] {
        assert_eq!(get(pod, SESSION, &cookie).await.json(), shown);
        assert_eq!(get(pod, "/v1/fleet", &cookie).await.json()["total"], 1);
        assert_eq!(get(pod, &format!("/v1/satellites/{}", us.id), &cookie).await.status, 404);
        assert_eq!(get(pod, "/v1/tokens", &cookie).await.status, 403);
        let own = origin(pod);
        let headers = [("Cookie", cookie.as_str()), ("Origin", own.as_str()), JSON];
        let path = format!("/v1/satellites/{}", eu.id);
        let renamed = ask(pod, "PATCH", &path, &headers, r#"{"name":"renamed"}"#).await;
        assert_eq!(renamed.status, 200, "{renamed:?}");
    }
    let who = "select distinct actor_type || ' ' || actor_id from registry_changes where action = 'updated'";
    let who: String = fleet.sql().await.query_one(who, &[]).await.expect("one").get(0);
    assert_eq!(who, "token ops");
    // Another role takes the session's place, and signing out takes its cookie away.
    let own = origin(&a);
    let body = json!({"token": fleet.admin_token}).to_string();
    let mut raw = Raw::connect(a.address).await;
    raw.send(written(&a, "POST", SESSION, &[JSON, ("Cookie", &cookie)], &body)).await;
    let head = raw.head().await.to_lowercase();
    assert_eq!(head.matches("set-cookie").count(), 2, "{head}");
    let headers = [("Cookie", cookie.as_str()), ("Origin", own.as_str())];
    let out = ask(&a, "DELETE", SESSION, &headers, "").await;
    assert!(out.headers["set-cookie"].contains("Max-Age=0"), "{out:?}");

    let mut live = Raw::connect(b.address).await;
    let headers = [("Cookie", cookie.as_str()), ("Accept", "text/event-stream")];
    live.send(written(&b, "GET", "/v1/transitions/stream", &headers, "")).await;
    assert!(live.head().await.starts_with("HTTP/1.1 200"));
    a.revoke(&token).await;
    let revoked = Instant::now();
    assert_eq!(get(&a, SESSION, &cookie).await.status, 401);
    eventually("the session to end on the other pod", async || {
        let session = get(&b, "/v1/fleet", &cookie).await;
        if session.status == 401 { Ok(()) } else { Err(session.status.to_string()) }
    })
    .await;
    live.ended().await;
    assert!(revoked.elapsed() < Duration::from_secs(2), "{:?}", revoked.elapsed());
}

/// Otherwise what the person does from then on would be done by another token, whose owner sees it.
#[tokio::test]
async fn another_page_puts_no_session_of_its_own_in_a_persons_place() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let body = json!({"token": fleet.read_token}).to_string();
    for foreign in [("Origin", "http://evil.example"), ("Origin", "null")] {
        let answer = ask(&pod, "POST", SESSION, &[JSON, foreign], &body).await;
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (403, "foreign-page"),
            "{foreign:?}"
        );
        assert!(!answer.headers.contains_key("set-cookie"), "{answer:?}");
    }
    // A form of another page cannot send JSON.
    let form = ("Content-Type", "text/plain");
    let answer = ask(&pod, "POST", SESSION, &[form], &body).await;
    assert!(answer.status >= 400 && !answer.headers.contains_key("set-cookie"), "{answer:?}");
    let own = origin(&pod);
    let answer = ask(&pod, "POST", SESSION, &[JSON, ("Origin", &own)], &body).await;
    assert_eq!(answer.status, 204, "{answer:?}");
}

/// HMAC-SHA-256.
fn mac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// Whoever reads a backup of the database has each token's id and digest, and knows this program.
#[tokio::test]
async fn who_has_read_the_table_of_tokens_signs_in_as_none_of_them() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = pod.make_token(&json!({"name": "ops", "role": "admin"})).await;
    let real = signed_in(&pod, &token.secret).await;
    assert_eq!(get(&pod, "/v1/tokens", &real).await.status, 200);
    let stored = "select id::text, token_digest from tokens";
    let stored = fleet.sql().await.query_one(stored, &[]).await.expect("the token");
    let (id, digest): (String, String) = (stored.get(0), stored.get(1));
    let digest = URL_SAFE_NO_PAD.decode(&digest["sha256:".len()..]).expect("base64url");
    let key = mac(&digest, "groundstation page session of a named token");
    let mark = URL_SAFE_NO_PAD.encode(&mac(&key, "name")[..6]);
    assert!(real.starts_with(&format!("groundstation_session_{mark}=v2.{id}.")), "{real}");
    let (pair, _) = real.rsplit_once('.').expect("a signature");
    let (name, content) = pair.split_once('=').expect("a pair");
    let forged = format!("{name}={content}.{}", URL_SAFE_NO_PAD.encode(mac(&key, content)));
    for path in [SESSION, "/v1/fleet", "/v1/tokens"] {
        assert_eq!(get(&pod, path, &forged).await.status, 401, "{path}");
    }
}

#[tokio::test]
async fn a_token_for_enrolment_signs_nobody_in() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = pod.make_token(&json!({"name": "shop", "role": "enrol"})).await;
    let answer = sign_in(&pod, &token.secret).await;
    assert_eq!((answer.status, answer.problem().as_str()), (403, "forbidden"));
    assert!(!answer.headers.contains_key("set-cookie"));
    assert_eq!(pod.metric("groundstation_wrong_tokens_total").await, 0.0);
}

#[tokio::test]
async fn wrong_tokens_are_counted_told_with_their_address_and_slowed_down_as_bearers_are() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let guess = async |from: &str, body: String| {
        let begun = Instant::now();
        let headers = [JSON, ("X-Forwarded-For", from)];
        (ask(&pod, "POST", SESSION, &headers, &body).await, begun.elapsed())
    };
    let mut slow = 0;
    for n in 0..14 {
        let what = if n % 2 == 0 { "token" } else { "code" };
        let body = json!({what: format!("wrong-{n}")}).to_string();
        let (answer, took) = guess("198.51.100.1", body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (401, "unauthorized"));
        assert!(!answer.headers.contains_key("set-cookie"));
        assert_eq!(answer.headers["cache-control"], "no-store");
        slow += u32::from(took >= Duration::from_secs(1));
    }
    assert!(slow >= 2, "{slow} of fourteen were slowed down");
    pod.expect_metric("groundstation_wrong_tokens_total", 14.0).await;
    let line = pod.expect_log("a token came that is not valid here").await;
    assert_eq!((&line["address"], &line["path"]), (&"198.51.100.1".into(), &SESSION.into()));
    assert!(!pod.log().contains("wrong-"));
    let right = json!({"token": fleet.admin_token}).to_string();
    let (answer, took) = guess("198.51.100.2", right).await;
    assert_eq!(answer.status, 204);
    assert!(took < Duration::from_secs(1), "another address waited {took:?}");
}

#[tokio::test]
async fn signing_out_takes_the_cookie_away_and_no_other_page_can_do_it() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let cookie = signed_in(&pod, &fleet.admin_token).await;
    let own = origin(&pod);
    let foreign = [("Cookie", cookie.as_str()), ("Origin", "http://evil.example")];
    assert_eq!(ask(&pod, "DELETE", SESSION, &foreign, "").await.status, 403);
    let headers = [("Cookie", cookie.as_str()), ("Origin", own.as_str())];
    let answer = ask(&pod, "DELETE", SESSION, &headers, "").await;
    assert_eq!(answer.status, 204);
    let (name, _) = cookie.split_once('=').expect("a pair");
    let cleared = format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    assert_eq!(answer.headers["set-cookie"], cleared);
    // Another page cannot sign a person in either, as somebody else.
    let body = json!({"token": fleet.read_token}).to_string();
    let headers = [JSON, ("Origin", "http://evil.example")];
    let answer = ask(&pod, "POST", SESSION, &headers, &body).await;
    assert_eq!((answer.status, answer.problem().as_str()), (403, "foreign-page"));
    assert!(!answer.headers.contains_key("set-cookie"));
}

#[tokio::test]
async fn two_services_on_one_host_keep_a_session_each_and_a_new_role_takes_the_old_ones_place() {
    let fleet = Fleet::new(CALM).await;
    let here = fleet.pod("here").await;
    let other_token = stores::random();
    let there = fleet.plan("there").with("GROUNDSTATION_ADMIN_TOKEN", &other_token);
    let there = there.with("GROUNDSTATION_READ_TOKEN", &stores::random());
    let there = Pod::start("there", &there.environment(), &other_token).await;
    // A browser replaces a cookie by one of its name, whatever the port.
    let mut jar = BTreeMap::new();
    let mut keep = |cookie: String| {
        let (name, value) = cookie.split_once('=').expect("a pair");
        jar.insert(name.to_owned(), value.to_owned());
        jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    };
    keep(signed_in(&here, &fleet.read_token).await);
    let all = keep(signed_in(&there, &other_token).await);
    assert_eq!(get(&here, SESSION, &all).await.json(), json!({"role": "read"}));
    assert_eq!(get(&there, SESSION, &all).await.json(), json!({"role": "admin"}));

    let body = json!({"token": fleet.admin_token}).to_string();
    let mut raw = Raw::connect(here.address).await;
    raw.send(written(&here, "POST", SESSION, &[JSON, ("Cookie", &all)], &body)).await;
    let head = raw.head().await.to_lowercase();
    let set: Vec<_> = head.lines().filter(|line| line.starts_with("set-cookie")).collect();
    assert_eq!(set.len(), 2, "{set:?}");
    assert!(set[0].contains("max-age=0") && set[1].contains("=v1.admin."), "{set:?}");
}

#[tokio::test]
async fn over_tls_the_cookie_is_for_tls_alone() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.0.0/8").start().await;
    let tls = ("X-Forwarded-Proto", "https");
    let body = json!({"token": fleet.admin_token}).to_string();
    let answer = ask(&pod, "POST", SESSION, &[JSON, tls], &body).await;
    let set = &answer.headers["set-cookie"];
    assert!(set.starts_with("__Host-groundstation_session_") && set.ends_with("; Secure"), "{set}");
    let cookie = answer.cookie();
    let over_tls = [("Cookie", cookie.as_str()), tls];
    assert_eq!(ask(&pod, "GET", "/v1/fleet", &over_tls, "").await.status, 200);
    let plain = signed_in(&pod, &fleet.admin_token).await;
    let over_tls = [("Cookie", plain.as_str()), tls];
    assert_eq!(ask(&pod, "GET", "/v1/fleet", &over_tls, "").await.status, 401);
    // A page that came without TLS is not this server's own.
    let (plain_page, page) =
        (format!("http://{}", pod.address), format!("https://{}", pod.address));
    for (origin, status) in [(&plain_page, 403), (&page, 201)] {
        let headers = [("Cookie", cookie.as_str()), tls, ("Origin", origin.as_str())];
        assert_eq!(create(&pod, &headers).await.status, status, "{origin}");
    }
}

#[tokio::test]
async fn what_is_no_sign_in_is_refused_and_serve_knows_no_code() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = &fleet.admin_token;
    let (long, both) = ("x".repeat(5_000), json!({"token": token, "code": token}).to_string());
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let cases: [((&str, &str), &str, u16); 9] = [
        (JSON, &json!({"token": long}).to_string(), 413),
        (form, &format!("token={token}"), 415),
        (("Content-Type", "text/plain"), &json!({"token": token}).to_string(), 415),
        (JSON, "{", 400),
        (JSON, "{}", 422),
        (JSON, &both, 422),
        (JSON, r#"{"token":7}"#, 422),
        (JSON, r#"{"code":""}"#, 401),
        (JSON, &json!({"code": token}).to_string(), 401),
    ];
    for (kind, body, status) in cases {
        let answer = ask(&pod, "POST", SESSION, &[kind], body).await;
        assert_eq!(answer.status, status, "{body:.80}: {answer:?}");
        assert!(!answer.headers.contains_key("set-cookie"), "{body:.80}");
    }
    let put = ask(&pod, "PUT", SESSION, &[JSON], "{}").await;
    assert_eq!(put.status, 405);
    let document = pod.get("/openapi.json").await.text;
    assert!(!document.contains("/console"), "these routes are the page's");
}

#[tokio::test]
async fn no_log_line_has_a_token_or_a_cookie() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("RUST_LOG", "trace").with("GROUNDSTATION_ACCESS_LOG", "on");
    let pod = plan.start().await;
    let cookie = signed_in(&pod, &fleet.admin_token).await;
    assert_eq!(get(&pod, "/v1/fleet", &cookie).await.status, 200);
    let line = pod.expect_log("somebody signed in at the page").await;
    assert_eq!((&line["address"], &line["role"]), (&"127.0.0.1".into(), &"admin".into()));
    pod.expect_log("request").await;
    let (log, signature) = (pod.log(), cookie.rsplit('.').next().expect("a signature"));
    assert!(log.contains("TRACE"), "the finest log was wanted");
    for secret in [fleet.admin_token.as_str(), signature] {
        assert!(!log.contains(secret), "a secret slipped out");
    }
}
