//! A client that does not read is dropped in time, and no other client waits for it.
//!
//! A pod sends an idle satellite too little to fill a socket, so this drives the gateway's WebSocket layer by itself,
//! with a session that echoes what it hears.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::routing::get;
use axum::{Extension, Router};
use futures_util::{SinkExt, StreamExt};
use groundstation::gateway::room::Room;
use groundstation::gateway::socket::{self, Broken, Socket, Upgrade};
use groundstation::ingress::listener::Door;
use groundstation::ingress::settings::Settings;
use groundstation::platform::metrics::Metrics;
use groundstation::platform::metrics::exposition::Form;
use groundstation::pod::config::ServeArgs;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// How a socket ended, and after how long, counted from its last successful write.
type Ends = mpsc::UnboundedSender<(Broken, Duration)>;

#[derive(Clone)]
struct Shared {
    settings: Settings,
    metrics: Metrics,
    ends: Ends,
}

fn settings() -> Settings {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }
    let arguments = ["serve", "--database-url=postgres://h/d", "--nats-url=nats://h"];
    let more = ["--write-timeout=2s", "--message-burst=100000", "--message-rate=100000"];
    let cli: Cli = clap::Parser::parse_from(arguments.iter().chain(&more));
    cli.serve.check().expect("settings").door
}

async fn serve(ends: Ends) -> (SocketAddr, Metrics) {
    let (settings, metrics) = (settings(), Metrics::new());
    let shared = Shared { settings: settings.clone(), metrics: metrics.clone(), ends };
    let routes = Router::new().route("/", get(accept)).layer(Extension(shared));
    let door = Door::new(settings, metrics.clone()).expect("a door");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(door.serve(listener, routes, CancellationToken::new()));
    (address, metrics)
}

async fn accept(
    Extension(shared): Extension<Shared>,
    upgrade: Upgrade,
) -> axum::response::Response {
    let (ends, settings, metrics) = (shared.ends, shared.settings, shared.metrics);
    let (bytes, largest) = (settings.large_message_bytes, settings.max_message_bytes);
    let patience = settings.large_message_timeout;
    socket::upgrade(
        upgrade,
        settings.socket,
        Room::new(bytes, largest, patience, metrics.clone()),
        metrics,
        |mut socket: Socket| async move {
            let mut written = Instant::now();
            loop {
                let end = match socket.recv().await {
                    Some(Ok(message @ Message::Text(_))) => match socket.write(message).await {
                        Ok(()) => {
                            written = Instant::now();
                            continue;
                        }
                        Err(broken) => broken,
                    },
                    Some(Ok(_)) => continue,
                    Some(Err(broken)) => broken,
                    None => return,
                };
                ends.send((end, written.elapsed())).ok();
                return;
            }
        },
    )
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_dropped_and_the_one_beside_it_waits_for_nothing() {
    let (tell, mut ends) = mpsc::unbounded_channel();
    let (address, metrics) = serve(tell).await;
    let url = format!("ws://{address}/");
    let (mut deaf, _) = tokio_tungstenite::connect_async(&url).await.expect("a socket");
    let (mut beside, _) = tokio_tungstenite::connect_async(&url).await.expect("a socket");
    let large = "x".repeat(60_000);
    let flood = tokio::spawn(async move {
        // Ends when the other side gives up.
        while deaf.send(Message::text(large.clone())).await.is_ok() {}
    });
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    let (end, after) = loop {
        let asked_at = Instant::now();
        beside.send(Message::text("hello")).await.expect("sent");
        let answer = beside.next().await.expect("an answer").expect("a frame");
        assert_eq!(answer, Message::text("hello"));
        slowest = slowest.max(asked_at.elapsed());
        asked += 1;
        match tokio::time::timeout(Duration::from_millis(20), ends.recv()).await {
            Ok(end) => break end.expect("an end"),
            Err(_) => continue,
        }
    };
    assert_eq!(end, Broken::Gone);
    assert!(after >= WRITE_TIMEOUT - Duration::from_millis(100), "{after:?}");
    assert!(after < WRITE_TIMEOUT * 3, "{after:?}");
    assert!(asked > 20, "{asked} answers");
    assert!(slowest < WRITE_TIMEOUT / 2, "the one beside waited {slowest:?}");
    let counted = metrics.encode(Form::Text).expect("metrics");
    assert!(counted.contains("door_refusals_total{reason=\"write_timeout\"} 1"), "{counted}");
    flood.await.expect("the flood ended");
}
