//! A satellite: a real WebSocket that does what the test orders, valid or not.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use super::raw;
use super::schemas;
use super::wait::PATIENCE;

/// The credentials of a satellite.
#[derive(Debug, Clone)]
pub struct Credentials {
    pub id: Uuid,
    pub token: String,
}

/// What the other side said.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    Message(Value),
    /// The connection was closed with this code.
    Closed(u16),
    /// The connection ended without a close frame.
    Dropped,
}

#[derive(Debug)]
enum Order {
    Send(Message),
    Beat(Duration),
    Silence,
    Tell(oneshot::Sender<()>),
}

/// A socket. Dropping it breaks the connection without a close frame.
#[derive(Debug)]
pub struct Satellite {
    orders: mpsc::UnboundedSender<Order>,
    heard: mpsc::UnboundedReceiver<Heard>,
    task: JoinHandle<()>,
}

impl Satellite {
    /// Opens a socket and says nothing.
    pub async fn open(address: SocketAddr) -> Satellite {
        let opened = timeout(PATIENCE, try_open(address)).await.expect("an upgrade in time");
        opened.unwrap_or_else(|error| panic!("no WebSocket at {address}: {error}"))
    }

    /// Opens a socket, if the pod takes it.
    pub async fn try_open(address: SocketAddr) -> Result<Satellite, Error> {
        timeout(PATIENCE, try_open(address)).await.expect("an answer in time")
    }

    /// Opens a socket with more headers, if the pod takes it.
    pub async fn try_open_with(
        address: SocketAddr,
        headers: &[(&'static str, &str)],
    ) -> Result<Satellite, Error> {
        let mut request = url(address).into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().expect("a header"));
        }
        let connected = tokio_tungstenite::connect_async(request);
        let (socket, _) = timeout(PATIENCE, connected).await.expect("an answer in time")?;
        Ok(Satellite::over(socket))
    }

    /// Opens a socket from this address of this machine, if the pod takes it.
    pub async fn try_open_from(address: SocketAddr, from: IpAddr) -> Result<Satellite, Error> {
        let opened = async {
            let stream = MaybeTlsStream::Plain(raw::stream_from(address, from).await?);
            tokio_tungstenite::client_async(url(address), stream).await
        };
        let (socket, _) = timeout(PATIENCE, opened).await.expect("an answer in time")?;
        Ok(Satellite::over(socket))
    }

    /// Makes a satellite of an open WebSocket.
    pub fn over(socket: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Satellite {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (tell, heard) = mpsc::unbounded_channel();
        let task = tokio::spawn(live(socket, ordered, tell));
        Satellite { orders, heard, task }
    }

    /// Opens a socket and authenticates on it.
    pub async fn connect(address: SocketAddr, credentials: &Credentials) -> Satellite {
        let (satellite, authenticated) = Satellite::welcomed(address, credentials).await;
        let expected =
            json!({"type": "authenticated", "satelliteId": credentials.id, "assignments": []});
        assert_eq!(authenticated, expected);
        satellite
    }

    /// Opens a socket and authenticates on it; returns the answer too.
    pub async fn welcomed(address: SocketAddr, credentials: &Credentials) -> (Satellite, Value) {
        let mut satellite = Satellite::open(address).await;
        satellite.authenticate(credentials);
        let authenticated = satellite.expect("authenticated").await;
        (satellite, authenticated)
    }

    /// Sends `authenticate`.
    pub fn authenticate(&self, credentials: &Credentials) {
        let Credentials { id, token } = credentials;
        self.send(&json!({"type": "authenticate", "clientId": id, "token": token}));
    }

    /// Sends one heartbeat.
    pub fn beat(&self) {
        self.send(&heartbeat());
    }

    /// Sends heartbeats until told otherwise.
    pub fn beat_every(&self, period: Duration) {
        self.order(Order::Beat(period));
    }

    /// Sends no more heartbeats, and stays connected.
    pub fn fall_silent(&self) {
        self.order(Order::Silence);
    }

    /// Sends a message.
    pub fn send(&self, message: &Value) {
        self.send_frame(Message::text(message.to_string()));
    }

    /// Sends any frame.
    pub fn send_frame(&self, frame: Message) {
        self.order(Order::Send(frame));
    }

    /// The next thing that the other side says.
    pub async fn hear(&mut self) -> Heard {
        let heard = timeout(PATIENCE, self.heard.recv()).await;
        heard.expect("the pod says something in time").unwrap_or(Heard::Dropped)
    }

    /// The next message, which must be of this type.
    pub async fn expect(&mut self, kind: &str) -> Value {
        match self.hear().await {
            Heard::Message(message) if message["type"] == kind => message,
            other => panic!("expected {kind}, heard {other:?}"),
        }
    }

    /// The next message is the end of the session for this reason, and then the close.
    pub async fn expect_shutdown(&mut self, reason: &str) {
        assert_eq!(self.expect("shutdown").await["reason"], reason);
        assert_eq!(self.hear().await, Heard::Closed(1000));
    }

    /// Waits until all earlier orders have left this process.
    pub async fn expect_sent(&self) {
        let (tell, sent) = oneshot::channel();
        self.order(Order::Tell(tell));
        timeout(PATIENCE, sent).await.expect("the socket takes it").expect("the socket is open");
    }

    /// Sends a close frame and waits for the answer, which must be a close frame too.
    pub async fn close(mut self) {
        self.send_frame(Message::Close(None));
        assert!(matches!(self.hear().await, Heard::Closed(_)), "a goodbye was not answered");
    }

    /// Breaks the connection without a close frame.
    pub fn vanish(self) {}

    fn order(&self, order: Order) {
        // The task ends only with the connection, and then the order has no effect.
        self.orders.send(order).ok();
    }
}

impl Drop for Satellite {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn try_open(address: SocketAddr) -> Result<Satellite, Error> {
    let (socket, _) = tokio_tungstenite::connect_async(url(address)).await?;
    Ok(Satellite::over(socket))
}

fn url(address: SocketAddr) -> String {
    format!("ws://{address}/api/ws/satellite")
}

async fn live(
    mut socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    tell: mpsc::UnboundedSender<Heard>,
) {
    let mut beats: Option<Interval> = None;
    let mut said_goodbye = false;
    loop {
        let frame = tokio::select! {
            Some(order) = orders.recv() => match order {
                Order::Send(frame) => Some(frame),
                Order::Beat(period) => {
                    beats = Some(steady(period));
                    None
                }
                Order::Silence => {
                    beats = None;
                    None
                }
                Order::Tell(sent) => {
                    sent.send(()).ok();
                    None
                }
            },
            () = next_beat(&mut beats) => Some(Message::text(heartbeat().to_string())),
            heard = socket.next() => {
                let heard = match heard {
                    Some(Ok(Message::Text(text))) => {
                        let message = serde_json::from_str(&text).expect("the pod sends JSON");
                        assert_eq!(schemas::fault_of_told(&message), None);
                        Heard::Message(message)
                    }
                    Some(Ok(Message::Close(frame))) => {
                        said_goodbye = true;
                        Heard::Closed(frame.map_or(1005, |frame| frame.code.into()))
                    }
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None if said_goodbye => return,
                    Some(Err(_)) | None => Heard::Dropped,
                };
                let over = heard == Heard::Dropped;
                if tell.send(heard).is_err() || over {
                    return;
                }
                None
            }
        };
        if let Some(frame) = frame {
            // A broken connection shows when reading, where a close frame may still be waiting.
            socket.send(frame).await.ok();
        }
    }
}

fn steady(period: Duration) -> Interval {
    let mut beats = interval(period);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}

async fn next_beat(beats: &mut Option<Interval>) {
    match beats {
        Some(beats) => drop(beats.tick().await),
        None => std::future::pending().await,
    }
}

fn heartbeat() -> Value {
    json!({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 1})
}
