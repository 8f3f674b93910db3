//! The packaging fits the program: the unit of systemd, the workflows of the hosting site.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use clap::Args;
use groundstation::platform::units::duration;
use groundstation::pod::config::ServeArgs;
use serde_json::Value;

/// The highest exposure that `systemd-analyze security` may report, in tenths: the scale ends at 100.
const MOST_EXPOSED: &str = "20";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn text(file: &str) -> String {
    std::fs::read_to_string(path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn unit() -> String {
    text("deploy/systemd/groundstation.service")
}

/// The value of a directive of the unit.
fn directive(name: &str) -> String {
    let unit = unit();
    let line = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    line.unwrap_or_else(|| panic!("no {name}")).to_owned()
}

/// Runs `systemd-analyze` on the unit as it would be installed; none without systemd.
fn analyze(arguments: &[&str]) -> Option<Output> {
    let folder = std::env::temp_dir().join(format!("groundstation-unit-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&folder).expect("a folder");
    let file = folder.join("groundstation.service");
    // The path of the program is checked too.
    let here = unit().replace("/usr/bin/groundstation", env!("CARGO_BIN_EXE_groundstation"));
    std::fs::write(&file, here).expect("written");
    let output = Command::new("systemd-analyze").args(arguments).arg(&file).output();
    std::fs::remove_dir_all(&folder).expect("removed");
    match output {
        Ok(output) => Some(output),
        Err(error) => {
            println!("not checked, there is no systemd-analyze: {error}");
            None
        }
    }
}

#[test]
fn systemd_finds_no_fault_with_the_unit() {
    let Some(output) = analyze(&["verify"]) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("groundstation.service"), "{said}");
}

#[test]
fn systemd_finds_the_unit_well_protected() {
    let threshold = format!("--threshold={MOST_EXPOSED}");
    let Some(output) = analyze(&["security", "--offline=true", &threshold]) else { return };
    // Before systemd 250 it cannot judge a file.
    if String::from_utf8_lossy(&output.stderr).contains("unrecognized option") {
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn systemd_waits_for_as_long_as_a_pod_drains() {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let deadline = command.get_arguments().find(|arg| arg.get_id() == "drain_deadline");
    let default = deadline.expect("a setting").get_default_values()[0].to_str().expect("text");
    let deadline = duration("GROUNDSTATION_DRAIN_DEADLINE", default).expect("a duration");
    let stop: u64 = directive("TimeoutStopSec").parse().expect("seconds");
    assert!(Duration::from_secs(stop) > deadline, "{stop} s, {deadline:?}");
}

#[test]
fn systemd_starts_a_pod_again_for_as_long_as_postgres_is_away() {
    assert_eq!(directive("Restart"), "on-failure");
    assert_eq!(directive("StartLimitIntervalSec"), "0", "no limit to the number of starts");
}

#[test]
fn the_settings_of_the_package_are_settings_of_the_program() {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let known: BTreeSet<&str> =
        command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
    let file = text("deploy/systemd/groundstation.env");
    let named = file.lines().filter_map(|line| line.strip_prefix('#')?.split_once('='));
    let named: Vec<&str> = named.map(|(name, _)| name).filter(|name| !name.contains(' ')).collect();
    assert!(named.len() > 2, "{named:?}");
    for name in named {
        assert!(known.contains(name), "{name}");
    }
}

/// Every `make …` in a text is a target that exists.
fn assert_makes_what_is_there(file: &str, text: &str) -> usize {
    let makefile = self::text("Makefile");
    let targets: BTreeSet<&str> =
        makefile.lines().filter_map(|line| Some(line.split_once(':')?.0)).collect();
    let mut count = 0;
    for named in text.split("make ").skip(1) {
        let target = named.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next();
        let target = target.unwrap_or_default();
        assert!(targets.contains(target), "{file}: make {target}");
        count += 1;
    }
    count
}

#[test]
fn the_workflows_run_what_there_is() {
    for file in [".github/workflows/ci.yml", ".github/workflows/release.yml"] {
        let text = text(file);
        let workflow: Value =
            serde_yaml_ng::from_str(&text).unwrap_or_else(|e| panic!("{file}: {e}"));
        let jobs = workflow["jobs"].as_object().expect("jobs");
        let mut runs = 0;
        for (name, job) in jobs {
            assert!(job["timeout-minutes"].is_u64(), "{file}: {name} may run for ever");
            for needed in job["needs"]
                .as_array()
                .into_iter()
                .flatten()
                .chain(job["needs"].as_str().map(|_| &job["needs"]))
            {
                assert!(jobs.contains_key(needed.as_str().expect("a job")), "{file}: {needed}");
            }
            for step in job["steps"].as_array().expect("steps") {
                if let Some(run) = step["run"].as_str() {
                    runs += assert_makes_what_is_there(file, run);
                }
            }
        }
        assert!(runs > 0, "{file} makes nothing");
        for copied in text.split("cp ").skip(1).flat_map(|rest| rest.lines().next()) {
            for name in copied.split_whitespace().filter(|name| name.ends_with(".md")) {
                assert!(path(name).exists(), "{file}: {name}");
            }
        }
    }
}
