//! Reading the log as it was at an earlier position or moment.
//!
//! The newest transition of a satellite may be below the horizon: it is remembered, so whoever asks
//! from the horizon on gets the whole fleet.

use deadpool_postgres::GenericClient;
use time::OffsetDateTime;
use tokio_postgres::Error;
use uuid::Uuid;

use super::Entry;
use super::read::MAX_LIMIT;
use crate::domain::lifecycle::{Position, SatelliteId};

/// Waits until no append is under way: whatever is appended after this is recorded after it.
pub async fn settle(client: &impl GenericClient) -> Result<(), Error> {
    // In a statement of its own, so that the lock goes as soon as it was granted.
    client.execute(SETTLE, &[]).await.map(drop)
}

const SETTLE: &str = "
    select pg_advisory_xact_lock_shared(hashtextextended('groundstation: entity_transitions', 0))";

const RECORDED_AT: &str = "select recorded_at from entity_transitions where position = $1";

const OLDEST: &str = "select position from entity_transitions order by position limit 1";

/// The oldest position that is still in the log; none for an empty log.
pub async fn oldest(client: &impl GenericClient) -> Result<Option<Position>, Error> {
    let row = client.query_opt(OLDEST, &[]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// The newest position recorded at or before `moment`, found by halving: positions are dense and
/// `recorded_at` never goes back along them. `None` when the oldest one left was recorded later.
pub async fn position_at(
    client: &impl GenericClient,
    moment: OffsetDateTime,
) -> Result<Option<Position>, Error> {
    let Some(oldest) = oldest(client).await? else {
        return Ok(None);
    };
    let statement = client.prepare_cached(RECORDED_AT).await?;
    let head = super::read::head(client).await?;
    // Everything below `known` was recorded at or before the moment, everything from `above` on
    // after it.
    let (mut known, mut above) = (oldest.0, head.0 + 1);
    while known < above {
        let middle = known + (above - known) / 2;
        let row = client.query_opt(&statement, &[&middle]).await?;
        let recorded: Option<OffsetDateTime> = row.map(|row| row.try_get(0)).transpose()?;
        // One that is gone was dropped meanwhile, for its age.
        let is_known = recorded.is_none_or(|recorded| recorded <= moment);
        if is_known { known = middle + 1 } else { above = middle }
    }
    Ok((known > oldest.0).then_some(Position(known - 1)))
}

const LAST_OF_EACH: &str = "
    select * from (
        select distinct on (entity_id)
               position, revision, change_id, entity_id, event, reason, session, prev, next,
               actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
               occurred_at, recorded_at
          from remembered_transitions
         where position <= $1 and entity_id > $2
         order by entity_id, position desc
    ) newest
     where next is not null
     order by entity_id
     limit $3 offset $4";

/// The last entry at or before `position` of each satellite that was there then, by id, `skip` of
/// them after `after`, at most `limit` (bounded by [`MAX_LIMIT`]).
pub async fn last_of_each(
    client: &impl GenericClient,
    position: Position,
    after: Uuid,
    skip: i64,
    limit: i64,
) -> Result<Vec<Entry>, Error> {
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&position, &after, &limit.clamp(1, MAX_LIMIT), &skip];
    client.query(LAST_OF_EACH, &parameters).await?.iter().map(Entry::from_row).collect()
}

const LAST_OF: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
           occurred_at, recorded_at
      from remembered_transitions
     where position <= $1 and entity_id = $2
     order by position desc
     limit 1";

/// The last entry at or before `position` of one satellite.
pub async fn last_of(
    client: &impl GenericClient,
    position: Position,
    satellite: SatelliteId,
) -> Result<Option<Entry>, Error> {
    let row = client.query_opt(LAST_OF, &[&position, &satellite]).await?;
    row.map(|row| Entry::from_row(&row)).transpose()
}

/// When the newest edge of the satellite `s.id` happened, for statements about the present that need it of few.
pub const LAST_EDGE_AT: &str = "
    (select t.occurred_at from remembered_transitions t
      where t.entity_id = s.id order by t.position desc limit 1)";

const LAST_CHANGE: &str = "
    select position, revision, change_id, entity_id, event, reason, session, prev, next,
           actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
           occurred_at, recorded_at
      from remembered_transitions
     where entity_id = $1 and prev -> $2 is distinct from next -> $2
     order by position desc
     limit 1";

/// The newest entry in which a field of one satellite's state changed.
pub async fn last_change(
    client: &impl GenericClient,
    satellite: SatelliteId,
    field: &str,
) -> Result<Option<Entry>, Error> {
    let row = client.query_opt(LAST_CHANGE, &[&satellite, &field]).await?;
    row.map(|row| Entry::from_row(&row)).transpose()
}
