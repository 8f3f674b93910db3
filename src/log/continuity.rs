//! Whether the log is still the one that this pod knows.
//!
//! A database goes back to an earlier point when it fails over to a standby that lacks the newest commits, or when it
//! is restored while pods run. A pod remembers numbers from after that point: sessions, changes, positions. The
//! database gives the same numbers out again for other things. What waits for the next number then waits for the
//! wrong one, and nobody can tell which remembered numbers still mean the same. So a pod that finds this ends and
//! starts anew with what is there. Twice a second it checks that the newest transition it saw is still the same, and
//! that no change number has gone down.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use tokio::time::MissedTickBehavior;
use tokio_postgres::Error;
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use crate::platform::database::Database;

/// Time between two checks.
const INTERVAL: Duration = Duration::from_millis(500);

/// What a pod remembers of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// The newest transition; none in an empty log.
    newest: Option<(i64, Uuid)>,
    /// The newest change of a desired state.
    change: i64,
    /// The newest change of the registry.
    registry_change: i64,
}

/// Something the pod remembers is gone from the database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the database went back to an earlier point: {0}")]
pub struct WentBack(String);

const LOOK: &str = "
    select newest.position, newest.change_id,
           (select change_id from entity_transitions where position = $1) as known,
           (select coalesce(max(past_position), 1) - 1 from transition_partitions
             where dropped_at is not null) as horizon,
           (select coalesce(max(change), 0) from satellite_changes) as change,
           (select coalesce(max(change), 0) from registry_changes) as registry_change
      from (values (true)) one
      left join lateral (
          select position, change_id from entity_transitions order by position desc limit 1
      ) newest on true";

/// Checks until told to stop; returns early only if the database went back.
pub async fn watch(database: Database, stop: CancellationToken) -> Option<WentBack> {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = None;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return None,
        }
        match database.run(async |client| compare(client, known).await).await {
            Ok(Ok(now)) => known = Some(now),
            Ok(Err(went_back)) => return Some(went_back),
            // The probe reports it when the database is away.
            Err(error) => debug!(%error, "cannot compare with the database"),
        }
    }
}

async fn compare(
    client: &impl GenericClient,
    known: Option<Known>,
) -> Result<Result<Known, WentBack>, Error> {
    let newest = known.and_then(|known| known.newest);
    let position = newest.map_or(0, |(position, _)| position);
    let statement = client.prepare_cached(LOOK).await?;
    let row = client.query_one(&statement, &[&position]).await?;
    let head: Option<i64> = row.try_get("position")?;
    let now = Known {
        newest: head.zip(row.try_get("change_id")?),
        change: row.try_get("change")?,
        registry_change: row.try_get("registry_change")?,
    };
    let there: Option<Uuid> = row.try_get("known")?;
    let is_dropped = position <= row.try_get("horizon")?;
    let Some(known) = known else { return Ok(Ok(now)) };
    let lost = match newest {
        Some((_, change)) if there != Some(change) && !is_dropped => {
            format!("position {position} is no longer the transition it was")
        }
        _ if now.change < known.change => {
            format!("change {} of the desired states is gone", known.change)
        }
        _ if now.registry_change < known.registry_change => {
            format!("change {} of the registry is gone", known.registry_change)
        }
        _ => return Ok(Ok(now)),
    };
    Ok(Err(WentBack(lost)))
}
