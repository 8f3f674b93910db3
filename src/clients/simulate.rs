//! Many real satellites in one process: registered over the API and connected over WebSockets. Now
//! and then they leave, drop the connection or fall silent.

use std::io::{IsTerminal, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use secrecy::SecretString;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clients::agent::{self, Identity, Order};
use crate::clients::client::{Client, Create};

pub mod cost;
mod tally;

use tally::Tally;
pub use tally::{Counts, Summary, Waits};

/// The regions of simulated satellites.
const REGIONS: [&str; 4] = ["eu-west", "us-east", "ap-south", "sa-east"];

/// Registrations and removals in flight at once.
const CALLS_AT_ONCE: usize = 8;

/// How often progress is reported: on a terminal, and elsewhere.
const TERMINAL_PROGRESS: Duration = Duration::from_secs(1);
const PLAIN_PROGRESS: Duration = Duration::from_secs(10);

/// How long satellites may take to close their connections at the end.
const GOODBYE: Duration = Duration::from_secs(10);

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How many satellites.
    pub satellites: usize,
    /// The prefix of each one's name.
    pub prefix: String,
    /// How often each one flaps, on average, per minute; 0 for never.
    pub flaps_per_minute: f64,
    /// How long a satellite that falls silent stays silent.
    pub silence: Duration,
    /// How often each one sends a heartbeat.
    pub heartbeat_interval: Duration,
    /// Connections begun per second, at most.
    pub connects_per_second: f64,
    /// Satellites that connect for the first time at once, at most.
    pub connects_at_once: usize,
    /// The local addresses from which they connect, in turn; the system's choice if there is none.
    /// About 28,000 connections to one pod are possible from one address.
    pub from: Vec<IpAddr>,
    /// How long to simulate; for ever if `None`.
    pub duration: Option<Duration>,
    /// Whether the satellites stay registered afterwards.
    pub keep: bool,
    /// Makes the flapping repeatable.
    pub seed: u64,
}

/// Simulates until the plan's duration is over or `stop` is cancelled; returns the summary.
pub async fn run(
    client: Client,
    websocket: String,
    plan: Plan,
    stop: CancellationToken,
) -> anyhow::Result<Summary> {
    eprintln!("registering {} satellites (seed {})", plan.satellites, plan.seed);
    let registered = register(&client, &plan).await?;
    let ids: Vec<Uuid> = registered.iter().map(|(id, _)| *id).collect();
    let tally = Arc::new(Tally::new(plan.satellites));

    let simulated = tokio::select! {
        simulated = fly(&websocket, &plan, registered, &tally, &stop) => simulated,
        () = report(&tally) => Ok(()),
    };
    let summary = tally.summary();
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

/// Makes blocking calls, a few at once, and collects their results.
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

/// Connects the satellites one after another, lets them flap, and disconnects them at the end.
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
    let mut from = plan.from.iter().copied().cycle();
    let places = Arc::new(Semaphore::new(plan.connects_at_once.max(1)));
    for (id, token) in registered {
        let next = async {
            starts.tick().await;
            places.clone().acquire_owned().await
        };
        let mut place = tokio::select! {
            place = next => place.ok(),
            () = stop.cancelled() => break,
        };
        let identity = Identity {
            url: websocket.to_owned(),
            id,
            token,
            heartbeat_interval: plan.heartbeat_interval,
            longest_pause: agent::LONGEST_PAUSE,
            capabilities: vec!["simulated".to_owned()],
            from: from.next(),
        };
        let (order, told) = mpsc::channel(1);
        orders.push(order);
        let (tally, mut online) = (tally.clone(), false);
        flight.spawn(agent::run(identity, told, move |happening| {
            tally.note(&mut online, &happening);
            // The first event ends its first attempt.
            drop(place.take());
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

/// Gives orders at random moments, on average as many as planned.
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
        // A satellite with a pending order keeps that one.
        if orders[random.usize(..orders.len())].try_send(order).is_ok() {
            tally.ordered();
        }
    }
}

/// Reports progress for ever.
async fn report(tally: &Tally) {
    let terminal = std::io::stderr().is_terminal();
    let mut ticks = interval(if terminal { TERMINAL_PROGRESS } else { PLAIN_PROGRESS });
    loop {
        ticks.tick().await;
        let progress = tally.counts();
        let line = if terminal { format!("\r\x1b[2K{progress}") } else { format!("{progress}\n") };
        // Standard error is closed: the simulation goes on all the same.
        if std::io::stderr().write_all(line.as_bytes()).is_err() {
            return std::future::pending().await;
        }
    }
}
