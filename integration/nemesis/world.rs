//! The world of a run: a Postgres and a nats-server of its own, three pods behind proxies, and the means
//! to break them.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use groundstation::dev::stores::{Nats, Postgres};
use groundstation::platform::nats::Address;
use tokio::time::{sleep, timeout};

use super::fault::{PODS, pod_name};
use super::timeline::Timeline;
use crate::harness::fleet::Timing;
use crate::harness::pod::{Answer, try_call};
use crate::harness::wait::blocking;
use crate::harness::{Fleet, Pod, Proxy};

/// Short, so that minutes hold many lives; long enough for a busy machine. The window is that of three
/// heartbeats, and less than half of the shortest threshold that a satellite gets.
pub const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(500),
    threshold: Duration::from_secs(6),
    sweep: Duration::from_millis(100),
};

/// How long pods hold losses in a brown-out.
pub const HOLD: Duration = Duration::from_secs(4);

/// How long a call of an administrator or an onlooker may take.
pub const CALL: Duration = Duration::from_secs(8);

pub struct World {
    pub fleet: Fleet,
    pub posts: Vec<Post>,
    pub postgres: Arc<Mutex<Postgres>>,
    pub nats: Arc<Mutex<Nats>>,
}

/// A pod's place: its links to satellites and stores, and the pod itself, which comes and goes.
pub struct Post {
    name: &'static str,
    environment: Vec<(String, String)>,
    admin_token: String,
    pub database: Proxy,
    pub nats: Proxy,
    /// The satellites' way in.
    pub line: Proxy,
    pub pod: tokio::sync::Mutex<Pod>,
    address: Mutex<SocketAddr>,
    pub clock: Clock,
}

/// The wall clock of a pod.
pub struct Clock(#[cfg(target_os = "linux")] crate::harness::Clock);

impl World {
    /// Pods vouch for satellites that beat; one of them writes every heartbeat instead, or none of them
    /// does, by the seed.
    pub async fn make(seed: u64) -> World {
        let writes = usize::try_from(seed % (PODS as u64 + 1)).ok();
        let mut fleet = Fleet::with_own_stores(TIMING).await;
        let (postgres, nats) = fleet.take_stores();
        let mut posts = Vec::with_capacity(PODS);
        for pod in 0..PODS {
            posts.push(Post::begin(&fleet, pod_name(pod), writes == Some(pod)).await);
        }
        let (postgres, nats) = (Arc::new(Mutex::new(postgres)), Arc::new(Mutex::new(nats)));
        World { fleet, posts, postgres, nats }
    }

    /// The database past all proxies, as its owner; `None` while it is away.
    pub async fn sql(&self) -> Option<tokio_postgres::Client> {
        let connect = tokio_postgres::connect(&self.fleet.database_url, tokio_postgres::NoTls);
        let (client, connection) = timeout(Duration::from_secs(3), connect).await.ok()?.ok()?;
        tokio::spawn(connection);
        Some(client)
    }

    /// NATS past all proxies; `None` while it is away.
    pub async fn nats(&self) -> Option<async_nats::Client> {
        let address = Address::parse(&self.fleet.nats_url).expect("an address");
        timeout(Duration::from_secs(3), address.connect("nemesis")).await.ok()?.ok()
    }

    /// Does something with the database's server that blocks.
    pub async fn with_postgres(&self, work: impl FnOnce(&mut Postgres) + Send + 'static) {
        let postgres = self.postgres.clone();
        blocking(move || work(&mut postgres.lock().expect("Postgres"))).await;
    }

    /// Does something with the nats-server that blocks.
    pub async fn with_nats(&self, work: impl FnOnce(&mut Nats) + Send + 'static) {
        let nats = self.nats.clone();
        blocking(move || work(&mut nats.lock().expect("nats-server"))).await;
    }

    /// Waits until all pods are ready.
    pub async fn expect_ready(&self, patience: Duration) -> Result<(), String> {
        for post in &self.posts {
            let ready = async {
                loop {
                    match post.call("GET", "/readyz", None).await {
                        Ok(answer) if answer.status == 200 => return,
                        _ => sleep(Duration::from_millis(100)).await,
                    }
                }
            };
            if timeout(patience, ready).await.is_err() {
                let said = post.call("GET", "/readyz", None).await;
                return Err(format!("pod {} is not ready: {said:?}", post.name));
            }
        }
        Ok(())
    }

    /// Keeps the pods' logs beside the timeline.
    pub async fn keep_logs(&self, timeline: &Timeline) {
        for post in &self.posts {
            post.keep_log(timeline).await;
        }
    }
}

impl Post {
    async fn begin(fleet: &Fleet, name: &'static str, writes: bool) -> Post {
        let (database, database_url) = Proxy::before(&fleet.database_url).await;
        let (nats, nats_url) = Proxy::before(&fleet.nats_url).await;
        let hold = format!("{}ms", HOLD.as_millis());
        let plan = fleet
            .plan(name)
            .with("DATABASE_URL", &database_url)
            .with("NATS_URL", &nats_url)
            .with("GROUNDSTATION_BROWN_OUT_HOLD", &hold)
            .with("RUST_BACKTRACE", "1");
        let plan = if writes { plan.with("GROUNDSTATION_VOUCH_WINDOW", "0") } else { plan };
        let mut environment = plan.environment();
        let clock = Clock::make(&mut environment);
        let pod = Pod::start(name, &environment, &fleet.admin_token).await;
        let line = Proxy::to(pod.address).await;
        let address = Mutex::new(pod.address);
        let (admin_token, pod) = (fleet.admin_token.clone(), tokio::sync::Mutex::new(pod));
        Post { name, environment, admin_token, database, nats, line, pod, address, clock }
    }

    /// Where the pod listens, or listened last.
    pub fn address(&self) -> SocketAddr {
        *self.address.lock().expect("an address")
    }

    /// Calls the pod as the administrator, past the satellites' way.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<String>,
    ) -> Result<Answer, String> {
        try_call(self.address(), method, path, Some(&self.admin_token), body, CALL).await
    }

    /// Starts the pod again until it is ready, as an operator would: a pod that finds no database ends and is
    /// started anew.
    pub async fn start_again(&self, pod: &mut Pod, timeline: &Timeline) {
        keep(pod, timeline);
        loop {
            *pod = Pod::launch(self.name, &self.environment, &self.admin_token);
            while pod.has_ended().is_none() {
                if let Ok(address) = pod.listening() {
                    *self.address.lock().expect("an address") = address;
                    pod.address = address;
                    self.line.lead_to(address);
                    let ready = self.call("GET", "/readyz", None).await;
                    if ready.is_ok_and(|answer| answer.status == 200) {
                        return;
                    }
                }
                sleep(Duration::from_millis(50)).await;
            }
            sleep(Duration::from_millis(300)).await;
        }
    }

    pub async fn keep_log(&self, timeline: &Timeline) {
        keep(&*self.pod.lock().await, timeline);
    }
}

/// Adds the log of one life of a pod to the file of its name.
fn keep(pod: &Pod, timeline: &Timeline) {
    use std::io::Write;
    let path = timeline.folder.join(format!("pod-{}.log", pod.name));
    let file = std::fs::File::options().create(true).append(true).open(path);
    writeln!(file.expect("a log"), "{}", pod.log()).expect("a log");
}

#[cfg(target_os = "linux")]
impl Clock {
    fn make(environment: &mut Vec<(String, String)>) -> Clock {
        let clock = crate::harness::Clock::new();
        environment.extend(clock.environment().map(|(name, value)| (name.to_owned(), value)));
        Clock(clock)
    }

    /// Sets the clock this many seconds off.
    pub fn shift(&self, seconds: i64) {
        self.0.shift(seconds);
    }
}

#[cfg(not(target_os = "linux"))]
impl Clock {
    fn make(_: &mut Vec<(String, String)>) -> Clock {
        Clock()
    }

    pub fn shift(&self, _: i64) {}
}

/// Sends a signal to a process and to its children, the children last. A child that has just ended needs
/// none.
pub fn signal_all(pid: u32, signal: &str) {
    let list = Command::new("ps").args(["-A", "-o", "pid=,ppid="]).output().expect("ps runs");
    let list = String::from_utf8(list.stdout).expect("text");
    let pairs = list.lines().filter_map(|line| {
        let mut words = line.split_whitespace().map(str::parse::<u32>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    });
    let mut pids = vec![pid];
    pids.extend(pairs.filter(|(_, parent)| *parent == pid).map(|(child, _)| child));
    for pid in pids {
        let mut kill = Command::new("kill");
        kill.args(["-s", signal, &pid.to_string()]).stderr(Stdio::null());
        kill.status().expect("kill runs");
    }
}
