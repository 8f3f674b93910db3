//! How a long command tells how far it is: one line that is written over on a terminal, a plain
//! line now and then elsewhere. Always on standard error.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often, on a terminal and elsewhere.
const TERMINAL_PAUSE: Duration = Duration::from_millis(200);
const PLAIN_PAUSE: Duration = Duration::from_secs(5);

pub struct Progress {
    terminal: bool,
    told: Instant,
    /// The terminal's line has something on it.
    open: bool,
}

impl Progress {
    /// For a command that starts now.
    pub fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), told: Instant::now(), open: false }
    }

    /// For a command whose own lines go to a terminal: there they are the progress.
    pub fn beside_standard_output() -> Progress {
        let terminal = std::io::stderr().is_terminal() && !std::io::stdout().is_terminal();
        Progress { terminal, ..Progress::new() }
    }

    /// Tells, if the last time is long enough ago.
    pub fn tell(&mut self, line: impl FnOnce() -> String) {
        let pause = if self.terminal { TERMINAL_PAUSE } else { PLAIN_PAUSE };
        if self.told.elapsed() < pause {
            return;
        }
        self.told = Instant::now();
        if self.terminal {
            self.open = true;
            eprint!("\r\x1b[2K{}", line());
            // A terminal that cannot be written is no reason to stop.
            std::io::stderr().flush().ok();
        } else {
            eprintln!("{}", line());
        }
    }

    /// Clears the line, for what is written next.
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
