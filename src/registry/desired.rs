//! The desired state of a satellite: whether it is registered and let in, with which token and name, how long it may be
//! silent, and what it is to check. One statement reads all of it, so one change number covers all of it.

use deadpool_postgres::{GenericClient, Object};
use serde_json::value::RawValue;
use tokio_postgres::Error;
use tokio_postgres::types::Json;
use tracing::warn;
use uuid::Uuid;

use crate::domain::lifecycle::{SatelliteId, Session};
use crate::platform::batch_loader::Read;
use crate::registry::assignment_sets::ALL_SETS;
use crate::registry::assignments::Assigned;

/// What administrators want of a satellite, as of one change of it.
#[derive(Debug, Clone)]
pub struct DesiredState {
    /// The newest change of this satellite, or of any set of assignments, that it contains; of two desired states the
    /// greater is the newer.
    pub change: i64,
    /// Which of its tokens is valid; none once it is removed.
    pub token_version: Option<i64>,
    /// The token before it, while that is valid too.
    pub previous_token: Option<i64>,
    /// It is not let in.
    pub disabled: bool,
    /// Administrators have ended its sessions up to this one.
    pub ended_session: Option<Session>,
    /// "name (region)", for the receivers of its results.
    pub label: String,
    /// Its own offline threshold, if it has one.
    pub threshold_ms: Option<i64>,
    /// What it is to check: its own list and the sets that are for it.
    pub assigned: Assigned,
    /// The version of the list that it was last known to be sent.
    pub sent_version: Option<i64>,
}

const READ: &str = "
    select i.id, coalesce(greatest(n.change, sets.change), 0) as change, s.token_version, p.token_version as previous_token,
           coalesce(s.disabled, false) as disabled, s.ended_session, s.name, s.region, s.offline_threshold_ms,
           s.sent_version, coalesce(e.version, 0) as version, coalesce(e.assignments, '[]') as assignments
      from unnest($1::uuid[]) as i (id)
      left join satellite_changes n on n.satellite_id = i.id
      left join satellite_changes sets on sets.satellite_id = $2
      left join satellites s on s.id = i.id
      left join previous_tokens p on p.satellite_id = s.id and p.token_version = s.token_version - 1
      left join effective_assignments e on e.satellite_id = i.id";

/// The desired states of these satellites. A satellite whose list cannot be read is left out; the others are not.
pub async fn read(
    client: &impl GenericClient,
    satellites: &[SatelliteId],
) -> Result<Vec<(SatelliteId, DesiredState)>, Error> {
    let ids: Vec<Uuid> = satellites.iter().map(|id| id.0).collect();
    let statement = client.prepare_cached(READ).await?;
    let rows = client.query(&statement, &[&ids, &ALL_SETS]).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let satellite: SatelliteId = row.try_get("id")?;
        let name: Option<&str> = row.try_get("name")?;
        let region: Option<&str> = row.try_get("region")?;
        let Json(list): Json<Box<RawValue>> = row.try_get("assignments")?;
        let assigned = match Assigned::new(row.try_get("version")?, list) {
            Ok(assigned) => assigned,
            Err(error) => {
                warn!(%satellite, %error, "its stored assignments cannot be read");
                continue;
            }
        };
        let desired_state = DesiredState {
            change: row.try_get("change")?,
            token_version: row.try_get("token_version")?,
            previous_token: row.try_get("previous_token")?,
            disabled: row.try_get("disabled")?,
            ended_session: row.try_get("ended_session")?,
            label: format!("{} ({})", name.unwrap_or_default(), region.unwrap_or_default()),
            threshold_ms: row.try_get("offline_threshold_ms")?,
            assigned,
            sent_version: row.try_get("sent_version")?,
        };
        found.push((satellite, desired_state));
    }
    Ok(found)
}

impl Read for DesiredState {
    async fn read(
        client: &Object,
        satellites: &[SatelliteId],
    ) -> anyhow::Result<Vec<(SatelliteId, DesiredState)>> {
        Ok(read(client, satellites).await?)
    }
}

const AFTER: &str = "
    select satellite_id, change from satellite_changes where change > $1 order by change limit $2";

/// The satellites changed after this change, at most `limit`, each with its newest change, in the order of the
/// changes.
pub async fn changed_after(
    client: &impl GenericClient,
    change: i64,
    limit: i64,
) -> Result<Vec<(SatelliteId, i64)>, Error> {
    let statement = client.prepare_cached(AFTER).await?;
    let rows = client.query(&statement, &[&change, &limit]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

const NEWEST: &str = "select coalesce(max(change), 0) from satellite_changes";

/// The newest change of all satellites.
pub async fn newest_change(client: &impl GenericClient) -> Result<i64, Error> {
    let statement = client.prepare_cached(NEWEST).await?;
    client.query_one(&statement, &[]).await?.try_get(0)
}
