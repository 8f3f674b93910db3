//! `groundstation audit`: compares the stream with the log, or the log with its seals; [`list`] prints the audit.

use std::io::{BufRead, IsTerminal, Write};

use anyhow::{Context, anyhow, bail};
use async_nats::jetstream;
use clap::{Args, Subcommand};

use super::exit::wrong_usage;
use super::output::print_line;
use crate::domain::cell::Cell;
use crate::log::seal::audit::AUDIT;
use crate::log::seal::chain;
use crate::log::seal::history::{Break, History};
use crate::log::seal::registry::REGISTRY;
use crate::platform::database::Database;
use crate::platform::logging;
use crate::platform::migrations;
use crate::platform::units;
use crate::pod::config::{CellArgs, DatabaseArgs, NatsArgs, ReplicasArgs};
use crate::stream::audit::repair::{Rebuilt, Repair};
use crate::stream::audit::{Audit, Summary};
use crate::stream::message::Epoch;
use crate::stream::tail::NAME;

mod list;

/// Faults that are printed; further ones are only counted.
const MAX_PRINTED: u64 = 1_000;

#[derive(Args)]
#[command(
    after_help = "Exits with 0 only if everything agrees. Runs while pods run.",
    args_conflicts_with_subcommands = true
)]
pub struct AuditArgs {
    #[command(subcommand)]
    command: Option<AuditCommand>,

    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    nats: NatsArgs,

    #[command(flatten)]
    replicas: ReplicasArgs,

    #[command(flatten)]
    cell: CellArgs,

    /// How long to wait for the stream to reach the log's head before the rest counts as missing
    #[arg(long, default_value = "10s", value_name = "DURATION")]
    wait: String,

    /// If log and stream differ, rebuild the stream from the log under a new epoch
    #[arg(long)]
    repair: bool,

    /// Rebuild even if they agree: after both were restored to an earlier point, positions that
    /// consumers know are given out again, which only a new epoch tells them. With a number, where
    /// consumers have seen epochs that the backups know nothing of: that one at least
    #[arg(long, requires = "repair", num_args = 0..=1, default_missing_value = "0",
          value_parser = clap::value_parser!(i64).range(0..=1_000_000_000), value_name = "NUMBER")]
    new_epoch: Option<i64>,

    /// Do not ask before a repair
    #[arg(long, requires = "repair")]
    yes: bool,

    /// Instead check the log, the registry's history and the audit against their seals: finds rows that were changed,
    /// dropped or swapped
    #[arg(long, conflicts_with = "repair")]
    chain: bool,
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Print who changed what, who signed in and who was refused, and follow it as it grows; over a pod's HTTP API
    List(list::ListArgs),
}

/// Runs `groundstation audit`.
pub fn run(mut args: AuditArgs) -> anyhow::Result<()> {
    if let Some(AuditCommand::List(args)) = args.command.take() {
        return list::run(args);
    }
    logging::start("warn").map_err(wrong_usage)?;
    super::block_on(check(args))
}

async fn check(args: AuditArgs) -> anyhow::Result<()> {
    let address = args.database.required().map_err(wrong_usage)?;
    let wait = units::duration("--wait", &args.wait).map_err(wrong_usage)?;
    let replicas = args.replicas.replicas().map_err(wrong_usage)?;
    let cell = args.cell.cell().map_err(wrong_usage)?;
    let name = format!("audit-{}", std::process::id());
    let database = address.pool(&name)?;
    migrations::check(&database, &address).await?;
    if args.chain {
        return check_chain(&database).await;
    }
    let nats = args.nats.required().map_err(wrong_usage)?;
    let nats = nats.connect(&format!("groundstation {name}")).await?;
    let audit = Audit { database: database.clone(), jetstream: jetstream::new(nats.clone()), wait };
    let summary = compare(&audit).await?;
    if summary.agrees() && args.new_epoch.is_none() {
        return Ok(());
    }
    if !args.repair {
        bail!("log and stream differ; `groundstation audit --repair` rebuilds the stream");
    }
    refuse_another_cell(summary.counts.cell.as_ref(), cell.as_ref()).map_err(wrong_usage)?;
    confirm(&args)?;
    let holder = format!("{name}-{}", gethostname::gethostname().to_string_lossy());
    let at_least = Epoch(args.new_epoch.unwrap_or(0));
    let jetstream = audit.jetstream.clone();
    let repair = Repair { database, nats, jetstream, replicas, cell, holder, at_least };
    let rebuilt = repair.run(|line| eprintln!("{line}")).await?;
    let after = compare(&audit).await?;
    print_line!("{}", advice(&summary, &rebuilt, args.new_epoch.is_some()));
    if !after.agrees() {
        bail!("log and stream still differ");
    }
    Ok(())
}

/// Prints every fault and the summary.
async fn compare(audit: &Audit) -> anyhow::Result<Summary> {
    let mut printed = Printed::default();
    let is_terminal = std::io::stderr().is_terminal();
    let progress = |done: u64, all: u64| {
        if is_terminal {
            eprint!("\r{done} of {all} messages");
        }
    };
    let summary = audit.run(|finding| printed.line(&finding.to_string()), progress).await?;
    if is_terminal {
        eprint!("\r\x1b[K");
    }
    printed.rest();
    print_line!("{}", describe(&summary));
    Ok(summary)
}

fn describe(summary: &Summary) -> String {
    let counts = &summary.counts;
    let mut lines = vec![format!("log     positions {} to {}", summary.begin.0, summary.head.0)];
    lines.push(match summary.stream {
        Some((first, last)) => {
            format!("stream  sequences {first} to {last}, epoch {}", summary.epoch.0)
        }
        None => format!("stream  there is no stream {NAME}"),
    });
    if let Some(cell) = &counts.cell {
        lines.push(format!("cell    {cell}"));
    }
    if let Some(position) = counts.begins_at {
        let text = "the stream's limits removed what was before";
        lines.push(format!("the stream begins at position {}: {text}", position.0));
    }
    if counts.older > 0 {
        lines.push(format!("{} messages are older than the log", counts.older));
    }
    if counts.foreign > 0 {
        let text = "somebody else's messages were passed over";
        lines.push(format!("{} of {text}", counts.foreign));
    }
    if summary.agrees() {
        lines.push(format!("log and stream agree on {} transitions", counts.compared));
    } else {
        lines.push(format!(
            "{} missing, {} extra, {} different, {} misplaced",
            counts.missing, counts.extra, counts.different, counts.misplaced
        ));
        if !summary.is_led {
            lines.push("no pod relays: is one running?".to_owned());
        }
    }
    lines.join("\n")
}

/// What operators of consumers have to do after a repair. With `demanded` the repair was run although log and stream
/// may have agreed.
fn advice(before: &Summary, rebuilt: &Rebuilt, demanded: bool) -> String {
    let Rebuilt { epoch, first, last, .. } = rebuilt;
    let mut text = format!(
        "The stream was rebuilt under epoch {epoch}: positions {} to {} were published again, after \
         the old sequences.\n\
         Consumers stay, durable ones too, and receive every one of these again, each with the header \
         Groundstation-Epoch: {epoch}.\n\
         Seeing an epoch for the first time, a consumer goes on skipping Groundstation-Position up to \
         the last one it has processed.",
        first.0,
        last.0,
        epoch = epoch.0,
    );
    let unlike = before.counts.extra + before.counts.different;
    if unlike > 0 {
        let said = "messages were on the stream and are not what the log says.";
        text.push_str(&format!("\n{unlike} {said}"));
    }
    if unlike > 0 || demanded {
        text.push_str(&format!(
            "\nIf the database was restored to an earlier point (to position {} at most), positions after \
             that point name other transitions from now on: a consumer that was ahead of it starts again \
             from that point, not from its own last position.",
            last.0
        ));
    }
    text
}

/// Consumers would take messages without the cell's name, or with another one, for those of another log, and handle all
/// of them again.
fn refuse_another_cell(there: Option<&Cell>, ours: Option<&Cell>) -> anyhow::Result<()> {
    let Some(there) = there.filter(|there| Some(*there) != ours) else { return Ok(()) };
    let ours = ours.map_or("no cell", Cell::as_str);
    bail!(
        "the stream's messages are of cell {there}, and a repair would publish them as of {ours}: \
         set GROUNDSTATION_CELL as the pods have it"
    )
}

fn confirm(args: &AuditArgs) -> anyhow::Result<()> {
    if args.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        let why = "--repair asks before it begins, and there is no terminal to ask at: pass --yes";
        return Err(wrong_usage(anyhow!(why)));
    }
    print_line!(
        "This purges the stream {NAME} (somebody else's messages too) and publishes the whole log \
         again under a new epoch.\nEvery consumer receives every transition again."
    );
    print!("Type `repair` to begin: ");
    std::io::stdout().flush().context("cannot write")?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read the answer")?;
    if line.trim() != "repair" {
        bail!("nothing was changed");
    }
    Ok(())
}

async fn check_chain(database: &Database) -> anyhow::Result<()> {
    let mut printed = Printed::default();
    let checked = chain::check(database, |broken| printed.line(&broken.to_string())).await?;
    let mut check = async |history: &History| {
        let tell = |broken: Break| printed.line(&history.describe(broken));
        history.check(database, tell).await
    };
    let (registry, audit) = (check(&REGISTRY).await?, check(&AUDIT).await?);
    printed.rest();
    if checked.believed > 0 {
        print_line!(
            "{} seals cover rows that retention dropped: the chain is checked from the first seal \
             after them, whose memory of the one before is believed",
            checked.believed
        );
    }
    match checked.newest {
        Some((last, hash)) => {
            // Pods go on sealing while the chain is read.
            let open = (checked.head.0 - last.0).max(0);
            print_line!("sealed up to position {}, newest hash {hash}", last.0);
            print_line!(
                "{} transitions under {} seals, {open} not sealed yet",
                checked.transitions,
                checked.seals
            );
        }
        None => print_line!("nothing is sealed yet"),
    }
    if let Some(hash) = registry.newest {
        print_line!(
            "{} changes of the registry under {} seals, {} not sealed yet, newest hash {hash}",
            registry.rows,
            registry.seals,
            registry.unsealed
        );
    }
    if let Some(hash) = audit.newest {
        print_line!(
            "{} entries of the audit under {} seals, {} not sealed yet, newest hash {hash}",
            audit.rows,
            audit.seals,
            audit.unsealed
        );
    }
    if audit.dropped > 0 {
        print_line!("entries of the audit up to {} were dropped by retention", audit.dropped);
    }
    match checked.breaks + registry.breaks + audit.breaks {
        0 => Ok(()),
        1 => bail!("the chain of seals is broken in one place"),
        breaks => bail!("the chain of seals is broken in {breaks} places"),
    }
}

/// Counts the lines printed so far, up to a bound.
#[derive(Default)]
struct Printed(u64);

impl Printed {
    fn line(&mut self, line: &str) {
        self.0 += 1;
        if self.0 <= MAX_PRINTED {
            print_line!("{line}");
        }
    }

    fn rest(&self) {
        if self.0 > MAX_PRINTED {
            print_line!("… and {} more", self.0 - MAX_PRINTED);
        }
    }
}
