//! `groundstation triggers`: what an automation can subscribe to.

use clap::Args;
use serde_json::Value;

use super::api::ApiArgs;
use super::output::print_line;
use super::satellite::print_json;
use super::table;

#[derive(Args)]
pub struct TriggersArgs {
    #[command(flatten)]
    api: ApiArgs,

    /// Print JSON for programs instead of text for people
    #[arg(long)]
    json: bool,
}

/// Runs `groundstation triggers`.
pub fn run(args: TriggersArgs) -> anyhow::Result<()> {
    let answer = args.api.client()?.any("/v1/triggers")?;
    let list = answer.as_array().or_else(|| answer["triggers"].as_array());
    let (false, Some(list)) = (args.json, list) else { return print_json(&answer) };
    let text = |trigger: &Value, name: &str| trigger[name].as_str().unwrap_or("-").to_owned();
    let rows: Vec<_> = list
        .iter()
        .map(|trigger| ["id", "displayName", "description"].map(|name| text(trigger, name)))
        .collect();
    print_line!("{}", table::render(["ID", "NAME", "DESCRIPTION"], &rows));
    Ok(())
}
