use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::transition::Status;

/// All satellites that had connected by a position, as they were then.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fleet {
    /// The position.
    pub position: i64,
    /// Whether transitions that the caller has not handled are dropped: what happened between its place and this
    /// position is known only by its outcome. False at a first start.
    pub after_a_gap: bool,
    /// The satellites.
    pub satellites: Vec<Satellite>,
}

/// A satellite of a fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Satellite {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Online or offline.
    pub status: Status,
}
