//! `groundstation transitions`: the log, and what comes to it.

use std::io::{BufRead, BufReader, Write};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::api::ApiArgs;
use super::named::Named;
use super::output::{self, Format, OutputArgs, Shown};
use super::table;
use crate::clients::client::{Client, Refused};
use crate::clients::printable::printable;
use crate::contract::wire::TransitionJson;

/// Between two tries to follow again.
const PAUSE: Duration = Duration::from_secs(1);

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
        return follow(&client, args.after, &filters, args.output.format());
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

/// Prints what comes; comes back with the last position it printed.
fn follow(
    client: &Client,
    after: Option<i64>,
    filters: &[(&str, String)],
    format: Format,
) -> anyhow::Result<()> {
    let mut last = after;
    // The first try may fail for good: a wrong address, a wrong token.
    let mut stream = client.stream(last, filters)?;
    eprintln!("following; Ctrl-C ends");
    loop {
        match print(BufReader::new(stream), &mut last, filters.is_empty(), format) {
            Ok(()) => {}
            Err(error) if is_closed(&error) => return Ok(()),
            Err(error) => eprintln!("groundstation: the stream broke: {error:#}; trying again"),
        }
        stream = loop {
            match client.stream(last, filters) {
                Ok(stream) => break stream,
                // What follows is gone, or is of another log: nobody may pass over that unseen.
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => {
                    eprintln!("groundstation: {error:#}");
                    sleep(PAUSE);
                }
            }
        };
    }
}

/// Whether asking again will not help.
fn is_final(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Refused>().is_some_and(|refused| (400..500).contains(&refused.status))
}

/// Whoever read this has seen enough, `transitions --follow | head` for one.
fn is_closed(error: &anyhow::Error) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Prints the events of one stream until it ends. Where all of them are asked for, none may be missing.
fn print(
    stream: impl BufRead,
    last: &mut Option<i64>,
    is_whole: bool,
    format: Format,
) -> anyhow::Result<()> {
    let mut passed = None;
    for line in stream.lines() {
        let line = line.map_err(|error| anyhow::anyhow!("{error}"))?;
        let field = |name: &str| line.strip_prefix(name).map(str::trim_start);
        if let Some(id) = field("id:") {
            passed = Some(id.parse().context("an id is no position")?);
        } else if let Some(data) = field("data:") {
            let transition: TransitionJson =
                serde_json::from_str(data).context("an event is no transition")?;
            let position = transition.position;
            let follows = |last: i64| position == last + 1 || (!is_whole && position > last);
            if last.is_some_and(|last| !follows(last)) {
                bail!("position {position} came out of turn");
            }
            let text = match format {
                Format::Json => output::escaped(data),
                Format::Yaml => {
                    format!("---\n{}", serde_yaml_ng::to_string(&transition)?.trim_end())
                }
                _ => row(&transition).map(|cell| printable(&cell).into_owned()).join("  "),
            };
            writeln!(std::io::stdout(), "{text}")?;
            (*last, passed) = (Some(position), None);
        } else if line.is_empty()
            && let Some(position) = passed.take()
        {
            // An id without data tells where a stream of the present begins, or how far one with filters is.
            if last.is_none() || !is_whole {
                *last = Some(position);
            }
        }
    }
    Ok(())
}
