//! The JSON of the question what another offline threshold would have done.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::wire::Timestamp;

/// The most satellites, and the most regions, one answer tells of.
pub const MAX_TOLD: usize = 50;

/// What another threshold would have done to losses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Losses {
    /// The losses that were declared.
    pub losses: i64,
    /// Those that would not have been: the satellite was heard again within the threshold.
    pub spared: i64,
    /// Those that would have been declared all the same.
    pub kept: i64,
    /// Those of which it is not known yet: the satellite is silent, and not for as long as the threshold.
    pub undecided: i64,
    /// What a shorter threshold would have declared besides. The log has no heartbeats, so there may be more.
    pub added_at_least: i64,
}

/// The losses of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = LossesOfRegion)]
pub struct OfRegion {
    /// Its name.
    pub region: String,
    /// How many.
    #[serde(flatten)]
    pub losses: Losses,
}

/// The losses of a satellite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = LossesOfSatellite)]
pub struct OfSatellite {
    /// The satellite.
    pub id: Uuid,
    /// How it was called at its newest loss.
    pub name: String,
    /// Where it was then.
    pub region: String,
    /// How many.
    #[serde(flatten)]
    pub losses: Losses,
}

/// How much later the losses that are kept would have been declared, in milliseconds; earlier where it is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delay {
    /// Half of them by no more than this.
    pub p50_ms: i64,
    /// Of a hundred ninety-nine.
    pub p99_ms: i64,
    /// The latest.
    pub max_ms: i64,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WhatIf {
    /// The threshold that was asked about.
    pub threshold_ms: i64,
    /// Losses that were due from here on,
    pub since: Timestamp,
    /// and before here.
    pub until: Timestamp,
    /// All of them.
    #[serde(flatten)]
    pub losses: Losses,
    /// Of those that are kept; absent where none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// By region, those with the most losses first; at most 50.
    #[schema(max_items = 50)]
    pub regions: Vec<OfRegion>,
    /// The satellites with the most that would have been otherwise, at most 50.
    #[schema(max_items = 50)]
    pub satellites: Vec<OfSatellite>,
    /// What the log cannot know, in words.
    pub unknown: Vec<String>,
}
