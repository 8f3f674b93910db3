//! `groundstation transitions`: the log, and what comes to it.

use clap::Args;

use super::api::ApiArgs;
use super::follow::Followed;
use super::named::Named;
use super::output::{OutputArgs, Shown};
use super::table;
use crate::contract::wire::TransitionJson;

#[derive(Args)]
pub struct TransitionsArgs {
    #[command(flatten)]
    api: ApiArgs,

    /// With --follow JSON is one object a line.
    #[command(flatten)]
    output: OutputArgs,

    /// Only this satellite's, by its name or its id; one that was removed only by its id
    #[arg(long, value_name = "SATELLITE")]
    satellite: Option<Named>,
    /// Behind this position [default: the beginning, or now with --follow]
    #[arg(long, value_name = "POSITION", conflicts_with = "newest_first",
          value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
    /// The newest first
    #[arg(long, conflicts_with = "follow")]
    newest_first: bool,
    /// With --newest-first: only before this position
    #[arg(long, value_name = "POSITION", requires = "newest_first",
          value_parser = clap::value_parser!(i64).range(1..))]
    before: Option<i64>,
    /// How many
    #[arg(long, default_value_t = 100, conflicts_with = "follow",
          value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    /// Only this event: connected, disconnected, heartbeat_lost or removed
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// Only of satellites that were in this region
    #[arg(long)]
    region: Option<String>,
    /// Recorded at or after this time, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    since: Option<String>,
    /// Recorded before this time
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<String>,
    /// Go on with what comes, without a gap, whatever happens to the pod or the connection; Ctrl-C
    /// ends
    #[arg(long)]
    follow: bool,
}

/// Runs `groundstation transitions`.
pub fn run(args: TransitionsArgs) -> anyhow::Result<()> {
    args.output.refuse_names("a transition has a position and no name")?;
    let client = args.api.client()?;
    let given = |filters: Vec<(&'static str, Option<String>)>| -> Vec<(&'static str, String)> {
        filters.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    };
    let satellite = args.satellite.map(|satellite| satellite.id(&client)).transpose()?;
    if args.follow {
        let satellite = satellite.map(|satellite| satellite.to_string());
        let filters =
            given(vec![("event", args.event), ("region", args.region), ("satellite", satellite)]);
        let followed = Followed {
            path: "/v1/transitions/stream",
            filters: &filters,
            format: args.output.format(),
            position: |transition: &TransitionJson| transition.position,
            cells: |transition| row(transition).into(),
        };
        return followed.print(&client, args.after);
    }
    let filters = given(vec![
        ("after", args.after.map(|after| after.to_string())),
        ("order", args.newest_first.then(|| "desc".to_owned())),
        ("before", args.before.map(|before| before.to_string())),
        ("limit", Some(args.limit.to_string())),
        ("event", args.event),
        ("region", args.region),
        ("since", args.since),
        ("until", args.until),
    ]);
    let page = client.transitions(satellite, &filters)?;
    let rows: Vec<_> = page.transitions.iter().map(row).collect();
    let head = ["POSITION", "TIME", "EVENT", "REASON", "SESSION", "SATELLITE", "ID"];
    let table = |_| table::render(head, &rows, &[2]);
    args.output.print(&page, Shown { table: &table, names: &Vec::new })
}

fn row(transition: &TransitionJson) -> [String; 7] {
    let state = transition.next.as_ref().or(transition.prev.as_ref());
    [
        transition.position.to_string(),
        transition.occurred_at.to_string(),
        transition.event.to_string(),
        transition.reason.to_string(),
        transition.session.to_string(),
        state.map_or("-".to_owned(), |state| format!("{} ({})", state.name, state.region)),
        transition.id.to_string(),
    ]
}
