//! The fleet on the command line: counted, listed, over a while, and the log from its newest end.

use serde_json::{Value, json};

use crate::harness::program::ran;
use crate::harness::relaying::come_and_go;
use crate::harness::running::Running;
use crate::harness::{CALM, Fleet, Pod, Satellite};

fn api(fleet: &Fleet, pod: &Pod) -> Vec<(String, String)> {
    let url = format!("http://{}", pod.address);
    let variables =
        [("GROUNDSTATION_URL", url), ("GROUNDSTATION_ADMIN_TOKEN", fleet.read_token.clone())];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

async fn said(arguments: &[&str], api: &[(String, String)]) -> String {
    let (succeeded, said, error) = ran(arguments, api).await;
    assert!(succeeded, "{arguments:?}: {error}");
    said
}

async fn json_of(arguments: &[&str], api: &[(String, String)]) -> Value {
    let text = said(&[arguments, &["--json"]].concat(), api).await;
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn the_fleet_is_counted_listed_and_told_over_a_while_on_the_command_line() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = api(&fleet, &pod);
    let (here, gone) = (pod.register("here", "eu").await, pod.register("gone", "us").await);
    pod.register("never", "us").await;
    let _open = Satellite::connect(pod.address, &here).await;
    come_and_go(&pod, &gone).await;
    fleet.expect_log_length(3).await;

    let table = said(&["fleet"], &api).await;
    let cells: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(cells[1], ["eu", "1", "1", "0", "0", "0", "0"], "{table}");
    assert_eq!(cells[2], ["us", "2", "0", "2", "1", "0", "0"], "{table}");
    assert_eq!(cells[3], ["(all)", "3", "1", "2", "1", "0", "0"], "{table}");
    assert!(table.ends_with("as of position 3\n"), "{table}");
    assert_eq!(json_of(&["fleet"], &api).await, pod.get("/v1/fleet").await.json());
    let then = json_of(&["fleet", "--position", "1", "--region", "eu"], &api).await;
    assert_eq!((&then["total"], &then["position"]), (&json!(1), &json!(1)));
    let status = json_of(&["status"], &api).await;
    let expected =
        json!({"satellites": 3, "online": 1, "offline": 2, "neverConnected": 1, "flapping": 0});
    assert_eq!(status["fleet"], expected);

    let names = |list: Value| -> Vec<String> {
        let list = list.as_array().expect("a list").iter();
        list.map(|satellite| satellite["name"].as_str().expect("a name").to_owned()).collect()
    };
    for (arguments, expected) in [
        (&["--sort", "-name"][..], &["never", "here", "gone"][..]),
        (&["--never-connected"], &["never"]),
        (&["--never-connected=false", "--status", "offline"], &["gone"]),
        (&["--last-event", "connected"], &["here"]),
        (&["--flapping"], &[]),
        (&["--inactive-for", "1h"], &[]),
        (&["--at", "2020-01-01T00:00:00Z"], &[]),
        (&["--position", "3", "--status", "offline", "--sort", "region"], &["gone"]),
    ] {
        let list = json_of(&[&["satellite", "list"][..], arguments].concat(), &api).await;
        assert_eq!(names(list), expected, "{arguments:?}");
    }
    let both = ["fleet", "--position", "3", "--agent-version", "1"];
    let (succeeded, _, why) = ran(&both, &api).await;
    assert!(!succeeded && why.contains("cannot be used with"), "{why}");
    let (succeeded, _, why) = ran(&["fleet", "--status", "away"], &api).await;
    assert!(!succeeded && why.contains("status must be online or offline"), "{why}");

    let timeline = json_of(&["fleet", "timeline", "--step", "1h"], &api).await;
    assert_eq!(timeline["points"].as_array().map(Vec::len), Some(25));
    let table = said(&["fleet", "timeline", "--step", "1h"], &api).await;
    assert!(table.starts_with("TIME") && table.lines().count() == 26, "{table}");
    let (here, gone) = (here.id.to_string(), gone.id.to_string());
    let table = said(&["satellite", "intervals", &here, &gone], &api).await;
    let of = |id: &str| -> Vec<Vec<&str>> {
        let lines = table.lines().filter(|line| line.starts_with(id));
        lines.map(|line| line.split_whitespace().skip(3).collect()).collect()
    };
    assert_eq!(of(&here), [vec!["unknown", "-", "-"], vec!["up", "connected", "connect"]]);
    assert_eq!(of(&gone).last(), Some(&vec!["down", "disconnected", "client_close"]));

    let newest = json_of(&["transitions", "--newest-first", "--limit", "2"], &api).await;
    let positions = newest["transitions"].as_array().expect("a list").iter();
    assert_eq!(positions.map(|t| &t["position"]).collect::<Vec<_>>(), [3, 2]);
    let before = ["transitions", "--newest-first", "--before", "2", "--region", "eu"];
    assert_eq!(json_of(&before, &api).await["transitions"][0]["position"], 1);
    for help in [
        &["fleet", "--help"][..],
        &["fleet", "timeline", "--help"],
        &["satellite", "intervals", "--help"],
    ] {
        assert!(said(help, &api).await.contains("--json"), "{help:?}");
    }
}

#[tokio::test]
async fn a_follower_with_filters_prints_what_passes_them_across_broken_connections() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_STREAM_LIFETIME", "1s").start().await;
    let (eu, us) = (pod.register("eu", "eu").await, pod.register("us", "us").await);
    let arguments = [
        "transitions",
        "--follow",
        "--after",
        "0",
        "--json",
        "--region",
        "eu",
        "--event",
        "connected",
    ];
    let follower = Running::start(&arguments, &api(&fleet, &pod), &std::env::temp_dir());
    follower.says("following").await;
    for round in 0..4 {
        come_and_go(&pod, &us).await;
        come_and_go(&pod, &eu).await;
        follower.prints(&format!("\"position\":{},", 4 * round + 3)).await;
    }
    let all = follower.everything();
    let printed = all.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let positions: Vec<_> = printed.map(|t| t["position"].as_i64().expect("a position")).collect();
    assert_eq!(positions, [3, 7, 11, 15]);
}

#[tokio::test]
async fn a_satellite_is_named_by_its_id_or_by_a_name_that_no_other_has() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let mut api = api(&fleet, &pod);
    api.push(("DATABASE_URL".to_owned(), fleet.database_url.clone()));
    api[1].1.clone_from(&fleet.admin_token);
    let edge = pod.register("edge", "eu").await;
    // Their names contain it, and are others.
    pod.register("edge-2", "eu").await;
    pod.register("Edge", "eu").await;
    let twins = [pod.register("twin", "eu").await.id, pod.register("twin", "us").await.id];
    come_and_go(&pod, &edge).await;
    fleet.expect_log_length(2).await;
    let id = edge.id.to_string();
    for by in ["edge", &id] {
        assert_eq!(json_of(&["satellite", "show", by], &api).await["id"], id);
        let intervals = json_of(&["satellite", "intervals", by, "Edge"], &api).await;
        let intervals = intervals["intervals"].as_object().expect("of each").clone();
        assert!(intervals.len() == 2 && intervals.contains_key(&id), "{intervals:?}");
        let of = json_of(&["transitions", "--satellite", by], &api).await;
        assert_eq!(of["transitions"].as_array().map(Vec::len), Some(2), "{of}");
        let replayed = said(&["replay", "--satellite", by], &api).await;
        assert_eq!(replayed.lines().count(), 2, "{replayed}");
        let updated = json_of(&["satellite", "update", by, "--region", "us"], &api).await;
        assert_eq!((&updated["id"], &updated["region"]), (&json!(id), &json!("us")));
        assert_eq!(
            json_of(&["satellite", "assignments", by], &api).await["assignments"],
            json!([])
        );
        let rotated = json_of(&["satellite", "rotate-token", by], &api).await;
        assert_eq!(rotated["satellite"]["id"], id);
    }
    for command in [
        &["satellite", "show", "twin"][..],
        &["satellite", "remove", "twin"],
        &["satellite", "intervals", "edge", "twin"],
        &["transitions", "--satellite", "twin"],
        &["replay", "--satellite", "twin"],
    ] {
        let (succeeded, _, why) = ran(command, &api).await;
        assert!(
            !succeeded && why.contains("2 satellites are called \"twin\""),
            "{command:?}: {why}"
        );
        assert!(twins.iter().all(|id| why.contains(&id.to_string())), "{command:?}: {why}");
    }
    for command in [&["satellite", "show", "nobody"][..], &["replay", "--satellite", "nobody"]] {
        let (succeeded, _, why) = ran(command, &api).await;
        assert!(
            !succeeded && why.contains("there is no satellite \"nobody\""),
            "{command:?}: {why}"
        );
    }
    assert_eq!(json_of(&["satellite", "remove", "edge"], &api).await["removed"], id);
    let of = json_of(&["transitions", "--satellite", &id], &api).await;
    assert_eq!(
        of["transitions"].as_array().map(Vec::len),
        Some(3),
        "removed, and its past is there: {of}"
    );
}

#[tokio::test]
async fn options_that_every_command_has_stand_before_and_behind_its_subcommand() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let url = format!("http://{}", pod.address);
    let options = ["--url", &url, "--token", &fleet.read_token, "--json"];
    for (command, subcommand) in [("fleet", &["timeline"][..]), ("satellite", &["list"])] {
        for order in [
            [&[command][..], &options, subcommand].concat(),
            [&[command][..], subcommand, &options].concat(),
        ] {
            let json: Value = serde_json::from_str(&said(&order, &[]).await).expect("JSON");
            assert!(json.is_object() || json.is_array(), "{order:?}: {json}");
        }
    }
    // Filters are not of all: a timeline is of the whole fleet.
    let filtered = [&["fleet", "--region", "eu"][..], &options, &["timeline"]].concat();
    let (succeeded, _, why) = ran(&filtered, &[]).await;
    assert!(!succeeded && why.contains("it takes no filters"), "{why}");
}
