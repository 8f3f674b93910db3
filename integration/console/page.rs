//! What a person does with the page, in a real browser: one script of `console/tests/` a test.

use std::collections::BTreeSet;
use std::path::Path;

use crate::harness::browser::drive;
use crate::harness::{Agents, BRISK, Fleet};

/// The scripts that are run here.
const SCRIPTS: [&str; 0] = [];

/// Runs a script over a fleet of six satellites that are there.
async fn run(name: &str) {
    let fleet = Fleet::new(BRISK).await;
    let pod = fleet.pod("a").await;
    let agents = Agents::start(&fleet, pod.address, fleet.register(&pod, "edge", 6).await);
    agents.expect_all().await;
    drive(&fleet, &pod, name).await;
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
