use std::collections::VecDeque;

use async_nats::Client;
use async_nats::jetstream::consumer::{Consumer as Durable, pull};
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt;
use serde::Serialize;

use crate::error::Error;
use crate::fleet::Fleet;
use crate::log;
use crate::message::{self, Published};
use crate::place::{Place, Seen};
use crate::transition::Transition;

/// The stream's name.
pub const STREAM: &str = "SATELLITE_TRANSITIONS";

/// The next thing to handle. As JSON it is the fleet or the transition itself.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Step {
    /// All satellites as of a position. It comes first where the caller has no place, and again where transitions
    /// behind its place were dropped.
    Fleet(Fleet),
    /// A transition.
    Transition(Transition),
}

/// A step, and the place to store with its effects.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// What to handle.
    pub step: Step,
    /// Where the caller is once it has handled it.
    pub place: Place,
}

/// A durable consumer of the stream.
pub struct Consumer {
    client: Client,
    durable: Durable<pull::Config>,
    messages: Option<pull::Stream>,
    /// The last step that was given out; none until there is one.
    place: Option<Place>,
    /// A message whose transition was given out: the stream hears of it when the caller asks for the next one.
    given: Option<Message>,
    /// A message behind a gap, until the gap is filled.
    ahead: Option<(Message, Published)>,
    /// What the log had for the gap.
    missing: VecDeque<Transition>,
}

impl Consumer {
    /// Opens the durable consumer of this name, and makes it if nobody has, behind a place. Without a place the whole
    /// fleet comes first.
    ///
    /// # Errors
    ///
    /// [`Error::Nats`] if the stream is not there, or the consumer is neither there nor may be made.
    pub async fn open(
        client: Client,
        durable: &str,
        place: Option<Place>,
    ) -> Result<Consumer, Error> {
        let context = jetstream::new(client.clone());
        // Asked for first: who may use the consumer need not be one who may make it.
        let durable = match context.get_consumer_from_stream(durable, STREAM).await {
            Ok(there) => there,
            Err(_) => {
                let stream = context.get_stream(STREAM).await.map_err(Error::nats)?;
                let config =
                    pull::Config { durable_name: Some(durable.to_owned()), ..Default::default() };
                stream.get_or_create_consumer(durable, config).await.map_err(Error::nats)?
            }
        };
        Ok(Consumer {
            client,
            durable,
            messages: None,
            place,
            given: None,
            ahead: None,
            missing: VecDeque::new(),
        })
    }

    /// Waits for the next step. The caller asks for it only when it has handled the step before and stored its place.
    /// May be dropped and called again: nothing is lost.
    ///
    /// # Errors
    ///
    /// See [`Error`]; the place stays.
    pub async fn next(&mut self) -> Result<Taken, Error> {
        loop {
            let Some(place) = self.place else {
                let fleet = log::fleet(&self.client, false).await?;
                return Ok(self.give_fleet(fleet, Place::BEGINNING));
            };
            if let Some(transition) = self.missing.pop_front() {
                return Ok(self.give(transition, place.epoch));
            }
            if let Some((_, published)) = &self.ahead {
                let Published { transition, epoch } = published;
                match place.sees(transition.position, transition.change) {
                    Seen::Ahead => {
                        let until = transition.position;
                        if let Some(taken) = self.fill(place, until).await? {
                            return Ok(taken);
                        }
                    }
                    Seen::Next => {
                        let (transition, epoch) = (transition.clone(), *epoch);
                        self.given = self.ahead.take().map(|(message, _)| message);
                        return Ok(self.give(transition, epoch));
                    }
                    Seen::Handled => self.given = self.ahead.take().map(|(message, _)| message),
                    Seen::AnotherPast => {
                        return Err(Error::AnotherPast { position: place.position });
                    }
                }
                continue;
            }
            if let Some(given) = &self.given {
                // Asked for an answer: what is not acknowledged comes again, which costs a look.
                given.double_ack().await.map_err(Error::nats)?;
                self.given = None;
            }
            let message = self.message().await?;
            let headers = message.headers.clone().unwrap_or_default();
            match message::read(&message.subject, &headers, &message.payload)? {
                Some(published) => self.ahead = Some((message, published)),
                None => self.given = Some(message),
            }
        }
    }

    /// Asks the log for what is missing behind a place; the fleet, if the log has dropped it.
    async fn fill(&mut self, place: Place, until: i64) -> Result<Option<Taken>, Error> {
        let wanted = until - place.position - 1;
        let found = log::transitions(&self.client, place.position, wanted).await?;
        let dense = found.iter().zip(place.position + 1..).take_while(|(t, at)| t.position == *at);
        let dense = dense.filter(|(t, _)| t.position < until).count();
        if dense == 0 {
            let fleet = log::fleet(&self.client, true).await?;
            if fleet.position <= place.position {
                return Err(Error::unreadable(
                    "the log",
                    "its newest position is behind the stream's",
                ));
            }
            return Ok(Some(self.give_fleet(fleet, place)));
        }
        self.missing.extend(found.into_iter().take(dense));
        Ok(None)
    }

    fn give(&mut self, transition: Transition, epoch: i64) -> Taken {
        let known = self.place.map_or(1, |place| place.epoch);
        let place = Place {
            position: transition.position,
            change: Some(transition.change),
            epoch: epoch.max(known),
        };
        self.place = Some(place);
        Taken { step: Step::Transition(transition), place }
    }

    fn give_fleet(&mut self, fleet: Fleet, before: Place) -> Taken {
        let place = Place { position: fleet.position, change: None, epoch: before.epoch };
        self.place = Some(place);
        Taken { step: Step::Fleet(fleet), place }
    }

    /// The stream's next message.
    async fn message(&mut self) -> Result<Message, Error> {
        if self.messages.is_none() {
            self.messages = Some(self.durable.messages().await.map_err(Error::nats)?);
        }
        let Some(messages) = &mut self.messages else {
            return Err(Error::nats("no messages"));
        };
        match messages.next().await {
            Some(Ok(message)) => Ok(message),
            ended => {
                // It is asked for anew the next time.
                self.messages = None;
                let why = ended.and_then(Result::err).map(|error| error.to_string());
                Err(Error::nats(why.unwrap_or_else(|| "the messages ended".to_owned())))
            }
        }
    }
}
