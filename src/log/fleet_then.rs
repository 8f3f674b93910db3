//! The fleet as it was, selected by the words that the present is selected by: a page of it, and its counts.
//!
//! Of each satellite its newest transition then, and the description in force then. The projection has a row for each
//! satellite that ever had an edge: it says which there are, and nothing else is taken from it.

use deadpool_postgres::GenericClient;
use tokio_postgres::Error;
use tokio_postgres::types::{Json, ToSql};

use super::Entry;
use super::disabled_then;
use super::history::{AsOf, NoAnswer, Record, satellite_then, still_there};
use super::listed::{self, Behind};
use super::read::MAX_LIMIT;
use super::within;
use crate::contract::fleet::{Counts, RegionCounts};
use crate::contract::wire::SatelliteJson;
use crate::domain::lifecycle::Event;
use crate::domain::selection::{Order, Place, Selection};

/// The satellites there were, as `s`, those that are selected. Its parameters are $1 to $10. The columns of the log are
/// named, because a later migration may add one while this program runs, and one of any name.
const THEN: &str = "
    with past as (
        select t.*, c.satellite_id as id, t.next->>'status' as status,
               coalesce(r.after->>'name', t.next->>'name') as name,
               coalesce(r.after->>'region', t.next->>'region') as region,
               coalesce(r.after->'tags', '{}') as tags,
               is_flapping((t.next->>'flappingUntil')::timestamptz, $2) as flapping,
               coalesce((t.next->>'lastSeenAt')::timestamptz, '-infinity') as last_seen_at,
               r.after, registered.at as registered_at
          from satellite_connections c
          cross join lateral (
              select * from (
                  (select position, revision, change_id, entity_id, event, reason, session, prev, next,
                          actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
                          occurred_at, recorded_at
                     from entity_transitions e
                    where e.entity_id = c.satellite_id and e.position <= $1
                    order by e.position desc limit 1)
                  union all
                  select position, revision, change_id, entity_id, event, reason, session, prev, next,
                         actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
                         occurred_at, recorded_at
                    from transitions_at_horizon h where h.entity_id = c.satellite_id
              ) last order by last.position desc limit 1
          ) t
          left join lateral (
              select r.after from registry_changes r
               where r.satellite_id = c.satellite_id and r.action in ('created', 'updated')
                 and r.position <= $1 and r.changed_at <= $2
               order by r.change desc limit 1
          ) r on true
          left join lateral (
              select min(r.changed_at) as at from registry_changes r
               where r.satellite_id = c.satellite_id and r.action = 'created'
          ) registered on true
         where t.next is not null
    ), s as (
        select * from past
         where ($3::text is null or region = $3)
           and tags @> all ($4::jsonb[])
           and ($5::text is null or strpos(without_case(name), without_case($5)) > 0)
           and ($6::text is null or status = $6)
           and ($7::text is null or next->>'lastEvent' = $7)
           and ($8::bool is null or flapping = $8)
           and ($9::float8 is null or (status <> 'online'
                and coalesce((next->>'lastSeenAt')::timestamptz, occurred_at)
                    <= $2 - make_interval(secs => $9)))
           and {within}
    )";

/// Which they are is found first, and then what they were: a sort of whole states goes to the disk.
const LIST: &str = "
    with found as materialized (
        {then}
        select s.id from s where {behind} order by {order} limit $11 offset $12
    )
    select s.* from (
        {then}
        select s.* from s where s.id = any (array(select found.id from found))
    ) s
    order by {order}";

const BY_ID: &str = "
    {then}
    select s.* from s where ($13::uuid is null or s.id > $13) order by s.id limit $11 offset $12";

const COUNT: &str = "
    {then}
    select s.region, count(*) as total, count(*) filter (where s.status = 'online') as online,
           count(*) filter (where s.flapping) as flapping
      from s group by s.region";

const COLUMNS: listed::Columns = listed::Columns {
    name: "s.name",
    id: "s.id",
    region: "s.region",
    created_at: "date_trunc('milliseconds', coalesce(s.registered_at, s.occurred_at))",
    last_seen_at: "case when s.status = 'online' then timestamptz 'infinity'
                        else date_trunc('milliseconds', s.last_seen_at) end",
};

/// The statement with the satellites there were in it.
fn with_then(statement: &str) -> String {
    statement.replace("{then}", THEN).replace("{within}", &within::condition("past.id", 10))
}

/// The parameters $1 to $10.
struct Parameters<'a> {
    as_of: AsOf,
    selection: &'a Selection,
    tags: Vec<Json<std::collections::BTreeMap<&'a str, &'a str>>>,
    status: Option<&'static str>,
    last_event: Option<&'static str>,
    inactive: Option<f64>,
    bound: Option<Json<serde_json::Value>>,
}

impl<'a> Parameters<'a> {
    fn new(as_of: AsOf, selection: &'a Selection) -> Parameters<'a> {
        Parameters {
            as_of,
            selection,
            tags: listed::tags(selection),
            status: selection.status.map(|status| status.as_str()),
            last_event: selection.last_event.map(Event::as_str),
            inactive: selection.inactive_for.map(|span| span.as_secs_f64()),
            bound: within::bound(&selection.within),
        }
    }

    fn all(&self) -> Vec<&(dyn ToSql + Sync)> {
        vec![
            &self.as_of.position,
            &self.as_of.moment,
            &self.selection.region,
            &self.tags,
            &self.selection.text,
            &self.status,
            &self.last_event,
            &self.selection.flapping,
            &self.inactive,
            &self.bound,
        ]
    }
}

/// In which order a page is, and behind what it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// By id, behind this one.
    Id(Option<uuid::Uuid>),
    /// In another order, behind this place.
    Place(Order, Option<Place>),
}

/// A page of the fleet then, of those that are selected, `skip` of them behind where it begins; at most `limit`
/// (bounded by [`MAX_LIMIT`]).
pub async fn page(
    client: &impl GenericClient,
    as_of: AsOf,
    selection: &Selection,
    begin: &Begin,
    skip: i64,
    limit: i64,
) -> Result<Vec<SatelliteJson>, NoAnswer> {
    let (selected, limit) = (Parameters::new(as_of, selection), limit.clamp(1, MAX_LIMIT));
    let mut parameters = selected.all();
    let bounds: [&(dyn ToSql + Sync); 2] = [&limit, &skip];
    parameters.extend(bounds);
    let rows = match begin {
        Begin::Id(after) => {
            parameters.push(after);
            client.query(&with_then(BY_ID), &parameters).await?
        }
        Begin::Place(order, after) => {
            let behind = Behind::new(after.as_ref(), *order);
            parameters.extend(behind.parameters());
            let statement = listed::in_order(&with_then(LIST), *order, &COLUMNS, 13);
            client.query(&statement, &parameters).await?
        }
    };
    let satellites =
        rows.iter().map(|row| satellite(row, as_of)).collect::<Result<Vec<_>, Error>>()?;
    let mut satellites: Vec<SatelliteJson> = satellites.into_iter().flatten().collect();
    disabled_then::mark(client, &mut satellites, (as_of.position, as_of.moment)).await?;
    still_there(client, as_of).await?;
    Ok(satellites)
}

fn satellite(row: &tokio_postgres::Row, as_of: AsOf) -> Result<Option<SatelliteJson>, Error> {
    let entry = Entry::from_row(row)?;
    let after: Option<Json<serde_json::Value>> = row.try_get("after")?;
    let registered_at: Option<time::OffsetDateTime> = row.try_get("registered_at")?;
    let record = after.zip(registered_at).map(|(Json(after), created_at)| Record {
        id: entry.satellite.0,
        created_at,
        after,
    });
    Ok(satellite_then(entry, record.as_ref(), as_of))
}

/// Counts those that are selected then, by region.
pub async fn count(
    client: &impl GenericClient,
    as_of: AsOf,
    selection: &Selection,
) -> Result<Vec<RegionCounts>, NoAnswer> {
    let selected = Parameters::new(as_of, selection);
    let rows = client.query(&with_then(COUNT), &selected.all()).await?;
    still_there(client, as_of).await?;
    let counted = rows.iter().map(|row| {
        let (total, online): (i64, i64) = (row.try_get("total")?, row.try_get("online")?);
        let flapping = row.try_get("flapping")?;
        let offline = total - online;
        let counts = Counts { total, online, offline, flapping, ..Counts::default() };
        Ok(RegionCounts { region: row.try_get("region")?, counts })
    });
    Ok(counted.collect::<Result<_, Error>>()?)
}
