//! A set of assignments is for all satellites of a region, or with some tags: with their own lists, on any pod, at once.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::pod::Answer;
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, eventually};

/// Twice what is promised: the machine is busy.
const PROMPT: Duration = Duration::from_secs(2);

const SETS: &str = "/v1/assignment-sets";

/// An assignment that says where it is from.
fn on(config: &str, from: &str) -> Value {
    json!({"configId": config, "systemId": "s", "strategyId": "http", "config": {"from": from},
           "intervalSeconds": 60})
}

fn many(count: usize, from: &str) -> Value {
    (0..count).map(|n| on(&format!("{from}{n}"), from)).collect()
}

fn path(set: &str) -> String {
    format!("{SETS}/{set}")
}

/// Stores a set; returns its version.
async fn put(pod: &Pod, name: &str, set: Value) -> i64 {
    let answer = pod.put(&path(name), &set).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["version"].as_i64().expect("a version")
}

async fn delete(pod: &Pod, name: &str) -> Answer {
    pod.call_with("DELETE", &path(name), &[], None).await
}

async fn effective(pod: &Pod, id: Uuid) -> Value {
    let answer = pod.get(&format!("/v1/satellites/{id}/assignments/effective")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Which config is from where, in the order of the list.
fn sources(list: &Value) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().expect("a word").to_owned();
    let list = list.as_array().expect("a list").iter();
    list.map(|each| (word(&each["configId"]), word(&each["config"]["from"]))).collect()
}

/// The next list that this satellite is sent.
async fn updated(satellite: &mut Satellite) -> Vec<(String, String)> {
    sources(&satellite.expect("config_updated").await["assignments"])
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(config, from)| ((*config).to_owned(), (*from).to_owned())).collect()
}

#[tokio::test]
async fn a_set_reaches_the_sessions_of_its_satellites_on_every_pod_and_no_others() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    a.expect_nats().await;
    b.expect_nats().await;
    let gold = json!({"name": "gold", "region": "eu", "tags": {"tier": "gold"}});
    let (gold, plain) = (a.register_with(gold).await, a.register("plain", "eu").await);
    let foreign = a.register("foreign", "us").await;
    a.assign(gold.id, &json!([on("own", "own"), on("both", "own")])).await;
    let mut on_a = Satellite::connect(a.address, &plain).await;
    let (mut on_b, _) = Satellite::welcomed(b.address, &gold).await;
    let mut elsewhere = Satellite::connect(b.address, &foreign).await;

    let begun = Instant::now();
    let of_eu =
        json!({"selector": {"region": "eu"}, "assignments": [on("both", "eu"), on("eu", "eu")]});
    put(&a, "eu", of_eu.clone()).await;
    assert_eq!(updated(&mut on_b).await, pairs(&[("own", "own"), ("both", "own"), ("eu", "eu")]));
    assert_eq!(updated(&mut on_a).await, pairs(&[("both", "eu"), ("eu", "eu")]));
    assert!(begun.elapsed() < PROMPT, "{:?}", begun.elapsed());

    // Of two sets the greater priority wins.
    let of_gold = json!({"selector": {"tags": {"tier": "gold"}}, "priority": 5,
                         "assignments": [on("eu", "gold"), on("both", "gold")]});
    put(&b, "gold", of_gold).await;
    let merged = pairs(&[("own", "own"), ("both", "own"), ("eu", "gold")]);
    assert_eq!(updated(&mut on_b).await, merged);

    // A set that says the same again changes nothing, and one that is deleted leaves what is left.
    let version = put(&b, "eu", of_eu).await;
    assert!(version < a.get(&path("gold")).await.json()["version"].as_i64().expect("a version"));
    assert_eq!(delete(&b, "gold").await.status, 204);
    assert_eq!(updated(&mut on_b).await, pairs(&[("own", "own"), ("both", "own"), ("eu", "eu")]));
    let to_us = json!({"selector": {"region": "us"}, "assignments": [on("us", "us")]});
    put(&a, "eu", to_us).await;
    assert_eq!(updated(&mut on_b).await, pairs(&[("own", "own"), ("both", "own")]));
    assert_eq!(updated(&mut on_a).await, pairs(&[]));
    // It is the first that the other one hears.
    assert_eq!(updated(&mut elsewhere).await, pairs(&[("us", "us")]));
    // A session that begins now is welcomed with the same.
    let (_again, welcome) = Satellite::welcomed(a.address, &foreign).await;
    assert_eq!(sources(&welcome["assignments"]), pairs(&[("us", "us")]));
    fleet.check().await;
}

#[tokio::test]
async fn pods_hear_of_a_set_within_a_second_while_nats_is_away() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = a.register("edge", "eu").await;
    let mut satellite = Satellite::connect(b.address, &credentials).await;
    fleet.own_nats().kill();
    for n in 1..=3 {
        let config = format!("c{n}");
        put(&a, "all", json!({"assignments": [on(&config, "all")]})).await;
        let stored = Instant::now();
        assert_eq!(updated(&mut satellite).await, pairs(&[(&config, "all")]));
        assert!(stored.elapsed() < PROMPT, "{:?}", stored.elapsed());
    }
    let fleet = crate::harness::wait::blocking(move || {
        fleet.own_nats().restart().expect("NATS restarts");
        fleet
    })
    .await;
    fleet.check().await;
}

#[tokio::test]
async fn a_satellite_whose_region_or_tags_change_has_the_sets_of_where_it_is() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = a.register("edge", "eu").await;
    let mut satellite = Satellite::connect(b.address, &credentials).await;
    put(&a, "eu", json!({"selector": {"region": "eu"}, "assignments": [on("c", "eu")]})).await;
    assert_eq!(updated(&mut satellite).await, pairs(&[("c", "eu")]));
    put(&a, "us", json!({"selector": {"region": "us"}, "assignments": [on("c", "us")]})).await;
    let of_gold = json!({"selector": {"tags": {"tier": "gold"}}, "assignments": [on("d", "gold")]});
    put(&a, "gold", of_gold).await;
    let id = format!("/v1/satellites/{}", credentials.id);
    for (change, list) in [
        (json!({"region": "us"}), pairs(&[("c", "us")])),
        (json!({"tags": {"tier": "gold"}}), pairs(&[("d", "gold"), ("c", "us")])),
        (json!({"tags": {"tier": "iron"}}), pairs(&[("c", "us")])),
        (json!({"region": "ap"}), pairs(&[])),
    ] {
        let answer = a.patch(&id, &change).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(updated(&mut satellite).await, list, "{change}");
    }
    // What changes no selection is no other list.
    let version = effective(&a, credentials.id).await["desiredVersion"].clone();
    let renamed = json!({"name": "other", "tags": {"tier": "iron", "rack": "7"}});
    assert_eq!(a.patch(&id, &renamed).await.status, 200);
    assert_eq!(effective(&a, credentials.id).await["desiredVersion"], version);
    fleet.check().await;
}

/// Waits until a satellite is known to have been sent the list in force.
async fn expect_applied(pod: &Pod, id: Uuid) -> Value {
    eventually("the list in force to be sent", async || {
        let found = effective(pod, id).await;
        match found["appliedVersion"] == found["desiredVersion"] {
            true => Ok(found),
            false => Err(found.to_string()),
        }
    })
    .await
}

#[tokio::test]
async fn the_desired_and_the_applied_version_tell_who_was_not_sent_its_list_yet() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = a.register("edge", "eu").await;
    let id = credentials.id;
    assert_eq!(effective(&a, id).await, json!({"desiredVersion": 0, "assignments": []}));
    let version =
        put(&a, "eu", json!({"selector": {"region": "eu"}, "assignments": [on("c", "eu")]})).await;
    let shown = json!({"desiredVersion": version, "assignments": [{"set": "eu", "assignment": on("c", "eu")}]});
    assert_eq!(effective(&a, id).await, shown);
    let (mut satellite, _) = Satellite::welcomed(b.address, &credentials).await;
    assert_eq!(expect_applied(&a, id).await["appliedVersion"], version);

    let own = a.assign(id, &json!([on("d", "own")])).await;
    satellite.expect("config_updated").await;
    let found = expect_applied(&a, id).await;
    assert_eq!(found["desiredVersion"], own);
    let both = json!([{"assignment": on("d", "own")}, {"set": "eu", "assignment": on("c", "eu")}]);
    assert_eq!(found["assignments"], both);

    // Whoever is away keeps the version that it was sent.
    satellite.close().await;
    let newer = put(&a, "eu", json!({"selector": {"region": "eu"}, "assignments": []})).await;
    let found = effective(&b, id).await;
    assert_eq!((&found["desiredVersion"], &found["appliedVersion"]), (&json!(newer), &json!(own)));
    let (_again, _) = Satellite::welcomed(a.address, &credentials).await;
    expect_applied(&b, id).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_removed_satellite_leaves_nothing_behind_and_sets_go_on() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    put(&pod, "eu", json!({"selector": {"region": "eu"}, "assignments": [on("c", "eu")]})).await;
    pod.assign(credentials.id, &json!([on("d", "own")])).await;
    let (mut satellite, _) = Satellite::welcomed(pod.address, &credentials).await;
    expect_applied(&pod, credentials.id).await;
    assert_eq!(pod.remove(credentials.id).await.status, 204);
    satellite.expect("shutdown").await;
    let gone = format!("/v1/satellites/{}/assignments/effective", credentials.id);
    assert_eq!(pod.get(&gone).await.status, 404);
    let sql = fleet.sql().await;
    let left = "select satellite_id from effective_assignments union all
                select satellite_id from satellite_assignments union all select id from satellites";
    assert!(sql.query(left, &[]).await.expect("rows").is_empty());
    let sets = sql.query("select row_to_json(s)::text from assignment_sets s", &[]).await;
    let sets = sets.expect("rows").iter().map(|row| row.get::<_, String>(0)).collect::<String>();
    assert!(!sets.contains(&credentials.id.to_string()), "{sets}");
    let next = pod.register("edge", "eu").await;
    let (_next, welcome) = Satellite::welcomed(pod.address, &next).await;
    assert_eq!(sources(&welcome["assignments"]), pairs(&[("c", "eu")]));
    fleet.check().await;
}

#[tokio::test]
async fn results_and_lists_follow_the_sets_that_are_in_force() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::connect(pod.address, &credentials).await;
    let result = json!({"type": "result", "configId": "c", "systemId": "s", "status": "healthy",
                        "executedAt": "2026-03-01T12:00:00Z"});
    let outcome = |word: &str| format!("groundstation_results_total{{outcome=\"{word}\"}}");
    satellite.send(&result);
    pod.expect_metric(&outcome("not_assigned"), 1.0).await;
    put(&pod, "all", json!({"assignments": [on("c", "all")]})).await;
    satellite.expect("config_updated").await;
    satellite.send(&result);
    pod.expect_metric(&outcome("delivered"), 1.0).await;
    assert_eq!(delete(&pod, "all").await.status, 204);
    satellite.expect("config_updated").await;
    satellite.send(&result);
    pod.expect_metric(&outcome("not_assigned"), 2.0).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_set_is_made_read_listed_replaced_and_deleted_with_if_match() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let send = async |method: &str, name: &str, version: &str, body: Option<Value>| {
        let headers = [("If-Match", version)];
        pod.call_with(method, &path(name), &headers, body.map(|body| body.to_string())).await
    };
    let set = json!({"selector": {"region": "eu", "tags": {"tier": "gold"}}, "priority": -3,
                     "assignments": [on("c", "one")]});
    let made = send("PUT", "web", "\"0\"", Some(set.clone())).await;
    assert_eq!(made.status, 200, "{made:?}");
    let (first, shown) = (made.headers["etag"].clone(), made.json());
    assert_eq!(send("PUT", "web", "\"0\"", Some(set.clone())).await.status, 412);
    let read = pod.get(&path("web")).await;
    assert_eq!((read.json(), &read.headers["etag"]), (shown.clone(), &first));
    for field in ["selector", "priority", "assignments"] {
        assert_eq!(shown[field], set[field]);
    }
    // As it was read it can be sent back.
    let mut next = shown.clone();
    next["assignments"] = json!([on("c", "two"), on("d", "two")]);
    let replaced = send("PUT", "web", &first, Some(next)).await;
    assert_eq!((replaced.status, &replaced.json()["count"]), (200, &json!(2)));
    assert!(replaced.json()["version"].as_i64() > shown["version"].as_i64());
    for stale in
        [send("PUT", "web", &first, Some(set)).await, send("DELETE", "web", &first, None).await]
    {
        assert_eq!(
            (stale.status, stale.json()["type"].as_str()),
            (412, Some("urn:groundstation:problem:changed-meanwhile"))
        );
    }
    put(&pod, "all", json!({"assignments": []})).await;
    let listed = pod.get(SETS).await.json();
    let names: Vec<_> =
        listed["sets"].as_array().expect("a list").iter().map(|s| &s["name"]).collect();
    assert_eq!(names, ["all", "web"]);
    assert!(
        listed["sets"].as_array().expect("a list").iter().all(|s| s.get("assignments").is_none())
    );
    assert_eq!(send("DELETE", "web", &replaced.headers["etag"], None).await.status, 204);
    for gone in [pod.get(&path("web")).await, delete(&pod, "web").await] {
        assert_eq!(gone.status, 404, "{gone:?}");
        assert_eq!(gone.json()["type"], "urn:groundstation:problem:unknown-assignment-set");
    }
    let wrong =
        pod.put(&path("web"), &json!({"assignments": [], "selectr": {"region": "eu"}})).await;
    assert_eq!((wrong.status, &wrong.json()["path"]), (422, &json!("selectr")));
    let wrong = pod.put(&path("Web"), &json!({"assignments": []})).await;
    assert_eq!((wrong.status, &wrong.json()["path"]), (422, &json!("name")));
    // Who did what stays.
    let history =
        "select action, name, actor_id, stored is null from assignment_set_changes order by change";
    let rows = fleet.sql().await.query(history, &[]).await.expect("rows");
    let rows: Vec<(String, String, String, bool)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect();
    let row = |action: &str, name: &str| {
        (action.to_owned(), name.to_owned(), "admin".to_owned(), action == "deleted")
    };
    assert_eq!(
        rows,
        [row("stored", "web"), row("stored", "web"), row("stored", "all"), row("deleted", "web")]
    );
    fleet.check().await;
}

/// A change that is refused: which field, and what the words name.
fn refused(answer: &Answer, field: &str, words: &[&str]) {
    assert_eq!((answer.status, &answer.json()["path"]), (422, &json!(field)), "{answer:?}");
    let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
    assert!(words.iter().all(|word| detail.contains(word)), "{detail}");
}

#[tokio::test]
async fn no_satellite_has_more_than_500_assignments_and_who_would_is_named_with_the_set() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let Credentials { id, .. } = pod.register("edge", "eu").await;
    put(&pod, "eu", json!({"selector": {"region": "eu"}, "assignments": many(300, "eu")})).await;
    let own = format!("/v1/satellites/{id}/assignments");
    let version = pod.assign(id, &many(200, "own")).await;
    // Its own list.
    let answer = pod.put(&own, &many(201, "own")).await;
    refused(&answer, "assignments", &["\"edge\"", &id.to_string(), "(eu)", "at most 500", "501"]);
    // A pair that both have counts once.
    let mut both = many(200, "own");
    both.as_array_mut().expect("a list").push(on("eu0", "own"));
    assert!(pod.assign(id, &both).await > version);
    // A set.
    let larger = json!({"selector": {"region": "eu"}, "assignments": many(301, "eu")});
    refused(&pod.put(&path("eu"), &larger).await, "assignments", &["eu is for", "\"edge\"", "501"]);
    // Two sets, whatever satellites there are.
    let beside = json!({"selector": {"tags": {"tier": "gold"}}, "assignments": many(201, "gold")});
    refused(
        &pod.put(&path("gold"), &beside).await,
        "assignments",
        &["at most 500", "satellite: eu"],
    );
    // Another region.
    put(&pod, "us", json!({"selector": {"region": "us"}, "assignments": many(301, "us")})).await;
    let moved = pod.patch(&format!("/v1/satellites/{id}"), &json!({"region": "us"})).await;
    refused(&moved, "region", &["\"edge\"", "(us)", "502"]);
    assert_eq!(pod.show(id).await["region"], "eu");
    // Nothing of what was refused is there.
    let found = effective(&pod, id).await;
    assert_eq!(found["assignments"].as_array().expect("a list").len(), 500);
    fleet.check().await;
}

#[tokio::test]
async fn a_bounded_token_sees_and_changes_the_sets_of_its_part_of_the_fleet_and_no_others() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    put(&pod, "all", json!({"assignments": [on("c", "all")]})).await;
    put(&pod, "us", json!({"selector": {"region": "us"}, "assignments": []})).await;
    let eu = json!({"name": "eu", "role": "operator", "selector": {"region": "eu"}});
    let eu = pod.make_token(&eu).await;
    let read = pod
        .make_token(&json!({"name": "board", "role": "read", "selector": {"region": "eu"}}))
        .await;
    let ask = async |token: &str, method: &str, name: &str, body: Option<Value>| {
        pod.call(method, &path(name), Some(token), body.map(|body| body.to_string())).await
    };
    let own = json!({"selector": {"region": "eu", "tags": {"tier": "gold"}}, "assignments": [on("c", "eu")]});
    assert_eq!(ask(&eu.secret, "PUT", "eu", Some(own.clone())).await.status, 200);
    for (name, selector, field) in [
        ("all-2", None, "selector.region"),
        ("us-2", Some(json!({"region": "us"})), "selector.region"),
        ("gold", Some(json!({"tags": {"tier": "gold"}})), "selector.region"),
        // Nor one that is its own at present.
        ("eu", Some(json!({"region": "us"})), "selector.region"),
    ] {
        let mut body = json!({"assignments": []});
        if let Some(selector) = selector {
            body["selector"] = selector;
        }
        let answer = ask(&eu.secret, "PUT", name, Some(body)).await;
        assert_eq!(
            (answer.status, &answer.json()["path"]),
            (403, &json!(field)),
            "{name}: {answer:?}"
        );
    }
    // Another's is not there, but its name is taken.
    for name in ["all", "us", "never"] {
        assert_eq!(ask(&eu.secret, "GET", name, None).await.status, 404, "{name}");
        assert_eq!(ask(&eu.secret, "DELETE", name, None).await.status, 404, "{name}");
    }
    assert_eq!(ask(&eu.secret, "PUT", "us", Some(own)).await.status, 409);
    for token in [&eu, &read] {
        let listed = pod.call("GET", SETS, Some(&token.secret), None).await.json();
        let names: Vec<_> =
            listed["sets"].as_array().expect("a list").iter().map(|s| &s["name"]).collect();
        assert_eq!(names, ["eu"]);
    }
    assert_eq!(ask(&read.secret, "DELETE", "eu", None).await.status, 403);
    // Of its own satellites it sees all that they check.
    let gold = json!({"name": "gold", "region": "eu", "tags": {"tier": "gold"}});
    let (inside, outside) = (pod.register_with(gold).await, pod.register("outside", "us").await);
    let of = |id: Uuid| format!("/v1/satellites/{id}/assignments/effective");
    let shown = pod.call("GET", &of(inside.id), Some(&read.secret), None).await.json();
    assert_eq!(shown["assignments"][0]["set"], "all");
    assert_eq!(pod.status_with(&read.secret, &of(outside.id)).await, 404);
    let by = "select actor_id from assignment_set_changes where name = 'eu'";
    assert_eq!(
        fleet.sql().await.query_one(by, &[]).await.expect("a row").get::<_, String>(0),
        "eu"
    );
    assert_eq!(ask(&eu.secret, "DELETE", "eu", None).await.status, 204);
    fleet.check().await;
}

#[tokio::test]
async fn whoever_authenticates_while_sets_and_lists_are_replaced_ends_with_what_is_in_force() {
    const ROUNDS: u64 = 10;
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = a.register("edge", "eu").await;
    for round in 0..ROUNDS {
        let change = async {
            for n in 0..4 {
                let name = format!("r{round}n{n}");
                put(
                    &a,
                    "eu",
                    json!({"selector": {"region": "eu"}, "assignments": [on(&name, "eu")]}),
                )
                .await;
                a.assign(credentials.id, &json!([on(&format!("own{name}"), "own")])).await;
                put(&b, "all", json!({"assignments": [on(&format!("all{name}"), "all")]})).await;
            }
        };
        let listen = async {
            tokio::time::sleep(Duration::from_millis(round * 3)).await;
            Satellite::welcomed(b.address, &credentials).await
        };
        let ((mut satellite, welcome), ()) = tokio::join!(listen, change);
        let last = format!("r{round}n3");
        let expected =
            pairs(&[(&format!("own{last}"), "own"), (&format!("all{last}"), "all"), (&last, "eu")]);
        let mut heard = sources(&welcome["assignments"]);
        while heard != expected {
            heard = updated(&mut satellite).await;
        }
        // Nothing older follows: the next that it hears is the next there is.
        a.assign(credentials.id, &json!([])).await;
        assert_eq!(updated(&mut satellite).await, expected[1..]);
        satellite.close().await;
    }
    fleet.check().await;
}
