//! The consumers of `docs/examples/` do what they promise, each in its language: they continue where they ended, take
//! from the log what is missing on the stream, and handle nothing twice when the stream is built anew.

use std::path::Path;
use std::process::Command;

use async_nats::jetstream;
use serde_json::Value;
use uuid::Uuid;

use crate::harness::foreign;
use crate::harness::relaying::{STREAM, come_and_go};
use crate::harness::running::Running;
use crate::harness::{CALM, Fleet};
use crate::stream::audit::audit;

/// What a consumer did until it had handled as many transitions as requested.
struct Consumed {
    positions: Vec<i64>,
    said: String,
}

/// Runs it to its end. Returns whether it succeeded, and its output.
async fn run(fleet: &Fleet, mut command: Command, state: &Path, count: usize) -> (bool, String) {
    command
        .env("NATS_URL", &fleet.nats_url)
        .env("STATE", state)
        .env("DURABLE", "example")
        .env("COUNT", count.to_string());
    let mut running = Running::of(command);
    let ended = running.ends().await;
    (ended.success(), running.everything())
}

async fn consume(fleet: &Fleet, command: Command, state: &Path, count: usize) -> Consumed {
    let (is_well, said) = run(fleet, command, state, count).await;
    assert!(is_well, "{said}");
    let lines = said.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let positions = lines.filter_map(|line| line["position"].as_i64()).collect();
    Consumed { positions, said }
}

/// The whole scenario; `command` makes the consumer to be started. Returns what it said when the stream was built anew.
async fn keeps_its_promises(command: impl Fn() -> Command) -> String {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let state = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.state", Uuid::new_v4()));
    let satellites = fleet.register(&pod, "edge", 4).await;
    for satellite in &satellites[..3] {
        come_and_go(&pod, satellite).await;
    }
    fleet.expect_log_length(6).await;
    fleet.check().await;

    let first = consume(&fleet, command(), &state, 4).await;
    assert_eq!(first.positions, [1, 2, 3, 4], "{}", first.said);

    let stream = jetstream::new(fleet.nats().await).get_stream(STREAM).await.expect("the stream");
    assert!(stream.delete_message(5).await.expect("NATS answers"), "message 5 was there");
    let second = consume(&fleet, command(), &state, 2).await;
    assert_eq!(second.positions, [5, 6], "{}", second.said);

    let repaired = audit(&fleet, &["--repair", "--yes"]).await;
    assert!(repaired.is_ok, "{repaired:?}");
    come_and_go(&pod, &satellites[3]).await;
    let third = consume(&fleet, command(), &state, 2).await;
    assert_eq!(third.positions, [7, 8], "{}", third.said);
    assert!(third.said.contains("epoch 2"), "{}", third.said);

    // For this consumer position 8 was another change: the log it knew was lost after position 7.
    let known = std::fs::read_to_string(&state).expect("the state was kept");
    let mut known: Value = serde_json::from_str(&known).expect("JSON");
    assert_eq!(known["position"], 8);
    known["change"] = Uuid::new_v4().to_string().into();
    std::fs::write(&state, known.to_string()).expect("another state");
    let repaired = audit(&fleet, &["--repair", "--new-epoch", "--yes"]).await;
    assert!(repaired.is_ok, "{repaired:?}");
    let (is_well, said) = run(&fleet, command(), &state, 1).await;
    assert!(!is_well && said.contains("position 8 is another change now"), "{said}");
    std::fs::remove_file(state).expect("the state was kept");
    third.said
}

const REPEATED: &str = "position 6 was handled before";

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_consumer_in_rust_misses_nothing_and_handles_nothing_twice() {
    let examples = Path::new(env!("CARGO_BIN_EXE_groundstation")).with_file_name("examples");
    let program = examples.join("consume");
    assert!(program.exists(), "run `cargo build --example consume --features failpoints` first");
    keeps_its_promises(|| Command::new(&program)).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_consumer_in_python_misses_nothing_and_handles_nothing_twice() {
    let said = keeps_its_promises(|| foreign::python("docs/examples/consume.py")).await;
    assert!(said.contains(REPEATED), "{said}");
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_consumer_in_typescript_misses_nothing_and_handles_nothing_twice() {
    let (command, folder) = foreign::node("docs/examples/consume.ts");
    let again = || {
        let mut copy = Command::new(command.get_program());
        copy.args(command.get_args()).current_dir(&folder.0);
        copy
    };
    let said = keeps_its_promises(again).await;
    assert!(said.contains(REPEATED), "{said}");
}
