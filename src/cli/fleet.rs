//! `groundstation fleet`: how many satellites are how, now, then, and over a while.

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::api::ApiArgs;
use super::exit::wrong_usage;
use super::output::{OutputArgs, Shown};
use super::selection::SelectionArgs;
use super::table;
use crate::contract::fleet::{Counts, FleetCounts, Timeline};

#[derive(Args)]
pub struct FleetArgs {
    #[command(flatten)]
    api: ApiArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    selection: SelectionArgs,

    #[command(subcommand)]
    command: Option<FleetCommand>,
}

#[derive(Subcommand)]
enum FleetCommand {
    /// How many satellites were online, offline or unknown, at equal distances
    Timeline {
        /// The first moment, such as 2026-03-01T12:00:00Z [default: 24 hours before --until]
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// No moment is later [default: now]
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// From one moment to the next, such as 5m [default: such that there are about 200]
        #[arg(long, value_name = "DURATION")]
        step: Option<String>,
    },
}

/// Runs `groundstation fleet`.
pub fn run(args: FleetArgs) -> anyhow::Result<()> {
    if args.command.is_some() && args.selection != SelectionArgs::default() {
        let why = "fleet timeline is of the whole fleet: it takes no filters";
        return Err(wrong_usage(anyhow!(why)));
    }
    let client = args.api.client()?;
    match args.command {
        None => {
            let counts = client.fleet(&args.selection.parameters())?;
            let names = || counts.regions.iter().map(|counts| counts.region.clone()).collect();
            let table = |_| shown(&counts);
            args.output.print(&counts, Shown { table: &table, names: &names })
        }
        Some(FleetCommand::Timeline { since, until, step }) => {
            args.output.refuse_names("moments have no names")?;
            let parameters = [("since", since), ("until", until), ("step", step)];
            let parameters = parameters.into_iter().filter_map(|(n, v)| Some((n, v?)));
            let timeline = client.timeline(&parameters.collect::<Vec<_>>())?;
            let table = |_| points(&timeline);
            args.output.print(&timeline, Shown { table: &table, names: &Vec::new })
        }
    }
}

fn shown(fleet: &FleetCounts) -> String {
    let row = |name: &str, counts: &Counts| {
        let numbers = [
            counts.total,
            counts.online,
            counts.offline,
            counts.never_connected,
            counts.flapping,
            counts.in_maintenance,
        ];
        let [total, online, offline, never, flapping, maintenance] =
            numbers.map(|number| number.to_string());
        [name.to_owned(), total, online, offline, never, flapping, maintenance]
    };
    let mut rows: Vec<_> =
        fleet.regions.iter().map(|region| row(&region.region, &region.counts)).collect();
    if fleet.regions_left_out > 0 {
        let blank = || String::new();
        let left_out = format!("({} more regions)", fleet.regions_left_out);
        rows.push([left_out, blank(), blank(), blank(), blank(), blank(), blank()]);
    }
    rows.push(row("(all)", &fleet.counts));
    let head =
        ["REGION", "TOTAL", "ONLINE", "OFFLINE", "NEVER CONNECTED", "FLAPPING", "MAINTENANCE"];
    format!("{}\n\nas of position {}", table::render(head, &rows, &[]), fleet.position)
}

fn points(timeline: &Timeline) -> String {
    let rows = timeline.points.iter().map(|point| {
        let numbers = [point.online, point.offline, point.unknown];
        let [online, offline, unknown] = numbers.map(|number| number.to_string());
        [point.at.to_string(), online, offline, unknown]
    });
    table::render(["TIME", "ONLINE", "OFFLINE", "UNKNOWN"], &rows.collect::<Vec<_>>(), &[])
}
