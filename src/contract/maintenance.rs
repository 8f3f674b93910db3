//! The JSON of maintenance windows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoStaticStr};
use utoipa::ToSchema;
use uuid::Uuid;

use super::wire::{Actor, Timestamp};
use super::word::Word;

/// Which satellites a window is for: those of which all that is named holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = MaintenanceSelector)]
pub struct MaintenanceSelectorJson {
    /// Only these; at most 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 1000)]
    pub ids: Option<Vec<Uuid>>,
    /// Only those in this region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200)]
    pub region: Option<String>,
    /// Only those with all of these tags; at most 64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// How far a window has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum WindowState {
    /// It has not begun.
    Planned,
    /// It goes on.
    Open,
    /// It has ended, or was ended before it began.
    Over,
}

impl WindowState {
    /// The word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A maintenance window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MaintenanceWindow)]
pub struct WindowJson {
    /// Its id, which edges name.
    pub id: Uuid,
    /// Which satellites it is for; absent where that is the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<MaintenanceSelectorJson>,
    /// When it begins.
    pub from: Timestamp,
    /// When it was planned to end.
    pub to: Timestamp,
    /// Why.
    pub reason: String,
    /// `planned`, `open` or `over`, by the database's clock.
    #[schema(value_type = String)]
    pub state: Word<WindowState>,
    /// When it was ended before its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When it was planned.
    pub created_at: Timestamp,
    /// Who planned it.
    pub created_by: Actor,
}

/// A page of windows.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = MaintenancePage)]
pub struct WindowsJson {
    /// The one that begins latest first.
    pub windows: Vec<WindowJson>,
    /// Where the next page begins; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
