//! A named token opens what its role says, on every pod, until it is revoked or over; and what is done with it is
//! recorded under its name.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::pod::NamedToken;
use crate::harness::reader::Reader;
use crate::harness::{CALM, Fleet, Pod, Proxy, Satellite, eventually};

/// A token opens nothing any more within this time. Twice what is promised: the machine is busy.
const PROMPT: Duration = Duration::from_secs(2);

/// Needs nothing of the database.
const TRIGGERS: &str = "/v1/triggers";

fn of_role(name: &str, role: &str) -> Value {
    json!({"name": name, "role": role})
}

/// The operations below `/v1` of the document: method and path.
async fn operations(pod: &Pod) -> Vec<(String, String)> {
    let document = pod.get("/openapi.json").await.json();
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            if path.starts_with("/v1/") && method != "parameters" {
                operations.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    operations
}

#[tokio::test]
async fn each_role_may_do_what_it_is_for_on_every_route_and_nothing_else() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_STREAM_LIFETIME", "50ms").start().await;
    let operations = operations(&pod).await;
    assert!(operations.len() >= 19, "{operations:?}");
    let operators = ["/v1/satellites", "/v1/assignment-sets", "/v1/maintenance"];
    for role in ["admin", "operator", "read", "enrol"] {
        let token = pod.make_token(&of_role(&format!("a {role}"), role)).await;
        for (method, path) in &operations {
            let path = path.replace("{id}", &Uuid::new_v4().to_string());
            let is_enrolment = path == "/v1/enrol";
            let (is_look, is_of_tokens) = (
                method == "GET",
                ["/v1/tokens", "/v1/audit"].iter().any(|of| path.starts_with(of)),
            );
            let may = match role {
                "admin" => true,
                "operator" => {
                    !is_of_tokens
                        && (is_look
                            || is_enrolment
                            || operators.iter().any(|of| path.starts_with(of)))
                }
                "read" => !is_of_tokens && is_look,
                _ => is_enrolment,
            };
            let body = (!is_look).then(|| "{}".to_owned());
            let answer = pod.call(method, &path, Some(&token.secret), body).await;
            assert_ne!(answer.status, 401, "{role} {method} {path}: {answer:?}");
            assert_eq!(answer.status != 403, may, "{role} {method} {path}: {answer:?}");
            if !may {
                let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
                assert!(detail.contains(&format!("\"a {role}\"")), "{detail}");
            }
        }
    }
    // The tokens of the settings: the one is an admin, the other may only look, and not at tokens.
    assert_eq!(pod.get("/v1/tokens").await.status, 200);
    assert_eq!(pod.status_with(&fleet.read_token, "/v1/tokens").await, 403);
}

#[tokio::test]
async fn a_token_is_shown_once_and_listed_by_name_until_it_is_revoked() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let described = json!({
        "name": "deploy", "role": "operator", "expiresAt": "2999-01-01T00:00:00Z",
        "selector": {"region": "eu", "tags": {"tier": "gold"}},
    });
    let answer = pod.post("/v1/tokens", &described).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let made = answer.json();
    let secret = made["secret"].as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("gst_") && secret.len() == 51, "{}", secret.len());
    let token = &made["token"];
    for (field, value) in described.as_object().expect("an object") {
        let value = if field == "expiresAt" { &json!("2999-01-01T00:00:00.000Z") } else { value };
        assert_eq!(&token[field], value);
    }
    assert_eq!(token["createdBy"], json!({"type": "token", "id": "admin"}));
    assert!(token["createdAt"].is_string() && token.get("lastUsedAt").is_none(), "{token}");
    let other = pod.make_token(&of_role("a reader", "read")).await;

    let listed = pod.get("/v1/tokens").await;
    let tokens = listed.json()["tokens"].as_array().expect("a list").clone();
    assert_eq!(
        tokens.iter().map(|token| &token["name"]).collect::<Vec<_>>(),
        ["a reader", "deploy"]
    );
    assert_eq!(&tokens[1], token);
    assert!(!listed.text.contains(&secret) && !listed.text.contains("digest"), "{listed:?}");

    let taken = pod.post("/v1/tokens", &of_role("deploy", "read")).await;
    assert_eq!((taken.status, &taken.json()["path"]), (409, &json!("name")), "{taken:?}");
    let id = token["id"].as_str().expect("an id").parse().expect("a UUID");
    let first = NamedToken { id, secret };
    pod.revoke(&first).await;
    for unknown in [first.id.to_string(), Uuid::new_v4().to_string(), "deploy".to_owned()] {
        let path = format!("/v1/tokens/{unknown}");
        let again = pod.call("DELETE", &path, Some(&fleet.admin_token), None).await;
        assert_eq!(again.status, 404, "{again:?}");
        assert_eq!(again.json()["type"], "urn:groundstation:problem:unknown-token");
    }
    // Its name is free.
    let again = pod.make_token(&of_role("deploy", "read")).await;
    assert_ne!(again.secret, first.secret);
    assert_eq!(pod.status_with(&first.secret, "/v1/fleet").await, 401);
    assert_eq!(pod.status_with(&again.secret, "/v1/fleet").await, 200);
    assert_eq!(pod.status_with(&other.secret, "/v1/fleet").await, 200);
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_refused_by_its_field_and_there_are_a_thousand_at_most() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut over = of_role("a", "read");
    over["expiresAt"] = json!("2020-01-01T00:00:00Z");
    let selector = |selector: Value| json!({"name": "a", "role": "read", "selector": selector});
    for (body, path) in [
        (of_role("", "read"), "name"),
        (of_role("admin", "read"), "name"),
        (of_role(&"x".repeat(201), "read"), "name"),
        (of_role("a", "root"), "role"),
        (over, "expiresAt"),
        (selector(json!({})), "selector"),
        (selector(json!({"region": "eu", "tag": {"tier": "gold"}})), "selector.tag"),
        (selector(json!({"region": ""})), "selector.region"),
    ] {
        let answer = pod.post("/v1/tokens", &body).await;
        assert_eq!(
            (answer.status, &answer.json()["path"]),
            (422, &json!(path)),
            "{body}: {answer:?}"
        );
    }
    for body in [json!({"role": "read"}), json!({"name": "a"}), json!({"name": 7, "role": "read"})]
    {
        assert_eq!(pod.post("/v1/tokens", &body).await.status, 422, "{body}");
    }
    let fill = "
        insert into tokens (id, name, role, token_digest, created_at, created_by_type, created_by_id)
        select gen_random_uuid(), 'filler ' || n, 'read',
               'sha256:' || rpad(translate(encode(sha256(n::text::bytea), 'base64'), '+/=', '-_'), 43, 'A'),
               now(), 'system', 'test'
          from generate_series(1, 999) n";
    fleet.sql().await.execute(fill, &[]).await.expect("filled");
    let last = pod.make_token(&of_role("the last", "read")).await;
    let answer = pod.post("/v1/tokens", &of_role("one too many", "read")).await;
    assert_eq!(answer.status, 409, "{answer:?}");
    assert!(
        answer.json()["detail"].as_str().expect("a detail").contains("1000 tokens"),
        "{answer:?}"
    );
    assert_eq!(pod.status_with(&last.secret, TRIGGERS).await, 200);
    pod.revoke(&last).await;
    pod.make_token(&of_role("one again", "read")).await;
}

#[tokio::test]
async fn of_many_made_at_once_under_one_name_one_is_made() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let body = of_role("deploy", "read");
    let calls = (0..10).map(|n| [&a, &b][n % 2].post("/v1/tokens", &body));
    let answers = futures_util::future::join_all(calls).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 1, "{answers:?}");
    assert!(answers.iter().all(|answer| [201, 409].contains(&answer.status)), "{answers:?}");
}

/// Waits until a token opens nothing on this pod. How long that took.
async fn until_refused(pod: &Pod, token: &str) -> Duration {
    let begun = Instant::now();
    eventually("the token to be refused", async || match pod.status_with(token, TRIGGERS).await {
        401 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    begun.elapsed()
}

#[tokio::test]
async fn a_token_counts_on_another_pod_within_a_second_and_so_does_its_end_while_nats_is_away() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    fleet.own_nats().kill();
    // Few, and not often: wrong tokens are slowed down.
    for n in 0..2 {
        let token = a.make_token(&of_role(&format!("token {n}"), "read")).await;
        assert_eq!(a.status_with(&token.secret, TRIGGERS).await, 200, "at once on its own pod");
        let made = Instant::now();
        eventually("the token to be known", async || {
            match b.status_with(&token.secret, TRIGGERS).await {
                200 => Ok(()),
                status => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    Err(status.to_string())
                }
            }
        })
        .await;
        assert!(made.elapsed() < PROMPT, "{:?}", made.elapsed());
        let mut stream = Reader::open(b.address, &token.secret, "", None).await;
        stream.begun().await;
        a.revoke(&token).await;
        let revoked = Instant::now();
        assert_eq!(a.status_with(&token.secret, TRIGGERS).await, 401, "at once on its own pod");
        let took = until_refused(&b, &token.secret).await;
        assert!(took < PROMPT, "{took:?}");
        // What it has open ends too.
        assert_eq!(stream.next().await, None);
        assert!(revoked.elapsed() < PROMPT, "{:?}", revoked.elapsed());
    }
}

#[tokio::test]
async fn a_token_that_is_deleted_by_hand_opens_nothing_any_more() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = pod.make_token(&of_role("deploy", "admin")).await;
    assert_eq!(pod.status_with(&token.secret, TRIGGERS).await, 200);
    let sql = fleet.sql().await;
    sql.execute("delete from tokens where id = $1", &[&token.id]).await.expect("deleted");
    let took = until_refused(&pod, &token.secret).await;
    assert!(took < PROMPT, "{took:?}");
}

#[tokio::test]
async fn a_token_expires_by_the_clock_of_the_database_whatever_a_pods_clock_says() {
    let (fleet, clock) = Fleet::with_clock(CALM).await;
    let fast = crate::harness::Clock::new();
    let pod = fleet.pod("a").await;
    let [(preload, library), (shift, file)] = fast.environment();
    let wrong = fleet.plan("wrong").with(preload, &library).with(shift, &file).start().await;
    let sql = fleet.sql().await;
    let soon = "select to_char((now() + interval '1 hour') at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let soon: String = sql.query_one(soon, &[]).await.expect("a time").get(0);
    let mut described = of_role("deploy", "read");
    described["expiresAt"] = json!(soon);
    let token = pod.make_token(&described).await;
    eventually("the token to be known", async || {
        match wrong.status_with(&token.secret, TRIGGERS).await {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
    fast.shift(2 * 60 * 60);
    let mut stream = Reader::open(wrong.address, &token.secret, "", None).await;
    stream.begun().await;
    for _ in 0..10 {
        assert_eq!(
            wrong.status_with(&token.secret, TRIGGERS).await,
            200,
            "its own clock is two hours fast"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    clock.shift(2 * 60 * 60);
    for pod in [&pod, &wrong] {
        let took = until_refused(pod, &token.secret).await;
        assert!(took < PROMPT, "{took:?}");
    }
    assert_eq!(stream.next().await, None);
    // It is listed until somebody revokes it.
    assert_eq!(pod.get("/v1/tokens").await.json()["tokens"][0]["name"], "deploy");
    pod.revoke(&token).await;
}

#[tokio::test]
async fn whoever_changes_something_is_recorded_by_the_name_of_its_token() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    // Also one that is called as the service itself.
    for name in ["deploy", "system"] {
        let token = pod.make_token(&of_role(name, "admin")).await;
        let call = async |method: &str, path: &str, body: Value| {
            let answer = pod.call(method, path, Some(&token.secret), Some(body.to_string())).await;
            assert!((200..300).contains(&answer.status), "{method} {path}: {answer:?}");
            answer
        };
        let edge = json!({"name": "edge", "region": "eu"});
        let made = call("POST", "/v1/satellites", edge).await.json();
        let id: Uuid = made["satellite"]["id"].as_str().expect("an id").parse().expect("a UUID");
        let path = format!("/v1/satellites/{id}");
        let credentials = crate::harness::Credentials {
            id,
            token: made["token"].as_str().unwrap_or_default().to_owned(),
        };
        let satellite = Satellite::connect(pod.address, &credentials).await;
        call("PATCH", &path, json!({"region": "us"})).await;
        call("PUT", &format!("{path}/assignments"), json!({"assignments": []})).await;
        call("POST", &format!("{path}/token"), json!({})).await;
        fleet.expect_history(id, &["1 connected connect", "1 disconnected token_rotated"]).await;
        call("DELETE", &path, json!({})).await;
        drop(satellite);
        let sql = fleet.sql().await;
        let registry =
            "select distinct action || ' ' || actor_type || ' ' || actor_id from registry_changes
                         where satellite_id = $1 order by 1";
        let rows = sql.query(registry, &[&id]).await.expect("the history");
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let actions = ["assigned", "created", "removed", "token_rotated", "updated"];
        assert_eq!(found, actions.map(|action| format!("{action} token {name}")));
        let log = "select event || ' ' || reason || ' ' || actor_type || ' ' || actor_id from entity_transitions
                    where entity_id = $1 order by position";
        let rows = sql.query(log, &[&id]).await.expect("the log");
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        let by = format!("token {name}");
        assert_eq!(found[0], "connected connect system system");
        // The session's pod may find the new token first, and ends the session by itself.
        let ended = ["system system", &*by].map(|by| format!("disconnected token_rotated {by}"));
        assert!(ended.contains(&found[1]), "{found:?}");
        assert_eq!(found[2..], [format!("removed removed {by}")]);
        let shown = pod.get(&format!("{path}/transitions?order=desc&limit=1")).await.json();
        assert_eq!(shown["transitions"][0]["actor"], json!({"type": "token", "id": name}));

        // It made another token, and revoked it.
        let other = call("POST", "/v1/tokens", of_role("other", "read")).await.json();
        assert_eq!(other["token"]["createdBy"], json!({"type": "token", "id": name}));
        let other = other["token"]["id"].as_str().expect("an id").to_owned();
        call("DELETE", &format!("/v1/tokens/{other}"), json!({})).await;
        let changes =
            "select action || ' ' || actor_type || ' ' || actor_id || ' ' || (token->>'name')
                         from token_changes where token_id::text = $1 order by change";
        let rows = sql.query(changes, &[&other]).await.expect("the history");
        let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(found, [format!("created {by} other"), format!("revoked {by} other")]);
    }
    let history = fleet.sql().await;
    for change in ["update token_changes set actor_id = 'x'", "delete from token_changes"] {
        history.execute(change, &[]).await.expect_err("it is append-only");
    }
}

#[tokio::test]
async fn the_last_use_is_kept_at_once_and_then_once_a_minute_and_no_request_waits_for_it() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = pod.make_token(&of_role("deploy", "read")).await;
    let mut sql = fleet.sql().await;
    // Whoever has the row locked holds up neither the request nor the next ones.
    let locked = sql.transaction().await.expect("a transaction");
    locked.execute("select from tokens for update", &[]).await.expect("locked");
    for _ in 0..20 {
        let begun = Instant::now();
        assert_eq!(pod.status_with(&token.secret, TRIGGERS).await, 200);
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let last_use = async || pod.get("/v1/tokens").await.json()["tokens"][0]["lastUsedAt"].clone();
    assert_eq!(last_use().await, Value::Null);
    locked.rollback().await.expect("given back");
    let kept = eventually("the use to be kept", async || {
        let at = last_use().await;
        if at.is_string() { Ok(at) } else { Err(at.to_string()) }
    })
    .await;
    for _ in 0..30 {
        assert_eq!(pod.status_with(&token.secret, TRIGGERS).await, 200);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(last_use().await, kept, "within a minute it is not written again");
    // A pod that ends says when it was used last.
    let mut pod = pod;
    pod.terminate();
    pod.exit().await;
    const USED: &str = "select to_char(last_used_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from tokens";
    let used: String = fleet.sql().await.query_one(USED, &[]).await.expect("the token").get(0);
    assert!(used.as_str() > kept.as_str().expect("a time"), "{used} {kept}");
}

#[tokio::test]
async fn no_request_asks_the_database_for_its_token_and_without_it_named_ones_count_ten_seconds() {
    let fleet = Fleet::new(CALM).await;
    let (proxy, through) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &through).start().await;
    let token = pod.make_token(&of_role("deploy", "read")).await;
    proxy.stall();
    let begun = Instant::now();
    let mut asked = 0;
    while begun.elapsed() < Duration::from_secs(6) {
        assert_eq!(pod.status_with(&token.secret, TRIGGERS).await, 200);
        asked += 1;
    }
    assert!(asked > 50, "{asked} requests were answered");
    let refused = eventually("the token to be unknown for now", async || {
        let answer = pod.call("GET", TRIGGERS, Some(&token.secret), None).await;
        if answer.status == 503 { Ok(answer) } else { Err(answer.status.to_string()) }
    })
    .await;
    assert!(refused.text.contains("still valid") && refused.headers.contains_key("retry-after"));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    // Those of the settings need no database, and wrong ones are wrong.
    assert_eq!(pod.status_with(&fleet.read_token, TRIGGERS).await, 200);
    let wrong = "gst_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(pod.status_with(wrong, TRIGGERS).await, 401);
    proxy.resume();
    eventually("the token to count again", async || {
        match pod.status_with(&token.secret, TRIGGERS).await {
            200 => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_named_token_that_is_not_valid_is_refused_counted_and_told_as_any_other() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = pod.make_token(&of_role("deploy", "read")).await;
    pod.revoke(&token).await;
    let mut mistyped = token.secret.clone();
    mistyped.replace_range(10..12, "__");
    let refused = async |token: &str| {
        let answer = pod.call("GET", TRIGGERS, Some(token), None).await;
        assert_eq!((answer.status, answer.headers["www-authenticate"].as_str()), (401, "Bearer"));
        answer.text
    };
    let of_any_other = refused("wrong").await;
    for wrong in [token.secret.as_str(), &mistyped, "gst_", "gst_AAAA"] {
        assert_eq!(refused(wrong).await, of_any_other, "{wrong}");
    }
    pod.expect_metric("groundstation_wrong_tokens_total", 5.0).await;
    pod.expect_log("a token came that is not valid here").await;
    assert!(!pod.log().contains(&token.secret[4..]) && !pod.log().contains(&mistyped[4..]));
}
