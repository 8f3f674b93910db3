//! Many real satellites in one process: registered over the API, connected over WebSockets, and
//! now and then leaving, dropping out or falling silent.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::agent::{self, Happening, Identity, Order};
use crate::client::{Client, Create};

/// Where simulated satellites are.
const REGIONS: [&str; 4] = ["eu-west", "us-east", "ap-south", "sa-east"];

/// Registrations and removals under way at once.
const CALLS_AT_ONCE: usize = 8;

/// How often progress is told: on a terminal, and elsewhere.
const TERMINAL_PROGRESS: Duration = Duration::from_secs(1);
const PLAIN_PROGRESS: Duration = Duration::from_secs(10);

/// How long satellites may take to say goodbye at the end.
const GOODBYE: Duration = Duration::from_secs(10);

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many satellites.
    pub satellites: usize,
    /// What each one's name begins with.
    pub prefix: String,
    /// How often each one flaps, on average, per minute; 0 for never.
    pub flaps_per_minute: f64,
    /// How long a satellite that falls silent stays so.
    pub silence: Duration,
    /// How often each one sends a heartbeat.
    pub heartbeat_interval: Duration,
    /// Connections begun per second, at most.
    pub connects_per_second: f64,
    /// How long; for ever if `None`.
    pub duration: Option<Duration>,
    /// Whether the satellites stay registered afterwards.
    pub keep: bool,
    /// Makes the flapping repeatable.
    pub seed: u64,
}

/// What happened so far.
#[derive(Default)]
pub struct Tally {
    online: AtomicI64,
    authenticated: AtomicU64,
    disconnected: AtomicU64,
    refused: AtomicU64,
    shut_down: AtomicU64,
    heartbeats: AtomicU64,
    orders: AtomicU64,
    /// Milliseconds from connecting to authenticated.
    waits: Mutex<Vec<f64>>,
}

/// Waits remembered, for the summary's percentiles.
const MAX_WAITS: usize = 1_000_000;

impl Tally {
    fn note(&self, online: &mut bool, happening: &Happening) {
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        let mut leave = || {
            if std::mem::take(online) {
                self.online.fetch_sub(1, Ordering::Relaxed);
            }
        };
        match happening {
            Happening::Authenticated(wait) => {
                count(&self.authenticated);
                let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
                if waits.len() < MAX_WAITS {
                    waits.push(wait.as_secs_f64() * 1e3);
                }
                drop(waits);
                if !std::mem::replace(online, true) {
                    self.online.fetch_add(1, Ordering::Relaxed);
                }
            }
            Happening::Heartbeat => {
                count(&self.heartbeats);
            }
            Happening::Refused(_) => {
                count(&self.refused);
                leave();
            }
            Happening::Shutdown(_) => {
                count(&self.shut_down);
                leave();
            }
            Happening::Disconnected(_) => {
                count(&self.disconnected);
                leave();
            }
            Happening::Pausing(_) => leave(),
        }
    }

    fn progress(&self, satellites: usize) -> String {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{}/{satellites} online · {} connects · {} disconnects · {} shutdowns · {} refused · {} heartbeats",
            self.online.load(Ordering::Relaxed),
            read(&self.authenticated),
            read(&self.disconnected),
            read(&self.shut_down),
            read(&self.refused),
            read(&self.heartbeats),
        )
    }

    fn summary(&self, satellites: usize, elapsed: Duration) -> String {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone();
        waits.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let last = waits.len().saturating_sub(1);
            waits.get((last as f64 * share) as usize).copied().unwrap_or(0.0)
        };
        format!(
            "{} in {:.1} s\nflaps ordered: {} · connecting took p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
            self.progress(satellites),
            elapsed.as_secs_f64(),
            self.orders.load(Ordering::Relaxed),
            at(0.5),
            at(0.99),
            at(1.0),
        )
    }
}

/// Simulates until the plan's duration is over or `stop` is cancelled; returns the summary.
pub async fn run(
    client: Client,
    websocket: String,
    plan: Plan,
    stop: CancellationToken,
) -> anyhow::Result<String> {
    eprintln!("registering {} satellites (seed {})", plan.satellites, plan.seed);
    let registered = register(&client, &plan).await?;
    let ids: Vec<Uuid> = registered.iter().map(|(id, _)| *id).collect();
    let tally = Arc::new(Tally::default());
    let began = Instant::now();

    let simulated = tokio::select! {
        simulated = fly(&websocket, &plan, registered, &tally, &stop) => simulated,
        () = report(&tally, plan.satellites) => Ok(()),
    };
    let summary = tally.summary(plan.satellites, began.elapsed());
    if !plan.keep {
        remove(&client, ids).await.context("cannot remove the simulated satellites")?;
    }
    simulated.map(|()| summary)
}

async fn register(client: &Client, plan: &Plan) -> anyhow::Result<Vec<(Uuid, SecretString)>> {
    let numbers: Vec<usize> = (0..plan.satellites).collect();
    let prefix = plan.prefix.clone();
    let client = client.clone();
    in_parallel(numbers, move |number| {
        let name = format!("{prefix}-{number:05}");
        let created = client.create(&Create {
            name: &name,
            region: REGIONS[number % REGIONS.len()],
            tags: [("simulated".to_owned(), "yes".to_owned())].into(),
            offline_threshold_ms: None,
        })?;
        Ok((created.satellite.id, SecretString::from(created.token)))
    })
    .await
}

async fn remove(client: &Client, ids: Vec<Uuid>) -> anyhow::Result<()> {
    let client = client.clone();
    in_parallel(ids, move |id| client.remove(id)).await.map(drop)
}

/// Makes blocking calls, a few at once, and collects what they return.
async fn in_parallel<T, R>(
    items: Vec<T>,
    call: impl Fn(T) -> anyhow::Result<R> + Clone + Send + 'static,
) -> anyhow::Result<Vec<R>>
where
    T: Send + Clone + 'static,
    R: Send + 'static,
{
    let share = items.len().div_ceil(CALLS_AT_ONCE).max(1);
    let mut workers = JoinSet::new();
    for chunk in items.chunks(share) {
        let (chunk, call) = (chunk.to_vec(), call.clone());
        workers.spawn_blocking(move || chunk.into_iter().map(call).collect::<Result<Vec<R>, _>>());
    }
    let mut all = Vec::with_capacity(items.len());
    while let Some(done) = workers.join_next().await {
        all.extend(done.context("a worker ended")??);
    }
    Ok(all)
}

/// Connects the satellites one after another, lets them flap, and brings them down at the end.
async fn fly(
    websocket: &str,
    plan: &Plan,
    registered: Vec<(Uuid, SecretString)>,
    tally: &Arc<Tally>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let end = plan.duration.map(|duration| Instant::now() + duration);
    let (mut flight, mut orders) = (JoinSet::new(), Vec::with_capacity(registered.len()));
    let mut starts = interval(Duration::from_secs_f64(1.0 / plan.connects_per_second.max(0.1)));
    for (id, token) in registered {
        tokio::select! {
            _ = starts.tick() => {}
            () = stop.cancelled() => break,
        }
        let identity = Identity {
            url: websocket.to_owned(),
            id,
            token,
            heartbeat_interval: plan.heartbeat_interval,
            longest_pause: agent::LONGEST_PAUSE,
            capabilities: vec!["simulated".to_owned()],
        };
        let (order, told) = mpsc::channel(1);
        orders.push(order);
        let (tally, mut online) = (tally.clone(), false);
        flight.spawn(agent::run(identity, told, move |happening| {
            tally.note(&mut online, &happening);
        }));
    }

    let over = async {
        match end {
            Some(end) => tokio::time::sleep_until(end).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = over => {}
        () = stop.cancelled() => {}
        () = flap(plan, &orders, tally) => {}
    }
    drop(orders);
    let landed = async { while flight.join_next().await.is_some() {} };
    timeout(GOODBYE, landed).await.context("some satellites did not say goodbye in time")
}

/// Gives orders at random moments, as many as the plan says on average.
async fn flap(plan: &Plan, orders: &[mpsc::Sender<Order>], tally: &Tally) {
    let per_second = plan.flaps_per_minute / 60.0 * orders.len() as f64;
    if per_second <= 0.0 || orders.is_empty() {
        return std::future::pending().await;
    }
    let mut random = fastrand::Rng::with_seed(plan.seed);
    loop {
        // Times between independent events are exponentially distributed.
        let pause = -(1.0 - random.f64()).ln() / per_second;
        sleep(Duration::from_secs_f64(pause)).await;
        let order = match random.u8(..3) {
            0 => Order::Leave(Duration::from_secs_f64(1.0 + 4.0 * random.f64())),
            1 => Order::Drop,
            _ => Order::FallSilent(plan.silence),
        };
        // One that has an order already keeps it.
        if orders[random.usize(..orders.len())].try_send(order).is_ok() {
            tally.orders.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Tells progress for ever.
async fn report(tally: &Tally, satellites: usize) {
    let terminal = std::io::stderr().is_terminal();
    let mut ticks = interval(if terminal { TERMINAL_PROGRESS } else { PLAIN_PROGRESS });
    loop {
        ticks.tick().await;
        let progress = tally.progress(satellites);
        let line = if terminal { format!("\r\x1b[2K{progress}") } else { format!("{progress}\n") };
        // Nobody to tell: the simulation goes on all the same.
        if std::io::stderr().write_all(line.as_bytes()).is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_satellite_counts_as_online_once_however_often_it_is_told() {
        let (tally, mut online) = (Tally::default(), false);
        let online_after = |happening: Happening, online: &mut bool| {
            tally.note(online, &happening);
            tally.online.load(Ordering::Relaxed)
        };
        let here = Happening::Authenticated(Duration::from_millis(3));
        assert_eq!(online_after(here.clone(), &mut online), 1);
        assert_eq!(online_after(here, &mut online), 1);
        assert_eq!(online_after(Happening::Shutdown(String::new()), &mut online), 0);
        assert_eq!(online_after(Happening::Disconnected(String::new()), &mut online), 0);
        assert_eq!(online_after(Happening::Pausing(Duration::ZERO), &mut online), 0);
        assert!(tally.summary(1, Duration::from_secs(1)).contains("p50 3.0 ms"));
    }
}
