//! The JSON of questions about the whole fleet, and of how satellites were over a while.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};
use utoipa::ToSchema;
use uuid::Uuid;

use super::wire::Timestamp;
use super::word::Word;
use crate::domain::lifecycle::{Event, Reason};

/// The most regions one answer tells apart.
pub const MAX_REGIONS: usize = 1_000;

/// How many satellites are how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All of them: those online and those offline.
    pub total: i64,
    /// Online.
    pub online: i64,
    /// Offline; those that have never connected are among them.
    pub offline: i64,
    /// Never connected since they were registered. The past begins with a satellite's first edge: 0 there.
    pub never_connected: i64,
    /// Those that come and go too often.
    pub flapping: i64,
    /// In a maintenance window.
    pub in_maintenance: i64,
}

impl Counts {
    /// Adds others to these.
    pub fn add(&mut self, others: &Counts) {
        self.total += others.total;
        self.online += others.online;
        self.offline += others.offline;
        self.never_connected += others.never_connected;
        self.flapping += others.flapping;
        self.in_maintenance += others.in_maintenance;
    }
}

/// The satellites of a region.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RegionCounts {
    /// Its name.
    pub region: String,
    /// How many of its satellites are how.
    #[serde(flatten)]
    pub counts: Counts,
}

/// The fleet, counted at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = FleetCounts)]
pub struct FleetCounts {
    /// All of it.
    #[serde(flatten)]
    pub counts: Counts,
    /// By region, in the order of their names; at most the 1,000 largest.
    pub regions: Vec<RegionCounts>,
    /// How many regions were left out; absent where none was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub regions_left_out: usize,
    /// The newest position of the log when it was counted, or the one it is as of.
    pub position: i64,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl FleetCounts {
    /// Sums regions up, and leaves the smallest out where there are too many.
    pub fn new(mut regions: Vec<RegionCounts>, position: i64) -> FleetCounts {
        let mut counts = Counts::default();
        regions.iter().for_each(|region| counts.add(&region.counts));
        regions.sort_by(|a, b| (b.counts.total, &a.region).cmp(&(a.counts.total, &b.region)));
        let regions_left_out = regions.len().saturating_sub(MAX_REGIONS);
        regions.truncate(MAX_REGIONS);
        regions.sort_by(|a, b| a.region.cmp(&b.region));
        FleetCounts { counts, regions, regions_left_out, position }
    }
}

/// How many satellites were how at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = TimelinePoint)]
pub struct Point {
    /// When.
    pub at: Timestamp,
    /// Online.
    pub online: i64,
    /// Offline. Who has not had its first edge by then, or was removed, is in no count.
    pub offline: i64,
    /// Those of which nothing is known: all of them while nobody could observe, or before the log begins.
    pub unknown: i64,
}

/// The fleet over a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Timeline {
    /// At equal distances, the oldest first; at most 1,000.
    #[schema(max_items = 1000)]
    pub points: Vec<Point>,
}

/// How a satellite was for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, IntoStaticStr, ToSchema)]
#[strum(serialize_all = "snake_case")]
#[schema(as = IntervalState, rename_all = "snake_case")]
pub enum RunState {
    /// Online.
    Up,
    /// Offline.
    Down,
    /// Nothing is known: before its first edge, after its removal, and while nobody could observe.
    Unknown,
    /// Within a maintenance window, whether it was there or not.
    Maintenance,
}

/// A while in which a satellite was in one state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interval {
    /// When it begins.
    pub from: Timestamp,
    /// When the next begins, or the window ends.
    pub to: Timestamp,
    /// How it was.
    #[schema(value_type = RunState)]
    pub state: Word<RunState>,
    /// The transition that the state follows from, where it follows from one: while nobody could observe it does
    /// not, nor in a loss that nobody has declared yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub event: Option<Word<Event>>,
    /// Why that happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub reason: Option<Word<Reason>>,
}

/// How some satellites were within a window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Intervals {
    /// When the window begins.
    pub from: Timestamp,
    /// When it ends.
    pub to: Timestamp,
    /// Of each satellite its states, without a gap between them; the oldest first.
    pub intervals: BTreeMap<Uuid, Vec<Interval>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_summed_up_and_the_smallest_of_too_many_are_left_out() {
        let region = |n: usize| RegionCounts {
            region: format!("{n:05}"),
            counts: Counts { total: n as i64, offline: n as i64, ..Counts::default() },
        };
        let few = FleetCounts::new((1..4).rev().map(region).collect(), 7);
        assert_eq!((few.counts.total, few.counts.offline, few.regions_left_out), (6, 6, 0));
        assert_eq!(few.regions.iter().map(|r| r.counts.total).collect::<Vec<_>>(), [1, 2, 3]);
        let many = FleetCounts::new((1..=MAX_REGIONS + 5).map(region).collect(), 7);
        assert_eq!((many.regions.len(), many.regions_left_out), (MAX_REGIONS, 5));
        assert_eq!(many.regions[0].region, "00006");
        let all = (MAX_REGIONS + 5) as i64;
        assert_eq!(many.counts.total, all * (all + 1) / 2, "all are in the sum");
        let json = serde_json::to_value(&few).expect("json");
        assert_eq!((&json["total"], &json["regions"][0]["neverConnected"]), (&6.into(), &0.into()));
        assert_eq!(json.get("regionsLeftOut"), None);
    }
}
