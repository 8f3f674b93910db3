//! A token that reaches a part of the fleet sees nothing of the rest, on no route, now and in the past, and changes
//! nothing there.

use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::pod::{Answer, NamedToken};
use crate::harness::reader::Reader;
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, eventually};

/// How a word of a satellite that is outside begins: names, regions, tags.
const FOREIGN: &str = "foreign";

/// Satellites inside and outside of a selector, each with a past.
struct World {
    fleet: Fleet,
    pod: Pod,
    /// Made with each selector that has the same satellites inside.
    tokens: Vec<NamedToken>,
    own: Credentials,
    /// In another region, with another tag, with the tag and another value, moved out, removed.
    foreign: Vec<Credentials>,
    open: Vec<Satellite>,
}

fn described(name: &str, region: &str, tier: &str) -> Value {
    json!({"name": name, "region": region, "tags": {"tier": tier, "rack": "7"}})
}

impl World {
    async fn new() -> World {
        let fleet = Fleet::new(CALM).await;
        let pod = fleet.plan("a").with("GROUNDSTATION_STREAM_LIFETIME", "300ms").start().await;
        let own = pod.register_with(described("own", "eu", "gold")).await;
        let elsewhere = described("foreign elsewhere", "foreign region", "foreign tier");
        let elsewhere = pod.register_with(elsewhere).await;
        // They were inside once.
        let moved = pod.register_with(described("foreign moved", "eu", "gold")).await;
        let removed = pod.register_with(described("foreign removed", "eu", "gold")).await;
        let foreign = vec![elsewhere, moved, removed];
        let mut open = Vec::new();
        for credentials in [&own].into_iter().chain(&foreign) {
            Satellite::connect(pod.address, credentials).await.close().await;
            open.push(Satellite::connect(pod.address, credentials).await);
        }
        fleet.expect_log_length(12).await;
        let path = format!("/v1/satellites/{}", foreign[1].id);
        let out = json!({"region": "foreign region", "tags": {"tier": "foreign tier"}});
        assert_eq!(pod.patch(&path, &out).await.status, 200);
        assert_eq!(pod.remove(foreign[2].id).await.status, 204);
        fleet.expect_log_length(13).await;
        let mut tokens = Vec::new();
        for (n, selector) in [
            json!({"region": "eu"}),
            json!({"tags": {"tier": "gold"}}),
            json!({"region": "eu", "tags": {"tier": "gold", "rack": "7"}}),
        ]
        .into_iter()
        .enumerate()
        {
            let role = ["admin", "operator", "operator"][n];
            let token = json!({"name": format!("token {n}"), "role": role, "selector": selector});
            tokens.push(pod.make_token(&token).await);
        }
        World { fleet, pod, tokens, own, foreign, open }
    }

    async fn ask(
        &self,
        token: &NamedToken,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        let body = body.map(|body| body.to_string());
        self.pod.call(method, path, Some(&token.secret), body).await
    }

    async fn get(&self, token: &NamedToken, path: &str) -> Answer {
        self.ask(token, "GET", path, None).await
    }

    /// An answer has nothing of a satellite that is outside.
    fn is_clean(&self, asked: &str, answer: &Answer) {
        let text = &answer.text;
        assert!(!text.contains(FOREIGN), "{asked}: {answer:?}");
        for foreign in &self.foreign {
            assert!(!text.contains(&foreign.id.to_string()), "{asked}: {answer:?}");
        }
    }
}

/// What each parameter of the document can be asked with, foreign values first.
fn values(world: &World, name: &str) -> Vec<String> {
    let ids: Vec<String> = world.foreign.iter().map(|foreign| foreign.id.to_string()).collect();
    let some: &[&str] = match name {
        "region" => &["foreign%20region", "eu"],
        "tag" => &["tier:foreign%20tier", "tier:gold"],
        "q" => &["foreign", "o"],
        "position" => &["12", "13", "1"],
        "at" => &["2026-01-01T00:00:00Z"],
        "after" => &["0"],
        "sort" => &["region", "-lastSeenAt", "createdAt"],
        "order" => &["desc"],
        "offset" => &["0"],
        "limit" => &["1"],
        "status" => &["online", "offline"],
        "event" => &["connected", "removed"],
        "lastEvent" => &["connected"],
        "field" => &["name", "region", "status"],
        "window" => &["1h"],
        "ids" => return vec![ids.join(","), format!("{},{}", world.own.id, ids[0])],
        "satellite" => return ids,
        "since" => &["2026-01-01T00:00:00Z"],
        "threshold" => &["1h", "1ms"],
        "target" => &["tier"],
        _ => &[],
    };
    some.iter().map(|value| (*value).to_owned()).collect()
}

#[tokio::test]
async fn no_route_of_the_document_shows_anything_of_a_satellite_outside() {
    let world = World::new().await;
    let document = world.pod.get("/openapi.json").await.json();
    let mut asked = 0;
    for token in &world.tokens {
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                if !path.starts_with("/v1/") {
                    continue;
                }
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let needed = parameters.iter().find(|parameter| {
                    parameter["in"] == "query" && parameter["required"] == json!(true)
                });
                let needed = needed.map(|needed| needed["name"].as_str().expect("a name"));
                let mut queries = match needed {
                    Some(name) => {
                        values(&world, name).iter().map(|v| format!("{name}={v}")).collect()
                    }
                    None => vec![String::new()],
                };
                for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
                    let name = parameter["name"].as_str().expect("a name");
                    let of_needed = needed.map_or(String::new(), |needed| {
                        format!("{needed}={}&", values(&world, needed)[0])
                    });
                    if Some(name) != needed {
                        let of_each = values(&world, name);
                        queries.extend(
                            of_each.iter().map(|value| format!("{of_needed}{name}={value}")),
                        );
                    }
                }
                let body = (method != "get").then(|| json!({}));
                let ids = world.foreign.iter().map(|foreign| foreign.id);
                let ids: Vec<Uuid> =
                    if path.contains("{id}") { ids.collect() } else { vec![world.own.id] };
                for (id, query) in ids.iter().flat_map(|id| queries.iter().map(move |q| (id, q))) {
                    let of = |id: Uuid| path.replace("{id}", &id.to_string());
                    let path = format!("{}?{query}", of(*id));
                    let said = format!("{} {path}", method.to_uppercase());
                    let answer =
                        world.ask(token, &method.to_uppercase(), &path, body.clone()).await;
                    assert!(answer.status < 500, "{said}: {answer:?}");
                    asked += 1;
                    if path.contains(&id.to_string())
                        || query.contains("ids=")
                        || query.contains("satellite=")
                    {
                        // What was asked for may be said back: then it is what is said of one that never was.
                        let foreign = world.foreign.iter().map(|foreign| foreign.id.to_string());
                        let (mut nobody, mut shown) = (path.clone(), answer.text.clone());
                        for id in foreign {
                            let never = Uuid::new_v4().to_string();
                            nobody = nobody.replace(&id, &never);
                            shown = shown.replace(&id, &never);
                        }
                        let of_nobody =
                            world.ask(token, &method.to_uppercase(), &nobody, body.clone()).await;
                        assert_eq!(answer.status, of_nobody.status, "{said}: {answer:?}");
                        if !path.contains("stream") && !query.contains("ids=") {
                            assert_eq!(shown, of_nobody.text, "{said}");
                        }
                        assert!(!answer.text.contains(FOREIGN), "{said}: {answer:?}");
                    } else {
                        world.is_clean(&said, &answer);
                    }
                }
            }
        }
    }
    assert!(asked > 150, "{asked} questions");
    // Nothing was changed.
    let elsewhere = world.pod.show(world.foreign[0].id).await;
    assert_eq!(elsewhere["name"], "foreign elsewhere");
}

#[tokio::test]
async fn what_is_inside_is_shown_counted_and_told_as_if_it_were_all() {
    let world = World::new().await;
    let list = |answer: &Answer, of: &str| answer.json()[of].as_array().expect("a list").clone();
    for token in &world.tokens {
        let names = async |query: &str| -> Vec<String> {
            let answer = world.get(token, &format!("/v1/satellites?{query}")).await;
            assert_eq!(answer.status, 200, "{query}: {answer:?}");
            let names = list(&answer, "satellites");
            names.iter().map(|s| s["name"].as_str().expect("a name").to_owned()).collect()
        };
        for (query, found) in [
            ("", &["own"][..]),
            ("region=eu&tag=tier:gold", &["own"]),
            ("q=w", &["own"]),
            ("region=foreign%20region", &[]),
            ("tag=tier:foreign%20tier", &[]),
            ("position=12", &["own"]),
            ("position=12&sort=name", &["own"]),
            ("position=12&region=foreign%20region", &[]),
            ("sort=-lastSeenAt", &["own"]),
        ] {
            assert_eq!(names(query).await, found, "{query}");
        }
        for (query, total) in [("", 1), ("?region=foreign%20region", 0), ("?position=12", 1)] {
            let counts = world.get(token, &format!("/v1/fleet{query}")).await.json();
            assert_eq!(counts["total"], total, "{query}: {counts}");
            let regions = counts["regions"].as_array().expect("a list");
            assert!(regions.iter().all(|region| region["region"] == "eu"), "{query}: {counts}");
        }
        let timeline = world.get(token, "/v1/fleet/timeline?step=1h").await;
        let last = list(&timeline, "points").pop().expect("a point");
        assert!(
            last["online"].as_i64().expect("a count") + last["offline"].as_i64().expect("a count")
                <= 1
        );
        let transitions = list(&world.get(token, "/v1/transitions").await, "transitions");
        assert_eq!(transitions.len(), 3);
        let own = world.own.id.to_string();
        assert!(transitions.iter().all(|transition| transition["id"] == own));
        let newest =
            list(&world.get(token, "/v1/transitions?order=desc&limit=1").await, "transitions");
        assert_eq!(newest, transitions[2..]);
        let path = format!("/v1/satellites/{own}");
        assert_eq!(
            list(&world.get(token, &format!("{path}/transitions")).await, "transitions"),
            transitions
        );
        assert_eq!(world.get(token, &path).await.json()["name"], "own");
        assert_eq!(world.get(token, &format!("{path}/stats")).await.json()["value"], "online");
        assert_eq!(world.get(token, &format!("{path}/assignments")).await.status, 200);
        let ids = format!("{own},{}", world.foreign[0].id);
        let intervals = world.get(token, &format!("/v1/intervals?ids={ids}")).await.json();
        let last =
            |id: &str| intervals["intervals"][id].as_array().and_then(|runs| runs.last()).cloned();
        assert_eq!(last(&own).expect("a run")["state"], "up");
        assert_eq!(last(&world.foreign[0].id.to_string()).expect("a run")["state"], "unknown");
        // The page's number of positions is the log's: it tells how much there is, and nothing of what.
        assert_eq!(world.get(token, "/v1/tokens").await.status, 403);
    }
    // The whole fleet is there for whoever reaches it.
    assert_eq!(world.pod.get("/v1/fleet").await.json()["total"], 3);
}

#[tokio::test]
async fn a_bounded_timeline_counts_what_a_fleet_of_only_those_would() {
    let world = World::new().await;
    // Points every second over the last minute, while satellites outside come and go.
    let since = "select to_char((now() - interval '1 minute') at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let since: String = world.fleet.sql().await.query_one(since, &[]).await.expect("a time").get(0);
    let path = format!("/v1/fleet/timeline?step=1s&since={since}");
    // The last point is up to a second old.
    let last = async |token: &str, online: i64| {
        eventually("the last point", async || {
            let answer = world.pod.call("GET", &path, Some(token), None).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let points = answer.json()["points"].as_array().expect("points").clone();
            let last = points.last().map(|point| point["online"].clone());
            if last == Some(json!(online)) { Ok(points) } else { Err(format!("{last:?}")) }
        })
        .await
    };
    last(&world.fleet.admin_token, 3).await;
    for token in &world.tokens {
        for point in last(&token.secret, 1).await {
            let count = |of: &str| point[of].as_i64().expect("a count");
            assert!(count("online") + count("offline") <= 1, "{point}");
        }
    }
}

#[tokio::test]
async fn nothing_is_registered_or_moved_outside_and_what_is_outside_is_not_there() {
    let world = World::new().await;
    let path = format!("/v1/satellites/{}", world.own.id);
    let [by_region, by_tags, by_both] = &world.tokens[..] else { panic!("three tokens") };
    let gold = json!({"tier": "gold", "rack": "7"});
    for (token, body, field) in [
        (by_region, json!({"name": "new", "region": "us"}), "region"),
        (by_tags, json!({"name": "new", "region": "eu"}), "tags.tier"),
        (by_tags, json!({"name": "new", "region": "eu", "tags": {"tier": "iron"}}), "tags.tier"),
        (by_both, json!({"name": "new", "region": "us", "tags": gold}), "region"),
        (by_both, json!({"name": "new", "region": "eu", "tags": {"tier": "gold"}}), "tags.rack"),
    ] {
        let refused = world.ask(token, "POST", "/v1/satellites", Some(body.clone())).await;
        let problem = refused.json();
        assert_eq!((refused.status, &problem["path"]), (403, &json!(field)), "{body}: {refused:?}");
        assert_eq!(problem["type"], "urn:groundstation:problem:outside-of-selector");
        let moved = world.ask(token, "PATCH", &path, Some(body.clone())).await;
        let is_named = body.get("tags").is_some() || field == "region";
        assert_eq!(moved.status, if is_named { 403 } else { 200 }, "{body}: {moved:?}");
    }
    let own = world.pod.show(world.own.id).await;
    assert_eq!((&own["region"], &own["tags"]["tier"]), (&json!("eu"), &json!("gold")));
    for token in &world.tokens {
        let body = json!({"name": "new", "region": "eu", "tags": gold});
        let made = world.ask(token, "POST", "/v1/satellites", Some(body)).await;
        assert_eq!(made.status, 201, "{made:?}");
        let id = made.json()["satellite"]["id"].as_str().expect("an id").to_owned();
        let path = format!("/v1/satellites/{id}");
        let renamed = world
            .ask(token, "PATCH", &path, Some(json!({"name": "renamed", "region": "eu"})))
            .await;
        assert_eq!((renamed.status, &renamed.json()["name"]), (200, &json!("renamed")));
        assert_eq!(world.ask(token, "DELETE", &path, None).await.status, 204);
        assert_eq!(world.get(token, &path).await.status, 404);
        for foreign in &world.foreign {
            let path = format!("/v1/satellites/{}", foreign.id);
            for (method, path, body) in [
                ("GET", path.clone(), None),
                ("PATCH", path.clone(), Some(json!({"region": "eu", "tags": gold}))),
                ("PUT", format!("{path}/assignments"), Some(json!({"assignments": []}))),
                ("POST", format!("{path}/token"), Some(json!({}))),
                ("DELETE", path.clone(), None),
                ("GET", format!("{path}/transitions"), None),
                ("GET", format!("{path}/stats"), None),
                // Written another way it is the same.
                ("GET", path.replacen('-', "%2d", 1), None),
                ("GET", path.to_uppercase().replace("/V1/SATELLITES", "/v1/satellites"), None),
            ] {
                let answer = world.ask(token, method, &path, body).await;
                assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
                assert_eq!(answer.json()["type"], "urn:groundstation:problem:unknown-satellite");
            }
        }
    }
    assert_eq!(world.pod.show(world.foreign[0].id).await["region"], "foreign region");
}

#[tokio::test]
async fn a_key_that_registered_a_satellite_which_has_moved_out_shows_nothing_of_it() {
    let world = World::new().await;
    let token = &world.tokens[0];
    let body = json!({"name": "new", "region": "eu"}).to_string();
    let bearer = format!("Bearer {}", token.secret);
    let register = async || {
        let headers = [("Idempotency-Key", "order 1"), ("Authorization", bearer.as_str())];
        crate::harness::asked::ask(
            &world.pod,
            "POST",
            "/v1/satellites",
            &[headers[0], headers[1], ("Content-Type", "application/json")],
            &body,
        )
        .await
    };
    let first = register().await;
    assert_eq!(first.status, 201, "{first:?}");
    let id = first.json()["satellite"]["id"].as_str().expect("an id").to_owned();
    assert_eq!(register().await.status, 201);
    let out = json!({"name": "foreign now", "region": "foreign region"});
    assert_eq!(world.pod.patch(&format!("/v1/satellites/{id}"), &out).await.status, 200);
    let again = register().await;
    assert_eq!(again.status, 422, "{again:?}");
    let said = String::from_utf8_lossy(&again.body);
    assert!(!said.contains(FOREIGN) && !said.contains(&id), "{said}");
}

#[tokio::test]
async fn a_live_stream_has_what_is_inside_and_moves_on_past_the_rest() {
    let world = World::new().await;
    let World { fleet, own, foreign, .. } = &world;
    let pod = fleet.pod("b").await;
    let own_id = own.id.to_string();
    for token in &world.tokens {
        for query in ["?after=0", "?after=0&region=foreign%20region", "?after=0&event=removed"] {
            let mut reader = Reader::open(pod.address, &token.secret, query, None).await;
            if query == "?after=0" {
                for _ in 0..3 {
                    assert_eq!(reader.next().await.expect("an event")["id"], own_id);
                }
            }
            let more = tokio::time::timeout(Duration::from_millis(1_500), reader.next()).await;
            assert!(more.is_err(), "{query}: {more:?}");
            assert_eq!(reader.last.as_deref(), Some("13"), "{query}");
        }
    }
    // What comes while it is open.
    let mut readers = Vec::new();
    for token in &world.tokens {
        let mut reader = Reader::open(pod.address, &token.secret, "", None).await;
        reader.begun().await;
        readers.push(reader);
    }
    Satellite::connect(pod.address, &foreign[0]).await.close().await;
    Satellite::connect(pod.address, own).await.close().await;
    for reader in &mut readers {
        for event in ["connected", "disconnected"] {
            let next = reader.next().await.expect("an event");
            assert_eq!((&next["id"], &next["event"]), (&json!(own_id), &json!(event)));
        }
    }
    drop(world.open);
}

#[tokio::test]
async fn a_satellite_that_moves_in_is_there_with_its_past_in_the_region_and_without_the_rest() {
    let world = World::new().await;
    let [by_region, by_tags, _] = &world.tokens[..] else { panic!("three tokens") };
    let id = world.foreign[0].id;
    let path = format!("/v1/satellites/{id}");
    let inside = json!({"name": "came in", "region": "eu", "tags": {"tier": "gold", "rack": "7"}});
    assert_eq!(world.pod.patch(&path, &inside).await.status, 200);
    let transitions = async |token: &NamedToken| {
        let page = world.get(token, &format!("{path}/transitions")).await;
        assert_eq!(page.status, 200, "{page:?}");
        page.json()["transitions"].as_array().expect("a list").len()
    };
    // Its edges were in the other region; tags are not in edges.
    assert_eq!((transitions(by_region).await, transitions(by_tags).await), (0, 3));
    let then = world.get(by_region, "/v1/satellites?position=12").await.json();
    assert_eq!(
        then["satellites"].as_array().expect("a list").len(),
        1,
        "it was outside then: {then}"
    );
    let now = world.get(by_region, "/v1/satellites").await.json();
    assert_eq!(now["satellites"].as_array().expect("a list").len(), 2, "{now}");
    // And one that leaves is gone with all its past.
    let out = json!({"region": "us", "tags": {}});
    assert_eq!(
        world.pod.patch(&format!("/v1/satellites/{}", world.own.id), &out).await.status,
        200
    );
    for token in [by_region, by_tags] {
        let then = world.get(token, "/v1/satellites?position=12").await;
        assert!(!then.text.contains(&world.own.id.to_string()), "{then:?}");
        let log = world.get(token, "/v1/transitions").await;
        assert!(!log.text.contains(&world.own.id.to_string()), "{log:?}");
    }
}
