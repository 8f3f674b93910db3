//! `groundstation satellite …`: the registry, over a pod's HTTP API.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::api::ApiArgs;
use super::confirm::YesArgs;
use super::exit::wrong_usage;
use super::json_file;
use super::named::Named;
use super::output::{OutputArgs, Shown, json, print_line};
use super::selection::SelectionArgs;
use super::tags::TagArgs;
use super::{satellite_tables, start_agent, tags};
use crate::clients::client::{Create, Update};
use crate::contract::wire::SatelliteJson;
use crate::platform::units;

/// Why `-o name` is refused where a token is shown this once.
const SHOWN_ONCE: &str = "the token is shown this once and would be lost";

/// Why it is refused for assignments.
const NO_NAMES: &str = "assignments have none";

#[derive(Args)]
pub struct SatelliteArgs {
    #[command(flatten)]
    api: ApiArgs,

    #[command(flatten)]
    output: OutputArgs,

    #[command(subcommand)]
    command: SatelliteCommand,
}

#[derive(Subcommand)]
enum SatelliteCommand {
    /// Register a satellite; prints its id and, this once, its token and how to start an agent with it
    Create {
        /// 1 to 200 characters
        #[arg(long)]
        name: String,
        /// 1 to 200 characters
        #[arg(long)]
        region: String,
        /// May be given several times
        #[arg(long = "tag", value_name = "NAME:VALUE")]
        tags: Vec<String>,
        /// Its own offline threshold, such as 90s [default: the pod's]
        #[arg(long, value_name = "DURATION")]
        offline_threshold: Option<String>,
        /// What this registration is called: the same key makes one satellite a day, however often it
        /// is sent
        #[arg(long, value_name = "KEY")]
        idempotency_key: Option<String>,
    },
    /// List satellites and how each one stands
    List {
        #[command(flatten)]
        selection: Box<SelectionArgs>,
        /// In the order of name, region, createdAt or lastSeenAt; with a minus in front the other way round
        /// [default: name]
        #[arg(long, allow_hyphen_values = true, value_name = "WORD")]
        sort: Option<String>,
    },
    /// Show how satellites were: since when up, down or unknown, and why
    Intervals {
        /// The satellites, by id or by name, 200 at most
        #[arg(required = true, num_args = 1..=200, value_name = "SATELLITE")]
        satellites: Vec<Named>,
        /// From when, such as 2026-03-01T12:00:00Z [default: 24 hours before --until]
        #[arg(long, value_name = "TIME")]
        since: Option<String>,
        /// Until when [default: now]
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
    },
    /// Show one satellite
    Show {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
    },
    /// Change what the registry says of a satellite; what is not given stays as it is
    Update {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
        /// Another name, 1 to 200 characters
        #[arg(long)]
        name: Option<String>,
        /// Another region, 1 to 200 characters
        #[arg(long)]
        region: Option<String>,
        #[command(flatten)]
        tags: TagArgs,
        /// Its own offline threshold, such as 90s
        #[arg(long, value_name = "DURATION", conflicts_with = "no_offline_threshold")]
        offline_threshold: Option<String>,
        /// Take its own offline threshold away: the pod's counts
        #[arg(long)]
        no_offline_threshold: bool,
    },
    /// Replace a satellite's token; prints the new one, this once. The old one is void at once and its session
    /// ends, unless they overlap
    RotateToken {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
        #[command(flatten)]
        yes: YesArgs,
        /// For how long the old one stays valid beside the new one, such as 1h: 1s to 30days
        #[arg(long, value_name = "DURATION")]
        overlap: Option<String>,
    },
    /// End a satellite's session; it may come back at once
    Kick {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
        #[command(flatten)]
        yes: YesArgs,
    },
    /// End a satellite's session and refuse it until it is enabled
    Disable {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
        #[command(flatten)]
        yes: YesArgs,
    },
    /// Let a disabled satellite in again
    Enable {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
    },
    /// Replace a satellite's own assignments with a list from a file; its session hears of it at once
    Assign {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
        /// A JSON list of assignments, or an object with the field `assignments`; - reads standard
        /// input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show a satellite's own assignments, as JSON that `assign` takes
    Assignments {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
        /// All that it is to check, with the sets that it comes from, and which version of that it was sent
        #[arg(long)]
        effective: bool,
    },
    /// Remove a satellite: its session ends and its token is void
    Remove {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
        #[command(flatten)]
        yes: YesArgs,
    },
}

/// Runs `groundstation satellite …`.
pub fn run(args: SatelliteArgs) -> anyhow::Result<()> {
    let target = args.api.target()?;
    let client = target.client()?;
    let output = args.output;
    match args.command {
        SatelliteCommand::Create { name, region, tags, offline_threshold, idempotency_key } => {
            let create = Create {
                name: &name,
                region: &region,
                tags: tags::parse("--tag", &tags)?,
                offline_threshold_ms: threshold(offline_threshold.as_deref())?,
            };
            output.refuse_names(SHOWN_ONCE)?;
            let registered = client.register(&create, idempotency_key.as_deref())?;
            if output.is_for_programs() {
                return output.print(&registered, Shown::NOTHING_ELSE);
            }
            print_line!("id     {}", registered.satellite.id);
            match registered.token {
                Some(token) => {
                    print_line!("token  {token}  (shown this once)\n");
                    print_line!(
                        "{}",
                        start_agent::lines(target.url(), registered.satellite.id, &token)
                    );
                }
                None => print_line!("token  was shown before; rotate-token makes a new one"),
            }
        }
        SatelliteCommand::List { selection, sort } => {
            let mut parameters = selection.parameters();
            let is_by_name = sort.is_none();
            parameters.extend(sort.map(|sort| ("sort", sort)));
            let mut satellites = client.list(&parameters)?;
            // As-of pages come by id, which costs least.
            if is_by_name {
                satellites.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
            }
            print_satellites(&output, &satellites, &satellites)?;
        }
        SatelliteCommand::Intervals { satellites, since, until } => {
            output.refuse_names("an interval has none")?;
            let ids = satellites.iter().map(|satellite| Ok(satellite.id(&client)?.to_string()));
            let ids = ids.collect::<anyhow::Result<Vec<_>>>()?;
            let mut parameters = vec![("ids", ids.join(","))];
            let bounds = [("since", since), ("until", until)];
            parameters.extend(bounds.into_iter().filter_map(|(n, v)| Some((n, v?))));
            let intervals = client.intervals(&parameters)?;
            let table = |_| satellite_tables::intervals(&intervals);
            output.print(&intervals, Shown { table: &table, names: &Vec::new })?;
        }
        SatelliteCommand::Show { satellite } => {
            let satellite = client.get(satellite.id(&client)?)?;
            print_satellites(&output, &satellite, std::slice::from_ref(&satellite))?;
        }
        SatelliteCommand::Update {
            satellite,
            name,
            region,
            tags,
            offline_threshold,
            no_offline_threshold,
        } => {
            let threshold = threshold(offline_threshold.as_deref())?;
            let update = Update {
                name,
                region,
                tags: None,
                offline_threshold_ms: match no_offline_threshold {
                    true => Some(None),
                    false => threshold.map(Some),
                },
            };
            if update == Update::default() && tags.is_empty() {
                let all =
                    "give --name, --region, --tag, --add-tag, --remove-tag or --offline-threshold";
                return Err(wrong_usage(anyhow!("nothing to change: {all}")));
            }
            let satellite = tags.change(&client, satellite.id(&client)?, update)?;
            print_satellites(&output, &satellite, std::slice::from_ref(&satellite))?;
        }
        SatelliteCommand::RotateToken { satellite, yes, overlap } => {
            output.refuse_names(SHOWN_ONCE)?;
            let id = satellite.id(&client)?;
            if overlap.is_none() {
                yes.confirm(&format!("Replace the token of {satellite}, whose session ends"))?;
            }
            let rotated = client.rotate_token(id, overlap.as_deref())?;
            if output.is_for_programs() {
                return output.print(&rotated, Shown::NOTHING_ELSE);
            }
            print_line!("token  {}  (shown this once)", rotated.token);
            if let Some(at) = rotated.previous_token_ends_at {
                print_line!("the one before is valid until {at}");
            }
        }
        SatelliteCommand::Kick { satellite, yes } => {
            let id = satellite.id(&client)?;
            yes.confirm(&format!("End the session of {satellite}"))?;
            let ended = client.kick(id)?;
            let table = |_| match ended.session_ended {
                true => format!("kicked {id}: its session has ended"),
                false => format!("{id} is offline: there was no session to end"),
            };
            output.print(&ended, Shown { table: &table, names: &|| vec![id.to_string()] })?;
        }
        SatelliteCommand::Disable { satellite, yes } => {
            let id = satellite.id(&client)?;
            yes.confirm(&format!("End the session of {satellite} and refuse it from now on"))?;
            let ended = client.disable(id)?;
            let table = |_| match ended.session_ended {
                true => format!("disabled {id}: its session has ended"),
                false => format!("disabled {id}"),
            };
            output.print(&ended, Shown { table: &table, names: &|| vec![id.to_string()] })?;
        }
        SatelliteCommand::Enable { satellite } => {
            let satellite = client.enable(satellite.id(&client)?)?;
            let table = |_| format!("enabled {}", satellite.id);
            output.print(
                &satellite,
                Shown { table: &table, names: &|| vec![satellite.name.clone()] },
            )?;
        }
        SatelliteCommand::Assign { satellite, file } => {
            let list = json_file::read(&file)?;
            output.refuse_names(NO_NAMES)?;
            let assigned = client.assign(satellite.id(&client)?, &list)?;
            let (version, count) = (assigned.version, assigned.assignments.len());
            let table = |_| format!("version {version}: {count} assigned");
            output.print(&assigned, Shown { table: &table, names: &Vec::new })?;
        }
        SatelliteCommand::Assignments { satellite, effective: true } => {
            output.refuse_names(NO_NAMES)?;
            let effective = client.effective_assignments(satellite.id(&client)?)?;
            let table = |_| satellite_tables::effective(&effective);
            output.print(&effective, Shown { table: &table, names: &Vec::new })?;
        }
        SatelliteCommand::Assignments { satellite, effective: false } => {
            output.refuse_names(NO_NAMES)?;
            let assignments = client.assignments(satellite.id(&client)?)?;
            match output.is_for_programs() {
                true => output.print(&assignments, Shown::NOTHING_ELSE)?,
                // There is no table of what is JSON within.
                false => json(&assignments)?,
            }
        }
        SatelliteCommand::Remove { satellite, yes } => {
            let id = satellite.id(&client)?;
            yes.confirm(&format!(
                "Remove {satellite}, whose session ends and whose token is void"
            ))?;
            client.remove(id)?;
            let table = |_| format!("removed {id}");
            let names = || vec![id.to_string()];
            let answer = serde_json::json!({"removed": id});
            output.print(&answer, Shown { table: &table, names: &names })?;
        }
    }
    Ok(())
}

fn print_satellites(
    output: &OutputArgs,
    answer: &impl serde::Serialize,
    satellites: &[SatelliteJson],
) -> anyhow::Result<()> {
    let table = |is_wide| satellite_tables::listing(satellites, is_wide);
    let names = || satellites.iter().map(|satellite| satellite.name.clone()).collect();
    output.print(answer, Shown { table: &table, names: &names })
}

fn threshold(text: Option<&str>) -> anyhow::Result<Option<i64>> {
    let Some(text) = text else {
        return Ok(None);
    };
    let duration = units::duration("--offline-threshold", text).map_err(wrong_usage)?;
    Ok(Some(i64::try_from(duration.as_millis())?))
}
