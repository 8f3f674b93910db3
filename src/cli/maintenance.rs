//! `groundstation maintenance …`: times in which a part of the fleet may come and go; over a pod.

use anyhow::anyhow;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use serde_json::json;
use strum::IntoEnumIterator;
use time::OffsetDateTime;
use uuid::Uuid;

use super::api::ApiArgs;
use super::confirm::YesArgs;
use super::exit::wrong_usage;
use super::named::Named;
use super::output::{OutputArgs, Shown};
use super::paged::given;
use super::{moment, table, tags};
use crate::clients::client::{Client, NewWindow};
use crate::contract::maintenance::{MaintenanceSelectorJson, WindowJson, WindowState};
use crate::contract::tokens::SelectorJson;
use crate::contract::wire::Timestamp;

#[derive(Args)]
pub struct MaintenanceArgs {
    #[command(flatten)]
    api: ApiArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(subcommand)]
    command: MaintenanceCommand,
}

#[derive(Subcommand)]
enum MaintenanceCommand {
    /// List the windows, the one that begins latest first
    List {
        /// Only those that have got so far
        #[arg(long, value_parser = PossibleValuesParser::new(WindowState::iter().map(WindowState::as_str)))]
        state: Option<String>,
        /// Only those that are for this satellite now, by its id or its name
        #[arg(long, value_name = "SATELLITE")]
        satellite: Option<Named>,
    },
    /// Plan a window: what its satellites do in it is told as ever, and marked; time in it is counted apart
    Add {
        #[command(flatten)]
        selector: SelectorArgs,
        /// When it begins, such as 2027-03-01T12:00:00Z [default: now]
        #[arg(long, value_name = "TIME")]
        from: Option<Timestamp>,
        /// How long it lasts, such as 2h; at most 30 days
        #[arg(
            long = "for",
            value_name = "SPAN",
            conflicts_with = "to",
            required_unless_present = "to"
        )]
        lasting: Option<String>,
        /// When it ends
        #[arg(long, value_name = "TIME")]
        to: Option<Timestamp>,
        /// Why: 1 to 200 characters
        #[arg(long)]
        reason: String,
    },
    /// End a window now; one that has not begun never does
    End {
        /// The window's id
        #[arg(id = "which", value_name = "ID")]
        which: Uuid,
        #[command(flatten)]
        yes: YesArgs,
    },
}

/// Which satellites a window is for. None of them by omission.
#[derive(Args)]
#[group(required = true, multiple = true)]
struct SelectorArgs {
    /// This satellite, by its id or its name; may be given several times
    #[arg(long = "satellite", value_name = "SATELLITE", conflicts_with_all = ["region", "tags", "all"])]
    satellites: Vec<Named>,
    /// The satellites of this region
    #[arg(long, conflicts_with = "all")]
    region: Option<String>,
    /// The satellites with this tag; may be given several times, then those with all of them
    #[arg(long = "tag", value_name = "NAME:VALUE", conflicts_with = "all")]
    tags: Vec<String>,
    /// The whole fleet
    #[arg(long)]
    all: bool,
}

impl SelectorArgs {
    /// None selects the whole fleet.
    fn selector(self, client: &Client) -> anyhow::Result<Option<MaintenanceSelectorJson>> {
        if self.all {
            return Ok(None);
        }
        let ids = self.satellites.iter().map(|named| named.id(client));
        let ids = ids.collect::<anyhow::Result<Vec<Uuid>>>()?;
        Ok(Some(MaintenanceSelectorJson {
            ids: (!ids.is_empty()).then_some(ids),
            region: self.region,
            tags: tags::parse("--tag", &self.tags)?,
        }))
    }
}

/// Runs `groundstation maintenance …`.
pub fn run(args: MaintenanceArgs) -> anyhow::Result<()> {
    let (client, output) = (args.api.client()?, args.output);
    match args.command {
        MaintenanceCommand::List { state, satellite } => {
            let satellite = satellite.map(|named| named.id(&client)).transpose()?;
            let satellite = satellite.map(|id| id.to_string());
            let filters: Vec<_> = given([("state", state), ("satellite", satellite)]).collect();
            let windows = client.maintenance(&filters)?;
            let table = |is_wide| listing(&windows, is_wide);
            output.print(&windows, Shown { table: &table, names: &|| ids(&windows) })
        }
        MaintenanceCommand::Add { selector, from, lasting, to, reason } => {
            let begin = from.map_or_else(OffsetDateTime::now_utc, Timestamp::moment);
            let end = lasting.map(|span| moment::after(begin, "--for", &span)).transpose()?;
            let to = to.or(end).ok_or_else(|| wrong_usage(anyhow!("give --for or --to")))?;
            let selector = selector.selector(&client)?;
            let new = NewWindow { selector, from, to, reason: &reason };
            let window = client.plan_maintenance(&new)?;
            let windows = [window];
            let table = |is_wide| listing(&windows, is_wide);
            output.print(&windows[0], Shown { table: &table, names: &|| ids(&windows) })
        }
        MaintenanceCommand::End { which, yes } => {
            yes.confirm(&format!("End the maintenance window {which}"))?;
            client.end_maintenance(which)?;
            let said = format!("ended {which}");
            let answer = json!({"ended": which});
            let names = || vec![which.to_string()];
            output.print(&answer, Shown { table: &|_| said.clone(), names: &names })
        }
    }
}

fn ids(windows: &[WindowJson]) -> Vec<String> {
    windows.iter().map(|window| window.id.to_string()).collect()
}

fn listing(windows: &[WindowJson], is_wide: bool) -> String {
    let rows: Vec<[String; 8]> = windows
        .iter()
        .map(|window| {
            [
                window.id.to_string(),
                window.state.to_string(),
                window.from.to_string(),
                window.ended_at.unwrap_or(window.to).to_string(),
                satellites(window.selector.as_ref()),
                window.reason.clone(),
                window.created_by.id.clone(),
                window.created_at.to_string(),
            ]
        })
        .collect();
    let head = ["ID", "STATE", "FROM", "UNTIL", "FOR", "REASON", "PLANNED BY", "PLANNED AT"];
    if is_wide {
        return table::render(head, &rows, &[]);
    }
    let narrow = rows
        .into_iter()
        .map(|[id, state, from, until, whose, why, ..]| [id, state, from, until, whose, why]);
    let [id, state, from, until, whose, why, ..] = head;
    table::render([id, state, from, until, whose, why], &narrow.collect::<Vec<_>>(), &[])
}

fn satellites(selector: Option<&MaintenanceSelectorJson>) -> String {
    let Some(MaintenanceSelectorJson { ids, region, tags }) = selector else {
        return "everything".to_owned();
    };
    match ids.as_deref() {
        None => table::selector(&SelectorJson { region: region.clone(), tags: tags.clone() }),
        Some([id]) => id.to_string(),
        Some(ids) => format!("{} satellites", ids.len()),
    }
}
