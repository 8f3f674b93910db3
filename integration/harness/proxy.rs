//! A TCP proxy that misbehaves on demand: in front of Postgres, NATS or a pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// What PostgreSQL says when a COMMIT is done.
const COMMITTED: &[u8] = b"COMMIT\0";

/// What PostgreSQL says when no transaction is open (ReadyForQuery).
const IDLE: &[u8] = b"Z\0\0\0\x05I";

/// Forwards connections until dropped.
pub struct Proxy {
    pub address: SocketAddr,
    control: Arc<Control>,
    accepting: JoinHandle<()>,
}

struct Control {
    target: watch::Sender<SocketAddr>,
    stalled: watch::Sender<Stalled>,
    /// The delay of all bytes, in microseconds.
    delay: AtomicU64,
    /// A counter: connections older than its value end.
    cuts: watch::Sender<u32>,
    /// A counter: bytes of the server on connections older than its value are dropped.
    swallowed: watch::Sender<u32>,
    /// New connections end at once while this is true.
    refusing: watch::Sender<bool>,
    /// What clients set for their sessions gets lost while this is true.
    loses_settings: watch::Sender<bool>,
    /// Answers to COMMIT that are still to be lost, and how many were.
    commits_to_lose: AtomicU32,
    commits_lost: AtomicU32,
    /// Only answers to transactions that name this are lost.
    only_about: watch::Sender<Option<Uuid>>,
}

/// Whose bytes are held back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stalled {
    Nobodys,
    TheClients,
    Everybodys,
}

impl Proxy {
    /// A proxy in front of the address in this URL, and the URL that leads through it.
    pub async fn before(url: &str) -> (Proxy, String) {
        let (_, rest) = url.split_once("127.0.0.1:").expect("a URL of this machine");
        let port = rest.split(|c: char| !c.is_ascii_digit()).next().expect("a port");
        let port: u16 = port.parse().expect("a port");
        let proxy = Proxy::to(SocketAddr::from(([127, 0, 0, 1], port))).await;
        let through = url.replace(&format!("127.0.0.1:{port}"), &proxy.address.to_string());
        (proxy, through)
    }

    /// A proxy in front of this address.
    pub async fn to(target: SocketAddr) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let control = Arc::new(Control {
            target: watch::Sender::new(target),
            stalled: watch::Sender::new(Stalled::Nobodys),
            delay: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
            swallowed: watch::Sender::new(0),
            refusing: watch::Sender::new(false),
            loses_settings: watch::Sender::new(false),
            commits_to_lose: AtomicU32::new(0),
            commits_lost: AtomicU32::new(0),
            only_about: watch::Sender::new(None),
        });
        let accepting = tokio::spawn(accept(listener, control.clone()));
        Proxy { address, control, accepting }
    }

    /// Leads new connections to another address, as a load balancer does.
    pub fn lead_to(&self, target: SocketAddr) {
        self.control.target.send_replace(target);
    }

    /// Ends every open connection.
    pub fn cut(&self) {
        self.control.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends every open connection, and every new one at once.
    pub fn refuse(&self) {
        self.control.refusing.send_replace(true);
        self.cut();
    }

    /// Takes new connections again.
    pub fn admit(&self) {
        self.control.refusing.send_replace(false);
    }

    /// Delays all bytes by this much.
    pub fn delay(&self, delay: Duration) {
        self.control.delay.store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    /// Holds all bytes back, those of new connections too, without closing anything.
    pub fn stall(&self) {
        self.control.stalled.send_replace(Stalled::Everybodys);
    }

    /// The same, but what the server says still passes.
    pub fn stall_requests(&self) {
        self.control.stalled.send_replace(Stalled::TheClients);
    }

    /// Passes bytes on again, those held back first.
    pub fn resume(&self) {
        self.control.stalled.send_replace(Stalled::Nobodys);
    }

    /// Reads and drops everything that the server says on open connections. New connections work as before.
    pub fn swallow(&self) {
        self.control.swallowed.send_modify(|swallowed| *swallowed += 1);
    }

    /// Loses what Postgres' clients set for their sessions from now on, as a pooler does that answers such statements
    /// in one session and others in another.
    pub fn lose_settings(&self) {
        self.control.loses_settings.send_replace(true);
    }

    /// Loses the next `count` answers to COMMIT: ends the connection instead.
    pub fn lose_commits(&self, count: u32) {
        self.control.only_about.send_replace(None);
        self.control.commits_to_lose.store(count, Ordering::SeqCst);
    }

    /// Loses the answer to the next COMMIT of a transaction that names this: ends the connection instead.
    pub fn lose_commit_about(&self, id: Uuid) {
        self.control.only_about.send_replace(Some(id));
        self.control.commits_to_lose.store(1, Ordering::SeqCst);
    }

    /// How many answers to COMMIT were lost.
    pub fn commits_lost(&self) -> u32 {
        self.control.commits_lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    while let Ok((client, _)) = listener.accept().await {
        if !*control.refusing.borrow() {
            tokio::spawn(forward(client, control.clone()));
        }
    }
}

async fn forward(client: TcpStream, control: Arc<Control>) {
    let mut cuts = control.cuts.subscribe();
    cuts.mark_unchanged();
    let target = *control.target.borrow();
    let Ok(server) = TcpStream::connect(target).await else { return };
    for socket in [&client, &server] {
        socket.set_nodelay(true).expect("TCP_NODELAY");
    }
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let born = *control.swallowed.borrow();
    // Whether the open transaction names what a commit is to be lost for.
    let names_it = AtomicBool::new(false);
    let anything = |stalled: &Stalled| *stalled != Stalled::Nobodys;
    let there = pump(client_read, server_write, &control, anything, |bytes| {
        if control.only_about.borrow().is_some_and(|id| contains(bytes, id.as_bytes())) {
            names_it.store(true, Ordering::SeqCst);
        }
        if *control.loses_settings.borrow() {
            lose_settings(bytes);
        }
        Ok(())
    });
    let everything = |stalled: &Stalled| *stalled == Stalled::Everybodys;
    let back = pump(server_read, client_write, &control, everything, |bytes| {
        if *control.swallowed.borrow() != born {
            bytes.clear();
        }
        let is_about = control.only_about.borrow().is_none() || names_it.load(Ordering::SeqCst);
        if is_about && loses(&control, bytes) {
            return Err(Cut);
        }
        if bytes.ends_with(IDLE) {
            names_it.store(false, Ordering::SeqCst);
        }
        Ok(())
    });
    tokio::select! {
        // Both directions have ended, or one was cut off.
        _ = async { tokio::try_join!(there, back) } => {}
        _ = cuts.changed() => {}
    }
}

/// An answer was lost: the connection ends, both ways.
struct Cut;

/// Forwards one direction until it ends; then ends it on the other side as well.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    control: &Control,
    is_held: impl Fn(&Stalled) -> bool,
    edit: impl Fn(&mut Vec<u8>) -> Result<(), Cut>,
) -> Result<(), Cut> {
    let mut stalled = control.stalled.subscribe();
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        let delay = control.delay.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_micros(delay)).await;
        }
        stalled.wait_for(|stalled| !is_held(stalled)).await.map_err(|_| Cut)?;
        if read == 0 {
            // Fails where the other side has ended as well.
            to.shutdown().await.ok();
            return Ok(());
        }
        let mut passed = bytes[..read].to_vec();
        edit(&mut passed)?;
        to.write_all(&passed).await.map_err(|_| Cut)?;
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn loses(control: &Control, bytes: &[u8]) -> bool {
    let committed = contains(bytes, COMMITTED);
    let take = |left: u32| left.checked_sub(1);
    let lost = committed
        && control.commits_to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
    if lost {
        control.commits_lost.fetch_add(1, Ordering::SeqCst);
    }
    lost
}

/// Makes comments of the lines that set something.
fn lose_settings(message: &mut [u8]) {
    const SET: &[u8] = b"set ";
    for n in 1..message.len().saturating_sub(SET.len()) {
        // The first line follows a message's length.
        let begins_line = message[n - 1] == b'\n' || n == 5;
        if begins_line && message[n..].starts_with(SET) {
            message[n..n + SET.len()].copy_from_slice(b"--  ");
        }
    }
}
