//! Sets of assignments for a region or tags, beside the satellites' own lists: checked, stored and read.
//!
//! Owns the tables `assignment_sets`, `left_selectors` and `assignment_set_changes`. What a satellite is to check follows
//! from the sets that select it whenever it is asked (`effective_assignments`): nothing of a set is stored with a
//! satellite. Sets are changed one after another, under the lock that numbers all changes of satellites, and a change is
//! noted under an id that no satellite has ([`ALL_SETS`]): pods hear of it as of any other.

use deadpool_postgres::{GenericClient, Object, Transaction};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Error, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use super::assignments::{self, MAX_BYTES};
use super::in_force::{self, MAX_ASSIGNMENTS};
use super::precondition::Precondition;
use super::satellites::{Invalid, invalid};
use super::selector;
use crate::contract::assignments::{Assignment, AssignmentSetJson};
use crate::contract::audit::AuditAction;
use crate::contract::tokens::SelectorJson;
use crate::contract::wire::Timestamp;
use crate::domain::access::Selector;
use crate::domain::lifecycle::SatelliteId;
use crate::domain::together::{self, Heaviest};
use crate::log::audit::{self, Author, Entry};

/// Under which the newest change of any set is noted.
pub const ALL_SETS: SatelliteId = SatelliteId(Uuid::nil());

/// The most sets: each is looked at for each satellite that connects.
pub const MAX_SETS: usize = 100;

/// The most selectors that are kept of what sets selected before.
const MAX_LEFT: i64 = 100;

const MAX_NAME: usize = 100;

/// The greatest priority; the least is the same below zero.
const MAX_PRIORITY: i64 = 1_000;

/// What a body may name; what is only told may be sent back.
const FIELDS: [&str; 7] =
    ["selector", "assignments", "priority", "name", "version", "changedAt", "count"];

/// A set as it is sent.
#[derive(Deserialize, ToSchema)]
#[schema(as = NewAssignmentSet)]
#[expect(dead_code, reason = "a shape for the API's description; `NewSet::check` decides")]
pub struct NewSetShape {
    /// Which satellites it is for: those of which all that it names holds. Without it the whole fleet; one that names
    /// nothing is refused.
    #[schema(nullable = false)]
    selector: Option<SelectorJson>,
    /// All its assignments, checked as a satellite's own. Sets that can be for the same satellite have at most 500
    /// together, and 512 KiB; and no satellite has more than 500, its own and those of sets together.
    #[schema(max_items = 500)]
    assignments: Vec<Assignment>,
    /// The greater one wins over other sets; 0 where it is absent.
    #[schema(minimum = -1000, maximum = 1000, default = 0, nullable = false)]
    priority: Option<i32>,
}

/// A set that has passed [`NewSet::check`].
#[derive(Debug)]
pub struct NewSet {
    name: String,
    selector: Selector,
    priority: i32,
    assignments: Value,
}

impl NewSet {
    /// Checks every limit but those of all sets together; the error names the field.
    pub fn check(name: &str, sent: Value) -> Result<NewSet, Invalid> {
        check_name(name)?;
        let Value::Object(mut fields) = sent else {
            return Err(invalid("body", "must be an object with the field assignments"));
        };
        // A selector by a wrong name would leave the whole fleet selected.
        if let Some(unknown) = fields.keys().find(|field| !FIELDS.contains(&field.as_str())) {
            let shown: String = unknown.chars().filter(|c| !c.is_control()).take(64).collect();
            let rule = "must not be there: a set has selector, assignments and priority";
            return Err(invalid(shown, rule));
        }
        if fields.get("name").is_some_and(|sent| sent.as_str() != Some(name)) {
            return Err(invalid("name", "must be the one in the path, or absent"));
        }
        let selector: Option<Map<String, Value>> = match fields.remove("selector") {
            None => None,
            Some(Value::Object(named)) => Some(named),
            Some(_) => return Err(invalid("selector", "must be an object")),
        };
        let priority = fields.remove("priority").map_or(Some(0), |sent| sent.as_i64());
        let priority = priority.filter(|sent| (-MAX_PRIORITY..=MAX_PRIORITY).contains(sent));
        let priority = priority.and_then(|sent| i32::try_from(sent).ok()).ok_or_else(|| {
            let rule = format!("must be a whole number from -{MAX_PRIORITY} to {MAX_PRIORITY}");
            invalid("priority", rule)
        })?;
        Ok(NewSet {
            name: name.to_owned(),
            selector: selector::check(selector)?,
            priority,
            assignments: assignments::check(Value::Object(fields))?,
        })
    }

    /// Which satellites it is to be for.
    pub fn selector(&self) -> &Selector {
        &self.selector
    }

    fn count(&self) -> usize {
        self.assignments.as_array().map_or(0, Vec::len)
    }

    fn bytes(&self) -> usize {
        self.assignments.to_string().len()
    }

    /// What the sets that can be for one satellite with this one come to decides, whatever satellites there are: so no
    /// satellite that is registered, or changed, later can have too many.
    fn check_with(&self, others: &[Stored]) -> Result<(), Invalid> {
        let others = || others.iter().filter(|other| other.name != self.name);
        if others().count() >= MAX_SETS {
            return Err(invalid(
                "name",
                format!("must be that of a set: there are {MAX_SETS}, the most"),
            ));
        }
        let sums = [
            (MAX_ASSIGNMENTS, "assignments", self.count(), Stored::count as fn(&Stored) -> usize),
            (MAX_BYTES, "bytes of assignments", self.bytes(), Stored::bytes),
        ];
        for (most, what, own, of) in sums {
            let all = self.weighed(own, others().map(|other| (&other.selector, of(other))));
            let rule = match together::heaviest(&all, most) {
                Heaviest::Within => continue,
                Heaviest::Beyond(which) => {
                    let which = which.into_iter().filter_map(|n| n.checked_sub(1));
                    let names = which.filter_map(|n| others().nth(n)).map(|set| set.name.as_str());
                    let names = names.collect::<Vec<_>>().join(", ");
                    format!(
                        "must have at most {most} {what} together with those of the sets that can be for the same satellite: {names}"
                    )
                }
                Heaviest::Unknown => format!(
                    "must have at most {most} {what} together with those of other sets: their selectors combine in too many ways to say"
                ),
            };
            return Err(invalid("assignments", rule));
        }
        Ok(())
    }

    /// The most assignments that a satellite can have of this one and others together.
    fn most_with(&self, others: &[Stored]) -> usize {
        let others = others.iter().filter(|other| other.name != self.name);
        let others = others.map(|other| (&other.selector, other.count()));
        together::most(&self.weighed(self.count(), others), MAX_ASSIGNMENTS)
    }

    fn weighed<'a>(
        &'a self,
        own: usize,
        others: impl Iterator<Item = (&'a Selector, usize)>,
    ) -> Vec<(&'a Selector, usize)> {
        std::iter::once((&self.selector, own)).chain(others).collect()
    }
}

/// The name is part of a path, and sets are ordered by it: it has no other form.
pub fn check_name(name: &str) -> Result<(), Invalid> {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.len() <= MAX_NAME
        && name.starts_with(is_word)
        && name.chars().all(|c| is_word(c) || ['-', '_', '.'].contains(&c));
    if fits {
        return Ok(());
    }
    let rule = format!(
        "must have 1 to {MAX_NAME} lower-case letters, digits, hyphens, underscores and dots, and begin with a letter or digit"
    );
    Err(invalid("name", rule))
}

/// A set that is there, without its assignments.
struct Stored {
    name: String,
    selector: Selector,
    count: i32,
    bytes: i32,
    version: i64,
    /// It says what is to be stored already.
    is_same: bool,
}

impl Stored {
    fn count(&self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX)
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }
}

/// What became of a change.
pub enum Put {
    /// It is as it was to be, with this version.
    As(Box<AssignmentSetJson>),
    /// It breaks a limit with others: nothing was changed.
    Invalid(Invalid),
    /// Another set is called so, which the caller does not reach.
    NameOfAnother,
    /// The set was not the expected one: nothing was changed.
    Unexpected,
}

/// Held to the commit, so that numbers grow in commit order and the sets do not change meanwhile.
const LOCK: &str =
    "select pg_advisory_xact_lock(hashtextextended('groundstation: satellite_changes', 0))";

/// In a statement after the one that waited for the lock.
const LOOK: &str = "
    select name, region, tags, count, bytes, version,
           name = $1 and region is not distinct from $2 and tags = $3 and priority = $4 and assignments = $5 as is_same
      from assignment_sets";

const NUMBER: &str = "select note_satellite_change($1)";

/// The history keeps who did it.
const STORE: &str = "
    with stored as (
        insert into assignment_sets as s (name, region, tags, priority, assignments, count, bytes, version)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
            on conflict (name) do update
           set region = excluded.region, tags = excluded.tags, priority = excluded.priority,
               assignments = excluded.assignments, count = excluded.count, bytes = excluded.bytes,
               version = excluded.version, changed_at = excluded.changed_at
    )
    insert into assignment_set_changes (name, action, version, actor_type, actor_id, stored)
    values ($1, 'stored', $8, $9, $10,
            jsonb_build_object('region', $2::text, 'tags', $3::jsonb, 'priority', $4::int, 'assignments', $5::jsonb))";

/// Stores a set, in the place of the one of this name, if there is one within `reach`. One that is the same already
/// stays as it is, and no satellite hears of it.
pub async fn put(
    client: &mut Object,
    new: &NewSet,
    precondition: Option<&Precondition>,
    reach: &Selector,
    author: &Author,
) -> Result<Put, Error> {
    let transaction = client.transaction().await?;
    transaction.execute(LOCK, &[]).await?;
    let (tags, list) = (Json(&new.selector.tags), Json(&new.assignments));
    let region = &new.selector.region;
    let parameters: [&(dyn ToSql + Sync); 5] = [&new.name, region, &tags, &new.priority, &list];
    let rows = transaction.query(LOOK, &parameters).await?;
    let stored = rows.iter().map(stored_from).collect::<Result<Vec<_>, _>>()?;
    let before = stored.iter().find(|set| set.name == new.name);
    if before.is_some_and(|set| !reach.covers(&set.selector)) {
        return Ok(Put::NameOfAnother);
    }
    let version = before.map_or(0, |set| set.version);
    if precondition.is_some_and(|precondition| !precondition.allows(version)) {
        return Ok(Put::Unexpected);
    }
    if !before.is_some_and(|set| set.is_same) {
        if let Err(invalid) = new.check_with(&stored) {
            return Ok(Put::Invalid(invalid));
        }
        let number: i64 = transaction.query_one(NUMBER, &[&ALL_SETS]).await?.try_get(0)?;
        if let Some(before) = before.filter(|set| set.selector != new.selector) {
            leave(&transaction, &before.selector, number).await?;
        }
        let (count, bytes) = (as_int(new.count()), as_int(new.bytes()));
        let kind = author.actor.kind.as_str();
        let parameters: [&(dyn ToSql + Sync); 10] = [
            &new.name,
            region,
            &tags,
            &new.priority,
            &list,
            &count,
            &bytes,
            &number,
            &kind,
            &author.actor.id,
        ];
        transaction.execute(STORE, &parameters).await?;
        let of_sets = new.most_with(&stored);
        let checked =
            in_force::check_lengths(&transaction, &new.name, &new.selector, of_sets).await?;
        if let Err(invalid) = checked {
            return Ok(Put::Invalid(invalid));
        }
        let was = before.map(|set| told(&set.selector, set.version));
        let is = told(&new.selector, number);
        audit::append(
            &transaction,
            &[entry(author, AuditAction::SetReplaced, &new.name, was, Some(is))],
        )
        .await?;
    }
    let set = from_row(&transaction.query_one(GET, &[&new.name]).await?)?;
    transaction.commit().await?;
    Ok(Put::As(Box::new(set)))
}

/// What the audit keeps of a set: for whom it is, and not what it has checked.
fn told(selector: &Selector, version: i64) -> Value {
    serde_json::json!({"region": selector.region, "tags": selector.tags, "version": version})
}

fn entry(
    author: &Author,
    action: AuditAction,
    name: &str,
    before: Option<Value>,
    after: Option<Value>,
) -> Entry {
    let target = audit::target("set", name.to_owned());
    Entry { author: author.clone(), action, target, before, after }
}

/// Both are within their limits.
fn as_int(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn stored_from(row: &Row) -> Result<Stored, Error> {
    Ok(Stored {
        name: row.try_get("name")?,
        selector: selector_of(row)?,
        count: row.try_get("count")?,
        bytes: row.try_get("bytes")?,
        version: row.try_get("version")?,
        is_same: row.try_get("is_same")?,
    })
}

fn selector_of(row: &Row) -> Result<Selector, Error> {
    let Json(tags) = row.try_get("tags")?;
    Ok(Selector { region: row.try_get("region")?, tags })
}

const FORGET: &str = "
    delete from left_selectors where region is not distinct from $1 and tags = $2";

const LEAVE: &str = "insert into left_selectors (region, tags, change) values ($1, $2, $3)";

const LEFT: &str = "select count(*) from left_selectors";

/// Whoever is selected by one of many that were left counts as changed once more, which does no harm and is rare.
const MERGE: &str = "delete from left_selectors";

/// Keeps that a selector does not select any more since this change.
async fn leave(
    transaction: &Transaction<'_>,
    selector: &Selector,
    change: i64,
) -> Result<(), Error> {
    let (region, tags) = (&selector.region, Json(&selector.tags));
    transaction.execute(FORGET, &[region, &tags]).await?;
    let left: i64 = transaction.query_one(LEFT, &[]).await?.try_get(0)?;
    if left < MAX_LEFT {
        return transaction.execute(LEAVE, &[region, &tags, &change]).await.map(drop);
    }
    transaction.execute(MERGE, &[]).await?;
    let (region, tags) = (None::<String>, Json(Map::new()));
    transaction.execute(LEAVE, &[&region, &tags, &change]).await.map(drop)
}

/// What became of a deletion.
pub enum Deleted {
    /// It is gone, since this change.
    At(i64),
    /// There is no such set within reach.
    Unknown,
    /// The set was not the expected one: nothing was changed.
    Unexpected,
}

const FIND: &str = "select region, tags, version from assignment_sets where name = $1";

const DELETE: &str = "
    with deleted as (delete from assignment_sets where name = $1)
    insert into assignment_set_changes (name, action, version, actor_type, actor_id)
    values ($1, 'deleted', $2, $3, $4)";

/// Deletes a set within `reach`.
pub async fn delete(
    client: &mut Object,
    name: &str,
    precondition: Option<&Precondition>,
    reach: &Selector,
    author: &Author,
) -> Result<Deleted, Error> {
    let transaction = client.transaction().await?;
    transaction.execute(LOCK, &[]).await?;
    let Some(row) = transaction.query_opt(FIND, &[&name]).await? else {
        return Ok(Deleted::Unknown);
    };
    let selector = selector_of(&row)?;
    if !reach.covers(&selector) {
        return Ok(Deleted::Unknown);
    }
    let version: i64 = row.try_get("version")?;
    if precondition.is_some_and(|precondition| !precondition.allows(version)) {
        return Ok(Deleted::Unexpected);
    }
    let number: i64 = transaction.query_one(NUMBER, &[&ALL_SETS]).await?.try_get(0)?;
    leave(&transaction, &selector, number).await?;
    let kind = author.actor.kind.as_str();
    transaction.execute(DELETE, &[&name, &number, &kind, &author.actor.id]).await?;
    let was = told(&selector, version);
    audit::append(&transaction, &[entry(author, AuditAction::SetDeleted, name, Some(was), None)])
        .await?;
    transaction.commit().await?;
    Ok(Deleted::At(number))
}

const GET: &str = "
    select name, region, tags, priority, version, changed_at, count, assignments
      from assignment_sets where name = $1";

/// A set within `reach`, with its assignments.
pub async fn get(
    client: &impl GenericClient,
    name: &str,
    reach: &Selector,
) -> Result<Option<AssignmentSetJson>, Error> {
    let Some(row) = client.query_opt(GET, &[&name]).await? else { return Ok(None) };
    if !reach.covers(&selector_of(&row)?) {
        return Ok(None);
    }
    from_row(&row).map(Some)
}

const LIST: &str = "
    select name, region, tags, priority, version, changed_at, count, null::jsonb as assignments
      from assignment_sets order by name collate \"C\"";

/// All sets within `reach`, by name, without their assignments.
pub async fn list(
    client: &impl GenericClient,
    reach: &Selector,
) -> Result<Vec<AssignmentSetJson>, Error> {
    let mut sets = Vec::new();
    for row in client.query(LIST, &[]).await? {
        if reach.covers(&selector_of(&row)?) {
            sets.push(from_row(&row)?);
        }
    }
    Ok(sets)
}

fn from_row(row: &Row) -> Result<AssignmentSetJson, Error> {
    let list: Option<Json<Vec<Value>>> = row.try_get("assignments")?;
    Ok(AssignmentSetJson {
        name: row.try_get("name")?,
        selector: SelectorJson::told(selector_of(row)?),
        priority: row.try_get("priority")?,
        version: row.try_get("version")?,
        changed_at: Timestamp::new(row.try_get("changed_at")?),
        count: row.try_get("count")?,
        assignments: list.map(|Json(list)| list),
    })
}

#[cfg(test)]
mod tests;
