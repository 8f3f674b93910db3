//! What ends sessions, on the command line: kick, disable, enable, and a rotation with an overlap.

use std::process::Command;

use serde_json::Value;
use uuid::Uuid;

use crate::harness::program::{command, ran};
use crate::harness::wait::blocking;
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite};

fn api(fleet: &Fleet, pod: &Pod, token: &str) -> Vec<(String, String)> {
    let url = format!("http://{}", pod.address);
    assert!([&fleet.admin_token, &fleet.read_token].iter().any(|known| *known == token));
    let variables = [("GROUNDSTATION_URL", url), ("GROUNDSTATION_ADMIN_TOKEN", token.to_owned())];
    variables.map(|(name, value)| (name.to_owned(), value)).to_vec()
}

/// The JSON that a command prints.
async fn printed(arguments: &[&str], api: &[(String, String)]) -> Value {
    let (ok, said, error) = ran(arguments, api).await;
    assert!(ok, "{arguments:?}: {error}");
    serde_json::from_str(&said).expect("JSON")
}

/// The row of a table that has this word.
fn row<'a>(table: &'a str, word: &str) -> &'a str {
    table.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{word} in {table}"))
}

#[tokio::test]
async fn a_satellite_is_kicked_disabled_and_enabled_by_its_name_on_the_command_line() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = api(&fleet, &pod, &fleet.admin_token);
    let edge = pod.register("edge", "eu").await;
    let id = edge.id.to_string();

    let mut satellite = Satellite::connect(pod.address, &edge).await;
    let (ok, said, error) = ran(&["satellite", "kick", "edge"], &api).await;
    assert!(ok && said == format!("kicked {id}: its session has ended\n"), "{said}{error}");
    satellite.expect_shutdown("kicked").await;
    let (ok, said, _) = ran(&["satellite", "kick", &id, "--yes"], &api).await;
    assert!(ok && said == format!("{id} is offline: there was no session to end\n"), "{said}");
    let said = printed(&["satellite", "kick", "edge", "--json"], &api).await;
    assert_eq!(
        (&said["sessionEnded"], &said["satellite"]["id"]),
        (&false.into(), &id.clone().into())
    );

    let mut satellite = Satellite::connect(pod.address, &edge).await;
    let (ok, said, error) = ran(&["satellite", "disable", "edge"], &api).await;
    assert!(ok && said == format!("disabled {id}: its session has ended\n"), "{said}{error}");
    satellite.expect_shutdown("Satellite is disabled").await;
    let (ok, said, _) = ran(&["satellite", "disable", "edge"], &api).await;
    assert!(ok && said == format!("disabled {id}\n"), "{said}");
    let said = printed(&["satellite", "disable", "edge", "--json"], &api).await;
    assert_eq!(
        (&said["sessionEnded"], &said["satellite"]["disabled"]),
        (&false.into(), &true.into())
    );
    for command in [&["satellite", "list"][..], &["satellite", "show", "edge"]] {
        let (_, table, _) = ran(command, &api).await;
        assert!(row(&table, &id).contains("offline, disabled"), "{table}");
    }

    let (ok, said, error) = ran(&["satellite", "enable", "edge"], &api).await;
    assert!(ok && said == format!("enabled {id}\n"), "{said}{error}");
    let said = printed(&["satellite", "enable", &id, "--json"], &api).await;
    assert_eq!((&said["id"], said.get("disabled")), (&id.clone().into(), None));
    let (_, table, _) = ran(&["satellite", "list"], &api).await;
    assert!(!table.contains("disabled"), "{table}");
    Satellite::connect(pod.address, &edge).await.close().await;
    fleet.check().await;
}

#[tokio::test]
async fn a_token_is_rotated_with_an_overlap_on_the_command_line() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let api = api(&fleet, &pod, &fleet.admin_token);
    let edge = pod.register("edge", "eu").await;
    let rotate = ["satellite", "rotate-token", "edge", "--overlap", "1h"];
    let (ok, said, error) = ran(&rotate, &api).await;
    assert!(ok && said.contains("token  csat_"), "{error}");
    assert!(said.contains("the one before is valid until 20"), "{said}");
    Satellite::connect(pod.address, &edge).await.close().await;
    let said = printed(&[&rotate[..], &["--json"]].concat(), &api).await;
    assert!(said["previousTokenEndsAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{said}");
    let token = said["token"].as_str().expect("a token").to_owned();
    Satellite::connect(pod.address, &Credentials { token, ..edge }).await.close().await;
    let (ok, _, why) =
        ran(&["satellite", "rotate-token", "edge", "--overlap", "31days"], &api).await;
    assert!(!ok && why.contains("overlap") && why.contains("from 1s to 30days"), "{why}");
    let (_, said, _) = ran(&["satellite", "rotate-token", "edge", "--json"], &api).await;
    assert!(!said.contains("previousTokenEndsAt"), "{said}");
    fleet.check().await;
}

#[tokio::test]
async fn what_is_not_there_not_allowed_or_not_possible_has_its_exit_status() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.register("edge", "eu").await;
    let unknown = Uuid::new_v4().to_string();
    let status = async |token: &str, arguments: &[&str]| {
        let mut command = command(&api(&fleet, &pod, token));
        command.args(arguments);
        blocking(move || command.output()).await.expect("it runs").status.code()
    };
    let (admin, reader) = (fleet.admin_token.as_str(), fleet.read_token.as_str());
    for word in ["kick", "disable", "enable"] {
        assert_eq!(status(admin, &["satellite", word, &unknown]).await, Some(3), "{word}");
        assert_eq!(status(admin, &["satellite", word, "nobody"]).await, Some(3), "{word}");
        assert_eq!(status(reader, &["satellite", word, "edge"]).await, Some(4), "{word}");
        assert_eq!(status(admin, &["satellite", word]).await, Some(2), "{word}");
        let (_, help, _) = ran(&["satellite", word, "--help"], &[]).await;
        assert!(help.contains("name if no other has the same"), "{help}");
    }
    let overlap = ["satellite", "rotate-token", "edge", "--overlap", "soon"];
    assert_eq!(status(admin, &overlap).await, Some(2));
    let (_, help, _) = ran(&["satellite", "rotate-token", "--help"], &[]).await;
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(help.contains("--overlap <DURATION>") && help.contains("1s to 30days"), "{help}");
}

/// Runs a command on a terminal, types an answer, and ends with the command's exit status.
const ON_A_TERMINAL: &str = r#"
import os, pty, sys
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[2], sys.argv[2:])
said = b""
typed = False
while True:
    try:
        part = os.read(terminal, 1024)
    except OSError:
        break
    if not part:
        break
    said += part
    if b"[y/N]" in said and not typed:
        os.write(terminal, sys.argv[1].encode() + b"\n")
        typed = True
sys.stdout.buffer.write(said)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

#[tokio::test]
async fn on_a_terminal_what_ends_a_session_is_asked_for_first() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let edge = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &edge).await;
    let api = api(&fleet, &pod, &fleet.admin_token);
    let answered = async |answer: &str, arguments: &[&str]| {
        let mut command = Command::new("python3");
        command.args(["-c", ON_A_TERMINAL, answer, env!("CARGO_BIN_EXE_groundstation")]);
        command.args(arguments).envs(api.iter().cloned());
        let output = blocking(move || command.output()).await.expect("python3");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    for word in ["kick", "disable"] {
        let (status, said) = answered("n", &["satellite", word, "edge"]).await;
        assert!(said.contains("[y/N]") && said.contains("nothing was changed"), "{said}");
        assert_eq!(status, Some(1), "{said}");
    }
    assert_eq!(fleet.history(edge.id).await, ["1 connected connect"]);
    // Letting somebody in ends nothing.
    let (status, said) = answered("n", &["satellite", "enable", "edge"]).await;
    assert!(status == Some(0) && !said.contains("[y/N]"), "{said}");
    let (status, said) = answered("y", &["satellite", "kick", "edge"]).await;
    assert!(status == Some(0) && said.contains("its session has ended"), "{said}");
    let (status, said) = answered("n", &["satellite", "disable", "edge", "--yes"]).await;
    assert!(status == Some(0) && !said.contains("[y/N]"), "{said}");
    assert_eq!(pod.show(edge.id).await["disabled"], true);
    drop(satellite);
    fleet.check().await;
}
