//! A real `groundstation serve`, and `groundstation simulate` for its load.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use groundstation::clients::simulate::cost::{self, Cost};
use serde_json::Value;

use crate::stores::{Stores, TOKEN};

const PROGRAM: &str = env!("CARGO_BIN_EXE_groundstation");

/// A pod. Dropping it kills it.
pub struct Pod {
    child: Child,
    pub address: SocketAddr,
}

impl Pod {
    /// Starts a pod and waits until it is ready; also returns the seconds it took.
    pub fn start(stores: &Stores, name: &str) -> (Pod, f64) {
        Pod::start_with(stores, name, &[])
    }

    /// The same, with more settings.
    pub fn start_with(stores: &Stores, name: &str, more: &[(&str, &str)]) -> (Pod, f64) {
        let began = Instant::now();
        let mut child = Command::new(PROGRAM)
            .arg("serve")
            .env_clear()
            .env("DATABASE_URL", stores.url())
            .env("NATS_URL", stores.nats_url())
            .env("GROUNDSTATION_POD", name)
            .env("GROUNDSTATION_LISTEN", "127.0.0.1:0")
            .env("GROUNDSTATION_LOG_FORMAT", "json")
            .env("GROUNDSTATION_ADMIN_TOKEN", TOKEN)
            // The load comes from few addresses, and faster than from any agent.
            .env("GROUNDSTATION_MESSAGE_RATE", "100000")
            .env("GROUNDSTATION_MESSAGE_BURST", "100000")
            .env("GROUNDSTATION_CONNECT_BURST", "1000000")
            .env("GROUNDSTATION_MAX_HANDSHAKES_PER_ADDRESS", "100000")
            .env("GROUNDSTATION_MAX_CONNECTIONS_PER_ADDRESS", "100000")
            .envs(more.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a pod");
        let address = listening(&mut child);
        let pod = Pod { child, address };
        while pod.get("/readyz").is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        (pod, began.elapsed().as_secs_f64())
    }

    /// The body of an answer with status 200.
    pub fn get(&self, path: &str) -> Option<String> {
        let request = ureq::get(format!("http://{}{path}", self.address));
        let mut answer = request.header("Authorization", format!("Bearer {TOKEN}")).call().ok()?;
        answer.body_mut().with_config().limit(64 << 20).read_to_string().ok()
    }

    /// A metric's value.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").expect("metrics");
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }

    /// Waits until a metric has this value; looks twenty times a second.
    pub fn reached(&self, name: &str, value: f64) {
        while self.metric(name) != value {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What the pod has cost so far.
    pub fn cost(&self) -> Cost {
        cost::of(self.child.id()).expect("/proc")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the pod ends");
    }
}

/// `groundstation simulate`. Dropping it kills it, and its satellites' sockets with it.
pub struct Simulator {
    child: Child,
}

impl Simulator {
    /// Registers this many satellites and then connects them as fast as the pod takes them, from
    /// eight loopback addresses.
    pub fn start(pod: &Pod, prefix: &str, satellites: usize, heartbeats: &str) -> Simulator {
        let mut command = Command::new(PROGRAM);
        command
            .args(["simulate", "--keep", "--json", "--ramp", "1000000", "--prefix", prefix])
            // As many as the pod accepts at once, less a few.
            .args(["--at-once", "500"])
            .args(["--satellites", &satellites.to_string(), "--heartbeat-interval", heartbeats])
            .env_clear()
            .env("GROUNDSTATION_URL", format!("http://{}", pod.address))
            .env("GROUNDSTATION_ADMIN_TOKEN", TOKEN)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        for last in 1..=8 {
            command.arg("--from").arg(format!("127.0.0.{last}"));
        }
        Simulator { child: command.spawn().expect("a simulator") }
    }

    /// What the simulator has cost so far.
    pub fn cost(&self) -> Cost {
        cost::of(self.child.id()).expect("/proc")
    }

    /// Stops it where it stands: its sockets stay open, and nobody says anything any more.
    pub fn fall_silent(&self) {
        self.signal("-STOP");
    }

    fn signal(&self, signal: &str) {
        let arguments = [signal, &self.child.id().to_string()].map(str::to_owned);
        assert!(Command::new("kill").args(arguments).status().expect("kill").success());
    }

    /// Says goodbye for all of them; its summary.
    pub fn end(mut self) -> Value {
        self.signal("-INT");
        let summary = self.child.stdout.take().expect("piped");
        serde_json::from_reader(summary).expect("a summary")
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().expect("the simulator ends");
    }
}

/// As many sockets as a process may have, less its other needs.
pub fn sockets_allowed() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("/proc");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let soft = line.split_whitespace().nth(3).expect("the soft limit");
    soft.parse().unwrap_or(usize::MAX).saturating_sub(500)
}

/// The value at this part of sorted values.
pub fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

/// The pod's address. Its later output is read as well, so that it never waits for a reader.
fn listening(pod: &mut Child) -> SocketAddr {
    let mut lines = BufReader::new(pod.stderr.take().expect("piped")).lines();
    let address = loop {
        let line = lines.next().expect("a line `listening`").expect("text");
        let line: Value = serde_json::from_str(&line).unwrap_or_default();
        if line["message"] == "listening" {
            break line["address"].as_str().expect("an address").parse().expect("an address");
        }
    };
    std::thread::spawn(move || lines.for_each(drop));
    address
}
