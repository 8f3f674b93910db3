//! A command of the program that runs until it is told to end, and its output.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::lines::Lines;
use super::program;
use super::wait::{PATIENCE, eventually, within};

/// Dropping it kills the command.
pub struct Running {
    child: Child,
    out: Lines,
    err: Lines,
}

impl Running {
    /// Starts a command in a folder.
    pub fn start(arguments: &[&str], environment: &[(String, String)], folder: &Path) -> Running {
        let mut command = program::command(environment);
        command.args(arguments).current_dir(folder);
        Running::of(command)
    }

    /// Starts any program.
    pub fn of(mut command: Command) -> Running {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let out = Lines::of(child.stdout.take().expect("piped"));
        let err = Lines::of(child.stderr.take().expect("piped"));
        Running { child, out, err }
    }

    /// Waits for a line on standard output that contains this; returns it.
    pub async fn prints(&self, text: &str) -> String {
        eventually(&format!("{text:?} on standard output"), async || {
            self.out.find(text).ok_or_else(|| self.everything())
        })
        .await
    }

    /// Waits for a line on standard error that contains this; returns it.
    pub async fn says(&self, text: &str) -> String {
        eventually(&format!("{text:?} on standard error"), async || {
            self.err.find(text).ok_or_else(|| self.everything())
        })
        .await
    }

    /// All output so far, for messages of failed tests.
    pub fn everything(&self) -> String {
        let (out, err) = (self.out.all().join("\n"), self.err.all().join("\n"));
        format!("{out}\n--- standard error:\n{err}")
    }

    /// Sends the signal of Ctrl-C, without a terminal.
    pub fn interrupt(&self) {
        let kill = std::process::Command::new("kill")
            .args(["-s", "INT", &self.child.id().to_string()])
            .status();
        assert!(kill.expect("kill runs").success());
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it has ended");
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, once it has ended and all its output was read.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        let ended = self.child.try_wait().expect("the program is a child");
        ended.filter(|_| self.out.are_complete() && self.err.are_complete())
    }

    /// Waits until the command has ended by itself and all its output was read.
    pub async fn ends(&mut self) -> ExitStatus {
        within(3 * PATIENCE, "the command to end", async || {
            self.has_ended().ok_or_else(|| "it runs".to_owned())
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // This fails only if the command has ended.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
