//! Satellites are selected, ordered and counted by the same words, now and then: every list and every number is what
//! somebody finds who looks through all of them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{CALM, Fleet, Pod, Satellite, eventually};

/// What a query means, told from a satellite as it is shown.
fn passes(satellite: &Value, query: &[(&str, &str)]) -> bool {
    let has_connected = satellite.get("lastEvent").is_some_and(|event| !event.is_null());
    query.iter().all(|(name, value)| match *name {
        "status" | "region" | "lastEvent" | "version" => satellite[*name] == *value,
        "tag" => value.split_once(':').is_some_and(|(tag, text)| satellite["tags"][tag] == text),
        "q" => {
            let named = satellite["name"].as_str().expect("a name").to_lowercase();
            named.contains(&value.to_lowercase())
        }
        "flapping" => {
            satellite.get("flapping").is_some_and(|flaps| *flaps == true) == (*value == "true")
        }
        "neverConnected" => has_connected == (*value == "false"),
        other => panic!("{other} is not known here"),
    })
}

fn text(query: &[(&str, &str)]) -> String {
    let pairs = query.iter().map(|(name, value)| format!("{name}={value}"));
    pairs.collect::<Vec<_>>().join("&")
}

/// All pages of a list.
async fn listed(pod: &Pod, query: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let path = format!("/v1/satellites?limit={limit}&{query}{cursor}");
        let answer = pod.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let page = answer.json();
        all.extend(page["satellites"].as_array().expect("a list").iter().cloned());
        let Some(next) = page["nextCursor"].as_str() else { return all };
        cursor = format!("&cursor={next}");
    }
}

fn names(satellites: &[Value]) -> Vec<&str> {
    let mut names: Vec<&str> =
        satellites.iter().map(|satellite| satellite["name"].as_str().expect("a name")).collect();
    names.sort_unstable();
    names
}

/// Satellites of every kind, and the sockets of those that stay.
async fn every_kind(fleet: &Fleet) -> (Pod, Vec<Satellite>) {
    let plan = fleet.plan("a").with("GROUNDSTATION_FLAPPING_EDGES", "2");
    // What nobody beats for stands still.
    let plan =
        plan.with("GROUNDSTATION_FLAPPING_CALM", "1").with("GROUNDSTATION_VOUCH_WINDOW", "0");
    let pod = plan.start().await;
    let described = [
        ("here", "eu", json!({"tier": "gold"})),
        ("Here-too", "us", json!({"tier": "silver"})),
        ("gone", "eu", json!({"tier": "gold", "rack": "7"})),
        ("lost", "us", json!({})),
        ("flaps", "eu", json!({"tier": "silver"})),
        ("never", "ap", json!({"tier": "gold"})),
        ("removed", "ap", json!({"tier": "gold"})),
    ];
    let mut of = BTreeMap::new();
    for (name, region, tags) in described {
        let mut described = json!({"name": name, "region": region, "tags": tags});
        if name == "lost" {
            described["offlineThresholdMs"] = json!(1_000);
        }
        of.insert(name, pod.register_with(described).await);
    }
    let mut open = Vec::new();
    for name in ["here", "Here-too"] {
        let satellite = Satellite::connect(pod.address, &of[name]).await;
        open.push(satellite);
    }
    open[0].beat();
    for (name, times) in [("gone", 1), ("flaps", 2), ("removed", 1)] {
        for _ in 0..times {
            Satellite::connect(pod.address, &of[name]).await.close().await;
        }
    }
    open.push(Satellite::connect(pod.address, &of["lost"]).await);
    assert_eq!(pod.remove(of["removed"].id).await.status, 204);
    fleet.expect_log_length(13).await;
    eventually("the version of the one that beats", async || {
        match pod.show(of["here"].id).await.get("version") {
            Some(version) if version == "0.5.0" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    (pod, open)
}

const OF_BOTH: [&[(&str, &str)]; 14] = [
    &[],
    &[("status", "online")],
    &[("status", "offline")],
    &[("region", "eu")],
    &[("tag", "tier:gold")],
    &[("tag", "tier:gold"), ("tag", "rack:7")],
    &[("q", "HERE")],
    &[("lastEvent", "connected")],
    &[("lastEvent", "disconnected"), ("region", "eu")],
    &[("lastEvent", "heartbeat_lost")],
    &[("flapping", "true")],
    &[("flapping", "false"), ("status", "offline")],
    &[("region", "nowhere")],
    &[("status", "online"), ("region", "us"), ("q", "e"), ("flapping", "false")],
];

const OF_THE_PRESENT: [&[(&str, &str)]; 5] = [
    &[("version", "0.5.0")],
    &[("version", "0.6.0")],
    &[("neverConnected", "true")],
    &[("neverConnected", "false"), ("tag", "tier:gold")],
    &[("neverConnected", "true"), ("status", "online")],
];

/// Lists and counts hold together, and with what all of them are.
async fn expect_what_it_means(pod: &Pod, query: &[(&str, &str)], place: &str, all: &[Value]) {
    let asked = format!("{}{place}", text(query));
    let expected: Vec<Value> =
        all.iter().filter(|satellite| passes(satellite, query)).cloned().collect();
    for limit in [2, 100] {
        assert_eq!(names(&listed(pod, &asked, limit).await), names(&expected), "{asked}");
    }
    let counts = pod.get(&format!("/v1/fleet?{asked}")).await;
    assert_eq!(counts.status, 200, "{asked}: {counts:?}");
    let counts = counts.json();
    let counted = |more: &[(&str, &str)]| {
        expected.iter().filter(|satellite| passes(satellite, more)).count() as i64
    };
    let found = ["total", "online", "offline", "neverConnected", "flapping", "inMaintenance"]
        .map(|name| counts[name].as_i64().expect("a number"));
    let expected_numbers = [
        counted(&[]),
        counted(&[("status", "online")]),
        counted(&[("status", "offline")]),
        counted(&[("neverConnected", "true")]),
        counted(&[("flapping", "true")]),
        0,
    ];
    assert_eq!(found, expected_numbers, "{asked}: {counts}");
    let mut regions = BTreeMap::new();
    for satellite in &expected {
        *regions.entry(satellite["region"].as_str().expect("a region")).or_insert(0) += 1;
    }
    let shown = counts["regions"].as_array().expect("regions").iter();
    let shown: Vec<(&str, i64)> = shown
        .map(|r| (r["region"].as_str().expect("a name"), r["total"].as_i64().expect("a number")))
        .collect();
    assert_eq!(shown, regions.into_iter().collect::<Vec<_>>(), "{asked}");
}

#[tokio::test]
async fn every_filter_selects_and_counts_now_what_it_says() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _open) = every_kind(&fleet).await;
    let all = listed(&pod, "", 100).await;
    assert_eq!(names(&all), ["Here-too", "flaps", "gone", "here", "lost", "never"]);
    for query in OF_BOTH.into_iter().chain(OF_THE_PRESENT) {
        expect_what_it_means(&pod, query, "", &all).await;
    }
    let counts = pod.get("/v1/fleet").await.json();
    assert_eq!(counts["position"], 13);
    fleet.check().await;
}

#[tokio::test]
async fn every_filter_selects_and_counts_then_what_it_says() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _open) = every_kind(&fleet).await;
    // What was described later is not what was described then.
    let gone = listed(&pod, "q=gone", 100).await;
    let path = format!("/v1/satellites/{}", gone[0]["id"].as_str().expect("an id"));
    assert_eq!(pod.patch(&path, &json!({"region": "eu-2", "tags": {}})).await.status, 200);
    for position in [0, 3, 6, 9, 13] {
        let place = format!("&position={position}");
        let all = listed(&pod, &place, 100).await;
        for query in OF_BOTH {
            expect_what_it_means(&pod, query, &place, &all).await;
        }
        let counts = pod.get(&format!("/v1/fleet?position={position}")).await.json();
        assert_eq!(counts["position"], position);
    }
    let now = pod.get("/v1/fleet?region=eu-2").await.json();
    assert_eq!((&now["total"], &now["regions"][0]["region"]), (&json!(1), &json!("eu-2")));
    assert_eq!(pod.get("/v1/fleet?region=eu-2&position=13").await.json()["total"], 0);

    let last = pod.get("/v1/transitions?order=desc&limit=1").await.json();
    let at = last["transitions"][0]["recordedAt"].as_str().expect("a time").to_owned();
    let counts = eventually("the last moment to be past", async || {
        let answer = pod.get(&format!("/v1/fleet?at={at}")).await;
        if answer.status == 200 { Ok(answer.json()) } else { Err(answer.text) }
    })
    .await;
    assert_eq!(counts, pod.get("/v1/fleet?position=13").await.json());
    fleet.check().await;
}

#[tokio::test]
async fn the_inactive_are_those_offline_since_before_the_time_that_is_asked_for() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _open) = every_kind(&fleet).await;
    let at = async |query: &str| listed(&pod, query, 2).await;
    let all = names(&at("").await).len();
    assert_eq!(all, 6);
    assert!(at("inactiveFor=1h").await.is_empty());
    // After a second everybody offline is among them, by the edges of their rows, and by the log where rows forgot.
    let offline = ["flaps", "gone", "lost", "never"];
    let expect = async |what: &str| {
        eventually(what, async || {
            let found = at("inactiveFor=1s").await;
            if names(&found) == offline { Ok(()) } else { Err(format!("{:?}", names(&found))) }
        })
        .await;
    };
    expect("all that are offline").await;
    let sql = fleet.sql().await;
    let forget =
        "update satellite_connections set recent_edges = '{}' where last_event <> 'connected'";
    sql.batch_execute(forget).await.expect("rows as a rebuild leaves them");
    expect("the same from the log").await;
    let old =
        "update satellites set created_at = created_at - interval '2 days' where name = 'never'";
    sql.batch_execute(old).await.expect("an old registration");
    assert_eq!(names(&at("inactiveFor=1d").await), ["never"]);
    let counts = pod.get("/v1/fleet?inactiveFor=1d").await.json();
    assert_eq!((&counts["total"], &counts["neverConnected"]), (&json!(1), &json!(1)));

    let of_the_past = eventually("the last edge to be a second ago", async || {
        let now: String = sql
            .query_one("select to_char(clock_timestamp() at time zone 'utc' - interval '5 milliseconds', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')", &[])
            .await
            .expect("the time")
            .get(0);
        let found = at(&format!("inactiveFor=1s&at={now}")).await;
        if found.len() == 3 { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(
        names(&of_the_past),
        ["flaps", "gone", "lost"],
        "its past begins with its first edge"
    );
    assert!(at("inactiveFor=1h&position=13").await.is_empty());
}

/// By what a satellite stands where it is.
fn key(satellite: &Value, word: &str) -> (String, String, String) {
    let of = |name: &str| satellite[name].as_str().unwrap_or_default().to_owned();
    let first = match word {
        "name" => String::new(),
        // Those that are online are heard now: behind every moment.
        "lastSeenAt" if satellite["status"] == "online" => "now".to_owned(),
        word => of(word),
    };
    (first, of("name"), of("id"))
}

#[tokio::test]
async fn pages_in_every_order_hold_everybody_once_now_and_then() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _open) = every_kind(&fleet).await;
    for place in ["", "&position=13"] {
        let all = listed(&pod, place, 100).await;
        for word in ["name", "region", "createdAt", "lastSeenAt"] {
            let mut expected = all.clone();
            expected.sort_by_key(|satellite| key(satellite, word));
            for minus in ["", "-"] {
                for limit in [1, 2, 100] {
                    let found = listed(&pod, &format!("sort={minus}{word}{place}"), limit).await;
                    let ids =
                        |list: &[Value]| list.iter().map(|s| s["id"].clone()).collect::<Vec<_>>();
                    assert_eq!(ids(&found), ids(&expected), "{minus}{word}{place} by {limit}");
                }
                expected.reverse();
            }
        }
    }
    let filtered = listed(&pod, "sort=-createdAt&status=offline&region=eu", 1).await;
    let found: Vec<&str> = filtered.iter().map(|s| s["name"].as_str().expect("a name")).collect();
    assert_eq!(found, ["flaps", "gone"]);
}

/// From every offset on, a page and those behind it by cursor are the rest of the list.
async fn expect_the_same_by_offset(pod: &Pod, query: &str) {
    let ids = |list: &[Value]| list.iter().map(|s| s["id"].clone()).collect::<Vec<_>>();
    let all = ids(&listed(pod, query, 100).await);
    for offset in 0..all.len() + 2 {
        let path = format!("/v1/satellites?limit=2&offset={offset}&{query}");
        let answer = pod.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let page = answer.json();
        let mut found = ids(page["satellites"].as_array().expect("a list"));
        let rest: Vec<Value> = all.iter().skip(offset).cloned().collect();
        assert_eq!(found, rest[..rest.len().min(2)], "{path}");
        if let Some(cursor) = page["nextCursor"].as_str() {
            found.extend(ids(&listed(pod, &format!("{query}&cursor={cursor}"), 100).await));
        }
        assert_eq!(found, rest, "{path}, and on by cursor");
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_page_at_an_offset_is_what_a_reader_by_cursor_finds_there_now_and_then() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _open) = every_kind(&fleet).await;
    for place in ["", "&position=13", "&position=9"] {
        expect_the_same_by_offset(&pod, place.trim_start_matches('&')).await;
        for word in ["name", "region", "createdAt", "lastSeenAt"] {
            for minus in ["", "-"] {
                expect_the_same_by_offset(&pod, &format!("sort={minus}{word}{place}")).await;
            }
        }
        for query in OF_BOTH {
            let asked = format!("{}{place}", text(query));
            expect_the_same_by_offset(&pod, asked.trim_start_matches('&')).await;
        }
    }
    for query in OF_THE_PRESENT {
        expect_the_same_by_offset(&pod, &text(query)).await;
        expect_the_same_by_offset(&pod, &format!("sort=-region&{}", text(query))).await;
    }
    expect_the_same_by_offset(&pod, "sort=lastSeenAt&status=offline&flapping=false").await;
    expect_the_same_by_offset(&pod, "sort=region&q=e&inactiveFor=1ms").await;
}

#[tokio::test]
async fn what_cannot_be_asked_is_refused_by_its_name_and_its_limit() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    pod.register("edge", "eu").await;
    fleet.expect_log_length(2).await;
    let page = pod.get("/v1/satellites?limit=1&sort=region").await.json();
    let cursor = page["nextCursor"].as_str().expect("a second page");
    let other_order = format!("sort=createdAt&cursor={cursor}");
    let not_sorted = format!("limit=1&cursor={cursor}");
    let both = format!("sort=region&offset=1&cursor={cursor}");
    let both_then = format!("{both}&position=1");
    for (route, query, status, words) in [
        (
            "satellites",
            "lastEvent=removed",
            422,
            "lastEvent must be one of connected, disconnected, heartbeat_lost",
        ),
        ("satellites", "flapping=perhaps", 422, "flapping must be true or false."),
        ("satellites", "neverConnected=1", 422, "neverConnected must be true or false."),
        ("satellites", "limit=x", 422, "limit must be a whole number from 1 to 1000."),
        (
            "satellites",
            "inactiveFor=soon",
            422,
            "inactiveFor must be a duration such as 24h, at most 366 days",
        ),
        ("satellites", "inactiveFor=0s", 422, "inactiveFor must be"),
        ("satellites", "inactiveFor=367d", 422, "at most 366 days"),
        ("satellites", "version=%00", 422, "version must not contain a NUL"),
        (
            "satellites",
            "sort=status",
            422,
            "sort must be one of name, region, createdAt, lastSeenAt",
        ),
        ("satellites", &other_order, 422, "cursor must be"),
        ("satellites", &not_sorted, 422, "cursor must be"),
        ("satellites", &both, 422, "cursor or offset, not both"),
        ("satellites", &both_then, 422, "cursor or offset, not both"),
        ("satellites", "offset=-1", 422, "offset must be from 0 to 10000000"),
        ("satellites", "offset=10000001&position=1", 422, "offset must be from 0 to 10000000"),
        ("satellites", "offset=many", 422, "offset"),
        ("satellites", "version=1&position=1", 400, "version does not go with at and position"),
        (
            "satellites",
            "neverConnected=true&at=2026-03-01T12:00:00Z",
            400,
            "neverConnected does not go with",
        ),
        ("satellites", "lastevent=connected", 400, "nearest it knows is \"lastEvent\""),
        ("fleet", "version=1&position=1", 400, "version does not go with at and position"),
        ("fleet", "status=away", 422, "status must be online or offline"),
        ("fleet", "limit=1", 400, "no parameter \"limit\""),
        ("fleet", "offset=1", 400, "no parameter \"offset\""),
        ("transitions", "offset=1", 400, "no parameter \"offset\""),
        ("fleet", "sort=name", 400, "no parameter \"sort\""),
        ("fleet", "position=9", 422, "not happened"),
        ("fleet", "at=2020-01-01T00:00:00Z&position=1", 422, "not both"),
    ] {
        let answer = pod.get(&format!("/v1/{route}?{query}")).await;
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        assert_eq!(answer.headers["content-type"], "application/problem+json");
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(words), "{query}: {detail}");
    }
}

#[tokio::test]
async fn a_page_by_when_they_were_seen_goes_on_where_the_page_before_ended_while_all_beat() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut open = Vec::new();
    for credentials in fleet.register(&pod, "edge", 5).await {
        let satellite = Satellite::connect(pod.address, &credentials).await;
        satellite.beat_every(fleet.timing.heartbeat);
        open.push(satellite);
    }
    pod.register("never", "eu").await;
    for sort in ["lastSeenAt", "-lastSeenAt", "lastSeenAt"] {
        // Their heartbeats move nobody.
        let found = listed(&pod, &format!("sort={sort}"), 2).await;
        let mut names: Vec<&str> = found.iter().filter_map(|s| s["name"].as_str()).collect();
        if sort.starts_with('-') {
            names.reverse();
        }
        assert_eq!(names, ["never", "edge-0", "edge-1", "edge-2", "edge-3", "edge-4"], "{sort}");
    }
}

#[tokio::test]
async fn a_name_is_found_whatever_the_case_of_any_letter_now_and_then() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    for name in ["Zürich-ÄST", "ΟΔΥΣΣΕΥΣ", "Жуковский", "plain"] {
        let credentials = pod.register(name, "eu").await;
        Satellite::connect(pod.address, &credentials).await.close().await;
    }
    fleet.expect_log_length(8).await;
    for (text, name) in [
        ("ZÜRICH-äst", "Zürich-ÄST"),
        ("rich-Ä", "Zürich-ÄST"),
        ("οδυσ", "ΟΔΥΣΣΕΥΣ"),
        ("σευς", "ΟΔΥΣΣΕΥΣ"),
        ("ЖУКОВ", "Жуковский"),
        ("PLAIN", "plain"),
    ] {
        let asked = form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        for place in ["", "&position=8"] {
            let found = listed(&pod, &format!("q={asked}{place}"), 100).await;
            assert_eq!(names(&found), [name], "{text}{place}");
        }
    }
}
