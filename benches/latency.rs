//! The time from an edge's socket event to a subscriber, at a steady rate of edges; against one
//! commit and one publish, one after the other.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{interval, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::Scale;
use crate::pod::{Pod, percentile};
use crate::stores::{Stores, TOKEN};
use crate::table::{self, compared, millis, note};

const EDGES_PER_SECOND: u32 = 200;
/// Satellites that are connected at the same time.
const HERE: usize = 50;

type Socket = WebSocketStream<TcpStream>;
/// When each edge of each satellite began.
type Begun = Arc<Mutex<HashMap<(Uuid, &'static str), Instant>>>;

pub fn measure(scale: Scale) {
    let stores = Stores::start();
    let ids = stores.register(2_000);
    let how_long = scale.choose(Duration::from_secs(20), Duration::from_secs(1));
    let (pod, _) = Pod::start(&stores, "bench");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let (mut bare, mut ours, mut again) = runtime.block_on(async {
        let nats = stores.nats().await;
        relays(&pod, &ids, &nats).await;
        let bare = commits_and_publishes(&stores, &nats, how_long / 2).await;
        let ours = edges(&pod, &nats, &ids, how_long).await;
        (bare, ours, commits_and_publishes(&stores, &nats, how_long / 2).await)
    });
    bare.append(&mut again);
    table::section(&format!(
        "From a socket's event to a subscriber, {EDGES_PER_SECOND} edges/s ({} of them)",
        ours.len()
    ));
    for (what, part, aim) in [("p50", 0.5, "3 times"), ("p99", 0.99, "10 ms")] {
        let (ours, bare) = (percentile(&mut ours, part), percentile(&mut bare, part));
        let what = format!("edge latency, {what}; bare: one commit, one publish");
        compared(&what, millis(ours), millis(bare), ours / bare, aim);
    }
    let append = pod.metric("groundstation_append_seconds_sum")
        / pod.metric("groundstation_append_seconds_count");
    note(&format!("of it, the transaction of an append: {} on average", millis(append)));
}

/// Waits until an edge arrives: the relay may have to wait for a lease.
async fn relays(pod: &Pod, ids: &[Uuid], nats: &async_nats::Client) {
    let mut connected = nats.subscribe("satellite.connected").await.expect("subscribed");
    let mut disconnected = nats.subscribe("satellite.disconnected").await.expect("subscribed");
    nats.flush().await.expect("flushed");
    let mut socket = open(pod.address).await;
    authenticate(&mut socket, ids[0]).await;
    connected.next().await.expect("an edge");
    socket.send(Message::Close(None)).await.expect("sent");
    disconnected.next().await.expect("an edge");
}

async fn edges(pod: &Pod, nats: &async_nats::Client, ids: &[Uuid], how_long: Duration) -> Vec<f64> {
    let begun = Begun::default();
    let mut heard = nats.subscribe("satellite.>").await.expect("subscribed");
    nats.flush().await.expect("flushed");
    let waiting = begun.clone();
    let listener = tokio::spawn(async move {
        let mut waits = Vec::new();
        while let Some(message) = heard.next().await {
            let at = Instant::now();
            let body: Value = serde_json::from_slice(&message.payload).expect("JSON");
            // Pods also send requests on subjects below `satellite`.
            let Some(id) = body["satelliteId"].as_str() else { continue };
            let id: Uuid = id.parse().expect("a UUID");
            let event = match message.subject.as_str() {
                "satellite.connected" => "connected",
                "satellite.disconnected" => "disconnected",
                // The end marker, published below.
                _ => break,
            };
            if let Some(began) = waiting.lock().expect("lock").remove(&(id, event)) {
                waits.push((at - began).as_secs_f64());
            }
        }
        waits
    });
    // One edge a tick: a satellite connects, or the one that connected longest ago leaves.
    let mut ticks = interval(Duration::from_secs(1) / EDGES_PER_SECOND);
    let (mut here, mut coming) = (VecDeque::new(), false);
    let until = Instant::now() + how_long;
    let mut next = ids.iter().cycle();
    while Instant::now() < until {
        ticks.tick().await;
        coming = !coming;
        if coming || here.len() < HERE {
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
    let end = json!({"satelliteId": ids[0]}).to_string();
    nats.publish("satellite.bench_ends", end.into()).await.expect("the end");
    nats.flush().await.expect("flushed");
    listener.await.expect("a listener")
}

async fn open(address: SocketAddr) -> Socket {
    let stream = TcpStream::connect(address).await.expect("a connection");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let url = format!("ws://{address}/api/ws/satellite");
    tokio_tungstenite::client_async(url, stream).await.expect("an upgrade").0
}

async fn authenticate(socket: &mut Socket, id: Uuid) {
    let authenticate = json!({"type": "authenticate", "clientId": id, "token": TOKEN});
    socket.send(Message::text(authenticate.to_string())).await.expect("sent");
}

async fn commits_and_publishes(
    stores: &Stores,
    nats: &async_nats::Client,
    how_long: Duration,
) -> Vec<f64> {
    let (client, connection) =
        tokio_postgres::connect(&stores.url(), tokio_postgres::NoTls).await.expect("connection");
    tokio::spawn(connection);
    let table = "create table if not exists bare (n bigint, body text)";
    client.batch_execute(table).await.expect("a table");
    let insert = client.prepare("insert into bare values ($1, $2)").await.expect("statement");
    let context = jetstream::new(nats.clone());
    let config = jetstream::stream::Config {
        name: "BARE".to_owned(),
        subjects: vec!["bare".to_owned()],
        ..Default::default()
    };
    context.get_or_create_stream(config).await.expect("a stream");
    let (body, mut waits) = ("x".repeat(600), Vec::new());
    let mut ticks = interval(Duration::from_secs(1) / EDGES_PER_SECOND);
    let until = Instant::now() + how_long;
    while Instant::now() < until {
        ticks.tick().await;
        let began = Instant::now();
        client.execute(&insert, &[&(waits.len() as i64), &body]).await.expect("a commit");
        let published = context.publish("bare", body.clone().into()).await.expect("published");
        published.await.expect("an ack");
        waits.push(began.elapsed().as_secs_f64());
    }
    waits
}
