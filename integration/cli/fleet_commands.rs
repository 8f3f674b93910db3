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
