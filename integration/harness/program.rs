//! The program under test, as a process.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wait::blocking;

/// How long a command that must end may run.
const LIMIT: Duration = Duration::from_secs(60);

/// The program with only the given environment, and nothing of this process' own.
pub fn command<S: AsRef<OsStr>>(environment: &[(S, S)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_groundstation"));
    command.env_clear().stdin(Stdio::null());
    command.envs(environment.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
    command
}

/// Runs a command to its end; kills it and panics if it does not end. Blocking.
pub fn run<S: AsRef<OsStr>>(arguments: &[&str], environment: &[(S, S)]) -> Output {
    run_within(LIMIT, arguments, environment)
}

fn run_within<S: AsRef<OsStr>>(
    limit: Duration,
    arguments: &[&str],
    environment: &[(S, S)],
) -> Output {
    let mut command = command(environment);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // The output is read while the command runs, because a full pipe would hold it up.
    let stdout = collect(child.stdout.take().expect("piped"));
    let stderr = collect(child.stderr.take().expect("piped"));
    let collected = |pipe: JoinHandle<Vec<u8>>| pipe.join().expect("what it wrote");
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the program is a child") {
            return Output { status, stdout: collected(stdout), stderr: collected(stderr) };
        }
        if begun.elapsed() > limit {
            child.kill().expect("the program can be killed");
            let said = String::from_utf8_lossy(&collected(stderr)).into_owned();
            panic!("{arguments:?} did not end within {limit:?}; it said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn collect(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        bytes
    })
}

/// `groundstation migrate`. Blocking.
pub fn migrate(database_url: &str) -> Output {
    run(&["migrate"], &[("DATABASE_URL", database_url)])
}

/// Runs a command to its end; returns whether it succeeded, its standard output and its standard error.
pub async fn ran(arguments: &[&str], environment: &[(String, String)]) -> (bool, String, String) {
    ran_within(LIMIT, arguments, environment).await
}

/// The same, for a command that may take so long.
pub async fn ran_within(
    limit: Duration,
    arguments: &[&str],
    environment: &[(String, String)],
) -> (bool, String, String) {
    let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    let environment = environment.to_vec();
    let output = blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_within(limit, &arguments, &environment)
    })
    .await;
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.success(), text(output.stdout), text(output.stderr))
}
