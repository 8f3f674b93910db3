//! `groundstation assignment-set …`: what all satellites of a region, or with some tags, are to check; over a pod.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::api::ApiArgs;
use super::confirm::YesArgs;
use super::exit::wrong_usage;
use super::output::{self, OutputArgs, Shown};
use super::{json_file, table, tags};
use crate::contract::assignments::AssignmentSetJson;
use crate::contract::tokens::SelectorJson;

#[derive(Args)]
pub struct AssignmentSetArgs {
    #[command(flatten)]
    api: ApiArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(subcommand)]
    command: AssignmentSetCommand,
}

#[derive(Subcommand)]
enum AssignmentSetCommand {
    /// List the sets, and which satellites each is for
    List,
    /// Show a set, as JSON that `put` takes
    Show {
        /// The set's name
        #[arg(id = "which", value_name = "NAME")]
        which: String,
    },
    /// Make a set, or replace it whole; the sessions of its satellites hear of it at once
    Put {
        /// 1 to 100 lower-case letters, digits, hyphens, underscores and dots
        #[arg(id = "which", value_name = "NAME")]
        which: String,
        /// A JSON list of assignments, or an object with the fields `assignments`, `selector` and `priority`, as `show`
        /// prints it; - reads standard input
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        selector: SelectorArgs,
        /// The greater one wins over other sets, from -1000 to 1000 [default: that of the file, or 0]
        #[arg(long, allow_hyphen_values = true, value_name = "NUMBER")]
        priority: Option<i64>,
        /// Only if the set still has this version; 0: only if there is none
        #[arg(long, value_name = "VERSION")]
        if_version: Option<i64>,
    },
    /// Delete a set: its satellites check what is left
    Delete {
        /// The set's name
        #[arg(id = "which", value_name = "NAME")]
        which: String,
        /// Only if the set still has this version
        #[arg(long, value_name = "VERSION")]
        if_version: Option<i64>,
        #[command(flatten)]
        yes: YesArgs,
    },
}

/// Which satellites a set is for, in the place of what the file says.
#[derive(Args)]
struct SelectorArgs {
    /// Only the satellites of this region
    #[arg(long)]
    region: Option<String>,
    /// Only the satellites with this tag; may be given several times, then only those with all of them
    #[arg(long = "tag", value_name = "NAME:VALUE")]
    tags: Vec<String>,
    /// The whole fleet
    #[arg(long, conflicts_with_all = ["region", "tags"])]
    all: bool,
}

impl SelectorArgs {
    fn is_given(&self) -> bool {
        self.all || self.region.is_some() || !self.tags.is_empty()
    }

    /// None selects the whole fleet.
    fn selector(self) -> anyhow::Result<Option<SelectorJson>> {
        let tags = tags::parse("--tag", &self.tags)?;
        Ok((!self.all).then_some(SelectorJson { region: self.region, tags }))
    }
}

/// Runs `groundstation assignment-set …`.
pub fn run(args: AssignmentSetArgs) -> anyhow::Result<()> {
    let (client, output) = (args.api.client()?, args.output);
    match args.command {
        AssignmentSetCommand::List => {
            let sets = client.assignment_sets()?;
            let names = || sets.iter().map(|set| set.name.clone()).collect();
            output.print(&sets, Shown { table: &|_| listing(&sets), names: &names })
        }
        AssignmentSetCommand::Show { which } => {
            let set = client.assignment_set(&which)?;
            match output.is_for_programs() {
                true => output.print(&set, Shown::NOTHING_ELSE),
                // There is no table of what is JSON within.
                false => output::json(&set),
            }
        }
        AssignmentSetCommand::Put { which, file, selector, priority, if_version } => {
            let body = body(json_file::read(&file)?, selector, priority)?;
            let set = client.replace_assignment_set(&which, &body, if_version)?;
            let said = format!("version {}: {} assigned by {which}", set.version, set.count);
            output.print(&set, Shown { table: &|_| said.clone(), names: &|| vec![which.clone()] })
        }
        AssignmentSetCommand::Delete { which, if_version, yes } => {
            yes.confirm(&format!(
                "Delete {which}, whose satellites no longer check what is in it"
            ))?;
            client.delete_assignment_set(&which, if_version)?;
            let said = format!("deleted {which}");
            let answer = json!({"deleted": which});
            output
                .print(&answer, Shown { table: &|_| said.clone(), names: &|| vec![which.clone()] })
        }
    }
}

/// A file says which satellites it is for, or the command does: a list alone never means the whole fleet by omission.
fn body(file: Value, selector: SelectorArgs, priority: Option<i64>) -> anyhow::Result<Value> {
    let mut fields = match file {
        Value::Object(fields) => fields,
        list if selector.is_given() => [("assignments".to_owned(), list)].into_iter().collect(),
        _ => {
            let all = "say which satellites it is for: --region, --tag or --all";
            return Err(wrong_usage(anyhow!("the file is a list and names no satellites; {all}")));
        }
    };
    if selector.is_given() {
        match selector.selector()? {
            Some(selector) => fields.insert("selector".to_owned(), serde_json::to_value(selector)?),
            None => fields.remove("selector"),
        };
    }
    if let Some(priority) = priority {
        fields.insert("priority".to_owned(), priority.into());
    }
    Ok(Value::Object(fields))
}

fn listing(sets: &[AssignmentSetJson]) -> String {
    let rows: Vec<[String; 6]> = sets
        .iter()
        .map(|set| {
            [
                set.name.clone(),
                satellites(set.selector.as_ref()),
                set.priority.to_string(),
                set.count.to_string(),
                set.version.to_string(),
                set.changed_at.to_string(),
            ]
        })
        .collect();
    table::render(["NAME", "FOR", "PRIORITY", "COUNT", "VERSION", "CHANGED"], &rows, &[])
}

fn satellites(selector: Option<&SelectorJson>) -> String {
    selector.map_or("everything".to_owned(), table::selector)
}
