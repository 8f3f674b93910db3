//! The audit on the command line: a table for people, JSON for programs, and what comes, as it comes.

use serde_json::{Value, json};

use crate::harness::program::ran;
use crate::harness::running::Running;
use crate::harness::{CALM, Fleet};

#[tokio::test]
async fn the_audit_is_listed_filtered_and_printed_in_every_form() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let deploy = pod.make_token(&json!({"name": "deploy", "role": "admin"})).await;
    let body = json!({"name": "one", "region": "eu"}).to_string();
    let made = pod.call("POST", "/v1/satellites", Some(&deploy.secret), Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    // As a pod's environment may have it too.
    let mut environment = pod.variables();
    environment.push(("DATABASE_URL".to_owned(), fleet.database_url.clone()));
    environment.push(("NATS_URL".to_owned(), fleet.nats_url.clone()));
    let run = async |arguments: &[&str]| {
        let arguments = [&["audit", "list"], arguments].concat();
        ran(&arguments, &environment).await
    };
    let (done, table, error) = run(&[]).await;
    assert!(done, "{error}");
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("POSITION"), "{table}");
    for words in ["token deploy", "127.0.0.1", "satellite.created"] {
        assert!(lines[2].contains(words), "{table}");
    }
    assert!(!table.contains("\"name\""), "{table}");
    let (_, wide, _) = run(&["-o", "wide", "--actor", "deploy"]).await;
    assert!(wide.lines().count() == 2 && wide.contains("\"name\":\"one\""), "{wide}");
    let (_, page, _) = run(&["--newest-first", "--limit", "1", "-o", "json"]).await;
    let page: Value = serde_json::from_str(&page).expect("JSON");
    assert_eq!(page["entries"][0]["position"], 2);
    assert_eq!(page["nextBefore"], 2);
    let (_, page, _) = run(&["--action", "token.created", "-o", "yaml"]).await;
    assert!(page.contains("action: token.created"), "{page}");
    let (_, help, _) = run(&["--help"]).await;
    for option in ["--actor", "--action", "--target", "--since", "--follow", "--output"] {
        assert!(help.contains(option), "{option}: {help}");
    }

    for (arguments, said) in [
        (&["--action", "renamed"][..], "action must be one of"),
        (&["-o", "name"], "an entry has a position and no name"),
        (&["--limit", "0"], "0 is not in 1..=1000"),
        (&["--before", "3"], "--newest-first"),
        (&["--token", "wrong"], "401"),
    ] {
        let (done, _, error) = run(arguments).await;
        assert!(!done && error.contains(said), "{arguments:?}: {error}");
    }
    // The other meanings of the command stay, and are not mixed with this one.
    let (done, _, error) = ran(&["audit", "--chain", "list"], &environment).await;
    assert!(!done && error.contains("list"), "{error}");
    let (done, said, error) = ran(&["audit", "--chain"], &environment).await;
    assert!(done, "{said}{error}");
}

#[tokio::test]
async fn a_follower_of_the_audit_prints_what_comes_across_pods() {
    let fleet = Fleet::new(CALM).await;
    let mut a = fleet.plan("a").with("GROUNDSTATION_LISTEN", "127.0.0.1:0").start().await;
    a.register("one", "eu").await;
    let arguments = ["audit", "list", "--follow", "--after", "0", "--json"];
    let follower = Running::start(&arguments, &a.variables(), &std::env::temp_dir());
    follower.says("following").await;
    follower.prints("\"position\":1,").await;
    // Its pod is away for a while, and another one in its place.
    let listen = a.address.to_string();
    a.kill();
    follower.says("groundstation:").await;
    let b = fleet.plan("b").with("GROUNDSTATION_LISTEN", &listen).start().await;
    b.register("two", "eu").await;
    follower.prints("\"position\":2,").await;
    let all = follower.everything();
    assert_eq!(all.matches("\"position\":1,").count(), 1, "{all}");
}
