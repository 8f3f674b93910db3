//! The command line: which command, with what, and how it ended.
//!
//! Every command exits non-zero with one clear line on failure. What people came for goes to
//! standard output, log lines go to standard error.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::{MigrateArgs, ServeArgs};
use crate::{logging, pod, schema};

#[derive(Parser)]
#[command(name = "groundstation", version, about, max_term_width = 100)]
#[command(after_help = "Try `groundstation dev`: private stores, one pod and a dozen satellites.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one pod: the satellites' WebSocket, the log, the relay, the HTTP API
    Serve(Box<ServeArgs>),
    /// Bring the database's schema to the version this binary needs
    Migrate(MigrateArgs),
}

/// Parses the arguments, runs the command, and turns its outcome into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("groundstation: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => {
            logging::start("info")?;
            let config = args.check()?;
            block_on(async {
                let shutdown = shutdown_signal()?;
                pod::run(config, shutdown, |_| {}).await
            })
        }
        Command::Migrate(args) => migrate(&args),
    }
}

/// Blocking, before any runtime starts.
fn migrate(args: &MigrateArgs) -> anyhow::Result<()> {
    let migrated = schema::migrate(&args.address()?)?;
    for migration in &migrated.applied {
        println!("applied {migration}");
    }
    println!("the schema is at version {}", migrated.version);
    Ok(())
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}

/// Resolves on SIGINT (Ctrl-C) or SIGTERM.
fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
