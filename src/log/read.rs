//! Reading the log, in position order.

use deadpool_postgres::GenericClient;
use tokio_postgres::Error;
use uuid::Uuid;

use super::Entry;
use crate::lifecycle::{Event, Position, SatelliteId};
use crate::wire::Timestamp;

/// The most entries one read returns.
pub const MAX_LIMIT: i64 = 1_000;

/// Which entries to read; everything by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this satellite's.
    pub satellite: Option<SatelliteId>,
    /// Only this event.
    pub event: Option<Event>,
    /// Recorded at or after.
    pub since: Option<Timestamp>,
    /// Recorded before.
    pub until: Option<Timestamp>,
}

const HEAD: &str = "select position from entity_transitions order by position desc limit 1";

/// The newest position; [`Position::ZERO`] for an empty log.
pub async fn head(client: &impl GenericClient) -> Result<Position, Error> {
    let statement = client.prepare_cached(HEAD).await?;
    let row = client.query_opt(&statement, &[]).await?;
    row.map_or(Ok(Position::ZERO), |row| row.try_get(0).map(Position))
}

const HORIZON: &str = "select min(first_position) from transition_partitions";

/// The first position the log can have: what was before it was dropped, whole partitions at a
/// time. A row at or after it that is not there was taken by somebody.
pub async fn horizon(client: &impl GenericClient) -> Result<Position, Error> {
    let statement = client.prepare_cached(HORIZON).await?;
    let row = client.query_one(&statement, &[]).await?;
    Ok(Position(row.try_get::<_, Option<i64>>(0)?.unwrap_or(1)))
}

const AFTER: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, occurred_at, recorded_at
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
    let rows = client.query(&statement, &[&after.0, &limit.clamp(1, MAX_LIMIT)]).await?;
    rows.iter().map(Entry::from_row).collect()
}

const FILTERED: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, occurred_at, recorded_at
      from entity_transitions
     where position > $1
       and ($3::uuid is null or entity_id = $3)
       and ($4::text is null or event = $4)
       and ($5::timestamptz is null or recorded_at >= $5)
       and ($6::timestamptz is null or recorded_at < $6)
     order by position
     limit $2";

/// The entries after `after` that pass the filter, at most `limit` of them (bounded by
/// [`MAX_LIMIT`]).
pub async fn filtered(
    client: &impl GenericClient,
    after: Position,
    limit: i64,
    filter: &Filter,
) -> Result<Vec<Entry>, Error> {
    let satellite: Option<Uuid> = filter.satellite.map(|satellite| satellite.0);
    let event = filter.event.map(Event::as_str);
    let since = filter.since.map(Timestamp::moment);
    let until = filter.until.map(Timestamp::moment);
    // Not cached: the plan is to fit the filters that are there.
    let rows = client
        .query(
            FILTERED,
            &[&after.0, &limit.clamp(1, MAX_LIMIT), &satellite, &event, &since, &until],
        )
        .await?;
    rows.iter().map(Entry::from_row).collect()
}
