//! The relay: each transition on the stream once, in position order.
//!
//! Every message carries the stream sequence that it must follow (`Nats-Expected-Last-Sequence`).
//! The server therefore stores transition p only on top of p - 1. The stream stays free of gaps and
//! duplicates for any number of relays, including one that was thought dead. The lease in the table
//! `relay` only saves work.
//!
//! With several messages in flight the sequence alone is not enough. If a foreign message takes the
//! place of p, p is refused, and p + 1 finds the sequence it expects. So a message that follows one
//! without an acknowledgement also demands that message's id (`Nats-Expected-Last-Msg-Id`). One
//! refused message then makes all later ones fail too, and the relay looks at what came between and
//! goes on behind it. On a replicated stream each server would compare that id with its own memory,
//! which it loses when it restarts or catches up; it would then refuse for good what the others
//! store. There one message is in flight at a time.
//!
//! A relay that begins proves that no position is missing between the checkpoint and the stream's
//! tail. An idle relay checks every few seconds, after each reconnect, and before the next publish,
//! that the stream is as it left it.
//!
//! Where stream and log disagree, the relay's answer depends on whether going on can make it worse:
//!
//! | what happened | what the relay does |
//! |---|---|
//! | the stream is gone or empty, or an older copy of it is back | publishes what it lacks |
//! | its newest messages were deleted | publishes them again |
//! | a message below the checkpoint was deleted | goes on; `groundstation audit` names it |
//! | a position is missing between the checkpoint and the tail | halts, says which and the way out |
//! | the stream's own limits removed its oldest messages, or all of them | goes on behind them; those behind the checkpoint (a second's worth after a crash) are unknown and are published again |
//! | foreign messages on our subjects, even copies of ours | skips and counts them |
//! | the stream has what the log does not (the database was restored to an earlier point, or another cell uses the stream) | halts, says why, touches nothing |
//!
//! It must not touch the satellites, their rows or the sockets. It reads the log and nothing else.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use async_nats::jetstream;
use async_nats::jetstream::context::{PublishAckFuture, PublishErrorKind};
use async_nats::jetstream::stream::{Info, Stream};
use deadpool_postgres::Object;
use fail::fail_point;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{Span, error, info, warn};

use crate::domain::cell::Cell;
use crate::domain::lifecycle::Position;
use crate::log::{ChangeId, Entry, read};
use crate::platform::database::Database;
use crate::platform::health::{Health, RelayState};
use crate::platform::metrics::{Disagreement, Metrics};
use crate::platform::nats;
use crate::platform::replicas::Replication;
use crate::platform::trace;

use super::checkpoint::{self, Checkpoint, LEASE, Tail};
use super::message::{self, Epoch};
use super::patience::{Patience, Unanswered};
use super::tail::{self, Left, OnTop};

/// How often the lease is renewed and the checkpoint stored.
const RENEWAL: Duration = Duration::from_secs(1);

/// How often a standby pod tries to take the lease.
const STANDBY_PAUSE: Duration = Duration::from_secs(1);

/// How often the log is read without a wake-up.
const POLL: Duration = Duration::from_millis(500);

/// The pause before the tail is read again after a publish was refused, or NATS did not answer.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// The pause before a contradiction is checked again. It is shorter than the lease, so that one pod
/// halts and says so, and not all of them in turn.
const HALT_PAUSE: Duration = Duration::from_secs(2);

/// How often an idle relay checks that the stream is as it left it.
const LOOK: Duration = Duration::from_secs(3);

/// For how long a sent message or a look also proves the next publish. A message that a person
/// deletes within this time is only found by `groundstation audit`. It must be longer than the
/// pauses within a burst, or each batch of the burst costs a look.
const FRESH: Duration = Duration::from_millis(20);

/// A pod warns of a duplicate window of this length, where the window can delay the feed.
const LONG_WINDOW: Duration = Duration::from_secs(1);

/// Transitions in one read.
const BATCH: i64 = 500;

/// Messages in flight at most, on a stream that is not replicated.
const MAX_IN_FLIGHT: usize = 1_000;

/// How long an acknowledgement may take.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long any other answer of the stream may take. It is short, because while a leader is elected
/// nobody hears the question, and it has to be asked again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The task.
pub struct Relay {
    /// This pod's name, under which it holds the lease.
    pub pod: String,
    /// Where the log is.
    pub database: Database,
    /// Where the stream is.
    pub nats: async_nats::Client,
    /// Changes when the log has a new head.
    pub head: watch::Receiver<Position>,
    /// Where it reports its state.
    pub health: Arc<Health>,
    /// Makes the stream.
    pub replication: Replication,
    /// The cell that its messages name.
    pub cell: Option<Cell>,
    /// Where it counts.
    pub metrics: Metrics,
}

/// Why following the log ended without an error.
enum Ended {
    /// The relay no longer leads.
    Stepped(Stepped),
    /// The stream is not as it was left: its tail has to be read again.
    Moved,
    /// The stream refused a message.
    Refused(anyhow::Error),
}

/// Why a relay stops leading.
enum Stepped {
    /// Another pod holds the lease.
    LostLease,
    /// The pod shuts down.
    Stopping,
}

impl Relay {
    /// Relays while it holds the lease, until `stop`; then hands the lease over.
    pub async fn run(mut self, stop: CancellationToken) {
        let jetstream = jetstream::context::ContextBuilder::new()
            .timeout(ANSWER_TIMEOUT)
            .ack_timeout(ACK_TIMEOUT)
            .max_ack_inflight(MAX_IN_FLIGHT + 1)
            .build(self.nats.clone());
        let mut told = None;
        loop {
            if self.is_connected() && self.take_lease().await {
                info!(pod = %self.pod, "this pod relays");
                self.metrics.relay_leader.set(1);
                let stepped = self.lead(&jetstream, &mut told, &stop).await;
                self.metrics.relay_leader.set(0);
                self.metrics.relay_halted.set(0);
                self.metrics.relay_duplicate_window.set(0.0);
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

    async fn lead(
        &mut self,
        jetstream: &jetstream::Context,
        told: &mut Option<Duration>,
        stop: &CancellationToken,
    ) -> Stepped {
        let mut patience = Patience::default();
        loop {
            let pause = match self.follow(jetstream, told, stop).await {
                Ok(Ended::Stepped(stepped)) => return stepped,
                Ok(Ended::Moved) => {
                    patience.renew();
                    Duration::ZERO
                }
                Err(Interruption::Contradiction(reason)) => {
                    patience.renew();
                    let state = RelayState::Halted { reason: reason.clone() };
                    if self.health.relay(state) {
                        self.metrics.disagreement(Disagreement::Contradiction, 1);
                        error!(%reason, "the relay has halted: stream and log contradict each other");
                    }
                    self.metrics.relay_halted.set(1);
                    HALT_PAUSE
                }
                Err(Interruption::CameBetween(refusal)) => {
                    tracing::debug!(refusal = %format!("{refusal:#}"), "reading the tail again");
                    patience.renew();
                    self.ask_another_server(&mut patience, &refusal).await;
                    Duration::ZERO
                }
                Err(Interruption::Failure(failure)) | Ok(Ended::Refused(failure)) => {
                    self.metrics.relay_halted.set(0);
                    let reason = format!("{failure:#}");
                    if self.health.relay(RelayState::Waiting { reason: reason.clone() }) {
                        warn!(%reason, "the relay waits");
                    }
                    self.ask_another_server(&mut patience, &failure).await;
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

    /// Leaves a server that has not stored anything for too long: it may be cut off from the others.
    async fn ask_another_server(&self, patience: &mut Patience, failure: &anyhow::Error) {
        if self.is_connected() && patience.is_over(failure, Instant::now()) {
            let failure = format!("{failure:#}");
            info!(%failure, "the stream does not answer: connecting to NATS anew, to another server if there is one");
            nats::change_server(&self.nats).await;
        }
    }

    /// Reads the stream's tail and publishes from there, until something goes wrong.
    async fn follow(
        &mut self,
        jetstream: &jetstream::Context,
        told: &mut Option<Duration>,
        stop: &CancellationToken,
    ) -> Result<Ended, Interruption> {
        let connects = self.connects();
        let stream = tail::ensure(jetstream, &mut self.replication).await?;
        let info = stream.cached_info();
        self.replication.look(info, &self.metrics);
        self.tell_of_the_window(info, told);
        let is_replicated = tail::is_replicated(info);
        let checkpoint = self.checkpoint().await?;
        let found = tokio::select! {
            found = tail::tail(&stream, &self.database, checkpoint, self.cell.as_ref()) => found?,
            () = self.keep_lease() => return Ok(Ended::Stepped(Stepped::LostLease)),
        };
        let left = match found {
            tail::Found::Tail { tail, newest, foreign } => {
                self.count_foreign(foreign);
                tell_of_foreign(foreign);
                Left { tail, newest, is_replicated }
            }
            tail::Found::Contradiction(reason) => {
                return Err(Interruption::Contradiction(reason));
            }
        };
        let tail = left.tail;
        self.metrics.relay_halted.set(0);
        if tail.position < checkpoint.tail.position {
            self.metrics.disagreement(Disagreement::Behind, 1);
            warn!(
                stream = tail.position.0,
                checkpoint = checkpoint.tail.position.0,
                "the stream lost messages: publishing them again"
            );
        }
        if self.health.relay(RelayState::Leading) {
            info!(
                position = tail.position.0,
                sequence = tail.sequence,
                "relaying from the stream's tail"
            );
        }

        // This also comes before anything is put below the old checkpoint, on a stream that fell
        // behind it.
        if !self.renew(checkpoint.epoch, tail).await? {
            return Ok(Ended::Stepped(Stepped::LostLease));
        }
        let mut window = Window::new(checkpoint.epoch, left, connects);
        let ended = self.publish_on(&mut window, &stream, jetstream, stop).await;
        // The next look at the stream begins from this checkpoint; `lead` looks after the lease.
        if let Err(error) = self.renew(window.epoch, window.left.tail).await {
            tracing::debug!(error = %format!("{error:#}"), "cannot store the checkpoint");
        }
        match ended {
            // The relay got further than the time before, so it does not pause.
            Err(failure) if window.left.tail.position > tail.position => {
                Err(Interruption::CameBetween(failure))
            }
            ended => Ok(ended?),
        }
    }

    /// Publishes from the window's tail on. A message is mostly refused because a foreign message
    /// came between. The relay then goes on behind that one, as often as that helps.
    async fn publish_on(
        &mut self,
        window: &mut Window,
        stream: &Stream,
        jetstream: &jetstream::Context,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        let mut has_moved = true;
        loop {
            let left = window.left;
            let refusal = match self.publish(window, stream, jetstream, stop).await? {
                Ended::Refused(refusal) => refusal,
                ended => return Ok(ended),
            };
            if window.left == left && !has_moved {
                return Ok(Ended::Refused(refusal));
            }
            has_moved = window.left != left;
            tracing::debug!(refusal = %format!("{refusal:#}"), "looking at the stream again");
            window.begin_again();
        }
    }

    /// Ends when the lease is lost.
    async fn keep_lease(&self) {
        loop {
            tokio::time::sleep(RENEWAL).await;
            if !self.take_lease().await {
                return;
            }
        }
    }

    /// How often the client has connected.
    fn connects(&self) -> u64 {
        self.nats.statistics().connects.load(Ordering::Relaxed)
    }

    /// In a cluster, nats-server 2.10 and 2.11 remember the id of a message they refused, and
    /// refuse its retry until the duplicate window is over. No setting of a pod shortens that.
    fn tell_of_the_window(&self, info: &Info, told: &mut Option<Duration>) {
        let window = info.config.duplicate_window;
        self.metrics.relay_duplicate_window.set(window.as_secs_f64());
        let is_long = window > LONG_WINDOW && tail::is_replicated(info);
        if is_long && told.replace(window) != Some(window) {
            warn!(
                ?window,
                "the stream {} is replicated and has a long duplicate window: nats-server 2.10 and \
                 2.11 can hold the feed up for as long; set it to 100ms",
                tail::NAME
            );
        }
    }

    fn count_foreign(&self, foreign: u64) {
        if foreign > 0 {
            self.metrics.relay_foreign.inc_by(foreign);
            self.metrics.disagreement(Disagreement::Foreign, foreign);
        }
    }

    /// Publishes from the window's tail on, until something goes wrong.
    async fn publish(
        &mut self,
        window: &mut Window,
        stream: &Stream,
        jetstream: &jetstream::Context,
        stop: &CancellationToken,
    ) -> anyhow::Result<Ended> {
        loop {
            self.head.mark_unchanged();
            let entries = self.read(window).await?;
            if entries.is_empty()
                && self.is_look_due(window, LOOK)
                && let Some(ended) = self.look(window, stream).await?
            {
                return Ok(ended);
            }
            tell_of_a_gap(window.published.position, entries.first());
            if !entries.is_empty() {
                fail_point!("relay::after_read", |_| std::process::abort());
            }
            for entry in &entries {
                if let Some(ended) = self.keep_on(window, stream, stop).await? {
                    return Ok(ended);
                }
                if let Some(ended) = self.acknowledge_to(window, window.max_in_flight() - 1).await?
                {
                    return Ok(ended);
                }
                if self.is_look_due(window, FRESH)
                    && let Some(ended) = self.look(window, stream).await?
                {
                    return Ok(ended);
                }
                fail_point!("relay::before_publish", |_| std::process::abort());
                let after = window.published.sequence;
                let (epoch, cell) = (window.epoch, self.cell.as_ref());
                let message = message::build(entry, epoch, cell, after, window.on_its_way());
                let (subject, message) = message.context("a transition that fires nothing")?;
                let span = trace::publish(
                    entry.traceparent.as_deref(),
                    (entry.change.0, entry.position),
                    subject,
                );
                let ack = jetstream.send_publish(subject, message).await.context("publish")?;
                window.sent(entry, ack, span);
                fail_point!("relay::mid_batch", |_| std::process::abort());
            }
            if !window.in_flight.is_empty() {
                fail_point!("relay::published", |_| std::process::abort());
            }
            // A full batch means that there is more to read: acknowledgements can wait.
            if ((entries.len() as i64) < BATCH || window.left.is_replicated)
                && let Some(ended) = self.acknowledge_to(window, 0).await?
            {
                return Ok(ended);
            }
            if !entries.is_empty() {
                fail_point!("relay::acknowledged", |_| std::process::abort());
            }
            if let Some(ended) = self.keep_on(window, stream, stop).await? {
                return Ok(ended);
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

    /// Renews the lease and stores the checkpoint when it is time to; returns the reason to end, if
    /// any.
    async fn keep_on(
        &self,
        window: &mut Window,
        stream: &Stream,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Ended>> {
        if stop.is_cancelled() {
            return Ok(Some(Ended::Stepped(Stepped::Stopping)));
        }
        if window.renewed.elapsed() < RENEWAL {
            return Ok(None);
        }
        window.renewed = Instant::now();
        tell_of_foreign(std::mem::take(&mut window.foreign));
        if !self.renew(window.epoch, window.left.tail).await? {
            return Ok(Some(Ended::Stepped(Stepped::LostLease)));
        }
        // A stream that has become replicated takes one message at a time.
        let is_replicated = window.left.is_replicated;
        if !window.in_flight.is_empty() && tail::is_replicated_now(stream).await? != is_replicated {
            return Ok(Some(Ended::Moved));
        }
        Ok(None)
    }

    /// Whether the relay must look at the stream before it does anything else: nothing was sent for
    /// this long, a message was refused, or the client reconnected.
    fn is_look_due(&self, window: &Window, pause: Duration) -> bool {
        !window.is_proved || window.proved.elapsed() >= pause || window.connects != self.connects()
    }

    /// Checks that the stream is as it was left, once everything in flight is acknowledged, and
    /// goes on behind foreign messages; returns the reason to end, if any.
    async fn look(&self, window: &mut Window, stream: &Stream) -> anyhow::Result<Option<Ended>> {
        if let Some(ended) = self.acknowledge_to(window, 0).await? {
            return Ok(Some(ended));
        }
        window.connects = self.connects();
        let looked = tail::look(stream, window.left, window.epoch).await?;
        let Some(OnTop { last, foreign }) = looked else { return Ok(Some(Ended::Moved)) };
        self.count_foreign(foreign);
        window.foreign += foreign;
        window.begin_behind(last);
        Ok(None)
    }

    /// Reads what follows the newest published transition, and that transition too: a database that
    /// went back to an earlier point in between (a restore, a failover to a standby that lagged) no
    /// longer has it, and would give out the next positions a second time.
    async fn read(&self, window: &mut Window) -> anyhow::Result<Vec<Entry>> {
        let published = window.published.position;
        let mut entries = self.entries(Position((published.0 - 1).max(0))).await?;
        let newest = entries.first().filter(|entry| entry.position == published);
        let newest = newest.map(|entry| entry.change);
        if window.newest.is_some() && window.newest != newest {
            bail!("the log no longer has position {} as it was published", published.0);
        }
        window.newest = newest;
        if window.in_flight.is_empty() {
            window.left_at = newest;
        }
        if newest.is_some() {
            entries.remove(0);
        }
        Ok(entries)
    }

    async fn entries(&self, after: Position) -> anyhow::Result<Vec<Entry>> {
        let read = async |client: &mut Object| read::after(client, after, BATCH + 1).await;
        Ok(self.database.run(read).await?)
    }

    /// Waits until at most this many messages are in flight; returns the reason to end, if any.
    async fn acknowledge_to(
        &self,
        window: &mut Window,
        in_flight: usize,
    ) -> anyhow::Result<Option<Ended>> {
        while window.in_flight.len() > in_flight {
            if let Some(ended) = self.acknowledge(window).await? {
                return Ok(Some(ended));
            }
        }
        Ok(None)
    }

    /// Waits for the oldest message in flight; returns the reason to end, if any. Anything but
    /// "stored, right after the one before" is a refusal. A duplicate is no success either: it only
    /// means that the tail moved.
    async fn acknowledge(&self, window: &mut Window) -> anyhow::Result<Option<Ended>> {
        let Some(InFlight { tail, change, ack, _span }) = window.in_flight.pop_front() else {
            return Ok(None);
        };
        let (position, sequence) = (tail.position.0, tail.sequence);
        let refusal = match ack.await {
            Ok(ack) if ack.sequence == sequence && !ack.duplicate => {
                self.metrics.relay_published.inc();
                window.acknowledged(tail, change);
                return Ok(None);
            }
            Ok(ack) => anyhow!(
                "position {position} was expected at sequence {sequence}, the stream says {}{}",
                ack.sequence,
                if ack.duplicate { " (a duplicate)" } else { "" }
            ),
            Err(error) => {
                let not_taken = format!("position {position} was not taken: {error}");
                let is_unknown = matches!(
                    error.kind(),
                    PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe
                );
                if is_unknown {
                    self.metrics.relay_rejected.inc();
                    return Err(Unanswered(not_taken).into());
                }
                anyhow!(not_taken)
            }
        };
        self.metrics.relay_rejected.inc();
        Ok(Some(Ended::Refused(refusal)))
    }

    /// Takes or keeps the lease.
    async fn take_lease(&self) -> bool {
        let take = async |client: &mut Object| checkpoint::take(client, &self.pod).await;
        match self.database.run_within(LEASE, take).await {
            Ok(is_ours) => is_ours,
            Err(error) => {
                tracing::debug!(%error, "cannot take the relay's lease");
                false
            }
        }
    }

    /// Renews the lease and stores the checkpoint; false if another pod has the lease, or the epoch
    /// is over.
    async fn renew(&self, epoch: Epoch, tail: Tail) -> anyhow::Result<bool> {
        let renew =
            async |client: &mut Object| checkpoint::renew(client, &self.pod, epoch, tail).await;
        Ok(self.database.run_within(LEASE, renew).await?)
    }

    async fn hand_over(&self) {
        let release = async |client: &mut Object| checkpoint::release(client, &self.pod).await;
        match self.database.run_within(LEASE, release).await {
            Ok(_) => info!("the relay's lease is handed over"),
            Err(error) => info!(%error, "the relay's lease will expire"),
        }
    }

    async fn checkpoint(&self) -> anyhow::Result<Checkpoint> {
        Ok(self.database.run(async |client| checkpoint::read(client).await).await?)
    }
}

fn tell_of_foreign(foreign: u64) {
    if foreign > 0 {
        warn!(foreign, "another program publishes on our subjects: its messages are skipped");
    }
}

/// Positions have no gap, so the next one is missing only if retention dropped it before the stream
/// lost it. The stream goes on behind the gap; its positions show it.
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

/// Why following the log failed.
enum Interruption {
    /// Something failed; a retry can help.
    Failure(anyhow::Error),
    /// The same, after some messages were stored.
    CameBetween(anyhow::Error),
    /// Stream and log contradict each other; only an operator can decide.
    Contradiction(String),
}

impl From<anyhow::Error> for Interruption {
    fn from(error: anyhow::Error) -> Interruption {
        Interruption::Failure(error)
    }
}

/// Messages in flight, oldest first.
struct Window {
    epoch: Epoch,
    in_flight: VecDeque<InFlight>,
    /// The newest message sent, and the sequence that it must get.
    published: Tail,
    /// The change that it carries, once known.
    newest: Option<ChangeId>,
    /// The stream, as far as it has acknowledged.
    left: Left,
    /// The change that its newest transition carries, once known.
    left_at: Option<ChangeId>,
    /// When the stream was last looked at, or a message was sent that only fits if the stream is
    /// so.
    proved: Instant,
    /// Whether `proved` counts; it does not after a message was refused.
    is_proved: bool,
    /// Foreign messages that were not logged yet.
    foreign: u64,
    /// How often the client had connected at the last look.
    connects: u64,
    /// When the lease was renewed.
    renewed: Instant,
}

struct InFlight {
    tail: Tail,
    change: ChangeId,
    ack: PublishAckFuture,
    /// Ends with the acknowledgement.
    _span: Span,
}

impl Window {
    fn new(epoch: Epoch, left: Left, connects: u64) -> Window {
        Window {
            epoch,
            in_flight: VecDeque::new(),
            published: left.tail,
            newest: None,
            left,
            left_at: None,
            proved: Instant::now(),
            is_proved: true,
            foreign: 0,
            connects,
            renewed: Instant::now(),
        }
    }

    fn max_in_flight(&self) -> usize {
        if self.left.is_replicated { 1 } else { MAX_IN_FLIGHT }
    }

    /// The newest change, if it is not known to be on the stream yet.
    fn on_its_way(&self) -> Option<ChangeId> {
        self.newest.filter(|_| !self.in_flight.is_empty())
    }

    fn sent(&mut self, entry: &Entry, ack: PublishAckFuture, span: Span) {
        let sequence = self.published.sequence + 1;
        self.published = Tail { position: entry.position, sequence };
        self.newest = Some(entry.change);
        self.proved = Instant::now();
        let change = entry.change;
        self.in_flight.push_back(InFlight { tail: self.published, change, ack, _span: span });
    }

    /// Notes that the stream has this transition, at its end.
    fn acknowledged(&mut self, tail: Tail, change: ChangeId) {
        (self.left.tail, self.left.newest, self.left_at) =
            (tail, Some(tail.sequence), Some(change));
        // On a replicated stream nothing else was done while the message was in flight.
        if self.left.is_replicated {
            self.proved = Instant::now();
        }
    }

    /// Forgets what is in flight: a message that follows a refused one is refused. The stream is
    /// looked at before the next one is sent.
    fn begin_again(&mut self) {
        self.in_flight.clear();
        (self.published, self.newest) = (self.left.tail, self.left_at);
        self.is_proved = false;
    }

    /// Notes that the stream ends here, as just seen.
    fn begin_behind(&mut self, last: u64) {
        self.left.tail.sequence = last;
        self.published = self.left.tail;
        (self.proved, self.is_proved) = (Instant::now(), true);
    }
}
