//! The program under test, as a process.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long a command that is to end may run.
const LIMIT: Duration = Duration::from_secs(60);

/// The program with nothing of this process' environment but what it is given.
pub fn command<S: AsRef<OsStr>>(environment: &[(S, S)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_groundstation"));
    command.env_clear().stdin(Stdio::null());
    command.envs(environment.iter().map(|(name, value)| (name.as_ref(), value.as_ref())));
    command
}

/// Runs a command to its end; kills it and panics if it does not end. Blocking.
pub fn run<S: AsRef<OsStr>>(arguments: &[&str], environment: &[(S, S)]) -> Output {
    let mut command = command(environment);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    let begun = Instant::now();
    while child.try_wait().expect("the program is a child").is_none() {
        if begun.elapsed() > LIMIT {
            child.kill().expect("the program can be killed");
            let mut said = String::new();
            child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
            panic!("{arguments:?} did not end within {LIMIT:?}; it said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().expect("the program's output")
}

/// `groundstation migrate`. Blocking.
pub fn migrate(database_url: &str) -> Output {
    run(&["migrate"], &[("DATABASE_URL", database_url)])
}
