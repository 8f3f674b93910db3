//! Asks before something is lost, where there is somebody to ask.

use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use clap::Args;

use crate::clients::printable::printable;

/// The option that answers beforehand.
#[derive(Args)]
pub struct YesArgs {
    /// Do not ask, on a terminal either
    #[arg(long, short)]
    yes: bool,
}

impl YesArgs {
    /// Asks at a terminal whether to do this; a script that calls the command has decided. Fails unless it is to be done.
    pub fn confirm(&self, what: &str) -> anyhow::Result<()> {
        if self.yes || !std::io::stdin().is_terminal() {
            return Ok(());
        }
        // Not to the output, which may be a file.
        eprint!("{}? [y/N] ", printable(what));
        std::io::stderr().flush().context("cannot ask")?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("cannot read the answer")?;
        match answer.trim().to_ascii_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => bail!("nothing was changed"),
        }
    }
}
