//! One server process that never outlives this one.
//!
//! It owns the child process and its *lifeline*, a pipe. The program is started through `/bin/sh`,
//! which leaves a *guard* behind and then becomes the program, so that the child's process id is
//! the server's own. The guard reads the pipe. The pipe closes when the handle is stopped or
//! dropped, or when this process dies in any way. Then the guard sends the server its stop signals,
//! the last of them `KILL`. The server has its own process group: a Ctrl-C in the terminal reaches
//! only this program, which then stops the server in order.
//!
//! It leaves no process running, and knows nothing of Postgres or NATS.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::staging::Account;

/// Starts the program named by its arguments, after leaving the guard behind.
///
/// The guard is a grandchild, so that the server never has an unknown child. A line on the pipe
/// tells the guard that the server is gone already and that its process id may belong to another
/// program. The guard ignores signals: when this process dies while the server is suspended, the
/// kernel sends the orphaned group a HUP. A suspended server is woken, so that it can stop in
/// order.
const GUARD: &str = r#"
signals=$1; shift
( {
    trap '' HUP INT QUIT TERM
    if ! read -r gone; then
        for signal in $signals; do
            kill -s "$signal" $$ || exit 0
            kill -s CONT $$
            tenths=50
            while [ $tenths -gt 0 ]; do
                sleep 0.1 || sleep 1
                kill -0 $$ || exit 0
                tenths=$((tenths - 1))
            done
        done
    fi
} <&3 >/dev/null 2>&1 & ) 3<&0
exec "$@" </dev/null
"#;

/// Longer than the guard takes for three signals.
const STOP_LIMIT: Duration = Duration::from_secs(17);
/// How long a server of an earlier run may take to end.
const PREDECESSOR_LIMIT: Duration = Duration::from_secs(16);
const POLL: Duration = Duration::from_millis(20);
/// How many of the log's last lines are shown when a start fails.
const TAIL_LINES: usize = 12;

/// How to start a server.
#[derive(Clone, Debug)]
pub(super) struct Launch {
    /// The server's name in messages.
    pub name: &'static str,
    pub program: PathBuf,
    pub arguments: Vec<OsString>,
    /// Variables on top of this process' own.
    pub environment: Vec<(String, String)>,
    /// The account to run as, if not this process' own. Only root can choose one.
    pub account: Option<Account>,
    /// The signals to stop it with, the gentlest first, with five seconds after each.
    pub signals: &'static str,
    /// The file to which its output is appended.
    pub log: PathBuf,
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Supervised {
    launch: Launch,
    child: Child,
    lifeline: Option<ChildStdin>,
    /// Where this run's part of the log begins.
    log_start: u64,
}

impl Supervised {
    pub fn start(launch: Launch) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&launch.log);
        let log = log.with_context(|| format!("cannot write {}", launch.log.display()))?;
        let log_start = log.metadata()?.len();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARD, "groundstation-guard", launch.signals]);
        command.arg(&launch.program).args(&launch.arguments);
        command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
        command.env("LC_ALL", "C").current_dir("/").process_group(0);
        if let Some(account) = launch.account {
            account.apply(&mut command);
        }
        let mut child = command.spawn().context("cannot run /bin/sh")?;
        let lifeline = child.stdin.take();
        Ok(Self { launch, child, lifeline, log_start })
    }

    /// The server's own process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks `ready` until it answers. Fails when the server exits first or takes too long.
    pub fn wait_until<T>(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut(u32) -> Option<T>,
    ) -> Result<T, StartError> {
        let begun = Instant::now();
        loop {
            if let Some(answer) = ready(self.pid()) {
                return Ok(answer);
            }
            let why = match self.child.try_wait() {
                Ok(Some(status)) => format!("ended at once ({status})"),
                _ if begun.elapsed() > limit => format!("was not ready after {limit:?}"),
                _ => {
                    thread::sleep(POLL);
                    continue;
                }
            };
            return Err(StartError { name: self.launch.name, why, log: self.log_tail() });
        }
    }

    /// Stops the server in order, then by force; returns when it is gone.
    pub fn stop(&mut self) {
        match self.lifeline.take() {
            Some(mut lifeline) if self.has_exited() => {
                // This fails only if the guard is gone as well.
                lifeline.write_all(b"gone\n").ok();
            }
            // Closing the lifeline starts the guard's work.
            lifeline => drop(lifeline),
        }
        let begun = Instant::now();
        while !self.has_exited() && begun.elapsed() < STOP_LIMIT {
            thread::sleep(POLL);
        }
        self.kill();
    }

    /// Kills the server as a crash would.
    pub fn kill(&mut self) {
        // Both fail only if the process has ended.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }

    fn has_exited(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    fn log_tail(&self) -> String {
        let read = || -> io::Result<String> {
            let mut log = File::open(&self.launch.log)?;
            log.seek(SeekFrom::Start(self.log_start))?;
            let mut text = Vec::new();
            log.read_to_end(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        };
        let text = read().unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ")
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Why a server did not start, with the end of its log.
#[derive(Debug)]
pub(super) struct StartError {
    name: &'static str,
    why: String,
    pub log: String,
}

impl std::error::Error for StartError {}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}; its log ends in:\n  {}", self.name, self.why, self.log)
    }
}

/// Waits until the server that wrote `pid_file` in an earlier run is gone, and removes the file.
///
/// A process id in a file says little: after a reboot it may belong to any process. It counts only
/// while that process still runs `program`.
pub(super) fn await_predecessor(pid_file: &Path, program: &str) -> Result<()> {
    let begun = Instant::now();
    while let Some(pid) = first_number(pid_file) {
        if !runs(pid, program) {
            break;
        }
        if begun.elapsed() > PREDECESSOR_LIMIT {
            bail!("{} is in use by process {pid}", pid_file.with_file_name("").display());
        }
        thread::sleep(POLL);
    }
    match fs::remove_file(pid_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", pid_file.display()))
        }
        _ => Ok(()),
    }
}

fn first_number(file: &Path) -> Option<u32> {
    fs::read_to_string(file).ok()?.lines().next()?.trim().parse().ok()
}

/// Whether the process exists, is no zombie, and runs a program of this name.
fn runs(pid: u32, program: &str) -> bool {
    let proc = Path::new("/proc/self/stat").exists();
    let line = if proc {
        fs::read_to_string(format!("/proc/{pid}/stat")).ok().and_then(|stat| {
            let (before, after) = stat.rsplit_once(')')?;
            Some(format!("{} {}", after.trim_start(), before.split_once('(')?.1))
        })
    } else {
        let ps = Command::new("ps").args(["-o", "stat=,comm=", "-p", &pid.to_string()]).output();
        ps.ok().map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    // Linux keeps 15 bytes of a program's name.
    let name = program.get(..15).unwrap_or(program);
    line.is_some_and(|line| !line.trim_start().starts_with('Z') && line.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_program() {
        assert!(!runs(std::process::id(), "postgres"));
        assert!(!runs(u32::MAX, "postgres"));
    }
}
