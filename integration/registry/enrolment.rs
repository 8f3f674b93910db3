//! A satellite registers itself with a token, within what the token says and no further; and however often an agent asks,
//! it has one satellite.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::pod::{Answer, NamedToken, try_call_with};
use crate::harness::{
    Agents, CALM, Credentials, Fleet, Pod, Satellite, eventually, faults, steady,
};

/// For enrolment in one region, of satellites of one tag.
fn of_gold() -> Value {
    json!({
        "name": "gold in eu", "role": "enrol", "selector": {"region": "eu", "tags": {"tier": "gold"}},
    })
}

fn counted(uses: i64) -> Value {
    json!({"name": "counted", "role": "enrol", "selector": {"region": "eu"}, "uses": uses})
}

fn edge() -> Value {
    json!({"name": "edge"})
}

/// A key as agents make it.
fn key() -> String {
    Uuid::new_v4().simple().to_string()
}

fn problem(answer: &Answer) -> String {
    let problem = answer.json();
    let kind = problem["type"].as_str().expect("a type");
    kind.rsplit(':').next().expect("a part").to_owned()
}

fn credentials(answer: &Answer) -> Credentials {
    assert_eq!(answer.status, 201, "{answer:?}");
    let made = answer.json();
    let id = made["satellite"]["id"].as_str().expect("an id").parse().expect("a UUID");
    Credentials { id, token: made["token"].as_str().expect("a token").to_owned() }
}

async fn count(pod: &Pod) -> i64 {
    pod.get("/v1/fleet").await.json()["total"].as_i64().expect("a count")
}

async fn uses_left(pod: &Pod, token: &NamedToken) -> Value {
    let tokens = pod.get("/v1/tokens").await.json();
    let tokens = tokens["tokens"].as_array().expect("a list").clone();
    let id = token.id.to_string();
    tokens.into_iter().find(|token| token["id"] == id).expect("the token")["usesLeft"].clone()
}

#[tokio::test]
async fn no_agent_chooses_to_be_in_a_set_of_assignments() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = async |name: &str, selector: Value| {
        pod.make_token(&json!({"name": name, "role": "enrol", "selector": selector})).await
    };
    let put = async |name: &str, selector: Option<Value>| {
        let mut set = json!({"assignments": []});
        if let Some(selector) = selector {
            set["selector"] = selector;
        }
        let answer = pod.put(&format!("/v1/assignment-sets/{name}"), &set).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    };
    put("all", None).await;
    put("databases", Some(json!({"region": "eu", "tags": {"role": "db"}}))).await;
    put("us", Some(json!({"region": "us"}))).await;
    let eu = token("eu", json!({"region": "eu"})).await;
    let anywhere = token("anywhere", json!({"tags": {"rack": "7"}})).await;
    let databases = token("databases", json!({"region": "eu", "tags": {"role": "db"}})).await;
    for (token, body, status) in [
        (&eu, json!({"name": "a"}), 201),
        (&eu, json!({"name": "a", "tags": {"role": "web"}}), 201),
        (&eu, json!({"name": "a", "tags": {"role": "db"}}), 403),
        (&eu, json!({"name": "a", "tags": {"role": "db", "rack": "7"}}), 403),
        (&anywhere, json!({"name": "a", "region": "eu"}), 201),
        (&anywhere, json!({"name": "a", "region": "eu", "tags": {"role": "db"}}), 403),
        (&anywhere, json!({"name": "a", "region": "us"}), 403),
        (&databases, json!({"name": "a"}), 201),
    ] {
        let answer = pod.enrol(&token.secret, None, &body).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        if status == 403 {
            assert_eq!(problem(&answer), "chosen-set");
            assert!(!answer.text.contains("databases"), "{answer:?}");
        }
    }
    // What was refused has made nothing, and whoever administers may do as it likes.
    assert_eq!(count(&pod).await, 4);
    let own = json!({"name": "b", "region": "us"});
    assert_eq!(pod.enrol(&fleet.admin_token, None, &own).await.status, 201);
}

#[tokio::test]
async fn a_satellite_enrols_where_its_token_says_and_connects() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = pod.make_token(&of_gold()).await;
    let made = pod.enrol(&token.secret, None, &edge()).await;
    let credentials = credentials(&made);
    let satellite = &made.json()["satellite"];
    assert_eq!((&satellite["name"], &satellite["region"]), (&json!("edge"), &json!("eu")));
    assert_eq!(satellite["tags"], json!({"tier": "gold"}));
    assert_eq!(made.headers["cache-control"], "no-store");
    assert_eq!(made.headers["location"], format!("/v1/satellites/{}", credentials.id));
    Satellite::connect(pod.address, &credentials).await.close().await;

    // What the token adds may be said, and more tags than that.
    let whole = json!({"name": "edge", "region": "eu", "tags": {"tier": "gold", "rack": "7"}});
    let other = pod.enrol(&token.secret, None, &whole).await;
    assert_eq!(other.json()["satellite"]["tags"], json!({"tier": "gold", "rack": "7"}));
    assert_ne!(other.json()["satellite"]["id"], made.json()["satellite"]["id"], "names are free");
    for (body, field) in [
        (json!({"name": "edge", "region": "us"}), "region"),
        (json!({"name": "edge", "tags": {"tier": "iron"}}), "tags.tier"),
    ] {
        let refused = pod.enrol(&token.secret, None, &body).await;
        assert_eq!((refused.status, problem(&refused)), (403, "outside-of-selector".to_owned()));
        assert_eq!(refused.json()["path"], field, "{refused:?}");
    }
    for (body, field) in
        [(json!({"name": ""}), "name"), (json!({"name": "edge", "tags": {"a:b": "c"}}), "tags.a:b")]
    {
        let refused = pod.enrol(&token.secret, None, &body).await;
        assert_eq!((refused.status, &refused.json()["path"]), (422, &json!(field)), "{refused:?}");
    }
    // Who did it is in the history, as of any other change.
    let by = "select distinct action || ' ' || actor_type || ' ' || actor_id from registry_changes";
    let rows = fleet.sql().await.query(by, &[]).await.expect("the history");
    let found: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, ["created token gold in eu"]);
    assert_eq!(count(&pod).await, 2);
    pod.expect_log("satellite enrolled").await;
    fleet.check().await;
}

#[tokio::test]
async fn a_token_without_a_region_leaves_it_to_the_satellite() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = pod.make_token(&json!({"name": "all", "role": "enrol"})).await;
    for without in [edge(), json!({"name": "edge", "region": ""})] {
        let refused = pod.enrol(&token.secret, None, &without).await;
        assert_eq!(
            (refused.status, &refused.json()["path"]),
            (422, &json!("region")),
            "{refused:?}"
        );
    }
    let made = pod.enrol(&token.secret, None, &json!({"name": "edge", "region": "us"})).await;
    assert_eq!((made.status, &made.json()["satellite"]["region"]), (201, &json!("us")));
    assert_eq!(uses_left(&pod, &token).await, Value::Null, "nobody counts");
}

#[tokio::test]
async fn whoever_registers_others_may_enrol_too_and_a_token_for_enrolment_does_nothing_else() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let eu = json!({"region": "eu"});
    for role in ["admin", "operator"] {
        let token = pod
            .make_token(&json!({"name": format!("a {role}"), "role": role, "selector": eu}))
            .await;
        let made = pod.enrol(&token.secret, None, &edge()).await;
        assert_eq!((made.status, &made.json()["satellite"]["region"]), (201, &json!("eu")));
    }
    let whole = json!({"name": "edge", "region": "eu"});
    assert_eq!(pod.enrol(&fleet.admin_token, None, &whole).await.status, 201);
    let reader = pod.make_token(&json!({"name": "board", "role": "read"})).await;
    for read in [&fleet.read_token, &reader.secret] {
        assert_eq!(pod.enrol(read, None, &whole).await.status, 403);
    }
    assert_eq!(pod.enrol("gst_wrong", None, &whole).await.status, 401);
    let token = pod.make_token(&json!({"name": "enrol", "role": "enrol"})).await;
    for (method, path) in
        [("POST", "/v1/satellites"), ("GET", "/v1/satellites"), ("GET", "/v1/triggers")]
    {
        let body = (method == "POST").then(|| whole.to_string());
        let answer = pod.call(method, path, Some(&token.secret), body).await;
        assert_eq!(answer.status, 403, "{method} {path}: {answer:?}");
    }
    for (role, uses) in [("read", 1), ("operator", 1), ("enrol", 0), ("enrol", -1)] {
        let described = json!({"name": "a", "role": role, "uses": uses});
        let refused = pod.post("/v1/tokens", &described).await;
        assert_eq!((refused.status, &refused.json()["path"]), (422, &json!("uses")), "{refused:?}");
    }
}

#[tokio::test]
async fn of_many_at_two_pods_no_more_enrol_than_the_token_says() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let token = a.make_token(&counted(5)).await;
    known(&b, &token).await;
    assert_eq!(uses_left(&a, &token).await, json!(5));
    let edge = edge();
    let calls = (0..24).map(|n| [&a, &b][n % 2].enrol(&token.secret, None, &edge));
    let answers = futures_util::future::join_all(calls).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(made, 5, "{answers:?}");
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!((refused.status, problem(refused)), (403, "token-used-up".to_owned()));
    }
    assert_eq!(count(&a).await, 5);
    assert_eq!(uses_left(&b, &token).await, json!(0));
    // What was refused, for whatever reason, has used nothing up.
    let other = a.make_token(&json!({"name": "two", "role": "enrol", "uses": 2})).await;
    assert_eq!(a.enrol(&other.secret, None, &edge).await.status, 422);
    assert_eq!(uses_left(&a, &other).await, json!(2));
}

/// Waits until a pod knows a token that another has made.
async fn known(pod: &Pod, token: &NamedToken) {
    eventually("the token to be known", async || {
        match pod.enrol(&token.secret, None, &json!({"name": ""})).await.status {
            422 => Ok(()),
            status => {
                // Wrong tokens are slowed down.
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(status.to_string())
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_that_is_over_or_revoked_enrols_nobody_even_where_a_pod_does_not_know_it_yet() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let sql = fleet.sql().await;
    let token = pod.make_token(&counted(5)).await;
    // Its end is not looked at by a pod that has read it.
    let over = "update tokens set expires_at = clock_timestamp() - interval '1 second'";
    sql.execute(over, &[]).await.expect("over");
    let refused = pod.enrol(&token.secret, Some(&key()), &edge()).await;
    assert_eq!(refused.status, 401, "{refused:?}");
    assert_eq!(uses_left(&pod, &token).await, json!(5));
    sql.execute("update tokens set expires_at = null", &[]).await.expect("not over");
    assert_eq!(pod.enrol(&token.secret, None, &edge()).await.status, 201);
    pod.revoke(&token).await;
    assert_eq!(pod.enrol(&token.secret, None, &edge()).await.status, 401);
    let uncounted = pod.make_token(&of_gold()).await;
    sql.execute("delete from tokens", &[]).await.expect("deleted by hand");
    assert_eq!(pod.enrol(&uncounted.secret, None, &edge()).await.status, 401);
    assert_eq!(count(&pod).await, 1);
}

#[tokio::test]
async fn an_enrolment_that_is_sent_again_has_the_same_satellite_and_the_same_token() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let token = a.make_token(&counted(5)).await;
    known(&b, &token).await;
    let (key, edge) = (key(), edge());
    let calls = (0..10).map(|n| [&a, &b][n % 2].enrol(&token.secret, Some(&key), &edge));
    let answers = futures_util::future::join_all(calls).await;
    let first = credentials(&answers[0]);
    let replayed = |answer: &&Answer| answer.headers.contains_key("idempotency-replayed");
    assert_eq!(answers.iter().filter(replayed).count(), 9);
    for answer in &answers {
        let again = credentials(answer);
        assert_eq!((again.id, &again.token), (first.id, &first.token));
    }
    assert_eq!((count(&a).await, uses_left(&a, &token).await), (1, json!(4)));
    // Written another way it is the same request; another one it is not.
    let same = json!({"unknown": 1, "region": "eu", "name": "edge"});
    assert_eq!(credentials(&b.enrol(&token.secret, Some(&key), &same).await).id, first.id);
    let other = a.enrol(&token.secret, Some(&key), &json!({"name": "other"})).await;
    assert_eq!((other.status, problem(&other)), (422, "key-of-another-request".to_owned()));

    Satellite::connect(a.address, &first).await.close().await;
    let late = a.enrol(&token.secret, Some(&key), &edge).await;
    assert_eq!((late.status, problem(&late)), (409, "key-of-connected-satellite".to_owned()));
    assert!(!late.text.contains(&first.token), "{late:?}");
    // Its satellite is gone, and with it the key.
    assert_eq!(a.remove(first.id).await.status, 204);
    let anew = credentials(&a.enrol(&token.secret, Some(&key), &edge).await);
    assert!(anew.id != first.id && anew.token != first.token);
    Satellite::connect(a.address, &anew).await.close().await;
    assert_eq!((count(&a).await, uses_left(&a, &token).await), (1, json!(3)));
    fleet.check().await;
}

#[tokio::test]
async fn a_key_gives_nothing_out_to_another_token_nor_after_a_rotation_and_has_to_be_random() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (one, other) = (pod.make_token(&counted(5)).await, pod.make_token(&of_gold()).await);
    let (key, edge) = (key(), edge());
    let first = credentials(&pod.enrol(&one.secret, Some(&key), &edge).await);
    let second = credentials(&pod.enrol(&other.secret, Some(&key), &edge).await);
    assert!(first.id != second.id && first.token != second.token);
    let rotated = pod.post(&format!("/v1/satellites/{}/token", first.id), &json!({})).await;
    assert_eq!(rotated.status, 200, "{rotated:?}");
    let late = pod.enrol(&one.secret, Some(&key), &edge).await;
    assert_eq!((late.status, problem(&late)), (409, "key-of-connected-satellite".to_owned()));
    // One that has moved out is not shown.
    let out = pod.patch(&format!("/v1/satellites/{}", second.id), &json!({"region": "us"})).await;
    assert_eq!(out.status, 200, "{out:?}");
    let outside = pod.enrol(&other.secret, Some(&key), &edge).await;
    assert_eq!((outside.status, problem(&outside)), (422, "key-of-another-request".to_owned()));
    for weak in ["order 1", "edge-amsterdam-1"] {
        let refused = pod.enrol(&one.secret, Some(weak), &edge).await;
        assert_eq!((refused.status, &refused.json()["path"]), (422, &json!("Idempotency-Key")));
    }
    // Keys of administrators' registrations are others.
    let headers = [("Idempotency-Key", key.as_str())];
    let body = Some(json!({"name": "edge", "region": "eu"}).to_string());
    let registered = pod.call_with("POST", "/v1/satellites", &headers, body).await;
    assert_eq!(registered.status, 201);
    assert!(!registered.headers.contains_key("idempotency-replayed"), "{registered:?}");
    assert_eq!(uses_left(&pod, &one).await, json!(4));
}

#[tokio::test]
async fn a_pod_that_dies_in_an_enrolment_has_made_all_of_it_or_nothing() {
    let fleet = Fleet::new(CALM).await;
    let mut pod = fleet.pod("a").await;
    let token = pod.make_token(&counted(5)).await;
    let (key, edge) = (key(), edge());
    // The log's lock is held, so the enrolment stands right before its end.
    let sql = fleet.sql().await;
    sql.batch_execute("begin; select lock_log()").await.expect("the log's lock");
    let headers = [("Idempotency-Key", key.as_str())];
    let (address, secret, body) =
        (pod.address, Some(token.secret.as_str()), Some(edge.to_string()));
    let limit = Duration::from_secs(10);
    let call = try_call_with(address, "POST", "/v1/enrol", secret, &headers, body, limit);
    let waits = async {
        const WAITING: &str =
            "select count(*) from pg_locks where locktype = 'advisory' and not granted";
        let other = fleet.sql().await;
        eventually("the enrolment to wait", async || {
            let waiting: i64 = other.query_one(WAITING, &[]).await.expect("locks").get(0);
            if waiting > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
        })
        .await;
        pod.kill();
    };
    let (answer, ()) = tokio::join!(call, waits);
    answer.expect_err("the pod died");
    sql.batch_execute("rollback").await.expect("the lock is free");
    let pod = fleet.pod("a").await;
    eventually("nothing to be left of it", async || match uses_left(&pod, &token).await {
        left if left == json!(5) => Ok(()),
        left => Err(left.to_string()),
    })
    .await;
    let made = credentials(&pod.enrol(&token.secret, Some(&key), &edge).await);
    Satellite::connect(pod.address, &made).await.close().await;
    assert_eq!((count(&pod).await, uses_left(&pod, &token).await), (1, json!(4)));
}

#[tokio::test]
async fn with_a_pods_rights_nobody_gives_a_token_more_uses() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.make_token(&counted(5)).await;
    pod.make_token(&of_gold()).await;
    let sql = fleet.sql().await;
    sql.batch_execute("set role groundstation_service").await.expect("the role of pods");
    for attempt in [
        "update tokens set uses_left = 6 where uses_left is not null",
        "update tokens set uses_left = null",
        "update tokens set uses_left = 1 where uses_left is null",
        "update tokens set uses_left = -1 where uses_left is not null",
        "update tokens set role = 'admin'",
        "update enrolments set request_digest = ''",
        "delete from enrolments",
    ] {
        sql.execute(attempt, &[]).await.expect_err(attempt);
    }
    let fewer = "update tokens set uses_left = uses_left - 1 where uses_left is not null";
    assert_eq!(sql.execute(fewer, &[]).await.expect("fewer"), 1);
}

#[tokio::test]
async fn an_enrolment_whose_turn_does_not_come_is_told_when_to_come_back_and_hurts_nobody() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_ENROLMENT_WAIT", "300ms").start().await;
    let token = pod.make_token(&counted(5)).await;
    let satellite = pod.register("edge", "eu").await;
    let sql = fleet.sql().await;
    // Somebody has the token's row locked: those that have a turn wait for it.
    sql.batch_execute("begin; select from tokens for update").await.expect("locked");
    let edge = edge();
    let calls = (0..6).map(|_| pod.enrol(&token.secret, None, &edge));
    let others = async {
        pod.expect_metric("groundstation_enrolments_waiting", 1.0).await;
        let begun = Instant::now();
        Satellite::connect(pod.address, &satellite).await.close().await;
        pod.register("other", "eu").await;
        begun.elapsed()
    };
    let (answers, took) = tokio::join!(futures_util::future::join_all(calls), others);
    assert!(took < Duration::from_secs(3), "others waited for {took:?}");
    let busy: Vec<&Answer> = answers.iter().filter(|a| a.text.contains("problem:busy")).collect();
    assert!(busy.len() >= 4, "{answers:?}");
    for answer in busy {
        assert_eq!((answer.status, answer.headers["retry-after"].as_str()), (503, "5"));
    }
    assert!(answers.iter().all(|answer| answer.status == 503), "{answers:?}");
    sql.batch_execute("rollback").await.expect("free");
    assert!(pod.metric("groundstation_enrolments_total{outcome=\"turned_away\"}").await >= 4.0);
    assert_eq!(pod.metric("groundstation_enrolments_max").await, 2.0);
    assert_eq!(pod.enrol(&token.secret, None, &edge).await.status, 201);
    assert_eq!(pod.metric("groundstation_enrolments_total{outcome=\"enrolled\"}").await, 1.0);
    assert_eq!(uses_left(&pod, &token).await, json!(4));
}

/// So many enrol at once as fast as the machine lets them, while `connected` others beat and some come and go.
async fn rush(count: usize, at_once: usize, connected: usize) -> Duration {
    let fleet = Fleet::new(steady()).await;
    let many = "100000";
    let plan = fleet.plan("a").with("GROUNDSTATION_MAX_CONNECTIONS_PER_ADDRESS", many);
    let pod = plan.with("GROUNDSTATION_MAX_HANDSHAKES_PER_ADDRESS", many).start().await;
    let token = pod.make_token(&counted(count as i64)).await;
    let agents =
        Agents::start(&fleet, pod.address, fleet.register_many("beating", connected).await);
    agents.expect_all().await;
    let before = agents.authenticated();
    let comer = pod.register("comer", "eu").await;
    let stop = CancellationToken::new();
    let coming_and_going = {
        let (stop, address) = (stop.clone(), pod.address);
        tokio::spawn(async move {
            let mut took = Vec::new();
            while !stop.is_cancelled() {
                let begun = Instant::now();
                Satellite::connect(address, &comer).await.close().await;
                took.push(begun.elapsed());
            }
            took
        })
    };
    let (begun, turns) = (Instant::now(), Arc::new(Semaphore::new(at_once)));
    let mut enrolling = JoinSet::new();
    for n in 0..count {
        let (address, secret, turns) = (pod.address, token.secret.clone(), turns.clone());
        enrolling.spawn(async move {
            let _turn = turns.acquire().await.expect("open");
            let (key, body) = (key(), json!({"name": format!("enrolled-{n}")}).to_string());
            let mut sent_away = 0;
            loop {
                let headers = [("Idempotency-Key", key.as_str())];
                let (token, body) = (Some(secret.as_str()), Some(body.clone()));
                let limit = Duration::from_secs(15);
                let answer =
                    try_call_with(address, "POST", "/v1/enrol", token, &headers, body, limit).await;
                match answer {
                    Ok(answer) if answer.status == 201 => return sent_away,
                    Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                    Err(_) => {}
                }
                sent_away += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }
    let sent_away: u32 = enrolling.join_all().await.into_iter().sum();
    let took = begun.elapsed();
    stop.cancel();
    let mut edges = coming_and_going.await.expect("no panic");
    edges.sort();
    let rate = count as f64 / took.as_secs_f64();
    let (middle, longest) = (edges[edges.len() / 2], edges[edges.len() - 1]);
    println!(
        "{count} enrolled in {took:.1?}, {rate:.0} a second, {sent_away} sent away meanwhile; {} satellites came and \
         went, in {middle:.1?} each, {longest:.1?} at most",
        edges.len()
    );
    assert!(longest < Duration::from_secs(3), "an edge waited for {longest:?}");
    assert_eq!(uses_left(&pod, &token).await, json!(0));
    let one_more = pod.enrol(&token.secret, None, &edge()).await;
    assert_eq!(problem(&one_more), "token-used-up");
    assert_eq!(self::count(&pod).await, (count + connected + 1) as i64);
    assert_eq!(agents.authenticated(), before, "nobody was thrown out");
    agents.expect_all().await;
    pod.sweeps(2).await;
    assert_eq!(fleet.edges("beating", "heartbeat_lost").await, 0);
    drop(agents);
    took
}

#[tokio::test]
async fn some_enrol_at_once_while_others_beat_and_nobody_is_lost() {
    rush(60, 30, 10).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn ten_thousand_enrol_in_a_minute_while_others_beat_and_nobody_is_lost() {
    let count = faults::repetitions(2_000, 10_000);
    let took = rush(count as usize, 200, 100).await;
    assert!(took < Duration::from_millis(6) * count, "more than a minute for 10,000: {took:?}");
}
