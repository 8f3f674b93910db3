//! Says back whatever it hears, over the gateway's own WebSocket layer and behind its door: what a
//! conformance suite can talk to (`make conformance`). Takes the door's settings of `serve`.

use std::sync::Arc;

use anyhow::Context;
use axum::routing::get;
use axum::{Extension, Router};
use clap::Parser;
use groundstation::gateway::room::Room;
use groundstation::gateway::socket::{self, Broken, Message, Socket, Upgrade};
use groundstation::ingress::listener::Door;
use groundstation::ingress::settings::{DoorArgs, SocketLimits};
use groundstation::platform::metrics::Metrics;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    #[command(flatten)]
    door: DoorArgs,
}

/// What the route needs.
#[derive(Clone)]
struct Echo {
    limits: SocketLimits,
    room: Arc<Room>,
    metrics: Metrics,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let settings = arguments.door.check()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let listener = TcpListener::bind(&arguments.listen).await?;
        println!("{}", listener.local_addr()?);
        let metrics = Metrics::new();
        let (bytes, largest) = (settings.large_message_bytes, settings.max_message_bytes);
        let room = Room::new(bytes, largest, settings.large_message_timeout, metrics.clone());
        let echo = Echo { limits: settings.socket, room, metrics: metrics.clone() };
        let routes = Router::new().route("/", get(accept)).layer(Extension(echo));
        Door::new(settings, metrics)?.serve(listener, routes, CancellationToken::new()).await;
        Ok(())
    })
}

async fn accept(Extension(echo): Extension<Echo>, upgrade: Upgrade) -> axum::response::Response {
    socket::upgrade(upgrade, echo.limits, echo.room, echo.metrics, repeat)
}

async fn repeat(mut socket: Socket) {
    // Whoever talks to an echo is known well enough.
    socket.is_known(None);
    while let Some(heard) = socket.recv().await {
        match heard {
            Ok(Message::Close(_)) => return socket.answer_close().await,
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                if socket.write(message).await.is_err() {
                    return;
                }
            }
            // The layer below answers these.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(Broken::Violation(code)) => return socket.close(code, "").await,
            Err(Broken::Gone) => return,
        }
    }
}
