//! The list in force of a satellite: its own assignments and those of the sets that are for it.
//!
//! The database merges them whenever they are asked for (`effective_assignments`), in one place. Here is what of it
//! nobody stores: who has another list than a version says, what a list is made of, and whether it is too long. Whatever
//! can make a list longer asks that before it commits: another list of its own, a set, another region, other tags.

use deadpool_postgres::{GenericClient, Transaction};
use serde_json::Value;
use tokio_postgres::types::Json;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::satellites::Invalid;
use crate::contract::assignments::{EffectiveAssignment, EffectiveAssignments};
use crate::domain::access::Selector;
use crate::domain::lifecycle::SatelliteId;

/// The most assignments of one satellite, its own and those of sets together; so no list and no set has more.
pub const MAX_ASSIGNMENTS: usize = 500;

const OUTDATED: &str = "
    select known.satellite_id
      from unnest($1::uuid[], $2::bigint[]) as known (satellite_id, version)
      join effective_assignments e using (satellite_id)
     where e.version <> known.version";

/// Which of these satellites have another list in force than that of the version known of them. Merges nothing.
pub async fn outdated(
    client: &impl GenericClient,
    known: &[(SatelliteId, i64)],
) -> Result<Vec<SatelliteId>, Error> {
    let (ids, versions): (Vec<_>, Vec<_>) = known.iter().map(|(id, v)| (id.0, *v)).unzip();
    let statement = client.prepare_cached(OUTDATED).await?;
    let rows = client.query(&statement, &[&ids, &versions]).await?;
    rows.iter().map(|row| row.try_get(0)).collect()
}

/// All in one statement: of one moment.
const SHOW: &str = "
    select e.version, s.sent_version, m.assignment, m.set_name
      from satellites s
      join effective_assignments e on e.satellite_id = s.id
      left join satellite_assignments a on a.satellite_id = s.id
      left join lateral merged_assignments(s.region, s.tags, coalesce(a.assignments, '[]')) m on true
     where s.id = $1
     order by m.place";

/// The list in force, with where each assignment comes from; none for an unknown satellite.
pub async fn show(
    client: &impl GenericClient,
    satellite: SatelliteId,
) -> Result<Option<EffectiveAssignments>, Error> {
    let rows = client.query(SHOW, &[&satellite]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let assignments = rows.iter().filter_map(|row| assignment(row).transpose());
    Ok(Some(EffectiveAssignments {
        desired_version: first.try_get("version")?,
        applied_version: first.try_get("sent_version")?,
        assignments: assignments.collect::<Result<_, _>>()?,
    }))
}

fn assignment(row: &Row) -> Result<Option<EffectiveAssignment>, Error> {
    let found: Option<Json<Value>> = row.try_get("assignment")?;
    let set = row.try_get("set_name")?;
    Ok(found.map(|Json(assignment)| EffectiveAssignment { set, assignment }))
}

/// In a statement after the change, and under the lock that it has taken: neither it nor a set changes any more.
const TOO_LONG: &str = "
    select s.id, s.name, jsonb_array_length(e.assignments) as count,
           (select string_agg(t.name, ', ' order by t.name collate \"C\")
              from assignment_sets t where is_selected(t.region, t.tags, s.region, s.tags)) as sets
      from satellites s
      join effective_assignments e on e.satellite_id = s.id
     where s.id = $1 and jsonb_array_length(e.assignments) > $2";

/// Refuses what has made the list of a satellite too long; `field` is what was changed.
pub async fn check_length(
    transaction: &Transaction<'_>,
    satellite: SatelliteId,
    field: &str,
) -> Result<Result<(), Invalid>, Error> {
    let row = transaction.query_opt(TOO_LONG, &[&satellite, &as_int(MAX_ASSIGNMENTS)]).await?;
    let Some(row) = row else { return Ok(Ok(())) };
    let sets: Option<String> = row.try_get("sets")?;
    let count: i32 = row.try_get("count")?;
    let rule = format!(
        "must leave satellite {} with at most {MAX_ASSIGNMENTS} assignments, its own and those of the sets that are for \
         it then ({}): they would be {count}",
        named(&row)?,
        sets.unwrap_or_default(),
    );
    Ok(Err(Invalid { field: field.to_owned(), rule }))
}

/// Every other change of a satellite waits meanwhile. So only own lists are looked at that leave too little room, and
/// lists are merged only where the sum is beyond the limit: most satellites are far below it.
const TOO_LONG_OF: &str = "
    select s.id, s.name, jsonb_array_length(e.assignments) as count
      from satellites s
      join satellite_assignments a on a.satellite_id = s.id
     cross join lateral (
           select sum(t.count) as count from assignment_sets t
            where is_selected(t.region, t.tags, s.region, s.tags)) sets
      join effective_assignments e on e.satellite_id = s.id
     where is_selected($1, $2, s.region, s.tags) and jsonb_array_length(a.assignments) > $4
       and case when jsonb_array_length(a.assignments) + sets.count > $3::int
                then jsonb_array_length(e.assignments) > $3::int else false end
     limit 1";

/// Refuses a set that has made the list of any satellite too long. With it no satellite has more than `of_sets` of sets.
pub async fn check_lengths(
    transaction: &Transaction<'_>,
    set: &str,
    selector: &Selector,
    of_sets: usize,
) -> Result<Result<(), Invalid>, Error> {
    let (region, tags, most) = (&selector.region, Json(&selector.tags), as_int(MAX_ASSIGNMENTS));
    let room = as_int(MAX_ASSIGNMENTS.saturating_sub(of_sets));
    let row = transaction.query_opt(TOO_LONG_OF, &[region, &tags, &most, &room]).await?;
    let Some(row) = row else { return Ok(Ok(())) };
    let count: i32 = row.try_get("count")?;
    let rule = format!(
        "must leave every satellite that {set} is for with at most {MAX_ASSIGNMENTS}, its own and those of sets together: \
         satellite {} would have {count}",
        named(&row)?,
    );
    Ok(Err(Invalid { field: "assignments".to_owned(), rule }))
}

fn named(row: &Row) -> Result<String, Error> {
    let (id, name): (Uuid, String) = (row.try_get("id")?, row.try_get("name")?);
    Ok(format!("{name:?} ({id})"))
}

fn as_int(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
