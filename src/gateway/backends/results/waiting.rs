//! The results that wait in one pod, satellite by satellite.
//!
//! Satellites take turns. It knows at any time which of them takes the most room, so that whoever bounds it
//! takes from that one.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};

use crate::domain::lifecycle::SatelliteId;
use crate::gateway::backends::results::Finding;
use crate::gateway::intake::MAX_MESSAGE_BYTES;

/// The most results that wait in one pod, and their bytes.
pub const MAX_WAITING: usize = 10_000;
pub(super) const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;

// One message of the largest size does not push itself out.
const _: () = assert!(MAX_WAITING_BYTES > MAX_MESSAGE_BYTES);

/// What each waiting result counts beside its bytes, so that one measure enforces both bounds.
const COST_OF_ONE: usize = MAX_WAITING_BYTES / MAX_WAITING;

/// Queues of results, and the room that each takes.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) of: HashMap<SatelliteId, VecDeque<Finding>>,
    /// The order of turns: each satellite with waiting results, once.
    pub(super) turns: VecDeque<SatelliteId>,
    /// Satellites by the room they take.
    pub(super) costs: BTreeSet<(usize, SatelliteId)>,
    pub(super) cost_of: HashMap<SatelliteId, usize>,
    pub(super) count: usize,
    pub(super) bytes: usize,
    /// Results dropped since the last log line.
    pub(super) dropped: HashMap<SatelliteId, u64>,
}

impl Waiting {
    pub(super) fn push_back(&mut self, finding: Finding) {
        self.charge(&finding);
        self.queue(finding.satellite).push_back(finding);
    }

    pub(super) fn push_front(&mut self, finding: Finding) {
        self.charge(&finding);
        self.queue(finding.satellite).push_front(finding);
    }

    fn queue(&mut self, satellite: SatelliteId) -> &mut VecDeque<Finding> {
        match self.of.entry(satellite) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                self.turns.push_back(satellite);
                entry.insert(VecDeque::new())
            }
        }
    }

    /// The next result.
    pub(super) fn peek(&self) -> Option<&Finding> {
        self.of.get(self.turns.front()?)?.front()
    }

    /// Takes the oldest result of the satellite whose turn it is.
    pub(super) fn next(&mut self) -> Option<Finding> {
        let satellite = self.turns.pop_front()?;
        let queue = self.of.get_mut(&satellite)?;
        let finding = queue.pop_front()?;
        if queue.is_empty() {
            self.of.remove(&satellite);
        } else {
            self.turns.push_back(satellite);
        }
        self.discharge(&finding);
        Some(finding)
    }

    /// Takes the oldest result of the satellite that takes the most room.
    pub(super) fn pop_of_largest(&mut self) -> Option<Finding> {
        let (_, satellite) = *self.costs.last()?;
        let queue = self.of.get_mut(&satellite)?;
        let finding = queue.pop_front()?;
        if queue.is_empty() {
            self.of.remove(&satellite);
            self.turns.retain(|waiting| *waiting != satellite);
        }
        self.discharge(&finding);
        Some(finding)
    }

    fn charge(&mut self, finding: &Finding) {
        self.count += 1;
        self.bytes += finding.body.len();
        let before = self.cost_of.get(&finding.satellite).copied().unwrap_or(0);
        self.set_cost(finding.satellite, before, before + cost(finding));
    }

    fn discharge(&mut self, finding: &Finding) {
        self.count -= 1;
        self.bytes -= finding.body.len();
        let before = self.cost_of.get(&finding.satellite).copied().unwrap_or(0);
        self.set_cost(finding.satellite, before, before.saturating_sub(cost(finding)));
    }

    fn set_cost(&mut self, satellite: SatelliteId, before: usize, now: usize) {
        self.costs.remove(&(before, satellite));
        if now == 0 {
            self.cost_of.remove(&satellite);
        } else {
            self.costs.insert((now, satellite));
            self.cost_of.insert(satellite, now);
        }
    }
}

fn cost(finding: &Finding) -> usize {
    finding.body.len() + COST_OF_ONE
}
