//! `groundstation transitions`: the log, and what comes to it.

use clap::Args;

use super::api::ApiArgs;
use super::follow::Followed;
use super::named::Named;
use super::output::{OutputArgs, Shown};
use super::paged::{PagedArgs, given};
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
    #[command(flatten)]
    paged: PagedArgs,
    /// Only this event: connected, disconnected, heartbeat_lost or removed
    #[arg(long, value_name = "EVENT")]
    event: Option<String>,
    /// Only of satellites that were in this region
    #[arg(long)]
    region: Option<String>,
}

/// Runs `groundstation transitions`.
pub fn run(args: TransitionsArgs) -> anyhow::Result<()> {
    args.output.refuse_names("a transition has a position and no name")?;
    let client = args.api.client()?;
    let mut filters: Vec<_> = given([("event", args.event), ("region", args.region)]).collect();
    let satellite = args.satellite.map(|satellite| satellite.id(&client)).transpose()?;
    if args.paged.follow {
        let satellite = satellite.map(|satellite| satellite.to_string());
        filters.extend(satellite.map(|satellite| ("satellite", satellite)));
        let followed = Followed {
            path: "/v1/transitions/stream",
            filters: &filters,
            format: args.output.format(),
            position: |transition: &TransitionJson| transition.position,
            cells: |transition| row(transition).into(),
        };
        return followed.print(&client, args.paged.after);
    }
    filters.extend(args.paged.parameters());
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
