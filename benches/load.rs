//! A real pod under load over real sockets: how soon it is ready and what it costs idle; connects;
//! heartbeats from frame to stored row; the latency of an edge from its socket event to a subscriber.
//!
//! The load comes from this process, on the same cores; what it costs is told beside.
//! `GROUNDSTATION_BENCH=smoke` runs all of it for a moment, to show that it works.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::{SinkExt, StreamExt, stream};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{interval, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use uuid::Uuid;

mod common;

use common::{Pod, Stores, TOKEN, own_cpu, percentile, sockets_allowed};

/// Satellites that connect at the same time.
const AT_ONCE: usize = 256;
/// Tasks that send heartbeats, each for its share of the sockets.
const SENDERS: usize = 16;
/// Rows in one bare UPDATE: as many as the pod writes at once.
const BATCH: usize = 1_000;
/// Edges a second while latency is measured.
const EDGES_PER_SECOND: u64 = 200;

type Socket = WebSocketStream<TcpStream>;

/// How much of everything.
struct Scale {
    satellites: usize,
    load: Duration,
}

fn main() {
    let smoke = std::env::var("GROUNDSTATION_BENCH").is_ok_and(|scale| scale == "smoke");
    let scale = if smoke {
        Scale { satellites: 200, load: Duration::from_secs(1) }
    } else {
        Scale { satellites: 15_000.min(sockets_allowed()), load: Duration::from_secs(15) }
    };
    let stores = Stores::start("load");
    let ids = stores.register(scale.satellites);
    println!("\nPostgres {}, one pod, {} satellites\n", stores.version, scale.satellites);

    let mut starts: Vec<f64> = (0..5).map(|_| stores.pod("start").1.as_secs_f64()).collect();
    println!("start to ready, both stores up       {:>10.2} s", percentile(&mut starts, 0.5));
    let (pod, _) = stores.pod("bench");
    std::thread::sleep(Duration::from_secs(3));
    println!("resident memory, idle                {:>10.1} MiB", mib(pod.resident()));
    let binary = std::fs::metadata(env!("CARGO_BIN_EXE_groundstation")).expect("the binary").len();
    println!("size of the binary                   {:>10.1} MiB", mib(binary));

    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let sockets = connects(&pod, &ids).await;
        heartbeats(&pod, &stores, sockets, &ids, scale.load).await;
        latency(&pod, &stores, &ids, scale.load).await;
    });
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// Everybody connects; each with its durable `connected` edge.
async fn connects(pod: &Pod, ids: &[Uuid]) -> Vec<Socket> {
    let (cpu, own, began) = (pod.cpu(), own_cpu(), Instant::now());
    let address = pod.address;
    let connecting = stream::iter(ids).map(|id| connect(address, *id));
    let sockets: Vec<Socket> = connecting.buffer_unordered(AT_ONCE).collect().await;
    let took = began.elapsed().as_secs_f64();
    println!(
        "authenticated connects               {:>10.0} /s     (CPU: pod {:.0} %, load {:.0} %)",
        ids.len() as f64 / took,
        (pod.cpu() - cpu) / took * 100.0,
        (own_cpu() - own) / took * 100.0
    );
    sockets
}

async fn connect(address: std::net::SocketAddr, id: Uuid) -> Socket {
    let mut socket = open(address).await;
    authenticate(&mut socket, id).await;
    let answer = socket.next().await.expect("an answer").expect("a frame");
    assert!(answer.to_text().expect("text").contains("authenticated"), "{answer}");
    socket
}

async fn open(address: std::net::SocketAddr) -> Socket {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let url = format!("ws://{address}/api/ws/satellite");
    let config = WebSocketConfig::default().read_buffer_size(1024).write_buffer_size(0);
    let upgraded = tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await;
    upgraded.expect("an upgrade").0
}

async fn authenticate(socket: &mut Socket, id: Uuid) {
    let authenticate = json!({"type": "authenticate", "clientId": id, "token": TOKEN});
    socket.send(Message::text(authenticate.to_string())).await.expect("sent");
}

/// Heartbeats as fast as the pod takes them, against a bare batched UPDATE of the same rows.
async fn heartbeats(
    pod: &Pod,
    stores: &Stores,
    sockets: Vec<Socket>,
    ids: &[Uuid],
    how_long: Duration,
) {
    let bare = bare_updates(stores, ids, how_long / 3).await;
    let stop = Arc::new(AtomicBool::new(false));
    let share = sockets.len().div_ceil(SENDERS);
    let mut sockets = sockets.into_iter();
    let mut senders = Vec::new();
    for _ in 0..SENDERS {
        let mut own: Vec<Socket> = sockets.by_ref().take(share).collect();
        let stop = stop.clone();
        senders.push(tokio::spawn(async move {
            let frame = heartbeat_frame();
            while !stop.load(Ordering::Relaxed) {
                for socket in &mut own {
                    socket.get_mut().write_all(&frame).await.expect("sent");
                }
            }
        }));
    }
    sleep(how_long / 5).await;
    let read = || {
        let received = pod.metric("groundstation_heartbeats_received_total");
        (received, pod.metric("groundstation_heartbeats_flushed_total"), Instant::now())
    };
    let (cpu, own) = (pod.cpu(), own_cpu());
    let (received, stored, began) = tokio::task::block_in_place(read);
    sleep(how_long).await;
    let (received_then, stored_then, _) = tokio::task::block_in_place(read);
    let took = began.elapsed().as_secs_f64();
    let (cpu, own) = ((pod.cpu() - cpu) / took * 100.0, (own_cpu() - own) / took * 100.0);
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.expect("a sender");
    }
    let (received, stored) = ((received_then - received) / took, (stored_then - stored) / took);
    println!(
        "heartbeats, frames read              {received:>10.0} /s     (CPU: pod {cpu:.0} %, load {own:.0} %)"
    );
    println!(
        "heartbeats, rows stored              {stored:>10.0} /s     bare UPDATE {bare:.0} /s, ratio {:.2}",
        stored / bare
    );
}

/// A text frame as RFC 6455 has it, masked with zeros.
fn heartbeat_frame() -> Vec<u8> {
    let text = json!({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 60}).to_string();
    assert!(text.len() < 126, "a short frame");
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    frame
}

/// Rows a second of a bare batched UPDATE.
async fn bare_updates(stores: &Stores, ids: &[Uuid], how_long: Duration) -> f64 {
    let (client, connection) =
        tokio_postgres::connect(&stores.url(), tokio_postgres::NoTls).await.expect("connection");
    tokio::spawn(connection);
    let update = client
        .prepare(
            "update satellite_connections c
                set last_heartbeat_at = greatest(c.last_heartbeat_at, clock_timestamp())
               from unnest($1::uuid[]) b (id) where c.satellite_id = b.id",
        )
        .await
        .expect("statement");
    let (began, mut rows) = (Instant::now(), 0);
    'all: loop {
        for batch in ids.chunks(BATCH) {
            rows += client.execute(&update, &[&batch]).await.expect("update");
            if began.elapsed() > how_long {
                break 'all;
            }
        }
    }
    rows as f64 / began.elapsed().as_secs_f64()
}

/// From a frame that leaves this process to the message a subscriber hears, at some edges a second;
/// against one commit and one publish, one after the other.
async fn latency(pod: &Pod, stores: &Stores, ids: &[Uuid], how_long: Duration) {
    let nats = async_nats::connect(stores.nats.url()).await.expect("NATS");
    let mut bare = bare_commit_and_publish(stores, &nats, how_long / 3).await;
    let begun: Arc<Mutex<HashMap<(Uuid, &'static str), Instant>>> = Arc::default();
    let mut heard = nats.subscribe("satellite.>").await.expect("subscribed");
    nats.flush().await.expect("flushed");
    let waiting = begun.clone();
    let listener = tokio::spawn(async move {
        let mut waits = Vec::new();
        while let Some(message) = heard.next().await {
            let at = Instant::now();
            let body: Value = serde_json::from_slice(&message.payload).expect("JSON");
            let id: Uuid = body["satelliteId"].as_str().expect("an id").parse().expect("a UUID");
            let event = match message.subject.as_str() {
                "satellite.connected" => "connected",
                "satellite.disconnected" => "disconnected",
                "satellite.removed" => break,
                _ => continue,
            };
            if let Some(began) = waiting.lock().expect("lock").remove(&(id, event)) {
                waits.push((at - began).as_secs_f64() * 1e3);
            }
        }
        waits
    });
    // One edge a tick: a satellite comes, or the one that came longest ago leaves.
    let mut ticks = interval(Duration::from_secs(1) / EDGES_PER_SECOND as u32);
    let mut here = std::collections::VecDeque::new();
    let until = Instant::now() + how_long;
    let mut next = ids.iter().cycle();
    while Instant::now() < until {
        ticks.tick().await;
        if here.len() < 50 {
            let id = *next.next().expect("satellites");
            let mut socket = open(pod.address).await;
            begun.lock().expect("lock").insert((id, "connected"), Instant::now());
            authenticate(&mut socket, id).await;
            here.push_back((id, socket));
        } else if let Some((id, mut socket)) = here.pop_front() {
            begun.lock().expect("lock").insert((id, "disconnected"), Instant::now());
            socket.send(Message::Close(None)).await.expect("sent");
            tokio::spawn(async move { while let Some(Ok(_)) = socket.next().await {} });
        }
    }
    sleep(Duration::from_millis(500)).await;
    nats.publish("satellite.removed", json!({"satelliteId": ids[0]}).to_string().into())
        .await
        .expect("the end");
    nats.flush().await.expect("flushed");
    let mut waits = listener.await.expect("a listener");
    let row = |what: &str, waits: &mut Vec<f64>| {
        let (p50, p99) = (percentile(waits, 0.5), percentile(waits, 0.99));
        println!("{what:<36} {p50:>10.2} ms p50 {p99:>8.2} ms p99   ({} of them)", waits.len());
        (p50, p99)
    };
    let ours = row(&format!("edge latency at {EDGES_PER_SECOND}/s"), &mut waits);
    let theirs = row("one commit and one publish, bare", &mut bare);
    println!("{:<36} {:>10.2}     {:>12.2}", "  ratio", ours.0 / theirs.0, ours.1 / theirs.1);
}

async fn bare_commit_and_publish(
    stores: &Stores,
    nats: &async_nats::Client,
    how_long: Duration,
) -> Vec<f64> {
    let (client, connection) =
        tokio_postgres::connect(&stores.url(), tokio_postgres::NoTls).await.expect("connection");
    tokio::spawn(connection);
    client.batch_execute("create table bare (n bigint, body text)").await.expect("a table");
    let insert = client.prepare("insert into bare values ($1, $2)").await.expect("statement");
    let context = jetstream::new(nats.clone());
    let config = jetstream::stream::Config {
        name: "BARE".to_owned(),
        subjects: vec!["bare".to_owned()],
        ..Default::default()
    };
    context.create_stream(config).await.expect("a stream");
    let (body, mut waits) = ("x".repeat(600), Vec::new());
    let mut ticks = interval(Duration::from_secs(1) / EDGES_PER_SECOND as u32);
    let until = Instant::now() + how_long;
    while Instant::now() < until {
        ticks.tick().await;
        let began = Instant::now();
        client.execute(&insert, &[&(waits.len() as i64), &body]).await.expect("a commit");
        let published = context.publish("bare", body.clone().into()).await.expect("published");
        published.await.expect("an ack");
        waits.push(began.elapsed().as_secs_f64() * 1e3);
    }
    waits
}
