//! The audit: who changed what, from where.
//!
//! Owns the table `audit_entries`. The entry of a change is written by [`append`] in the transaction of the change, right
//! before its commit: there is no change without its entry, and no entry without its change. The database gives it its
//! place, under the lock of `audit_head`, which is held until the commit. That lock is the last one of any transaction, so
//! nobody who holds it waits for another.
//!
//! A new kind of change gets a word in [`AuditAction`] and, as the last statement before its commit, one call:
//! `audit::append(&transaction, &[Entry::of_satellite(author, action, id, before, after)])`. Handlers have the author from
//! `caller.author()`. What is no satellite is named with [`target`].
//!
//! What changes nothing has no transaction: sign-ins and refusals come by [`notices`]. The entries are under seals
//! ([`super::seal`]), and kept for as long as [`retention`] is told.
//!
//! No secret, no token and no digest is ever in an entry: whoever makes one names each value that it has.

use std::net::IpAddr;

use deadpool_postgres::GenericClient;
use serde_json::{Map, Value};
use tokio_postgres::Error;
use tokio_postgres::types::Json;

use super::columns::Columns;
use crate::contract::audit::{AuditAction, TargetJson};
use crate::contract::wire::Actor;
use crate::domain::lifecycle::SatelliteId;

pub(crate) mod notices;
pub(crate) mod read;
pub(crate) mod retention;

/// The most bytes of the values before, and of those after, as JSON.
const MAX_BYTES: usize = 16 * 1024;

/// The field that names those that were cut.
const TRUNCATED: &str = "truncated";

/// Who does something, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Who.
    pub actor: Actor,
    /// The client's address, where there is a client.
    pub address: Option<IpAddr>,
}

impl Author {
    /// Nobody knows who.
    pub fn unknown_at(address: IpAddr) -> Author {
        Author { actor: Actor::unknown(), address: Some(address) }
    }
}

impl From<Actor> for Author {
    fn from(actor: Actor) -> Author {
        Author { actor, address: None }
    }
}

/// An entry to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Who did it.
    pub author: Author,
    /// What.
    pub action: AuditAction,
    /// To what.
    pub target: TargetJson,
    /// What was before.
    pub before: Option<Value>,
    /// What came of it.
    pub after: Option<Value>,
}

impl Entry {
    /// Something that was done to a satellite.
    pub fn of_satellite(
        author: &Author,
        action: AuditAction,
        satellite: SatelliteId,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Entry {
        let target = target("satellite", satellite.to_string());
        Entry { author: author.clone(), action, target, before, after }
    }
}

/// Something of this kind.
pub fn target(kind: &str, id: String) -> TargetJson {
    TargetJson { kind: kind.to_owned(), id }
}

/// The entries' columns for [`APPEND`].
pub(super) fn columns(entries: &[Entry]) -> Columns<'_, Entry> {
    let kept = |values: &Option<Value>| values.clone().map(|values| Json(bounded(values)));
    Columns::of(entries)
        .column("actor_type", "text", |entry| entry.author.actor.kind.as_str())
        .column("actor_id", "text", |entry| entry.author.actor.id.as_str())
        .column("address", "text", |entry| entry.author.address.map(|it| it.to_string()))
        .column("action", "text", |entry| entry.action.as_str())
        .column("target_kind", "text", |entry| entry.target.kind.as_str())
        .column("target_id", "text", |entry| entry.target.id.as_str())
        .column("before", "jsonb", move |entry| kept(&entry.before))
        .column("after", "jsonb", move |entry| kept(&entry.after))
}

/// Takes the lock of the audit's head, for the rest of the transaction.
pub(super) const APPEND: &str = "
    insert into audit_entries (actor_type, actor_id, address, action, target_kind, target_id, before, after)
    select actor_type, actor_id, address, action, target_kind, target_id, before, after from {rows} order by n";

/// The same for edges. What a satellite was that is removed is in the registry's history by then; its tags are left out where
/// there would be too much of them.
pub(super) const APPEND_OF_EDGES: &str = "
    insert into audit_entries (actor_type, actor_id, address, action, target_kind, target_id, before, after)
    select r.actor_type, r.actor_id, r.address, r.action, r.target_kind, r.target_id,
           case when r.action = 'satellite.removed' then (
               select case when octet_length(c.before::text) <= 16384 then c.before
                           else c.before || '{\"tags\": null, \"truncated\": [\"tags\"]}' end
                 from registry_changes c
                where c.satellite_id = r.target_id::uuid and c.action = 'removed'
                order by c.change desc limit 1) end,
           r.after
      from {rows} order by n";

/// Appends entries in this order, as the last thing that a transaction does.
pub async fn append(client: &impl GenericClient, entries: &[Entry]) -> Result<(), Error> {
    if entries.is_empty() {
        return Ok(());
    }
    let columns = columns(entries);
    let statement = client.prepare_cached(&columns.statement(APPEND)).await?;
    client.execute(&statement, &columns.parameters()).await.map(drop)
}

/// Both values without the fields that are the same in both.
pub fn changed(before: &Value, after: &Value) -> (Value, Value) {
    let without_same = |of: &Value, other: &Value| {
        let fields = of.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, value)| other.get(name) != Some(value));
        Value::Object(fields.map(|(name, value)| (name.clone(), value.clone())).collect())
    };
    (without_same(before, after), without_same(after, before))
}

/// The values within [`MAX_BYTES`]: as long as they are larger, half of the longest list or object goes. What was cut is
/// named.
fn bounded(values: Value) -> Value {
    let size = |value: &Value| value.to_string().len();
    let Value::Object(mut fields) = values else { return values };
    let mut cut: Vec<String> = Vec::new();
    while fields.values().map(size).sum::<usize>() > MAX_BYTES {
        let longest = fields.iter_mut().max_by_key(|(_, value)| size(value));
        let Some((name, value)) = longest else { break };
        if !cut.contains(name) {
            cut.push(name.clone());
        }
        match value {
            Value::Array(items) if items.len() > 1 => items.truncate(items.len() / 2),
            Value::Object(of) if of.len() > 1 => {
                let half = of.len() / 2;
                *of = std::mem::take(of).into_iter().take(half).collect::<Map<_, _>>();
            }
            value => *value = Value::Null,
        }
    }
    if !cut.is_empty() {
        fields.insert(TRUNCATED.to_owned(), cut.into());
    }
    Value::Object(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_the_same_before_and_after_is_in_neither() {
        let before = json!({"name": "a", "region": "eu", "tags": {"k": "v"}, "gone": 1});
        let after = json!({"name": "b", "region": "eu", "tags": {}, "new": null});
        let (was, is) = changed(&before, &after);
        assert_eq!(was, json!({"name": "a", "tags": {"k": "v"}, "gone": 1}));
        assert_eq!(is, json!({"name": "b", "tags": {}, "new": null}));
        assert_eq!(changed(&after, &after), (json!({}), json!({})));
    }

    #[test]
    fn what_is_too_large_is_cut_and_named_and_small_fields_stay() {
        let small = json!({"count": 7, "added": [1, 2, 3]});
        assert_eq!(bounded(small.clone()), small);
        let pairs: Vec<Value> =
            (0..500).map(|n| json!({"configId": "c".repeat(200), "systemId": n})).collect();
        let tags: Map<String, Value> =
            (0..64).map(|n| (n.to_string(), json!("ü".repeat(200)))).collect();
        let large =
            json!({"count": 500, "added": pairs, "tags": tags, "text": "x".repeat(100_000)});
        let kept = bounded(large);
        assert!(kept.to_string().len() <= MAX_BYTES + 100, "{}", kept.to_string().len());
        assert_eq!(kept["count"], 500);
        assert_eq!(kept["added"][0]["systemId"], 0);
        assert_eq!(kept["text"], Value::Null);
        assert_eq!(kept["truncated"], json!(["added", "text", "tags"]));
    }
}
