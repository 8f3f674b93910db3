//! Asks before something ends.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::{Context, bail};

/// Asks on a terminal, unless told not to. Where nobody is to be asked, it was meant as it was written. What is asked is
/// no output of the command.
pub(super) fn confirm(yes: bool, question: &str) -> anyhow::Result<()> {
    if yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    eprint!("{question} [y/N] ");
    io::stderr().flush().context("cannot write")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    if !["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        bail!("nothing was changed");
    }
    Ok(())
}
