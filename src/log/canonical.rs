//! The canonical form of a row of the log: what a seal's hash covers.
//!
//! It holds every column, in the order of `COLUMNS`. Each column is one byte that says whether it is null (0) or
//! present (1), followed, if present, by its length in bytes (32 bits, big-endian) and its bytes: integers as 64 bits
//! big-endian in two's complement, UUIDs as their 16 bytes, texts as UTF-8, times as microseconds since 1970 in the
//! form of an integer, JSON as the text PostgreSQL gives for a `jsonb`. That text is canonical already: the type
//! keeps each key once and in one order, numbers exactly, and no white space of the sender. Lengths come first, so no
//! two rows share a form.
//!
//! A transition that has a mark ([`crate::domain::marks`]) has the three columns of marks behind these, in the order of
//! `MARKS`; one without has none of them.
//!
//! The form must never change: every seal ever made is checked against it. A column added later goes behind the
//! others, and only into rows that have something there, which rows of before have not.

use deadpool_postgres::GenericClient;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::domain::lifecycle::Position;

/// The columns, in the order of the form.
#[cfg(test)]
const COLUMNS: [&str; 16] = [
    "position",
    "revision",
    "change_id",
    "kind",
    "entity_id",
    "event",
    "reason",
    "session",
    "prev",
    "next",
    "actor_type",
    "actor_id",
    "traceparent",
    "schema_version",
    "occurred_at",
    "recorded_at",
];

/// The columns of marks, in the order of the form.
#[cfg(test)]
const MARKS: [&str; 3] = ["outage_id", "maintenance_id", "goodbye"];

/// A row in canonical form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical {
    /// Its position in the log.
    pub position: Position,
    /// The canonical form.
    pub bytes: Vec<u8>,
}

const ROWS: &str = "
    select position, revision, change_id, kind, entity_id, event, reason, session,
           prev::text as prev, next::text as next, actor_type, actor_id, traceparent,
           schema_version::bigint as schema_version,
           (extract(epoch from occurred_at) * 1000000)::bigint as occurred_at,
           (extract(epoch from recorded_at) * 1000000)::bigint as recorded_at,
           outage_id, maintenance_id, goodbye::text as goodbye
      from entity_transitions
     where position > $1 and position <= $2
     order by position
     limit $3";

/// The rows after `after` up to `last`, at most `limit` of them (bounded by
/// [`super::read::MAX_LIMIT`]).
pub async fn rows(
    client: &impl GenericClient,
    after: Position,
    last: Position,
    limit: i64,
) -> Result<Vec<Canonical>, tokio_postgres::Error> {
    let statement = client.prepare_cached(ROWS).await?;
    let limit = limit.clamp(1, super::read::MAX_LIMIT);
    let rows = client.query(&statement, &[&after, &last, &limit]).await?;
    rows.iter().map(of_row).collect()
}

fn of_row(row: &Row) -> Result<Canonical, tokio_postgres::Error> {
    let integer = |name| row.try_get::<_, i64>(name).map(i64::to_be_bytes);
    let id = |name| row.try_get::<_, Uuid>(name).map(Uuid::into_bytes);
    let text = |name| row.try_get::<_, Option<&str>>(name);
    let fields: [Option<&[u8]>; 16] = [
        Some(&integer("position")?),
        Some(&integer("revision")?),
        Some(&id("change_id")?),
        text("kind")?.map(str::as_bytes),
        Some(&id("entity_id")?),
        text("event")?.map(str::as_bytes),
        text("reason")?.map(str::as_bytes),
        Some(&integer("session")?),
        text("prev")?.map(str::as_bytes),
        text("next")?.map(str::as_bytes),
        text("actor_type")?.map(str::as_bytes),
        text("actor_id")?.map(str::as_bytes),
        text("traceparent")?.map(str::as_bytes),
        Some(&integer("schema_version")?),
        Some(&integer("occurred_at")?),
        Some(&integer("recorded_at")?),
    ];
    let optional_id =
        |name| row.try_get::<_, Option<Uuid>>(name).map(|id| id.map(Uuid::into_bytes));
    let (outage, maintenance) = (optional_id("outage_id")?, optional_id("maintenance_id")?);
    let marks: [Option<&[u8]>; 3] = [
        outage.as_ref().map(<[u8; 16]>::as_slice),
        maintenance.as_ref().map(<[u8; 16]>::as_slice),
        text("goodbye")?.map(str::as_bytes),
    ];
    let mut bytes = encode(&fields);
    if marks.iter().any(Option::is_some) {
        bytes.extend(encode(&marks));
    }
    Ok(Canonical { position: row.try_get("position")?, bytes })
}

/// Encodes fields in this form, each null or present.
pub(crate) fn encode(fields: &[Option<&[u8]>]) -> Vec<u8> {
    let length: usize = fields.iter().map(|field| 5 + field.map_or(0, <[u8]>::len)).sum();
    let mut bytes = Vec::with_capacity(length);
    for field in fields {
        match field {
            None => bytes.push(0),
            Some(field) => {
                bytes.push(1);
                // PostgreSQL keeps every value below 1 GiB.
                bytes.extend((field.len() as u32).to_be_bytes());
                bytes.extend(*field);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_share_a_form() {
        let forms = [
            encode(&[Some(b"ab"), Some(b"c")]),
            encode(&[Some(b"a"), Some(b"bc")]),
            encode(&[Some(b"abc"), Some(b"")]),
            encode(&[Some(b"abc"), None]),
            encode(&[None, Some(b"abc")]),
        ];
        for (n, form) in forms.iter().enumerate() {
            assert_eq!(forms.iter().position(|other| other == form), Some(n));
        }
        assert_eq!(encode(&[Some(b"ab"), None]), [1, 0, 0, 0, 2, b'a', b'b', 0]);
    }

    /// A column that is missing from the form could be changed unseen.
    #[test]
    fn every_column_of_the_table_is_in_the_form_in_order() {
        let table = include_str!("../../schema/V3__log.sql");
        let columns = table
            .lines()
            .skip_while(|line| !line.starts_with("create table entity_transitions"))
            .skip(1)
            .map_while(|line| line.split_whitespace().next().filter(|word| *word != "constraint"));
        assert_eq!(columns.collect::<Vec<_>>(), COLUMNS);
        let added = include_str!("../../schema/V17__marks_of_transitions__beside_11.sql");
        let added = added
            .lines()
            .skip_while(|line| !line.starts_with("alter table entity_transitions"))
            .skip(1)
            .map_while(|line| line.trim().strip_prefix("add column ")?.split_whitespace().next());
        assert_eq!(added.collect::<Vec<_>>(), MARKS);
        for column in COLUMNS.into_iter().chain(MARKS) {
            assert!(ROWS.contains(column), "{column} is not read");
        }
    }
}
