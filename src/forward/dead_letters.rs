//! Messages that were given up: kept, listed, sent again, dropped.
//!
//! They are in a stream of their own, as they were and with why they were given up. The stream is bounded, and a full one
//! takes no more: then what should go there stays in its queue, and nothing is lost.

use anyhow::{Context as _, bail};
use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::message::{PublishMessage, StreamMessage};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RawMessageErrorKind, Stream};
use serde::Serialize;
use time::OffsetDateTime;

use super::event::Event;
use super::name::Name;
use super::receiver::Failure;
use super::streams;
use crate::contract::wire::Timestamp;
use crate::platform::replicas::Replicas;
use crate::stream::message::CHANGE;

/// The stream of all dead letters.
pub const STREAM: &str = "FORWARD_DEAD_LETTERS";

const SUBJECTS: &str = "groundstation.forward.dead-letters";

const REASON: &str = "Groundstation-Forward-Reason";
const ATTEMPTS: &str = "Groundstation-Forward-Attempts";
/// When the message was stored on the stream of transitions.
const STORED_AT: &str = "Groundstation-Forward-Stored-At";

/// The dead letters of one forwarder.
pub struct DeadLetters {
    jetstream: Context,
    stream: Stream,
    subject: String,
    name: Name,
}

/// A dead letter.
pub struct DeadLetter {
    /// Its number.
    pub number: u64,
    /// The message.
    pub event: Event,
    /// What is shown of it.
    pub shown: Shown,
}

/// What is shown of a dead letter.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Its number, by which it is named.
    pub number: u64,
    /// The trigger.
    pub trigger: String,
    /// The satellite's id.
    pub satellite: String,
    /// The satellite's name, where the message has it.
    pub name: Option<String>,
    /// The transition's place in the log.
    pub position: i64,
    /// The transition's identity, which is `webhook-id`.
    pub change_id: String,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// When it was given up.
    pub given_up_at: Timestamp,
    /// How often it was tried, by the forwarder that gave it up.
    pub attempts: u32,
    /// What became of the last attempt.
    pub reason: String,
}

impl DeadLetters {
    /// Those of this name. The stream is made if it is missing, for at most so many of all names together.
    pub async fn of(
        jetstream: &Context,
        name: &Name,
        most: u32,
        replicas: Replicas,
    ) -> anyhow::Result<DeadLetters> {
        let config = Config {
            subjects: vec![format!("{SUBJECTS}.*")],
            description: Some("Webhooks that were given up".to_owned()),
            discard: DiscardPolicy::New,
            max_messages: most.into(),
            ..Config::default()
        };
        let stream = streams::ensure(jetstream, STREAM, config, replicas).await?;
        Ok(DeadLetters::on(jetstream, stream, name))
    }

    /// Those of this name; none if no forwarder has made the stream.
    pub async fn find(jetstream: &Context, name: &Name) -> anyhow::Result<Option<DeadLetters>> {
        let stream = streams::find(jetstream, STREAM).await?;
        Ok(stream.map(|stream| DeadLetters::on(jetstream, stream, name)))
    }

    fn on(jetstream: &Context, stream: Stream, name: &Name) -> DeadLetters {
        let subject = format!("{SUBJECTS}.{name}");
        DeadLetters { jetstream: jetstream.clone(), stream, subject, name: name.clone() }
    }

    /// Keeps a message that is given up.
    pub async fn keep(
        &self,
        event: &Event,
        attempts: u32,
        failure: &Failure,
    ) -> anyhow::Result<()> {
        let mut headers = HeaderMap::new();
        for (name, value) in &event.headers {
            headers.insert(name.as_str(), value.as_str());
        }
        headers.insert(REASON, failure.to_string().replace(['\r', '\n'], " "));
        headers.insert(ATTEMPTS, attempts.to_string());
        headers.insert(STORED_AT, Timestamp::new(event.stored_at).to_string());
        // What is kept twice because the first answer was lost is there once.
        let message = PublishMessage::build()
            .headers(headers)
            .payload(event.body.clone())
            .message_id(format!("{}:{}", self.name, event.change));
        let stored = self.jetstream.send_publish(self.subject.clone(), message).await;
        stored.context("cannot keep a dead letter")?.await.with_context(|| {
            format!("cannot keep a dead letter (is the stream {STREAM} full? `groundstation forward dead-letters`)")
        })?;
        Ok(())
    }

    /// How many there are.
    pub async fn count(&self) -> anyhow::Result<u64> {
        use futures_util::TryStreamExt as _;
        let subjects = self.stream.info_with_subjects(&self.subject).await;
        let subjects = subjects.context("cannot count the dead letters")?;
        let counts: Vec<(String, usize)> =
            subjects.try_collect().await.context("cannot count the dead letters")?;
        Ok(counts.iter().map(|(_, count)| *count as u64).sum())
    }

    /// All of them, oldest first.
    pub async fn all(&self) -> anyhow::Result<Vec<DeadLetter>> {
        let (mut all, mut next) = (Vec::new(), 1);
        while let Some(message) = self.at_or_after(next).await? {
            next = message.sequence + 1;
            all.push(read(message)?);
        }
        Ok(all)
    }

    /// The one with this number; none if there is none.
    pub async fn get(&self, number: u64) -> anyhow::Result<Option<DeadLetter>> {
        let message = self.at_or_after(number).await?;
        message.filter(|message| message.sequence == number).map(read).transpose()
    }

    async fn at_or_after(&self, number: u64) -> anyhow::Result<Option<StreamMessage>> {
        match self.stream.get_first_raw_message_by_subject(&self.subject, number).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => bail!("cannot read the dead letters: {error}"),
        }
    }

    /// Removes one.
    pub async fn remove(&self, number: u64) -> anyhow::Result<()> {
        let removed = self.stream.delete_message(number).await;
        removed.with_context(|| format!("cannot remove dead letter {number}"))?;
        Ok(())
    }
}

fn read(message: StreamMessage) -> anyhow::Result<DeadLetter> {
    let number = message.sequence;
    let text = |name: &str| message.headers.get(name).map(|value| value.as_str().to_owned());
    let stored_at = text(STORED_AT).and_then(|text| text.parse::<Timestamp>().ok());
    let stored_at = stored_at.map_or(OffsetDateTime::UNIX_EPOCH, Timestamp::moment);
    let mut headers = message.headers.clone();
    if let Some(change) = text("ce-id") {
        headers.insert(CHANGE, change);
    }
    let event = Event::read(&headers, message.payload.clone(), stored_at)
        .with_context(|| format!("message {number} of {STREAM} is no dead letter"))?;
    let body: serde_json::Value = serde_json::from_slice(&message.payload).unwrap_or_default();
    let shown = Shown {
        number,
        trigger: event.subject.clone(),
        satellite: event.of.clone(),
        name: body["name"].as_str().map(str::to_owned),
        position: event.position,
        change_id: event.change.clone(),
        occurred_at: Timestamp::new(event.occurred_at),
        given_up_at: Timestamp::new(message.time),
        attempts: text(ATTEMPTS).and_then(|text| text.parse().ok()).unwrap_or_default(),
        reason: text(REASON).unwrap_or_default(),
    };
    Ok(DeadLetter { number, event, shown })
}
