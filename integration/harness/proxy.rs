//! A TCP proxy that misbehaves on demand: in front of Postgres, NATS or a pod.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What PostgreSQL says when a COMMIT is done.
const COMMITTED: &[u8] = b"COMMIT\0";

/// Forwards connections until dropped.
pub struct Proxy {
    pub address: SocketAddr,
    control: Arc<Control>,
    accepting: JoinHandle<()>,
}

struct Control {
    target: watch::Sender<SocketAddr>,
    /// Bytes stay where they are while this is true.
    stalled: watch::Sender<bool>,
    /// How many microseconds all bytes take longer.
    delay: AtomicU64,
    /// Counts up: connections older than the count end.
    cuts: watch::Sender<u32>,
    /// New connections end at once while this is true.
    refusing: watch::Sender<bool>,
    /// Answers to COMMIT that are still to be lost, and how many were.
    commits_to_lose: AtomicU32,
    commits_lost: AtomicU32,
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
            stalled: watch::Sender::new(false),
            delay: AtomicU64::new(0),
            cuts: watch::Sender::new(0),
            refusing: watch::Sender::new(false),
            commits_to_lose: AtomicU32::new(0),
            commits_lost: AtomicU32::new(0),
        });
        let accepting = tokio::spawn(accept(listener, control.clone()));
        Proxy { address, control, accepting }
    }

    /// Leads new connections there, as a load balancer does.
    pub fn lead_to(&self, target: SocketAddr) {
        self.control.target.send_replace(target);
    }

    /// Ends every connection there is.
    pub fn cut(&self) {
        self.control.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends every connection there is, and every new one at once.
    pub fn refuse(&self) {
        self.control.refusing.send_replace(true);
        self.cut();
    }

    /// Takes new connections again.
    pub fn admit(&self) {
        self.control.refusing.send_replace(false);
    }

    /// Makes all bytes take so much longer.
    pub fn delay(&self, delay: Duration) {
        self.control.delay.store(delay.as_micros() as u64, Ordering::Relaxed);
    }

    /// Holds all bytes back, of new connections too, and tells nobody.
    pub fn stall(&self) {
        self.control.stalled.send_replace(true);
    }

    /// Lets the bytes go on, those held back first.
    pub fn resume(&self) {
        self.control.stalled.send_replace(false);
    }

    /// The next `count` times Postgres has committed, ends the connection instead of saying so.
    pub fn lose_commits(&self, count: u32) {
        self.control.commits_to_lose.store(count, Ordering::SeqCst);
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
    let there = pump(client_read, server_write, &control, |_| false);
    let back = pump(server_read, client_write, &control, |bytes| loses(&control, bytes));
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
    is_lost: impl Fn(&[u8]) -> bool,
) -> Result<(), Cut> {
    let mut stalled = control.stalled.subscribe();
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut bytes).await.unwrap_or(0);
        let delay = control.delay.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_micros(delay)).await;
        }
        stalled.wait_for(|stalled| !stalled).await.map_err(|_| Cut)?;
        if is_lost(&bytes[..read]) {
            return Err(Cut);
        }
        if read == 0 {
            // Fails where the other side has ended as well.
            to.shutdown().await.ok();
            return Ok(());
        }
        to.write_all(&bytes[..read]).await.map_err(|_| Cut)?;
    }
}

fn loses(control: &Control, bytes: &[u8]) -> bool {
    let committed = bytes.windows(COMMITTED.len()).any(|window| window == COMMITTED);
    let take = |left: u32| left.checked_sub(1);
    let lost = committed
        && control.commits_to_lose.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok();
    if lost {
        control.commits_lost.fetch_add(1, Ordering::SeqCst);
    }
    lost
}
