//! Three nats-servers of one version as a cluster; what goes between them takes a while.

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
use super::proxy::Proxy;
use super::relaying::{STREAM, subjects};
use super::stores;
use super::wait::{blocking, within};

/// How long servers that have just started, or lost one of them, may take to agree on a leader.
const LONG: Duration = Duration::from_secs(120);

/// How long bytes take from one server to another.
const DELAY: Duration = Duration::from_millis(2);

/// How often a start is tried, and how long the servers are given to find each other.
const STARTS: u32 = 5;
const JOINING: Duration = Duration::from_secs(30);

/// Which nats-server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The oldest supported.
    V2_10,
    /// The one that answers a retry with an error where 2.10 says sequence 0.
    V2_11,
    /// The one all other tests run against.
    Newest,
}

impl Version {
    fn tools(self) -> Tools {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tools = Tools::find(project).expect("run `make tools` first");
        let folder = match self {
            Version::V2_10 => "nats_2.10",
            Version::V2_11 => "nats_2.11",
            Version::Newest => return tools,
        };
        let nats_server = project.join(".tools").join(folder).join("bin/nats-server");
        assert!(nats_server.exists(), "no {nats_server:?}: run `make test-tools` first");
        Tools { nats_server, ..tools }
    }
}

/// See the module; dropping it stops the servers.
pub struct Cluster {
    servers: Vec<Nats>,
    monitors: [u16; 3],
    _links: Vec<Proxy>,
}

impl Cluster {
    /// Starts one and waits until it can hold streams. While 2.10 elects its first leader, a server
    /// that joins in that moment may never hear of it: then all of it is started again.
    pub async fn start(version: Version) -> Cluster {
        for _ in 0..STARTS {
            let cluster = Cluster::launch(version).await;
            let since = Instant::now();
            while since.elapsed() < JOINING {
                if cluster.is_whole().await {
                    return cluster;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        panic!("three nats-servers of {version:?} did not become a cluster in {STARTS} starts");
    }

    /// Whether every server knows who leads them.
    async fn is_whole(&self) -> bool {
        let monitors = self.monitors;
        let knows = |port: u16| {
            let report = look(port, "jsz")?;
            report["meta_cluster"]["leader"].as_str().filter(|leader| !leader.is_empty())?;
            Some(report["meta_cluster"]["cluster_size"] == 3)
        };
        blocking(move || monitors.into_iter().all(|port| knows(port) == Some(true))).await
    }

    async fn launch(version: Version) -> Cluster {
        let (routes, monitors) = (free_ports(), free_ports());
        let mut links = Vec::new();
        let mut configurations = Vec::new();
        for n in 0..3 {
            // Each knows both others: from their number the servers tell how many they are.
            let mut to = Vec::new();
            for other in (0..3).filter(|other| *other != n) {
                let link = Proxy::to(([127, 0, 0, 1], routes[other]).into()).await;
                link.delay(DELAY);
                to.push(format!("\"nats://{}\"", link.address));
                links.push(link);
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
            configurations.iter().map(start).collect()
        })
        .await;
        Cluster { servers, monitors, _links: links }
    }

    /// The URL of all three.
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.servers.iter().map(Nats::url).collect();
        urls.join(",")
    }

    /// A fleet that uses it.
    pub async fn fleet(&self, timing: super::fleet::Timing) -> Fleet {
        Fleet::with_nats_at(timing, self.url()).await
    }

    /// The stream as an operator makes it, on all three.
    pub async fn make_stream(&self, fleet: &Fleet, duplicate_window: Duration) {
        self.make(fleet, STREAM, subjects(), duplicate_window).await;
    }

    /// Any stream on all three; waits until the cluster can make it.
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

    /// Makes the stream's leader step down.
    pub async fn step_down(&self, nats: &async_nats::Client) {
        let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}");
        nats.request(subject, "".into()).await.expect("it steps down");
    }

    /// Kills a server and starts it again.
    pub async fn crash(mut self, n: usize) -> Cluster {
        blocking(move || {
            self.servers[n].kill();
            self.servers[n].restart().expect("the server restarts");
            self
        })
        .await
    }

    /// Up to which sequence each server has the stream; of one that does not answer: nothing.
    pub async fn last_sequences(&self) -> Vec<Option<u64>> {
        let monitors = self.monitors;
        blocking(move || monitors.into_iter().map(last_sequence).collect()).await
    }
}

/// What a server tells of itself; nothing while it does not answer.
fn look(port: u16, path: &str) -> Option<Value> {
    let url = format!("http://127.0.0.1:{port}/{path}");
    let text = ureq::get(url).call().ok()?.body_mut().read_to_string().ok()?;
    serde_json::from_str(&text).ok()
}

fn last_sequence(port: u16) -> Option<u64> {
    let report = look(port, "jsz?streams=true&acc=$G")?;
    let streams = report["account_details"][0]["stream_detail"].as_array()?;
    let stream = streams.iter().find(|stream| stream["name"] == STREAM)?;
    stream["state"]["last_seq"].as_u64()
}

/// Nobody's at this moment: none that the system gives to connections, and none that another test of
/// this run was given, because a server takes it later.
fn free_ports() -> [u16; 3] {
    static BEGIN: OnceLock<u16> = OnceLock::new();
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let begin = *BEGIN.get_or_init(|| fastrand::u16(10_000..28_000));
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let next = || begin + GIVEN.fetch_add(1, Ordering::Relaxed);
    [(); 3].map(|()| std::iter::repeat_with(next).find(is_free).expect("a free port"))
}
