//! Compares the whole log with the whole stream: `groundstation audit`.
//!
//! It names every transition that is missing on the stream, and every message of ours that is
//! duplicated, out of place, altered, or not in the log. It uses constant memory and runs while
//! pods run. It changes nothing; only [`repair`] writes, and only what it says.
//!
//! The audit compares the log, from its beginning (retention may have moved it) to its head when
//! the audit began, with the stream up to its end a moment later. Transitions above the relay's
//! checkpoint are no fault yet: the audit first waits, for a bounded time, until the stream reaches
//! that head. What is not there then is missing.
//!
//! Three things are no faults: foreign messages on our subjects (counted); messages older than the
//! log, whose rows retention dropped (counted); a stream that begins later than the log because its
//! own limits removed its oldest messages (reported). If the stream's configuration has no limits,
//! only a person can have removed them, and they count as missing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{Context, Message};
use deadpool_postgres::Object;
use futures_util::StreamExt;

use crate::domain::lifecycle::Position;
use crate::log::{self, Entry, read};
use crate::platform::database::Database;
use crate::stream::checkpoint::{self, Checkpoint};
use crate::stream::message::Epoch;
use crate::stream::tail;

pub(crate) mod compare;
pub(crate) mod repair;

use compare::{Comparison, Counts, Finding, Seen};

/// The pause between two reads of the relay's progress.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// How long the next message may take. Only a stream that is being emptied has none to give.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(15);

/// Messages between two progress reports.
const REPORT_EVERY: u64 = 10_000;

/// What an audit compares.
pub struct Audit {
    /// Where the log is.
    pub database: Database,
    /// Where the stream is.
    pub jetstream: Context,
    /// How long to wait until the stream reaches the log's head.
    pub wait: Duration,
}

/// The result of an audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The log's first position.
    pub begin: Position,
    /// The log's head when the audit began.
    pub head: Position,
    /// The stream's first and last sequence, if there is a stream.
    pub stream: Option<(u64, u64)>,
    /// The relay's epoch.
    pub epoch: Epoch,
    /// Whether a pod relays.
    pub is_led: bool,
    /// What the audit counted.
    pub counts: Counts,
}

impl Summary {
    /// Whether log and stream agree.
    pub fn agrees(&self) -> bool {
        self.counts.faults() == 0
    }
}

impl Audit {
    /// Compares everything. Calls `found` with each fault as it is found, and `progress` now and
    /// then with the number of messages done and the total.
    pub async fn run(
        &self,
        found: impl FnMut(Finding),
        mut progress: impl FnMut(u64, u64),
    ) -> anyhow::Result<Summary> {
        let (begin, head) = self.extent().await?;
        let (stream, checkpoint) = self.wait_for(head).await?;
        let (mut sequences, mut is_limited) = (None, false);
        if let Some(stream) = &stream {
            let info = stream.get_info().await.context("cannot read the stream's state")?;
            let (first, last) = (info.state.first_sequence, info.state.last_sequence);
            is_limited = first > 1 && tail::has_limits(&info.config);
            sequences = Some((first, last));
        }
        // Every message up to `last` was in the log before it was published.
        let (_, end) = self.extent().await?;
        let log = Pages::new(self.database.clone());
        let mut comparison = Comparison::new(log, begin, end, checkpoint.epoch, is_limited, found);
        if let (Some(stream), Some((first, last))) = (&stream, sequences) {
            self.read(stream, first, last, &mut comparison, &mut progress).await?;
        }
        let removed = if is_limited { checkpoint.tail.position } else { Position::ZERO };
        let counts = comparison.finish(head, removed).await?;
        let (epoch, is_led) = (checkpoint.epoch, checkpoint.is_led);
        Ok(Summary { begin, head, stream: sequences, epoch, is_led, counts })
    }

    /// The first position the log can have, and its newest.
    async fn extent(&self) -> anyhow::Result<(Position, Position)> {
        let ends = async |client: &mut Object| {
            Ok::<_, tokio_postgres::Error>((log::horizon(client).await?, read::head(client).await?))
        };
        let (horizon, head) = self.database.run(ends).await?;
        Ok((horizon.next(), head))
    }

    /// Waits until the relay says that the stream has reached `head`, and the stream is as long as
    /// it says. Gives up when the allowed time is over.
    async fn wait_for(&self, head: Position) -> anyhow::Result<(Option<Stream>, Checkpoint)> {
        let give_up = Instant::now() + self.wait;
        loop {
            let read = async |client: &mut Object| checkpoint::read(client).await;
            let checkpoint = self.database.run(read).await?;
            // The stream is read after the checkpoint, so its state is the newer of the two.
            let stream = tail::find(&self.jetstream).await?;
            let last = stream.as_ref().map_or(0, |stream| stream.cached_info().state.last_sequence);
            let (position, sequence) = (checkpoint.tail.position, checkpoint.tail.sequence);
            if (position >= head && last >= sequence) || Instant::now() >= give_up {
                return Ok((stream, checkpoint));
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    async fn read<F: FnMut(Finding)>(
        &self,
        stream: &Stream,
        first: u64,
        last: u64,
        comparison: &mut Comparison<Pages, F>,
        progress: &mut impl FnMut(u64, u64),
    ) -> anyhow::Result<()> {
        let consumer = stream
            .create_consumer(pull::OrderedConfig {
                deliver_policy: DeliverPolicy::All,
                ..pull::OrderedConfig::default()
            })
            .await
            .context("cannot read the stream")?;
        // The stream is empty: no message would ever come.
        if first > last || consumer.cached_info().num_pending == 0 {
            return Ok(());
        }
        let mut messages = consumer.messages().await.context("cannot read the stream")?;
        let mut done = 0;
        loop {
            let next = tokio::time::timeout(MESSAGE_TIMEOUT, messages.next()).await;
            let Ok(message) = next else {
                bail!("the stream gave no message for {MESSAGE_TIMEOUT:?}: is it being emptied?")
            };
            let message = message.context("the stream ended")?.context("cannot read the stream")?;
            let (sequence, pending) = place(&message)?;
            if sequence <= last {
                comparison.observe(Seen::of(&message, sequence)).await?;
                done += 1;
            }
            if sequence >= last || pending == 0 {
                return Ok(());
            }
            if done % REPORT_EVERY == 0 {
                progress(sequence - first + 1, last - first + 1);
            }
        }
    }
}

fn place(message: &Message) -> anyhow::Result<(u64, u64)> {
    let info = message.info().map_err(|error| anyhow::anyhow!("not from a stream: {error}"))?;
    Ok((info.stream_sequence, info.pending))
}

/// The log by position. It is read in pages while positions ascend, one by one otherwise.
struct Pages {
    database: Database,
    page: Vec<Entry>,
    /// The position asked for last.
    last: Position,
}

impl Pages {
    fn new(database: Database) -> Pages {
        Pages { database, page: Vec::new(), last: Position::ZERO }
    }
}

impl compare::Entries for Pages {
    async fn at(&mut self, position: Position) -> anyhow::Result<Option<Entry>> {
        let follows = position.0 == self.last.0 + 1;
        let found = self.page.binary_search_by_key(&position, |entry| entry.position);
        if let Ok(index) = found {
            self.last = position;
            return Ok(self.page.get(index).cloned());
        }
        let limit = if follows { read::MAX_LIMIT } else { 1 };
        let before = Position(position.0 - 1);
        let read = async |client: &mut Object| read::after(client, before, limit).await;
        let entries = self.database.run(read).await?;
        let entry = entries.first().filter(|entry| entry.position == position).cloned();
        if follows {
            self.page = entries;
        }
        self.last = position;
        Ok(entry)
    }
}
