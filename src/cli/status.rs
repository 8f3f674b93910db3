//! `groundstation status`: how a pod and the fleet are.

use clap::Args;
use serde_json::{Value, json};

use super::api::{ApiArgs, Target};
use super::output::{OutputArgs, Shown};
use super::table;
use crate::clients::client;
use crate::contract::fleet::Counts;

#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    api: ApiArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `groundstation status`.
pub fn run(args: StatusArgs) -> anyhow::Result<()> {
    args.output.refuse_names("there is nothing that has one")?;
    let target = args.api.target()?;
    let report = client::report(target.url())?;
    let fleet = target.has_token().then(|| fleet(&target)).transpose()?;
    let word = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    let mut rows = Vec::new();
    for (name, value) in report.iter().flat_map(|report| report.as_object()).flatten() {
        rows.push([name.clone(), word(value)]);
    }
    for (name, value) in fleet.iter().flat_map(|fleet| fleet.as_object()).flatten() {
        rows.push([name.clone(), word(value)]);
    }
    let table = |_| table::render([target.url(), ""], &rows, &[]);
    let answer = json!({"pod": report, "fleet": fleet});
    args.output.print(&answer, Shown { table: &table, names: &Vec::new })?;
    if args.output.is_for_programs() {
        return Ok(());
    }
    if report.is_none() {
        eprintln!(
            "how the pod is it says where its GROUNDSTATION_OPS_LISTEN is: `groundstation health --url …`"
        );
    }
    if fleet.is_none() {
        eprintln!("no token: how the fleet is takes a token, such as --token-file has");
    }
    Ok(())
}

fn fleet(target: &Target) -> anyhow::Result<Value> {
    let Counts { total, online, offline, never_connected, flapping, .. } =
        target.client()?.fleet(&[])?.counts;
    Ok(json!({
        "satellites": total, "online": online, "offline": offline, "neverConnected": never_connected,
        "flapping": flapping,
    }))
}
