//! What commands print: for people, for programs, on a terminal, and never what steers one.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::program::ran;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Satellite};

#[tokio::test]
async fn an_answer_is_a_table_json_yaml_or_names() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = pod.variables();
    let edge = json!({"name": "edge", "region": "eu", "offlineThresholdMs": 90_000});
    let edge = pod.register_with(edge).await;
    pod.register("relay", "us").await;
    let _satellite = Satellite::connect(pod.address, &edge).await;
    let list = |words: &[&'static str]| [&["satellite", "list"][..], words].concat();

    let (_, table, _) = ran(&list(&[]), &api).await;
    assert!(table.starts_with("ID ") && !table.contains("THRESHOLD"), "{table}");
    let (_, wide, _) = ran(&list(&["-o", "wide"]), &api).await;
    assert!(wide.contains("THRESHOLD") && wide.contains("1m 30s"), "{wide}");
    let (_, names, _) = ran(&list(&["-o", "name"]), &api).await;
    assert_eq!(names, "edge\nrelay\n");
    let (_, as_json, _) = ran(&list(&["-o", "json"]), &api).await;
    let (_, as_before, _) = ran(&list(&["--json"]), &api).await;
    let ids = |text: &str| -> Vec<Value> {
        let list: Vec<Value> = serde_json::from_str(text).expect("JSON");
        list.iter().map(|satellite| satellite["id"].clone()).collect()
    };
    assert_eq!(ids(&as_json), ids(&as_before));
    let (_, as_yaml, _) = ran(&list(&["-o", "yaml"]), &api).await;
    let as_yaml: Vec<Value> = serde_yaml_ng::from_str(&as_yaml).expect("YAML");
    assert_eq!(as_yaml[0]["offlineThresholdMs"], 90_000);
    for (command, names) in [("fleet", "eu\nus\n"), ("triggers", "satellite.connected\n")] {
        let (succeeded, said, error) = ran(&[command, "-o", "name"], &api).await;
        assert!(succeeded && said.starts_with(names), "{command}: {said}{error}");
    }

    // What is shown this once must not be left out.
    let create = ["satellite", "create", "--name", "x", "--region", "eu", "-o", "name"];
    let (created, _, error) = ran(&create, &api).await;
    assert!(!created && error.contains("-o name is not possible here"), "{error}");
    let (_, names, _) = ran(&list(&["-o", "name"]), &api).await;
    assert_eq!(names, "edge\nrelay\n");
    for command in [&["status"][..], &["transitions"], &["fleet", "timeline"]] {
        let (succeeded, _, error) = ran(&[command, &["-o", "name"]].concat(), &api).await;
        assert!(
            !succeeded && error.contains("-o name is not possible here"),
            "{command:?}: {error}"
        );
    }
}

#[tokio::test]
async fn colours_are_for_terminals_and_for_who_asks_for_them() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let _satellite = Satellite::connect(pod.address, &pod.register("edge", "eu").await).await;
    let mut api = pod.variables();
    let (_, plain, _) = ran(&["satellite", "list"], &api).await;
    assert!(!plain.contains('\x1b') && plain.contains("online"), "{plain:?}");
    let (_, coloured, _) = ran(&["satellite", "list", "--color", "always"], &api).await;
    assert!(coloured.contains("\x1b[32monline\x1b[0m"), "{coloured:?}");
    let (_, json, _) = ran(&["satellite", "list", "--color", "always", "-o", "json"], &api).await;
    assert!(!json.contains('\x1b'), "{json:?}");

    let shown = at_a_terminal(&["satellite", "list"], &api, None).await;
    assert!(text(&shown).contains("\x1b[32monline\x1b[0m"), "{:?}", text(&shown));
    api.push(("NO_COLOR".to_owned(), "1".to_owned()));
    let shown = at_a_terminal(&["satellite", "list"], &api, None).await;
    assert!(
        text(&shown).contains("online") && !text(&shown).contains('\x1b'),
        "{:?}",
        text(&shown)
    );
}

#[tokio::test]
async fn no_name_writes_on_an_operators_screen() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = pod.variables();
    let credentials = pod.register("edge", "eu").await;
    // The API takes no such name. A database that something else wrote may have one.
    let name = "\x1b]0;owned\x07\u{9b}31m\u{202e}edge";
    let sql = fleet.sql().await;
    sql.execute("update satellites set name = $1", &[&name]).await.expect("a name");
    Satellite::connect(pod.address, &credentials).await.close().await;
    fleet.expect_log_length(2).await;
    let id = credentials.id.to_string();
    for command in [
        &["satellite", "list", "-o", "wide"][..],
        &["satellite", "list", "-o", "name"],
        &["satellite", "show", &id, "-o", "json"],
        &["satellite", "show", &id, "-o", "yaml"],
        &["transitions"],
        &["transitions", "-o", "json"],
    ] {
        let (succeeded, said, error) = ran(command, &api).await;
        let steers = |c: char| c != '\n' && (c.is_control() || c == '\u{202e}');
        let is_json = command.contains(&"json");
        let found = said.chars().find(|&c| steers(c) && !(is_json && c == '\u{202e}'));
        assert!(
            succeeded && said.contains("edge") && found.is_none(),
            "{command:?}: {said:?}{error}"
        );
    }
    let (_, _, error) = ran(&["satellite", "show", "\x1b[2J"], &api).await;
    assert!(!error.contains('\x1b'), "{error:?}");
}

#[tokio::test]
async fn what_is_lost_for_good_is_asked_about_at_a_terminal() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = pod.variables();
    for name in ["one", "two", "three"] {
        pod.register(name, "eu").await;
    }
    let refused = at_a_terminal(&["satellite", "remove", "one"], &api, Some("n")).await;
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(text(&refused).contains("Remove one, whose session ends"), "{}", text(&refused));
    assert!(text(&refused).contains("nothing was changed"), "{}", text(&refused));
    let done = at_a_terminal(&["satellite", "remove", "one"], &api, Some("y")).await;
    assert!(done.status.success(), "{}", text(&done));
    let done = at_a_terminal(&["satellite", "remove", "two", "--yes"], &api, None).await;
    assert!(done.status.success() && !text(&done).contains("[y/N]"), "{}", text(&done));
    // A script has nobody to ask.
    let (removed, _, error) = ran(&["satellite", "remove", "three"], &api).await;
    assert!(removed, "{error}");
    let (_, names, _) = ran(&["satellite", "list", "-o", "name"], &api).await;
    assert_eq!(names, "");
}

#[tokio::test]
async fn single_tags_come_and_go_and_none_is_lost_between_two_writers() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = pod.variables();
    let edge = json!({"name": "edge", "region": "eu", "tags": {"rack": "7", "old": "yes"}});
    let edge = pod.register_with(edge).await;
    let update = |words: &'static [&'static str]| {
        let api = api.clone();
        async move {
            let (updated, _, error) =
                ran(&[&["satellite", "update", "edge"], words].concat(), &api).await;
            assert!(updated, "{error}");
        }
    };
    update(&["--add-tag", "rack:8", "--remove-tag", "old", "--region", "us"]).await;
    let shown = pod.show(edge.id).await;
    assert_eq!((&shown["tags"], &shown["region"]), (&json!({"rack": "8"}), &"us".into()));
    tokio::join!(
        update(&["--add-tag", "a:1"]),
        update(&["--add-tag", "b:2"]),
        update(&["--add-tag", "c:3"]),
    );
    let all = json!({"rack": "8", "a": "1", "b": "2", "c": "3"});
    assert_eq!(pod.show(edge.id).await["tags"], all);
    let both = ["satellite", "update", "edge", "--tag", "x:y", "--add-tag", "a:1"];
    let (updated, _, error) = ran(&both, &api).await;
    assert!(!updated && error.contains("cannot be used with"), "{error}");
}

#[tokio::test]
async fn every_command_has_a_page_in_the_manual() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Uuid::new_v4().to_string());
    let shown = folder.display().to_string();
    let (written, _, error) = ran(&["man", &shown], &[]).await;
    assert!(written, "{error}");
    let page = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    assert!(page("groundstation.1").contains("Exit status"));
    assert!(page("groundstation-satellite-update.1").contains("add\\-tag"));
    std::fs::remove_dir_all(folder).expect("the folder");
}

/// Runs a command at a terminal of its own, and gives an answer when it asks.
async fn at_a_terminal(
    arguments: &[&str],
    environment: &[(String, String)],
    answer: Option<&str>,
) -> Output {
    /// Python has terminals in its own library.
    const TERMINAL: &str = "
import os, pty, sys
answer, program = sys.argv[1], sys.argv[2:]
pid, terminal = pty.fork()
if pid == 0:
    os.execv(program[0], program)
said = b''
while True:
    try:
        more = os.read(terminal, 4096)
    except OSError:
        break
    if not more:
        break
    said += more
    if answer and b'[y/N]' in said:
        os.write(terminal, answer.encode() + b'\\n')
        answer = ''
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
";
    let mut command = Command::new("python3");
    let program = env!("CARGO_BIN_EXE_groundstation");
    command.args(["-c", TERMINAL, answer.unwrap_or_default(), program]).args(arguments);
    command.env_clear().envs(environment.iter().cloned()).env("TERM", "xterm");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    blocking(move || command.output().expect("Python starts")).await
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
