//! The JSON of sets of assignments, and of what comes of them for a satellite.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::tokens::SelectorJson;
use super::wire::Timestamp;

/// A set of assignments, as the API shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = AssignmentSet)]
pub struct AssignmentSetJson {
    /// Its name.
    pub name: String,
    /// Which satellites it is for; absent where that is the whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<SelectorJson>,
    /// Of two sets with the same pair of config and system, that with the greater one counts; of two alike the first by name.
    pub priority: i32,
    /// The change that made it as it is. A satellite that it is for has a list of this version or a greater one.
    pub version: i64,
    /// When that was.
    pub changed_at: Timestamp,
    /// How many assignments it has.
    pub count: i32,
    /// All of them; absent where many sets are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<crate::registry::assignments::Assignment>>, nullable = false)]
    pub assignments: Option<Vec<Value>>,
}

/// What a satellite is to check, of its own list and of all sets together, and which of its lists it was sent.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EffectiveAssignments)]
pub struct EffectiveAssignments {
    /// The version of this list; 0: there never was one.
    pub desired_version: i64,
    /// The version that a pod last handed to the satellite's socket; absent before the first. Agents confirm nothing: that
    /// it arrived, and that it is in use, nobody knows. Written within a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub applied_version: Option<i64>,
    /// In the order in which they are sent: its own first, then those of sets, the greatest priority first.
    #[schema(max_items = 500)]
    pub assignments: Vec<EffectiveAssignment>,
}

/// An assignment in force, and where it comes from.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EffectiveAssignment {
    /// The set that it comes from; absent where it is the satellite's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub set: Option<String>,
    /// As the satellite is sent it.
    #[schema(value_type = crate::registry::assignments::Assignment)]
    pub assignment: Value,
}
