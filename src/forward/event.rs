//! A message of the stream as it is sent: a CloudEvent in HTTP's binary mode.

use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::stream::message::{CHANGE, Mark};

/// In HTTP this attribute is `Content-Type`.
const CONTENT_TYPE: &str = "ce-datacontenttype";

/// What is taken over of the headers: the attributes of CloudEvents, the trace, and ours.
const TAKEN: [&str; 3] = ["ce-", "groundstation-", "traceparent"];

/// What a forwarder adds to a dead letter; it is not sent.
pub const OWN: &str = "groundstation-forward-";

/// A transition to be delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place in the log.
    pub position: i64,
    /// Its identity, which is `webhook-id`.
    pub change: String,
    /// The trigger.
    pub subject: String,
    /// Whose it is: of events of the same subject the order is kept.
    pub of: String,
    /// When it happened.
    pub occurred_at: OffsetDateTime,
    /// When the stream stored it.
    pub stored_at: OffsetDateTime,
    /// The headers that are sent.
    pub headers: Vec<(String, String)>,
    /// The body, as it is.
    pub body: Bytes,
}

impl Event {
    /// Reads a message; none if it is somebody else's, or says nothing of whose it is and when it happened.
    pub fn read(headers: &HeaderMap, body: Bytes, stored_at: OffsetDateTime) -> Option<Event> {
        let mark = Mark::read(headers)?;
        let text = |name: &str| headers.get(name).map(|value| value.as_str().to_owned());
        let taken = headers.iter().filter_map(|(name, values)| {
            let lower = AsRef::<str>::as_ref(name).to_ascii_lowercase();
            let is_taken = TAKEN.iter().any(|prefix| lower.starts_with(prefix))
                && !lower.starts_with(OWN)
                && lower != CONTENT_TYPE;
            let value = values.first().filter(|_| is_taken)?;
            Some((name.to_string(), value.as_str().to_owned()))
        });
        let mut taken: Vec<(String, String)> = taken.collect();
        taken.sort();
        Some(Event {
            position: mark.position.0,
            subject: text("ce-type")?,
            of: text("ce-subject")?,
            occurred_at: OffsetDateTime::parse(&text("ce-time")?, &Rfc3339).ok()?,
            change: text("ce-id").or_else(|| text(CHANGE))?,
            stored_at,
            headers: taken,
            body,
        })
    }

    /// How long it has been on the stream.
    pub fn age(&self, now: OffsetDateTime) -> Duration {
        (now - self.stored_at).try_into().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(*name, *value);
        }
        headers
    }

    const OURS: [(&str, &str); 9] = [
        ("Nats-Msg-Id", "0191"),
        ("Nats-Expected-Last-Sequence", "6"),
        ("Groundstation-Position", "7"),
        ("ce-id", "0191"),
        ("ce-type", "satellite.connected"),
        ("ce-subject", "a"),
        ("ce-time", "2026-03-01T12:00:00.250Z"),
        ("ce-datacontenttype", "application/json"),
        ("Groundstation-Forward-Reason", "of a dead letter"),
    ];

    #[test]
    fn a_message_is_sent_with_its_attributes_and_without_those_of_its_way() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let event = Event::read(&headers(&OURS), Bytes::from_static(b"{}"), at).expect("ours");
        assert_eq!((event.position, event.change.as_str(), event.of.as_str()), (7, "0191", "a"));
        let names: Vec<&str> = event.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Groundstation-Position", "ce-id", "ce-subject", "ce-time", "ce-type"]);
        assert_eq!(event.age(at - Duration::from_secs(9)), Duration::ZERO, "clocks differ");
        assert_eq!(event.age(at + Duration::from_secs(9)), Duration::from_secs(9));
    }

    #[test]
    fn a_message_without_our_headers_is_somebody_elses() {
        for missing in ["Nats-Msg-Id", "Groundstation-Position", "ce-type", "ce-subject", "ce-time"]
        {
            let some: Vec<_> = OURS.into_iter().filter(|(name, _)| *name != missing).collect();
            let read = Event::read(&headers(&some), Bytes::new(), OffsetDateTime::UNIX_EPOCH);
            assert_eq!(read, None, "{missing}");
        }
    }
}
