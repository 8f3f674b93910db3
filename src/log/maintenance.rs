//! Which satellites are in maintenance, now and at any moment of the past.
//!
//! Reads the table `maintenance_windows`, which [`crate::registry::maintenance`] writes. A window selects satellites by what
//! the registry says of them, as it stands at the moment in question. Where several windows have a satellite, the one that
//! began first counts, and of those that began at once the one with the smallest id. Windows are neither moved nor
//! deleted, and none begins before it is planned: so a moment that is past has one answer for ever.
//!
//! With no window there is nothing to look at: each statement here then ends after one look at an index.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;
use time::OffsetDateTime;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use crate::contract::wire::{InMaintenanceJson, SatelliteJson, Timestamp};
use crate::domain::marks::MaintenanceId;

/// A window that has a satellite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Which.
    pub window: MaintenanceId,
    /// When it begins.
    pub from: OffsetDateTime,
    /// When it ends.
    pub until: OffsetDateTime,
}

impl Span {
    /// Whether it goes on at this moment.
    fn holds(&self, moment: OffsetDateTime) -> bool {
        self.from <= moment && moment < self.until
    }
}

/// The window that marks what happens to a satellite at this moment, of those that have it, in the order of their begins.
pub fn at(spans: &[Span], moment: OffsetDateTime) -> Option<MaintenanceId> {
    spans.iter().find(|span| span.holds(moment)).map(|span| span.window)
}

/// A loss counts from when it was due, and may be found after its window is over: it is marked all the same where the
/// window ended no longer ago than this.
macro_rules! found_later {
    () => {
        "interval '1 hour'"
    };
}

/// In a statement after the one that locked the satellites: it sees them as they are.
pub(super) const OF_LOCKED: &str = concat!(
    "
    select s.id as satellite, w.id, w.begins_at, w.ends_at
      from maintenance_windows w
      join satellites s
        on s.id = any($1) and is_selected(w.ids, w.region, w.tags, s.id, s.region, s.tags)
     where exists (select from maintenance_windows o where o.ends_at > statement_timestamp() - ",
    found_later!(),
    ")
       and w.begins_at <= statement_timestamp() and w.ends_at > statement_timestamp() - ",
    found_later!(),
    "
     order by w.begins_at, w.id"
);

/// A row of [`OF_LOCKED`].
pub(super) fn of_locked(row: &Row) -> Result<(Uuid, Span), Error> {
    Ok((row.try_get("satellite")?, span(row)?))
}

fn span(row: &Row) -> Result<Span, Error> {
    let (from, until) = (row.try_get("begins_at")?, row.try_get("ends_at")?);
    Ok(Span { window: row.try_get("id")?, from, until })
}

/// Whether the satellite `s`, as a statement knows its `id`, `region` and `tags`, is in maintenance at a moment. Where no
/// window goes on then, no satellite is looked at.
pub fn condition(moment: &str) -> String {
    let goes_on = format!("begins_at <= {moment} and ends_at > {moment}");
    format!(
        "(case when (select exists (select from maintenance_windows where {goes_on}))
               then exists (select from maintenance_windows w
                             where {goes_on} and is_selected(w.ids, w.region, w.tags, s.id, s.region, s.tags))
               else false end)"
    )
}

const OF_SHOWN: &str = "
    select s.id as satellite, w.id, w.ends_at, w.reason
      from (select coalesce($4, statement_timestamp()) as moment) now
      cross join unnest($1::uuid[], $2::text[], $3::jsonb[]) s (id, region, tags)
      cross join lateral (
          select w.id, w.ends_at, w.reason
            from maintenance_windows w
           where w.begins_at <= now.moment and w.ends_at > now.moment
             and is_selected(w.ids, w.region, w.tags, s.id, s.region, s.tags)
           order by w.begins_at, w.id
           limit 1
      ) w
     where exists (select from maintenance_windows o
                    where o.begins_at <= coalesce($4, statement_timestamp())
                      and o.ends_at > coalesce($4, statement_timestamp()))";

/// Marks those of a page that are in maintenance at this moment, or now; the page says what they are, or were then.
pub async fn mark(
    client: &impl GenericClient,
    satellites: &mut [SatelliteJson],
    moment: Option<OffsetDateTime>,
) -> Result<(), Error> {
    if satellites.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = satellites.iter().map(|satellite| satellite.id).collect();
    let regions: Vec<&str> = satellites.iter().map(|satellite| &*satellite.region).collect();
    let tags: Vec<_> = satellites.iter().map(|satellite| Json(&satellite.tags)).collect();
    let parameters: [&(dyn ToSql + Sync); 4] = [&ids, &regions, &tags, &moment];
    let statement = client.prepare_cached(OF_SHOWN).await?;
    let rows = client.query(&statement, &parameters).await?;
    let mut windows: HashMap<Uuid, InMaintenanceJson> = HashMap::with_capacity(rows.len());
    for row in &rows {
        let until = Timestamp::new(row.try_get("ends_at")?);
        let (id, reason) = (row.try_get("id")?, row.try_get("reason")?);
        windows.insert(row.try_get("satellite")?, InMaintenanceJson { id, reason, until });
    }
    for satellite in satellites {
        satellite.maintenance = windows.remove(&satellite.id);
    }
    Ok(())
}

/// A satellite is selected by what the registry's history says of it at the time: each description holds until the next,
/// or until the satellite was removed.
const DURING: &str = "
    select d.satellite_id as satellite, greatest(w.begins_at, d.since) as begins_at,
           least(w.ends_at, d.until) as ends_at
      from maintenance_windows w
      join (select r.satellite_id, r.after, r.changed_at as since,
                   lead(r.changed_at, 1, 'infinity') over (partition by r.satellite_id order by r.change) as until
              from registry_changes r
             where r.satellite_id = any($1) and r.action in ('created', 'updated', 'removed')) d
        on is_selected(w.ids, w.region, w.tags, d.satellite_id, d.after->>'region', d.after->'tags')
       and w.begins_at < d.until and w.ends_at > d.since
     where exists (select from maintenance_windows o where o.begins_at < $3 and o.ends_at > $2)
       and w.begins_at < $3 and w.ends_at > $2
     order by begins_at";

/// When each of these satellites was in maintenance between two moments: in order, one span after another.
pub async fn during(
    client: &impl GenericClient,
    satellites: &[Uuid],
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<HashMap<Uuid, Vec<(OffsetDateTime, OffsetDateTime)>>, Error> {
    let mut spans: HashMap<Uuid, Vec<(OffsetDateTime, OffsetDateTime)>> = HashMap::new();
    for row in client.query(DURING, &[&satellites, &from, &to]).await? {
        let (begin, end): (OffsetDateTime, OffsetDateTime) =
            (row.try_get("begins_at")?, row.try_get("ends_at")?);
        let spans = spans.entry(row.try_get("satellite")?).or_default();
        match spans.last_mut() {
            Some((_, last)) if begin <= *last => *last = end.max(*last),
            _ if begin < end => spans.push((begin, end)),
            _ => {}
        }
    }
    Ok(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn of_several_windows_the_one_that_began_first_counts_while_it_goes_on() {
        let second = |n: i64| datetime!(2026-03-01 12:00 UTC) + time::Duration::seconds(n);
        let span = |n: u128, from: i64, until: i64| Span {
            window: MaintenanceId(Uuid::from_u128(n)),
            from: second(from),
            until: second(until),
        };
        let spans = [span(1, 0, 10), span(2, 5, 20), span(3, 5, 30)];
        for (moment, window) in
            [(-1, None), (0, Some(1)), (9, Some(1)), (10, Some(2)), (20, Some(3)), (30, None)]
        {
            let found = at(&spans, second(moment)).map(|window| window.0.as_u128());
            assert_eq!(found, window, "{moment}");
        }
    }
}
