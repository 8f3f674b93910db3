//! The appender: one task per pod, the only writer of the log.
//!
//! It takes the edges that wait, up to a bound, and writes them in one transaction:
//!
//! 1. lock the satellites, then their rows, in id order, and read each row as it is once it is locked; edges of a
//!    satellite that another transaction has locked are left out and wait separately ([`super::held`]);
//! 2. decide each edge with [`crate::domain::lifecycle::next`], in the order of arrival;
//! 3. update the rows; take the log's lock; in a later statement read the head, insert at head + 1 …; commit.
//!
//! Each numbered step but the second is one round trip. The rows are already locked by this transaction, so they are
//! updated before the log's lock is taken: only what must happen one after the other happens under that lock. An
//! append waits longer for it than for other locks, because an append that gives up has to queue again. The lock is
//! held until the commit is durable, so the next holder sees every position before its own; a transaction that fails
//! uses no number. "In a later statement" matters: under READ COMMITTED a statement reads as of its start. For the
//! statement that waited, that is before the lock was granted.
//!
//! A lost reply to COMMIT leaves the outcome unknown. The batch is tried again with the same change ids. The retry
//! takes the satellites' locks, which the lost transaction must have released one way or the other, and then looks up
//! which of the change ids are in the log already.
//!
//! The pod's [`DatabaseClock`] says when an edge happened, so a late lock or a late reply makes it seem neither later
//! nor earlier than it was.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tokio::sync::{mpsc, watch};
use tokio_postgres::error::{DbError, SqlState};
use tracing::{Instrument, error, info, warn};

use super::audit::Author;
use super::held::Held;
use super::request::{Appended, Closed, Connecting, Outcome, Request};
use super::transaction::{self, Rules};
use crate::contract::wire::Actor;
use crate::domain::lifecycle::{Event, Position, SatelliteId, Signal};
use crate::log::locked_rows::LockedRows;
use crate::platform::database::{Database, Failed};
use crate::platform::database_clock::{DatabaseClock, Moment};
use crate::platform::health::Health;
use crate::platform::metrics::Metrics;
use crate::platform::trace;

/// Edges that wait for the appender. Once the queue is full, callers wait for room.
const QUEUE: usize = 8_192;

/// Edges in one transaction: enough that the cost of the commit no longer matters, few enough that a batch takes
/// milliseconds.
const MAX_BATCH: usize = 1_000;

/// Pauses between tries while the database is away.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// After so many failed tries in a row the pod reports that it is not ready. One or two fail whenever a connection
/// breaks.
const TRIES_UNTIL_UNREADY: u32 = 3;

/// The handle to the appender.
#[derive(Clone)]
pub struct Log {
    sender: mpsc::Sender<Request>,
    clock: Arc<DatabaseClock>,
}

impl Log {
    /// Appends an edge that happens now, and waits until it is durable, also while the database is away: an edge that
    /// was taken is not given up.
    pub async fn append(
        &self,
        satellite: SatelliteId,
        signal: Signal,
        author: impl Into<Author>,
    ) -> Result<Outcome, Closed> {
        let happened = Moment::now();
        let (span, traceparent) = trace::append(satellite);
        let (request, outcome) = Request::new(satellite, signal, author, happened, traceparent);
        let appended = async {
            self.sender.send(request).await.map_err(|_| Closed)?;
            outcome.await.map_err(|_| Closed)
        };
        appended.instrument(span).await
    }

    /// Hands over a connect that happens now, as soon as the queue has room for it. A caller that stops waiting for
    /// room has asked for nothing.
    pub async fn connect(&self, satellite: SatelliteId) -> Result<Connecting, Closed> {
        let (mut request, outcome) =
            Request::new(satellite, Signal::Connect, Actor::system(), Moment::now(), None);
        let withdrawn = Arc::new(AtomicBool::new(false));
        request.withdrawn = Some(withdrawn.clone());
        self.sender.send(request).await.map_err(|_| Closed)?;
        Ok(Connecting { outcome, withdrawn })
    }

    /// Appends edges that are found now, and waits until all of them are decided. The outcomes are in the order of
    /// the edges.
    pub async fn append_all(
        &self,
        edges: Vec<(SatelliteId, Signal)>,
    ) -> Result<Vec<Outcome>, Closed> {
        let happened = Moment::now();
        let mut waiting = Vec::with_capacity(edges.len());
        for (satellite, signal) in edges {
            let actor = Actor::system();
            let (request, outcome) = Request::new(satellite, signal, actor, happened, None);
            self.sender.send(request).await.map_err(|_| Closed)?;
            waiting.push(outcome);
        }
        let mut outcomes = Vec::with_capacity(waiting.len());
        for outcome in waiting {
            outcomes.push(outcome.await.map_err(|_| Closed)?);
        }
        Ok(outcomes)
    }

    /// Hands over an edge that happened at `happened`, unless the queue is full: for edges that will be found again.
    /// Never blocks.
    pub fn try_submit(&self, satellite: SatelliteId, signal: Signal, happened: Moment) {
        let (request, _) = Request::new(satellite, signal, Actor::system(), happened, None);
        if self.sender.try_send(request).is_err() {
            tracing::debug!(%satellite, ?signal, "the log's queue is full, the edge will be found again");
        }
    }

    /// What this pod knows about the database's clock.
    pub fn clock(&self) -> &DatabaseClock {
        &self.clock
    }
}

/// The task behind [`Log`].
pub struct Appender {
    requests: mpsc::Receiver<Request>,
    database: Database,
    rules: Rules,
    clock: Arc<DatabaseClock>,
    head: watch::Sender<Position>,
    announce: mpsc::Sender<Appended>,
    health: Arc<Health>,
    metrics: Metrics,
}

/// Makes the appender and its handle. `head` is told the newest position after each commit. `announce` gets what
/// other pods should hear about; when it is full, they find out by themselves a little later.
pub fn appender(
    database: Database,
    rules: Rules,
    head: watch::Sender<Position>,
    announce: mpsc::Sender<Appended>,
    health: Arc<Health>,
    metrics: Metrics,
) -> (Log, Appender) {
    let (sender, requests) = mpsc::channel(QUEUE);
    let clock = Arc::new(DatabaseClock::default());
    let log = Log { sender, clock: clock.clone() };
    (log, Appender { requests, database, rules, clock, head, announce, health, metrics })
}

impl Appender {
    /// Runs until every [`Log`] is dropped and every edge that was taken is in the log, or until the task is dropped.
    pub async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut held = Held::default();
        let mut locked = LockedRows::new("edges", self.metrics.clone());
        let mut is_open = true;
        while is_open || !held.is_empty() {
            tokio::select! {
                taken = self.requests.recv_many(&mut batch, MAX_BATCH), if is_open => {
                    is_open = taken > 0;
                }
                () = held.due() => {}
            }
            held.queue_behind(&mut batch);
            held.take_due(Instant::now().into(), &mut batch);
            if !batch.is_empty() {
                self.append_for_good(&mut batch, &mut held).await;
                held.forget_decided();
            }
            locked.found(held.satellites());
        }
    }

    /// Tries until the batch is in the log, except for edges whose rows another transaction has locked: `held` keeps
    /// those. Leaves `batch` empty.
    async fn append_for_good(&self, batch: &mut Vec<Request>, held: &mut Held) {
        let (mut pause, mut failed) = (FIRST_PAUSE, 0);
        loop {
            let started = Instant::now();
            match self.try_append(batch).await {
                Ok(outcomes) => {
                    if self.health.appends_fail(false) {
                        info!("the log takes edges again");
                    }
                    self.metrics.append_seconds.observe(started.elapsed().as_secs_f64());
                    self.metrics.append_batch.observe(batch.len() as f64);
                    held.hold(self.settle(batch, &outcomes), Instant::now().into());
                    return;
                }
                Err(Failure::Poisoned(cause)) if batch.len() == 1 => {
                    error!(%cause, satellite = %batch[0].satellite, edge = ?batch[0].signal,
                        "an edge was refused by the database and is given up");
                    self.settle(batch, &[Some(Outcome::Refused)]);
                    return;
                }
                Err(Failure::Poisoned(_)) => {
                    // One edge fails the whole batch: append them one by one to find it.
                    for request in std::mem::take(batch) {
                        let mut one = vec![request];
                        held.queue_behind(&mut one);
                        if !one.is_empty() {
                            Box::pin(self.append_for_good(&mut one, held)).await;
                        }
                    }
                    return;
                }
                Err(Failure::Transient(cause)) => {
                    self.metrics.append_failures.inc();
                    warn!(%cause, edges = batch.len(), ?pause, "append failed, trying again");
                    failed += 1;
                    if failed == TRIES_UNTIL_UNREADY && self.health.appends_fail(true) {
                        error!(%cause, "the log takes no edges: not ready");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    for request in batch.iter_mut() {
                        request.tried = true;
                    }
                }
            }
        }
    }

    /// Answers the callers that wait and wakes the listeners. Returns the requests that have no outcome yet.
    fn settle(&self, batch: &mut Vec<Request>, outcomes: &[Option<Outcome>]) -> Vec<Request> {
        let mut told = Appended { position: Position::ZERO, superseded: Vec::new() };
        let mut left_out = Vec::new();
        for (request, outcome) in batch.drain(..).zip(outcomes) {
            let Some(outcome) = *outcome else {
                left_out.push(request);
                continue;
            };
            match outcome {
                Outcome::Appended { position, session, event } => {
                    told.position = told.position.max(position);
                    let replaces = event == Event::Connected && session.0 > 1;
                    if replaces || event == Event::Removed {
                        told.superseded.push(request.satellite);
                    }
                }
                Outcome::Nothing(why) => self.metrics.unchanged(why),
                Outcome::UnknownSatellite | Outcome::Refused | Outcome::Locked => {}
            }
            request.answer(outcome);
        }
        if told.position > Position::ZERO {
            self.head.send_replace(told.position);
            if self.announce.try_send(told).is_err() {
                tracing::debug!("announcement skipped: the queue is full");
            }
        }
        left_out
    }

    async fn try_append(&self, batch: &[Request]) -> Result<Vec<Option<Outcome>>, Failure> {
        let attempt = async |client: &mut Object| {
            transaction::transact(client, batch, &self.rules, &self.clock).await
        };
        let (outcomes, transitions, now) =
            self.database.run(attempt).await.map_err(|failed| Failure::of(&failed))?;
        for transition in &transitions {
            self.metrics.edge(transition.event, transition.reason);
            if transition.event == Event::HeartbeatLost {
                let delay = now - transition.occurred_at;
                self.metrics.detection_seconds.observe(delay.as_seconds_f64().max(0.0));
            }
        }
        Ok(outcomes)
    }
}

/// Why a batch is not in the log, as far as is known.
enum Failure {
    /// A retry can help: the connection, a lock, a server that restarts or is read-only.
    Transient(String),
    /// The database refuses the data itself.
    Poisoned(String),
}

impl Failure {
    fn of(failed: &Failed) -> Failure {
        let text = failed.to_string();
        let Failed::Server(error) = failed else { return Failure::Transient(text) };
        // Class 22: a value the database cannot hold; class 23: a constraint. A position without a partition is a
        // check violation that names no constraint; making the partition mends it. A position that is taken is no
        // fault of the edge: another program appended without the log's lock and was faster.
        match error.as_db_error() {
            Some(db) if is_of_the_logs_lock(db) => {
                Failure::Transient(format!("the log's lock was not free in time: {text}"))
            }
            Some(db) if *db.code() == SqlState::UNIQUE_VIOLATION && is_of_the_log(db) => {
                Failure::Transient(text)
            }
            Some(db) if db.code().code().starts_with("22") => Failure::Poisoned(text),
            Some(db) if db.code().code().starts_with("23") && db.constraint().is_some() => {
                Failure::Poisoned(text)
            }
            _ => Failure::Transient(text),
        }
    }
}

/// Whether the log's lock was held for longer than an append waits for it. An append does not wait for rows, and its
/// other waits happen outside of that function.
fn is_of_the_logs_lock(error: &DbError) -> bool {
    *error.code() == SqlState::LOCK_NOT_AVAILABLE
        && error.where_().is_some_and(|context| context.contains("lock_log()"))
}

/// Whether an error is about the log's own table or one of its partitions.
fn is_of_the_log(error: &DbError) -> bool {
    error.table().is_some_and(|table| table.starts_with(super::TABLE))
}
