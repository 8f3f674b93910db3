use time::macros::datetime;
use uuid::Uuid;

use super::*;
use crate::contract::wire::{Actor, StateJson};
use crate::domain::lifecycle::{Event, Reason, Revision, SatelliteId, Session};
use crate::domain::liveness::Status;
use crate::domain::marks::Marks;
use crate::log::ChangeId;

/// A log of positions 1 to this.
struct Log(i64);

impl Entries for Log {
    async fn at(&mut self, position: Position) -> anyhow::Result<Option<Entry>> {
        Ok((position.0 <= self.0).then(|| entry(position.0)))
    }
}

fn entry(position: i64) -> Entry {
    Entry {
        position: Position(position),
        revision: Revision(position),
        change: ChangeId(Uuid::from_u128(position as u128)),
        satellite: SatelliteId(Uuid::from_u128(7)),
        event: Event::Connected.into(),
        reason: Reason::Connect.into(),
        session: Session(position),
        prev: None,
        next: Some(StateJson {
            status: Status::Online.into(),
            name: "edge".to_owned(),
            region: "eu".to_owned(),
            last_seen_at: None,
            last_event: Some(Event::Connected.into()),
            flapping: false,
            flapping_until: None,
        }),
        actor: Actor::system(),
        traceparent: None,
        marks: Marks::default(),
        occurred_at: datetime!(2026-03-01 12:00 UTC),
        recorded_at: datetime!(2026-03-01 12:00 UTC),
    }
}

fn message(position: i64) -> Seen {
    let content = Content::of(&entry(position), Epoch::FIRST, None).expect("announces something");
    let Content { subject, headers, body } = content;
    let mark = Mark::read(&headers);
    Seen { sequence: 0, subject: subject.to_owned(), headers, body, mark }
}

fn with_header(mut message: Seen, name: &'static str, value: &str) -> Seen {
    message.headers.insert(name, value);
    message.mark = Mark::read(&message.headers);
    message
}

/// What a comparison with a log of ten finds and counts.
async fn compared(messages: Vec<Seen>, is_limited: bool) -> (Vec<String>, Counts) {
    let mut found = Vec::new();
    let note = |finding: Finding| found.push(finding.to_string());
    let mut comparison =
        Comparison::new(Log(10), Position(1), Position(10), Epoch::FIRST, is_limited, note);
    for (sequence, mut message) in (1..).zip(messages) {
        message.sequence = sequence;
        comparison.observe(message).await.expect("compares");
    }
    let removed = Position(if is_limited { 10 } else { 0 });
    let counts = comparison.finish(Position(10), removed).await.expect("finishes");
    (found, counts)
}

async fn found(positions: &[i64]) -> Vec<String> {
    compared(positions.iter().map(|position| message(*position)).collect(), false).await.0
}

fn all() -> Vec<Seen> {
    (1..=10).map(message).collect()
}

#[tokio::test]
async fn a_stream_that_is_the_log_has_no_fault() {
    let (found, counts) = compared(all(), false).await;
    assert_eq!(found, Vec::<String>::new());
    assert_eq!((counts.compared, counts.faults()), (10, 0));
}

#[tokio::test]
async fn what_is_missing_is_named_wherever_it_was() {
    assert_eq!(found(&[]).await, ["missing    positions 1 to 10"]);
    assert_eq!(found(&[2, 3, 4, 5, 6, 7, 8, 9, 10]).await, ["missing    position 1"]);
    assert_eq!(found(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).await, ["missing    position 10"]);
    assert_eq!(found(&[1, 2, 3, 5, 6, 7, 8, 9, 10]).await, ["missing    position 4"]);
    assert_eq!(
        found(&[1, 2, 5, 8, 9]).await,
        ["missing    positions 3 to 4", "missing    positions 6 to 7", "missing    position 10"]
    );
}

#[tokio::test]
async fn what_is_there_twice_is_named_where_it_is_too_many() {
    assert_eq!(
        found(&[1, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10]).await,
        ["extra      position 3 at sequence 4: a second time"]
    );
    assert_eq!(
        found(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1]).await,
        ["extra      position 1 at sequence 11: a second time"]
    );
}

#[tokio::test]
async fn what_was_swapped_is_misplaced_and_nothing_else() {
    assert_eq!(
        found(&[1, 2, 4, 3, 5, 6, 7, 8, 9, 10]).await,
        ["misplaced  position 4 at sequence 3: comes after position 2"]
    );
    assert_eq!(
        found(&[1, 2, 9, 4, 5, 6, 7, 8, 3, 10]).await,
        [
            "misplaced  position 9 at sequence 3: comes after position 2",
            "misplaced  position 3 at sequence 9: comes after position 9"
        ]
    );
    assert_eq!(
        found(&[1, 3, 4, 5, 6, 7, 8, 9, 10, 2]).await,
        ["misplaced  position 2 at sequence 10: comes after position 10"]
    );
    // The position comes early, and once more in its place.
    assert_eq!(
        found(&[1, 2, 9, 3, 4, 5, 6, 7, 8, 9, 10]).await,
        [
            "misplaced  position 9 at sequence 3: comes after position 2",
            "extra      position 9 at sequence 10: a second time"
        ]
    );
}

#[tokio::test]
async fn what_was_altered_is_named_by_what_differs() {
    let spoilt = |spoil: fn(Seen) -> Seen| async move {
        let mut messages = all();
        messages[4] = spoil(message(5));
        let (found, counts) = compared(messages, false).await;
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(counts.different, 1);
        found.into_iter().next().expect("one")
    };
    let body = |message: Seen| Seen { body: b"{}".to_vec(), ..message };
    assert_eq!(spoilt(body).await, "different  position 5 at sequence 5: the body");
    let subject = |message: Seen| Seen { subject: "satellite.removed".to_owned(), ..message };
    assert!(
        spoilt(subject)
            .await
            .ends_with("the subject is satellite.removed, not satellite.connected")
    );
    let change = |message| with_header(message, "Nats-Msg-Id", "another");
    assert!(spoilt(change).await.ends_with("header Nats-Msg-Id"));
    let reason = |message| with_header(message, "Groundstation-Reason", "takeover");
    assert!(spoilt(reason).await.ends_with("header Groundstation-Reason"));
}

#[tokio::test]
async fn what_the_log_does_not_have_is_extra_and_moves_nothing() {
    let mut messages = all();
    messages.insert(3, message(12));
    messages.insert(6, with_header(message(9), "Nats-Msg-Id", "forged"));
    messages.insert(8, with_header(message(2), "Groundstation-Epoch", "2"));
    let (found, _) = compared(messages, false).await;
    assert_eq!(
        found,
        [
            "extra      position 12 at sequence 4: the log ends at 10",
            "extra      position 9 at sequence 7: the log has another change there",
            "extra      position 2 at sequence 9: of epoch 2, the relay's is 1"
        ]
    );
}

#[tokio::test]
async fn somebody_elses_messages_are_counted_and_no_fault() {
    let mut messages = all();
    let foreign = Seen { headers: HeaderMap::new(), mark: None, ..message(1) };
    messages.insert(0, foreign.clone());
    messages.insert(5, foreign);
    let (found, counts) = compared(messages, false).await;
    assert_eq!(found, Vec::<String>::new());
    assert_eq!((counts.foreign, counts.faults()), (2, 0));
}

#[tokio::test]
async fn what_the_streams_limits_removed_is_told_and_no_fault() {
    let (found, counts) = compared((4..=10).map(message).collect(), true).await;
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(counts.begins_at, Some(Position(4)));
    let (found, counts) = compared(Vec::new(), true).await;
    assert_eq!((found, counts.faults()), (Vec::new(), 0));
    // After the beginning nothing may be missing.
    let (found, _) = compared([4, 5, 7, 8, 9, 10].map(message).to_vec(), true).await;
    assert_eq!(found, ["missing    position 6"]);
}
