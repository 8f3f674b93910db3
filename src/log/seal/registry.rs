//! The registry's history under seals ([`super::history`]).
//!
//! Owns the table `registry_seals`. The canonical form of a change is that of a row of the log ([`crate::log::canonical`]):
//! every column, in the order of `COLUMNS`. It must never change; a column added later needs seals with another domain
//! prefix.

use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::Hash;
use super::history::{self, History};

/// What was changed of satellites.
pub const REGISTRY: History = History {
    name: "registry",
    title: "the registry's history",
    row: "change",
    #[cfg(test)]
    table: "registry_changes",
    seals: ("registry_seals", "changes"),
    domain: b"groundstation registry seal 1\n",
    rows: CHANGES,
    digest,
    dropped: None,
    head: None,
};

/// Prefix of everything that is hashed of a change.
const CHANGE_DOMAIN: &[u8] = b"groundstation registry change 1\n";

/// The columns, in the order of the form.
#[cfg(test)]
const COLUMNS: [&str; 9] = [
    "change",
    "position",
    "changed_at",
    "satellite_id",
    "action",
    "actor_type",
    "actor_id",
    "before",
    "after",
];

const CHANGES: &str = "
    select change, position, (extract(epoch from changed_at) * 1000000)::bigint as changed_at,
           satellite_id, action, actor_type, actor_id, before::text as before, after::text as after
      from registry_changes
     where change > $1 and change <= $2
     order by change
     limit $3";

fn digest(row: &Row) -> Result<(i64, Hash), Error> {
    let integer = |name| row.try_get::<_, i64>(name).map(i64::to_be_bytes);
    let text = |name| row.try_get::<_, Option<&str>>(name);
    let fields: [Option<&[u8]>; 9] = [
        Some(&integer("change")?),
        Some(&integer("position")?),
        Some(&integer("changed_at")?),
        Some(&row.try_get::<_, Uuid>("satellite_id")?.into_bytes()),
        text("action")?.map(str::as_bytes),
        text("actor_type")?.map(str::as_bytes),
        text("actor_id")?.map(str::as_bytes),
        text("before")?.map(str::as_bytes),
        text("after")?.map(str::as_bytes),
    ];
    Ok((row.try_get("change")?, history::digest(CHANGE_DOMAIN, &fields)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::seal::history::tests::every_column_is_in_the_form;

    #[test]
    fn every_column_of_the_table_is_in_the_form_in_order() {
        let table = include_str!("../../../schema/V2__registry.sql");
        every_column_is_in_the_form(&REGISTRY, table, &COLUMNS);
    }
}
