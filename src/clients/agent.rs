//! The satellite's side of the connection. It behaves as the agent of Checkstack 0.5: it connects,
//! authenticates, sends heartbeats, and comes back for ever.
//!
//! `groundstation agent` runs one real satellite, `simulate` and `dev` many.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use uuid::Uuid;

/// How long it may take to open a connection, and to get the answer to `authenticate`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The first pause before a reconnect. It doubles each time, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause before a reconnect of an agent in the field.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// How far a pause may be off either way, as a part of it.
const JITTER: f64 = 0.25;

/// The buffer's size, which is enough for a heartbeat.
const BUFFER_BYTES: usize = 4 * 1024;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A satellite's credentials, and the address to which it connects.
#[derive(Clone)]
pub struct Identity {
    /// `ws://…/api/ws/satellite` or `wss://…`.
    pub url: String,
    /// Its `clientId`.
    pub id: Uuid,
    /// Its token.
    pub token: SecretString,
    /// How often it sends a heartbeat.
    pub heartbeat_interval: Duration,
    /// The longest pause before a reconnect: [`LONGEST_PAUSE`], or less if thresholds are shorter
    /// than in the field.
    pub longest_pause: Duration,
    /// The capabilities that it announces.
    pub capabilities: Vec<String>,
    /// The local address from which it connects; the system's choice if `None`.
    pub from: Option<IpAddr>,
}

/// What a satellite is ordered to do, in demonstrations and simulations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Close the connection and stay away this long.
    Leave(Duration),
    /// Break the connection without closing it and reconnect as usual.
    Drop,
    /// Keep the connection and send nothing for this long.
    FallSilent(Duration),
}

/// What happened to a satellite, from its own point of view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    /// The pod authenticated it, this long after it began to connect.
    Authenticated(Duration),
    /// The pod refused it.
    Refused(String),
    /// The pod sent a `shutdown`.
    Shutdown(String),
    /// It sent a heartbeat.
    Heartbeat,
    /// The connection could not be opened, or ended.
    Disconnected(String),
    /// It reconnects after this.
    Pausing(Duration),
}

/// The pause before try `n` (0 is the first after a success): `min(longest, 1 s · 2^n)` ± 25 %.
/// `chance` is from 0 to 1.
pub fn backoff(n: u32, longest: Duration, chance: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << n.min(10)).min(longest);
    doubled.mul_f64(1.0 + JITTER * (2.0 * chance.clamp(0.0, 1.0) - 1.0))
}

/// Runs a satellite until the task is dropped, or `orders` is closed: then it closes its connection
/// and returns. `tell` receives everything that happens and must not block.
pub async fn run(
    identity: Identity,
    mut orders: mpsc::Receiver<Order>,
    mut tell: impl FnMut(Happening),
) {
    let mut failures = 0;
    loop {
        let ended = connect_and_hold(&identity, &mut orders, &mut tell, &mut failures).await;
        let pause = match ended {
            Ended::ForGood => return,
            Ended::Left(away) => away,
            Ended::ComeBack => {
                let pause = backoff(failures, identity.longest_pause, fastrand::f64());
                failures = failures.saturating_add(1);
                pause
            }
        };
        tell(Happening::Pausing(pause));
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(until) => break,
                // It is away already: an order does not apply.
                order = orders.recv() => if order.is_none() { return },
            }
        }
    }
}

enum Ended {
    ForGood,
    Left(Duration),
    ComeBack,
}

async fn connect_and_hold(
    identity: &Identity,
    orders: &mut mpsc::Receiver<Order>,
    tell: &mut impl FnMut(Happening),
    failures: &mut u32,
) -> Ended {
    let began = Instant::now();
    let socket = match timeout(CONNECT_TIMEOUT, connect(identity)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(error)) => {
            tell(Happening::Disconnected(error));
            return Ended::ComeBack;
        }
        Err(_) => {
            tell(Happening::Disconnected(format!("no answer within {CONNECT_TIMEOUT:?}")));
            return Ended::ComeBack;
        }
    };
    let mut connection = Connection { identity, socket, tell };
    let ended = match timeout(CONNECT_TIMEOUT, connection.authenticate()).await {
        Ok(Ok(())) => {
            *failures = 0;
            (connection.tell)(Happening::Authenticated(began.elapsed()));
            connection.hold(orders).await
        }
        Ok(Err(ended)) => ended,
        Err(_) => Err(format!("not authenticated within {CONNECT_TIMEOUT:?}")),
    };
    ended.unwrap_or_else(|why| {
        tell(Happening::Disconnected(why));
        Ended::ComeBack
    })
}

async fn connect(identity: &Identity) -> Result<Socket, String> {
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(16 * 1024 * 1024));
    let url = identity.url.as_str();
    let connected = match identity.from {
        None => tokio_tungstenite::connect_async_with_config(url, Some(config), true).await,
        Some(from) => {
            let stream = open(url, from).await.map_err(|error| format!("from {from}: {error}"))?;
            client_async_tls_with_config(url, stream, Some(config), None).await
        }
    };
    connected.map(|(socket, _)| socket).map_err(|error| error.to_string())
}

/// Opens a TCP connection to a URL's host from this local address.
async fn open(url: &str, from: IpAddr) -> io::Result<TcpStream> {
    let invalid = |why: &str| io::Error::new(io::ErrorKind::InvalidInput, why);
    let uri: ureq::http::Uri = url.parse().map_err(|_| invalid("not a URL"))?;
    let host = uri.host().ok_or_else(|| invalid("a URL without a host"))?;
    let host = host.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("wss") { 443 } else { 80 });
    let mut addresses = tokio::net::lookup_host((host, port)).await?;
    let to = addresses.find(|to| to.is_ipv4() == from.is_ipv4());
    let to = to.ok_or_else(|| invalid("the host has no address of that kind"))?;
    let socket = if from.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(from, 0))?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// One open connection.
struct Connection<'a, T: FnMut(Happening)> {
    identity: &'a Identity,
    socket: Socket,
    tell: &'a mut T,
}

/// The end of a connection; the error is the reason of a broken one.
type End = Result<Ended, String>;

impl<T: FnMut(Happening)> Connection<'_, T> {
    async fn authenticate(&mut self) -> Result<(), End> {
        let message = json!({
            "type": "authenticate",
            "clientId": self.identity.id,
            "token": self.identity.token.expose_secret(),
            "capabilities": self.identity.capabilities,
        });
        self.send(&message).await.map_err(Err)?;
        loop {
            let message = self.hear().await.map_err(Err)?;
            match message["type"].as_str() {
                Some("authenticated") => return Ok(()),
                Some("auth_failed") => {
                    (self.tell)(Happening::Refused(reason(&message)));
                    return Err(self.close(CloseCode::Library(4001)).await);
                }
                _ => {}
            }
        }
    }

    async fn hold(&mut self, orders: &mut mpsc::Receiver<Order>) -> End {
        let started = Instant::now();
        let every = self.identity.heartbeat_interval;
        let mut heartbeats = interval_at(started + every, every);
        // Like a timer in the field: it does not catch up on missed heartbeats.
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_until = started;
        loop {
            tokio::select! {
                _ = heartbeats.tick() => {
                    if Instant::now() >= silent_until {
                        self.heartbeat(started.elapsed()).await?;
                    }
                }
                message = self.hear() => {
                    let message = message?;
                    if message["type"] == "shutdown" {
                        (self.tell)(Happening::Shutdown(reason(&message)));
                        return self.close(CloseCode::Normal).await;
                    }
                }
                order = orders.recv() => match order {
                    Some(Order::FallSilent(how_long)) => silent_until = Instant::now() + how_long,
                    Some(Order::Drop) => return Err("dropped on purpose".to_owned()),
                    Some(Order::Leave(away)) => {
                        self.close(CloseCode::Normal).await?;
                        return Ok(Ended::Left(away));
                    }
                    None => {
                        self.close(CloseCode::Normal).await?;
                        return Ok(Ended::ForGood);
                    }
                },
            }
        }
    }

    async fn heartbeat(&mut self, uptime: Duration) -> Result<(), String> {
        let message = json!({
            "type": "heartbeat",
            "version": env!("CARGO_PKG_VERSION"),
            "uptimeSeconds": uptime.as_secs(),
        });
        self.send(&message).await?;
        (self.tell)(Happening::Heartbeat);
        Ok(())
    }

    async fn send(&mut self, message: &Value) -> Result<(), String> {
        let send = self.socket.send(Message::text(message.to_string()));
        match timeout(CONNECT_TIMEOUT, send).await {
            Ok(sent) => sent.map_err(|error| error.to_string()),
            Err(_) => Err("the core does not read".to_owned()),
        }
    }

    /// The next message; an error once the connection has ended.
    async fn hear(&mut self) -> Result<Value, String> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return serde_json::from_str(&text).map_err(|_| "not JSON".to_owned());
                }
                Some(Ok(Message::Close(frame))) => {
                    return Err(match frame {
                        Some(frame) => format!("closed with {} {}", frame.code, frame.reason),
                        None => "closed".to_owned(),
                    });
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("connection lost".to_owned()),
            }
        }
    }

    /// Closes the connection. The other side gets a moment to answer.
    async fn close(&mut self, code: CloseCode) -> End {
        let frame = CloseFrame { code, reason: "".into() };
        let goodbye = async {
            if self.socket.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        tokio::select! {
            () = goodbye => {}
            () = sleep(Duration::from_secs(2)) => {}
        }
        Ok(Ended::ComeBack)
    }
}

fn reason(message: &Value) -> String {
    message["reason"].as_str().unwrap_or("no reason given").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_thirty_seconds_and_are_off_by_a_quarter_at_most() {
        let cases = [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (6, 30), (u32::MAX, 30)];
        for (n, seconds) in cases {
            let exact = Duration::from_secs(seconds);
            assert_eq!(backoff(n, LONGEST_PAUSE, 0.5), exact, "{n}");
            assert_eq!(backoff(n, LONGEST_PAUSE, 0.0), exact.mul_f64(0.75), "{n}");
            assert_eq!(backoff(n, LONGEST_PAUSE, 1.0), exact.mul_f64(1.25), "{n}");
        }
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_agent_connects_from_the_address_it_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let url = format!("ws://{}/", listener.local_addr().expect("an address"));
        let from: IpAddr = "127.0.0.7".parse().expect("an address");
        let (opened, accepted) = tokio::join!(open(&url, from), listener.accept());
        opened.expect("a connection");
        assert_eq!(accepted.expect("a connection").1.ip(), from);
    }
}
