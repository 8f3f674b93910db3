//! What an idle authenticated satellite costs a pod in memory: resident bytes of a real `groundstation
//! serve`, with more and more real sockets that send a heartbeat now and then.
//!
//! `make bench` runs it. Linux only: it reads `/proc`. Both processes need a file descriptor for each
//! satellite, so the numbers are cut to what the system allows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt, stream};
use groundstation::database::Address;
use groundstation::dev::stores::{self, Nats, Postgres};
use groundstation::dev::tools::Tools;
use groundstation::schema;
use groundstation::token::Digest;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use uuid::Uuid;

/// Satellites at each look.
const STEPS: [usize; 3] = [1_000, 5_000, 10_000];
/// Connected and gone again before the first look: what a pod allocates once is no satellite's.
const WARM_UP: usize = 500;
/// How many connect at a time.
const AT_ONCE: usize = 32;
/// Long enough for jemalloc to give back what connecting needed, and for a heartbeat of everybody.
const REST: Duration = Duration::from_secs(25);
const BEATS: Duration = Duration::from_secs(10);
const TOKEN: &str = "csat_bench";

type Socket = WebSocketStream<TcpStream>;

fn main() {
    let here = std::env::current_dir().expect("a folder");
    let tools = Tools::find(&here).expect("run `make tools`");
    let folder = std::env::temp_dir().join(format!("groundstation-idle-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut postgres = Postgres::start(&tools, &folder.join("postgres"), &[]).expect("Postgres");
    let mut nats = Nats::start(&tools, &folder.join("nats"), "").expect("nats-server");
    let url = postgres.url("postgres");
    let address = Address::parse("bench", &url).expect("address");
    schema::migrate(&address).expect("schema");
    let ids = register(&url);

    let mut pod = start_pod(&url, &nats.url());
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(measure(pod.id(), listening(&mut pod), &ids));
    drop(runtime);
    pod.kill().and_then(|()| pod.wait()).expect("the pod ends");
    nats.stop();
    postgres.stop();
    stores::remove_all(&folder).expect("removed");
}

fn register(url: &str) -> Vec<Uuid> {
    let ids: Vec<Uuid> = (0..*STEPS.last().expect("steps")).map(|_| Uuid::new_v4()).collect();
    let mut client = postgres::Client::connect(url, postgres::NoTls).expect("connection");
    let insert = "insert into satellites (id, name, region, token_hash)
                  select id, 'bench', 'eu', $2 from unnest($1::uuid[]) as i (id)";
    client.execute(insert, &[&ids, &Digest::of(TOKEN).to_stored()]).expect("satellites");
    ids
}

fn start_pod(database_url: &str, nats_url: &str) -> Child {
    Command::new(env!("CARGO_BIN_EXE_groundstation"))
        .arg("serve")
        .env_clear()
        .env("DATABASE_URL", database_url)
        .env("NATS_URL", nats_url)
        .env("GROUNDSTATION_LISTEN", "127.0.0.1:0")
        .env("GROUNDSTATION_LOG_FORMAT", "json")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a pod")
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

async fn measure(pod: u32, address: SocketAddr, ids: &[Uuid]) {
    drop(connect(address, &ids[..WARM_UP]).await);
    sleep(REST).await;
    let empty = resident_bytes(pod);
    println!("{:<46} {:>12} {:>12}", "idle authenticated satellites", "resident", "each");
    println!("{:<46} {:>8} KiB {:>12}", 0, empty / 1024, "");
    let allowed = file_descriptors(pod).saturating_sub(200);
    let mut sockets: Vec<Socket> = Vec::new();
    for satellites in STEPS {
        if satellites > allowed {
            println!("{satellites:<46} not measured: {allowed} file descriptors are allowed");
            continue;
        }
        sockets.extend(connect(address, &ids[sockets.len()..satellites]).await);
        let begun = std::time::Instant::now();
        while begun.elapsed() < REST {
            beat(&mut sockets).await;
            sleep(BEATS).await;
        }
        let resident = resident_bytes(pod);
        let each = resident.saturating_sub(empty) / satellites as u64;
        println!("{satellites:<46} {:>8} KiB {each:>6} bytes", resident / 1024);
    }
}

async fn connect(address: SocketAddr, ids: &[Uuid]) -> Vec<Socket> {
    let connecting = stream::iter(ids).map(|id| async move {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let url = format!("ws://{address}/api/ws/satellite");
        let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
        let upgraded = tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await;
        let mut socket = upgraded.expect("an upgrade").0;
        let authenticate = json!({"type": "authenticate", "clientId": id, "token": TOKEN,
                                  "capabilities": ["http", "scrape"]});
        socket.send(Message::text(authenticate.to_string())).await.expect("sent");
        let answer = socket.next().await.expect("an answer").expect("a frame");
        assert!(answer.to_text().expect("text").contains("authenticated"), "{answer}");
        socket
    });
    connecting.buffer_unordered(AT_ONCE).collect().await
}

async fn beat(sockets: &mut [Socket]) {
    let heartbeat =
        json!({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 60}).to_string();
    for socket in sockets {
        socket.send(Message::text(heartbeat.clone())).await.expect("sent");
    }
}

fn resident_bytes(pod: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pod}/status")).expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

fn file_descriptors(pod: u32) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{pod}/limits")).expect("/proc");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let soft = line.split_whitespace().nth(3).expect("the soft limit");
    soft.parse().unwrap_or(usize::MAX)
}
