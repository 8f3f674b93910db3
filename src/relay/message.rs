//! A transition as a message on the stream: subject, body, headers, to the letter of the contract.

use async_nats::HeaderMap;
use async_nats::jetstream::message::PublishMessage;

use crate::lifecycle::announcement;
use crate::log::Entry;
use crate::wire::{PayloadJson, Timestamp};

/// The stream's position in the log.
pub const POSITION: &str = "Groundstation-Position";

/// The change id, by which the stream also recognises a repetition.
pub const CHANGE: &str = "Nats-Msg-Id";

/// Where the messages come from, as CloudEvents wants it.
const SOURCE: &str = "/groundstation";

/// The subject and message of a transition, to be stored right after stream sequence `after`.
/// `None` for a transition that announces nothing; no transition of this version is such.
pub fn build(entry: &Entry, after: u64) -> Option<(&'static str, PublishMessage)> {
    let Content { subject, headers, body } = content(entry)?;
    let message =
        PublishMessage::build().headers(headers).expected_last_sequence(after).payload(body.into());
    Some((subject, message))
}

/// What a transition says on NATS, whoever says it and where.
pub struct Content {
    /// The subject, as on the stream.
    pub subject: &'static str,
    /// The headers every message of this transition carries.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// The message of a transition without its place on the stream. `None` as for [`build`].
pub fn content(entry: &Entry) -> Option<Content> {
    let transition = entry.transition()?;
    let (subject, payload) = announcement(&transition)?;
    let body = serde_json::to_vec(&PayloadJson::from(payload)).ok()?;
    Some(Content { subject, headers: headers(entry, subject), body })
}

fn headers(entry: &Entry, subject: &str) -> HeaderMap {
    let change = entry.change.0.to_string();
    let mut headers = HeaderMap::new();
    headers.insert(CHANGE, change.as_str());
    headers.insert(POSITION, entry.position.0.to_string());
    headers.insert("Groundstation-Revision", entry.revision.0.to_string());
    headers.insert("Groundstation-Session", entry.session.0.to_string());
    headers.insert("Groundstation-Reason", entry.reason.as_str());
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-id", change.as_str());
    headers.insert("ce-type", subject);
    headers.insert("ce-source", SOURCE);
    headers.insert("ce-subject", entry.satellite.0.to_string());
    headers.insert("ce-time", Timestamp::new(entry.occurred_at).to_string());
    headers.insert("ce-sequence", format!("{:020}", entry.position.0));
    headers.insert("ce-datacontenttype", "application/json");
    if let Some(traceparent) = &entry.traceparent {
        headers.insert("traceparent", traceparent.as_str());
    }
    headers
}
