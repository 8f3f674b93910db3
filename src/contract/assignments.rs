//! The JSON of assignments, of sets of them, and of what comes of both for a satellite.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::tokens::SelectorJson;
use super::wire::Timestamp;

/// One thing a satellite is to check.
#[derive(Deserialize, ToSchema, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "a shape for descriptions; the registry checks what is sent")]
pub struct Assignment {
    /// Unlike that of every other assignment of the satellite on the same system.
    #[schema(min_length = 1, max_length = 200)]
    config_id: String,
    /// What is checked.
    #[schema(min_length = 1, max_length = 200)]
    system_id: String,
    /// How it is checked.
    #[schema(min_length = 1, max_length = 200)]
    strategy_id: String,
    /// Whatever the strategy wants to know.
    #[schema(value_type = Object)]
    #[schemars(with = "Map<String, Value>")]
    config: Value,
    /// How often.
    #[schema(minimum = 1, maximum = 604_800)]
    interval_seconds: i64,
    /// What is collected besides; at most 50.
    #[schema(value_type = Option<Vec<Object>>, nullable = false)]
    #[schemars(with = "Vec<Map<String, Value>>", skip_serializing_if = "Option::is_none")]
    collectors: Option<Value>,
    /// For people.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    config_name: Option<String>,
    /// For people.
    #[schema(min_length = 1, max_length = 200, nullable = false)]
    #[schemars(with = "String", skip_serializing_if = "Option::is_none")]
    system_name: Option<String>,
}

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
    #[schema(value_type = Option<Vec<Assignment>>, nullable = false)]
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
    #[schema(value_type = Assignment)]
    pub assignment: Value,
}
