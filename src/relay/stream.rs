//! The stream: what it must look like, and where its tail stands in the log.
//!
//! The tail is read from the stream's leader (a direct get may be answered by a replica that is
//! behind). It is held against the log before anything is published on top of it.

use anyhow::{Context as _, bail};
use async_nats::jetstream::stream::{Config, DiscardPolicy, LastRawMessageErrorKind, Stream};
use async_nats::jetstream::{Context, ErrorCode};

use super::message;
use crate::database::{self, Database};
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
    let stream = match jetstream.get_stream(NAME).await {
        Ok(stream) => stream,
        Err(error) if is_absent(&error) => {
            let config = Config {
                name: NAME.to_owned(),
                subjects: subjects(),
                description: Some("Every transition of every satellite, once, in order".to_owned()),
                discard: DiscardPolicy::New,
                ..Config::default()
            };
            let create = jetstream.create_stream(config).await;
            create.with_context(|| format!("cannot create the stream {NAME}"))?
        }
        Err(error) => bail!("cannot reach the stream {NAME}: {error}"),
    };
    let has = &stream.cached_info().config.subjects;
    if let Some(missing) = subjects().iter().find(|subject| !has.contains(subject)) {
        bail!("the stream {NAME} exists without the subject {missing}: add it");
    }
    Ok(stream)
}

fn is_absent(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    use async_nats::jetstream::context::GetStreamErrorKind;
    matches!(error.kind(), GetStreamErrorKind::JetStream(error)
        if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// Finds the newest of our messages and holds it against the log. `checkpoint` is what was known
/// to be on the stream; it decides only where the stream itself can no longer say.
pub async fn tail(stream: &Stream, database: &Database, checkpoint: Tail) -> anyhow::Result<Found> {
    let state = stream.get_info().await.context("cannot read the stream's state")?.state;
    let last = state.last_sequence;
    let mut foreign = 0;
    let mut sequence = last;
    // Walks back over somebody else's and deleted messages: a few, or down to the checkpoint.
    while sequence > 0 && sequence >= state.first_sequence {
        match stream.get_raw_message(sequence).await {
            Ok(found) => {
                let position =
                    header(&found.headers, message::POSITION).and_then(|p| p.parse().ok());
                let change = header(&found.headers, message::CHANGE);
                if let (Some(position), Some(change)) = (position, change) {
                    let position = Position(position);
                    return match contradiction(database, position, change, sequence).await? {
                        Some(reason) => Ok(Found::Contradiction(reason)),
                        None => {
                            Ok(Found::Tail { tail: Tail { position, sequence: last }, foreign })
                        }
                    };
                }
                foreign += 1;
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {}
            Err(error) => bail!("cannot read the stream's tail: {error}"),
        }
        sequence -= 1;
        if last >= checkpoint.sequence && sequence < checkpoint.sequence {
            break;
        }
    }
    // None of ours is newer than the checkpoint: it holds if the stream reached it at all.
    let position = if last >= checkpoint.sequence { checkpoint.position } else { Position::ZERO };
    Ok(Found::Tail { tail: Tail { position, sequence: last }, foreign })
}

fn header<'a>(headers: &'a async_nats::HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).map(|value| value.as_str())
}

/// In which words the log contradicts what the stream holds at `position`, if it does.
async fn contradiction(
    database: &Database,
    position: Position,
    change: &str,
    sequence: u64,
) -> anyhow::Result<Option<String>> {
    let client = database.get().await?;
    let before = Position(position.0 - 1);
    let found = async {
        let entries = log::read::after(&client, before, 1).await?;
        Ok((entries, log::horizon(&client).await?))
    };
    let found: Result<_, tokio_postgres::Error> = found.await;
    let (entries, horizon) = found.map_err(|error| anyhow::anyhow!(database::describe(&error)))?;
    let is_there = |entry: &&Entry| entry.position == position;
    Ok(match entries.first().filter(is_there) {
        // Dropped for its age: there is nothing left to hold it against. Asked after the read, so
        // that one dropped in between is not taken for one that never was.
        None if position <= horizon => None,
        Some(entry) if entry.change.0.to_string() == change => None,
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
