//! A page of the fleet, as it is or was.

use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::selection::cursor_behind;
use crate::contract::wire::SatelliteJson;
use crate::domain::lifecycle::Position;
use crate::domain::selection::Order;
use crate::registry::satellites::MAX_LIMIT;

/// A page of the fleet.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SatellitePage)]
pub struct Page {
    /// In the order asked for; else by name and id, or by id where they are as of the past.
    satellites: Vec<SatelliteJson>,
    /// Where the next page starts; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
    /// The position this page is as of; absent for the present.
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<i64>,
}

impl Page {
    /// Those that were found, at most one more than `limit`.
    pub fn of(mut satellites: Vec<SatelliteJson>, order: Order, limit: i64) -> Page {
        let found = satellites.len() as i64;
        let is_full = found > limit || found == MAX_LIMIT;
        satellites.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let last = satellites.last().filter(|_| is_full);
        let next_cursor = last.map(|last| cursor_behind(last, order));
        Page { satellites, next_cursor, position: None }
    }

    /// As of a position.
    pub fn at_position(self, position: Position) -> Page {
        Page { position: Some(position.0), ..self }
    }

    /// Those that were found by id, and the id that the next page begins behind.
    pub fn by_id(satellites: Vec<SatelliteJson>, next: Option<Uuid>) -> Page {
        Page { satellites, next_cursor: next.map(|id| id.to_string()), position: None }
    }
}
