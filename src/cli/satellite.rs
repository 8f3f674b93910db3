//! `groundstation satellite …`: the registry, over a pod's HTTP API.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::{Args, Subcommand};

use super::api::ApiArgs;
use super::exit::wrong_usage;
use super::named::Named;
use super::output::print_line;
use super::selection::SelectionArgs;
use super::{start_agent, table};
use crate::clients::client::{Create, Update};
use crate::contract::fleet::Intervals;
use crate::contract::wire::SatelliteJson;
use crate::contract::word::Word;
use crate::platform::units;

#[derive(Args)]
pub struct SatelliteArgs {
    #[command(flatten)]
    api: ApiArgs,

    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,

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
        /// All of its tags from now on; may be given several times
        #[arg(long = "tag", value_name = "NAME:VALUE", conflicts_with = "no_tags")]
        tags: Vec<String>,
        /// Take all of its tags away
        #[arg(long)]
        no_tags: bool,
        /// Its own offline threshold, such as 90s
        #[arg(long, value_name = "DURATION", conflicts_with = "no_offline_threshold")]
        offline_threshold: Option<String>,
        /// Take its own offline threshold away: the pod's counts
        #[arg(long)]
        no_offline_threshold: bool,
    },
    /// Replace a satellite's token: the old one is void at once and its session ends; prints the new
    /// one, this once
    RotateToken {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
    },
    /// Replace what a satellite is to check with a list from a file; its session hears of it at once
    Assign {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
        /// A JSON list of assignments, or an object with the field `assignments`; - reads standard
        /// input
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show what a satellite is to check, as JSON that `assign` takes
    Assignments {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
    },
    /// Remove a satellite: its session ends and its token is void
    Remove {
        /// The satellite's id, or its name if no other has the same
        satellite: Named,
    },
}

/// Runs `groundstation satellite …`.
pub fn run(args: SatelliteArgs) -> anyhow::Result<()> {
    let client = args.api.client()?;
    match args.command {
        SatelliteCommand::Create { name, region, tags, offline_threshold, idempotency_key } => {
            let create = Create {
                name: &name,
                region: &region,
                tags: parse_tags(&tags)?,
                offline_threshold_ms: threshold(offline_threshold.as_deref())?,
            };
            let registered = client.register(&create, idempotency_key.as_deref())?;
            if args.json {
                return print_json(&registered);
            }
            print_line!("id     {}", registered.satellite.id);
            match registered.token {
                Some(token) => {
                    print_line!("token  {token}  (shown this once)\n");
                    print_line!(
                        "{}",
                        start_agent::lines(args.api.url()?, registered.satellite.id, &token)
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
            if args.json {
                return print_json(&satellites);
            }
            print_line!("{}", listing(&satellites));
        }
        SatelliteCommand::Intervals { satellites, since, until } => {
            let ids = satellites.iter().map(|satellite| Ok(satellite.id(&client)?.to_string()));
            let ids = ids.collect::<anyhow::Result<Vec<_>>>()?;
            let mut parameters = vec![("ids", ids.join(","))];
            let bounds = [("since", since), ("until", until)];
            parameters.extend(bounds.into_iter().filter_map(|(n, v)| Some((n, v?))));
            let intervals = client.intervals(&parameters)?;
            if args.json {
                return print_json(&intervals);
            }
            print_line!("{}", intervals_shown(&intervals));
        }
        SatelliteCommand::Show { satellite } => {
            let satellite = client.get(satellite.id(&client)?)?;
            if args.json {
                return print_json(&satellite);
            }
            print_line!("{}", listing(std::slice::from_ref(&satellite)));
        }
        SatelliteCommand::Update {
            satellite,
            name,
            region,
            tags,
            no_tags,
            offline_threshold,
            no_offline_threshold,
        } => {
            let threshold = threshold(offline_threshold.as_deref())?;
            let update = Update {
                name,
                region,
                tags: (no_tags || !tags.is_empty()).then(|| parse_tags(&tags)).transpose()?,
                offline_threshold_ms: match no_offline_threshold {
                    true => Some(None),
                    false => threshold.map(Some),
                },
            };
            if update == Update::default() {
                let all = "give --name, --region, --tag or --offline-threshold";
                return Err(wrong_usage(anyhow!("nothing to change: {all}")));
            }
            let satellite = client.update(satellite.id(&client)?, &update)?;
            if args.json {
                return print_json(&satellite);
            }
            print_line!("{}", listing(std::slice::from_ref(&satellite)));
        }
        SatelliteCommand::RotateToken { satellite } => {
            let rotated = client.rotate_token(satellite.id(&client)?)?;
            if args.json {
                return print_json(&rotated);
            }
            print_line!("token  {}  (shown this once)", rotated.token);
        }
        SatelliteCommand::Assign { satellite, file } => {
            let list = read_json(&file)?;
            let assigned = client.assign(satellite.id(&client)?, &list)?;
            if args.json {
                return print_json(&assigned);
            }
            print_line!("version {}: {} assigned", assigned.version, assigned.assignments.len());
        }
        SatelliteCommand::Assignments { satellite } => {
            return print_json(&client.assignments(satellite.id(&client)?)?);
        }
        SatelliteCommand::Remove { satellite } => {
            let id = satellite.id(&client)?;
            client.remove(id)?;
            if args.json {
                return print_json(&serde_json::json!({"removed": id}));
            }
            print_line!("removed {id}");
        }
    }
    Ok(())
}

/// The most bytes read of a file: more than any list that is taken.
const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

fn read_json(file: &Path) -> anyhow::Result<serde_json::Value> {
    let shown = file.display();
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().take(MAX_FILE_BYTES).read_to_string(&mut text)?;
    } else {
        let opened = File::open(file).with_context(|| format!("cannot read {shown}"))?;
        let read = opened.take(MAX_FILE_BYTES).read_to_string(&mut text);
        read.with_context(|| format!("cannot read {shown}"))?;
    }
    serde_json::from_str(&text).with_context(|| format!("{shown} is not JSON"))
}

fn listing(satellites: &[SatelliteJson]) -> String {
    let rows: Vec<[String; 7]> = satellites
        .iter()
        .map(|satellite| {
            let tags = satellite.tags.iter().map(|(name, value)| format!("{name}:{value}"));
            let seen = satellite.last_seen_at.map_or("-".to_owned(), |at| at.to_string());
            [
                satellite.id.to_string(),
                satellite.name.clone(),
                satellite.region.clone(),
                satellite.status.to_string(),
                satellite.last_event.as_ref().map_or("-".to_owned(), Word::to_string),
                seen,
                tags.collect::<Vec<_>>().join(" "),
            ]
        })
        .collect();
    let head = ["ID", "NAME", "REGION", "STATUS", "LAST EVENT", "LAST SEEN", "TAGS"];
    table::render(head, &rows)
}

fn intervals_shown(intervals: &Intervals) -> String {
    let of_each = intervals.intervals.iter();
    let rows = of_each.flat_map(|(id, intervals)| intervals.iter().map(move |run| (id, run)));
    let word = |word: Option<String>| word.unwrap_or_else(|| "-".to_owned());
    let rows = rows.map(|(id, run)| {
        [
            id.to_string(),
            run.from.to_string(),
            run.to.to_string(),
            run.state.to_string(),
            word(run.event.as_ref().map(Word::to_string)),
            word(run.reason.as_ref().map(Word::to_string)),
        ]
    });
    let head = ["ID", "FROM", "TO", "STATE", "EVENT", "REASON"];
    table::render(head, &rows.collect::<Vec<_>>())
}

pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    print_line!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}

pub(super) fn parse_tags(tags: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    tags.iter()
        .map(|tag| match tag.split_once(':') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(wrong_usage(anyhow!("--tag is {tag:?}, it must be written NAME:VALUE"))),
        })
        .collect()
}

fn threshold(text: Option<&str>) -> anyhow::Result<Option<i64>> {
    let Some(text) = text else {
        return Ok(None);
    };
    let duration = units::duration("--offline-threshold", text).map_err(wrong_usage)?;
    Ok(Some(i64::try_from(duration.as_millis())?))
}
