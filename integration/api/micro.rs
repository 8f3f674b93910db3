//! Reads over NATS: a client in another language discovers the service and calls every endpoint, and any remaining
//! pod answers it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::foreign;
use crate::harness::relaying::come_and_go;
use crate::harness::running::Running;
use crate::harness::{CALM, Fleet, Satellite};

const ENDPOINTS: [&str; 10] = [
    "satellites.list",
    "satellites.get",
    "satellites.online",
    "satellites.states",
    "satellites.stats",
    "satellites.intervals",
    "fleet.counts",
    "fleet.timeline",
    "transitions.list",
    "triggers.list",
];

/// Starts the client with these questions.
fn asking(fleet: &Fleet, questions: &Value) -> Running {
    let mut command = foreign::python("tools/foreign_client.py");
    command.arg(questions.to_string()).env("NATS_URL", &fleet.nats_url);
    Running::of(command)
}

/// Its answers, once it has all of them.
async fn answers(mut client: Running) -> Vec<Value> {
    let ended = client.ends().await;
    let said = client.everything();
    assert!(ended.success(), "{said}");
    said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

async fn ask(fleet: &Fleet, questions: Value) -> Vec<Value> {
    answers(asking(fleet, &questions)).await
}

fn question(endpoint: &str, body: Value) -> Value {
    json!({"subject": format!("groundstation.v1.{endpoint}"), "body": body})
}

/// The body of a question's only answer, which must not be an error.
fn reply(answer: &Value) -> &Value {
    let reply = &answer["answers"][0];
    assert_eq!(reply["headers"]["Nats-Service-Error"], Value::Null, "{answer}");
    &reply["body"]
}

/// Two pods that answer.
async fn two_pods(fleet: &Fleet) -> [crate::harness::Pod; 2] {
    let pods = [fleet.pod("a").await, fleet.pod("b").await];
    for pod in &pods {
        pod.expect_nats().await;
    }
    pods
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_foreign_client_discovers_the_service_on_every_pod() {
    let fleet = Fleet::new(CALM).await;
    let pods = two_pods(&fleet).await;
    let asked: Vec<Value> =
        ENDPOINTS.map(|endpoint| question(endpoint, json!({"ids": []}))).to_vec();
    let ended = ask(&fleet, json!(asked)).await;
    let errors = ended
        .iter()
        .filter(|answer| answer["answers"][0]["headers"]["Nats-Service-Error"].is_string());
    // The endpoints that need an id.
    assert_eq!(errors.count(), 3, "{ended:?}");

    let found = ask(
        &fleet,
        json!([
            {"subject": "$SRV.PING", "replies": 2},
            {"subject": "$SRV.INFO.groundstation", "replies": 2},
            {"subject": "$SRV.STATS.groundstation", "replies": 2},
        ]),
    )
    .await;
    let each = |n: usize| found[n]["answers"].as_array().expect("answers").iter();
    let mut names: Vec<&Value> = each(0).map(|pong| &pong["body"]["metadata"]["pod"]).collect();
    names.sort_by_key(|name| name.as_str());
    assert_eq!(names, [&pods[0].name, &pods[1].name]);
    for info in each(1).map(|answer| &answer["body"]) {
        assert_eq!(info["type"], "io.nats.micro.v1.info_response");
        assert_eq!(info["name"], "groundstation");
        assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
        let endpoints = info["endpoints"].as_array().expect("endpoints");
        assert!(endpoints.iter().all(|endpoint| endpoint["queue_group"] == "q"), "{info}");
        let subjects: BTreeSet<String> = endpoints
            .iter()
            .map(|endpoint| endpoint["subject"].as_str().expect("a subject").to_owned())
            .collect();
        assert_eq!(subjects, ENDPOINTS.map(|name| format!("groundstation.v1.{name}")).into());
    }
    let sum = |field: &str| -> u64 {
        let endpoints = each(2).flat_map(|stats| stats["body"]["endpoints"].as_array());
        endpoints.flatten().filter_map(|endpoint| endpoint[field].as_u64()).sum()
    };
    assert_eq!((sum("num_requests"), sum("num_errors")), (10, 3), "{:?}", found[2]);
}

#[tokio::test]
async fn every_endpoint_says_what_its_route_says() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let satellites = fleet.register(&pod, "edge", 3).await;
    let [here, gone, never] = [&satellites[0], &satellites[1], &satellites[2]].map(|s| s.id);
    for (id, rack) in [(here, "7"), (gone, "8")] {
        let change = json!({"tags": {"tier": "gold", "rack": rack}}).to_string();
        let path = format!("/v1/satellites/{id}");
        let changed = pod.call("PATCH", &path, Some(&fleet.admin_token), Some(change)).await;
        assert_eq!(changed.status, 200, "{changed:?}");
    }
    let _live = Satellite::connect(pod.address, &satellites[0]).await;
    come_and_go(&pod, &satellites[1]).await;
    fleet.expect_log_length(3).await;

    let pairs = [
        ("satellites.list", json!({}), "/v1/satellites".to_owned()),
        (
            "satellites.list",
            json!({"limit": 2, "q": "edge"}),
            "/v1/satellites?limit=2&q=edge".into(),
        ),
        ("satellites.list", json!({"position": 2}), "/v1/satellites?position=2".into()),
        ("satellites.online", json!({}), "/v1/satellites?status=online".into()),
        (
            "satellites.list",
            json!({"limit": 1, "offset": 1, "sort": "-name"}),
            "/v1/satellites?limit=1&offset=1&sort=-name".into(),
        ),
        ("satellites.get", json!({"id": gone}), format!("/v1/satellites/{gone}")),
        ("transitions.list", json!({}), "/v1/transitions".into()),
        (
            "transitions.list",
            json!({"after": 1, "limit": 1, "event": "connected"}),
            "/v1/transitions?after=1&limit=1&event=connected".into(),
        ),
        ("transitions.list", json!({"id": gone}), format!("/v1/satellites/{gone}/transitions")),
        ("triggers.list", json!({}), "/v1/triggers".into()),
        (
            "satellites.list",
            json!({"sort": "-createdAt", "neverConnected": false, "flapping": false}),
            "/v1/satellites?sort=-createdAt&neverConnected=false&flapping=false".into(),
        ),
        (
            "transitions.list",
            json!({"order": "desc", "before": 3, "region": "eu"}),
            "/v1/transitions?order=desc&before=3&region=eu".into(),
        ),
        (
            "fleet.counts",
            json!({"tag": "tier:gold", "status": "offline"}),
            "/v1/fleet?tag=tier:gold&status=offline".into(),
        ),
        ("fleet.counts", json!({"position": 2}), "/v1/fleet?position=2".into()),
        (
            "fleet.timeline",
            json!({"since": "2026-03-01T12:00:00Z", "until": "2026-03-01T13:00:00Z", "step": "5m"}),
            "/v1/fleet/timeline?since=2026-03-01T12:00:00Z&until=2026-03-01T13:00:00Z&step=5m"
                .into(),
        ),
        (
            "satellites.intervals",
            json!({"ids": [here, gone], "since": "2026-03-01T12:00:00Z", "until": "2026-03-01T13:00:00Z"}),
            format!(
                "/v1/intervals?ids={here},{gone}&since=2026-03-01T12:00:00Z&until=2026-03-01T13:00:00Z"
            ),
        ),
        (
            "satellites.list",
            json!({"tag": ["tier:gold", "rack:7"]}),
            "/v1/satellites?tag=tier:gold&tag=rack:7".into(),
        ),
        (
            "satellites.online",
            json!({"tag": "tier:gold", "limit": 1}),
            "/v1/satellites?tag=tier:gold&status=online&limit=1".into(),
        ),
    ];
    let questions: Vec<Value> =
        pairs.iter().map(|(endpoint, body, _)| question(endpoint, body.clone())).collect();
    let said = ask(&fleet, json!(questions)).await;
    for ((endpoint, body, path), answer) in pairs.iter().zip(&said) {
        // A live satellite's `lastSeenAt` moves on.
        let still = |mut body: Value| {
            for satellite in body["satellites"].as_array_mut().into_iter().flatten() {
                if satellite["id"] == json!(here) {
                    satellite["lastSeenAt"].take();
                    satellite["lastHeartbeatAt"].take();
                }
            }
            body
        };
        let over_http = pod.get(path).await.json();
        assert_eq!(still(reply(answer).clone()), still(over_http), "{endpoint} {body}");
    }
    assert_eq!(said.len(), pairs.len());
    for n in [3, pairs.len() - 2, pairs.len() - 1] {
        let online = reply(&said[n])["satellites"].as_array().expect("satellites");
        assert_eq!(online.iter().map(|s| &s["id"]).collect::<Vec<_>>(), [&json!(here)]);
    }

    let unknown = Uuid::new_v4();
    let asked = json!([
        question("satellites.states", json!({"ids": [here, gone, never, unknown, here]})),
        question("satellites.stats", json!({"id": gone, "window": "1h"})),
        {"subject": "groundstation.v1.satellites.list", "raw": ""},
    ]);
    let said = ask(&fleet, asked).await;
    let states = reply(&said[0])["states"].as_object().expect("states");
    assert_eq!(states.len(), 2, "who never connected is left out: {states:?}");
    let state = &states[&here.to_string()];
    assert_eq!((&state["status"], &state["name"]), (&json!("online"), &json!("edge-0")));
    let state = &states[&gone.to_string()];
    let left = json!({"status": "offline", "name": "edge-1", "region": "eu", "lastSeenAt": null,
                      "lastEvent": "disconnected"});
    assert_eq!(*state, left);
    let stats = reply(&said[1]);
    assert_eq!((&stats["value"], &stats["transitionCount"]), (&json!("offline"), &json!(2)));
    let over_http = pod.get(&format!("/v1/satellites/{gone}/stats?window=1h")).await.json();
    let keys = |body: &Value| body.as_object().map(|body| body.keys().cloned().collect::<Vec<_>>());
    assert_eq!(keys(stats), keys(&over_http));
    assert_eq!(stats["inStateSince"], over_http["inStateSince"]);
    assert_eq!(reply(&said[2])["satellites"].as_array().map(Vec::len), Some(3));
    fleet.check().await;
}

#[tokio::test]
async fn an_error_says_in_its_headers_what_is_wrong_and_harms_nobody() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let unknown = Uuid::new_v4();
    let many: Vec<Uuid> = (0..1_001).map(|_| Uuid::new_v4()).collect();
    let raw = |endpoint: &str, raw: &str| json!({"subject": format!("groundstation.v1.{endpoint}"), "raw": raw});
    let cases = [
        (
            question("satellites.get", json!({"id": unknown})),
            "404",
            "unknown-satellite",
            "no satellite",
        ),
        (
            question("satellites.get", json!({"id": "a\r\nb: c"})),
            "404",
            "unknown-satellite",
            "no satellite",
        ),
        (question("satellites.get", json!({})), "422", "invalid", "id must be given"),
        (
            question("satellites.list", json!({"limit": 0})),
            "422",
            "invalid",
            "limit must be from 1",
        ),
        (
            question("satellites.list", json!({"limit": "x\r\ny"})),
            "422",
            "invalid",
            "limit must be a whole number from 1 to 1000.",
        ),
        (
            question("transitions.list", json!({"after": 1.5})),
            "422",
            "invalid",
            "after must be a whole number, 0 or more.",
        ),
        (
            question("satellites.online", json!({"tag": [1]})),
            "422",
            "invalid",
            "tag must be a list of texts.",
        ),
        (
            question("satellites.list", json!({"region": 7})),
            "422",
            "invalid",
            "region must be a text.",
        ),
        (question("satellites.get", json!({"id": 7})), "422", "invalid", "id must be a text."),
        (question("satellites.states", json!({})), "422", "invalid", "ids must be given."),
        (
            question("satellites.states", json!({"ids": ["edge"]})),
            "422",
            "invalid",
            "ids must be UUIDs, and \"edge\" is none.",
        ),
        (
            question("fleet.timeline", json!({"until": "0000-01-01T00:00:00Z"})),
            "422",
            "invalid",
            "until must be a time such as 2026-03-01T12:00:00Z, from the year 1 to the year 9999.",
        ),
        (question("satellites.list", json!({"status": "away"})), "422", "invalid", "status"),
        (
            question("satellites.states", json!({"ids": many})),
            "422",
            "invalid",
            "ids must be at most 1000",
        ),
        (
            question("satellites.stats", json!({"id": unknown})),
            "404",
            "no-history",
            "never connected",
        ),
        (
            question("transitions.list", json!({"event": "moved"})),
            "422",
            "invalid",
            "event must be",
        ),
        (question("satellites.list", json!({"position": 9})), "422", "future", "not happened"),
        (
            question("satellites.list", json!({"position": 0, "version": "1"})),
            "400",
            "not-of-the-past",
            "version does not go with",
        ),
        (
            question("satellites.list", json!({"flapping": "yes"})),
            "422",
            "invalid",
            "flapping must be true or false.",
        ),
        (
            question("satellites.intervals", json!({"ids": many[..201]})),
            "422",
            "invalid",
            "ids must be 1 to 200",
        ),
        (
            question("fleet.timeline", json!({"step": "1s"})),
            "422",
            "invalid",
            "at most 1000 points",
        ),
        (raw("satellites.list", "{"), "400", "not-json", "object"),
        (raw("satellites.list", &" ".repeat(70_000)), "413", "too-large", "65536"),
    ];
    let questions: Vec<&Value> = cases.iter().map(|(question, ..)| question).collect();
    let said = ask(&fleet, json!(questions)).await;
    assert_eq!(said.len(), cases.len());
    for ((_, code, kind, words), answer) in cases.iter().zip(&said) {
        let reply = &answer["answers"][0];
        let headers = &reply["headers"];
        assert_eq!(headers["Nats-Service-Error-Code"], *code, "{reply}");
        assert_eq!(headers["Groundstation-Problem"], format!("urn:groundstation:problem:{kind}"));
        let text = headers["Nats-Service-Error"].as_str().expect("a text");
        assert!(text.contains(words) && text.len() <= 600, "{words}: {text}");
        assert_eq!(reply["body"], Value::Null);
    }
    // The same pod answered all of these, and still answers.
    assert_eq!(
        reply(&ask(&fleet, json!([question("triggers.list", json!({}))])).await[0])["triggers"]
            .as_array()
            .map(Vec::len),
        Some(3)
    );
}

#[tokio::test]
async fn an_answer_that_nats_would_not_carry_is_an_error_that_says_what_to_do() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let long = "x".repeat(200);
    let tags: serde_json::Map<String, Value> =
        (0..64).map(|n| (format!("{n:0100}"), json!(long))).collect();
    for n in 0..60 {
        let large = json!({"name": format!("large-{n}"), "region": "eu", "tags": tags});
        pod.register_with(large).await;
    }
    let list = |limit: i64| question("satellites.list", json!({"limit": limit}));
    let said = ask(&fleet, json!([list(100), list(10)])).await;
    let headers = &said[0]["answers"][0]["headers"];
    assert_eq!(headers["Nats-Service-Error-Code"], "413", "{headers}");
    let text = headers["Nats-Service-Error"].as_str().expect("a text");
    assert!(text.contains("1048576") && text.contains("limit"), "{text}");
    assert_eq!(reply(&said[1])["satellites"].as_array().map(Vec::len), Some(10));
}

#[tokio::test]
async fn with_one_of_two_pods_killed_every_question_is_still_answered() {
    let fleet = Fleet::new(CALM).await;
    let [mut first, second] = two_pods(&fleet).await;
    let id = second.register("edge", "eu").await.id;
    let asked = ENDPOINTS.map(|endpoint| {
        let mut asked = question(endpoint, json!({"id": id, "ids": [id]}));
        if endpoint == "transitions.list" {
            asked["body"] = json!({});
        }
        if endpoint == "satellites.stats" {
            // Never connected: the answer is an error, but it comes.
            asked["repeat"] = json!(1);
        } else {
            asked["repeat"] = json!(50);
        }
        asked
    });
    let client = asking(&fleet, &json!(asked));
    client.prints("{\"n\": 60,").await;
    first.kill();
    let said = answers(client).await;
    assert_eq!(said.len(), 9 * 50 + 1);
    for answer in &said {
        let is_stats = answer["subject"] == "groundstation.v1.satellites.stats";
        let error = &answer["answers"][0]["headers"]["Nats-Service-Error-Code"];
        assert_eq!(*error, if is_stats { json!("404") } else { Value::Null }, "{answer}");
    }
    let left = ask(&fleet, json!([{"subject": "$SRV.PING.groundstation", "replies": 1}])).await;
    assert_eq!(left[0]["answers"][0]["body"]["metadata"]["pod"], second.name);
    fleet.check().await;
}
