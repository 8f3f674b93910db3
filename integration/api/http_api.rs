//! Reads and administration over HTTP, as the contract has it.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::pod::Answer;
use crate::harness::{CALM, Fleet, Pod, Satellite};

/// Checks that this is a problem as RFC 9457 has it, and returns its type.
fn problem(answer: &Answer) -> String {
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{answer:?}");
    let body = answer.json();
    assert_eq!(body["status"], answer.status, "{body}");
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
    body["type"].as_str().expect("a type").to_owned()
}

#[tokio::test]
async fn a_satellite_is_created_shown_and_deleted() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let description = json!({"name": "edge", "region": "eu", "tags": {"tier": "gold", "empty": ""},
                             "offlineThresholdMs": 90_000, "unknown": "ignored"});
    let created = pod.post("/v1/satellites", &description).await;
    assert_eq!(created.status, 201, "{created:?}");
    let body = created.json();
    let satellite = &body["satellite"];
    let id = satellite["id"].as_str().expect("an id");
    assert_eq!(created.headers["location"], format!("/v1/satellites/{id}"));
    assert_eq!(created.headers["cache-control"], "no-store");
    assert!(body["token"].as_str().expect("a token").starts_with("csat_"));
    let expected = json!({"id": id, "name": "edge", "region": "eu",
        "tags": {"tier": "gold", "empty": ""}, "capabilities": [], "status": "offline",
        "lastSeenAt": null, "offlineThresholdMs": 90_000, "createdAt": satellite["createdAt"]});
    assert_eq!(*satellite, expected);
    let path = format!("/v1/satellites/{id}");
    assert_eq!(pod.get(&path).await.json(), expected);
    let removed = pod.remove(id.parse().expect("a UUID")).await;
    assert_eq!((removed.status, removed.text.as_str()), (204, ""));
    assert_eq!(pod.get(&path).await.status, 404);
    fleet.check().await;
}

#[tokio::test]
async fn a_description_that_breaks_a_limit_is_refused_and_the_field_is_named() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let long = "x".repeat(201);
    let cases = [
        (json!({"region": "eu"}), "name"),
        (json!({"name": "", "region": "eu"}), "name"),
        (json!({"name": "   ", "region": "eu"}), "name"),
        (json!({"name": long, "region": "eu"}), "name"),
        (json!({"name": "a\u{0}b", "region": "eu"}), "name"),
        (json!({"name": 7, "region": "eu"}), "name"),
        (json!({"name": "edge"}), "region"),
        (json!({"name": "edge", "region": ""}), "region"),
        (json!({"name": "edge", "region": long}), "region"),
        (json!({"name": "edge", "region": "eu", "tags": {"tier": 1}}), "tags"),
        (json!({"name": "edge", "region": "eu", "tags": {"tier": null}}), "tags"),
        (json!({"name": "edge", "region": "eu", "tags": {"tier": ["gold"]}}), "tags"),
        (json!({"name": "edge", "region": "eu", "tags": ["gold"]}), "tags"),
        (json!({"name": "edge", "region": "eu", "tags": {"": "x"}}), "tags"),
        (json!({"name": "edge", "region": "eu", "tags": {"tier": long}}), "tags"),
        (json!({"name": "edge", "region": "eu", "offlineThresholdMs": 0}), "offlineThresholdMs"),
        (json!({"name": "edge", "region": "eu", "offlineThresholdMs": -1}), "offlineThresholdMs"),
        (json!({"name": "edge", "region": "eu", "offlineThresholdMs": "5s"}), "offlineThresholdMs"),
        (json!({"name": "edge", "region": "eu", "offlineThresholdMs": 1e18}), "offlineThresholdMs"),
    ];
    for (description, field) in cases {
        let answer = pod.post("/v1/satellites", &description).await;
        assert_eq!(answer.status, 422, "{description}: {answer:?}");
        assert_eq!(problem(&answer), "urn:groundstation:problem:invalid");
        assert!(answer.text.contains(field), "{description}: {}", answer.text);
    }
    assert_eq!(pod.get("/v1/satellites").await.json()["satellites"], json!([]));
    // At the limit: 200 characters are not 200 bytes.
    let longest = json!({"name": "ü".repeat(200), "region": "r".repeat(200)});
    assert_eq!(pod.post("/v1/satellites", &longest).await.status, 201);
}

#[tokio::test]
async fn a_body_that_is_no_json_or_too_large_is_refused() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let post = async |body: String| {
        pod.call("POST", "/v1/satellites", Some(&fleet.admin_token), Some(body)).await
    };
    for body in ["", "{", "hello"] {
        let answer = post(body.to_owned()).await;
        assert_eq!(answer.status, 400, "{body}: {answer:?}");
        problem(&answer);
    }
    let large = json!({"name": "x".repeat(70_000), "region": "eu"}).to_string();
    let answer = post(large).await;
    assert_eq!(answer.status, 413, "{answer:?}");
    problem(&answer);
    let without_type = pod.call("POST", "/v1/satellites", Some(&fleet.admin_token), None).await;
    assert_eq!(without_type.status, 415, "{without_type:?}");
    problem(&without_type);
}

#[tokio::test]
async fn without_a_token_401_with_the_read_token_only_get_and_what_is_open_stays_open() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let one = format!("/v1/satellites/{}", credentials.id);
    let history = format!("{one}/transitions");
    let routes = ["/v1/satellites", &one, &history, "/v1/transitions"];
    let read = Some(fleet.read_token.as_str());
    for route in routes {
        for token in [None, Some(""), Some("wrong"), Some(&credentials.token)] {
            let answer = pod.call("GET", route, token, None).await;
            assert_eq!(answer.status, 401, "{route} with {token:?}: {answer:?}");
            assert_eq!(problem(&answer), "urn:groundstation:problem:unauthorized");
            assert_eq!(answer.headers["www-authenticate"], "Bearer");
        }
        assert_eq!(pod.call("GET", route, read, None).await.status, 200, "{route}");
    }
    let description = json!({"name": "edge", "region": "eu"}).to_string();
    let writes = [("POST", "/v1/satellites", Some(description)), ("DELETE", one.as_str(), None)];
    for (method, route, body) in writes {
        let answer = pod.call(method, route, read, body.clone()).await;
        assert_eq!(answer.status, 403, "{method} {route}: {answer:?}");
        assert_eq!(problem(&answer), "urn:groundstation:problem:forbidden");
        assert_eq!(pod.call(method, route, None, body).await.status, 401);
    }
    assert_eq!(pod.get(&one).await.status, 200, "still there");
    for open in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(pod.call("GET", open, None, None).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn what_does_not_exist_is_404_and_what_a_route_cannot_is_405() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for id in [&Uuid::new_v4().to_string(), "not-a-uuid", "%00"] {
        let answer = pod.get(&format!("/v1/satellites/{id}")).await;
        assert_eq!(answer.status, 404, "{id}: {answer:?}");
        assert_eq!(problem(&answer), "urn:groundstation:problem:unknown-satellite");
    }
    for path in ["/nothing", "/v2/satellites", "/v1/nothing"] {
        let answer = pod.get(path).await;
        assert_eq!(answer.status, 404, "{path}: {answer:?}");
        problem(&answer);
    }
    let token = Some(fleet.admin_token.as_str());
    let answer = pod.call("DELETE", "/v1/satellites", token, None).await;
    assert_eq!(answer.status, 405, "{answer:?}");
    problem(&answer);
}

#[tokio::test]
async fn every_refusal_says_what_to_do() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let never = pod.register("never", "eu").await.id;
    let unknown = Uuid::new_v4();
    let (admin, read) = (fleet.admin_token.as_str(), fleet.read_token.as_str());
    let new = json!({"name": "edge", "region": "eu"}).to_string();
    let of = |end: &str| format!("/v1/satellites/{unknown}{end}");
    let list = "GET /v1/satellites lists those there are";
    let cases = [
        (
            "GET",
            "/v1/satellites".to_owned(),
            None,
            None,
            401,
            "Send the header Authorization: Bearer",
        ),
        ("GET", "/v1/satellites".into(), Some("x"), None, 401, "GROUNDSTATION_ADMIN_TOKEN"),
        ("POST", "/v1/satellites".into(), Some(read), Some(&new), 403, "use the admin token"),
        ("DELETE", of(""), Some(read), None, 403, "use the admin token"),
        ("GET", of(""), Some(admin), None, 404, list),
        ("PATCH", of(""), Some(admin), Some(&new), 404, list),
        ("DELETE", of(""), Some(admin), None, 404, list),
        ("POST", of("/token"), Some(admin), None, 404, list),
        ("GET", of("/assignments"), Some(admin), None, 404, list),
        (
            "GET",
            format!("/v1/satellites/{never}/stats"),
            Some(read),
            None,
            404,
            "once it has connected",
        ),
        ("GET", "/v1/nothing".into(), Some(read), None, 404, "/openapi.json names"),
        ("PUT", "/v1/satellites".into(), Some(admin), None, 405, "the header Allow names"),
        (
            "GET",
            "/v1/satellites?limit=0".into(),
            Some(read),
            None,
            422,
            "limit must be from 1 to 1000",
        ),
        ("GET", "/v1/satellites?status=x".into(), Some(read), None, 422, "online or offline"),
        ("GET", "/v1/satellites?tag=x".into(), Some(read), None, 422, "written name:value"),
        (
            "GET",
            "/v1/satellites?cursor=x".into(),
            Some(read),
            None,
            422,
            "nextCursor of an earlier",
        ),
        ("GET", "/v1/satellites?at=x".into(), Some(read), None, 422, "a time such as 2026"),
        ("GET", "/v1/satellites?position=9".into(), Some(read), None, 422, "has not happened"),
        ("GET", "/v1/transitions?event=x".into(), Some(read), None, 422, "event must be"),
        ("GET", "/v1/transitions?after=-1".into(), Some(read), None, 422, "after must be"),
    ];
    for (method, path, token, body, status, words) in cases {
        let answer = pod.call(method, &path, token, body.cloned()).await;
        assert_eq!(answer.status, status, "{method} {path}: {answer:?}");
        problem(&answer);
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(words), "{method} {path}: {detail}");
    }
}

#[tokio::test]
async fn a_satellite_is_listed_for_several_tags_if_it_has_all_of_them() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for (name, tags) in [
        ("a", json!({"tier": "gold", "rack": "7", "city": "Ulm"})),
        ("b", json!({"tier": "gold", "rack": "8"})),
        ("c", json!({"tier": "silver", "rack": "7"})),
        ("d", json!({})),
    ] {
        pod.register_with(json!({"name": name, "region": "eu", "tags": tags})).await;
    }
    let cases: [(&str, &[&str]); 7] = [
        ("tag=tier:gold&tag=rack:7", &["a"]),
        ("tag=rack:7&region=eu&tag=city:Ulm&tag=tier:gold", &["a"]),
        ("tag=tier:gold&tag=tier:gold", &["a", "b"]),
        // A satellite has one value of a tag.
        ("tag=tier:gold&tag=tier:silver", &[]),
        ("tag=tier:gold&tag=absent:x", &[]),
        ("tag=rack:7", &["a", "c"]),
        ("", &["a", "b", "c", "d"]),
    ];
    for (query, expected) in cases {
        assert_eq!(names(&pod, query).await, expected, "{query}");
    }
    let page = pod.get("/v1/satellites?tag=tier:gold&tag=tier:gold&limit=1").await.json();
    let cursor = page["nextCursor"].as_str().expect("a second page");
    let rest = format!("tag=tier:gold&tag=tier:gold&limit=1&cursor={cursor}");
    assert_eq!(names(&pod, &rest).await, ["b"]);
    // No satellite has this many.
    let many = vec!["tag=tier:gold"; 65].join("&");
    for (query, words) in [
        ("tag=tier:gold&tag=rack", "written name:value"),
        ("tag=tier:gold&tag=a:%00", "NUL"),
        (&many, "at most"),
    ] {
        let answer = pod.get(&format!("/v1/satellites?{query}")).await;
        assert_eq!(answer.status, 422, "{query}: {answer:?}");
        problem(&answer);
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(words), "{query}: {detail}");
    }
}

async fn names(pod: &Pod, query: &str) -> Vec<String> {
    let answer = pod.get(&format!("/v1/satellites?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {answer:?}");
    let page = answer.json();
    let satellites = page["satellites"].as_array().expect("a list").iter();
    satellites.map(|satellite| satellite["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn the_list_is_by_name_and_filtered_by_every_filter_and_all_of_them_together() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let described = [
        ("Charlie", "eu", json!({"tier": "gold"})),
        ("alpha", "eu", json!({"tier": "gold"})),
        ("bravo", "us", json!({"tier": "silver"})),
        ("per%cent", "us", json!({})),
    ];
    let mut sockets = Vec::new();
    for (name, region, tags) in described {
        let satellite = json!({"name": name, "region": region, "tags": tags});
        let credentials = pod.register_with(satellite).await;
        if name != "bravo" {
            sockets.push(Satellite::connect(pod.address, &credentials).await);
        }
    }
    let cases: [(&str, &[&str]); 12] = [
        ("", &["Charlie", "alpha", "bravo", "per%cent"]),
        ("region=eu", &["Charlie", "alpha"]),
        ("region=nowhere", &[]),
        ("tag=tier:gold", &["Charlie", "alpha"]),
        ("tag=tier:silver", &["bravo"]),
        ("tag=absent:x", &[]),
        ("q=A", &["Charlie", "alpha", "bravo"]),
        ("q=%25", &["per%cent"]),
        ("status=online", &["Charlie", "alpha", "per%cent"]),
        ("status=offline", &["bravo"]),
        ("status=online&region=eu&tag=tier:gold&q=LPH", &["alpha"]),
        ("limit=2", &["Charlie", "alpha"]),
    ];
    for (query, expected) in cases {
        assert_eq!(names(&pod, query).await, expected, "{query}");
    }
    let bad = ["status=maybe", "tag=gold", "limit=0", "limit=1001", "limit=x", "cursor=x"];
    for query in bad {
        let answer = pod.get(&format!("/v1/satellites?{query}")).await;
        assert_eq!(answer.status, 422, "{query}: {answer:?}");
        problem(&answer);
    }
}

#[tokio::test]
async fn pages_hold_every_satellite_once_even_where_names_are_equal() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut created = Vec::new();
    for n in 0..11 {
        let name = if n % 2 == 0 { "same".to_owned() } else { format!("edge-{n}") };
        created.push(pod.register(&name, "eu").await.id.to_string());
    }
    for limit in [1, 3, 11, 12] {
        let mut listed = Vec::new();
        let mut query = format!("limit={limit}");
        loop {
            let page = pod.get(&format!("/v1/satellites?{query}")).await.json();
            let satellites = page["satellites"].as_array().expect("a list");
            assert!(satellites.len() <= limit);
            listed.extend(satellites.iter().map(|s| s["id"].as_str().expect("an id").to_owned()));
            let Some(cursor) = page["nextCursor"].as_str() else { break };
            assert_eq!(satellites.len(), limit, "a page that is not the last is full");
            query = format!("limit={limit}&cursor={cursor}");
        }
        let (mut listed, mut expected) = (listed, created.clone());
        listed.sort();
        expected.sort();
        assert_eq!(listed, expected, "limit {limit}");
    }
}

/// The positions on a page, and where the next begins.
async fn positions(pod: &Pod, path: &str) -> (Vec<i64>, i64) {
    let answer = pod.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    let page = answer.json();
    let transitions = page["transitions"].as_array().expect("a list").iter();
    let positions = transitions.map(|t| t["position"].as_i64().expect("a position")).collect();
    (positions, page["nextAfter"].as_i64().expect("a position"))
}

#[tokio::test]
async fn transitions_are_paged_by_position_and_an_empty_page_moves_nothing() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (one, two) = (pod.register("one", "eu").await, pod.register("two", "eu").await);
    let mut moments = Vec::new();
    for (credentials, length) in [(&one, 2), (&two, 4), (&one, 6)] {
        Satellite::connect(pod.address, credentials).await.close().await;
        let last = crate::harness::eventually("the transition", async || {
            let page = pod.get("/v1/transitions").await.json();
            let all = page["transitions"].as_array().expect("a list").clone();
            if all.len() == length { Ok(all[length - 1].clone()) } else { Err(page.to_string()) }
        })
        .await;
        moments.push(last["recordedAt"].as_str().expect("a time").to_owned());
    }
    let of_one = format!("/v1/satellites/{}/transitions", one.id);
    let since = &moments[0];
    let all: Value = pod.get("/v1/transitions").await.json();
    // Whether they were recorded in one millisecond is read from the table.
    let since_positions: Vec<i64> = all["transitions"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|t| t["recordedAt"].as_str() >= Some(since))
        .map(|t| t["position"].as_i64().expect("a position"))
        .collect();
    let until_positions: Vec<i64> =
        (1..=6).filter(|position| !since_positions.contains(position)).collect();
    let until_last = *until_positions.last().expect("some were before");
    let cases = [
        ("/v1/transitions".to_owned(), vec![1, 2, 3, 4, 5, 6], 6),
        ("/v1/transitions?limit=2".to_owned(), vec![1, 2], 2),
        ("/v1/transitions?after=2&limit=3".to_owned(), vec![3, 4, 5], 5),
        ("/v1/transitions?after=6".to_owned(), vec![], 6),
        ("/v1/transitions?after=100".to_owned(), vec![], 100),
        ("/v1/transitions?event=connected".to_owned(), vec![1, 3, 5], 5),
        ("/v1/transitions?event=disconnected&after=2&limit=1".to_owned(), vec![4], 4),
        ("/v1/transitions?event=heartbeat_lost&after=3".to_owned(), vec![], 3),
        (of_one.clone(), vec![1, 2, 5, 6], 6),
        (format!("{of_one}?event=connected&after=1"), vec![5], 5),
        (format!("/v1/transitions?since={since}"), since_positions, 6),
        (format!("/v1/transitions?until={since}"), until_positions, until_last),
        ("/v1/transitions?since=2099-01-01T00:00:00Z".to_owned(), vec![], 0),
    ];
    for (path, expected, next) in cases {
        assert_eq!(positions(&pod, &path).await, (expected, next), "{path}");
    }
    let bad = ["after=-1", "after=x", "limit=0", "limit=1001", "event=rebooted", "since=yesterday"];
    for query in bad {
        let answer = pod.get(&format!("/v1/transitions?{query}")).await;
        assert_eq!(answer.status, 422, "{query}: {answer:?}");
        problem(&answer);
    }
    // The history of a satellite outlives it.
    assert_eq!(pod.remove(one.id).await.status, 204);
    assert_eq!(positions(&pod, &of_one).await.0, [1, 2, 5, 6, 7]);
    fleet.check().await;
}
