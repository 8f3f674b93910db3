//! Copies satellites of another system into the registry: their descriptions, their credentials and their
//! assignments, so that their agents need no change.
//!
//! Nothing goes into the log or onto NATS. What the other system last knew of a connection is kept beside the
//! registry, because it is no edge of this system. The first edge of an imported satellite is its first connect here.
//!
//! May be run again. The other system decides until a satellite has connected here or was removed here; from then on
//! this system does.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::{Object, Transaction};
use serde_json::Value;
use time::OffsetDateTime;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use crate::contract::audit::AuditAction;
use crate::contract::wire::Actor;
use crate::contract::word::Word;
use crate::domain::lifecycle::{Event, SatelliteId};
use crate::log;
use crate::log::audit::{self, Author, Entry};
use crate::platform::database::Database;
use crate::platform::token::MAX_BCRYPT_COST;
use crate::registry::assignments::{self, replacement};
use crate::registry::satellites::NewSatellite;

pub(crate) mod checkstack;

/// Satellites in one transaction. The log waits while one is written.
const BATCH: usize = 200;

/// A satellite of the other system, within the limits of this one.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its id, which stays the same.
    pub id: Uuid,
    /// Name, region, tags and threshold.
    pub described: NewSatellite,
    /// The bcrypt hash of its token.
    pub token_hash: TokenHash,
    /// What its agent said that it can do.
    pub capabilities: Vec<String>,
    /// Its agent's version.
    pub version: Option<String>,
    /// The last edge in the other system.
    pub last_event: Option<Event>,
    /// The last heartbeat in the other system.
    pub last_heartbeat_at: Option<OffsetDateTime>,
    /// When it was registered in the other system.
    pub created_at: OffsetDateTime,
    /// What it is to check, as [`assignments::check`] accepted it; none if the other system's tables do not say.
    pub assignments: Option<Value>,
}

/// A bcrypt hash that cannot be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenHash(String);

impl TokenHash {
    /// The accepted forms: `$2a$`, `$2b$` and `$2y$`, a cost from 04 to the highest that is verified here, and 53
    /// characters.
    pub fn parse(text: &str) -> Option<TokenHash> {
        let rest = ["$2a$", "$2b$", "$2y$"].iter().find_map(|form| text.strip_prefix(form))?;
        let (cost, hash) = rest.split_once('$')?;
        let is_number = cost.len() == 2 && cost.bytes().all(|digit| digit.is_ascii_digit());
        let cost_fits = is_number && (4..=MAX_BCRYPT_COST).contains(&cost.parse().ok()?);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '/';
        let fits = cost_fits && hash.len() == 53 && hash.chars().all(plain);
        fits.then(|| TokenHash(text.to_owned()))
    }
}

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// The result for one satellite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Done {
    /// It is registered now.
    Created,
    /// It changed in the other system, and is changed here too.
    Updated,
    /// It is here already, unchanged.
    Unchanged,
    /// It was left alone, for this reason.
    Skipped(&'static str),
}

const CONNECTED: &str = "it has connected here: it is this system's own now";
const REMOVED: &str = "it was removed here";
const NOT_IMPORTED: &str = "a satellite with its id was registered here";

/// Copies them. Calls `tell` with the result of each once it is committed.
pub async fn store(
    database: &Database,
    satellites: &[Known],
    author: &Author,
    mut tell: impl FnMut(&Known, Done),
) -> anyhow::Result<()> {
    for batch in satellites.chunks(BATCH) {
        let store = async |client: &mut Object| {
            let transaction = client.transaction().await?;
            let done = store_batch(&transaction, batch, author).await?;
            transaction.commit().await?;
            Ok::<_, tokio_postgres::Error>(done)
        };
        let done = database.run(store).await.context("cannot write the registry")?;
        for (known, done) in batch.iter().zip(done) {
            tell(known, done);
        }
    }
    Ok(())
}

/// Rows before the log's lock, in id order, as the appender takes them.
const HERE: &str = "
    select s.id, s.name, s.region, s.tags, s.offline_threshold_ms, s.version, s.capabilities, s.created_at,
           i.satellite_id is not null as imported, i.last_event, i.last_heartbeat_at,
           s.token_hash is not distinct from i.token_hash as token_is_theirs,
           i.token_hash as imported_token_hash, i.assignments_version as imported_version
      from satellites s left join satellite_imports i on i.satellite_id = s.id
     where s.id = any($1)
     order by s.id
       for no key update of s";

const CONNECTIONS: &str = "select satellite_id, last_event = 'removed' from satellite_connections where satellite_id = any($1)";

/// In a statement after the one that waited for the rows.
const ASSIGNED: &str = "select satellite_id, version, assignments from satellite_assignments where satellite_id = any($1)";

/// A satellite as it is registered here.
struct Here {
    imported: bool,
    described: NewSatellite,
    about: (Option<String>, Vec<String>, OffsetDateTime),
    there: (Option<Word<Event>>, Option<OffsetDateTime>),
    /// Whether its token is still the copied one.
    token_is_theirs: bool,
    imported_token_hash: Option<TokenHash>,
    /// Its assignments and their version; version 0 if nothing was ever assigned.
    assigned: (i64, Value),
    /// The version that was copied last.
    imported_version: Option<i64>,
}

async fn store_batch(
    transaction: &Transaction<'_>,
    batch: &[Known],
    author: &Author,
) -> Result<Vec<Done>, tokio_postgres::Error> {
    let ids: Vec<Uuid> = batch.iter().map(|known| known.id).collect();
    let mut here = HashMap::new();
    for row in transaction.query(HERE, &[&ids]).await? {
        let Json(tags) = row.try_get("tags")?;
        let described = NewSatellite {
            name: row.try_get("name")?,
            region: row.try_get("region")?,
            tags,
            offline_threshold_ms: row.try_get("offline_threshold_ms")?,
        };
        let imported_token_hash: Option<String> = row.try_get("imported_token_hash")?;
        let satellite = Here {
            imported: row.try_get("imported")?,
            described,
            about: (
                row.try_get("version")?,
                row.try_get("capabilities")?,
                row.try_get("created_at")?,
            ),
            there: (row.try_get("last_event")?, row.try_get("last_heartbeat_at")?),
            token_is_theirs: row.try_get("token_is_theirs")?,
            imported_token_hash: imported_token_hash.map(TokenHash),
            assigned: (0, Value::Array(Vec::new())),
            imported_version: row.try_get("imported_version")?,
        };
        here.insert(row.try_get::<_, Uuid>("id")?, satellite);
    }
    for row in transaction.query(ASSIGNED, &[&ids]).await? {
        if let Some(satellite) = here.get_mut(&row.try_get::<_, Uuid>(0)?) {
            let Json(list) = row.try_get(2)?;
            satellite.assigned = (row.try_get(1)?, list);
        }
    }
    let mut connections: HashMap<Uuid, bool> = HashMap::new();
    for row in transaction.query(CONNECTIONS, &[&ids]).await? {
        connections.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let decided: Vec<Done> = batch
        .iter()
        .map(|known| decide(known, here.get(&known.id), connections.get(&known.id).copied()))
        .collect();
    write(transaction, batch, &decided, &here, author).await?;
    Ok(decided)
}

/// Decides what becomes of a satellite: `here` if it is registered, `removed` if it ever had an edge here.
fn decide(known: &Known, here: Option<&Here>, removed: Option<bool>) -> Done {
    match (here, removed) {
        (_, Some(true)) => Done::Skipped(REMOVED),
        (_, Some(false)) => Done::Skipped(CONNECTED),
        (None, None) => Done::Created,
        (Some(here), None) if !here.imported => Done::Skipped(NOT_IMPORTED),
        (Some(here), None) if here.is(known) => Done::Unchanged,
        (Some(_), None) => Done::Updated,
    }
}

impl Here {
    fn is(&self, known: &Known) -> bool {
        self.described == known.described
            && self.about == (known.version.clone(), known.capabilities.clone(), known.created_at)
            && self.there == (known.last_event.map(Word::Known), known.last_heartbeat_at)
            && self.imported_token_hash.as_ref() == Some(&known.token_hash)
            && self.new_assignments(known).is_none()
    }

    /// The list to copy, if it differs from the present one. A list that was replaced here after it was copied stays.
    fn new_assignments<'a>(&self, known: &'a Known) -> Option<&'a Value> {
        let (version, list) = &self.assigned;
        let is_theirs = *version == self.imported_version.unwrap_or(0);
        known.assignments.as_ref().filter(|theirs| is_theirs && *theirs != list)
    }
}

const WRITE: &str = "
    with satellite as (
        insert into satellites as s (id, name, region, tags, token_hash, offline_threshold_ms,
                                     capabilities, version, created_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict (id) do update
           set name = excluded.name, region = excluded.region, tags = excluded.tags,
               token_hash = case when $10 then excluded.token_hash else s.token_hash end,
               offline_threshold_ms = excluded.offline_threshold_ms,
               capabilities = excluded.capabilities, version = excluded.version,
               created_at = excluded.created_at
        returning id
    )
    insert into satellite_imports (satellite_id, source, token_hash, last_event, last_heartbeat_at, imported_at)
    select id, 'checkstack', $5, $11, $12, $13 from satellite
    on conflict (satellite_id) do update
       set token_hash = excluded.token_hash, last_event = excluded.last_event,
           last_heartbeat_at = excluded.last_heartbeat_at, imported_at = excluded.imported_at";

const NOTE_VERSION: &str =
    "update satellite_imports set assignments_version = $2 where satellite_id = $1";

const REMEMBER: &str = "
    insert into registry_changes
           (position, changed_at, satellite_id, action, actor_type, actor_id, before, after)
    values ($1, $2, $3, $4, $5, $6, $7, $8)";

async fn write(
    transaction: &Transaction<'_>,
    batch: &[Known],
    decided: &[Done],
    here: &HashMap<Uuid, Here>,
    author: &Author,
) -> Result<(), tokio_postgres::Error> {
    if !decided.iter().any(|done| matches!(done, Done::Created | Done::Updated)) {
        return Ok(());
    }
    let (write, remember) =
        (transaction.prepare_cached(WRITE).await?, transaction.prepare_cached(REMEMBER).await?);
    let (head, now) = log::transaction::lock_head(transaction).await?;
    let actor = Actor::checkstack_import();
    let mut entries = Vec::new();
    for (known, done) in batch.iter().zip(decided) {
        let action = match done {
            Done::Created => "created",
            Done::Updated => "updated",
            Done::Unchanged | Done::Skipped(_) => continue,
        };
        let before = here.get(&known.id);
        let parameters: [&(dyn ToSql + Sync); 13] = [
            &known.id,
            &known.described.name,
            &known.described.region,
            &Json(&known.described.tags),
            &known.token_hash.0,
            &known.described.offline_threshold_ms,
            &known.capabilities,
            &known.version,
            &known.created_at,
            &before.is_none_or(|here| here.token_is_theirs),
            &known.last_event.map(Event::as_str),
            &known.last_heartbeat_at,
            &now,
        ];
        transaction.execute(&write, &parameters).await?;
        let (list, version) = match before {
            Some(here) => (here.new_assignments(known), here.assigned.0),
            None => {
                (known.assignments.as_ref().filter(|list| **list != Value::Array(Vec::new())), 0)
            }
        };
        let mut entry = imported(author, known, before);
        if let Some(list) = list {
            let (id, head) = (SatelliteId(known.id), (head, now));
            let version = assignments::put(transaction, id, list, version, head, &actor).await?;
            transaction.execute(NOTE_VERSION, &[&known.id, &version]).await?;
            let none = Value::Array(Vec::new());
            let was = before.map_or((0, &none), |here| (here.assigned.0, &here.assigned.1));
            let (was, is) = replacement::told(was, (version, list));
            for (values, of) in [(&mut entry.before, was), (&mut entry.after, is)] {
                if let Some(values) = values {
                    values["assignments"] = of;
                }
            }
        }
        entries.push(entry);
        // The registry's history has names, tags and thresholds only.
        if before.is_some_and(|here| here.described == known.described) {
            continue;
        }
        let was = before.map(|here| Json(here.described.described()));
        let is = Json(known.described.described());
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&head, &now, &known.id, &action, &actor.kind.as_str(), &actor.id, &was, &is];
        transaction.execute(&remember, &parameters).await?;
    }
    audit::append(transaction, &entries).await
}

/// The entry of the audit for one that is copied: what changes of its description, and whether its token does.
fn imported(author: &Author, known: &Known, before: Option<&Here>) -> Entry {
    let (was, mut is) = match before {
        None => (None, known.described.described()),
        Some(here) => {
            let (was, is) =
                audit::changed(&here.described.described(), &known.described.described());
            (Some(was), is)
        }
    };
    let has_its_token = |here: &Here| {
        !here.token_is_theirs || here.imported_token_hash.as_ref() == Some(&known.token_hash)
    };
    is["tokenCopied"] = Value::Bool(!before.is_some_and(has_its_token));
    let id = SatelliteId(known.id);
    Entry::of_satellite(author, AuditAction::SatelliteImported, id, was, Some(is))
}

/// How long any statement in the other database may take.
pub(crate) const SOURCE_TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to the other database, for reads only. Blocking.
pub(crate) fn connect(from: &str) -> anyhow::Result<postgres::Client> {
    let address = crate::platform::database::Address::parse("--from", from)?;
    let mut client = address.connect_blocking()?;
    let settings = format!(
        "set default_transaction_read_only = on; set statement_timeout = {}",
        SOURCE_TIMEOUT.as_millis()
    );
    client.batch_execute(&settings).context("cannot prepare the other database's session")?;
    Ok(client)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_accepted_forms_of_a_hash_are_those_of_bcrypt() {
        let tail = "C5yFDCdJ9bpPgF8MIqBKMO1IrYwobQF5oAiHKmrr8lmCV6bfNbgUW";
        for form in ["2a", "2b", "2y"] {
            assert!(TokenHash::parse(&format!("${form}$10${tail}")).is_some(), "{form}");
        }
        assert!(TokenHash::parse(&format!("$2b$14${tail}")).is_some());
        let refused = [
            "",
            "$2b$",
            &format!("$2x$10${tail}"),
            &format!("$2b$03${tail}"),
            &format!("$2b$15${tail}"),
            &format!("$2b$32${tail}"),
            &format!("$2b$1${tail}"),
            &format!("$2b$+5${tail}"),
            &format!("$2b$10${}", &tail[1..]),
            &format!("$2b$10${tail}x"),
            &format!("$2b$10$-{}", &tail[1..]),
            "$argon2id$v=19$m=65536,t=2,p=1$abc$def",
        ];
        for text in refused {
            assert!(TokenHash::parse(text).is_none(), "{text}");
        }
        let hash = TokenHash::parse(&format!("$2b$10${tail}"));
        assert!(!format!("{hash:?}").contains(tail));
    }

    fn known(name: &str) -> Known {
        let hash = format!("$2b$10${}", "x".repeat(53));
        Known {
            id: Uuid::nil(),
            described: NewSatellite {
                name: name.to_owned(),
                region: "eu".to_owned(),
                tags: BTreeMap::new(),
                offline_threshold_ms: None,
            },
            token_hash: TokenHash::parse(&hash).expect("a hash"),
            capabilities: Vec::new(),
            version: None,
            last_event: None,
            last_heartbeat_at: None,
            created_at: OffsetDateTime::UNIX_EPOCH,
            assignments: None,
        }
    }

    #[test]
    fn the_other_system_has_its_say_until_a_satellite_has_an_edge_here() {
        let there = known("a");
        let here = |imported: bool, name: &str| Here {
            imported,
            described: known(name).described,
            about: (None, Vec::new(), OffsetDateTime::UNIX_EPOCH),
            there: (None, None),
            token_is_theirs: true,
            imported_token_hash: Some(there.token_hash.clone()),
            assigned: (0, serde_json::json!([])),
            imported_version: None,
        };
        let cases = [
            (None, None, Done::Created),
            (None, Some(true), Done::Skipped(REMOVED)),
            (Some(here(true, "a")), None, Done::Unchanged),
            (Some(here(true, "b")), None, Done::Updated),
            (Some(here(true, "b")), Some(false), Done::Skipped(CONNECTED)),
            (Some(here(false, "b")), None, Done::Skipped(NOT_IMPORTED)),
        ];
        for (here, removed, expected) in cases {
            assert_eq!(decide(&there, here.as_ref(), removed), expected);
        }
    }

    #[test]
    fn assignments_follow_the_other_system_until_they_are_replaced_here() {
        let there = |list| Known { assignments: list, ..known("a") };
        let here = |assigned, imported_version| Here {
            imported: true,
            described: known("a").described,
            about: (None, Vec::new(), OffsetDateTime::UNIX_EPOCH),
            there: (None, None),
            token_is_theirs: true,
            imported_token_hash: Some(known("a").token_hash),
            assigned,
            imported_version,
        };
        let (one, two, none) =
            (serde_json::json!([1]), serde_json::json!([2]), serde_json::json!([]));
        let cases = [
            ((0, none.clone()), None, Some(&one), Some(&one)),
            ((0, none.clone()), None, Some(&none), None),
            ((0, none.clone()), None, None, None),
            ((7, one.clone()), Some(7), Some(&one), None),
            ((7, one.clone()), Some(7), Some(&two), Some(&two)),
            ((9, one.clone()), Some(7), Some(&two), None),
            ((9, one.clone()), None, Some(&two), None),
        ];
        for (assigned, imported, list, expected) in cases {
            let satellite = here(assigned.clone(), imported);
            let known = there(list.cloned());
            assert_eq!(satellite.new_assignments(&known), expected, "{assigned:?} {imported:?}");
        }
    }
}
