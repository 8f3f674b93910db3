//! `groundstation retention`: archive and drop what is old, now.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use super::exit::wrong_usage;
use super::output::print_line;
use crate::contract::wire::Timestamp;
use crate::log::partitions::Partition;
use crate::log::retention::{Retention, Run, Step, range};
use crate::platform::migrations;
use crate::platform::progress::Progress;
use crate::platform::units;
use crate::pod::config::DatabaseArgs;

const AFTER_HELP: &str = "\
The log is kept in partitions of a million transitions. One is dropped when all of it is older than
the span and published, and the oldest goes first; the one with the newest transition always stays.
What each satellite's dropped transitions came to is kept. It may run at any time and anywhere.";

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
pub struct RetentionArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    /// How much of the log is to be kept, such as 90d or 2years; at least 1h
    #[arg(long, value_name = "SPAN")]
    older_than: String,
    /// The folder for the archives, gzip-compressed JSON lines [default: none, what is dropped is
    /// gone]
    #[arg(long, env = "GROUNDSTATION_ARCHIVE_DIR", value_name = "DIR")]
    archive: Option<PathBuf>,
    /// Only say what would be dropped, and what stays
    #[arg(long)]
    dry_run: bool,
}

/// Runs `groundstation retention …`.
pub async fn run(args: RetentionArgs) -> anyhow::Result<()> {
    let older_than = units::span("--older-than", &args.older_than).map_err(wrong_usage)?;
    let address = args.database.required().map_err(wrong_usage)?;
    let database = address.pool("retention")?;
    migrations::check(&database, &address).await?;
    let archive = args.archive.filter(|folder| !folder.as_os_str().is_empty());
    let retention = Retention { database, older_than, archive };
    if args.dry_run {
        for partition in retention.outlook().await? {
            match stays(&partition) {
                Some(stays) => print_line!("{stays}"),
                None => print_line!("positions {} would be dropped", described(&partition)),
            }
        }
        return Ok(());
    }
    let mut progress = Progress::new();
    let run = retention.run(|step| match step {
        Step::Archiving { partition, through } => progress.tell(|| {
            format!("archiving positions {}: at position {}", range(&partition), through.0)
        }),
        Step::Dropped { partition, archive } => {
            progress.clear();
            let archived =
                archive.map_or(String::new(), |file| format!(", archived in {}", file.display()));
            print_line!("positions {} dropped{archived}", described(&partition));
        }
    });
    match run.await? {
        Run::SomebodyElse => bail!("another retention is under way: let it finish"),
        Run::Done { dropped: 0, oldest } => {
            print_line!("nothing to drop: {}", oldest.as_ref().and_then(stays).unwrap_or_default());
        }
        Run::Done { oldest, .. } => {
            print_line!("{}", oldest.as_ref().and_then(stays).unwrap_or_default());
        }
    }
    Ok(())
}

fn stays(partition: &Partition) -> Option<String> {
    let obstacle = partition.obstacle.as_ref()?;
    Some(format!("positions {} stay: {obstacle}", described(partition)))
}

fn described(partition: &Partition) -> String {
    match partition.last_recorded_at {
        Some(at) => format!("{} (the last one of {})", range(partition), Timestamp::new(at)),
        None => range(partition),
    }
}
