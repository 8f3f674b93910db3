//! A transition as a message on the stream: subject, body and headers, exactly as the contract has
//! them.

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;
use fail::fail_point;
use postgres_types::{FromSql, ToSql};

use crate::contract::wire::{PayloadJson, Timestamp};
use crate::domain::cell::{self, Cell};
use crate::domain::lifecycle::announcement;
use crate::log::{ChangeId, Entry};
use crate::platform::trace::Traceparent;

/// The transition's position in the log.
pub const POSITION: &str = "Groundstation-Position";

/// The transition's revision.
pub const REVISION: &str = "Groundstation-Revision";

/// The transition's session.
pub const SESSION: &str = "Groundstation-Session";

/// The transition's reason.
pub const REASON: &str = "Groundstation-Reason";

/// Between the relay and the server: the stream sequence that the message must follow.
pub const EXPECTED: &str = "Nats-Expected-Last-Sequence";

/// Likewise: the change that the message must follow, if that one is still in flight.
pub const EXPECTED_CHANGE: &str = "Nats-Expected-Last-Msg-Id";

/// The change id, by which the stream also recognises a duplicate.
pub const CHANGE: &str = "Nats-Msg-Id";

/// The epoch, on messages of every epoch but the first.
pub const EPOCH: &str = "Groundstation-Epoch";

/// Present, and `true`, on the edges of a flapping satellite.
pub const FLAPPING: &str = "Groundstation-Flapping";

/// The outage that the edge is part of, if it is.
pub const OUTAGE: &str = "Groundstation-Outage";

/// The maintenance window that the edge's satellite was in, if it was.
pub const MAINTENANCE: &str = "Groundstation-Maintenance";

/// The source of the messages, a CloudEvents attribute. The name of a cell follows behind a slash.
const SOURCE: &str = "/groundstation";

/// How often the stream has been built from the log: 1, plus one for each `groundstation audit
/// --repair`. Within an epoch every transition is on the stream once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, FromSql, ToSql)]
#[postgres(transparent)]
pub struct Epoch(pub i64);

impl Epoch {
    /// The epoch before any repair. Its messages carry no epoch header.
    pub const FIRST: Epoch = Epoch(1);
}

/// The parts of a transition's message that consumers may rely on.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// The subject.
    pub subject: &'static str,
    /// The headers of the contract.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

impl Content {
    /// The content of a transition's message. `None` for a transition that announces nothing; this
    /// version has no such transition.
    pub fn of(entry: &Entry, epoch: Epoch, cell: Option<&Cell>) -> Option<Content> {
        let transition = entry.transition()?;
        let (subject, payload) = announcement(&transition)?;
        let body = serde_json::to_vec(&PayloadJson::from(payload)).ok()?;
        Some(Content { subject, headers: headers(entry, subject, epoch, cell), body })
    }
}

/// The subject and message of a transition, to be stored right after stream sequence `after`. If
/// `change` is given, it is still in flight, and the message must also follow that change. `None`
/// for a transition that announces nothing.
pub fn build(
    entry: &Entry,
    epoch: Epoch,
    cell: Option<&Cell>,
    after: u64,
    change: Option<ChangeId>,
) -> Option<(&'static str, PublishMessage)> {
    let Content { subject, headers, body } = Content::of(entry, epoch, cell)?;
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

/// A fault test removes the expectations, to see that their absence is noticed.
fn expects() -> bool {
    fail_point!("relay::no_expectation", |_| false);
    true
}

/// The headers of the contract for this transition.
fn headers(entry: &Entry, subject: &str, epoch: Epoch, cell: Option<&Cell>) -> HeaderMap {
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
    if let Some(outage) = entry.marks.outage {
        headers.insert(OUTAGE, outage.0.to_string());
    }
    if let Some(maintenance) = entry.marks.maintenance {
        headers.insert(MAINTENANCE, maintenance.0.to_string());
    }
    if epoch > Epoch::FIRST {
        headers.insert(EPOCH, epoch.0.to_string());
    }
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-id", change.as_str());
    headers.insert("ce-type", subject);
    match cell {
        None => headers.insert("ce-source", SOURCE),
        Some(cell) => {
            headers.insert("ce-source", format!("{SOURCE}/{cell}"));
            headers.insert(cell::HEADER, cell.as_str());
        }
    }
    headers.insert("ce-subject", entry.satellite.0.to_string());
    headers.insert("ce-time", Timestamp::new(entry.occurred_at).to_string());
    headers.insert("ce-sequence", format!("{:020}", entry.position.0));
    headers.insert("ce-datacontenttype", "application/json");
    // Checked again: another writer to the log must not stop the relay with an invalid header.
    if let Some(traceparent) = entry.traceparent.as_deref().and_then(Traceparent::parse) {
        headers.insert("traceparent", traceparent.to_string());
    }
    headers
}

/// What a message of ours says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The transition's place in the log.
    pub position: crate::domain::lifecycle::Position,
    /// The change id, as written.
    pub change: String,
    /// The epoch in which it was published.
    pub epoch: Epoch,
    /// The cell that it names, if any.
    pub cell: Option<Cell>,
}

impl Mark {
    /// Reads the mark from a message's headers; `None` for a foreign message.
    pub fn read(headers: &HeaderMap) -> Option<Mark> {
        let text = |name| headers.get(name).map(|value| value.as_str());
        let number = |name| text(name).map(str::parse::<i64>);
        let position = number(POSITION)?.ok().filter(|position| *position > 0)?;
        let epoch = match number(EPOCH) {
            None => Epoch::FIRST,
            Some(epoch) => Epoch(epoch.ok()?),
        };
        let change = text(CHANGE)?.to_owned();
        let cell = text(cell::HEADER).and_then(|name| name.parse().ok());
        Some(Mark { position: crate::domain::lifecycle::Position(position), change, epoch, cell })
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
        let of_a_cell = with(&[(CHANGE, "x"), (POSITION, "7"), (cell::HEADER, "north")]);
        assert_eq!(of_a_cell.expect("ours").cell, "north".parse().ok());
        assert_eq!(ours.cell, None);
    }
}
