//! `groundstation dev`: within seconds a person sees real satellites' edges arrive on NATS, and
//! nothing is left behind but the data.

use std::fs;
use std::path::PathBuf;

use groundstation::dev::stores::remove_all;
use groundstation::dev::tools::Tools;

use crate::harness::running::Running;
use crate::harness::stores::random;
use crate::harness::wait::{blocking, eventually};

/// The private stores' programs, told by environment: the folder has no `.tools`.
fn environment() -> Vec<(String, String)> {
    let tools = Tools::find(env!("CARGO_MANIFEST_DIR").as_ref()).expect("`make tools`");
    let path = |path: &PathBuf| path.to_str().expect("text").to_owned();
    vec![
        ("GROUNDSTATION_POSTGRES_BIN".to_owned(), path(&tools.postgres_bin)),
        ("GROUNDSTATION_NATS_SERVER".to_owned(), path(&tools.nats_server)),
        ("PATH".to_owned(), std::env::var("PATH").expect("a PATH")),
    ]
}

/// The processes of a server whose arguments name this folder.
fn servers(folder: &str) -> String {
    let output = std::process::Command::new("ps").args(["-eo", "args"]).output().expect("ps runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_ours =
        text.lines().filter(|line| line.contains(folder) && !line.contains("groundstation dev"));
    of_ours.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn dev_shows_edges_arriving_on_nats_ends_clean_keeps_its_data_and_starts_over_when_told() {
    let name = format!("groundstation-dev-test-{}", random());
    let folder = std::env::temp_dir().join(&name);
    fs::create_dir_all(&folder).expect("a folder");
    let environment = environment();

    let mut first = Running::start(&["dev", "--listen", "127.0.0.1:0"], &environment, &folder);
    first.prints("pod listens on http://127.0.0.1:").await;
    // All twelve connect, and sooner or later one of them does something.
    first.prints("position 12").await;
    first.prints("connected  ").await;
    let edge = first.prints("position 13").await;
    assert!(!edge.contains(" connect  "), "a satellite left or dropped out: {edge}");
    first.interrupt();
    assert!(first.ends().await.success(), "{}", first.everything());
    first.prints("stopped; the data stays in .groundstation/").await;
    eventually("no server to be left", async || {
        let left = servers(&name);
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    assert!(folder.join(".groundstation/postgres").exists());

    // The next run goes on where the first one stopped.
    let mut second = Running::start(&["dev", "--listen", "127.0.0.1:0"], &environment, &folder);
    second.prints("session 2 ").await;
    second.interrupt();
    assert!(second.ends().await.success(), "{}", second.everything());

    let fresh = ["dev", "--fresh", "--listen", "127.0.0.1:0", "--duration", "24h"];
    let third = Running::start(&fresh, &environment, &folder);
    let edge = third.prints("position 1").await;
    assert!(edge.contains("session 1"), "{edge}");
    // Not even a pod that is killed leaves a server behind.
    drop(third);
    eventually("no server to be left", async || {
        let left = servers(&name);
        if left.is_empty() { Ok(()) } else { Err(left) }
    })
    .await;
    blocking(move || {
        remove_all(&folder.join(".groundstation")).expect("removed");
        fs::remove_dir_all(&folder).expect("removed");
    })
    .await;
}
