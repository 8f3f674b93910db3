//! `groundstation dev`: within seconds a person sees a past, real satellites' edges as they arrive on NATS, and how to
//! go on; and nothing is left behind but the data.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_util::StreamExt;
use groundstation::dev::stores::{Nats, Postgres, remove_all};
use groundstation::dev::tools::Tools;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::harness::program::ran;
use crate::harness::running::Running;
use crate::harness::stores::random;
use crate::harness::wait::{PATIENCE, blocking, eventually};

/// A folder for one demonstration, and the environment of its commands.
struct Place {
    name: String,
    folder: PathBuf,
    environment: Vec<(String, String)>,
}

impl Place {
    fn new() -> Place {
        let name = format!("groundstation-dev-test-{}", random());
        let folder = std::env::temp_dir().join(&name);
        fs::create_dir_all(&folder).expect("a folder");
        Place { name, folder, environment: environment() }
    }

    fn dev(&self, more: &[&str]) -> Running {
        let arguments = ["dev", "--listen", "127.0.0.1:0"];
        Running::start(&[&arguments, more].concat(), &self.environment, &self.folder)
    }

    async fn no_server_is_left(&self) {
        eventually("no server to be left", async || {
            let left = servers(&self.name);
            if left.is_empty() { Ok(()) } else { Err(left) }
        })
        .await;
    }

    async fn remove(self) {
        blocking(move || {
            remove_all(&self.folder.join(".groundstation")).expect("removed");
            fs::remove_dir_all(&self.folder).expect("removed");
        })
        .await;
    }
}

/// The private stores' programs, told by environment: the folder has no `.tools`.
fn environment() -> Vec<(String, String)> {
    let tools = Tools::find(env!("CARGO_MANIFEST_DIR").as_ref()).expect("`make tools`");
    let path = |path: &PathBuf| path.to_str().expect("text").to_owned();
    vec![
        ("GROUNDSTATION_POSTGRES_BIN".to_owned(), path(&tools.postgres_bin)),
        ("GROUNDSTATION_NATS_SERVER".to_owned(), path(&tools.nats_server)),
        ("PATH".to_owned(), std::env::var("PATH").expect("a PATH")),
    ]
}

/// The processes of a server whose arguments name this folder.
fn servers(folder: &str) -> String {
    let output = std::process::Command::new("ps").args(["-eo", "args"]).output().expect("ps runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_ours =
        text.lines().filter(|line| line.contains(folder) && !line.contains("groundstation dev"));
    of_ours.collect::<Vec<_>>().join("\n")
}

/// The position at the end of an edge's line.
fn position(line: &str) -> i64 {
    let (_, position) = line.rsplit_once("position ").expect("an edge");
    position.trim().parse().expect("a number")
}

/// Waits until each satellite has connected.
async fn all_connect(dev: &Running) {
    eventually("all to connect", async || {
        let said = dev.everything();
        if said.matches("  connected  ").count() >= 12 { Ok(()) } else { Err(said) }
    })
    .await;
}

/// What a command of a shell would be called with, if its program only said that.
fn arguments(line: &str, program: &str) -> Vec<String> {
    let script = format!("{program}() {{ printf '%s\\n' \"$@\"; }}\n{line}");
    let output = Command::new("/bin/sh").args(["-c", &script]).output().expect("a shell");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// The command behind its name in what `dev` prints.
async fn command(dev: &Running, name: &str) -> String {
    let line = dev.prints(&format!("{name}: ")).await;
    line.trim_start_matches(&format!("{name}: ")).trim().to_owned()
}

/// Posts a body to the page's session; returns the status.
async fn sign_in(origin: &str, code: &str) -> u16 {
    let (url, body) = (format!("{origin}/console/session"), json!({"code": code}));
    blocking(move || {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        let asked = ureq::Agent::new_with_config(config).post(&url).send_json(&body);
        asked.expect("an answer").status().as_u16()
    })
    .await
}

/// What the command `curl` of these arguments would print.
async fn fetched(arguments: Vec<String>) -> Value {
    let [flag, header, url] = &arguments[..] else { panic!("{arguments:?}") };
    assert_eq!(flag, "-H");
    let (name, value) = header.split_once(": ").expect("a header");
    let request = ureq::http::Request::builder().uri(url).header(name, value);
    let request = request.body(()).expect("a request");
    let answer = blocking(move || ureq::run(request).and_then(|mut it| it.body_mut().read_json()));
    answer.await.expect("JSON")
}

#[tokio::test]
async fn dev_shows_edges_arriving_on_nats_ends_clean_keeps_its_data_and_starts_over_when_told() {
    let place = Place::new();
    let mut first = place.dev(&[]);
    first.prints("pod listens on http://127.0.0.1:").await;
    // All twelve connect, and sooner or later one of them does something.
    all_connect(&first).await;
    let edge = first.prints("disconnected  ").await;
    first.interrupt();
    assert!(first.ends().await.success(), "{}", first.everything());
    first.prints("stopped; the data stays in .groundstation/").await;
    place.no_server_is_left().await;
    assert!(place.folder.join(".groundstation/postgres").exists());

    // The next run goes on where the first one stopped.
    let mut second = place.dev(&[]);
    all_connect(&second).await;
    let later = position(&second.prints("position ").await);
    assert!(later > position(&edge), "{later} after {edge}");
    second.interrupt();
    assert!(second.ends().await.success(), "{}", second.everything());

    let third = place.dev(&["--fresh", "--duration", "24h"]);
    let afresh = position(&third.prints("position ").await);
    assert!(afresh < later, "{afresh} after {later}");
    // Not even a pod that is killed leaves a server behind.
    drop(third);
    place.no_server_is_left().await;
    place.remove().await;
}

#[tokio::test]
async fn the_lines_that_dev_prints_work_as_they_stand_and_hold_no_token() {
    let place = Place::new();
    let dev = place.dev(&[]);
    dev.prints("pod listens on").await;

    let page = command(&dev, "page").await;
    if let Some((url, code)) = page.split_once("/console/sign-in#") {
        let code = code.split_whitespace().next().expect("a code");
        assert_eq!(sign_in(url, "another").await, 401);
        assert_eq!(sign_in(url, code).await, 204);
        assert_eq!(sign_in(url, code).await, 401, "the code worked twice");
    } else {
        assert!(page.contains("says how to get the page"), "{page}");
    }

    let fleet = arguments(&command(&dev, "fleet").await, "curl");
    assert_eq!(fetched(fleet.clone()).await["total"], 12);
    if page.contains("/console/sign-in#") {
        // Who came by the link is in the audit.
        let audit = fleet.iter().map(|word| word.replace("/v1/fleet", "/v1/audit"));
        let audit: Vec<String> = audit.collect();
        eventually("the sign-in to be in the audit", async || {
            let entries = fetched(audit.clone()).await["entries"].clone();
            let is_it = |entry: &Value| {
                entry["action"] == "page.signed_in" && entry["after"]["by"] == "code"
            };
            let is_there = entries.as_array().is_some_and(|entries| entries.iter().any(is_it));
            if is_there { Ok(()) } else { Err(entries.to_string()) }
        })
        .await;
    }

    let said = arguments(&command(&dev, "edges").await, "nats");
    let [flag, url, verb, subject] = &said[..] else { panic!("{said:?}") };
    assert_eq!((flag.as_str(), verb.as_str()), ("-s", "sub"));
    let nats = async_nats::connect(url).await.expect("NATS");
    let mut edges = nats.subscribe(subject.clone()).await.expect("a subscription");
    let edge = timeout(PATIENCE, edges.next()).await.expect("an edge in time").expect("an edge");
    assert!(edge.subject.starts_with("satellite."), "{}", edge.subject);

    let line = command(&dev, "commands").await;
    let output = Command::new("/bin/sh").args(["-c", &line]).output().expect("a shell");
    let listed = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && listed.contains("amsterdam-1"), "{line}: {listed}");

    let file = place.folder.join(".groundstation/token");
    let token = fs::read_to_string(&file).expect("the token's file");
    assert_eq!(file.metadata().expect("its rights").permissions().mode() & 0o777, 0o600);
    assert!(!dev.everything().contains(&token), "the token was printed");
    let log = fs::read_to_string(place.folder.join(".groundstation/pod.log")).expect("a log");
    assert!(!log.contains(&token), "the token was logged");
    drop(dev);
    place.no_server_is_left().await;
    place.remove().await;
}

/// Starts the stores of a demonstration that has ended; returns the environment of commands that look into them.
fn stores(folder: &Path) -> (Postgres, Nats, Vec<(String, String)>) {
    let tools = Tools::find(env!("CARGO_MANIFEST_DIR").as_ref()).expect("`make tools`");
    let postgres = Postgres::start(&tools, &folder.join("postgres"), &[]).expect("its Postgres");
    let nats = Nats::start(&tools, &folder.join("nats"), "").expect("its nats-server");
    let (database_url, nats_url) = (postgres.url("groundstation"), nats.url());
    let environment = [("DATABASE_URL", database_url), ("NATS_URL", nats_url)];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    (postgres, nats, environment.to_vec())
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_demonstration_has_hours_of_past_in_which_audits_find_nothing_wrong() {
    let place = Place::new();
    let mut dev = place.dev(&[]);
    all_connect(&dev).await;
    let curl = arguments(&command(&dev, "fleet").await, "curl");
    let get = async |path: &str| {
        let mut curl = curl.clone();
        curl[2] = curl[2].replace("/v1/fleet", path);
        fetched(curl).await
    };
    let first = &get("/v1/transitions?limit=1").await["transitions"][0];
    assert_eq!(first["actor"], json!({"type": "system", "id": "demonstration"}));
    let flaps = get("/v1/transitions?limit=1000").await["transitions"].clone();
    let is_marked = |it: &Value| it["next"]["flapping"] == true && it["next"]["name"] == "mumbai-1";
    assert!(flaps.as_array().expect("a list").iter().any(is_marked), "nothing flaps");

    let began = first["recordedAt"].as_str().expect("a time");
    let hours = get(&format!("/v1/fleet/timeline?since={began}&step=5m")).await;
    let points = hours["points"].as_array().expect("points");
    let online: Vec<i64> = points.iter().filter_map(|point| point["online"].as_i64()).collect();
    assert!(
        online.len() > 50 && online.iter().filter(|online| **online >= 9).count() > 40,
        "{online:?}"
    );
    assert!(online.iter().any(|online| *online <= 8), "no outage: {online:?}");
    let then = get("/v1/fleet?position=200").await;
    assert_eq!(then["total"], 12);

    dev.interrupt();
    assert!(dev.ends().await.success(), "{}", dev.everything());
    place.no_server_is_left().await;
    let folder = place.folder.join(".groundstation");
    let (postgres, nats, environment) = blocking(move || stores(&folder)).await;
    for check in [&["audit"][..], &["audit", "--chain"], &["rebuild", "--check"]] {
        let (is_good, out, err) = ran(check, &environment).await;
        assert!(is_good, "{check:?}: {out}{err}");
    }
    drop((postgres, nats));
    place.no_server_is_left().await;
    place.remove().await;
}
