//! Holds the whole log against the whole stream: each transition once, in order, to the letter.
//!
//! It is written from the contract alone and uses nothing of the program but the table's columns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::{self, stream::LastRawMessageErrorKind, stream::Stream};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_postgres::GenericClient;
use uuid::Uuid;

use super::schemas;
use super::wait::{PATIENCE, eventually};

/// The header that names the cell.
pub const CELL: &str = "Groundstation-Cell";

/// One row of `entity_transitions`.
#[derive(Debug, Clone)]
pub struct LogRow {
    pub position: i64,
    pub revision: i64,
    pub change_id: Uuid,
    pub satellite: Uuid,
    pub event: String,
    pub reason: String,
    pub session: i64,
    pub next: Option<Value>,
    pub traceparent: Option<String>,
    pub outage: Option<Uuid>,
    pub maintenance: Option<Uuid>,
    /// RFC 3339, UTC, milliseconds.
    pub occurred_at: String,
    /// Microseconds since 1970.
    pub recorded_at: i64,
}

/// One message of the stream.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamMessage {
    pub subject: String,
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

impl StreamMessage {
    /// The position it carries, if it is a message of the service.
    pub fn position(&self) -> Option<i64> {
        self.headers.get("Groundstation-Position")?.parse().ok()
    }
}

/// The whole log, in position order.
pub async fn read_log(sql: &impl GenericClient) -> Vec<LogRow> {
    let rows = sql.query(LOG, &[]).await.expect("the log can be read");
    rows.iter()
        .map(|row| LogRow {
            position: row.get("position"),
            revision: row.get("revision"),
            change_id: row.get("change_id"),
            satellite: row.get("entity_id"),
            event: row.get("event"),
            reason: row.get("reason"),
            session: row.get("session"),
            next: row.get("next"),
            traceparent: row.get("traceparent"),
            outage: row.get("outage_id"),
            maintenance: row.get("maintenance_id"),
            occurred_at: row.get("occurred"),
            recorded_at: row.get("recorded"),
        })
        .collect()
}

const LOG: &str = r#"
    select position, revision, change_id, entity_id, event, reason, session, next, traceparent,
           outage_id, maintenance_id,
           to_char(occurred_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as occurred,
           (extract(epoch from recorded_at) * 1000000)::bigint as recorded
      from entity_transitions order by position"#;

/// The whole stream, in its order, without what was deleted from it; empty while there is none.
pub async fn read_stream(nats: &async_nats::Client) -> Vec<StreamMessage> {
    let jetstream = jetstream::new(nats.clone());
    let Ok(stream) = jetstream.get_stream("SATELLITE_TRANSITIONS").await else {
        return Vec::new();
    };
    let state = &stream.cached_info().state;
    if state.messages > MANY {
        // It does not come while the stream changes; then they are read one by one.
        let all = timeout(PATIENCE, read_by_consumer(&stream, state.messages as usize)).await;
        if let Ok(messages) = all {
            return messages;
        }
    }
    let mut messages = Vec::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = match stream.get_raw_message(sequence).await {
            Ok(message) => message,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => continue,
            Err(error) => panic!("message {sequence}: {error}"),
        };
        messages.push(stream_message(&message.subject, &message.headers, &message.payload));
    }
    messages
}

/// So many messages are not read one by one.
const MANY: u64 = 500;

/// All messages of a stream and what comes to it. A cluster that was just started may not make a consumer at once.
pub async fn from_the_beginning(stream: &Stream) -> Ordered {
    let consumer = eventually("a consumer", async || {
        let made = stream.create_consumer(OrderedConfig::default()).await;
        made.map_err(|error| error.to_string())
    });
    consumer.await.messages().await.expect("messages")
}

async fn read_by_consumer(stream: &Stream, count: usize) -> Vec<StreamMessage> {
    let messages = from_the_beginning(stream).await.take(count);
    messages
        .map(|message| {
            let message = message.expect("a message");
            let headers = message.headers.clone().unwrap_or_default();
            stream_message(&message.subject, &headers, &message.payload)
        })
        .collect()
        .await
}

fn stream_message(subject: &str, headers: &HeaderMap, payload: &[u8]) -> StreamMessage {
    let headers = headers.iter().map(|(name, values)| {
        assert_eq!(values.len(), 1, "header {name} comes more than once");
        (name.to_string(), values[0].to_string())
    });
    StreamMessage {
        subject: subject.to_owned(),
        headers: headers.collect(),
        body: serde_json::from_slice(payload).expect("a body of JSON"),
    }
}

/// All differences of the two, and all breaches of the log's own rules, one line each. Empty when all is
/// well.
pub fn differences(log: &[LogRow], stream: &[StreamMessage]) -> Vec<String> {
    differences_but(log, stream, &BTreeSet::new())
}

/// The same after messages with these positions were taken from the stream: they may be missing.
pub fn differences_but(
    log: &[LogRow],
    stream: &[StreamMessage],
    taken: &BTreeSet<i64>,
) -> Vec<String> {
    let mut found = faults_of_the_log(log);
    let there: BTreeSet<i64> = stream.iter().filter_map(StreamMessage::position).collect();
    let is_missing =
        |row: &&LogRow| taken.contains(&row.position) && !there.contains(&row.position);
    let expected: Vec<&LogRow> = log.iter().filter(|row| !is_missing(row)).collect();
    for (row, message) in expected.iter().zip(stream) {
        found.extend(difference(row, message));
    }
    for row in expected.iter().skip(stream.len()) {
        found.push(format!("position {}: not on the stream", row.position));
    }
    for message in stream.iter().skip(expected.len()) {
        found.push(format!("beyond the log: {message:?}"));
    }
    found
}

fn faults_of_the_log(log: &[LogRow]) -> Vec<String> {
    let mut found = Vec::new();
    let mut revisions: HashMap<Uuid, i64> = HashMap::new();
    let mut changes: HashMap<Uuid, i64> = HashMap::new();
    let mut recorded_at = i64::MIN;
    for (row, expected) in log.iter().zip(1..) {
        let position = row.position;
        if position != expected {
            found.push(format!("position {position}: {expected} was to follow"));
        }
        let revision = revisions.entry(row.satellite).or_default();
        *revision += 1;
        if row.revision != *revision {
            found.push(format!(
                "position {position}: revision {} where {revision} was to follow",
                row.revision
            ));
        }
        if let Some(earlier) = changes.insert(row.change_id, position) {
            found.push(format!("position {position}: the same change as {earlier}"));
        }
        if row.recorded_at < recorded_at {
            found.push(format!("position {position}: recorded before the one before it"));
        }
        recorded_at = row.recorded_at;
    }
    found
}

fn difference(row: &LogRow, message: &StreamMessage) -> Option<String> {
    let expected = expected_message(row);
    let mut seen = message.clone();
    // These are between the relay and the server and not part of the contract.
    seen.headers.remove("Nats-Expected-Last-Sequence");
    seen.headers.remove("Nats-Expected-Last-Msg-Id");
    // A cell's name is in both or in none.
    let source = match seen.headers.remove(CELL) {
        None => "/groundstation".to_owned(),
        Some(cell) => format!("/groundstation/{cell}"),
    };
    let found = seen.headers.remove("ce-source");
    if found.as_deref() != Some(source.as_str()) {
        return Some(format!("position {}: ce-source is {found:?}, not {source}", row.position));
    }
    if seen != expected {
        let position = row.position;
        return Some(format!("position {position}: expected\n  {expected:?}\nfound\n  {seen:?}"));
    }
    let fault = schemas::fault(&message.subject, &message.headers, &message.body)?;
    Some(format!("position {}: {fault}", row.position))
}

/// The message of a transition, from the contract's section 4 (without `ce-source`).
fn expected_message(row: &LogRow) -> StreamMessage {
    let subject = format!("satellite.{}", row.event);
    let mut headers = BTreeMap::from(
        [
            ("Nats-Msg-Id", row.change_id.to_string()),
            ("Groundstation-Position", row.position.to_string()),
            ("Groundstation-Revision", row.revision.to_string()),
            ("Groundstation-Session", row.session.to_string()),
            ("Groundstation-Reason", row.reason.clone()),
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", row.change_id.to_string()),
            ("ce-type", subject.clone()),
            ("ce-subject", row.satellite.to_string()),
            ("ce-time", row.occurred_at.clone()),
            ("ce-sequence", format!("{:020}", row.position)),
            ("ce-datacontenttype", "application/json".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    if let Some(traceparent) = &row.traceparent {
        headers.insert("traceparent".to_owned(), traceparent.clone());
    }
    let marks =
        [("Groundstation-Outage", row.outage), ("Groundstation-Maintenance", row.maintenance)];
    for (name, id) in marks {
        headers.extend(id.map(|id| (name.to_owned(), id.to_string())));
    }
    if row.next.as_ref().is_some_and(|next| next["flapping"] == true) {
        headers.insert("Groundstation-Flapping".to_owned(), "true".to_owned());
    }
    let body = match &row.next {
        Some(next) => json!({
            "satelliteId": row.satellite,
            "name": next["name"],
            "region": next["region"],
            "status": next["status"],
            "lastSeenAt": next["lastSeenAt"],
        }),
        None => json!({"satelliteId": row.satellite}),
    };
    StreamMessage { subject, headers, body }
}

mod tests {
    use super::*;

    fn log() -> Vec<LogRow> {
        let satellites = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let row = |position: i64| LogRow {
            position,
            revision: (position + 1) / 2,
            change_id: Uuid::from_u128(position as u128),
            satellite: satellites[(position % 2) as usize],
            event: "connected".to_owned(),
            reason: "connect".to_owned(),
            session: (position + 1) / 2,
            next: Some(json!({"status": "online", "name": "a", "region": "eu",
                              "lastSeenAt": "2026-03-01T12:00:00.000Z", "lastEvent": "connected"})),
            traceparent: None,
            outage: None,
            maintenance: None,
            occurred_at: "2026-03-01T12:00:00.000Z".to_owned(),
            recorded_at: position,
        };
        (1..=6).map(row).collect()
    }

    fn stream_of(log: &[LogRow]) -> Vec<StreamMessage> {
        let source = ("ce-source".to_owned(), "/groundstation".to_owned());
        let with_source = |row| {
            let mut message = expected_message(row);
            message.headers.extend([source.clone()]);
            message
        };
        log.iter().map(with_source).collect()
    }

    /// The differences found when a change spoils the good stream.
    fn spoilt(spoil: impl FnOnce(&mut Vec<StreamMessage>)) -> Vec<String> {
        let log = log();
        let mut stream = stream_of(&log);
        spoil(&mut stream);
        differences(&log, &stream)
    }

    #[test]
    fn a_stream_that_is_the_log_has_no_difference() {
        assert_eq!(spoilt(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn a_message_that_is_missing_doubled_swapped_or_foreign_is_found() {
        assert!(!spoilt(|stream| drop(stream.remove(2))).is_empty());
        assert!(!spoilt(|stream| drop(stream.pop())).is_empty());
        assert!(!spoilt(|stream| stream.insert(3, stream[2].clone())).is_empty());
        assert!(!spoilt(|stream| stream.push(stream[5].clone())).is_empty());
        assert!(!spoilt(|stream| stream.swap(1, 2)).is_empty());
    }

    #[test]
    fn a_message_that_is_not_to_the_letter_is_found() {
        assert!(!spoilt(|stream| stream[0].subject = "satellite.removed".to_owned()).is_empty());
        assert!(!spoilt(|stream| stream[0].body["status"] = "offline".into()).is_empty());
        assert!(!spoilt(|stream| stream[0].body["extra"] = 1.into()).is_empty());
        let names: Vec<String> = stream_of(&log())[0].headers.keys().cloned().collect();
        assert_eq!(names.len(), 13);
        for name in names {
            let without = |stream: &mut Vec<StreamMessage>| drop(stream[0].headers.remove(&name));
            assert_eq!(spoilt(without).len(), 1, "{name} may be missing");
        }
        let more = |stream: &mut Vec<StreamMessage>| {
            stream[0].headers.insert("Extra".to_owned(), "1".to_owned());
        };
        assert!(!spoilt(more).is_empty());
        let of_a_cell = |source: &'static str| {
            move |stream: &mut Vec<StreamMessage>| {
                let headers = [("ce-source", source), (CELL, "north")];
                stream[0].headers.extend(headers.map(|(name, text)| (name.into(), text.into())));
            }
        };
        assert_eq!(spoilt(of_a_cell("/groundstation/north")), Vec::<String>::new());
        assert!(!spoilt(of_a_cell("/groundstation/south")).is_empty());
        assert!(!spoilt(of_a_cell("/groundstation")).is_empty());
    }

    #[test]
    fn a_log_with_a_gap_a_repetition_or_time_running_back_is_found() {
        let faults: [fn(&mut Vec<LogRow>); 4] = [
            |log| drop(log.remove(2)),
            |log| log[3].change_id = log[1].change_id,
            |log| log[3].revision += 1,
            |log| log[3].recorded_at = 0,
        ];
        for spoil in faults {
            let mut log = log();
            spoil(&mut log);
            assert!(!differences(&log, &stream_of(&log)).is_empty());
        }
    }
}
