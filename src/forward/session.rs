//! One holding of the lease: messages come in, are sent in order, and are acknowledged.
//!
//! At first nothing is sent. What an earlier session left without an acknowledgement comes again only after a while, and
//! newer messages come before it. So the session begins to send when everything that the server has out is in hand
//! (`is_whole`). From then on messages come in the order of the stream. The server numbers what it delivers to a consumer;
//! where a number is missing a message was lost on its way, and the session ends, so that the next one begins so again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use async_nats::connection::State;
use async_nats::jetstream::AckKind;
use async_nats::jetstream::consumer::Consumer;
use async_nats::jetstream::consumer::pull::{Config, Stream as Messages};
use async_nats::jetstream::message::Acker;
use fail::fail_point;
use futures_util::{FutureExt as _, StreamExt as _};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::dead_letters::DeadLetters;
use super::event::Event;
use super::forwarder::Forwarder;
use super::lease::{Floor, Lease};
use super::queues::{Queues, Taken};
use super::receiver::Failure;
use super::recent::Recent;
use super::retry::LONGEST_WISH;
use crate::platform::bucket::Rate;
use crate::platform::log_gate::LogGate;

/// Log lines about failed attempts: so many at once, then one every six seconds.
const FAILURES_TOLD: Rate = Rate { burst: 20.0, per_second: 1.0 / 6.0 };

/// How often it is looked whether everything is in hand.
const GATE_INTERVAL: Duration = Duration::from_millis(200);

/// The pause between two tries to acknowledge.
const ACK_PAUSE: Duration = Duration::from_millis(500);

/// What acknowledgements may take at the end of a session.
const SETTLING: Duration = Duration::from_secs(5);

/// How a session ended.
pub enum End {
    /// It was told to.
    Stopped,
    /// The receiver wants no more messages.
    Gone,
    /// It is not certain that what comes next is in order.
    Doubt(String),
}

/// How an attempt ended.
enum Ended {
    /// The message was delivered, or is a dead letter, and was acknowledged.
    Done(Arc<Event>),
    /// It is to be sent again after this pause.
    Failed(Arc<Event>, Failure, Duration),
    /// The receiver wants no more messages.
    Gone,
}

type Acknowledge = Arc<Acker>;

/// See the module.
pub struct Session<'a> {
    forwarder: &'a Forwarder,
    /// What this process did.
    recent: &'a mut Recent,
    lease: Lease,
    consumer: Consumer<Config>,
    messages: Messages,
    dead_letters: Arc<DeadLetters>,
    queues: Queues<Acknowledge>,
    attempts: JoinSet<Ended>,
    /// Whether everything that the server has out is in hand.
    is_whole: bool,
    /// The number of the newest delivery to the consumer; none before everything is in hand.
    newest_delivery: Option<u64>,
    /// The highest that came.
    highest: Option<Floor>,
    /// The receiver wants to be left alone until then.
    resting: Option<Instant>,
    failures_told: LogGate,
}

impl<'a> Session<'a> {
    /// Holds the lease; nothing was taken from the consumer yet.
    pub fn new(
        forwarder: &'a Forwarder,
        recent: &'a mut Recent,
        lease: Lease,
        consumer: Consumer<Config>,
        messages: Messages,
        dead_letters: DeadLetters,
    ) -> Session<'a> {
        Session {
            forwarder,
            recent,
            lease,
            consumer,
            messages,
            dead_letters: Arc::new(dead_letters),
            queues: Queues::new(),
            attempts: JoinSet::new(),
            is_whole: false,
            newest_delivery: None,
            highest: None,
            resting: None,
            failures_told: LogGate::new(FAILURES_TOLD),
        }
    }

    /// Forwards until something ends it, and leaves everything so that the next session can go on.
    pub async fn run(mut self, stop: &CancellationToken) -> anyhow::Result<End> {
        let ended = self.forward(stop).await;
        self.finish().await;
        ended
    }

    async fn forward(&mut self, stop: &CancellationToken) -> anyhow::Result<End> {
        let every = |duration| {
            let mut ticks = interval(duration);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        };
        let mut ticks = every(self.forwarder.settings.takeover() / 3);
        let mut looks = every(GATE_INTERVAL);
        loop {
            self.start_due();
            let wake = self.wakes();
            tokio::select! {
                () = stop.cancelled() => return Ok(End::Stopped),
                message = self.messages.next() => match message {
                    Some(Ok(message)) => if let Some(doubt) = self.take(message).await {
                        return Ok(doubt);
                    },
                    Some(Err(error)) => return Ok(End::Doubt(format!("no more messages: {error}"))),
                    None => return Ok(End::Doubt("no more messages".to_owned())),
                },
                Some(ended) = self.attempts.join_next() => match ended.context("an attempt failed")? {
                    Ended::Gone => return Ok(End::Gone),
                    ended => self.note(ended),
                },
                _ = ticks.tick() => self.keep_up().await?,
                _ = looks.tick(), if !self.is_whole => self.look().await?,
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            }
        }
    }

    /// Whether everything that the server has out is in hand. What it has out is counted after what is in hand.
    async fn look(&mut self) -> anyhow::Result<()> {
        let in_hand = self.queues.count();
        let info = self.consumer.get_info().await.context("cannot look at the consumer")?;
        self.is_whole = info.num_ack_pending <= in_hand;
        self.newest_delivery = self.is_whole.then_some(info.delivered.consumer_sequence);
        Ok(())
    }

    /// Takes a message in hand.
    async fn take(&mut self, message: async_nats::jetstream::Message) -> Option<End> {
        let (number, stored_at) = match message.info() {
            Ok(info) => (info.consumer_sequence, info.published),
            Err(error) => return Some(End::Doubt(format!("a message without a number: {error}"))),
        };
        if self.newest_delivery.is_some_and(|newest| number > newest + 1) {
            return Some(End::Doubt("a message went elsewhere, or was lost on its way".to_owned()));
        }
        self.newest_delivery = self.newest_delivery.map(|newest| newest.max(number));
        let (message, acker) = message.split();
        let headers = message.headers.unwrap_or_default();
        let event = Event::read(&headers, message.payload, stored_at);
        let is_done = |event: &Event| {
            self.recent.has(&event.change) || self.lease.floor.is_some_and(|floor| floor.has(event))
        };
        let new = event.filter(|event| !is_done(event));
        let Some(event) = new else {
            self.forwarder.numbers.skipped.inc();
            // Where this is lost the message comes again, and is skipped again.
            acker.ack().await.ok();
            return None;
        };
        let seen = Floor { position: event.position, newest: event.occurred_at };
        self.highest = Some(Floor::raised(self.highest, seen));
        self.queues.insert(event, Arc::new(acker), Instant::now());
        None
    }

    /// Sends what is due, as long as it is certain that this may and nobody else does.
    fn start_due(&mut self) {
        let now = Instant::now();
        while self.may_start(now)
            && let Some(taken) = self.queues.take(now)
        {
            let (attempt, numbers) = (self.attempt(taken), &self.forwarder.numbers);
            self.attempts.spawn(attempt);
            numbers.in_flight.set(self.attempts.len() as i64);
        }
    }

    fn may_start(&self, now: Instant) -> bool {
        self.is_whole
            && self.attempts.len() < self.forwarder.settings.concurrency
            && self.resting.is_none_or(|until| until <= now)
            && self.lease.is_held()
    }

    /// When there is something to start; none if an attempt must end before, or a message come.
    fn wakes(&self) -> Option<Instant> {
        let has_room = self.attempts.len() < self.forwarder.settings.concurrency;
        let due =
            self.queues.next_due().filter(|_| self.is_whole && has_room && self.lease.is_held())?;
        Some(self.resting.map_or(due, |until| until.max(due)))
    }

    /// One attempt, with what follows from it.
    fn attempt(&self, taken: Taken<Acknowledge>) -> impl Future<Output = Ended> + use<> {
        let Taken { event, acknowledge, failures } = taken;
        let (receiver, secrets) =
            (self.forwarder.receiver.clone(), self.forwarder.signing.secrets());
        let (dead_letters, numbers) = (self.dead_letters.clone(), self.forwarder.numbers.clone());
        let retry = self.forwarder.settings.retry;
        async move {
            let begun = Instant::now();
            let sent = event.clone();
            let sending = tokio::task::spawn_blocking(move || receiver.send(&sent, &secrets)).await;
            let outcome =
                sending.unwrap_or_else(|error| Err(Failure::Unreachable(error.to_string())));
            numbers.attempt_seconds.observe(begun.elapsed().as_secs_f64());
            numbers.attempted(outcome.as_ref().map_or_else(Failure::word, |()| "delivered"));
            let failure = match outcome {
                Ok(()) => return done(event, &acknowledge).await,
                Err(Failure::Gone) => return Ended::Gone,
                Err(failure) => failure,
            };
            let (attempts, age) =
                (failures.saturating_add(1), event.age(OffsetDateTime::now_utc()));
            match retry.pause(attempts, age, failure.wish(), fastrand::f64()) {
                Some(pause) => Ended::Failed(event, failure, pause),
                None => match dead_letters.keep(&event, attempts, &failure).await {
                    Ok(()) => {
                        numbers.given_up.inc();
                        let (change, position) = (&event.change, event.position);
                        warn!(change, position, attempts, %failure, "given up: it is a dead letter now");
                        done(event, &acknowledge).await
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        error!(error, "a message that is given up stays in its queue");
                        Ended::Failed(event, failure, retry.longest)
                    }
                },
            }
        }
    }

    fn note(&mut self, ended: Ended) {
        let now = Instant::now();
        self.forwarder.numbers.in_flight.set(self.attempts.len() as i64);
        match ended {
            Ended::Done(event) => {
                self.recent.remember(&event.change);
                self.queues.done(&event, now);
            }
            Ended::Failed(event, failure, pause) => {
                self.queues.failed(&event, now + pause);
                if let Some(wish) = failure.wish().filter(|_| failure.is_of_all()) {
                    let until = now + wish.min(LONGEST_WISH);
                    self.resting = Some(self.resting.map_or(until, |resting| resting.max(until)));
                }
                if let Some(left_out) = self.failures_told.pass(now) {
                    let (change, position) = (&event.change, event.position);
                    warn!(change, position, %failure, ?pause, left_out, "not delivered: trying again");
                }
            }
            Ended::Gone => {}
        }
    }

    /// Keeps the lease, keeps the messages in hand from coming again, and shows how far it is.
    async fn keep_up(&mut self) -> anyhow::Result<()> {
        // Since it ran out, what is in hand may have come again, here or elsewhere.
        ensure!(self.lease.is_held(), "the lease ran out");
        self.raise_floor();
        self.lease.renew().await?;
        let signing = self.forwarder.signing.clone();
        tokio::task::spawn_blocking(move || signing.refresh()).await.context("the secrets")?;
        let is_connected = self.forwarder.nats.connection_state() == State::Connected;
        if is_connected {
            let patience = self.forwarder.settings.takeover() / 3;
            let acknowledgements = self.queues.acknowledgements();
            let all = async {
                for acknowledge in acknowledgements {
                    acknowledge.ack_with(AckKind::Progress).await.ok();
                }
            };
            // What is not told now is told a third of the time later.
            timeout(patience, all).await.ok();
            timeout(patience, self.show()).await.ok();
        }
        Ok(())
    }

    /// What is below everything in hand is done.
    fn raise_floor(&mut self) {
        let Some(highest) = self.highest.filter(|_| self.is_whole) else { return };
        let position = self.queues.first_position().map_or(highest.position, |first| first - 1);
        let done = Floor { position: position.min(highest.position), ..highest };
        self.lease.floor = Some(Floor::raised(self.lease.floor, done));
    }

    async fn show(&self) {
        let numbers = &self.forwarder.numbers;
        numbers.pending.set(self.queues.count() as i64);
        numbers.satellites.set(self.queues.satellites() as i64);
        let oldest = self.queues.oldest(OffsetDateTime::now_utc());
        numbers.oldest_seconds.set(oldest.as_secs_f64());
        if let Ok(info) = self.consumer.get_info().await {
            numbers.lag.set(info.num_pending as i64);
        }
        if let Ok(count) = self.dead_letters.count().await {
            numbers.dead_letters.set(count as i64);
        }
    }

    /// Waits for what is under way, and gives back what is in hand, so that whoever comes next has it at once.
    async fn finish(mut self) {
        let patience = self.forwarder.settings.timeout + SETTLING;
        let settled = timeout(patience, async {
            while let Some(ended) = self.attempts.join_next().await {
                if let Ok(ended) = ended {
                    self.note(ended);
                }
            }
        });
        if settled.await.is_err() {
            self.attempts.abort_all();
        }
        self.raise_floor();
        while let Some(Some(Ok(message))) = self.messages.next().now_or_never() {
            if self.take(message).await.is_some() {
                break;
            }
        }
        let Session { forwarder, lease, messages, queues, .. } = self;
        // As long as it is there, what is given back comes here again.
        drop(messages);
        let (client, given_back) = (&forwarder.nats, queues.count());
        if lease.is_held() && client.connection_state() == State::Connected {
            let all = async {
                client.flush().await.ok();
                for acknowledge in queues.acknowledgements() {
                    acknowledge.ack_with(AckKind::Nak(None)).await.ok();
                }
                client.flush().await.ok();
                lease.release().await;
            };
            timeout(SETTLING, all).await.ok();
        }
        forwarder.numbers.pending.set(0);
        forwarder.numbers.in_flight.set(0);
        info!(given_back, "a session ended");
    }
}

/// Acknowledges until the server confirms it: what is not confirmed would come again, after newer ones.
async fn done(event: Arc<Event>, acknowledge: &Acker) -> Ended {
    fail_point!("forward::delivered", |_| std::process::abort());
    while acknowledge.double_ack().await.is_err() {
        tokio::time::sleep(ACK_PAUSE).await;
    }
    Ended::Done(event)
}
