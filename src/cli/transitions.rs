//! `groundstation transitions`: the log, and what comes to it.

use std::io::{BufRead, BufReader, Write};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use uuid::Uuid;

use super::api::ApiArgs;
use super::satellite::print_json;
use super::table;
use crate::clients::client::{Client, Refused};
use crate::contract::wire::TransitionJson;

/// Between two tries to follow again.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Args)]
pub struct TransitionsArgs {
    #[command(flatten)]
    api: ApiArgs,

    /// Print JSON for programs instead of text for people; one object a line with --follow
    #[arg(long)]
    json: bool,

    /// Only this satellite's; it may have been removed
    #[arg(long, value_name = "UUID", conflicts_with = "follow")]
    satellite: Option<Uuid>,
    /// Behind this position [default: the beginning, or now with --follow]
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
    /// How many
    #[arg(long, default_value_t = 100, conflicts_with = "follow",
          value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
    /// Only this event: connected, disconnected, heartbeat_lost or removed
    #[arg(long, value_name = "EVENT", conflicts_with = "follow")]
    event: Option<String>,
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
    let client = args.api.client()?;
    if args.follow {
        return follow(&client, args.after, args.json);
    }
    let filters = [
        ("after", args.after.map(|after| after.to_string())),
        ("limit", Some(args.limit.to_string())),
        ("event", args.event),
        ("since", args.since),
        ("until", args.until),
    ];
    let filters: Vec<_> = filters.into_iter().filter_map(|(n, v)| Some((n, v?))).collect();
    let page = client.transitions(args.satellite, &filters)?;
    if args.json {
        return print_json(&page);
    }
    let rows: Vec<_> = page.transitions.iter().map(row).collect();
    let head = ["POSITION", "TIME", "EVENT", "REASON", "SESSION", "SATELLITE", "ID"];
    println!("{}", table::render(head, &rows));
    Ok(())
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
fn follow(client: &Client, after: Option<i64>, json: bool) -> anyhow::Result<()> {
    let mut last = after;
    // The first try may fail for good: a wrong address, a wrong token.
    let mut stream = client.stream(last)?;
    eprintln!("following; Ctrl-C ends");
    loop {
        match print(BufReader::new(stream), &mut last, json) {
            Ok(()) => {}
            Err(error) if is_closed(&error) => return Ok(()),
            Err(error) => eprintln!("groundstation: the stream broke: {error:#}; trying again"),
        }
        stream = loop {
            match client.stream(last) {
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

/// Prints the events of one stream until it ends.
fn print(stream: impl BufRead, last: &mut Option<i64>, json: bool) -> anyhow::Result<()> {
    for line in stream.lines() {
        let line = line.map_err(|error| anyhow::anyhow!("{error}"))?;
        let field = |name: &str| line.strip_prefix(name).map(str::trim_start);
        if let Some(id) = field("id:") {
            // An id without data tells where a stream of the present begins.
            if last.is_none() {
                *last = Some(id.parse().context("an id is no position")?);
            }
        } else if let Some(data) = field("data:") {
            let transition: TransitionJson =
                serde_json::from_str(data).context("an event is no transition")?;
            if last.is_some_and(|last| transition.position != last + 1) {
                bail!("position {} came out of turn", transition.position);
            }
            let text = if json { data.to_owned() } else { row(&transition).join("  ") };
            writeln!(std::io::stdout(), "{text}")?;
            *last = Some(transition.position);
        }
    }
    Ok(())
}
