//! A planned window withholds nothing: its edges are appended and published as ever, and name it. What was in it is told
//! apart, now and as of the past.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::harness::log_and_stream::{differences, read_log, read_stream};
use crate::harness::program::ran;
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, eventually};

/// So many minutes from now.
fn minutes(n: i64) -> String {
    let moment = OffsetDateTime::now_utc() + time::Duration::minutes(n);
    moment.format(&Rfc3339).expect("a time")
}

async fn plan(pod: &Pod, selector: Value) -> String {
    let window = json!({"selector": selector, "to": minutes(60), "reason": "an upgrade"});
    let planned = pod.post("/v1/maintenance", &window).await;
    assert_eq!(planned.status, 201, "{planned:?}");
    planned.json()["id"].as_str().expect("an id").to_owned()
}

async fn end(pod: &Pod, id: &str) {
    let ended = pod.call_with("DELETE", &format!("/v1/maintenance/{id}"), &[], None).await;
    assert_eq!(ended.status, 204, "{ended:?}");
}

/// Which window each edge of a satellite names, oldest first.
async fn named(pod: &Pod, satellite: &Credentials) -> Vec<Value> {
    let path = format!("/v1/satellites/{}/transitions", satellite.id);
    let page = pod.get(&path).await.json();
    let transitions = page["transitions"].as_array().expect("a page").clone();
    transitions.iter().map(|transition| transition["maintenanceId"].clone()).collect()
}

#[tokio::test]
async fn edges_in_a_window_name_it_in_the_log_and_on_the_stream_and_edges_after_its_end_do_not() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (eu, us) = (pod.register("edge-eu", "eu").await, pod.register("edge-us", "us").await);
    Satellite::connect(pod.address, &eu).await.close().await;
    fleet.expect_log_length(2).await;
    let window = plan(&pod, json!({"region": "eu"})).await;
    let in_it = Satellite::connect(pod.address, &eu).await;
    let _beside = Satellite::connect(pod.address, &us).await;

    let shown = pod.show(eu.id).await;
    assert_eq!(shown["maintenance"]["id"], json!(window), "{shown}");
    assert_eq!(shown["maintenance"]["reason"], "an upgrade");
    assert_eq!(shown["status"], "online", "it is what it is besides");
    assert!(pod.show(us.id).await.get("maintenance").is_none());
    assert_eq!(pod.get("/v1/fleet").await.json()["inMaintenance"], 1);

    end(&pod, &window).await;
    in_it.close().await;
    fleet.expect_log_length(5).await;
    let none = Value::Null;
    let of_it = json!(window);
    let edges = named(&pod, &eu).await;
    assert_eq!(edges, [none.clone(), none.clone(), of_it, none.clone()]);
    assert_eq!(named(&pod, &us).await, [none]);
    assert!(pod.show(eu.id).await.get("maintenance").is_none());
    assert_eq!(pod.get("/v1/fleet").await.json()["inMaintenance"], 0);

    let (sql, nats) = (fleet.sql().await, fleet.nats().await);
    eventually("the window on the stream", async || {
        let stream = read_stream(&nats).await;
        let differences = differences(&read_log(&sql).await, &stream);
        let heads = stream.iter().filter(|message| {
            message.headers.get("Groundstation-Maintenance").is_some_and(|id| *id == window)
        });
        match (differences.is_empty(), heads.count()) {
            (true, 1) => Ok(()),
            (_, heads) => Err(format!("{heads} messages name it; {differences:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn of_overlapping_windows_an_edge_names_the_one_that_began_first() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let first = plan(&pod, json!({"ids": [edge.id]})).await;
    let second = plan(&pod, json!({"region": "eu"})).await;
    Satellite::connect(pod.address, &edge).await.close().await;
    fleet.expect_log_length(2).await;
    end(&pod, &first).await;
    Satellite::connect(pod.address, &edge).await.close().await;
    fleet.expect_log_length(4).await;
    let (first, second) = (json!(first), json!(second));
    assert_eq!(named(&pod, &edge).await, [first.clone(), first, second.clone(), second]);
}

#[tokio::test]
async fn time_in_a_window_is_counted_apart_and_the_past_knows_who_was_in_one() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &edge).await;
    fleet.expect_log_length(1).await;
    let window = plan(&pod, json!({"tags": {}, "region": "eu"})).await;
    // Something happens within it, and its end is a moment later than its begin.
    satellite.close().await;
    fleet.expect_log_length(2).await;
    let within = pod.get("/v1/transitions").await.json()["transitions"][1]["recordedAt"].clone();
    end(&pod, &window).await;
    let _again = Satellite::connect(pod.address, &edge).await;
    fleet.expect_log_length(3).await;

    let intervals = pod.get(&format!("/v1/intervals?ids={}", edge.id)).await.json();
    let states: Vec<&str> = intervals["intervals"][edge.id.to_string()]
        .as_array()
        .unwrap_or_else(|| panic!("{intervals}"))
        .iter()
        .filter_map(|interval| interval["state"].as_str())
        .collect();
    let planned = states.iter().filter(|state| **state == "maintenance").count();
    assert_eq!((planned, states.last()), (1, Some(&"up")), "{intervals}");
    let stats = pod.get(&format!("/v1/satellites/{}/stats?window=1h", edge.id)).await.json();
    assert!(stats["maintenanceMs"].as_i64().is_some_and(|ms| ms > 0), "{stats}");

    let then = pod.get("/v1/satellites?position=2").await.json();
    assert_eq!(then["satellites"][0]["maintenance"]["id"], json!(window), "{then}");
    let at = within.as_str().expect("a time");
    assert_eq!(pod.get(&format!("/v1/fleet?at={at}")).await.json()["inMaintenance"], 1);
    let now = pod.get("/v1/fleet?position=3").await.json();
    assert_eq!(now["inMaintenance"], 0, "{now}");
}

#[tokio::test]
async fn windows_are_listed_by_state_and_their_planning_and_end_are_in_the_audit() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let over = plan(&pod, json!({"ids": [edge.id]})).await;
    end(&pod, &over).await;
    end(&pod, &over).await;
    let later = json!({"selector": {"region": "us"}, "from": minutes(30), "to": minutes(60), "reason": "a move"});
    let later = pod.post("/v1/maintenance", &later).await.json();
    assert_eq!(later["state"], "planned");
    let states = async |query: &str| -> Vec<Value> {
        let page = pod.get(&format!("/v1/maintenance{query}")).await.json();
        let windows = page["windows"].as_array().expect("a page").clone();
        windows.iter().map(|window| window["state"].clone()).collect()
    };
    assert_eq!(states("").await, ["planned", "over"]);
    assert_eq!(states("?state=over").await, ["over"]);
    assert_eq!(states(&format!("?satellite={}", edge.id)).await, ["over"]);
    let first = pod.get("/v1/maintenance?limit=1").await.json();
    let cursor = first["nextCursor"].as_str().expect("more");
    assert_eq!(states(&format!("?limit=1&cursor={cursor}")).await, ["over"]);

    let audit = pod.get("/v1/audit").await.json();
    let entries = audit["entries"].as_array().expect("entries");
    let of_it = |action: &str| -> Vec<&Value> {
        entries.iter().filter(|entry| entry["action"] == action).collect()
    };
    let (planned, ended) = (of_it("maintenance.planned"), of_it("maintenance.ended"));
    assert_eq!((planned.len(), ended.len()), (2, 1), "{audit}");
    assert_eq!(planned[0]["target"], json!({"kind": "maintenance", "id": over}));
    assert_eq!(planned[0]["after"]["reason"], "an upgrade");

    for (body, words) in [
        (json!({"to": minutes(-1), "reason": "x"}), "to must be after from"),
        (json!({"to": minutes(60)}), "reason"),
        (
            json!({"from": minutes(600_000), "to": minutes(600_001), "reason": "x"}),
            "from must be at most 366 days",
        ),
    ] {
        let refused = pod.post("/v1/maintenance", &body).await;
        assert_eq!(refused.status, 422, "{refused:?}");
        assert!(refused.text.contains(words), "{refused:?}");
    }
    let unknown =
        json!({"selector": {"ids": [uuid::Uuid::nil()]}, "to": minutes(60), "reason": "x"});
    assert_eq!(pod.post("/v1/maintenance", &unknown).await.status, 404);
    assert_eq!(pod.get("/v1/maintenance?state=begun").await.status, 422);
}

#[tokio::test]
async fn an_operator_of_one_region_plans_and_ends_nothing_for_another() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (eu, us) = (pod.register("edge-eu", "eu").await, pod.register("edge-us", "us").await);
    let described = json!({"name": "of eu", "role": "operator", "selector": {"region": "eu"}});
    let operator = pod.make_token(&described).await;
    let call = async |method: &str, path: &str, body: Option<Value>| {
        pod.call(method, path, Some(&operator.secret), body.map(|body| body.to_string())).await
    };
    let of = |selector: Value| json!({"selector": selector, "to": minutes(60), "reason": "mine"});
    for (body, status) in [
        (of(json!({"region": "us"})), 403),
        (of(json!({"tags": {"tier": "gold"}})), 403),
        (json!({"to": minutes(60), "reason": "all"}), 403),
        (of(json!({"ids": [us.id]})), 404),
        (of(json!({"ids": [eu.id, us.id]})), 404),
        (of(json!({"region": "eu"})), 201),
        (of(json!({"ids": [eu.id]})), 201),
    ] {
        let answer = call("POST", "/v1/maintenance", Some(body.clone())).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
    }
    let foreign = plan(&pod, json!({"region": "us"})).await;
    let everybody = plan(&pod, json!({"ids": [eu.id, us.id]})).await;
    let windows = call("GET", "/v1/maintenance", None).await;
    assert!(!windows.text.contains(&foreign), "{windows:?}");
    assert!(!windows.text.contains(&us.id.to_string()), "{windows:?}");
    assert_eq!(call("DELETE", &format!("/v1/maintenance/{foreign}"), None).await.status, 404);
    assert_eq!(call("DELETE", &format!("/v1/maintenance/{everybody}"), None).await.status, 403);
    let own = windows.json()["windows"][0]["id"].as_str().expect("an id").to_owned();
    assert_ne!(own, foreign);
}

#[tokio::test]
async fn the_command_plans_lists_and_ends_windows() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let _edge = pod.register("edge", "eu").await;
    let environment = pod.variables();
    let run =
        async |arguments: &[&str]| ran(&[&["maintenance"], arguments].concat(), &environment).await;
    let add = ["add", "--satellite", "edge", "--for", "2h", "--reason", "a\u{7}disk", "-o", "json"];
    let (done, _, error) = run(&add).await;
    assert!(!done && error.contains("reason"), "{error}");
    let add = ["add", "--satellite", "edge", "--for", "2h", "--reason", "a new disk", "-o", "json"];
    let (done, window, error) = run(&add).await;
    assert!(done, "{error}");
    let window: Value = serde_json::from_str(&window).expect("JSON");
    let id = window["id"].as_str().expect("an id");
    let (done, table, error) = run(&["list"]).await;
    assert!(done && table.contains("a new disk") && table.contains("open"), "{table}{error}");
    let (_, names, _) = run(&["list", "--state", "open", "-o", "name"]).await;
    assert_eq!(names.trim(), id);
    let (done, _, error) = run(&["end", id, "--yes"]).await;
    assert!(done, "{error}");
    let (_, names, _) = run(&["list", "--state", "open", "-o", "name"]).await;
    assert_eq!(names.trim(), "");
    let (done, _, error) = run(&["add", "--for", "2h", "--reason", "all?"]).await;
    assert!(!done && error.contains("--all"), "nobody is meant by omission: {error}");
}
