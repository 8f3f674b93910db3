//! Rebuilds the stream from the log: `groundstation audit --repair`.
//!
//! It does so under a new epoch, and in this order, so that it may be interrupted anywhere:
//!
//! 1. One statement takes the relay's lease from any holder, raises the epoch and moves the
//!    checkpoint back to before the log's first transition. From here on nothing of an earlier
//!    epoch counts; the next relay publishes everything again under the new one.
//! 2. The stream is purged. Its sequences go on, so durable consumers stay and receive what comes.
//! 3. The stream is made to forget the message ids of its duplicate window. They outlive a purge,
//!    and the server would drop the transitions of the last minutes as duplicates.
//! 4. The relay publishes everything from the log, as ever with the sequence that each message must
//!    follow. Then the lease is given back.
//!
//! Any pod finishes an interrupted repair, except for the purge; another repair finishes it too.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{Config, Stream};
use deadpool_postgres::Object;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::domain::cell::Cell;
use crate::domain::lifecycle::Position;
use crate::log::{self, read};
use crate::platform::database::Database;
use crate::platform::health::{Health, RelayState};
use crate::platform::metrics::Metrics;
use crate::platform::replicas::{Replicas, Replication};
use crate::stream::checkpoint::{self, Checkpoint};
use crate::stream::checkpoint::{LEASE, Tail};
use crate::stream::message::{Epoch, Mark};
use crate::stream::relay::Relay;
use crate::stream::tail;

/// How long the server is given to forget the older message ids.
const FORGETTING: Duration = Duration::from_secs(1);

/// A relay that has waited this long may be waiting for the server to forget.
const STUCK: Duration = Duration::from_secs(2);

/// The pause between two reads of the relay's progress.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// The repair gives up after this long without progress. It is longer than a duplicate window,
/// which the repair has to wait out if the server does not forget.
const NO_PROGRESS: Duration = Duration::from_secs(5 * 60);

/// What a repair works on.
pub struct Repair {
    /// Where the log is.
    pub database: Database,
    /// Where the stream is.
    pub nats: async_nats::Client,
    /// The same, for its streams.
    pub jetstream: Context,
    /// On how many servers the stream is made, if it does not exist.
    pub replicas: Replicas,
    /// The cell that the messages name.
    pub cell: Option<Cell>,
    /// The name under which it holds the lease.
    pub holder: String,
    /// The lowest new epoch; the new one is higher if log or stream know this one already.
    pub at_least: Epoch,
}

/// The result of a repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// The new epoch.
    pub epoch: Epoch,
    /// The first position on the stream now.
    pub first: Position,
    /// The last position on the stream now.
    pub last: Position,
    /// How many messages were purged.
    pub purged: u64,
}

impl Repair {
    /// Rebuilds the stream. Calls `tell` with each step, in words for operators.
    pub async fn run(&self, mut tell: impl FnMut(&str)) -> anyhow::Result<Rebuilt> {
        let mut replication = Replication::of(tail::NAME, self.replicas);
        let stream = tail::ensure(&self.jetstream, &mut replication).await?;
        if stream.cached_info().config.deny_purge {
            bail!("the stream {} may not be purged (deny_purge)", tail::NAME);
        }
        let (epoch, tail) = self.begin(&stream, &mut tell).await?;
        let first = tail.position.next();
        tell(&format!("epoch {} has begun: nothing before it counts", epoch.0));
        // Only old messages are purged: if a pod relays already, what it publishes stays.
        let purge = stream.purge().sequence(tail.sequence + 1).await;
        let purged = purge.context("cannot purge the stream")?.purged;
        tell(&format!("purged {purged} messages"));
        let config = stream.cached_info().config.clone();
        let window = config.duplicate_window;
        tell(&format!("the stream's duplicate window is {window:?}; shortened for a moment"));
        self.forget_message_ids(&config).await?;
        let last = self.publish(&config, &mut tell).await?;
        Ok(Rebuilt { epoch, first, last, purged })
    }

    /// Takes the lease and begins the epoch. Returns the stream's tail at that moment, with the
    /// position before the log's first.
    async fn begin(
        &self,
        stream: &Stream,
        tell: &mut impl FnMut(&str),
    ) -> anyhow::Result<(Epoch, Tail)> {
        let look = async |client: &mut Object| {
            Ok::<_, tokio_postgres::Error>((
                log::horizon(client).await?,
                checkpoint::read(client).await?,
            ))
        };
        let (horizon, before) = self.database.run(look).await?;
        // A database restored from before an earlier repair knows an older epoch than the stream.
        let known = before.epoch.max(newest_epoch(stream).await?);
        let epoch = self.at_least.max(Epoch(known.0 + 1));
        let mut tail = Tail { position: horizon, sequence: last_sequence(stream).await? };
        let begin = async |client: &mut Object| {
            checkpoint::begin_epoch(client, &self.holder, epoch, tail).await
        };
        self.database.run(begin).await?;
        if before.is_led {
            // The pod notices when it next renews the lease. What it still publishes is of the old
            // epoch and is purged with the rest.
            tell("waiting for the pod that relays to step back");
            let until = Instant::now() + LEASE;
            while Instant::now() < until {
                tokio::time::sleep(LOOK_PAUSE).await;
                self.hold(epoch, tail).await?;
            }
            tail.sequence = last_sequence(stream).await?;
            self.hold(epoch, tail).await?;
        }
        Ok((epoch, tail))
    }

    async fn hold(&self, epoch: Epoch, tail: Tail) -> anyhow::Result<()> {
        let hold =
            async |client: &mut Object| checkpoint::renew(client, &self.holder, epoch, tail).await;
        if !self.database.run(hold).await? {
            bail!("a pod took the relay back before the stream was purged: repair again");
        }
        Ok(())
    }

    /// Shortens the stream's duplicate window and restores it.
    async fn forget_message_ids(&self, config: &Config) -> anyhow::Result<()> {
        let window = config.duplicate_window;
        let short =
            Config { duplicate_window: tail::DUPLICATE_WINDOW.min(window), ..config.clone() };
        let update = self.jetstream.update_stream(&short).await;
        update.context("cannot shorten the stream's duplicate window")?;
        tokio::time::sleep(FORGETTING).await;
        let restore = self.jetstream.update_stream(config).await;
        restore.with_context(|| {
            format!("cannot restore the stream's duplicate window: set it to {window:?}")
        })?;
        Ok(())
    }

    /// Relays until everything that is in the log now is on the stream. Returns the last position.
    async fn publish(
        &self,
        config: &Config,
        tell: &mut impl FnMut(&str),
    ) -> anyhow::Result<Position> {
        let head = self.database.run(async |client| read::head(client).await).await?;
        let (health, stop) = (Arc::new(Health::default()), CancellationToken::new());
        // The sender is kept until the relay has ended: a closed channel would be news for ever.
        let (news, watched) = watch::channel(head);
        let relay = Relay {
            pod: self.holder.clone(),
            database: self.database.clone(),
            nats: self.nats.clone(),
            head: watched,
            health: health.clone(),
            replication: Replication::of(tail::NAME, self.replicas),
            cell: self.cell.clone(),
            metrics: Metrics::new(),
        };
        let relay = tokio::spawn(relay.run(stop.clone()));
        let reached = self.reach(head, &health, config, tell).await;
        stop.cancel();
        relay.await.context("the relay failed")?;
        drop(news);
        reached?;
        Ok(head)
    }

    async fn reach(
        &self,
        head: Position,
        health: &Health,
        config: &Config,
        tell: &mut impl FnMut(&str),
    ) -> anyhow::Result<()> {
        let (mut progressed, mut at) = (Instant::now(), Position::ZERO);
        let mut forgot = Instant::now();
        let mut obstacle = String::new();
        loop {
            let read = async |client: &mut Object| checkpoint::read(client).await;
            let checkpoint: Checkpoint = self.database.run(read).await?;
            let position = checkpoint.tail.position;
            if position >= head {
                return Ok(());
            }
            if position != at {
                (progressed, at) = (Instant::now(), position);
                tell(&format!("published up to position {} of {}", position.0, head.0));
            }
            match health.report().relay {
                RelayState::Halted { reason } => bail!("the relay has halted: {reason}"),
                RelayState::Waiting { reason } if reason != obstacle => {
                    tell(&format!("waiting: {reason}"));
                    obstacle = reason;
                }
                // The server's timer sometimes misses a short window: the repair tries again.
                RelayState::Waiting { .. } if forgot.elapsed() > STUCK => {
                    self.forget_message_ids(config).await?;
                    forgot = Instant::now();
                }
                _ => {}
            }
            if progressed.elapsed() > NO_PROGRESS {
                bail!("nothing was published for {NO_PROGRESS:?}; the pods go on with it");
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }
}

async fn last_sequence(stream: &Stream) -> anyhow::Result<u64> {
    let info = stream.get_info().await.context("cannot read the stream's state")?;
    Ok(info.state.last_sequence)
}

/// The epoch of our newest message, as far as the last messages of its subjects tell.
async fn newest_epoch(stream: &Stream) -> anyhow::Result<Epoch> {
    use async_nats::jetstream::stream::LastRawMessageErrorKind;
    let mut newest = Epoch::FIRST;
    for subject in tail::subjects() {
        match stream.get_last_raw_message_by_subject(&subject).await {
            Ok(message) => {
                let mark = Mark::read(&message.headers);
                newest = newest.max(mark.map_or(Epoch::FIRST, |mark| mark.epoch));
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => bail!("cannot read the stream: {error}"),
        }
    }
    Ok(newest)
}
