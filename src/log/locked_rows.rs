//! Warns operators about rows that stay locked: an open psql, a transaction that hangs.
//!
//! Only the satellite whose row is locked waits for it. Its edges and heartbeats stay with the pod meanwhile, so the
//! report names the satellite.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::domain::lifecycle::SatelliteId;
use crate::platform::metrics::Metrics;

/// Pods lock a row for milliseconds, and under load for as long as they wait for the log. A lock held for longer is
/// not a pod's.
const LONG: Duration = Duration::from_secs(2);

/// The locked rows that one kind of work waits for.
pub struct LockedRows {
    what: &'static str,
    since: HashMap<SatelliteId, Instant>,
    told: bool,
    metrics: Metrics,
}

impl LockedRows {
    /// `what` names the work that waits, in the plural.
    pub fn new(what: &'static str, metrics: Metrics) -> LockedRows {
        metrics.locked_satellites(what, 0);
        LockedRows { what, since: HashMap::new(), told: false, metrics }
    }

    /// Takes the satellites whose rows are locked at this moment: all of them.
    pub fn found(&mut self, locked: impl Iterator<Item = SatelliteId>) {
        let now = Instant::now();
        let before = std::mem::take(&mut self.since);
        self.since = locked.map(|id| (id, before.get(&id).copied().unwrap_or(now))).collect();
        if before.is_empty() && self.since.is_empty() {
            return;
        }
        let mut long = self.since.iter().filter(|(_, since)| now.duration_since(**since) >= LONG);
        let (example, more) = (long.next().map(|(id, _)| *id), long.count());
        let count = more + usize::from(example.is_some());
        self.metrics.locked_satellites(self.what, i64::try_from(count).unwrap_or(i64::MAX));
        match example {
            Some(satellite) if !self.told => warn!(
                %satellite, satellites = count, what = self.what,
                "somebody keeps rows of satellites locked: what concerns these satellites waits"
            ),
            None if self.told => {
                info!(what = self.what, "no row of a satellite is locked any more")
            }
            _ => {}
        }
        self.told = example.is_some();
    }
}
