//! At most one forwarder of a name at a time, so that two cannot overtake each other.
//!
//! A lease is the last message of a subject, replaced only by whoever knows its sequence. Its holder replaces it all the
//! time. Whoever wants it waits until the same message has been there for as long as a lease lasts, by its own clock. The
//! message also has how far the forwarder is (see [`Floor`]).

use std::time::Duration;

use anyhow::{Context as _, bail};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, LastRawMessageErrorKind, Stream};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::event::Event;
use super::name::Name;
use super::streams;
use crate::platform::replicas::Replicas;

/// The stream of all leases.
pub const STREAM: &str = "FORWARD_LEASES";

const SUBJECTS: &str = "groundstation.forward.leases";

/// How far a forwarder is: what is at or below this was delivered, or is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor {
    /// A position; all before it are done too.
    pub position: i64,
    /// The newest moment of those.
    #[serde(with = "time::serde::rfc3339")]
    pub newest: OffsetDateTime,
}

impl Floor {
    /// Whether this was done before. After a repair the stream tells everything again, with the positions it had.
    /// What happened later is new, even where the log has lost its end and gives the same positions again.
    pub fn has(&self, event: &Event) -> bool {
        event.position <= self.position && event.occurred_at <= self.newest
    }

    /// A floor that is as high as both.
    pub fn raised(floor: Option<Floor>, to: Floor) -> Floor {
        let Some(floor) = floor else { return to };
        Floor { position: floor.position.max(to.position), newest: floor.newest.max(to.newest) }
    }
}

/// What is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// Who holds it; empty if nobody does.
    holder: String,
    floor: Option<Floor>,
}

/// A lease that is held.
pub struct Lease {
    jetstream: Context,
    subject: String,
    holder: String,
    lasts: Duration,
    sequence: u64,
    /// It was renewed with a request that began then.
    renewed: Instant,
    /// How far this forwarder, or the one before it, is.
    pub floor: Option<Floor>,
}

/// Somebody else has it, or nobody could be asked for as long as it lasts.
#[derive(Debug, thiserror::Error)]
#[error("the lease is lost: {0}")]
pub struct Lost(String);

impl Lease {
    /// Waits until it is free, and takes it. Calls `waits` once if it is held.
    pub async fn acquire(
        jetstream: &Context,
        name: &Name,
        lasts: Duration,
        replicas: Replicas,
        waits: impl Fn(),
    ) -> anyhow::Result<Lease> {
        let config = Config {
            subjects: vec![format!("{SUBJECTS}.*")],
            description: Some("Which forwarders run, and how far they are".to_owned()),
            max_messages_per_subject: 1,
            ..Config::default()
        };
        let stream = streams::ensure(jetstream, STREAM, config, replicas).await?;
        let subject = format!("{SUBJECTS}.{name}");
        let mut seen: Option<(u64, Instant)> = None;
        let mut told = false;
        loop {
            let (sequence, record) = read(&stream, &subject).await?;
            let since = match seen {
                Some((known, since)) if known == sequence => since,
                _ => seen.insert((sequence, Instant::now())).1,
            };
            let is_free = record.as_ref().is_none_or(|record| record.holder.is_empty());
            if is_free || since.elapsed() >= lasts {
                let holder = uuid::Uuid::new_v4().to_string();
                let floor = record.and_then(|record| record.floor);
                let (jetstream, renewed) = (jetstream.clone(), Instant::now());
                let mut lease = Lease {
                    jetstream,
                    subject: subject.clone(),
                    holder,
                    lasts,
                    sequence,
                    renewed,
                    floor,
                };
                match lease.renew().await {
                    Ok(()) => return Ok(lease),
                    Err(lost) => tracing::debug!(%lost, "another forwarder was faster"),
                }
            } else if !std::mem::replace(&mut told, true) {
                waits();
            }
            tokio::time::sleep(lasts / 10).await;
        }
    }

    /// Whether it is certain that nobody else has it.
    pub fn is_held(&self) -> bool {
        self.renewed.elapsed() < self.lasts
    }

    /// Renews it, with how far the forwarder is.
    pub async fn renew(&mut self) -> Result<(), Lost> {
        let begun = Instant::now();
        match self.write(self.holder.clone()).await {
            Ok(()) => {
                self.renewed = begun;
                Ok(())
            }
            Err(Refused::Taken) => Err(Lost("another forwarder of this name has it".to_owned())),
            Err(Refused::Unknown(_)) if self.is_held() => self.look().await,
            Err(Refused::Unknown(why)) => Err(Lost(why)),
        }
    }

    /// Whether a renewal whose answer did not come was stored.
    async fn look(&mut self) -> Result<(), Lost> {
        let Ok(stream) = self.jetstream.get_stream_no_info(STREAM).await else { return Ok(()) };
        match read(&stream, &self.subject).await {
            Ok((sequence, Some(record))) if record.holder == self.holder => {
                self.sequence = sequence;
                Ok(())
            }
            Ok(_) => Err(Lost("another forwarder of this name has it".to_owned())),
            // It is asked again before the lease ends.
            Err(_) => Ok(()),
        }
    }

    /// Gives it back, so that another need not wait.
    pub async fn release(mut self) {
        if let Err(refused) = self.write(String::new()).await {
            tracing::debug!(?refused, "the lease ends by itself");
        }
    }

    async fn write(&mut self, holder: String) -> Result<(), Refused> {
        let record = Record { holder, floor: self.floor };
        let body =
            serde_json::to_vec(&record).map_err(|error| Refused::Unknown(error.to_string()))?;
        let message = PublishMessage::build()
            .payload(body.into())
            .expected_last_subject_sequence(self.sequence);
        let publish =
            async { self.jetstream.send_publish(self.subject.clone(), message).await?.await };
        match tokio::time::timeout(self.lasts / 3, publish).await {
            Ok(Ok(stored)) => {
                self.sequence = stored.sequence;
                Ok(())
            }
            Ok(Err(error)) if error.kind() == PublishErrorKind::WrongLastSequence => {
                Err(Refused::Taken)
            }
            Ok(Err(error)) => Err(Refused::Unknown(error.to_string())),
            Err(_) => Err(Refused::Unknown("NATS did not answer".to_owned())),
        }
    }
}

/// Why a lease was not written.
#[derive(Debug)]
enum Refused {
    /// Somebody else wrote it.
    Taken,
    /// That is not known.
    Unknown(String),
}

/// The sequence of the last record, and what is in it.
async fn read<I>(stream: &Stream<I>, subject: &str) -> anyhow::Result<(u64, Option<Record>)> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => {
            let record = serde_json::from_slice(&message.payload);
            Ok((message.sequence, Some(record.context("a lease is not understood")?)))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok((0, None)),
        Err(error) => bail!("cannot read the lease: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_known_by_its_position_and_what_happened_later_is_new() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let floor = Floor { position: 7, newest: at(100) };
        let event = |position, seconds| Event {
            position,
            change: String::new(),
            subject: String::new(),
            of: String::new(),
            occurred_at: at(seconds),
            stored_at: at(seconds),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        };
        assert!(floor.has(&event(7, 100)) && floor.has(&event(3, 20)));
        assert!(!floor.has(&event(8, 90)), "it was not reached");
        assert!(!floor.has(&event(7, 101)), "the log lost its end and gave the position again");
    }
}
