//! Which satellites were disabled at an earlier moment, by the registry's history.

use std::collections::HashSet;

use deadpool_postgres::GenericClient;
use time::OffsetDateTime;
use tokio_postgres::Error;
use uuid::Uuid;

use crate::contract::wire::SatelliteJson;
use crate::domain::lifecycle::Position;

/// The newest of the changes that say it. An id that was removed and registered again begins anew.
const DISABLED: &str = "
    select newest.satellite_id from (
        select distinct on (r.satellite_id) r.satellite_id, r.action
          from registry_changes r
         where r.satellite_id = any($1) and r.action in ('created', 'disabled', 'enabled')
           and r.position <= $2 and r.changed_at <= $3
         order by r.satellite_id, r.change desc
    ) newest
     where newest.action = 'disabled'";

/// Marks those of a page that were disabled right after this position, at this moment.
pub(super) async fn mark(
    client: &impl GenericClient,
    satellites: &mut [SatelliteJson],
    (position, moment): (Position, OffsetDateTime),
) -> Result<(), Error> {
    let ids: Vec<Uuid> = satellites.iter().map(|satellite| satellite.id).collect();
    let rows = client.query(DISABLED, &[&ids, &position, &moment]).await?;
    let disabled: HashSet<Uuid> =
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, Error>>()?;
    for satellite in satellites {
        satellite.disabled = disabled.contains(&satellite.id);
    }
    Ok(())
}
