//! The progress line of a long command: one line that is overwritten on a terminal, a plain line
//! now and then elsewhere. Always on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// The pause between two lines, on a terminal and elsewhere.
const TERMINAL_PAUSE: Duration = Duration::from_millis(200);
const PLAIN_PAUSE: Duration = Duration::from_secs(5);

pub struct Progress {
    terminal: bool,
    told: Instant,
    /// Whether the terminal's line has text on it.
    open: bool,
}

impl Progress {
    /// For a command that starts now.
    pub fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), told: Instant::now(), open: false }
    }

    /// For a command that writes its own lines to a terminal: there they are the progress.
    pub fn beside_standard_output() -> Progress {
        let terminal = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
        Progress { terminal, ..Progress::new() }
    }

    /// Writes a line if the last one is old enough.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let pause = if self.terminal { TERMINAL_PAUSE } else { PLAIN_PAUSE };
        if self.told.elapsed() < pause {
            return;
        }
        self.told = Instant::now();
        if self.terminal {
            self.open = true;
            eprint!("\r\x1b[2K{}", line());
            // A terminal that cannot be written to is no reason to stop.
            std::io::stderr().flush().ok();
        } else {
            eprintln!("{}", line());
        }
    }

    /// Clears the line for other output.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.open) {
            eprint!("\r\x1b[2K");
        }
    }
}

impl Default for Progress {
    fn default() -> Progress {
        Progress::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
