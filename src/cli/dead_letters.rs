//! `groundstation forward dead-letters`: what was given up, listed, sent again, dropped.

use std::sync::Arc;

use anyhow::bail;
use async_nats::jetstream;
use clap::{Args, Subcommand};

use super::confirm::YesArgs;
use super::exit::{NotThere, wrong_usage};
use super::output::{OutputArgs, Shown, print_line};
use super::receiver::{OwnArgs, ReceiverArgs};
use super::table;
use crate::forward::dead_letters::{self, DeadLetter, DeadLetters};
use crate::forward::receiver::Receiver;

#[derive(Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    command: DeadLettersCommand,
}

#[derive(Subcommand)]
enum DeadLettersCommand {
    /// List them, oldest first
    List(ListArgs),
    /// Send some again, oldest first; what is taken is removed, and the first that is not ends it
    Send(SendArgs),
    /// Drop some: they are never delivered
    Drop(DropArgs),
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    own: OwnArgs,

    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args)]
struct SendArgs {
    #[command(flatten)]
    own: OwnArgs,

    #[command(flatten)]
    receiver: ReceiverArgs,

    #[command(flatten)]
    which: WhichArgs,
}

#[derive(Args)]
struct DropArgs {
    #[command(flatten)]
    own: OwnArgs,

    #[command(flatten)]
    which: WhichArgs,

    #[command(flatten)]
    yes: YesArgs,
}

/// Which ones.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct WhichArgs {
    /// Their numbers, as `list` shows them
    #[arg(value_name = "NUMBER")]
    numbers: Vec<u64>,

    /// All of this forwarder
    #[arg(long)]
    all: bool,
}

/// Runs `groundstation forward dead-letters …`.
pub async fn run(args: DeadLettersArgs) -> anyhow::Result<()> {
    match args.command {
        DeadLettersCommand::List(args) => list(args).await,
        DeadLettersCommand::Send(args) => send(args).await,
        DeadLettersCommand::Drop(args) => drop_some(args).await,
    }
}

async fn open(own: &OwnArgs) -> anyhow::Result<Option<DeadLetters>> {
    let name = own.name().map_err(wrong_usage)?;
    let jetstream = jetstream::new(own.connect().await?);
    DeadLetters::find(&jetstream, &name).await
}

async fn list(args: ListArgs) -> anyhow::Result<()> {
    let letters = match open(&args.own).await? {
        Some(letters) => letters.all().await?,
        None => Vec::new(),
    };
    let shown: Vec<dead_letters::Shown> = letters.into_iter().map(|letter| letter.shown).collect();
    let row = |letter: &dead_letters::Shown| {
        [
            letter.number.to_string(),
            letter.name.clone().unwrap_or_else(|| letter.satellite.clone()),
            letter.trigger.clone(),
            letter.position.to_string(),
            letter.occurred_at.to_string(),
            letter.attempts.to_string(),
            letter.reason.clone(),
        ]
    };
    let rows: Vec<_> = shown.iter().map(row).collect();
    let head = ["NUMBER", "SATELLITE", "TRIGGER", "POSITION", "OCCURRED", "ATTEMPTS", "REASON"];
    let table = |_| table::render(head, &rows, &[]);
    let names = || shown.iter().map(|letter| letter.number.to_string()).collect();
    args.output.print(&shown, Shown { table: &table, names: &names })
}

impl WhichArgs {
    /// They, oldest first; an error if one is not there.
    async fn of(&self, letters: &DeadLetters) -> anyhow::Result<Vec<DeadLetter>> {
        if self.all {
            return letters.all().await;
        }
        let mut numbers = self.numbers.clone();
        numbers.sort_unstable();
        numbers.dedup();
        let mut some = Vec::new();
        for number in numbers {
            let letter = letters.get(number).await?;
            some.push(letter.ok_or_else(|| NotThere(format!("there is no dead letter {number}")))?);
        }
        Ok(some)
    }
}

async fn opened(own: &OwnArgs) -> anyhow::Result<DeadLetters> {
    open(own).await?.ok_or_else(|| NotThere("there are no dead letters".to_owned()).into())
}

async fn send(args: SendArgs) -> anyhow::Result<()> {
    let settings = args.receiver.settings(1).map_err(wrong_usage)?;
    let secrets = args.receiver.signing().map_err(wrong_usage)?.secrets();
    let receiver = Arc::new(Receiver::new(&settings));
    let letters = opened(&args.own).await?;
    for letter in args.which.of(&letters).await? {
        let (number, change) = (letter.number, letter.shown.change_id);
        let (receiver, secrets) = (receiver.clone(), secrets.clone());
        let sent = tokio::task::spawn_blocking(move || receiver.send(&letter.event, &secrets));
        match sent.await? {
            Ok(()) => {
                letters.remove(number).await?;
                print_line!("delivered {number} ({change})");
            }
            Err(failure) => bail!("dead letter {number} stays: {failure}"),
        }
    }
    Ok(())
}

async fn drop_some(args: DropArgs) -> anyhow::Result<()> {
    let letters = opened(&args.own).await?;
    let some = args.which.of(&letters).await?;
    args.yes
        .confirm(&format!("drop {} dead letters, which are then never delivered", some.len()))?;
    for letter in some {
        letters.remove(letter.number).await?;
        print_line!("dropped {} ({})", letter.number, letter.shown.change_id);
    }
    Ok(())
}
