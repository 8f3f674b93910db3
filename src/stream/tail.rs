//! The stream: its configuration, and where its tail stands in the log.
//!
//! The tail is read from the stream's leader (a replica that is behind may answer a direct get). It
//! is compared with the log before anything is published on top of it. No position may be missing
//! from the checkpoint up to the tail (see [`super::density`]).

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, LastRawMessageErrorKind, RetentionPolicy, State, Stream,
};
use async_nats::jetstream::{Context, ErrorCode};
use deadpool_postgres::Object;
use futures_util::{StreamExt, TryStreamExt, stream};
use strum::IntoEnumIterator;

use super::checkpoint::Checkpoint;
use super::checkpoint::Tail;
use super::density::{Hole, Seen, Step, Walk};
use super::message::{Epoch, Mark};
use crate::domain::cell::Cell;
use crate::domain::lifecycle::{Position, REMOVED_SUBJECT, Trigger};
use crate::log::{self, Entry};
use crate::platform::database::Database;
use crate::platform::replicas::Replication;

/// The stream's name.
pub const NAME: &str = "SATELLITE_TRANSITIONS";

/// The duplicate window of a stream that a pod makes: the shortest that the server takes. The
/// expected sequence keeps duplicates out; and in a cluster, nats-server 2.10 and 2.11 refuse the
/// retry of a message they once refused for as long as this.
pub const DUPLICATE_WINDOW: Duration = Duration::from_millis(100);

/// The stream's subjects: the triggers' ids and the cleanup signal.
pub fn subjects() -> Vec<String> {
    let mut subjects: Vec<String> =
        Trigger::iter().map(|trigger| trigger.id().to_owned()).collect();
    subjects.push(REMOVED_SUBJECT.to_owned());
    subjects
}

/// The result of reading the tail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The relay goes on from here.
    Tail {
        /// The tail.
        tail: Tail,
        /// The sequence of our newest message, if it was seen.
        newest: Option<u64>,
        /// How many foreign messages were skipped on the way.
        foreign: u64,
    },
    /// Stream and log contradict each other; the text says how.
    Contradiction(String),
}

/// The stream; it is created if it does not exist. One that an operator made (with replicas,
/// limits, a placement) is taken as it is, as long as it has the subjects.
pub async fn ensure(jetstream: &Context, replication: &mut Replication) -> anyhow::Result<Stream> {
    if let Some(stream) = find(jetstream).await? {
        return Ok(stream);
    }
    let config = Config {
        subjects: subjects(),
        description: Some("Every transition of every satellite, once, in order".to_owned()),
        discard: DiscardPolicy::New,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    };
    replication.make(jetstream, config).await
}

/// The stream, if it exists; an error if it lacks one of the subjects, or is made of other streams.
pub async fn find(jetstream: &Context) -> anyhow::Result<Option<Stream>> {
    let stream = match jetstream.get_stream(NAME).await {
        Ok(stream) => stream,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => bail!("cannot reach the stream {NAME}: {error}"),
    };
    let config = &stream.cached_info().config;
    if config.mirror.is_some() || config.sources.as_ref().is_some_and(|sources| !sources.is_empty())
    {
        bail!(
            "the stream {NAME} of this NATS is made of other streams, as one that merges cells is: \
             name the NATS of the cell itself, whose stream is the cell's log"
        );
    }
    let has = &config.subjects;
    if let Some(missing) = subjects().iter().find(|subject| !has.contains(subject)) {
        bail!("the stream {NAME} exists without the subject {missing}: add it");
    }
    Ok(Some(stream))
}

fn is_absent(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    use async_nats::jetstream::context::GetStreamErrorKind;
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Whether the stream removes messages by itself.
pub fn has_limits(config: &Config) -> bool {
    config.max_messages > 0
        || config.max_bytes > 0
        || config.max_messages_per_subject > 0
        || !config.max_age.is_zero()
        || config.retention != RetentionPolicy::Limits
}

/// Whether each message is on several servers, or is about to be.
pub fn is_replicated(info: &Info) -> bool {
    let others = info.cluster.as_ref().map_or(0, |cluster| cluster.replicas.len());
    info.config.num_replicas > 1 || others > 0
}

/// The same, read now.
pub async fn is_replicated_now(stream: &Stream) -> anyhow::Result<bool> {
    Ok(is_replicated(&info(stream).await?))
}

/// How often the stream is looked at again because it grew during the look.
const ROUNDS: usize = 10;

/// How far below the checkpoint the search goes for a message of ours, if the message at the
/// checkpoint is not ours. Beyond this the relay trusts the checkpoint.
const BELOW_CHECKPOINT: u64 = 1_000;

/// How many messages on top of what the relay left are looked at. If there are more, the tail is
/// read anew.
const MOST_ON_TOP: u64 = 1_000;

/// Messages in one page, and how many of them are requested at the same time.
const PAGE: u64 = 256;
const ASKED_AT_ONCE: usize = 32;

/// Finds our newest message of this epoch and compares it with the log. What is found on the stream
/// decides. The checkpoint decides only if the stream's limits have removed the message it names.
/// `cell` is the relay's own, for the words of a contradiction.
pub async fn tail(
    stream: &Stream,
    database: &Database,
    checkpoint: Checkpoint,
    cell: Option<&Cell>,
) -> anyhow::Result<Found> {
    let mut search = Search { stream, checkpoint, looked_at: 0, foreign: 0 };
    let mut newest = Newest::Unknown;
    let mut info = info(stream).await?;
    for _ in 0..ROUNDS {
        match search.look(&info.state).await? {
            Newest::Unknown => {}
            found => newest = found,
        }
        // Others may publish all the time: what came during a long look makes a short one.
        info = self::info(stream).await?;
        if info.state.last_sequence == search.looked_at {
            break;
        }
    }
    let known = checkpoint.tail;
    let (last, foreign) = (search.looked_at, search.foreign);
    let reached = last >= known.sequence;
    let (position, newest) = match newest {
        Newest::Ours { mark, sequence } => {
            if let Some(reason) = contradiction(database, checkpoint, &mark, sequence).await? {
                return Ok(Found::Contradiction(reason.in_words(&mark, cell)));
            }
            match walk(stream, database, &info, checkpoint, sequence).await? {
                Walked::Hole(hole) => return Ok(Found::Contradiction(in_words(hole))),
                // Messages behind our newest one are copies that others made.
                Walked::To { position, sequence } => (position, Some(sequence)),
                Walked::Nowhere => (mark.position, Some(sequence)),
            }
        }
        // The stream's beginning is gone, and our messages were there. If the stream has limits,
        // they may have removed our messages, and those behind the checkpoint are published again.
        // If not, a person emptied the stream, and all are published again.
        Newest::Unknown if reached && info.state.first_sequence > 1 => {
            match has_limits(&info.config) {
                true => (known.position, None),
                false => (known.position.min(horizon(database).await?), None),
            }
        }
        Newest::TooFar if reached => (known.position, None),
        // No message of this epoch was ever there: the stream is new, or another one than before.
        Newest::Unknown | Newest::TooFar | Newest::EarlierEpoch => (Position::ZERO, None),
    };
    Ok(Found::Tail { tail: Tail { position, sequence: last }, newest, foreign })
}

async fn info(stream: &Stream) -> anyhow::Result<Info> {
    stream.get_info().await.context("cannot read the stream's state")
}

/// How the relay left the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// The stream's end, and the newest transition on it.
    pub tail: Tail,
    /// The sequence of that transition, if it was seen there.
    pub newest: Option<u64>,
    /// Whether each message is on several servers.
    pub is_replicated: bool,
}

/// What others put on top of a stream that is as the relay left it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnTop {
    /// The stream's last sequence now.
    pub last: u64,
    /// How many foreign messages came.
    pub foreign: u64,
}

/// Checks that the stream is as the relay left it, except for foreign messages on top: only those
/// are read. None if the tail has to be read anew. A message of ours on top demands that too, even
/// an old one: it may be a copy, or another relay may be publishing again what was lost.
///
/// The server does not lower a stream's last sequence when its newest messages are deleted, so our
/// newest message is read itself. So are the foreign messages behind it, which another relay may
/// have replaced.
pub async fn look(stream: &Stream, left: Left, epoch: Epoch) -> anyhow::Result<Option<OnTop>> {
    let info = info(stream).await?;
    let (first, last) = (info.state.first_sequence, info.state.last_sequence);
    let known = left.tail;
    let is_near = (known.sequence..=known.sequence + MOST_ON_TOP).contains(&last);
    // What the stream's limits removed meanwhile cannot be read.
    if !is_near || first > known.sequence + 1 || is_replicated(&info) != left.is_replicated {
        return Ok(None);
    }
    let newest = left.newest.filter(|newest| *newest >= first || !has_limits(&info.config));
    // While others publish all the time, only what they put on top is read.
    let from = match last > known.sequence {
        true => known.sequence,
        false => left.newest.unwrap_or(0).max(last.saturating_sub(PAGE)),
    };
    let newest = async {
        anyhow::Ok(match newest {
            Some(newest) => Some(seen(stream, newest).await?),
            None => None,
        })
    };
    let (newest, behind) = tokio::try_join!(newest, page(stream, first.max(from + 1)..=last))?;
    let is_there = |seen: Seen| matches!(seen, Seen::Ours(mark) if mark.position == known.position);
    if !newest.is_none_or(is_there) {
        return Ok(None);
    }
    let is_passed_over = |(sequence, seen): &(u64, Seen)| match seen {
        Seen::Foreign => true,
        Seen::Ours(mark) if mark.epoch == epoch && mark.position > known.position => false,
        _ => *sequence <= known.sequence,
    };
    let is_as_left = behind.iter().all(is_passed_over);
    Ok(is_as_left.then_some(OnTop { last, foreign: last - known.sequence }))
}

/// What is at one sequence.
async fn seen(stream: &Stream, sequence: u64) -> anyhow::Result<Seen> {
    match stream.get_raw_message(sequence).await {
        Ok(found) => Ok(Mark::read(&found.headers).map_or(Seen::Foreign, Seen::Ours)),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(Seen::Gone),
        Err(error) => bail!("cannot read the stream's tail: {error}"),
    }
}

/// What is at each of these sequences, in their order.
async fn page(stream: &Stream, sequences: RangeInclusive<u64>) -> anyhow::Result<Vec<(u64, Seen)>> {
    stream::iter(sequences)
        .map(|sequence| async move { anyhow::Ok((sequence, seen(stream, sequence).await?)) })
        .buffered(ASKED_AT_ONCE)
        .try_collect()
        .await
}

/// Our newest message, as far as the search went.
enum Newest {
    /// No message of ours is there.
    Unknown,
    /// No message of ours is near the checkpoint.
    TooFar,
    /// Our newest message is of an earlier epoch, and so is everything below it.
    EarlierEpoch,
    /// Our newest message, of this epoch or a later one.
    Ours { mark: Mark, sequence: u64 },
}

struct Search<'a> {
    stream: &'a Stream,
    checkpoint: Checkpoint,
    /// Everything up to this sequence has been looked at.
    looked_at: u64,
    foreign: u64,
}

impl Search<'_> {
    /// Walks back from the stream's end to the first message of ours, over foreign and deleted
    /// messages.
    async fn look(&mut self, state: &State) -> anyhow::Result<Newest> {
        let known = self.checkpoint.tail;
        let first = state.first_sequence.max(self.looked_at + 1);
        let (last, reached) = (state.last_sequence, state.last_sequence >= known.sequence);
        self.looked_at = last;
        let (mut to, mut size) = (last, 1);
        while to >= first {
            if reached && to + BELOW_CHECKPOINT < known.sequence {
                return Ok(Newest::TooFar);
            }
            // The last message is mostly ours.
            let from = first.max((to + 1).saturating_sub(size));
            let page = page(self.stream, from..=to).await?;
            for (sequence, seen) in page.into_iter().rev() {
                if let Some(newest) = self.take(sequence, seen) {
                    return Ok(newest);
                }
            }
            (to, size) = (from - 1, PAGE);
        }
        Ok(Newest::Unknown)
    }

    fn take(&mut self, sequence: u64, seen: Seen) -> Option<Newest> {
        let known = self.checkpoint.tail;
        let is_new = sequence > known.sequence;
        match seen {
            Seen::Gone => None,
            Seen::Ours(mark) if mark.epoch < self.checkpoint.epoch => Some(Newest::EarlierEpoch),
            // Our messages behind the checkpoint have higher positions: this is a copy of an old one. A message of
            // a later epoch is no copy: a repair began anew, and this database does not know of it.
            Seen::Ours(mark)
                if is_new
                    && mark.epoch == self.checkpoint.epoch
                    && mark.position <= known.position =>
            {
                self.foreign += 1;
                None
            }
            Seen::Ours(mark) => Some(Newest::Ours { mark, sequence }),
            Seen::Foreign => {
                self.foreign += u64::from(is_new);
                None
            }
        }
    }
}

/// The result of a walk from the checkpoint.
enum Walked {
    /// No message of this epoch is behind the checkpoint.
    Nowhere,
    /// Every position up to this one is there; this one is at this sequence.
    To { position: Position, sequence: u64 },
    /// These positions are missing.
    Hole(Hole),
}

/// Proves that no position is missing from the checkpoint up to this sequence.
async fn walk(
    stream: &Stream,
    database: &Database,
    info: &Info,
    checkpoint: Checkpoint,
    last: u64,
) -> anyhow::Result<Walked> {
    let known = checkpoint.tail;
    let (horizon, is_limited) = (horizon(database).await?, has_limits(&info.config));
    let mut walk = Walk::new(checkpoint.epoch, known.position, horizon, is_limited);
    let first = info.state.first_sequence;
    if known.sequence < last && known.sequence >= first.max(1) {
        walk.anchor(&seen(stream, known.sequence).await?);
    }
    let mut from = first.max(known.sequence + 1);
    walk.gone(from - known.sequence - 1);
    let mut walked = Walked::Nowhere;
    while from <= last {
        let to = last.min(from + PAGE - 1);
        for (sequence, seen) in page(stream, from..=to).await? {
            match (walk.see(&seen), seen) {
                (Err(hole), _) => return Ok(Walked::Hole(hole)),
                (Ok(Step::Next), Seen::Ours(Mark { position, .. })) => {
                    walked = Walked::To { position, sequence };
                }
                (Ok(_), _) => {}
            }
        }
        from = to + 1;
    }
    Ok(walked)
}

fn in_words(hole: Hole) -> String {
    let positions = match hole {
        Hole { first, last } if first == last => format!("position {}", first.0),
        Hole { first, last } => format!("positions {} to {}", first.0, last.0),
    };
    format!(
        "the stream lacks {positions} and goes on behind: nothing can be put in between; \
         `groundstation audit --repair` builds the stream again from the log"
    )
}

async fn horizon(database: &Database) -> anyhow::Result<Position> {
    Ok(database.run(async |client: &mut Object| log::horizon(client).await).await?)
}

/// How a message on the stream and the log contradict each other.
struct Contradiction {
    /// What is seen.
    seen: String,
    /// What may be the cause, where the message is of this cell.
    guess: &'static str,
}

impl Contradiction {
    /// The words for operators. That the message is of another cell explains everything.
    fn in_words(&self, mark: &Mark, own: Option<&Cell>) -> String {
        let Contradiction { seen, guess } = self;
        let Some(other) = mark.cell.as_ref().filter(|cell| Some(*cell) != own) else {
            return format!("{seen}: {guess}");
        };
        let ours = own.map_or_else(|| "no cell".to_owned(), |cell| format!("cell {cell}"));
        format!(
            "{seen}: the message is of cell {other}, and this pod of {ours}; \
             each cell needs a JetStream of its own"
        )
    }
}

/// How the log contradicts the message on the stream, if it does.
async fn contradiction(
    database: &Database,
    checkpoint: Checkpoint,
    mark: &Mark,
    sequence: u64,
) -> anyhow::Result<Option<Contradiction>> {
    if mark.epoch > checkpoint.epoch {
        return Ok(Some(Contradiction {
            seen: format!(
                "the stream's message {sequence} is of epoch {}, the database knows only {}",
                mark.epoch.0, checkpoint.epoch.0
            ),
            guess: "was the database restored to a point before the stream was repaired?",
        }));
    }
    let position = mark.position;
    let before = Position(position.0 - 1);
    let find = async |client: &mut Object| {
        let entries = log::read::after(client, before, 1).await?;
        Ok::<_, tokio_postgres::Error>((entries, log::horizon(client).await?))
    };
    let (entries, horizon) = database.run(find).await?;
    let is_there = |entry: &&Entry| entry.position == position;
    Ok(match entries.first().filter(is_there) {
        // Retention dropped the position: there is nothing left to compare with. The horizon is
        // read after the entries, so that a position dropped in between does not look like one that
        // never existed.
        None if position <= horizon => None,
        Some(entry) if entry.change.0.to_string() == mark.change => None,
        Some(_) => Some(Contradiction {
            seen: format!(
                "the stream's message {sequence} carries another change at position {} than the log",
                position.0
            ),
            guess: "one of them was restored from elsewhere",
        }),
        None => Some(Contradiction {
            seen: format!(
                "the stream is ahead of the log: its message {sequence} is position {}, which the \
                 log does not have",
                position.0
            ),
            guess: "was the database restored to an earlier point?",
        }),
    })
}
