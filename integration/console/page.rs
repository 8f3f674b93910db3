//! What a person does with the page, in a real browser: one script of `console/tests/` a test.

use std::collections::BTreeSet;
use std::path::Path;

use crate::harness::browser::{Turn, drive};
use crate::harness::{BRISK, Fleet};

/// The scripts that are run here.
const SCRIPTS: [&str; 7] =
    ["actions", "errors", "fleet", "fleet_sizes", "keyboard", "satellite_and_log", "signing_in"];

/// Runs a script over a pod. It registers and plays the satellites it wants.
async fn run(script: &str) {
    let turn = Turn::take().await;
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.pod("a").await;
    drive(&turn, &fleet, &pod, script).await;
}

#[tokio::test]
async fn whoever_has_a_token_gets_in_and_sees_what_it_allows() {
    run("signing_in").await;
}

#[tokio::test]
async fn the_fleet_is_shown_as_it_is_and_as_it_was() {
    run("fleet").await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_fleet_of_any_size_can_be_looked_at() {
    let turn = Turn::take().await;
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.pod("a").await;
    fleet.register_many("site", 100_000).await;
    drive(&turn, &fleet, &pod, "fleet_sizes").await;
}

#[tokio::test]
async fn one_satellite_and_the_log_can_be_read_in_both_themes_and_at_each_width() {
    run("satellite_and_log").await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn whatever_goes_wrong_is_said_with_a_way_out() {
    run("errors").await;
}

#[tokio::test]
async fn an_administrator_changes_satellites_on_the_page() {
    run("actions").await;
}

#[tokio::test]
async fn everything_can_be_done_with_the_keyboard() {
    run("keyboard").await;
}

#[test]
fn every_script_is_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("console/tests");
    let files = std::fs::read_dir(folder).into_iter().flatten();
    let names = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
    let there: BTreeSet<String> =
        names.filter_map(|name| Some(name.strip_suffix(".test.mjs")?.to_owned())).collect();
    assert_eq!(there, SCRIPTS.map(str::to_owned).into());
}
