//! `groundstation status`: how a pod and the fleet are.

use clap::Args;
use serde_json::{Value, json};

use super::api::ApiArgs;
use super::output::print_line;
use super::satellite::print_json;
use super::table;
use crate::clients::client;
use crate::contract::fleet::Counts;

#[derive(Args)]
pub struct StatusArgs {
    #[command(flatten)]
    api: ApiArgs,

    /// Print JSON for programs instead of text for people
    #[arg(long)]
    json: bool,
}

/// Runs `groundstation status`.
pub fn run(args: StatusArgs) -> anyhow::Result<()> {
    let report = client::report(args.api.url()?)?;
    let fleet = args.api.has_token().then(|| fleet(&args.api)).transpose()?;
    if args.json {
        return print_json(&json!({"pod": report, "fleet": fleet}));
    }
    let word = |value: &Value| value.as_str().map_or(value.to_string(), str::to_owned);
    let mut rows = Vec::new();
    for (name, value) in report.iter().flat_map(|report| report.as_object()).flatten() {
        rows.push([name.clone(), word(value)]);
    }
    for (name, value) in fleet.iter().flat_map(|fleet| fleet.as_object()).flatten() {
        rows.push([name.clone(), word(value)]);
    }
    print_line!("{}", table::render([args.api.url()?, ""], &rows));
    if report.is_none() {
        eprintln!(
            "how the pod is it says where its GROUNDSTATION_OPS_LISTEN is: `groundstation health --url …`"
        );
    }
    if fleet.is_none() {
        eprintln!("no token: how the fleet is takes GROUNDSTATION_ADMIN_TOKEN or --token");
    }
    Ok(())
}

fn fleet(api: &ApiArgs) -> anyhow::Result<Value> {
    let Counts { total, online, offline, never_connected, flapping, .. } =
        api.client()?.fleet(&[])?.counts;
    Ok(json!({
        "satellites": total, "online": online, "offline": offline, "neverConnected": never_connected,
        "flapping": flapping,
    }))
}
