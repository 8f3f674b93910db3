//! `groundstation what-if`: what another offline threshold would have done.

use std::time::Duration;

use clap::Args;

use super::api::ApiArgs;
use super::output::{OutputArgs, Shown};
use super::paged::given;
use super::table;
use crate::contract::what_if::{Losses, WhatIf};

#[derive(Args)]
pub struct WhatIfArgs {
    #[command(flatten)]
    api: ApiArgs,

    #[command(flatten)]
    output: OutputArgs,

    /// The other offline threshold, such as 90s; at most 1 day
    #[arg(value_name = "THRESHOLD")]
    threshold: String,
    /// Losses that were due from here on, such as 2026-03-01T12:00:00Z [default: 24 hours before --until]
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Until when [default: now]
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only of satellites that were in this region
    #[arg(long)]
    region: Option<String>,
}

/// Runs `groundstation what-if`.
pub fn run(args: WhatIfArgs) -> anyhow::Result<()> {
    let parameters = [
        ("threshold", Some(args.threshold)),
        ("since", args.since),
        ("until", args.until),
        ("region", args.region),
    ];
    let answer = args.api.client()?.what_if(&given(parameters).collect::<Vec<_>>())?;
    let table = |is_wide| shown(&answer, is_wide);
    let names = || answer.satellites.iter().map(|of| of.name.clone()).collect();
    args.output.print(&answer, Shown { table: &table, names: &names })
}

/// By region; if it may be wide, by satellite too.
fn shown(answer: &WhatIf, is_wide: bool) -> String {
    let row = |name: &str, losses: &Losses| {
        let Losses { losses, spared, kept, undecided, added_at_least } = *losses;
        let [losses, spared, kept, undecided, added] =
            [losses, spared, kept, undecided, added_at_least].map(|number| number.to_string());
        [name.to_owned(), losses, spared, kept, undecided, added]
    };
    let head = |title| [title, "LOSSES", "SPARED", "KEPT", "UNDECIDED", "ADDED AT LEAST"];
    let mut rows: Vec<_> = answer.regions.iter().map(|of| row(&of.region, &of.losses)).collect();
    rows.push(row("(all)", &answer.losses));
    let mut text = table::render(head("REGION"), &rows, &[]);
    if is_wide && !answer.satellites.is_empty() {
        let rows = answer.satellites.iter().map(|of| row(&of.name, &of.losses));
        let rows: Vec<_> = rows.collect();
        text = format!("{text}\n\n{}", table::render(head("SATELLITE"), &rows, &[]));
    }
    let (since, until) = (answer.since, answer.until);
    text.push_str(&format!("\n\nlosses from {since} until {until}"));
    if let Some(delay) = &answer.delay {
        let [half, most, all] = [delay.p50_ms, delay.p99_ms, delay.max_ms].map(later);
        text.push_str(&format!(
            "\nthose kept would have been told {half} (half of them), {most} (p99), {all} (the latest)"
        ));
    }
    text.push_str("\nnot known:");
    answer.unknown.iter().for_each(|what| text.push_str(&format!("\n  {what}")));
    text
}

fn later(ms: i64) -> String {
    let duration = humantime::format_duration(Duration::from_millis(ms.unsigned_abs()));
    format!("{duration} {}", if ms < 0 { "earlier" } else { "later" })
}
