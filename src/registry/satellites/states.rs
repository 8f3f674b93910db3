//! The states of many satellites in one read.

use std::collections::BTreeMap;
use std::time::Duration;

use deadpool_postgres::GenericClient;
use uuid::Uuid;

use super::{SHOWN, from_row};
use crate::contract::wire::{SatelliteJson, StateJson};
use crate::domain::lifecycle::SatelliteId;

/// The most satellites one read may name.
pub const MAX_NAMED: usize = 1_000;

const STATES: &str = "select {shown} from satellites_now s where s.id = any($1)";

/// The present state of each of these satellites. Satellites that are not registered or have never connected are left
/// out.
pub async fn states(
    client: &impl GenericClient,
    satellites: &[SatelliteId],
    default: Duration,
) -> Result<BTreeMap<Uuid, StateJson>, tokio_postgres::Error> {
    let ids: Vec<Uuid> = satellites.iter().map(|satellite| satellite.0).collect();
    let statement = client.prepare_cached(&STATES.replace("{shown}", SHOWN)).await?;
    let rows = client.query(&statement, &[&ids]).await?;
    let mut states = BTreeMap::new();
    for row in rows {
        let satellite = from_row(&row, default)?;
        let id = satellite.id;
        states.extend(state(satellite).map(|state| (id, state)));
    }
    Ok(states)
}

fn state(satellite: SatelliteJson) -> Option<StateJson> {
    Some(StateJson {
        // Only a satellite that has connected has a last event.
        last_event: Some(satellite.last_event?),
        status: satellite.status,
        name: satellite.name,
        region: satellite.region,
        last_seen_at: satellite.last_seen_at,
        flapping: satellite.flapping,
        flapping_until: None,
    })
}
