//! What satellites are to check: each one's list of assignments, checked, stored and read.
//!
//! Owns the table `satellite_assignments`. What sets add to a list is in [`super::assignment_sets`]; sessions are told of
//! both together. A list is replaced as a whole. Its version is the number of the change
//! that made it: of two versions the greater is always the newer.

use std::collections::{BTreeSet, HashSet};

use deadpool_postgres::{GenericClient, Object, Transaction};
use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use tokio_postgres::types::{Json, ToSql};

use crate::contract::audit::AuditAction;
use crate::contract::wire::Actor;
use crate::domain::lifecycle::{Position, SatelliteId, SessionKey};
use crate::log;
use crate::log::audit::{self, Entry};
use crate::log::within;
use crate::registry::authority::Authority;
use crate::registry::in_force::{self, MAX_ASSIGNMENTS};
use crate::registry::precondition::Precondition;
use crate::registry::satellites::{Invalid, MAX_CHARACTERS, invalid};

pub(crate) mod replacement;

/// The most bytes of one satellite's list as JSON, because it is sent whole in one message.
pub const MAX_BYTES: usize = 512 * 1024;

/// The most collectors of one assignment.
const MAX_COLLECTORS: usize = 50;

/// The longest interval: a week.
const MAX_INTERVAL_SECONDS: i64 = 7 * 24 * 60 * 60;

/// The root of field paths.
const ROOT: &str = "assignments";

/// A list that is in force for a session.
#[derive(Debug, Clone)]
pub struct Assigned {
    /// The change that made it; 0 if nothing was ever assigned.
    pub version: i64,
    /// The list itself, as it is sent.
    pub list: Box<RawValue>,
    pairs: BTreeSet<(String, String)>,
}

impl Assigned {
    /// Makes a list of this version.
    pub fn new(version: i64, list: Box<RawValue>) -> Result<Assigned, serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Pair {
            config_id: String,
            system_id: String,
        }
        let pairs: Vec<Pair> = serde_json::from_str(list.get())?;
        let pairs = pairs.into_iter().map(|pair| (pair.config_id, pair.system_id)).collect();
        Ok(Assigned { version, list, pairs })
    }

    /// The list of a satellite to which nothing was ever assigned.
    pub fn nothing() -> Result<Assigned, serde_json::Error> {
        Assigned::new(0, to_raw_value::<[Value; 0]>(&[])?)
    }

    /// How many assignments there are.
    pub fn count(&self) -> usize {
        self.pairs.len()
    }

    /// Whether a result of this config on this system may be passed on.
    pub fn allows(&self, config_id: &str, system_id: &str) -> bool {
        // Copied to compare them as a pair; results are rare.
        self.pairs.contains(&(config_id.to_owned(), system_id.to_owned()))
    }
}

/// Takes the list out of a request body: the list itself, or an object with the field `assignments`. Checks every
/// limit. The error names the field by its path.
pub fn check(sent: Value) -> Result<Value, Invalid> {
    let list = match sent {
        Value::Object(mut fields) => fields.remove(ROOT).unwrap_or_default(),
        other => other,
    };
    let Value::Array(assignments) = &list else {
        return Err(invalid(ROOT, "must be a list"));
    };
    if assignments.len() > MAX_ASSIGNMENTS {
        return Err(invalid(ROOT, format!("must be at most {MAX_ASSIGNMENTS}")));
    }
    // Sizes are compared in the stored form, without the sender's white space.
    if list.to_string().len() > MAX_BYTES {
        return Err(invalid(ROOT, format!("must have at most {MAX_BYTES} bytes")));
    }
    let mut seen = HashSet::new();
    for (n, assignment) in assignments.iter().enumerate() {
        let path = format!("{ROOT}[{n}]");
        let fields = object(&path, assignment)?;
        check_assignment(&path, fields)?;
        if !seen.insert((fields.get("configId"), fields.get("systemId"))) {
            let rule = "must be different from that of every other assignment of its systemId";
            return Err(invalid(format!("{path}.configId"), rule));
        }
    }
    check_texts(ROOT, &list)?;
    Ok(list)
}

fn check_assignment(path: &str, fields: &Map<String, Value>) -> Result<(), Invalid> {
    for name in ["configId", "systemId", "strategyId"] {
        check_word(path, name, fields.get(name))?;
    }
    for name in ["configName", "systemName"] {
        if let Some(word) = fields.get(name) {
            check_word(path, name, Some(word))?;
        }
    }
    object(&format!("{path}.config"), fields.get("config").unwrap_or(&Value::Null))?;
    let interval = fields.get("intervalSeconds").and_then(Value::as_i64);
    if !interval.is_some_and(|seconds| (1..=MAX_INTERVAL_SECONDS).contains(&seconds)) {
        let rule = format!("must be a whole number of seconds from 1 to {MAX_INTERVAL_SECONDS}");
        return Err(invalid(format!("{path}.intervalSeconds"), rule));
    }
    match fields.get("collectors") {
        None => Ok(()),
        Some(Value::Array(collectors)) if collectors.len() <= MAX_COLLECTORS => {
            check_collectors(path, collectors)
        }
        Some(_) => {
            let rule = format!("must be a list of at most {MAX_COLLECTORS}");
            Err(invalid(format!("{path}.collectors"), rule))
        }
    }
}

fn check_collectors(path: &str, collectors: &[Value]) -> Result<(), Invalid> {
    let mut seen = HashSet::new();
    for (n, collector) in collectors.iter().enumerate() {
        let path = format!("{path}.collectors[{n}]");
        let fields = object(&path, collector)?;
        check_word(&path, "id", fields.get("id"))?;
        check_word(&path, "collectorId", fields.get("collectorId"))?;
        let config =
            object(&format!("{path}.config"), fields.get("config").unwrap_or(&Value::Null))?;
        if let Some(declared) = config.get("secretEnv") {
            check_secret_env(&format!("{path}.config.secretEnv"), declared)?;
        }
        if fields.get("assertions").is_some_and(|assertions| !assertions.is_array()) {
            return Err(invalid(format!("{path}.assertions"), "must be a list"));
        }
        if !seen.insert(fields.get("id")) {
            let rule = "must be different from that of every other collector of its assignment";
            return Err(invalid(format!("{path}.id"), rule));
        }
    }
    Ok(())
}

/// Checks only the shape. `run_secrets` knows what a collector may declare, so a run fails for what is missing and
/// never for what was stored.
fn check_secret_env(path: &str, declared: &Value) -> Result<(), Invalid> {
    for (name, text) in object(path, declared)? {
        if !text.is_string() {
            return Err(invalid(format!("{path}.{}", shown(name)), "must be a text"));
        }
    }
    Ok(())
}

fn check_word(path: &str, name: &str, word: Option<&Value>) -> Result<(), Invalid> {
    let fits = |word: &str| !word.is_empty() && word.chars().count() <= MAX_CHARACTERS;
    if word.and_then(Value::as_str).is_some_and(fits) {
        return Ok(());
    }
    let rule = format!("must be a text of 1 to {MAX_CHARACTERS} characters");
    Err(invalid(format!("{path}.{name}"), rule))
}

fn object<'a>(path: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Invalid> {
    value.as_object().ok_or_else(|| invalid(path, "must be an object"))
}

/// The database cannot store a NUL in a text.
fn check_texts(path: &str, value: &Value) -> Result<(), Invalid> {
    match value {
        Value::String(text) if text.contains('\0') => {
            Err(invalid(path, "must not contain a NUL character"))
        }
        Value::Array(items) => {
            let mut items = items.iter().enumerate();
            items.try_for_each(|(n, item)| check_texts(&format!("{path}[{n}]"), item))
        }
        Value::Object(fields) => fields.iter().try_for_each(|(name, item)| {
            let path = format!("{path}.{}", shown(name));
            match name.contains('\0') {
                true => Err(invalid(path, "must not have a NUL character in its name")),
                false => check_texts(&path, item),
            }
        }),
        _ => Ok(()),
    }
}

/// A name in a path. It comes from the caller, so it is cut and loses its control characters.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(MAX_CHARACTERS).collect()
}

/// Every writer locks the satellite's own row first: a removal waits, and there is no deadlock.
const LOCK: &str = "select from satellites where id = $1 and {within} for no key update";

/// In a statement after the one that waited for the row.
const BEFORE: &str =
    "select version, assignments from satellite_assignments where satellite_id = $1";

/// The registry's history keeps who assigned what.
const REPLACE: &str = "
    with assigned as (
        insert into satellite_assignments (satellite_id, version, assignments)
        values ($1, note_satellite_change($1), $2)
            on conflict (satellite_id) do update
           set version = excluded.version, assignments = excluded.assignments,
               changed_at = excluded.changed_at
        returning version
    )
    insert into registry_changes
           (position, changed_at, satellite_id, action, actor_type, actor_id, before, after)
    select $3, $4, $1, 'assigned', $5, $6, jsonb_build_object('version', $7::bigint),
           jsonb_build_object('version', assigned.version, 'assignments', $2::jsonb)
      from assigned
    returning (after ->> 'version')::bigint";

/// What became of a replacement.
pub enum Replaced {
    /// It is in force, with this version.
    By(i64),
    /// There is no such satellite, or it is out of reach.
    Unknown,
    /// The list in force was not the expected one: nothing was replaced.
    Unexpected,
    /// With those of sets they would be too many: nothing was replaced.
    Invalid(Invalid),
}

/// Replaces a list that has passed [`check`].
pub async fn replace(
    client: &mut Object,
    satellite: SatelliteId,
    list: &Value,
    precondition: Option<&Precondition>,
    Authority { author, selector }: &Authority,
) -> Result<Replaced, tokio_postgres::Error> {
    let transaction = client.transaction().await?;
    let lock = LOCK.replace("{within}", &within::of_row(2));
    let bound = within::bound(selector);
    if transaction.query_opt(&lock, &[&satellite, &bound]).await?.is_none() {
        return Ok(Replaced::Unknown);
    }
    let before = transaction.query_opt(BEFORE, &[&satellite]).await?;
    let (before, was) = match before {
        Some(row) => (row.try_get(0)?, row.try_get::<_, Json<Value>>(1)?.0),
        None => (0, Value::Array(Vec::new())),
    };
    if precondition.is_some_and(|precondition| !precondition.allows(before)) {
        return Ok(Replaced::Unexpected);
    }
    // The log's lock before that of the changes: the change of a description takes them in this order.
    let head = log::transaction::lock_head(&transaction).await?;
    let version = put(&transaction, satellite, list, before, head, &author.actor).await?;
    if let Err(invalid) = in_force::check_length(&transaction, satellite, ROOT).await? {
        return Ok(Replaced::Invalid(invalid));
    }
    let (was, is) = replacement::told((before, &was), (version, list));
    let action = AuditAction::SatelliteAssigned;
    let entry = Entry::of_satellite(author, action, satellite, Some(was), Some(is));
    audit::append(&transaction, &[entry]).await?;
    transaction.commit().await?;
    Ok(Replaced::By(version))
}

/// Replaces the list of version `before` by one that has passed [`check`], and returns the new version. The caller
/// has locked the satellite's row and then the head of the log.
pub async fn put(
    transaction: &Transaction<'_>,
    satellite: SatelliteId,
    list: &Value,
    before: i64,
    (head, now): (Position, OffsetDateTime),
    actor: &Actor,
) -> Result<i64, tokio_postgres::Error> {
    let statement = transaction.prepare_cached(REPLACE).await?;
    let list = Json(list);
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&satellite, &list, &head, &now, &actor.kind.as_str(), &actor.id, &before];
    transaction.query_one(&statement, &parameters).await?.try_get(0)
}

const GET: &str = "
    select coalesce(a.version, 0), coalesce(a.assignments, '[]')
      from satellites s left join satellite_assignments a on a.satellite_id = s.id
     where s.id = $1";

/// The list and its version; `None` for an unknown satellite.
pub async fn get(
    client: &impl GenericClient,
    satellite: SatelliteId,
) -> Result<Option<(i64, Box<RawValue>)>, tokio_postgres::Error> {
    let statement = client.prepare_cached(GET).await?;
    let row = client.query_opt(&statement, &[&satellite]).await?;
    row.map(|row| {
        let Json(list) = row.try_get(1)?;
        Ok((row.try_get(0)?, list))
    })
    .transpose()
}

/// A session that has ended may remain in its pod's table a little longer; it is told nothing.
const OF_SESSION: &str = "
    select e.assignments
      from satellite_connections c join effective_assignments e using (satellite_id)
     where c.satellite_id = $1 and c.session = $2
       and c.last_event not in ('disconnected', 'removed')";

/// The list in force for this session, of its satellite's own assignments and those of sets; `None` if the session has
/// ended.
pub async fn of_session(
    client: &impl GenericClient,
    of: SessionKey,
) -> Result<Option<Value>, tokio_postgres::Error> {
    let statement = client.prepare_cached(OF_SESSION).await?;
    let row = client.query_opt(&statement, &[&of.satellite, &of.session]).await?;
    row.map(|row| row.try_get(0).map(|Json(list)| list)).transpose()
}

const CHANGED: &str = "
    select n, coalesce(e.version, 0), coalesce(e.assignments, '[]')
      from unnest($1::uuid[], $2::bigint[]) with ordinality as known (satellite_id, version, n)
      left join effective_assignments e on e.satellite_id = known.satellite_id
     where coalesce(e.version, 0) <> known.version";

/// Finds which of these satellites have another list in force than the version known of them. Returns the index in
/// `known` and the list.
pub async fn changed(
    client: &impl GenericClient,
    known: &[(SatelliteId, i64)],
) -> anyhow::Result<Vec<(usize, Assigned)>> {
    let (ids, versions): (Vec<_>, Vec<_>) = known.iter().map(|(id, v)| (id.0, *v)).unzip();
    let statement = client.prepare_cached(CHANGED).await?;
    let rows = client.query(&statement, &[&ids, &versions]).await?;
    rows.iter()
        .map(|row| {
            let (n, version): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let Json(list) = row.try_get(2)?;
            Ok((usize::try_from(n - 1)?, Assigned::new(version, list)?))
        })
        .collect()
}

#[cfg(test)]
mod tests;
