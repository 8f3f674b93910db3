//! `groundstation triggers`: what an automation can subscribe to.

use clap::Args;
use serde_json::Value;

use super::api::ApiArgs;
use super::output::{self, OutputArgs, Shown};
use super::table;

#[derive(Args)]
pub struct TriggersArgs {
    #[command(flatten)]
    api: ApiArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `groundstation triggers`.
pub fn run(args: TriggersArgs) -> anyhow::Result<()> {
    let answer = args.api.client()?.any("/v1/triggers")?;
    let list = answer.as_array().or_else(|| answer["triggers"].as_array());
    let Some(list) = list else { return output::json(&answer) };
    let text = |trigger: &Value, name: &str| trigger[name].as_str().unwrap_or("-").to_owned();
    let row = |trigger| ["id", "displayName", "description"].map(|name| text(trigger, name));
    let rows: Vec<_> = list.iter().map(row).collect();
    let table = |_| table::render(["ID", "NAME", "DESCRIPTION"], &rows, &[]);
    let names = || list.iter().map(|trigger| text(trigger, "id")).collect();
    args.output.print(&answer, Shown { table: &table, names: &names })
}
