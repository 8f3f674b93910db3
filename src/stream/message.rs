//! A transition as a message on the stream: subject, body, headers, to the letter of the contract.

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use fail::fail_point;
use postgres_types::{FromSql, ToSql};

use crate::contract::wire::{PayloadJson, Timestamp};
use crate::domain::lifecycle::announcement;
use crate::log::{ChangeId, Entry};
use crate::platform::trace::Traceparent;

/// The stream's position in the log.
pub const POSITION: &str = "Groundstation-Position";

/// Its place among those of its satellite.
pub const REVISION: &str = "Groundstation-Revision";

/// The session it belongs to.
pub const SESSION: &str = "Groundstation-Session";

/// Why it happened.
pub const REASON: &str = "Groundstation-Reason";

/// Between the relay and the server: the stream's sequence that the message must follow.
pub const EXPECTED: &str = "Nats-Expected-Last-Sequence";

/// Likewise: the change the message must follow, where that is still on its way.
pub const EXPECTED_CHANGE: &str = "Nats-Expected-Last-Msg-Id";

/// The change id, by which the stream also recognises a repetition.
pub const CHANGE: &str = "Nats-Msg-Id";

/// The epoch, on messages of every epoch but the first.
pub const EPOCH: &str = "Groundstation-Epoch";

/// There, and `true`, on the edges of a satellite that comes and goes too often.
pub const FLAPPING: &str = "Groundstation-Flapping";

/// Where the messages come from, as CloudEvents wants it.
const SOURCE: &str = "/groundstation";

/// How often the stream has been built from the log: 1, and one more after each
/// `groundstation audit --repair`. Within an epoch every transition is on the stream once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, FromSql, ToSql)]
#[postgres(transparent)]
pub struct Epoch(pub i64);

impl Epoch {
    /// The one before any repair; its messages carry no header that says so.
    pub const FIRST: Epoch = Epoch(1);
}

/// What everybody may rely on in the message of a transition.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// Where it is published.
    pub subject: &'static str,
    /// The headers of the contract.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Content {
    /// The content of a transition's message. `None` for a transition that announces nothing; no
    /// transition of this version is such.
    pub fn of(entry: &Entry, epoch: Epoch) -> Option<Content> {
        let transition = entry.transition()?;
        let (subject, payload) = announcement(&transition)?;
        let body = serde_json::to_vec(&PayloadJson::from(payload)).ok()?;
        Some(Content { subject, headers: headers(entry, subject, epoch), body })
    }
}

/// The subject and message of a transition, to be stored right after stream sequence `after`, and,
/// where that is on its way, only if it is this `change`. `None` for a transition that announces
/// nothing.
pub fn build(
    entry: &Entry,
    epoch: Epoch,
    after: u64,
    change: Option<ChangeId>,
) -> Option<(&'static str, PublishMessage)> {
    let Content { subject, headers, body } = Content::of(entry, epoch)?;
    let message = PublishMessage::build().headers(headers).payload(body.into());
    Some((subject, expecting(message, after, change)))
}

fn expecting(message: PublishMessage, after: u64, change: Option<ChangeId>) -> PublishMessage {
    if !expects() {
        return message;
    }
    let message = message.expected_last_sequence(after);
    match change {
        Some(change) => message.expected_last_message_id(change.0.to_string()),
        None => message,
    }
}

/// A fault test takes the expectations away, to see that their absence is noticed.
fn expects() -> bool {
    fail_point!("relay::no_expectation", |_| false);
    true
}

/// The headers every message of this transition carries.
fn headers(entry: &Entry, subject: &str, epoch: Epoch) -> HeaderMap {
    let change = entry.change.0.to_string();
    let mut headers = HeaderMap::new();
    headers.insert(CHANGE, change.as_str());
    headers.insert(POSITION, entry.position.0.to_string());
    headers.insert(REVISION, entry.revision.0.to_string());
    headers.insert(SESSION, entry.session.0.to_string());
    headers.insert(REASON, entry.reason.as_str());
    if entry.next.as_ref().is_some_and(|state| state.flapping) {
        headers.insert(FLAPPING, "true");
    }
    if epoch > Epoch::FIRST {
        headers.insert(EPOCH, epoch.0.to_string());
    }
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-id", change.as_str());
    headers.insert("ce-type", subject);
    headers.insert("ce-source", SOURCE);
    headers.insert("ce-subject", entry.satellite.0.to_string());
    headers.insert("ce-time", Timestamp::new(entry.occurred_at).to_string());
    headers.insert("ce-sequence", format!("{:020}", entry.position.0));
    headers.insert("ce-datacontenttype", "application/json");
    // Checked again: whoever else wrote to the log must not stop the relay with what is no header.
    if let Some(traceparent) = entry.traceparent.as_deref().and_then(Traceparent::parse) {
        headers.insert("traceparent", traceparent.to_string());
    }
    headers
}

/// What a message says of itself, if it is one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The transition's place in the log.
    pub position: crate::domain::lifecycle::Position,
    /// The change's identity, as written.
    pub change: String,
    /// In which epoch it was published.
    pub epoch: Epoch,
}

impl Mark {
    /// Reads it from a message's headers; `None` for somebody else's message.
    pub fn read(headers: &HeaderMap) -> Option<Mark> {
        let text = |name| headers.get(name).map(|value| value.as_str());
        let number = |name| text(name).map(str::parse::<i64>);
        let position = number(POSITION)?.ok().filter(|position| *position > 0)?;
        let epoch = match number(EPOCH) {
            None => Epoch::FIRST,
            Some(epoch) => Epoch(epoch.ok()?),
        };
        let change = text(CHANGE)?.to_owned();
        Some(Mark { position: crate::domain::lifecycle::Position(position), change, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_without_our_headers_is_somebody_elses() {
        let with = |pairs: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, *value);
            }
            Mark::read(&headers)
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[(CHANGE, "x")]), None);
        assert_eq!(with(&[(POSITION, "1")]), None);
        assert_eq!(with(&[(CHANGE, "x"), (POSITION, "0")]), None);
        assert_eq!(with(&[(CHANGE, "x"), (POSITION, "seven")]), None);
        assert_eq!(with(&[(CHANGE, "x"), (POSITION, "7"), (EPOCH, "?")]), None);
        let ours = with(&[(CHANGE, "x"), (POSITION, "7")]).expect("ours");
        assert_eq!((ours.position.0, ours.epoch), (7, Epoch::FIRST));
        let later = with(&[(CHANGE, "x"), (POSITION, "7"), (EPOCH, "3")]).expect("ours");
        assert_eq!(later.epoch, Epoch(3));
    }
}
