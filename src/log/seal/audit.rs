//! The audit under seals ([`super::history`]).
//!
//! Owns the table `audit_seals`. The canonical form of an entry is that of a row of the log ([`crate::log::canonical`]):
//! every column, in the order of `COLUMNS`. It must never change; a column added later needs seals with another domain
//! prefix. Seals stay when retention drops their entries, so the chain is whole from its first seal on. Positions have no
//! gap, so an entry that was taken away before it was sealed leaves one.

use tokio_postgres::{Error, Row};

use super::Hash;
use super::history::{self, History};
use crate::log::audit::retention;

/// Who changed what, and who was refused.
pub const AUDIT: History = History {
    name: "audit",
    title: "the audit",
    row: "entry",
    #[cfg(test)]
    table: "audit_entries",
    seals: ("audit_seals", "entries"),
    domain: b"groundstation audit seal 1\n",
    rows: ENTRIES,
    digest,
    dropped: Some(retention::HORIZON),
    head: Some("select position from audit_head"),
};

/// Prefix of everything that is hashed of an entry.
const ENTRY_DOMAIN: &[u8] = b"groundstation audit entry 1\n";

/// The columns, in the order of the form.
#[cfg(test)]
const COLUMNS: [&str; 10] = [
    "position",
    "recorded_at",
    "actor_type",
    "actor_id",
    "address",
    "action",
    "target_kind",
    "target_id",
    "before",
    "after",
];

const ENTRIES: &str = "
    select position, (extract(epoch from recorded_at) * 1000000)::bigint as recorded_at, actor_type, actor_id, address,
           action, target_kind, target_id, before::text as before, after::text as after
      from audit_entries
     where position > $1 and position <= $2
     order by position
     limit $3";

fn digest(row: &Row) -> Result<(i64, Hash), Error> {
    let integer = |name| row.try_get::<_, i64>(name).map(i64::to_be_bytes);
    let text = |name| row.try_get::<_, Option<&str>>(name).map(|text| text.map(str::as_bytes));
    let fields: [Option<&[u8]>; 10] = [
        Some(&integer("position")?),
        Some(&integer("recorded_at")?),
        text("actor_type")?,
        text("actor_id")?,
        text("address")?,
        text("action")?,
        text("target_kind")?,
        text("target_id")?,
        text("before")?,
        text("after")?,
    ];
    Ok((row.try_get("position")?, history::digest(ENTRY_DOMAIN, &fields)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::seal::history::tests::every_column_is_in_the_form;

    #[test]
    fn every_column_of_the_table_is_in_the_form_in_order() {
        let table = include_str!("../../../schema/V16__audit_entries__beside_11.sql");
        every_column_is_in_the_form(&AUDIT, table, &COLUMNS);
    }
}
