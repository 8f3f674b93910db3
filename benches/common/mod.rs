//! What the benchmarks that run a whole pod share: private stores, a real `groundstation serve`, and
//! what it and this process cost.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use groundstation::database::Address;
use groundstation::dev::stores::{self, Nats, Postgres};
use groundstation::dev::tools::Tools;
use groundstation::schema;
use serde_json::Value;
use uuid::Uuid;

/// Every satellite's token.
pub const TOKEN: &str = "csat_bench";

/// A private Postgres (fsync on) and nats-server, removed when dropped.
pub struct Stores {
    pub postgres: Postgres,
    pub nats: Nats,
    pub version: String,
    folder: PathBuf,
}

impl Stores {
    /// Starts them and makes the schema.
    pub fn start(name: &str) -> Stores {
        let here = std::env::current_dir().expect("a folder");
        let tools = Tools::find(&here).expect("run `make tools`");
        let folder =
            std::env::temp_dir().join(format!("groundstation-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let settings = [("shared_buffers", "1GB"), ("max_wal_size", "8GB")];
        let postgres =
            Postgres::start(&tools, &folder.join("postgres"), &settings).expect("Postgres");
        let nats = Nats::start(&tools, &folder.join("nats"), "").expect("nats-server");
        let address = Address::parse("bench", &postgres.url("postgres")).expect("address");
        schema::migrate(&address).expect("schema");
        Stores { postgres, nats, version: tools.postgres_version.to_string(), folder }
    }

    /// The database's URL.
    pub fn url(&self) -> String {
        self.postgres.url("postgres")
    }

    /// A connection as the owner.
    pub fn sql(&self) -> postgres::Client {
        postgres::Client::connect(&self.url(), postgres::NoTls).expect("a connection")
    }

    /// Registers satellites.
    pub fn register(&self, count: usize) -> Vec<Uuid> {
        let ids: Vec<Uuid> = (0..count).map(|_| Uuid::new_v4()).collect();
        let digest = groundstation::token::Digest::of(TOKEN).to_stored();
        let insert = "insert into satellites (id, name, region, token_hash)
                      select id, 'bench-' || id, 'eu', $2 from unnest($1::uuid[]) as i (id)";
        self.sql().execute(insert, &[&ids, &digest]).expect("satellites");
        ids
    }

    /// Starts a pod and waits until it is ready; how long that took.
    pub fn pod(&self, name: &str) -> (Pod, Duration) {
        let began = Instant::now();
        let mut child = Command::new(env!("CARGO_BIN_EXE_groundstation"))
            .arg("serve")
            .env_clear()
            .env("DATABASE_URL", self.url())
            .env("NATS_URL", self.nats.url())
            .env("GROUNDSTATION_POD", name)
            .env("GROUNDSTATION_LISTEN", "127.0.0.1:0")
            .env("GROUNDSTATION_LOG_FORMAT", "json")
            .env("GROUNDSTATION_ADMIN_TOKEN", TOKEN)
            // The load comes from one address, and faster than any agent's.
            .env("GROUNDSTATION_MESSAGE_RATE", "100000")
            .env("GROUNDSTATION_MESSAGE_BURST", "100000")
            .env("GROUNDSTATION_MAX_HANDSHAKES_PER_ADDRESS", "100000")
            .env("GROUNDSTATION_MAX_CONNECTIONS_PER_ADDRESS", "100000")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a pod");
        let address = listening(&mut child);
        let pod = Pod { child, address };
        while pod.get("/readyz").is_none() {
            std::thread::sleep(Duration::from_millis(2));
        }
        (pod, began.elapsed())
    }
}

impl Drop for Stores {
    fn drop(&mut self) {
        self.nats.stop();
        self.postgres.stop();
        stores::remove_all(&self.folder).expect("removed");
    }
}

/// A pod; dropping it kills it.
pub struct Pod {
    child: Child,
    pub address: SocketAddr,
}

impl Pod {
    /// The body of an answer 200.
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

    /// Its resident bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// Seconds of CPU it has used.
    pub fn cpu(&self) -> f64 {
        cpu_of(&self.child.id().to_string())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the pod ends");
    }
}

/// Seconds of CPU this process has used.
pub fn own_cpu() -> f64 {
    cpu_of("self")
}

fn cpu_of(pid: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("/proc");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |n: usize| fields[n].parse::<f64>().expect("ticks");
    // Fields 14 and 15 of proc(5), in hundredths of a second.
    (ticks(11) + ticks(12)) / 100.0
}

/// As many sockets as a process may have, less what it needs besides.
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

/// Where the pod listens. What it writes later is read on, so that it never waits for a reader.
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
