//! The command line: picks the command, reads its arguments, reports how it ended.
//!
//! Every command that fails exits non-zero with one clear line; `exit.rs` has the statuses. Results go to standard
//! output, log lines to standard error.

use std::io::{IsTerminal, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::{Args, ColorChoice, CommandFactory, Parser, Subcommand};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use crate::clients::client;
use crate::clients::printable::printable_lines;
use crate::clients::simulate::{self, Plan};
use crate::clients::watch;
use crate::dev::{self, DevArgs};
use crate::domain::lifecycle::Position;
use crate::log::rebuild;
use crate::platform::logging;
use crate::platform::migrations;
use crate::platform::shutdown;
use crate::platform::units;
use crate::pod;
use crate::pod::config::{DatabaseArgs, MigrateArgs, NatsArgs, ServeArgs};

mod agent;
mod api;
mod assignment_set;
mod audit;
mod confirm;
mod context;
mod credentials_file;
mod dead_letters;
mod exit;
mod fleet;
mod follow;
mod forward;
mod import;
mod json_file;
mod maintenance;
mod moment;
mod named;
mod operator;
mod output;
mod paged;
mod receiver;
mod replay;
mod retention;
mod satellite;
mod satellite_tables;
mod selection;
mod start_agent;
mod status;
mod table;
mod tags;
mod token;
mod token_file;
mod transitions;
mod triggers;
mod what_if;

use exit::wrong_usage;
use output::print_line;

use agent::AgentArgs;
use api::ApiArgs;
use assignment_set::AssignmentSetArgs;
use audit::AuditArgs;
use fleet::FleetArgs;
use forward::ForwardArgs;
use import::ImportArgs;
use maintenance::MaintenanceArgs;
use replay::ReplayArgs;
use retention::RetentionArgs;
use satellite::SatelliteArgs;
use status::StatusArgs;
use token::TokenArgs;
use transitions::TransitionsArgs;
use triggers::TriggersArgs;
use what_if::WhatIfArgs;

#[derive(Parser)]
#[command(name = "groundstation", version, about, max_term_width = 100)]
#[command(after_help = "\
Try `groundstation dev`: private stores, one pod and a dozen satellites.

RUST_LOG (default info) and GROUNDSTATION_LOG_FORMAT (text or json) say what is logged, and how.

Exit status: 0 done, 1 failed, 2 wrong usage or a wrong setting, 3 not there, 4 refused (the token), \
5 conflict, 6 unreachable.")]
struct Cli {
    /// Whether to print in colours: auto (on a terminal, unless NO_COLOR is set), always or never
    #[arg(
        long,
        global = true,
        default_value = "auto",
        hide_possible_values = true,
        value_name = "WHEN"
    )]
    color: ColorChoice,

    #[command(subcommand)]
    command: Command,
}

/// What `serve` reads from the environment beside its own settings.
const TRACES: &str = "\
Traces are exported where OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) names a
collector, by OTLP over HTTP in protobuf; the other OTEL_ variables mean what they always do. Nothing is
exported with OTEL_SDK_DISABLED=true or OTEL_TRACES_EXPORTER=none. Log lines: RUST_LOG,
GROUNDSTATION_LOG_FORMAT (text or json).";

#[derive(Subcommand)]
enum Command {
    /// Run one pod: the satellites' WebSocket, the log, the relay, the HTTP API
    #[command(after_help = TRACES)]
    Serve(Box<ServeArgs>),
    /// Bring the database's schema to the version this binary needs
    Migrate(MigrateArgs),
    /// Show it all on this machine: private stores, one pod, a dozen satellites, a live view
    Dev(DevArgs),
    /// Register satellites, list and change them, say what they check, replace their tokens, remove them; over a pod's HTTP API
    Satellite(SatelliteArgs),
    /// Say what all satellites of a region, or with some tags, check besides their own lists; over a pod's HTTP API
    AssignmentSet(AssignmentSetArgs),
    /// Make, list and revoke named tokens for administrators and programs; over a pod's HTTP API
    Token(TokenArgs),
    /// Plan times in which satellites may come and go, list and end them; over a pod's HTTP API
    Maintenance(Box<MaintenanceArgs>),
    /// Count the fleet by region, as it is or was, and show how it was over a while; over a pod's HTTP API
    Fleet(Box<FleetArgs>),
    /// Print transitions of the log, and follow it as it grows; over a pod's HTTP API
    Transitions(TransitionsArgs),
    /// Print what an automation can subscribe to; over a pod's HTTP API
    Triggers(TriggersArgs),
    /// Say how a pod and the fleet are
    Status(StatusArgs),
    /// Ask what another offline threshold would have done to the losses of a window; over a pod's HTTP API
    WhatIf(WhatIfArgs),
    /// Send the triggers as webhooks to a receiver over HTTP, signed, in order, again until they are taken
    Forward(Box<ForwardArgs>),
    /// Be one satellite: enrol if need be, connect, send heartbeats, come back for ever
    Agent(Box<AgentArgs>),
    /// Be many satellites in one process; they are registered, connected, and removed at the end
    Simulate(SimulateArgs),
    /// Print the triggers as they arrive on NATS
    Watch(WatchArgs),
    /// Hold the whole log against the whole stream, or against its seals; list who changed what
    Audit(Box<AuditArgs>),
    /// Write transitions of the log once more, as JSON lines or to NATS under another prefix
    Replay(Box<ReplayArgs>),
    /// Archive and drop partitions of the log that are old
    Retention(RetentionArgs),
    /// Fold the whole log again and replace every current row that does not follow from it
    Rebuild(RebuildArgs),
    /// Copy satellites from another system's database, with the credentials they have
    Import(ImportArgs),
    /// Print completions for a shell, such as `groundstation completions bash > /etc/bash_completion.d/groundstation`
    Completions(CompletionArgs),
    /// Ask a pod whether it is ready; exits 0 if so (for health checks without a shell)
    Health(HealthArgs),
    /// Write the manual's pages into a folder
    #[command(hide = true)]
    Man(ManArgs),
}

#[derive(Args)]
struct RebuildArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Only compare: change nothing, exit 1 where a row differs
    #[arg(long)]
    check: bool,
}

#[derive(Args)]
struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

#[derive(Args)]
struct ManArgs {
    /// The folder; it is made if need be
    folder: PathBuf,
}

#[derive(Args)]
struct HealthArgs {
    /// The pod's address [default: GROUNDSTATION_OPS_LISTEN on this machine, or else http://127.0.0.1:8080]
    #[arg(long, env = "GROUNDSTATION_URL")]
    url: Option<String>,

    /// Where the pod's probes answer, as set for the pod itself
    #[arg(long, env = "GROUNDSTATION_OPS_LISTEN", value_name = "ADDRESS")]
    ops_listen: Option<String>,
}

impl HealthArgs {
    fn url(&self) -> anyhow::Result<String> {
        match (&self.url, self.ops_listen.as_deref().filter(|text| !text.is_empty())) {
            (Some(url), _) => Ok(api::checked(url)?.to_owned()),
            (None, None) => Ok("http://127.0.0.1:8080".to_owned()),
            (None, Some(text)) => {
                let mut address =
                    crate::pod::config::socket_address("GROUNDSTATION_OPS_LISTEN", text)?;
                // An unspecified address listens on this machine too.
                if address.ip().is_unspecified() {
                    let v6 = address.is_ipv6();
                    address.set_ip(if v6 {
                        Ipv6Addr::LOCALHOST.into()
                    } else {
                        Ipv4Addr::LOCALHOST.into()
                    });
                }
                Ok(format!("http://{address}"))
            }
        }
    }
}

#[derive(Args)]
struct SimulateArgs {
    #[command(flatten)]
    api: ApiArgs,
    /// How many satellites
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    satellites: u32,
    /// How often each one leaves, drops out or falls silent, on average, per minute
    #[arg(long, default_value_t = 0.0, value_name = "PER_MINUTE")]
    flap: f64,
    /// How long a satellite that falls silent stays silent
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    silence: String,
    /// How often each one sends a heartbeat
    #[arg(
        long,
        env = "GROUNDSTATION_HEARTBEAT_INTERVAL",
        default_value = "15s",
        value_name = "DURATION"
    )]
    heartbeat_interval: String,
    /// Connections begun per second
    #[arg(long, default_value_t = 500.0, value_name = "PER_SECOND")]
    ramp: f64,
    /// Satellites that connect for the first time at once, at most
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    at_once: u32,
    /// Connect from this local address; may be given several times, then they take turns (127.0.0.1,
    /// 127.0.0.2 … reach a pod on this machine with more connections than one address has ports)
    #[arg(long, value_name = "IP")]
    from: Vec<IpAddr>,
    /// How long to run [default: until Ctrl-C]
    #[arg(long, value_name = "DURATION")]
    duration: Option<String>,
    /// What each satellite's name begins with
    #[arg(long, default_value = "simulated")]
    prefix: String,
    /// Leave the satellites registered
    #[arg(long)]
    keep: bool,
    /// Repeat an earlier run's flapping [default: random]
    #[arg(long)]
    seed: Option<u64>,
    /// Print the summary as a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct WatchArgs {
    #[command(flatten)]
    nats: NatsArgs,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// Parses the arguments, runs the command, and turns its outcome into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.color {
        ColorChoice::Auto => anstream::ColorChoice::Auto,
        ColorChoice::Always => anstream::ColorChoice::Always,
        ColorChoice::Never => anstream::ColorChoice::Never,
    }
    .write_global();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Much of it may be what a server said.
            eprintln!("groundstation: {}", printable_lines(&format!("{error:#}")));
            exit::status(&error)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => {
            let _spans = logging::start_pod().map_err(wrong_usage)?;
            let config = args.check().map_err(wrong_usage)?;
            block_on(async {
                let shutdown = shutdown::signal()?;
                pod::run(config, shutdown, |_| {}).await
            })
        }
        Command::Migrate(args) => migrate(&args),
        Command::Dev(args) => dev::run(&args),
        Command::Satellite(args) => satellite::run(args),
        Command::AssignmentSet(args) => assignment_set::run(args),
        Command::Token(args) => token::run(args),
        Command::Maintenance(args) => maintenance::run(*args),
        Command::Fleet(args) => fleet::run(*args),
        Command::Transitions(args) => transitions::run(args),
        Command::Triggers(args) => triggers::run(args),
        Command::Status(args) => status::run(args),
        Command::WhatIf(args) => what_if::run(args),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "groundstation", &mut script);
            std::io::stdout().write_all(&script).context("cannot write")
        }
        Command::Man(args) => write_manual(&args.folder),
        Command::Agent(args) => {
            logging::start("info").map_err(wrong_usage)?;
            block_on(agent::run(*args))
        }
        Command::Simulate(args) => {
            logging::start("warn").map_err(wrong_usage)?;
            block_on(run_simulation(args))
        }
        Command::Watch(args) => {
            logging::start("warn").map_err(wrong_usage)?;
            block_on(run_watch(args))
        }
        Command::Forward(args) => block_on(forward::run(*args)),
        Command::Audit(args) => audit::run(*args),
        Command::Replay(args) => {
            logging::start("warn").map_err(wrong_usage)?;
            block_on(replay::run(*args))
        }
        Command::Retention(args) => {
            logging::start("warn").map_err(wrong_usage)?;
            block_on(retention::run(args))
        }
        Command::Rebuild(args) => {
            logging::start("warn").map_err(wrong_usage)?;
            block_on(run_rebuild(args))
        }
        Command::Import(args) => {
            logging::start("warn").map_err(wrong_usage)?;
            import::run(args)
        }
        Command::Health(args) => {
            print_line!("{}", client::ready(&args.url().map_err(wrong_usage)?)?);
            Ok(())
        }
    }
}

fn write_manual(folder: &Path) -> anyhow::Result<()> {
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    written.with_context(|| format!("cannot write into {}", folder.display()))
}

/// Blocking: runs before any runtime starts.
fn migrate(args: &MigrateArgs) -> anyhow::Result<()> {
    let address = args.address().map_err(wrong_usage)?;
    let floor = args.retention_floor().map_err(wrong_usage)?;
    let migrated = migrations::migrate(&address, floor)?;
    for migration in &migrated.applied {
        print_line!("applied {migration}");
    }
    match (migrated.version, migrated.known) {
        (version, known) if version > known => print_line!(
            "the schema is at version {version}, newer than the {known} this groundstation knows, and lets it run: \
             nothing to do"
        ),
        (version, _) => print_line!("the schema is at version {version}"),
    }
    for warning in &migrated.warnings {
        eprintln!("groundstation: {warning}");
    }
    Ok(())
}

impl SimulateArgs {
    fn plan(self) -> anyhow::Result<Plan> {
        if !self.flap.is_finite() || self.flap < 0.0 || self.ramp.is_nan() || self.ramp < 0.1 {
            bail!("--flap must be 0 or more, --ramp 0.1 or more");
        }
        let duration = self.duration.as_deref();
        Ok(Plan {
            satellites: self.satellites as usize,
            prefix: self.prefix,
            flaps_per_minute: self.flap,
            silence: units::duration("--silence", &self.silence)?,
            heartbeat_interval: units::duration("--heartbeat-interval", &self.heartbeat_interval)?,
            connects_per_second: self.ramp,
            connects_at_once: self.at_once as usize,
            from: self.from,
            duration: duration.map(|text| units::duration("--duration", text)).transpose()?,
            keep: self.keep,
            seed: self.seed.unwrap_or_else(|| fastrand::u64(..)),
        })
    }
}

async fn run_simulation(args: SimulateArgs) -> anyhow::Result<()> {
    let target = args.api.target()?;
    let (client, websocket) = (target.client()?, target.websocket());
    let json = args.json;
    let plan = args.plan().map_err(wrong_usage)?;
    let stop = CancellationToken::new();
    let interrupted = shutdown::signal()?;
    let stopper = stop.clone();
    tokio::spawn(async move {
        interrupted.await;
        stopper.cancel();
    });
    let summary = simulate::run(client, websocket, plan, stop).await?;
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    if json {
        print_line!("{}", serde_json::to_string(&summary)?);
    } else {
        print_line!("{summary}");
    }
    Ok(())
}

async fn run_watch(args: WatchArgs) -> anyhow::Result<()> {
    let address = args.nats.required().map_err(wrong_usage)?;
    let triggers = watch::triggers(address.connect("groundstation watch").await?).await?;
    let mut triggers = std::pin::pin!(triggers);
    let mut interrupted = std::pin::pin!(shutdown::signal()?);
    eprintln!("watching; Ctrl-C ends");
    loop {
        let seen = tokio::select! {
            seen = triggers.next() => seen.context("the subscription ended")?,
            () = &mut interrupted => return Ok(()),
        };
        let line = match seen {
            Ok(seen) if args.json => output::escaped(&serde_json::to_string(&seen)?),
            Ok(seen) => seen.line(true),
            // The ordered consumer makes itself anew and continues where it was.
            Err(error) => {
                tracing::warn!(%error, "watching again");
                continue;
            }
        };
        if let Err(error) = writeln!(anstream::stdout(), "{line}") {
            // The reader of the output has seen enough, as in `watch | head`.
            return match error.kind() {
                std::io::ErrorKind::BrokenPipe => Ok(()),
                _ => Err(error).context("cannot write"),
            };
        }
    }
}

async fn run_rebuild(args: RebuildArgs) -> anyhow::Result<()> {
    let address = args.database.required().map_err(wrong_usage)?;
    let database = address.pool("rebuild")?;
    migrations::check(&database, &address).await?;
    let terminal = std::io::stderr().is_terminal();
    let progress = |position: Position| {
        let (begin, end) = if terminal { ("\r\x1b[2K", "") } else { ("", "\n") };
        eprint!("{begin}folded up to position {}{end}", position.0);
    };
    let findings = if args.check {
        rebuild::check(&database, progress).await?
    } else {
        rebuild::rebuild(&database, progress).await?
    };
    if terminal {
        eprintln!();
    }
    for difference in &findings.named {
        print_line!("{difference}");
    }
    let (rows, position, differing) = (findings.rows, findings.position.0, findings.differing);
    print_line!("{rows} rows from {position} transitions; {differing} differed");
    match (args.check, differing) {
        (true, 1..) => {
            bail!("the rows do not follow from the log: `groundstation rebuild` mends them")
        }
        _ => Ok(()),
    }
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}
