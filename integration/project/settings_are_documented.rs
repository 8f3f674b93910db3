//! docs/settings.md lists what the program takes: every variable of `serve`, with its default, and every reason for
//! which the door refuses a client.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::Args;
use groundstation::ingress::refusal::Refusal;
use groundstation::pod::config::ServeArgs;
use strum::IntoEnumIterator;

use crate::harness::program;

fn page() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/settings.md");
    std::fs::read_to_string(path).expect("docs/settings.md")
}

/// The rows of its tables that begin with a variable: unit and default by variable.
fn documented() -> BTreeMap<String, (String, String)> {
    let rows = page();
    let rows = rows.lines().filter_map(|line| line.strip_prefix("| `"));
    let row = |row: &str| {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [name, unit, default, ..] = cells.as_slice() else { panic!("not a row: {row}") };
        let bare = |cell: &str| cell.trim().trim_matches('`').to_owned();
        (bare(name), (bare(unit), bare(default)))
    };
    rows.map(row).filter(|(name, _)| name.to_uppercase() == *name).collect()
}

#[test]
fn every_setting_of_serve_is_in_the_table_with_its_unit_and_its_default() {
    let command = ServeArgs::augment_args(clap::Command::new("serve"));
    let settings = command.get_arguments().filter_map(|argument| {
        let name = argument.get_env()?.to_str().expect("text").to_owned();
        let value_names = argument.get_value_names().unwrap_or_default();
        let unit = value_names.first().map_or("", |name| name.as_str());
        let defaults: Vec<&str> =
            argument.get_default_values().iter().filter_map(|value| value.to_str()).collect();
        let default = defaults.first().copied().unwrap_or("none");
        Some((name, (unit.to_lowercase(), default.to_owned())))
    });
    let settings: BTreeMap<String, (String, String)> = settings.collect();
    let documented = documented();
    for (name, setting) in &settings {
        assert_eq!(documented.get(name), Some(setting), "{name} in docs/settings.md");
    }
    for name in documented.keys() {
        assert!(settings.contains_key(name), "{name} is in docs/settings.md and nowhere else");
    }
}

#[test]
fn every_reason_for_a_refusal_is_documented() {
    let page = page();
    for refusal in Refusal::iter() {
        let reason = format!("`{}`", refusal.as_str());
        assert!(page.contains(&reason), "{reason} is not in docs/settings.md");
    }
}

#[test]
fn every_setting_of_forward_is_in_the_table_of_webhooks() {
    const PREFIX: &str = "GROUNDSTATION_FORWARD_";
    let names = |text: &str, ends: &[char]| -> BTreeSet<String> {
        let after = text.split(PREFIX).skip(1);
        let name = |rest: &str| {
            let (name, _) = rest.split_once(|c: char| !(c.is_ascii_uppercase() || c == '_'))?;
            rest[name.len()..].starts_with(ends).then(|| name.to_owned())
        };
        after.filter_map(name).collect()
    };
    let nothing: [(&str, &str); 0] = [];
    let help = program::run(&["forward", "--help"], &nothing);
    let help = String::from_utf8(help.stdout).expect("text");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/webhooks.md");
    let page = std::fs::read_to_string(page).expect("docs/webhooks.md");
    let (_, table) = page.split_once("## Settings").expect("a section");
    // The help shows each variable with its value, which is empty here, or hides that.
    let taken = names(&help, &['=', ']']);
    assert!(taken.len() >= 15, "{help}");
    assert_eq!(names(table, &['`']), taken);
}
