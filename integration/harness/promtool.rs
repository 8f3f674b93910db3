//! `promtool`, which knows Prometheus' rules better than we do. `make test-tools` brings it.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs promtool in the project's folder with `input` on standard input; returns its output as success or
/// failure. Returns at once where there is no promtool, because not every system that can test the rest
/// has a Prometheus. Blocking.
pub fn promtool<S: AsRef<OsStr>>(arguments: &[S], input: &str) -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(program(root));
    command.args(arguments).current_dir(root);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("NOT CHECKED: there is no promtool here, see `make test-tools`");
            return Ok(String::new());
        }
        Err(error) => panic!("promtool does not run: {error}"),
    };
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).expect("text");
    if output.status.success() { Ok(said) } else { Err(said) }
}

fn program(root: &Path) -> PathBuf {
    if let Some(named) = std::env::var_os("GROUNDSTATION_PROMTOOL").filter(|name| !name.is_empty())
    {
        return named.into();
    }
    let brought = root.join(".tools/promtool");
    if brought.exists() { brought } else { "promtool".into() }
}
