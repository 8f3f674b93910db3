//! A command of the program that runs until it is told to end, and what it prints meanwhile.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use super::program;
use super::wait::{PATIENCE, eventually, within};

/// See the module; dropping it kills it.
pub struct Running {
    child: Child,
    out: Lines,
    err: Lines,
}

type Lines = Arc<Mutex<Vec<String>>>;

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
        let out = collect(child.stdout.take().expect("piped"));
        let err = collect(child.stderr.take().expect("piped"));
        Running { child, out, err }
    }

    /// Waits for a line on standard output that contains this; returns it.
    pub async fn prints(&self, text: &str) -> String {
        eventually(&format!("{text:?} on standard output"), async || {
            find(&self.out, text).ok_or_else(|| self.everything())
        })
        .await
    }

    /// Waits for a line on standard error that contains this; returns it.
    pub async fn says(&self, text: &str) -> String {
        eventually(&format!("{text:?} on standard error"), async || {
            find(&self.err, text).ok_or_else(|| self.everything())
        })
        .await
    }

    /// All it printed, for people.
    pub fn everything(&self) -> String {
        let lines = |lines: &Lines| lines.lock().expect("lines").join("\n");
        format!("{}\n--- standard error:\n{}", lines(&self.out), lines(&self.err))
    }

    /// Ctrl-C, without a terminal.
    pub fn interrupt(&self) {
        let kill = std::process::Command::new("kill")
            .args(["-s", "INT", &self.child.id().to_string()])
            .status();
        assert!(kill.expect("kill runs").success());
    }

    /// Waits until it has ended by itself.
    pub async fn ends(&mut self) -> ExitStatus {
        let Running { child, .. } = self;
        within(3 * PATIENCE, "the command to end", async || {
            let ended = child.try_wait().expect("the program is a child");
            ended.ok_or_else(|| "it runs".to_owned())
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails only if it has ended.
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

fn find(lines: &Lines, text: &str) -> Option<String> {
    lines.lock().expect("lines").iter().find(|line| line.contains(text)).cloned()
}

fn collect(pipe: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let collected = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            collected.lock().expect("lines").push(line);
        }
    });
    lines
}
