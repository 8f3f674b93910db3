//! Rules of all routes: which parameters a query may have, what a browser gets, who may call, and that no answer is
//! stored.

use serde_json::{Value, json};

use crate::harness::raw::{Raw, introduction};
use crate::harness::{CALM, Fleet, Satellite};

#[tokio::test]
async fn a_parameter_that_no_route_knows_is_refused_with_the_nearest_one() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let of = |end: &str| format!("/v1/satellites/{}{end}", edge.id);
    let cases = [
        ("/v1/satellites?stauts=online".to_owned(), "stauts", Some("status")),
        ("/v1/satellites?limit=1&Region=eu".to_owned(), "Region", Some("region")),
        ("/v1/transitions?sinse=2026-01-01T00:00:00Z".to_owned(), "sinse", Some("since")),
        ("/v1/transitions/stream?afterr=1".to_owned(), "afterr", Some("after")),
        (of("?limit=1"), "limit", None),
        (of("/stats?feild=status"), "feild", Some("field")),
        (of("/transitions?cursor=x"), "cursor", Some("")),
        (of("/assignments?x"), "x", None),
        ("/v1/triggers?a%20b=1".to_owned(), "a b", None),
    ];
    for (path, name, nearest) in cases {
        let answer = pod.get(&path).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json", "{path}");
        let problem = answer.json();
        assert_eq!(problem["type"], "urn:groundstation:problem:unknown-parameter", "{path}");
        assert_eq!(problem["path"], name, "{path}");
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains(&format!("{name:?}")), "{path}: {detail}");
        match nearest {
            Some(nearest) => assert!(detail.contains(nearest), "{path}: {detail}"),
            None => assert!(detail.contains("takes none"), "{path}: {detail}"),
        }
    }
    let answer = pod.call("DELETE", &of("?dry=1"), Some(&fleet.admin_token), None).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert_eq!(pod.get(&of("")).await.status, 200, "it is still there");
    // Strangers learn nothing.
    assert_eq!(pod.call("GET", "/v1/satellites?x=1", None, None).await.status, 401);
    for path in
        ["/v1/satellites?status=online&limit=10&tag=a:b&region=eu&q=e", "/v1/transitions?after=0"]
    {
        assert_eq!(pod.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn what_may_come_once_is_refused_when_it_comes_twice() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for (path, name) in [
        ("/v1/satellites?region=eu&tag=a:b&region=us", "region"),
        ("/v1/satellites?limit=1&region=eu&limit=2", "limit"),
        ("/v1/transitions?after=0&after=0", "after"),
    ] {
        let answer = pod.get(path).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        let problem = answer.json();
        assert_eq!(problem["type"], "urn:groundstation:problem:parameter-twice", "{path}");
        assert_eq!(problem["path"], name, "{path}");
    }
    let mut raw = Raw::connect(pod.address).await;
    raw.send("GET /v1/triggers HTTP/1.1\r\nHost: pod\r\n").await;
    for token in [&fleet.admin_token, "another"] {
        raw.send(format!("Authorization: Bearer {token}\r\n")).await;
    }
    raw.send("\r\n").await;
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 400"), "{head}");
    raw.read_until(b"Authorization comes more than once").await;
}

#[tokio::test]
async fn a_request_says_once_for_which_host_it_is() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n";
    for (request, status) in [
        ("GET /livez HTTP/1.1\r\n\r\n".to_owned(), "400"),
        ("GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), "400"),
        (format!("GET /api/ws/satellite HTTP/1.1\r\n{upgrade}\r\n"), "400"),
        ("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "200"),
        // As older probes ask.
        ("GET /livez HTTP/1.0\r\n\r\n".to_owned(), "200"),
    ] {
        let mut raw = Raw::connect(pod.address).await;
        raw.send(&request).await;
        let head = raw.head().await;
        let [_, said, ..] = head.split(' ').collect::<Vec<_>>()[..] else { panic!("{head}") };
        assert_eq!(said, status, "{request}");
    }
}

/// A load balancer or a collector may add some, and a probe that is refused takes the pod out of service.
#[tokio::test]
async fn probes_and_metrics_answer_whatever_parameters_come_with_the_question() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for path in ["/livez", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json"] {
        let answer = pod.call("GET", &format!("{path}?from=balancer&x=1&x=2"), None, None).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn whatever_is_refused_over_http_is_told_as_a_problem() {
    let fleet = Fleet::new(CALM).await;
    let pod =
        fleet.plan("a").with("GROUNDSTATION_ALLOWED_ORIGINS", "https://ops.example").start().await;
    let websocket = "/api/ws/satellite HTTP/1.1\r\nHost: pod\r\n";
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n";
    let token = format!("Host: pod\r\nAuthorization: Bearer {}\r\n", fleet.admin_token);
    let json = "Content-Type: application/json\r\n";
    for (request, expected) in [
        (format!("POST {websocket}Content-Length: 0\r\n"), "405 method-not-allowed"),
        (format!("DELETE {websocket}"), "405 method-not-allowed"),
        (format!("GET {websocket}"), "426 websocket-only"),
        (
            format!("GET {websocket}{upgrade}{key}Sec-WebSocket-Version: 12\r\n"),
            "426 websocket-only",
        ),
        (format!("GET {websocket}{upgrade}Sec-WebSocket-Version: 13\r\n"), "400 no-websocket-key"),
        (
            format!(
                "GET {websocket}{upgrade}{key}Sec-WebSocket-Version: 13\r\nOrigin: https://else\r\n"
            ),
            "403 origin",
        ),
        ("GET /api/ws/satellite HTTP/1.1\r\n".to_owned(), "400 no-host"),
        ("GET /livez HTTP/1.1\r\nHost: a\r\nHost: b\r\n".to_owned(), "400 no-host"),
        ("GET /api/ws/satellites HTTP/1.1\r\nHost: pod\r\n".to_owned(), "404 not-found"),
        ("GET /nothing HTTP/1.1\r\nHost: pod\r\n".to_owned(), "404 not-found"),
        ("OPTIONS * HTTP/1.1\r\nHost: pod\r\n".to_owned(), "404 not-found"),
        (format!("GET /v1/nothing HTTP/1.1\r\n{token}"), "404 not-found"),
        (format!("GET /v1 HTTP/1.1\r\n{token}"), "404 not-found"),
        (format!("GET /v1/ HTTP/1.1\r\n{token}"), "404 not-found"),
        (format!("GET http://pod/v1/nothing HTTP/1.1\r\n{token}"), "404 not-found"),
        (format!("GET /v1/satellites/%FF HTTP/1.1\r\n{token}"), "404 not-found"),
        (format!("TRACE /v1/satellites HTTP/1.1\r\n{token}"), "405 method-not-allowed"),
        (
            "PUT /readyz HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n".to_owned(),
            "405 method-not-allowed",
        ),
        (
            format!("POST /v1/satellites HTTP/1.1\r\n{token}{json}Content-Length: 99999999\r\n"),
            "413 too-large",
        ),
        (format!("POST /v1/satellites HTTP/1.1\r\n{token}Content-Length: 0\r\n"), "415 not-json"),
    ] {
        let mut raw = Raw::connect(pod.address).await;
        // More than a body may have.
        let body = if expected == "413 too-large" { " ".repeat(70_000) } else { String::new() };
        raw.send(format!("{request}\r\n{body}")).await;
        let head = raw.head().await;
        assert!(head.contains("content-type: application/problem+json\r\n"), "{request}{head}");
        let problem = raw.read_until(b"}").await;
        let problem: Value = serde_json::from_slice(&problem).expect("JSON");
        let kind = problem["type"].as_str().expect("a type");
        let kind = kind.strip_prefix("urn:groundstation:problem:").expect("one of ours");
        assert_eq!(format!("{} {kind}", problem["status"]), expected, "{request}{problem}");
        assert!(head.starts_with(&format!("HTTP/1.1 {} ", problem["status"])), "{request}{head}");
        assert!(problem["detail"].is_string() && problem["title"].is_string(), "{problem}");
        if problem["status"] == 405 {
            assert!(head.contains("allow: "), "{request}{head}");
        }
        if problem["status"] == 426 {
            assert!(head.contains("upgrade: websocket\r\n"), "{request}{head}");
            assert!(head.contains("sec-websocket-version: 13\r\n"), "{request}{head}");
        }
    }
    // What is no HTTP, or has no end, has a status and nothing more.
    for (request, status) in [
        ("no HTTP\r\n\r\n".to_owned(), "400"),
        (format!("GET /livez HTTP/1.1\r\nHost: pod\r\nX: {}\r\n\r\n", "x".repeat(40_000)), "431"),
        (format!("GET /{} HTTP/1.1\r\nHost: pod\r\n\r\n", "x".repeat(40_000)), "431"),
    ] {
        let mut raw = Raw::connect(pod.address).await;
        raw.send(&request).await;
        let head = raw.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(head.contains("content-length: 0\r\n"), "{head}");
    }
}

#[tokio::test]
async fn a_change_that_names_nothing_that_can_be_changed_is_refused() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let path = format!("/v1/satellites/{}", edge.id);
    let change = async |body: Value| {
        pod.call("PATCH", &path, Some(&fleet.admin_token), Some(body.to_string())).await
    };
    for body in [json!({}), json!({"nmae": "other"}), json!({"id": edge.id, "status": "online"})] {
        let answer = change(body.clone()).await;
        assert_eq!(answer.status, 422, "{body}: {answer:?}");
        let detail = answer.json()["detail"].to_string();
        assert!(detail.contains("name, region, tags, offlineThresholdMs"), "{detail}");
    }
    for body in [json!({"name": "edge", "more": 1}), json!({"offlineThresholdMs": null})] {
        assert_eq!(change(body.clone()).await.status, 200, "{body}");
    }
}

#[tokio::test]
async fn a_name_that_is_not_what_it_seems_is_refused_and_one_that_is_there_does_no_harm() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let token = Some(fleet.admin_token.as_str());
    for odd in ["\u{202e}egde", "ed\u{200b}ge", "edge\u{feff}", "\u{2067}edge", "e\u{ad}dge"] {
        for body in [json!({"name": odd, "region": "eu"}), json!({"name": "edge", "region": odd})] {
            let answer = pod.call("POST", "/v1/satellites", token, Some(body.to_string())).await;
            assert_eq!(answer.status, 422, "{body}: {answer:?}");
        }
    }
    for odd in ["\u{202e}7", "7\u{200f}", "7\u{206a}", "\u{1b}[2J", "7\n"] {
        for tags in [json!({"rack": odd}), json!({odd: "7"})] {
            let body = json!({"name": "edge", "region": "eu", "tags": tags});
            let answer = pod.call("POST", "/v1/satellites", token, Some(body.to_string())).await;
            assert_eq!(answer.status, 422, "{body}: {answer:?}");
            let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
            assert!(detail.starts_with("tags.") && detail.contains("must not contain"), "{detail}");
            assert!(!detail.contains(odd), "{detail:?}");
        }
    }
    // Joiners are part of scripts and of emoji.
    pod.register("نامه\u{200c}ای 👩\u{200d}🚀", "eu").await;
    let edge = pod.register("edge", "eu").await;
    let imported = "update satellites set name = $1, tags = $2 where id = $3";
    let tags = json!({"rack": "7\u{202e}"});
    let sql = fleet.sql().await;
    sql.execute(imported, &[&"ed\u{202e}ge", &tags, &edge.id]).await.expect("renamed");
    assert_eq!(pod.show(edge.id).await["tags"], tags);
    let path = format!("/v1/satellites/{}", edge.id);
    for (change, status) in [
        (json!({"offlineThresholdMs": 60_000}), 200),
        (json!({"tags": {"rack": "7\u{202e}", "tier": "gold"}}), 200),
        (json!({"tags": {"rack": "8\u{202e}"}}), 422),
        (json!({"name": "edge\u{202e}"}), 422),
        (json!({"name": "edge", "tags": {"rack": "7"}}), 200),
    ] {
        let answer = pod.call("PATCH", &path, token, Some(change.to_string())).await;
        assert_eq!(answer.status, status, "{change}: {answer:?}");
    }
}

#[tokio::test]
async fn whoever_may_read_may_ask_for_the_head_alone() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let read = Some(fleet.read_token.as_str());
    let answer = pod.call("HEAD", "/v1/satellites", read, None).await;
    assert_eq!((answer.status, answer.text.as_str()), (200, ""));
    assert_eq!(pod.call("HEAD", "/v1/satellites?x=1", read, None).await.status, 400);
    assert_eq!(pod.call("HEAD", "/v1/satellites", None, None).await.status, 401);
}

#[tokio::test]
async fn answers_are_not_sniffed_and_those_of_v1_are_not_stored() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let paths =
        ["/livez", "/metrics", "/openapi.json", "/v1/satellites", "/v1/satellites/x", "/nothing"];
    for path in paths {
        let answer = pod.get(path).await;
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        let stored = answer.headers.get("cache-control").map(String::as_str);
        assert_eq!(stored == Some("no-store"), path.starts_with("/v1"), "{path}: {stored:?}");
        assert!(!answer.headers.contains_key("strict-transport-security"), "{path}: in plain text");
    }
    let refused = pod.call("GET", "/v1/satellites", Some("wrong"), None).await;
    assert_eq!(refused.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn the_description_is_made_once() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let first = pod.get("/openapi.json").await;
    assert_eq!(first.headers["content-type"], "application/json");
    let begun = std::time::Instant::now();
    let mut raw = Raw::connect(pod.address).await;
    let ask = "GET /openapi.json HTTP/1.1\r\nHost: pod\r\n\r\n".repeat(299);
    raw.send(format!("{ask}GET /openapi.json HTTP/1.1\r\nHost: pod\r\nConnection: close\r\n\r\n"))
        .await;
    let answers = raw.ended().await;
    println!("300 times {} bytes in {:?}", first.text.len(), begun.elapsed());
    let description = first.text.as_bytes();
    let last = answers.windows(description.len()).next_back();
    assert_eq!(last, Some(description), "each is the same");
}

#[tokio::test]
async fn requests_are_kept_in_the_log_only_where_that_is_asked_for_and_never_their_secrets() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_ACCESS_LOG", "on");
    let pod = plan.start().await;
    let edge = pod.register("edge", "eu").await;
    pod.get("/v1/satellites?q=a-secret-name").await;
    let satellite = Satellite::connect(pod.address, &edge).await;
    satellite.close().await;
    let lines: Vec<Value> =
        pod.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of = |path: &str, method: &str| {
        let found = lines.iter().find(|line| {
            line["target"] == "access" && line["path"] == path && line["method"] == method
        });
        found.unwrap_or_else(|| panic!("no line of {method} {path} in {}", pod.log())).clone()
    };
    let listed = of("/v1/satellites", "GET");
    assert_eq!((&listed["status"], &listed["client"]), (&200.into(), &"127.0.0.1".into()));
    assert!(listed["took_ms"].is_u64());
    assert_eq!(of("/v1/satellites", "POST")["status"], 201);
    assert_eq!(of("/api/ws/satellite", "GET")["status"], 101);
    for secret in [fleet.admin_token.as_str(), &edge.token, "a-secret-name"] {
        assert!(!pod.log().contains(secret), "{secret} is in the log");
    }
    let quiet = fleet.pod("b").await;
    quiet.get("/v1/satellites").await;
    assert!(!quiet.log().contains("\"access\""));
}

#[tokio::test]
async fn a_proxy_that_passes_connections_on_says_for_whom_they_are_and_nobody_else_does() {
    let fleet = Fleet::new(CALM).await;
    let ask = "GET /v1/triggers HTTP/1.1\r\nHost: pod\r\nX-Forwarded-For: 203.0.113.9\r\n\
               Authorization: Bearer wrong\r\nConnection: close\r\n\r\n";
    let plan = fleet.plan("a").with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.7.0/24");
    let pod = plan.with("GROUNDSTATION_PROXY_PROTOCOL", "v2").start().await;
    let proxy = "127.0.7.1".parse().expect("an address");
    let mut introduced = Raw::connect_from(pod.address, proxy).await.expect("a connection");
    introduced.send([introduction([198, 51, 100, 23]), ask.into()].concat()).await;
    assert!(introduced.ended().await.starts_with(b"HTTP/1.1 401"));
    let line = pod.expect_log("a token came that is not valid here").await;
    assert_eq!(line["address"], "198.51.100.23", "whom the proxy names, whatever a header says");
    // The proxy has to send it.
    let mut silent = Raw::connect_from(pod.address, proxy).await.expect("a connection");
    silent.send(ask).await;
    assert_eq!(silent.ended().await, b"");
    pod.expect_metric("groundstation_door_refusals_total{reason=\"proxy_header\"}", 1.0).await;
    // From any other address the header is ignored.
    let mut stranger = Raw::connect(pod.address).await;
    stranger.send([introduction([198, 51, 100, 23]), ask.into()].concat()).await;
    assert!(!stranger.ended().await.starts_with(b"HTTP/1.1 2"));
    assert_eq!(pod.get("/livez").await.status, 200);
}
