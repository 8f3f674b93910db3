//! Counts the whole fleet for the metrics, by region and status.
//!
//! Only the pod that relays counts. So a sum over all pods counts each satellite once, and the count costs the same
//! however many pods there are. The count reads every satellite, which takes the longer the more there are: the task
//! then rests fifty times as long as a count took, so that it never keeps more than a fiftieth of one connection busy.
//! Numbers are those of `GET /v1/fleet`.
//!
//! While the count fails the last one stays, and `groundstation_satellites_counted_timestamp_seconds` says how old it
//! is.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use deadpool_postgres::Object;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::contract::fleet::{Counts, MAX_REGIONS, RegionCounts};
use crate::platform::database::{Database, Failed};
use crate::platform::health::{Health, RelayState};
use crate::platform::metrics::Metrics;
use crate::platform::metrics::census::Tally;
use crate::registry::satellites::{self, ListFilter};

/// How many times as long as a count took the task rests before the next one.
const REST: u32 = 50;

/// How often the task looks whether this pod relays.
const LOOK: Duration = Duration::from_secs(1);

/// Stands for the regions beyond the largest 1,000. No satellite's region is empty.
const ALL_OTHERS: &str = "";

/// The task.
pub struct Census {
    /// The connections it reads over.
    pub reads: Database,
    /// The default offline threshold.
    pub default_threshold: Duration,
    /// How often it counts, while counts are quick.
    pub interval: Duration,
    /// Says whether this pod relays.
    pub health: Arc<Health>,
    /// Where the count is shown.
    pub metrics: Metrics,
}

impl Census {
    /// Counts while this pod relays, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let (mut due, mut failing) = (Instant::now(), false);
        loop {
            if !self.relays() {
                self.metrics.census.clear();
                due = Instant::now();
            } else if due <= Instant::now() {
                let began = Instant::now();
                self.count_and_show(&mut failing).await;
                due = Instant::now() + self.interval.max(began.elapsed() * REST);
            }
            tokio::select! {
                () = sleep(LOOK.min(self.interval)) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn relays(&self) -> bool {
        self.health.report().relay != RelayState::Standby
    }

    async fn count_and_show(&self, failing: &mut bool) {
        match self.count().await {
            Ok(regions) => {
                self.metrics.census.show(tallies(regions), SystemTime::now());
                if std::mem::take(failing) {
                    info!("the fleet is counted for the metrics again");
                }
            }
            Err(error) => {
                if !std::mem::replace(failing, true) {
                    warn!(%error, "cannot count the fleet for the metrics");
                }
            }
        }
    }

    async fn count(&self) -> Result<Vec<RegionCounts>, Failed> {
        let all = ListFilter::default();
        let count = async |client: &mut Object| {
            satellites::count(client, &all, self.default_threshold).await
        };
        self.reads.run(count).await
    }
}

/// The largest regions, and one that stands for all others, if there are any.
fn tallies(mut regions: Vec<RegionCounts>) -> Vec<Tally> {
    regions.sort_by(|a, b| {
        (Reverse(a.counts.total), &a.region).cmp(&(Reverse(b.counts.total), &b.region))
    });
    let others = regions.split_off(regions.len().min(MAX_REGIONS));
    let mut tallies: Vec<Tally> =
        regions.into_iter().map(|RegionCounts { region, counts }| tally(region, &counts)).collect();
    if !others.is_empty() {
        let mut rest = Counts::default();
        others.iter().for_each(|other| rest.add(&other.counts));
        tallies.push(tally(ALL_OTHERS.to_owned(), &rest));
    }
    tallies
}

fn tally(region: String, counts: &Counts) -> Tally {
    let Counts { online, offline, never_connected, flapping, .. } = *counts;
    Tally { region, online, offline, never_connected, flapping }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_regions_are_told_apart_and_the_others_are_one() {
        let region = |n: usize| {
            let online = if n == 7 { 1 } else { 2 + n as i64 % 3 };
            let counts = Counts { total: online + 1, online, offline: 1, ..Counts::default() };
            RegionCounts { region: format!("r{n}"), counts }
        };
        let few = tallies((0..3).map(region).collect());
        assert_eq!(
            few.iter().map(|tally| tally.region.as_str()).collect::<Vec<_>>(),
            ["r2", "r1", "r0"]
        );
        let many: Vec<RegionCounts> = (0..MAX_REGIONS + 2).map(region).collect();
        let all: i64 = many.iter().map(|region| region.counts.online).sum();
        let many = tallies(many);
        assert_eq!(many.len(), MAX_REGIONS + 1);
        let rest = many.last().expect("the others");
        assert_eq!((rest.region.as_str(), rest.offline), (ALL_OTHERS, 2));
        assert!(many.iter().all(|tally| tally.region != "r7"), "the smallest is among the others");
        assert_eq!(many.iter().map(|tally| tally.online).sum::<i64>(), all);
    }
}
