//! `groundstation replay`: the log once more, as JSON lines or on NATS.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use strum::IntoEnumIterator;

use super::exit::wrong_usage;
use super::named::Named;
use crate::contract::wire::{NoMoment, Timestamp};
use crate::domain::lifecycle::{Event, Position, SatelliteId};
use crate::platform::migrations;
use crate::platform::progress::Progress;
use crate::pod::config::{CellArgs, DatabaseArgs, NatsArgs};
use crate::stream::replay::pace::Speed;
use crate::stream::replay::prefix::Prefix;
use crate::stream::replay::sink::{Messages, Sink};
use crate::stream::replay::{Replay, Selection};

const AFTER_HELP: &str = "\
Everything that is given narrows the selection. It ends at the newest transition there is when the
replay starts. One that ends early says where to go on: repeat the command with --after.

Messages go to the prefix and their live subject, such as replay.satellite.connected, with their
original body and headers and `Groundstation-Replay: true`. Nats-Msg-Id is among them: a stream of
yours that takes the prefix stores a replay once if it is run again within its duplicate window.
They are sent at least once, and they are never sent onto live subjects.";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct ReplayArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    nats: NatsArgs,

    #[command(flatten)]
    cell: CellArgs,

    /// From this position on
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..))]
    first: Option<i64>,
    /// Up to and with this position
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(1..))]
    last: Option<i64>,
    /// Go on behind this position, where an earlier replay ended
    #[arg(long, value_name = "POSITION", value_parser = clap::value_parser!(i64).range(0..))]
    after: Option<i64>,
    /// Recorded at or after this time, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Recorded before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Only this satellite's, by its name or its id; one that was removed only by its id
    #[arg(long, value_name = "SATELLITE")]
    satellite: Option<Named>,
    /// Only this event: connected, disconnected, heartbeat_lost or removed
    #[arg(long, value_name = "EVENT", value_parser = event)]
    event: Option<Event>,

    /// Where the replay goes
    #[arg(long, value_enum, default_value = "lines")]
    to: To,
    /// For lines: the file to write, which must not be there yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// For nats: what subjects begin with, a dot at its end, such as `replay.`
    #[arg(long, value_name = "PREFIX", value_parser = Prefix::parse)]
    prefix: Option<Prefix>,
    /// max, or how many times as fast as it was recorded, such as 1x or 10x; no pause is longer
    /// than 10 s
    #[arg(long, default_value = "max", value_name = "SPEED", value_parser = Speed::parse)]
    speed: Speed,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum To {
    /// JSON lines, in the form of the HTTP API
    Lines,
    /// Messages under --prefix
    Nats,
}

fn time(text: &str) -> Result<Timestamp, String> {
    text.parse().map_err(|rule: NoMoment| format!("it {rule}"))
}

fn event(text: &str) -> Result<Event, String> {
    let words: Vec<&str> = Event::iter().map(Event::as_str).collect();
    Event::from_str(text).map_err(|_| format!("it must be one of {}", words.join(", ")))
}

/// Runs `groundstation replay …`.
pub async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let mut selection = args.selection().map_err(wrong_usage)?;
    let address = args.database.required().map_err(wrong_usage)?;
    let database = address.pool("replay")?;
    let interrupted = crate::platform::shutdown::signal()?;
    let (sink, progress) = match (args.to, args.prefix) {
        (To::Lines, Some(_)) => {
            return Err(wrong_usage(anyhow!("--prefix is of use only with --to nats")));
        }
        (To::Nats, None) => {
            return Err(wrong_usage(anyhow!("--to nats needs a --prefix, such as replay.")));
        }
        (To::Nats, Some(_)) if args.output.is_some() => {
            return Err(wrong_usage(anyhow!("--output is of no use with --to nats")));
        }
        (To::Lines, None) => match args.output {
            None => (Sink::lines(std::io::stdout()), Progress::beside_standard_output()),
            Some(file) => {
                let created = std::fs::File::create_new(&file);
                let created = created.with_context(|| format!("cannot make {}", file.display()))?;
                (Sink::lines(created), Progress::new())
            }
        },
        (To::Nats, Some(prefix)) => {
            let nats = args.nats.required().map_err(wrong_usage)?;
            let cell = args.cell.cell().map_err(wrong_usage)?;
            let messages = Messages::connect(&nats, prefix, cell).await?;
            (Sink::Messages(Box::new(messages)), Progress::new())
        }
    };
    migrations::check(&database, &address).await?;
    if let Some(satellite) = args.satellite {
        selection.satellite = Some(SatelliteId(satellite.id_in(&database).await?));
    }
    let replay = Replay::new(database, selection, sink, args.speed, progress);
    let summary = replay.run(interrupted).await?;
    if !summary.closed {
        eprintln!("{summary}");
    }
    Ok(())
}

impl ReplayArgs {
    fn selection(&self) -> anyhow::Result<Selection> {
        if self.first.zip(self.last).is_some_and(|(first, last)| first > last) {
            bail!("--first must not be greater than --last");
        }
        if self.since.zip(self.until).is_some_and(|(since, until)| since >= until) {
            bail!("--since must be earlier than --until");
        }
        Ok(Selection {
            first: self.first.map(Position),
            last: self.last.map(Position),
            after: self.after.map(Position),
            since: self.since,
            until: self.until,
            satellite: None,
            event: self.event,
        })
    }
}
