//! What a person does with the page, in a real browser: one script of `console/tests/` a test.

use std::collections::BTreeSet;
use std::path::Path;

use crate::harness::browser::{Turn, drive, drive_at};
use crate::harness::running::Running;
use crate::harness::{BRISK, Fleet, Proxy, foreign, stores};

/// The scripts that are run here.
const SCRIPTS: [&str; 8] = [
    "actions",
    "errors",
    "fleet",
    "fleet_sizes",
    "keyboard",
    "satellite_and_log",
    "signing_in",
    "single_sign_on",
];

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
async fn people_sign_in_at_a_certified_provider() {
    let turn = Turn::take().await;
    let fleet = Fleet::new(BRISK).await;
    // The provider wants to know where the page is before there is one.
    let page = Proxy::to(([127, 0, 0, 1], 1).into()).await;
    let url = format!("http://{}", page.address);
    let (secret, way_back) = (stores::random(), format!("{url}/console/session/oidc/callback"));
    let (mut program, _folder) = foreign::node("tools/node/identity_provider.mjs");
    program.args(["groundstation", &secret, &way_back]);
    let provider = Running::of(program);
    let said = provider.prints("issuer ").await;
    let settings = [
        ("GROUNDSTATION_OIDC_ISSUER", said.trim_start_matches("issuer ")),
        ("GROUNDSTATION_OIDC_CLIENT_ID", "groundstation"),
        ("GROUNDSTATION_OIDC_CLIENT_SECRET", &secret),
        ("GROUNDSTATION_OIDC_REDIRECT_URL", &way_back),
        ("GROUNDSTATION_OIDC_PROVIDER_NAME", "Example ID"),
        ("GROUNDSTATION_OIDC_OPERATOR_GROUPS", "ops"),
    ];
    let plan =
        settings.into_iter().fold(fleet.plan("a"), |plan, (name, value)| plan.with(name, value));
    let pod = plan.start().await;
    page.lead_to(pod.address);
    drive_at(&turn, &fleet, &url, "single_sign_on").await;
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
