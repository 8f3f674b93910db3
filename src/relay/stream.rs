//! The stream: what it must look like, and where its tail stands in the log.
//!
//! The tail is read from the stream's leader (a direct get may be answered by a replica that is
//! behind). It is held against the log before anything is published on top of it.

use anyhow::{Context as _, bail};
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, LastRawMessageErrorKind, State, Stream,
};
use async_nats::jetstream::{Context, ErrorCode};
use deadpool_postgres::Object;

use super::checkpoint::Checkpoint;
use super::message::Mark;
use crate::database::Database;
use crate::lifecycle::{Position, REMOVED_SUBJECT, Trigger};
use crate::log::{self, Entry};

/// The stream's name.
pub const NAME: &str = "SATELLITE_TRANSITIONS";

/// The stream's subjects: the triggers' ids and the cleanup signal.
pub fn subjects() -> Vec<String> {
    let mut subjects: Vec<String> =
        Trigger::ALL.iter().map(|trigger| trigger.id().to_owned()).collect();
    subjects.push(REMOVED_SUBJECT.to_owned());
    subjects
}

/// A place on the stream and the transition that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail {
    /// The transition's position.
    pub position: Position,
    /// The stream's sequence: what the next message must follow.
    pub sequence: u64,
}

/// What reading the tail found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Go on from here.
    Tail {
        /// From here.
        tail: Tail,
        /// How many of somebody else's messages were passed over on the way.
        foreign: u64,
    },
    /// Stream and log contradict each other, in these words.
    Contradiction(String),
}

/// The stream, created if it is not there. One that an operator made (with replicas, limits, a
/// placement) is taken as it is, as long as it has the subjects.
pub async fn ensure(jetstream: &Context) -> anyhow::Result<Stream> {
    if let Some(stream) = find(jetstream).await? {
        return Ok(stream);
    }
    let config = Config {
        name: NAME.to_owned(),
        subjects: subjects(),
        description: Some("Every transition of every satellite, once, in order".to_owned()),
        discard: DiscardPolicy::New,
        ..Config::default()
    };
    let create = jetstream.create_stream(config).await;
    create.with_context(|| format!("cannot create the stream {NAME}"))
}

/// The stream, if it is there; an error if it lacks one of the subjects.
pub async fn find(jetstream: &Context) -> anyhow::Result<Option<Stream>> {
    let stream = match jetstream.get_stream(NAME).await {
        Ok(stream) => stream,
        Err(error) if is_absent(&error) => return Ok(None),
        Err(error) => bail!("cannot reach the stream {NAME}: {error}"),
    };
    let has = &stream.cached_info().config.subjects;
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

/// How often the stream is looked at again because it grew during the look.
const ROUNDS: usize = 10;

/// How far below the checkpoint one of ours is looked for, where the message at the checkpoint is
/// not one. Beyond this the checkpoint is believed.
const BELOW_CHECKPOINT: u64 = 1_000;

/// Finds the newest of our messages of this epoch and holds it against the log. What is found on
/// the stream decides; the checkpoint does only where the stream's limits have removed what it
/// names.
pub async fn tail(
    stream: &Stream,
    database: &Database,
    checkpoint: Checkpoint,
) -> anyhow::Result<Found> {
    let mut search = Search { stream, checkpoint, looked_at: 0, foreign: 0 };
    let mut newest = Newest::Unknown;
    let mut state = state(stream).await?;
    for _ in 0..ROUNDS {
        match search.look(&state).await? {
            Newest::Unknown => {}
            found => newest = found,
        }
        // Others may publish all the time: what came during a long look is a short one.
        state = self::state(stream).await?;
        if state.last_sequence == search.looked_at {
            break;
        }
    }
    let (last, foreign) = (search.looked_at, search.foreign);
    let reached = last >= checkpoint.tail.sequence;
    let position = match newest {
        Newest::Ours { mark, sequence } => {
            if let Some(reason) = contradiction(database, checkpoint, &mark, sequence).await? {
                return Ok(Found::Contradiction(reason));
            }
            mark.position
        }
        // Its beginning is gone, by its limits or by hand: ours may have been there.
        Newest::Unknown if reached && state.first_sequence > 1 => checkpoint.tail.position,
        Newest::TooFar if reached => checkpoint.tail.position,
        // Nothing of this epoch was ever there: a new stream, or another one than before.
        Newest::Unknown | Newest::TooFar | Newest::EarlierEpoch => Position::ZERO,
    };
    Ok(Found::Tail { tail: Tail { position, sequence: last }, foreign })
}

async fn state(stream: &Stream) -> anyhow::Result<State> {
    Ok(stream.get_info().await.context("cannot read the stream's state")?.state)
}

/// The newest of our messages, as far as it was looked for.
enum Newest {
    /// None of ours is there.
    Unknown,
    /// None of ours is anywhere near the checkpoint.
    TooFar,
    /// Ours is of an epoch that is over; so is everything below it.
    EarlierEpoch,
    /// This one, of this epoch or a later one.
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
    /// Walks back from the stream's end to the first of ours, over somebody else's messages and
    /// deleted ones.
    async fn look(&mut self, state: &State) -> anyhow::Result<Newest> {
        let known = self.checkpoint.tail;
        let first = state.first_sequence.max(self.looked_at + 1);
        let (last, reached) = (state.last_sequence, state.last_sequence >= known.sequence);
        self.looked_at = last;
        for sequence in (first..=last).rev() {
            if reached && sequence + BELOW_CHECKPOINT < known.sequence {
                return Ok(Newest::TooFar);
            }
            let headers = match self.stream.get_raw_message(sequence).await {
                Ok(found) => found.headers,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => continue,
                Err(error) => bail!("cannot read the stream's tail: {error}"),
            };
            let is_new = sequence > known.sequence;
            match Mark::read(&headers) {
                Some(mark) if mark.epoch < self.checkpoint.epoch => {
                    return Ok(Newest::EarlierEpoch);
                }
                // Behind the checkpoint ours are beyond it: this is somebody's copy of an old one.
                Some(mark) if is_new && mark.position <= known.position => self.foreign += 1,
                Some(mark) => return Ok(Newest::Ours { mark, sequence }),
                None => self.foreign += u64::from(is_new),
            }
        }
        Ok(Newest::Unknown)
    }
}

/// In which words the log contradicts what the stream holds, if it does.
async fn contradiction(
    database: &Database,
    checkpoint: Checkpoint,
    mark: &Mark,
    sequence: u64,
) -> anyhow::Result<Option<String>> {
    if mark.epoch > checkpoint.epoch {
        return Ok(Some(format!(
            "the stream's message {sequence} is of epoch {}, the database knows only {}: \
             was the database restored to a point before the stream was repaired?",
            mark.epoch.0, checkpoint.epoch.0
        )));
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
        // Dropped for its age: there is nothing left to hold it against. Asked after the read, so
        // that one dropped in between is not taken for one that never was.
        None if position <= horizon => None,
        Some(entry) if entry.change.0.to_string() == mark.change => None,
        Some(_) => Some(format!(
            "the stream's message {sequence} carries another change at position {} than the log: \
             one of them was restored from elsewhere",
            position.0
        )),
        None => Some(format!(
            "the stream is ahead of the log: its message {sequence} is position {}, which the log \
             does not have; was the database restored to an earlier point?",
            position.0
        )),
    })
}
