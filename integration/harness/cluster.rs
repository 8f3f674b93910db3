//! Three nats-servers of one version as a cluster, with a delay between them.

use std::net::TcpListener;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::Config};
use groundstation::dev::stores::Nats;
use groundstation::dev::tools::Tools;
use serde_json::Value;

use super::fleet::Fleet;
use super::pod;
use super::proxy::Proxy;
use super::relaying::{STREAM, subjects};
use super::stores;
use super::wait::{blocking, within};

/// How long servers may take to agree on a leader after a start or the loss of one.
pub const LONG: Duration = Duration::from_secs(120);

/// How long bytes take from one server to another.
const DELAY: Duration = Duration::from_millis(2);

/// How often a start is tried, and how long the servers may take to find each other.
const STARTS: u32 = 5;
const JOINING: Duration = Duration::from_secs(30);

/// The version of nats-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The oldest supported version.
    V2_10,
    /// The version that answers a retry with an error where 2.10 says sequence 0.
    V2_11,
    /// The first version that checks a publish before it replicates it.
    V2_12,
    /// The version that all other tests run against.
    Newest,
}

impl Version {
    pub(super) fn tools(self) -> Tools {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tools = Tools::find(project).expect("run `make tools` first");
        let folder = match self {
            Version::V2_10 => "nats_2.10",
            Version::V2_11 => "nats_2.11",
            Version::V2_12 => "nats_2.12",
            Version::Newest => return tools,
        };
        let nats_server = project.join(".tools").join(folder).join("bin/nats-server");
        assert!(nats_server.exists(), "no {nats_server:?}: run `make test-tools` first");
        Tools { nats_server, ..tools }
    }
}

/// Dropping it stops the servers.
pub struct Cluster {
    servers: Vec<Nats>,
    monitors: [u16; 3],
    links: Vec<Link>,
}

/// The way that one server takes to another.
struct Link {
    ends: [usize; 2],
    proxy: Proxy,
}

impl Cluster {
    /// Starts a cluster and waits until it can hold streams. A server that joins while 2.10 elects its first
    /// leader may never hear of it: then the whole cluster is started again.
    pub async fn start(version: Version) -> Cluster {
        Cluster::start_with(version, 3).await
    }

    /// The same, and the last of them has never come.
    pub async fn start_without_one(version: Version) -> Cluster {
        Cluster::start_with(version, 2).await
    }

    async fn start_with(version: Version, servers: usize) -> Cluster {
        for _ in 0..STARTS {
            let cluster = Cluster::launch(version, servers).await;
            let since = Instant::now();
            while since.elapsed() < JOINING {
                if cluster.is_whole().await {
                    return cluster;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        panic!("{servers} nats-servers of {version:?} did not become a cluster in {STARTS} starts");
    }

    /// Whether every server knows who leads them.
    async fn is_whole(&self) -> bool {
        let (monitors, servers) = (self.monitors, self.servers.len());
        let knows = move |port: u16| {
            let report = look(port, "jsz")?;
            report["meta_cluster"]["leader"].as_str().filter(|leader| !leader.is_empty())?;
            Some(servers < 3 || report["meta_cluster"]["cluster_size"] == 3)
        };
        let all = move || monitors.into_iter().take(servers).all(|port| knows(port) == Some(true));
        blocking(all).await
    }

    async fn launch(version: Version, servers: usize) -> Cluster {
        let (routes, monitors) = (free_ports::<3>(), free_ports());
        let mut links = Vec::new();
        let mut configurations = Vec::new();
        for n in 0..3 {
            // Each knows both others, because the servers count these to know the size of the cluster.
            let mut to = Vec::new();
            for other in (0..3).filter(|other| *other != n) {
                let proxy = Proxy::to(([127, 0, 0, 1], routes[other]).into()).await;
                proxy.delay(DELAY);
                to.push(format!("\"nats://{}\"", proxy.address));
                links.push(Link { ends: [n, other], proxy });
            }
            configurations.push(format!(
                "server_name: n{n}\nhttp: \"127.0.0.1:{}\"\n\
                 cluster {{ name: c, listen: \"127.0.0.1:{}\", no_advertise: true, routes: [{}] }}",
                monitors[n],
                routes[n],
                to.join(", ")
            ));
        }
        let servers = blocking(move || {
            let start = |configuration: &String| stores::nats_of(&version.tools(), configuration);
            configurations.iter().take(servers).map(start).collect()
        })
        .await;
        Cluster { servers, monitors, links }
    }

    /// The URL of all three.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.servers.iter().map(Nats::url).collect();
        urls.join(",")
    }

    /// A fleet that uses this cluster.
    pub async fn fleet(&self, timing: super::fleet::Timing) -> Fleet {
        Fleet::with_nats_at(timing, self.url()).await
    }

    /// Makes the stream as an operator would, on all three servers.
    pub async fn make_stream(&self, fleet: &Fleet, duplicate_window: Duration) {
        self.make(fleet, STREAM, subjects(), duplicate_window).await;
    }

    /// Makes any stream on all three servers; waits until the cluster can make it.
    pub async fn make(
        &self,
        fleet: &Fleet,
        name: &str,
        subjects: Vec<String>,
        duplicate_window: Duration,
    ) {
        let jetstream = jetstream::new(fleet.nats().await);
        let config = Config {
            name: name.to_owned(),
            subjects,
            num_replicas: 3,
            duplicate_window,
            ..Config::default()
        };
        within(LONG, "the cluster to make a stream", async || {
            let made = jetstream.create_stream(config.clone()).await;
            made.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }

    /// Which server leads the stream.
    pub async fn leader(&self, nats: &async_nats::Client) -> usize {
        let jetstream = jetstream::new(nats.clone());
        within(LONG, "the stream to have a leader", async || {
            let stream = jetstream.get_stream(STREAM).await.map_err(|error| error.to_string())?;
            let cluster = stream.cached_info().cluster.clone().ok_or("no cluster")?;
            let name = cluster.leader.ok_or("no leader")?;
            name.trim_start_matches('n').parse::<usize>().map_err(|error| error.to_string())
        })
        .await
    }

    /// Waits until the stream has a leader that stores messages: two servers, itself among them, name the same one,
    /// and it is none that was lost.
    pub async fn expect_leader_but(&self, lost: Option<usize>) {
        let monitors = self.monitors;
        within(LONG, "the stream to have a leader that another server follows", async || {
            let named: Vec<Option<String>> =
                blocking(move || monitors.into_iter().map(leader_named_by).collect()).await;
            let leads = |n: usize| {
                let name = format!("n{n}");
                let is_named = |named: &&Option<String>| named.as_deref() == Some(&*name);
                lost != Some(n)
                    && is_named(&&named[n])
                    && named.iter().filter(is_named).count() >= 2
            };
            if (0..3).any(leads) { Ok(()) } else { Err(format!("{named:?}")) }
        })
        .await;
    }

    /// Makes the stream's leader step down.
    pub async fn step_down(&self, nats: &async_nats::Client) {
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}");
        nats.request(subject, "".into()).await.expect("it steps down");
    }

    /// Kills a server and starts it again.
    pub async fn crash(self, n: usize) -> Cluster {
        self.kill(n).await.start_again(n).await
    }

    /// Kills a server.
    pub async fn kill(mut self, n: usize) -> Cluster {
        blocking(move || {
            self.servers[n].kill();
            self
        })
        .await
    }

    /// Starts a killed server with all it had stored.
    pub async fn start_again(mut self, n: usize) -> Cluster {
        blocking(move || {
            self.servers[n].restart().expect("the server restarts");
            self
        })
        .await
    }

    /// Kills a server, takes all that it has stored, and starts it again.
    pub async fn wipe(self, n: usize) -> Cluster {
        let killed = self.kill(n).await;
        let streams = killed.servers[n].streams();
        std::fs::remove_dir_all(streams).expect("its streams are gone");
        killed.start_again(n).await
    }

    /// Kills all servers, then starts them all again.
    pub async fn crash_all(mut self) -> Cluster {
        blocking(move || {
            self.servers.iter_mut().for_each(Nats::kill);
            for server in &mut self.servers {
                server.restart().expect("the server restarts");
            }
            self
        })
        .await
    }

    /// Stops a server as a debugger does: its connections stay open.
    pub fn suspend(&self, n: usize) {
        pod::signal(self.servers[n].pid(), "STOP");
    }

    /// Lets a suspended server go on.
    pub fn wake(&self, n: usize) {
        pod::signal(self.servers[n].pid(), "CONT");
    }

    /// Cuts a server off from the others. Its clients still reach it.
    pub fn cut_off(&self, n: usize) {
        self.links_of(n).for_each(|link| link.proxy.refuse());
    }

    /// Ends what [`Cluster::cut_off`] began.
    pub fn join(&self, n: usize) {
        self.links_of(n).for_each(|link| link.proxy.admit());
    }

    fn links_of(&self, n: usize) -> impl Iterator<Item = &Link> {
        self.links.iter().filter(move |link| link.ends.contains(&n))
    }

    /// The server to which a client is connected whose name begins like this.
    pub async fn server_of(&self, client: &'static str) -> usize {
        let monitors = self.monitors;
        let is_there = move |port: u16| {
            let connections = look(port, "connz")?["connections"].as_array()?.clone();
            let mut names = connections.iter().filter_map(|one| one["name"].as_str());
            names.any(|name| name.starts_with(client)).then_some(())
        };
        within(LONG, "a server that has the client", async || {
            let found = move || monitors.iter().position(|port| is_there(*port).is_some());
            blocking(found).await.ok_or_else(|| "no server has it".to_owned())
        })
        .await
    }

    /// The newest sequence of the stream on each server; `None` where a server does not answer.
    pub async fn last_sequences(&self) -> Vec<Option<u64>> {
        let monitors = self.monitors;
        blocking(move || monitors.into_iter().map(last_sequence).collect()).await
    }
}

/// What a server says of itself; `None` while it does not answer.
fn look(port: u16, path: &str) -> Option<Value> {
    let url = format!("http://127.0.0.1:{port}/{path}");
    // A suspended server takes the question and never answers.
    let question = ureq::get(url).config().timeout_global(Some(Duration::from_secs(2))).build();
    let text = question.call().ok()?.body_mut().read_to_string().ok()?;
    serde_json::from_str(&text).ok()
}

fn last_sequence(port: u16) -> Option<u64> {
    stream(port)?["state"]["last_seq"].as_u64()
}

fn leader_named_by(port: u16) -> Option<String> {
    stream(port)?["cluster"]["leader"].as_str().map(str::to_owned)
}

/// What a server says of the stream.
fn stream(port: u16) -> Option<Value> {
    let report = look(port, "jsz?streams=true&acc=$G")?;
    let streams = report["account_details"][0]["stream_detail"].as_array()?;
    streams.iter().find(|stream| stream["name"] == STREAM).cloned()
}

/// Free ports. They are none that the system gives to connections and none that another test of this run got,
/// because a server takes them only later.
pub(super) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    static BEGIN: OnceLock<u16> = OnceLock::new();
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let begin = *BEGIN.get_or_init(|| fastrand::u16(10_000..28_000));
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let next = || begin + GIVEN.fetch_add(1, Ordering::Relaxed);
    [(); COUNT].map(|()| std::iter::repeat_with(next).find(is_free).expect("a free port"))
}
