//! `groundstation audit list`: who changed what, who signed in and who was refused, over a pod's HTTP API.

use clap::Args;

use crate::cli::api::ApiArgs;
use crate::cli::follow::Followed;
use crate::cli::output::{OutputArgs, Shown};
use crate::cli::paged::{PagedArgs, given};
use crate::cli::table;
use crate::contract::audit::AuditEntryJson;

#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    api: ApiArgs,

    /// With --follow JSON is one object a line.
    #[command(flatten)]
    output: OutputArgs,

    /// Only by this actor: a token's name, a person's, `admin`, or who ran a command, such as ada@host
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only this action, such as satellite.updated, page.signed_in or api.refused
    #[arg(long)]
    action: Option<String>,
    /// Only of this target: the id of a satellite or of a token, the name of a set
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    #[command(flatten)]
    paged: PagedArgs,
}

/// Runs `groundstation audit list`.
pub fn run(args: ListArgs) -> anyhow::Result<()> {
    args.output.refuse_names("an entry has a position and no name")?;
    let client = args.api.client()?;
    let filters = [("actor", args.actor), ("action", args.action), ("target", args.target)];
    let mut filters: Vec<_> = given(filters).collect();
    if args.paged.follow {
        let followed = Followed {
            path: "/v1/audit/stream",
            filters: &filters,
            format: args.output.format(),
            position: |entry: &AuditEntryJson| entry.position,
            cells: |entry| cells(entry).into(),
        };
        return followed.print(&client, args.paged.after);
    }
    filters.extend(args.paged.parameters());
    let page = client.audit(&filters)?;
    let head = ["POSITION", "TIME", "ACTOR", "ADDRESS", "ACTION", "TARGET"];
    let table = |is_wide: bool| match is_wide {
        false => table::render(head, &page.entries.iter().map(cells).collect::<Vec<_>>(), &[]),
        true => {
            let [position, time, actor, address, action, target] = head;
            let head = [position, time, actor, address, action, target, "BEFORE", "AFTER"];
            table::render(head, &page.entries.iter().map(wide).collect::<Vec<_>>(), &[])
        }
    };
    args.output.print(&page, Shown { table: &table, names: &Vec::new })
}

fn cells(entry: &AuditEntryJson) -> [String; 6] {
    [
        entry.position.to_string(),
        entry.recorded_at.to_string(),
        format!("{} {}", entry.actor.kind, entry.actor.id),
        entry.address.map_or("-".to_owned(), |address| address.to_string()),
        entry.action.to_string(),
        format!("{} {}", entry.target.kind, entry.target.id),
    ]
}

fn wide(entry: &AuditEntryJson) -> [String; 8] {
    let value = |value: &Option<serde_json::Value>| {
        value.as_ref().map_or("-".to_owned(), serde_json::Value::to_string)
    };
    let [position, time, actor, address, action, target] = cells(entry);
    [position, time, actor, address, action, target, value(&entry.before), value(&entry.after)]
}
