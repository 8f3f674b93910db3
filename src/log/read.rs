//! Reading the log, in position order.
//!
//! A read from below the [`horizon`](super::horizon) begins at the horizon: what is older was dropped.

use std::collections::HashMap;

use deadpool_postgres::GenericClient;
use tokio_postgres::Error;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Entry, within};
use crate::contract::wire::Timestamp;
use crate::contract::word::Word;
use crate::domain::access::Selector;
use crate::domain::lifecycle::{Event, Position, Reason, SatelliteId};

/// The most entries one read returns.
pub const MAX_LIMIT: i64 = 1_000;

/// Which entries to read; everything by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this satellite's.
    pub satellite: Option<SatelliteId>,
    /// Only this event.
    pub event: Option<Event>,
    /// Only of satellites that were in this region after it, or, where they were removed, before it.
    pub region: Option<String>,
    /// Recorded at or after.
    pub since: Option<Timestamp>,
    /// Recorded before.
    pub until: Option<Timestamp>,
    /// Only of satellites that are inside now.
    pub within: Selector,
}

const HEAD: &str = "select position from entity_transitions order by position desc limit 1";

/// The newest position; [`Position::ZERO`] for an empty log.
pub async fn head(client: &impl GenericClient) -> Result<Position, Error> {
    let statement = client.prepare_cached(HEAD).await?;
    let row = client.query_opt(&statement, &[]).await?;
    row.map_or(Ok(Position::ZERO), |row| row.try_get(0))
}

const LAST_REASONS: &str = "
    select i.id, last.reason
      from unnest($1::uuid[]) i (id)
      cross join lateral (
          select reason from entity_transitions where entity_id = i.id order by position desc limit 1
      ) last";

/// Why the newest transition of each of these satellites happened.
pub async fn last_reasons(
    client: &impl GenericClient,
    satellites: &[SatelliteId],
) -> Result<HashMap<SatelliteId, Word<Reason>>, Error> {
    let ids: Vec<Uuid> = satellites.iter().map(|satellite| satellite.0).collect();
    let rows = client.query(LAST_REASONS, &[&ids]).await?;
    rows.iter().map(|row| Ok((row.try_get("id")?, row.try_get("reason")?))).collect()
}

const BEYOND: &str = "
    select coalesce(max(newest.position) - $1, 0)::bigint as transitions,
           coalesce(extract(epoch from clock_timestamp() - min(oldest.recorded_at)), 0)::float8 as seconds
      from (select position from entity_transitions
             where position > $1 order by position desc limit 1) newest,
           (select recorded_at from entity_transitions
             where position > $1 order by position limit 1) oldest";

/// What is in the log beyond a position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beyond {
    /// How many transitions.
    pub transitions: i64,
    /// For how long the oldest of them has been there; 0 where there is none.
    pub seconds: f64,
}

/// How much is in the log beyond `after`, and for how long.
pub async fn beyond(client: &impl GenericClient, after: Position) -> Result<Beyond, Error> {
    let statement = client.prepare_cached(BEYOND).await?;
    let row = client.query_one(&statement, &[&after]).await?;
    let seconds: f64 = row.try_get("seconds")?;
    Ok(Beyond { transitions: row.try_get("transitions")?, seconds: seconds.max(0.0) })
}

const AFTER: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
           occurred_at, recorded_at
      from entity_transitions
     where position > $1
     order by position
     limit $2";

/// The entries after `after`, at most `limit` of them (bounded by [`MAX_LIMIT`]).
pub async fn after(
    client: &impl GenericClient,
    after: Position,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    let statement = client.prepare_cached(AFTER).await?;
    let rows = client.query(&statement, &[&after, &limit.clamp(1, MAX_LIMIT)]).await?;
    rows.iter().map(Entry::from_row).collect()
}

const FILTERED: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
           occurred_at, recorded_at
      from entity_transitions
     where position > $1
       and ($3::uuid is null or entity_id = $3)
       and ($4::text is null or event = $4)
       and ($5::timestamptz is null or recorded_at >= $5)
       and ($6::timestamptz is null or recorded_at < $6)
       and ($7::text is null or coalesce(next, prev)->>'region' = $7)
       and {within}
     order by position
     limit $2";

const NEWEST: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
           occurred_at, recorded_at
      from entity_transitions
     where ($1::bigint is null or position < $1)
       and ($3::uuid is null or entity_id = $3)
       and ($4::text is null or event = $4)
       and ($5::timestamptz is null or recorded_at >= $5)
       and ($6::timestamptz is null or recorded_at < $6)
       and ($7::text is null or coalesce(next, prev)->>'region' = $7)
       and {within}
     order by position desc
     limit $2";

/// The entries after `after` that pass the filter, at most `limit` of them (bounded by
/// [`MAX_LIMIT`]).
pub async fn filtered(
    client: &impl GenericClient,
    after: Position,
    limit: i64,
    filter: &Filter,
) -> Result<Vec<Entry>, Error> {
    selected(client, FILTERED, &after, limit, filter).await
}

/// The newest entries before `before`, or of all, that pass the filter, from the newest on; at most `limit` of them
/// (bounded by [`MAX_LIMIT`]).
pub async fn newest(
    client: &impl GenericClient,
    before: Option<Position>,
    limit: i64,
    filter: &Filter,
) -> Result<Vec<Entry>, Error> {
    selected(client, NEWEST, &before, limit, filter).await
}

async fn selected(
    client: &impl GenericClient,
    statement: &str,
    place: &(dyn ToSql + Sync),
    limit: i64,
    filter: &Filter,
) -> Result<Vec<Entry>, Error> {
    let satellite: Option<Uuid> = filter.satellite.map(|satellite| satellite.0);
    let event = filter.event.map(Event::as_str);
    let since = filter.since.map(Timestamp::moment);
    let until = filter.until.map(Timestamp::moment);
    let limit = limit.clamp(1, MAX_LIMIT);
    let bound = within::bound(&filter.within);
    let parameters: [&(dyn ToSql + Sync); 8] =
        [place, &limit, &satellite, &event, &since, &until, &filter.region, &bound];
    let statement =
        statement.replace("{within}", &within::condition("entity_transitions.entity_id", 8));
    // Not cached: the plan is to fit the filters that are there.
    let rows = client.query(&statement, &parameters).await?;
    rows.iter().map(Entry::from_row).collect()
}

const WITHIN: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
           occurred_at, recorded_at
      from entity_transitions
     where position > $1
       and position <= $2
       and ($4::uuid is null or entity_id = $4)
       and ($5::text is null or event = $5)
     order by position
     limit $3";

/// The entries after `after` up to and with `through`, at most `limit` of them (bounded by
/// [`MAX_LIMIT`]). Fewer than `limit` means that there are no more of them up to `through`.
pub async fn within(
    client: &impl GenericClient,
    after: Position,
    through: Position,
    limit: i64,
    satellite: Option<SatelliteId>,
    event: Option<Event>,
) -> Result<Vec<Entry>, Error> {
    let satellite: Option<Uuid> = satellite.map(|satellite| satellite.0);
    let event = event.map(Event::as_str);
    let limit = limit.clamp(1, MAX_LIMIT);
    // Not cached: the plan is to fit the filters that are there.
    let rows = client.query(WITHIN, &[&after, &through, &limit, &satellite, &event]).await?;
    rows.iter().map(Entry::from_row).collect()
}

const OF_SATELLITES: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
           occurred_at, recorded_at
      from entity_transitions
     where entity_id = any($1) and position > $2
     order by position
     limit $3";

/// The entries of these satellites after `after`, at most `limit` of them (bounded by [`MAX_LIMIT`]).
pub async fn of_satellites(
    client: &impl GenericClient,
    satellites: &[Uuid],
    after: Position,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    let limit = limit.clamp(1, MAX_LIMIT);
    let rows = client.query(OF_SATELLITES, &[&satellites, &after, &limit]).await?;
    rows.iter().map(Entry::from_row).collect()
}

const AT_HORIZON: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
           occurred_at, recorded_at
      from transitions_at_horizon
     where $1::uuid is null or entity_id > $1
     order by entity_id
     limit $2";

/// What the log at and below the horizon folded to: of each satellite its newest transition there,
/// by satellite, those behind `after`, at most `limit` of them (bounded by [`MAX_LIMIT`]). None
/// while the log is whole.
pub async fn at_horizon(
    client: &impl GenericClient,
    after: Option<SatelliteId>,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    let after: Option<Uuid> = after.map(|satellite| satellite.0);
    let statement = client.prepare_cached(AT_HORIZON).await?;
    let rows = client.query(&statement, &[&after, &limit.clamp(1, MAX_LIMIT)]).await?;
    rows.iter().map(Entry::from_row).collect()
}
