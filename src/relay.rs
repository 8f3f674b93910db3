//! The relay: each transition on the stream once, in position order.
//!
//! Every message carries the stream sequence it is to follow (`Nats-Expected-Last-Sequence`), so
//! the server stores transition p only on top of p - 1: the stream stays gapless and free of
//! duplicates for any number of relays, however dead they were thought to be. The lease in the
//! table `relay` only saves work. Publishes are pipelined; one that is not taken makes all later
//! ones fail too, and the relay reads the stream's tail again and goes on from there.
//!
//! Where stream and log disagree, it depends on whether going on can make it worse:
//!
//! | what happened | what the relay does |
//! |---|---|
//! | the stream is gone or empty, or an older copy of it is back | publishes what it lacks |
//! | its newest messages were deleted | publishes them again |
//! | a message further down was deleted | goes on; `groundstation audit` names it |
//! | somebody else publishes on our subjects, even a copy of ours | passes over it and counts it |
//! | the stream has what the log does not (the database was restored to an earlier point) | halts, says why, touches nothing |
//!
//! Must not touch: the satellites, their rows, the sockets. It reads the log and nothing else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_nats::jetstream;
use async_nats::jetstream::context::PublishAckFuture;
use deadpool_postgres::Object;
use fail::fail_point;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Span, error, info, warn};

use crate::database::Database;
use crate::health::{Health, RelayState};
use crate::lifecycle::Position;
use crate::log::{ChangeId, Entry, read};
use crate::metrics::{Disagreement, Metrics};
use crate::trace;

pub mod checkpoint;
pub mod message;
pub mod stream;

use checkpoint::Checkpoint;
use message::Epoch;
use stream::Tail;

/// How long a lease lasts without being renewed: another pod takes over within this and one
/// [`STANDBY_PAUSE`], less than the 10 s promised.
pub const LEASE: Duration = Duration::from_secs(5);

/// How often the lease is renewed and the checkpoint stored.
const RENEWAL: Duration = Duration::from_secs(1);

/// How often a pod that does not relay tries to.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);

/// How often the log is looked at when nobody says that there is news.
const POLL: Duration = Duration::from_millis(500);

/// Pause before the tail is read again after a publish was not taken, or NATS did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// Pause before a contradiction is looked at again: shorter than the lease, so that one pod halts
/// and says so, and not all of them in turn.
const HALT_PAUSE: Duration = Duration::from_secs(2);

/// Transitions read at once.
const BATCH: i64 = 500;

/// Messages published and not acknowledged yet.
const MAX_IN_FLIGHT: usize = 1_000;

/// How long an acknowledgement may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// The task.
pub struct Relay {
    /// This pod's name, under which it holds the lease.
    pub pod: String,
    /// Where the log is.
    pub database: Database,
    /// Where the stream is.
    pub nats: async_nats::Client,
    /// Changes when there is news in the log.
    pub head: watch::Receiver<Position>,
    /// What it tells of itself.
    pub health: Arc<Health>,
    /// What it counts.
    pub metrics: Metrics,
}

/// Why a relay stops leading.
enum Stepped {
    /// Somebody else holds the lease.
    LostLease,
    /// The pod shuts down.
    Stopping,
}

impl Relay {
    /// Relays whenever it holds the lease, until told to stop; then hands the lease over.
    pub async fn run(mut self, stop: CancellationToken) {
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(ACK_TIMEOUT)
            .ack_timeout(ACK_TIMEOUT)
            .max_ack_inflight(MAX_IN_FLIGHT + 1)
            .build(self.nats.clone());
        loop {
            if self.is_connected() && self.take_lease().await {
                info!(pod = %self.pod, "this pod relays");
                self.metrics.relay_leader.set(1);
                let stepped = self.lead(&jetstream, &stop).await;
                self.metrics.relay_leader.set(0);
                self.metrics.relay_halted.set(0);
                self.health.relay(RelayState::Standby);
                match stepped {
                    Stepped::LostLease => warn!("this pod no longer relays: another took over"),
                    Stepped::Stopping => return self.hand_over().await,
                }
            }
            tokio::select! {
                () = tokio::time::sleep(STANDBY_PAUSE) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn is_connected(&self) -> bool {
        self.nats.connection_state() == async_nats::connection::State::Connected
    }

    async fn lead(&mut self, jetstream: &jetstream::Context, stop: &CancellationToken) -> Stepped {
        loop {
            let pause = match self.follow(jetstream, stop).await {
                Ok(stepped) => return stepped,
                Err(Interruption::Contradiction(reason)) => {
                    let state = RelayState::Halted { reason: reason.clone() };
                    if self.health.relay(state) {
                        self.metrics.disagreement(Disagreement::Contradiction, 1);
                        error!(%reason, "the relay has halted: stream and log contradict each other");
                    }
                    self.metrics.relay_halted.set(1);
                    HALT_PAUSE
                }
                Err(Interruption::Failure(failure)) => {
                    self.metrics.relay_halted.set(0);
                    let reason = format!("{failure:#}");
                    if self.health.relay(RelayState::Waiting { reason: reason.clone() }) {
                        warn!(%reason, "the relay waits");
                    }
                    RETRY_PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return Stepped::Stopping,
            }
            // A pod that cannot reach NATS lets one that can have the lease.
            if !self.is_connected() || !self.take_lease().await {
                return Stepped::LostLease;
            }
        }
    }

    /// Reads the stream's tail and publishes from there, until something goes wrong.
    async fn follow(
        &mut self,
        jetstream: &jetstream::Context,
        stop: &CancellationToken,
    ) -> Result<Stepped, Interruption> {
        let stream = stream::ensure(jetstream).await?;
        let checkpoint = self.checkpoint().await?;
        let tail = stream::tail(&stream, &self.database, checkpoint).await?;
        let tail = match tail {
            stream::Found::Tail { tail, foreign } => {
                if foreign > 0 {
                    self.metrics.relay_foreign.inc_by(foreign);
                    self.metrics.disagreement(Disagreement::Foreign, foreign);
                    warn!(foreign, "somebody else publishes on our subjects: passed over");
                }
                tail
            }
            stream::Found::Contradiction(reason) => {
                return Err(Interruption::Contradiction(reason));
            }
        };
        self.metrics.relay_halted.set(0);
        if tail.position < checkpoint.tail.position {
            self.metrics.disagreement(Disagreement::Behind, 1);
            warn!(
                stream = tail.position.0,
                checkpoint = checkpoint.tail.position.0,
                "the stream lost what it had: publishing it again"
            );
        }
        if self.health.relay(RelayState::Leading) {
            info!(
                position = tail.position.0,
                sequence = tail.sequence,
                "relaying from the stream's tail"
            );
        }

        // Also before anything is put below the old checkpoint, on a stream that fell behind it.
        if !self.renew(checkpoint.epoch, tail).await? {
            return Ok(Stepped::LostLease);
        }
        let mut window = Window::new(checkpoint.epoch, tail);
        let ended = self.publish(&mut window, jetstream, stop).await;
        // The next look at the stream begins here; the lease is looked after by whoever looks.
        if let Err(error) = self.renew(window.epoch, window.acknowledged).await {
            tracing::debug!(error = %format!("{error:#}"), "the checkpoint stays behind");
        }
        Ok(ended?)
    }

    /// Publishes from the window's tail on, until something goes wrong.
    async fn publish(
        &mut self,
        window: &mut Window,
        jetstream: &jetstream::Context,
        stop: &CancellationToken,
    ) -> anyhow::Result<Stepped> {
        let mut renewed = Instant::now();
        loop {
            if stop.is_cancelled() {
                return Ok(Stepped::Stopping);
            }
            self.head.mark_unchanged();
            let entries = self.read(window).await?;
            tell_of_a_gap(window.published.position, entries.first());
            if !entries.is_empty() {
                fail_point!("relay::after_read", |_| std::process::abort());
            }
            for entry in &entries {
                if window.in_flight.len() >= MAX_IN_FLIGHT {
                    self.acknowledge(window).await?;
                }
                let message = message::build(entry, window.epoch, window.published.sequence);
                let (subject, message) = message.context("a transition that fires nothing")?;
                let span = trace::publish(entry, subject);
                let ack = jetstream.send_publish(subject, message).await.context("publish")?;
                window.sent(entry, ack, span);
                fail_point!("relay::mid_batch", |_| std::process::abort());
            }
            if !window.in_flight.is_empty() {
                fail_point!("relay::published", |_| std::process::abort());
            }
            // A full batch means there is more to read: acknowledgements can wait.
            while (entries.len() as i64) < BATCH && !window.in_flight.is_empty() {
                self.acknowledge(window).await?;
            }
            if !entries.is_empty() {
                fail_point!("relay::acknowledged", |_| std::process::abort());
            }
            if renewed.elapsed() >= RENEWAL {
                renewed = Instant::now();
                if !self.renew(window.epoch, window.acknowledged).await? {
                    return Ok(Stepped::LostLease);
                }
            }
            if entries.is_empty() {
                tokio::select! {
                    _ = self.head.changed() => {}
                    () = tokio::time::sleep(POLL) => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    /// What follows on the newest published transition. That one is read along: a database that
    /// went back to an earlier point in between (a restore, a failover to a standby that lagged)
    /// no longer has it, and the next positions will be given out a second time.
    async fn read(&self, window: &mut Window) -> anyhow::Result<Vec<Entry>> {
        let published = window.published.position;
        let mut entries = self.entries(Position((published.0 - 1).max(0))).await?;
        let newest = entries.first().filter(|entry| entry.position == published);
        let newest = newest.map(|entry| entry.change);
        if window.newest.is_some() && window.newest != newest {
            bail!("the log no longer has position {} as it was published", published.0);
        }
        window.newest = newest;
        if newest.is_some() {
            entries.remove(0);
        }
        Ok(entries)
    }

    async fn entries(&self, after: Position) -> anyhow::Result<Vec<Entry>> {
        let read = async |client: &mut Object| read::after(client, after, BATCH + 1).await;
        Ok(self.database.run(read).await?)
    }

    /// Waits for the oldest message in flight. Anything but "stored, right after the one before"
    /// is a failure; a duplicate is not a success either, it only means that the tail moved.
    async fn acknowledge(&self, window: &mut Window) -> anyhow::Result<()> {
        let Some(InFlight { tail, ack, _span }) = window.in_flight.pop_front() else {
            return Ok(());
        };
        let outcome = ack.await;
        match outcome {
            Ok(ack) if ack.sequence == tail.sequence && !ack.duplicate => {
                self.metrics.relay_published.inc();
                window.acknowledged = tail;
                Ok(())
            }
            Ok(ack) => {
                self.metrics.relay_rejected.inc();
                bail!(
                    "position {} was expected at sequence {}, the stream says {}{}",
                    tail.position.0,
                    tail.sequence,
                    ack.sequence,
                    if ack.duplicate { " (a duplicate)" } else { "" }
                )
            }
            Err(error) => {
                self.metrics.relay_rejected.inc();
                bail!("position {} was not taken: {error}", tail.position.0)
            }
        }
    }

    /// Takes the lease, or keeps it.
    async fn take_lease(&self) -> bool {
        let take = async |client: &mut Object| {
            client.execute(TAKE, &[&self.pod, &LEASE.as_secs_f64()]).await
        };
        match self.database.run_within(LEASE, take).await {
            Ok(rows) => rows == 1,
            Err(error) => {
                tracing::debug!(%error, "cannot take the relay's lease");
                false
            }
        }
    }

    /// Renews the lease and stores the checkpoint; false when somebody else has the lease, or the
    /// epoch is over.
    async fn renew(&self, epoch: Epoch, tail: Tail) -> anyhow::Result<bool> {
        let sequence = i64::try_from(tail.sequence)?;
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 5] =
            [&self.pod, &LEASE.as_secs_f64(), &tail.position.0, &sequence, &epoch.0];
        let renew = async |client: &mut Object| {
            let statement = client.prepare_cached(RENEW).await?;
            client.execute(&statement, &parameters).await
        };
        Ok(self.database.run_within(LEASE, renew).await? == 1)
    }

    async fn hand_over(&self) {
        let release = async |client: &mut Object| client.execute(RELEASE, &[&self.pod]).await;
        match self.database.run_within(LEASE, release).await {
            Ok(_) => info!("the relay's lease is handed over"),
            Err(error) => info!(%error, "the relay's lease will expire"),
        }
    }

    async fn checkpoint(&self) -> anyhow::Result<Checkpoint> {
        Ok(self.database.run(async |client| checkpoint::read(client).await).await?)
    }
}

/// Positions have no gap, so the next one is missing only where retention dropped it before the
/// stream lost it: the stream goes on behind the gap, and says so by its positions.
fn tell_of_a_gap(after: Position, next: Option<&crate::log::Entry>) {
    if let Some(entry) = next
        && entry.position.0 > after.0 + 1
    {
        warn!(
            after = after.0,
            next = entry.position.0,
            "the stream goes on behind a gap: what is between was dropped from the log by retention"
        );
    }
}

/// Why following the log stopped.
enum Interruption {
    /// Something did not work; trying again can help.
    Failure(anyhow::Error),
    /// Stream and log contradict each other; only a person can decide.
    Contradiction(String),
}

impl From<anyhow::Error> for Interruption {
    fn from(error: anyhow::Error) -> Interruption {
        Interruption::Failure(error)
    }
}

/// Messages on their way, oldest first.
struct Window {
    epoch: Epoch,
    in_flight: VecDeque<InFlight>,
    /// The newest message sent, and the sequence it must get.
    published: Tail,
    /// The change it carries, once known.
    newest: Option<ChangeId>,
    /// The newest message the stream has.
    acknowledged: Tail,
}

struct InFlight {
    tail: Tail,
    ack: PublishAckFuture,
    /// Ends with it.
    _span: Span,
}

impl Window {
    fn new(epoch: Epoch, tail: Tail) -> Window {
        let in_flight = VecDeque::new();
        Window { epoch, in_flight, published: tail, newest: None, acknowledged: tail }
    }

    fn sent(&mut self, entry: &Entry, ack: PublishAckFuture, span: Span) {
        let sequence = self.published.sequence + 1;
        self.published = Tail { position: entry.position, sequence };
        self.newest = Some(entry.change);
        self.in_flight.push_back(InFlight { tail: self.published, ack, _span: span });
    }
}

/// A lease that ends later than any that is given out now is of a clock that has gone back.
const TAKE: &str = "
    update relay
       set holder = $1, lease_expires_at = clock_timestamp() + make_interval(secs => $2)
     where holder is not distinct from $1
        or lease_expires_at not between clock_timestamp() and clock_timestamp() + make_interval(secs => $2)";

const RENEW: &str = "
    update relay
       set lease_expires_at = clock_timestamp() + make_interval(secs => $2),
           position = $3, stream_sequence = $4
     where holder = $1 and epoch = $5";

const RELEASE: &str = "
    update relay set holder = null, lease_expires_at = '-infinity' where holder = $1";
