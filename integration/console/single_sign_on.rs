//! People sign in at an identity provider. The tests are the browser: they go where it would be led, with its cookies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::asked::{Asked, ask, written};
use crate::harness::identity_provider::Lie;
use crate::harness::raw::Raw;
use crate::harness::{CALM, Fleet, IdentityProvider, Pod, eventually};

const SESSION: &str = "/console/session";
const BEGIN: &str = "/console/session/oidc";
const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A browser on its way: the cookie of its attempt, and where it was led.
struct Attempt {
    cookie: String,
    leads_to: String,
}

/// A browser leaves the page for the provider.
async fn leave(pod: &Pod, begin: &str) -> Attempt {
    let answer = get(pod, begin, "").await;
    assert_eq!(answer.status, 303, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    Attempt { cookie: answer.cookie(), leads_to: answer.headers["location"].clone() }
}

/// It was at the provider, and is led back.
async fn visit(provider: &IdentityProvider, attempt: Attempt) -> Attempt {
    let leads_to = provider.visit(&attempt.leads_to).await;
    Attempt { leads_to, ..attempt }
}

/// It comes back to this pod.
async fn come_back(pod: &Pod, attempt: &Attempt) -> Asked {
    let way = attempt.leads_to.strip_prefix("http://127.0.0.1:1").expect("the way back");
    // Another site's page led there, so that is what a browser says.
    let headers = [("Cookie", attempt.cookie.as_str()), ("Sec-Fetch-Site", "cross-site")];
    ask(pod, "GET", way, &headers, "").await
}

/// The whole of it.
async fn sign_in(provider: &IdentityProvider, pod: &Pod) -> Asked {
    come_back(pod, &visit(provider, leave(pod, BEGIN).await).await).await
}

/// The cookie of the session that was begun.
fn session_of(answer: &Asked) -> String {
    let is_it = |set: &&String| set.contains("session_") && !set.contains("=;");
    let set = answer.cookies.iter().find(is_it).unwrap_or_else(|| panic!("no session: {answer:?}"));
    set.split(';').next().expect("a pair").to_owned()
}

async fn signed_in(provider: &IdentityProvider, pod: &Pod) -> String {
    session_of(&sign_in(provider, pod).await)
}

/// Nobody was signed in, and the page is told this word.
fn expect_refused(answer: &Asked, word: &str, case: &str) {
    assert_eq!(answer.status, 303, "{case}: {answer:?}");
    let leads_to = format!("/console/sign-in?refused={word}");
    assert_eq!(answer.headers["location"], leads_to, "{case}");
    let is_session = |set: &String| set.contains("session_");
    assert!(!answer.cookies.iter().any(is_session), "{case}: {:?}", answer.cookies);
}

async fn get(pod: &Pod, path: &str, cookie: &str) -> Asked {
    ask(pod, "GET", path, &[("Cookie", cookie)], "").await
}

async fn expect_over(pod: &Pod, cookie: &str) {
    eventually(&format!("the session to be over on {}", pod.name), async || {
        let answer = get(pod, "/v1/fleet", cookie).await;
        if answer.status == 401 { Ok(()) } else { Err(answer.status.to_string()) }
    })
    .await;
}

async fn follow(pod: &Pod, cookie: &str) -> Raw {
    let mut live = Raw::connect(pod.address).await;
    let headers = [("Cookie", cookie), ("Accept", "text/event-stream")];
    live.send(written(pod, "GET", "/v1/transitions/stream", &headers, "")).await;
    let head = live.head().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    live
}

#[tokio::test]
async fn whoever_signs_in_has_the_role_and_the_reach_of_its_groups_on_every_pod() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let plan = |name| provider.known_to(fleet.plan(name));
    let (a, b) = tokio::join!(plan("a").start(), plan("b").start());
    a.register("edge", "eu").await;
    a.register("other", "us").await;
    let cases = [
        ("ada", vec!["all", "root"], json!({"role": "admin"}), 2, 200),
        ("bob", vec!["x", "ops"], json!({"role": "operator"}), 2, 403),
        ("eve", vec!["ops-eu"], json!({"role": "operator", "isBounded": true}), 1, 403),
        ("zoë", vec!["all"], json!({"role": "read"}), 2, 403),
    ];
    for (name, groups, mut shown, reached, tokens) in cases {
        provider.has("7", name, &groups);
        (shown["name"], shown["by"]) = (json!(name), json!("provider"));
        // The browser comes back to another pod than it left.
        let attempt =
            visit(&provider, leave(&a, "/console/session/oidc?to=/console/log?x=1").await);
        let answer = come_back(&b, &attempt.await).await;
        assert_eq!((answer.status, answer.headers["location"].as_str()), (303, "/console/log?x=1"));
        let session = answer.cookies.iter().find(|set| set.contains("session_")).expect("one");
        assert!(
            session.ends_with("; Path=/; Max-Age=28800; HttpOnly; SameSite=Strict"),
            "{session}"
        );
        let gone = "groundstation_sign_on=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax";
        assert!(answer.cookies.iter().any(|set| set == gone), "{answer:?}");
        let cookie = session_of(&answer);
        for pod in [&a, &b] {
            assert_eq!(get(pod, SESSION, &cookie).await.json(), shown, "{name}");
            assert_eq!(get(pod, "/v1/fleet", &cookie).await.json()["total"], reached, "{name}");
            assert_eq!(get(pod, "/v1/tokens", &cookie).await.status, tokens, "{name}");
        }
        assert_eq!(get(&a, SESSION, &format!("{cookie}A")).await.status, 401);
    }
}

#[tokio::test]
async fn the_records_name_the_person_who_changed_something() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let pod = provider.known_to(fleet.plan("a")).start().await;
    let satellite = pod.register("edge", "eu").await;
    provider.has("7", "ada@example.org", &["ops"]);
    let cookie = signed_in(&provider, &pod).await;
    let (own, path) =
        (format!("http://{}", pod.address), format!("/v1/satellites/{}", satellite.id));
    let headers = [("Cookie", cookie.as_str()), JSON, ("Origin", "http://evil.example")];
    let renamed = ask(&pod, "PATCH", &path, &headers, r#"{"name":"renamed"}"#).await;
    assert_eq!((renamed.status, renamed.problem().as_str()), (403, "foreign-page"));
    let headers = [("Cookie", cookie.as_str()), JSON, ("Origin", own.as_str())];
    let renamed = ask(&pod, "PATCH", &path, &headers, r#"{"name":"renamed"}"#).await;
    assert_eq!(renamed.status, 200, "{renamed:?}");
    let removed = ask(&pod, "DELETE", &path, &headers, "").await;
    assert_eq!(removed.status, 204, "{removed:?}");
    let who =
        "select actor_type || ' ' || actor_id from registry_changes order by position desc limit 1";
    let who: String = fleet.sql().await.query_one(who, &[]).await.expect("one").get(0);
    assert_eq!(who, "person ada@example.org");
    let transitions = pod.get("/v1/transitions?limit=10").await.json();
    let actor = json!({"type": "person", "id": "ada@example.org"});
    assert_eq!(transitions["transitions"][0]["actor"], actor, "{transitions}");
}

#[tokio::test]
async fn an_answer_that_is_not_the_providers_to_this_sign_on_signs_nobody_in() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let pod = provider.known_to(fleet.plan("a")).start().await;
    provider.has("7", "ada", &["root"]);
    let claims = |claims: Value| Lie { claims, ..Lie::default() };
    let header = |header: Value| Lie { header, ..Lie::default() };
    let answer = |answer: Value| Lie { answer, ..Lie::default() };
    let long_ago = json!({"iat": 1_700_000_000, "exp": 1_700_000_300});
    let cases = [
        ("another issuer", "provider-wrong", claims(json!({"iss": "http://127.0.0.1:1"}))),
        ("another audience", "provider-wrong", claims(json!({"aud": "another client"}))),
        ("another party", "provider-wrong", claims(json!({"azp": "another client"}))),
        ("another nonce", "provider-wrong", claims(json!({"nonce": "of another sign-on"}))),
        ("no nonce", "provider-wrong", claims(json!({"nonce": null}))),
        ("a token that is over", "provider-wrong", claims(long_ago)),
        ("nobody's name", "provider-wrong", claims(json!({"sub": null}))),
        ("a key of somebody else", "provider-wrong", Lie { is_forged: true, ..Lie::default() }),
        ("no signature", "provider-wrong", Lie { is_unsigned: true, ..Lie::default() }),
        (
            "no algorithm",
            "provider-wrong",
            Lie { is_unsigned: true, ..header(json!({"alg": "none"})) },
        ),
        ("another algorithm", "provider-wrong", header(json!({"alg": "HS256"}))),
        ("a key that nobody shows", "provider-wrong", header(json!({"kid": "x"}))),
        ("another state", "not-begun-here", answer(json!({"state": "of another sign-on"}))),
        ("no state", "not-begun-here", answer(json!({"state": null}))),
        ("the answer of another", "provider-wrong", answer(json!({"iss": "http://127.0.0.1:1"}))),
        ("nobody's answer", "provider-wrong", answer(json!({"iss": null}))),
        ("no code", "provider-wrong", answer(json!({"code": null}))),
        ("a made-up code", "provider-wrong", answer(json!({"code": "made-up"}))),
        ("a refusal", "declined", answer(json!({"error": "access_denied", "code": null}))),
    ];
    for (case, word, lie) in cases {
        provider.lies(lie);
        let answer = sign_in(&provider, &pod).await;
        expect_refused(&answer, word, case);
        let is_begun = word != "not-begun-here";
        assert_eq!(answer.cookies.len(), usize::from(is_begun), "{case}: {:?}", answer.cookies);
    }
    provider.lies(Lie::default());
    signed_in(&provider, &pod).await;
    for (outcome, times) in
        [("provider-wrong", 16.0), ("not-begun-here", 2.0), ("declined", 1.0), ("signed-in", 1.0)]
    {
        let counted = format!("groundstation_sign_ons_total{{outcome=\"{outcome}\"}}");
        assert_eq!(pod.metric(&counted).await, times, "{outcome}");
    }
}

#[tokio::test]
async fn a_code_counts_once_and_in_the_browser_that_asked_for_it() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let pod = provider.known_to(fleet.plan("a")).start().await;
    provider.has("7", "ada", &["root"]);
    let mut attempts = Vec::new();
    for _ in 0..3 {
        attempts.push(visit(&provider, leave(&pod, BEGIN).await).await);
    }
    let [first, second, third] = attempts.try_into().unwrap_or_else(|_| panic!("three"));
    let without = Attempt { cookie: String::new(), leads_to: first.leads_to.clone() };
    expect_refused(&come_back(&pod, &without).await, "not-begun-here", "no cookie");
    let swapped = Attempt { cookie: second.cookie.clone(), leads_to: first.leads_to.clone() };
    expect_refused(&come_back(&pod, &swapped).await, "not-begun-here", "another browser's cookie");

    session_of(&come_back(&pod, &first).await);
    expect_refused(&come_back(&pod, &first).await, "provider-wrong", "the code again");

    // Somebody puts its own code into another's answer: the verifier does not fit.
    let part = |attempt: &Attempt, name: &str| {
        let (_, query) = attempt.leads_to.split_once('?').expect("a query");
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find(|(found, _)| found == name).expect("it is there").1.into_owned()
    };
    let leads_to = second.leads_to.replace(&part(&second, "code"), &part(&third, "code"));
    let injected = Attempt { leads_to, cookie: second.cookie };
    expect_refused(&come_back(&pod, &injected).await, "provider-wrong", "another's code");
    session_of(&come_back(&pod, &third).await);
}

#[tokio::test]
async fn the_page_of_another_site_cannot_begin_a_sign_on() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let pod = provider.known_to(fleet.plan("a")).start().await;
    for site in ["cross-site", "same-site"] {
        let answer = ask(&pod, "GET", BEGIN, &[("Sec-Fetch-Site", site)], "").await;
        expect_refused(&answer, "foreign-page", site);
        assert!(answer.cookies.is_empty(), "{answer:?}");
    }
    assert_eq!(provider.was_asked_for("description"), 0);
}

#[tokio::test]
async fn somebody_in_no_group_that_is_named_is_told_so_and_does_not_get_in() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let pod = provider.known_to(fleet.plan("a")).start().await;
    for (case, groups) in [("no group", vec![]), ("other groups", vec!["rooted", "ROOT", ""])] {
        provider.has("7", "mallory", &groups);
        expect_refused(&sign_in(&provider, &pod).await, "no-group", case);
    }
    let told = pod.expect_log("a single sign-on was refused").await;
    assert_eq!((&told["word"], &told["address"]), (&json!("no-group"), &json!("127.0.0.1")));
    assert!(told["why"].as_str().is_some_and(|why| why.contains("mallory")), "{told}");
}

#[tokio::test]
async fn who_has_signed_in_by_the_provider_and_who_was_refused_is_in_the_audit() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let pod = provider.known_to(fleet.plan("a")).start().await;
    provider.has("7", "ada", &["root"]);
    signed_in(&provider, &pod).await;
    provider.has("8", "mallory", &["none"]);
    expect_refused(&sign_in(&provider, &pod).await, "no-group", "no group");
    let stranger = get(&pod, "/console/session/oidc/callback?state=x&code=y", "").await;
    expect_refused(&stranger, "not-begun-here", "a stranger");
    let entries = eventually("three entries", async || {
        let page = pod.get("/v1/audit").await.json();
        let entries = page["entries"].as_array().expect("entries").clone();
        if entries.len() == 3 { Ok(entries) } else { Err(page.to_string()) }
    })
    .await;
    let of = |id: &str| entries.iter().find(|entry| entry["actor"]["id"] == id).expect(id);
    let person = |id: &str| json!({"type": "person", "id": id});
    assert_eq!(
        (&of("ada")["actor"], &of("mallory")["actor"]),
        (&person("ada"), &person("mallory"))
    );
    assert_eq!(of("ada")["action"], "page.signed_in");
    assert_eq!(of("ada")["after"], json!({"role": "admin", "by": "provider", "subject": "7"}));
    assert_eq!(of("mallory")["action"], "page.sign_in_refused");
    assert_eq!(of("mallory")["after"], json!({"by": "provider", "why": "no-group"}));
    assert_eq!(of("unknown")["after"], json!({"by": "provider", "why": "not-begun-here"}));
    for entry in &entries {
        assert_eq!(entry["address"], "127.0.0.1");
    }
}

#[tokio::test]
async fn groups_that_only_userinfo_tells_count_if_it_speaks_of_the_same_person() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let pod = provider.known_to(fleet.plan("a")).start().await;
    provider.has("7", "ada", &["ops"]);
    signed_in(&provider, &pod).await;
    assert_eq!(provider.was_asked_for("userinfo"), 0);
    provider.tells_groups_to_who_asks();
    let cookie = signed_in(&provider, &pod).await;
    assert_eq!(get(&pod, SESSION, &cookie).await.json()["role"], "operator");
    assert_eq!(provider.was_asked_for("userinfo"), 1);
    provider.mistakes_somebody_for("8");
    expect_refused(&sign_in(&provider, &pod).await, "provider-wrong", "somebody else");
}

#[tokio::test]
async fn a_browser_has_one_session_a_persons_or_a_tokens() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let pod = provider.known_to(fleet.plan("a")).start().await;
    provider.has("7", "ada", &["all"]);
    let body = json!({"token": fleet.admin_token}).to_string();
    let of_token = ask(&pod, "POST", SESSION, &[JSON], &body).await.cookie();
    let begun = visit(&provider, leave(&pod, BEGIN).await).await;
    let both = format!("{of_token}; {}", begun.cookie);
    let answer = come_back(&pod, &Attempt { cookie: both, ..begun }).await;
    let of_person = session_of(&answer);
    let is_gone = |answer: &Asked, cookie: &str| {
        let name = format!("{}=;", cookie.split('=').next().expect("a name"));
        answer.cookies.iter().any(|set| set.starts_with(&name) && set.contains("Max-Age=0"))
    };
    assert!(is_gone(&answer, &of_token), "{answer:?}");
    let headers = [JSON, ("Cookie", of_person.as_str())];
    let answer = ask(&pod, "POST", SESSION, &headers, &body).await;
    assert!(is_gone(&answer, &of_person), "{answer:?}");
    session_of(&answer);
}

#[tokio::test]
async fn signing_out_ends_this_session_on_every_pod_and_no_other() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let plan = |name| provider.known_to(fleet.plan(name));
    let (a, b) = tokio::join!(plan("a").start(), plan("b").start());
    provider.has("7", "ada", &["all"]);
    let (cookie, other) = (signed_in(&provider, &a).await, signed_in(&provider, &a).await);
    let mut live = follow(&b, &cookie).await;
    let own = format!("http://{}", a.address);
    let foreign = [("Cookie", cookie.as_str()), ("Origin", "http://evil.example")];
    assert_eq!(ask(&a, "DELETE", SESSION, &foreign, "").await.status, 403);
    assert_eq!(get(&b, SESSION, &cookie).await.status, 200);

    let headers = [("Cookie", cookie.as_str()), ("Origin", own.as_str())];
    let out = ask(&a, "DELETE", SESSION, &headers, "").await;
    assert_eq!(out.status, 204, "{out:?}");
    assert!(out.cookies.iter().any(|set| set.contains("Max-Age=0")), "{out:?}");
    let begun = Instant::now();
    // Whoever kept a copy of the cookie has nothing of it.
    assert_eq!(get(&a, "/v1/fleet", &cookie).await.status, 401);
    expect_over(&b, &cookie).await;
    live.ended().await;
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for pod in [&a, &b] {
        assert_eq!(get(pod, SESSION, &other).await.status, 200);
    }
    // A pod that starts later knows it too.
    let c = plan("c").start().await;
    assert_eq!(get(&c, SESSION, &cookie).await.status, 401);
    assert_eq!(get(&c, SESSION, &other).await.status, 200);
    let told =
        "select actor_type || ' ' || actor_id || ' ' || (token ->> 'session') from token_changes";
    let told: String = fleet.sql().await.query_one(told, &[]).await.expect("one").get(0);
    assert_eq!(told, "person ada true");
    assert_eq!(a.get("/v1/tokens").await.json()["tokens"], json!([]));
}

#[tokio::test]
async fn a_session_lasts_as_long_as_the_settings_say() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let plan = |name| {
        provider.known_to(fleet.plan(name)).with("GROUNDSTATION_OIDC_SESSION_LIFETIME", "3s")
    };
    let (a, b) = tokio::join!(plan("a").start(), plan("b").start());
    provider.has("7", "ada", &["all"]);
    let begun = Instant::now();
    let answer = sign_in(&provider, &a).await;
    let cookie = session_of(&answer);
    assert!(answer.cookies.iter().any(|set| set.contains("; Max-Age=3; ")), "{answer:?}");
    let mut live = follow(&b, &cookie).await;
    expect_over(&a, &cookie).await;
    let lasted = begun.elapsed();
    assert!(lasted >= Duration::from_millis(1_900), "it lasted {lasted:?}");
    expect_over(&b, &cookie).await;
    live.ended().await;
}

#[tokio::test]
async fn a_session_ends_where_its_group_no_longer_lets_people_in_or_the_key_is_another() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let plan = |name| provider.known_to(fleet.plan(name));
    let a = plan("a").start().await;
    provider.has("7", "ada", &["ops"]);
    let cookie = signed_in(&provider, &a).await;
    let operators = "GROUNDSTATION_OIDC_OPERATOR_GROUPS";
    let fewer = plan("b").with(operators, "ops-eu").start().await;
    assert_eq!(get(&fewer, SESSION, &cookie).await.status, 401);
    let readers = plan("c").with(operators, "ops-eu");
    let readers = readers.with("GROUNDSTATION_OIDC_READ_GROUPS", "ops").start().await;
    assert_eq!(get(&readers, SESSION, &cookie).await.json()["role"], "read");
    let key = "GROUNDSTATION_OIDC_SESSION_KEY";
    let other = plan("d").with(key, &"0123456789abcdef".repeat(4)).start().await;
    assert_eq!(get(&other, SESSION, &cookie).await.status, 401);
}

#[tokio::test]
async fn while_the_provider_is_away_sign_on_says_so_and_everything_else_goes_on() {
    let (fleet, mut provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let a = provider.known_to(fleet.plan("a")).start().await;
    provider.has("7", "ada", &["all"]);
    let cookie = signed_in(&provider, &a).await;
    let attempt = visit(&provider, leave(&a, BEGIN).await).await;
    provider.goes_away();
    // The pod knew it already, and needs it for the exchange.
    expect_refused(&come_back(&a, &attempt).await, "provider-away", "the exchange");
    // A pod that starts now does not know it.
    let b = provider.known_to(fleet.plan("b")).start().await;
    expect_refused(&get(&b, BEGIN, "").await, "provider-away", "the beginning");
    for pod in [&a, &b] {
        assert_eq!(get(pod, SESSION, &cookie).await.json()["name"], "ada");
        assert_eq!(get(pod, "/v1/fleet", &cookie).await.status, 200);
        assert_eq!(get(pod, "/readyz", "").await.status, 200);
        assert_eq!(
            get(pod, "/console/session/ways", "").await.json(),
            json!({"oidc": "Example ID"})
        );
        let body = json!({"token": fleet.read_token}).to_string();
        assert_eq!(ask(pod, "POST", SESSION, &[JSON], &body).await.status, 204);
    }
    let told = b.expect_log("a single sign-on was refused").await;
    assert!(told["why"].as_str().is_some_and(|why| why.contains(&provider.issuer)), "{told}");

    provider.comes_back().await;
    eventually("the provider to be found again", async || {
        let answer = get(&b, BEGIN, "").await;
        let to = answer.headers["location"].clone();
        if to.starts_with(&provider.issuer) { Ok(()) } else { Err(to) }
    })
    .await;
    signed_in(&provider, &b).await;
}

#[tokio::test]
async fn new_keys_of_the_provider_are_found_and_unknown_ones_do_not_make_pods_ask_without_end() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let pod = provider.known_to(fleet.plan("a")).start().await;
    provider.has("7", "ada", &["all"]);
    signed_in(&provider, &pod).await;
    signed_in(&provider, &pod).await;
    assert_eq!(provider.was_asked_for("keys"), 1);
    provider.changes_its_key();
    signed_in(&provider, &pod).await;
    signed_in(&provider, &pod).await;
    assert_eq!(provider.was_asked_for("keys"), 2);
    provider.lies(Lie { header: json!({"kid": "unknown"}), ..Lie::default() });
    for _ in 0..12 {
        expect_refused(&sign_in(&provider, &pod).await, "provider-wrong", "an unknown key");
    }
    let asked = provider.was_asked_for("keys");
    assert!((3..=9).contains(&asked), "it was asked {asked} times");
    provider.lies(Lie::default());
    signed_in(&provider, &pod).await;
}

#[tokio::test]
async fn a_provider_over_tls_is_believed_only_by_a_certificate_that_is_trusted() {
    let (fleet, (provider, certificate)) =
        tokio::join!(Fleet::new(CALM), IdentityProvider::start_over_tls());
    let file = std::env::temp_dir().join(format!("{}.pem", crate::harness::stores::random()));
    std::fs::write(&file, certificate).expect("a file");
    let plan = |name| provider.known_to(fleet.plan(name));
    let trusting = plan("a").with("GROUNDSTATION_OIDC_CA", file.to_str().expect("text"));
    let (trusting, other) = tokio::join!(trusting.start(), plan("b").start());
    std::fs::remove_file(&file).expect("it is read once");
    provider.has("7", "ada", &["all"]);
    signed_in(&provider, &trusting).await;
    expect_refused(&get(&other, BEGIN, "").await, "provider-away", "an unknown certificate");
}

#[tokio::test]
async fn without_settings_there_is_no_provider_and_no_sign_on() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    assert_eq!(get(&pod, "/console/session/ways", "").await.json(), json!({}));
    for path in [BEGIN, "/console/session/oidc/callback?state=a&code=b"] {
        let answer = get(&pod, path, "").await;
        assert_eq!((answer.status, answer.cookies.len()), (404, 0), "{path}");
    }
}

#[tokio::test]
async fn no_log_line_has_a_secret_of_a_sign_on() {
    let (fleet, provider) = tokio::join!(Fleet::new(CALM), IdentityProvider::start());
    let plan = provider.known_to(fleet.plan("a")).with("RUST_LOG", "trace");
    let pod = plan.with("GROUNDSTATION_ACCESS_LOG", "on").start().await;
    provider.has("7", "ada", &["root"]);
    let attempt = visit(&provider, leave(&pod, BEGIN).await).await;
    let answer = come_back(&pod, &attempt).await;
    let cookie = session_of(&answer);
    expect_refused(&come_back(&pod, &attempt).await, "provider-wrong", "the code again");
    assert_eq!(get(&pod, "/v1/fleet", &cookie).await.status, 200);
    let line = pod.expect_log("somebody signed in at the page").await;
    assert_eq!((&line["name"], &line["role"]), (&json!("ada"), &json!("admin")));
    pod.expect_log("a single sign-on was refused").await;
    let (_, query) = attempt.leads_to.split_once('?').expect("a query");
    let log = pod.log();
    assert!(log.contains("TRACE"), "the finest log was wanted");
    let sealed = |cookie: &str| cookie.split_once('=').expect("a pair").1.to_owned();
    let mut secrets = vec![sealed(&cookie), sealed(&attempt.cookie), provider.secret().to_owned()];
    secrets.extend(provider.tokens_given());
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name != "iss" {
            secrets.push(value.into_owned());
        }
    }
    assert_eq!(
        secrets.len(),
        6,
        "two cookies, the client's secret, an ID token, a code and a state"
    );
    for secret in secrets {
        assert!(!log.contains(&secret), "a secret slipped out: {secret:.8}…");
    }
}
