//! Satellites that are to have been registered at a moment of the past, before the log's first transition: for
//! `groundstation dev`, see [`crate::log::made_past`].

use postgres::Transaction;
use time::OffsetDateTime;
use tokio_postgres::types::Json;

use super::satellites::{CREATE, NewSatellite};
use crate::contract::wire::Actor;
use crate::domain::lifecycle::{Position, SatelliteId};
use crate::platform::token::Digest;

/// Registers a satellite with this token as of then.
pub fn register(
    transaction: &mut Transaction<'_>,
    id: SatelliteId,
    new: &NewSatellite,
    token: &Digest,
    at: OffsetDateTime,
) -> Result<(), postgres::Error> {
    let actor = Actor::demonstration();
    transaction.execute(
        CREATE,
        &[
            &id,
            &new.name,
            &new.region,
            &Json(&new.tags),
            &token.to_stored(),
            &new.offline_threshold_ms,
            &Position::ZERO,
            &at,
            &actor.kind.as_str(),
            &actor.id,
        ],
    )?;
    Ok(())
}
