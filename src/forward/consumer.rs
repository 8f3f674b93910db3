//! The durable consumer on the stream of transitions. Its place is on the server: what is not acknowledged comes again.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull::{Config, Stream as Messages};
use async_nats::jetstream::consumer::{AckPolicy, Config as AnyConfig, Consumer, DeliverPolicy};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::stream::{RawMessageErrorKind, Stream};

use super::event::Event;
use super::lease::Floor;
use super::name::Name;
use crate::stream::tail;

/// Messages that are asked for at once.
const BATCH: usize = 256;

/// The longest that one question for messages lasts. Those of a forwarder that stands still get messages until then.
const LONGEST_QUESTION: Duration = Duration::from_secs(10);

/// While a question lasts the server says so often that it is still there.
const HEARTBEATS: u32 = 4;

/// Where a forwarder of a new name begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With what happens from now on.
    New,
    /// With the first message on the stream.
    First,
}

/// What the consumer is to be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name is part of the consumer's.
    pub name: Name,
    /// The triggers; all if there are none.
    pub triggers: Vec<String>,
    /// Where it begins, if it is new.
    pub start: Start,
    /// Messages in hand.
    pub max_pending: u32,
    /// How long a message in hand may be silent before it comes again.
    pub ack_wait: Duration,
}

/// A consumer that is there, and where it begins if it is new.
pub struct Found {
    /// The consumer.
    pub consumer: Consumer<Config>,
    /// Everything up to here is before its beginning.
    pub floor: Option<Floor>,
}

/// The stream of transitions; none while no pod has made it.
pub async fn stream(jetstream: &Context) -> anyhow::Result<Option<Stream>> {
    super::streams::find(jetstream, tail::NAME).await
}

impl Wanted {
    /// The consumer, which is made or changed if need be. One that was lost is made anew and begins with the first
    /// message: `floor` then says what was done.
    pub async fn ensure(&self, stream: &Stream, floor: Option<Floor>) -> anyhow::Result<Found> {
        let durable = format!("forward-{}", self.name);
        let existing = match stream.consumer_info(&durable).await {
            Ok(info) => Some(info.config),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => None,
            Err(error) => bail!("cannot look for the consumer {durable}: {error}"),
        };
        let (deliver_policy, begins) = match (&existing, floor, self.start) {
            (Some(config), _, _) => (config.deliver_policy, None),
            (None, Some(_), _) | (None, None, Start::First) => (DeliverPolicy::All, None),
            (None, None, Start::New) => {
                // The next message of the stream is the first, whatever is published meanwhile.
                let last = stream.get_info().await.context("cannot read the stream's state")?;
                let last = last.state.last_sequence;
                let policy = DeliverPolicy::ByStartSequence { start_sequence: last + 1 };
                (policy, at(stream, last).await?)
            }
        };
        if let Some(config) = &existing
            && self.is_met_by(config)
        {
            let consumer = stream.get_consumer(&durable).await;
            let consumer =
                consumer.map_err(|error| anyhow!("cannot use the consumer {durable}: {error}"))?;
            return Ok(Found { consumer, floor: None });
        }
        let config = Config {
            durable_name: Some(durable.clone()),
            description: Some("Forwards transitions as webhooks".to_owned()),
            deliver_policy,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            filter_subjects: self.triggers.clone(),
            max_ack_pending: self.max_pending.into(),
            ..Config::default()
        };
        let consumer = stream.create_consumer(config).await;
        let consumer = consumer.with_context(|| format!("cannot make the consumer {durable}"))?;
        Ok(Found { consumer, floor: begins })
    }

    /// Whether a consumer need not be changed. So an operator may make it, and a forwarder needs no right to.
    fn is_met_by(&self, config: &AnyConfig) -> bool {
        let mut filters = config.filter_subjects.clone();
        filters.extend(Some(config.filter_subject.clone()).filter(|filter| !filter.is_empty()));
        let (mut filters, mut triggers) = (filters, self.triggers.clone());
        filters.sort();
        triggers.sort();
        config.ack_policy == AckPolicy::Explicit
            && config.ack_wait == self.ack_wait
            && config.max_ack_pending == i64::from(self.max_pending)
            && config.max_deliver <= 0
            && filters == triggers
    }

    /// The messages of the consumer, as they come.
    pub async fn messages(&self, consumer: &Consumer<Config>) -> anyhow::Result<Messages> {
        let lasts = LONGEST_QUESTION.min(self.ack_wait);
        let messages =
            consumer.stream().max_messages_per_batch(BATCH.min(self.max_pending as usize));
        let messages = messages.expires(lasts).heartbeat(lasts / HEARTBEATS).messages().await;
        messages.context("cannot ask for messages")
    }
}

/// What the message with this sequence says of the log's end.
async fn at(stream: &Stream, sequence: u64) -> anyhow::Result<Option<Floor>> {
    if sequence == 0 {
        return Ok(None);
    }
    match stream.get_raw_message(sequence).await {
        Ok(message) => {
            let event = Event::read(&message.headers, message.payload, message.time);
            Ok(event.map(|event| Floor { position: event.position, newest: event.occurred_at }))
        }
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => bail!("cannot read the stream: {error}"),
    }
}
