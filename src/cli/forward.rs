//! `groundstation forward`: transitions as webhooks, and what became of those that were given up.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::dead_letters::{self, DeadLettersArgs};
use super::exit::wrong_usage;
use super::receiver::{OwnArgs, ReceiverArgs};
use crate::forward::consumer::{Start, Wanted};
use crate::forward::forwarder::{Forwarder, Settings};
use crate::forward::numbers::Numbers;
use crate::forward::ops;
use crate::forward::receiver::Receiver;
use crate::forward::retry::Retry;
use crate::ingress::settings::Settings as DoorSettings;
use crate::platform::{logging, shutdown, units};
use crate::pod::config::{ReplicasArgs, socket_address};
use crate::stream::tail;

/// The spans that --give-up-after takes.
const SPANS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(90 * 24 * 60 * 60);

const AFTER_HELP: &str = "\
Each transition is sent as a CloudEvent in HTTP's binary mode: its attributes are the headers ce-…, its body is that of
the message on NATS. webhook-id is the change id: whoever has handled it may ignore it when it comes again. 2xx takes a
message; 410 ends this command (exit status 3); everything else is tried again, with pauses that double. Of one
satellite messages come one at a time and in order.

Run several, each with its own --name, for several receivers. A second one of the same name stands by.";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct ForwardArgs {
    #[command(subcommand)]
    command: Option<ForwardCommand>,

    #[command(flatten)]
    receiver: ReceiverArgs,

    #[command(flatten)]
    own: OwnArgs,

    #[command(flatten)]
    replicas: ReplicasArgs,

    /// The triggers that are forwarded, such as satellite.heartbeat_lost; several with commas [default: all]
    #[arg(
        long = "trigger",
        env = "GROUNDSTATION_FORWARD_TRIGGERS",
        value_name = "TRIGGERS",
        value_delimiter = ','
    )]
    triggers: Vec<String>,

    /// Where a forwarder of a new name begins: with what happens from now on, or with the first message on the stream
    #[arg(
        long,
        env = "GROUNDSTATION_FORWARD_START",
        value_enum,
        default_value = "new",
        value_name = "WHERE"
    )]
    start: StartArg,

    /// Attempts at the same time, each for another satellite
    #[arg(long, env = "GROUNDSTATION_FORWARD_CONCURRENCY", default_value_t = 16,
          value_parser = clap::value_parser!(u16).range(1..=256), value_name = "COUNT")]
    concurrency: u16,

    /// Messages in hand; more stay on the stream. So many of failing satellites hold back all others
    #[arg(long, env = "GROUNDSTATION_FORWARD_MAX_PENDING", default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "COUNT")]
    max_pending: u32,

    /// The pause after a first failure; each next one is twice as long
    #[arg(
        long,
        env = "GROUNDSTATION_FORWARD_FIRST_PAUSE",
        default_value = "1s",
        value_name = "DURATION"
    )]
    first_pause: String,

    /// The longest pause between two attempts, unless the receiver asks for more
    #[arg(
        long,
        env = "GROUNDSTATION_FORWARD_LONGEST_PAUSE",
        default_value = "10m",
        value_name = "DURATION"
    )]
    longest_pause: String,

    /// How old a message may be before it is given up and becomes a dead letter
    #[arg(
        long,
        env = "GROUNDSTATION_FORWARD_GIVE_UP_AFTER",
        default_value = "3d",
        value_name = "SPAN"
    )]
    give_up_after: String,

    /// Dead letters of all forwarders together; where there are as many, none is added and messages stay in their queues.
    /// It counts when the stream for them is made
    #[arg(long, env = "GROUNDSTATION_FORWARD_MAX_DEAD_LETTERS", default_value_t = 10_000,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000), value_name = "COUNT")]
    max_dead_letters: u32,

    /// After how long without a sign of life another forwarder of this name takes over
    #[arg(
        long,
        env = "GROUNDSTATION_FORWARD_TAKEOVER",
        default_value = "15s",
        value_name = "DURATION"
    )]
    takeover: String,

    /// Address and port for /livez, /readyz and /metrics, in plain text [default: none]
    #[arg(long, env = "GROUNDSTATION_FORWARD_OPS_LISTEN", value_name = "ADDRESS")]
    ops_listen: Option<String>,
}

#[derive(Subcommand)]
enum ForwardCommand {
    /// List what was given up, send it again, drop it
    DeadLetters(DeadLettersArgs),
}

/// Where a forwarder of a new name begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StartArg {
    /// With what happens from now on
    New,
    /// With the first message on the stream
    First,
}

/// Runs `groundstation forward …`.
pub async fn run(args: ForwardArgs) -> anyhow::Result<()> {
    match args.command {
        Some(ForwardCommand::DeadLetters(dead_letters)) => {
            logging::start("warn").map_err(wrong_usage)?;
            dead_letters::run(dead_letters).await
        }
        None => {
            logging::start("info").map_err(wrong_usage)?;
            forward(args).await
        }
    }
}

async fn forward(args: ForwardArgs) -> anyhow::Result<()> {
    let settings = args.settings().map_err(wrong_usage)?;
    let receiver = args.receiver.settings(settings.concurrency).map_err(wrong_usage)?;
    let signing = args.receiver.signing().map_err(wrong_usage)?;
    let ops_listen = args.ops_listen().map_err(wrong_usage)?;
    let shutdown = shutdown::signal()?;
    let nats = args.own.connect().await?;
    let (stop, numbers) = (CancellationToken::new(), Numbers::new());
    let listening = ops_listen.map(|(address, door)| {
        ops::serve(address, &door, nats.clone(), numbers.clone(), stop.clone())
    });
    let listening = listening.transpose()?;
    let receiver = Arc::new(Receiver::new(&receiver));
    let forwarder = Forwarder { settings, nats, receiver, signing: Arc::new(signing), numbers };
    let stopper = stop.clone();
    tokio::spawn(async move {
        shutdown.await;
        stopper.cancel();
    });
    let ended = forwarder.run(stop.clone()).await;
    stop.cancel();
    if let Some(listening) = listening {
        listening.await.context("the listener for operators")?;
    }
    ended
}

impl ForwardArgs {
    fn settings(&self) -> anyhow::Result<Settings> {
        let duration = |name: &str, text: &str| {
            units::duration(&format!("GROUNDSTATION_FORWARD_{name}"), text)
        };
        let (first, longest) = (
            duration("FIRST_PAUSE", &self.first_pause)?,
            duration("LONGEST_PAUSE", &self.longest_pause)?,
        );
        if first > longest {
            bail!(
                "GROUNDSTATION_FORWARD_FIRST_PAUSE is longer than GROUNDSTATION_FORWARD_LONGEST_PAUSE"
            );
        }
        let takeover = duration("TAKEOVER", &self.takeover)?;
        if takeover < Duration::from_secs(1) {
            bail!(
                "GROUNDSTATION_FORWARD_TAKEOVER is {:?}: it must be from 1s to 24h",
                self.takeover
            );
        }
        Ok(Settings {
            wanted: Wanted {
                name: self.own.name()?,
                triggers: self.triggers()?,
                start: match self.start {
                    StartArg::New => Start::New,
                    StartArg::First => Start::First,
                },
                max_pending: self.max_pending,
                ack_wait: takeover,
            },
            retry: Retry { first, longest, give_up_after: give_up_after(&self.give_up_after)? },
            concurrency: self.concurrency.into(),
            timeout: self.receiver.timeout()?,
            max_dead_letters: self.max_dead_letters,
            replicas: self.replicas.replicas()?,
        })
    }

    fn triggers(&self) -> anyhow::Result<Vec<String>> {
        let known = tail::subjects();
        let given = self.triggers.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
        let mut triggers = Vec::new();
        for trigger in given {
            if !known.iter().any(|known| known == trigger) {
                bail!(
                    "GROUNDSTATION_FORWARD_TRIGGERS has {trigger:?}: it must be one of {}",
                    known.join(", ")
                );
            }
            if !triggers.iter().any(|known| known == trigger) {
                triggers.push(trigger.to_owned());
            }
        }
        Ok(triggers)
    }

    fn ops_listen(&self) -> anyhow::Result<Option<(SocketAddr, DoorSettings)>> {
        let Some(text) = self.ops_listen.as_deref().filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        let address = socket_address("GROUNDSTATION_FORWARD_OPS_LISTEN", text)?;
        Ok(Some((address, DoorSettings::from_environment()?)))
    }
}

fn give_up_after(text: &str) -> anyhow::Result<Duration> {
    let name = "GROUNDSTATION_FORWARD_GIVE_UP_AFTER";
    let span = humantime::parse_duration(text)
        .with_context(|| format!("{name} is {text:?}, not a span such as 3d or 12h"))?;
    if !SPANS.contains(&span) {
        bail!("{name} is {text:?}: it must be from 1s to 90d");
    }
    Ok(span)
}
