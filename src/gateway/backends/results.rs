//! Results of checks on their way to JetStream: each waits here until the stream has stored it.
//!
//! A session offers results that are assigned to its satellite. The [publisher] asks the database again, in one
//! statement for a whole batch: a result whose assignment was revoked before that is not published, whatever
//! this pod's memory says. Only the stream's acknowledgement counts as delivery. While NATS or the
//! database is away results wait, bounded in number and bytes. Beyond the bounds, the oldest results of the
//! satellite that takes the most room are dropped, and counted for it. Satellites take turns, so one with
//! many results delays no other.
//!
//! The bytes that a satellite may report are bounded as well, however often it reconnects. A satellite above
//! its budget is left unread for a while; results that arrive all the same are dropped.
//!
//! Results that wait here are lost with the pod.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::debug;

use crate::domain::lifecycle::SatelliteId;
use crate::platform::bucket::Rate;
use crate::platform::metrics::Metrics;
use crate::sessions::budgets::Budgets;

pub(crate) mod publisher;
mod stream;
mod waiting;

use waiting::{MAX_WAITING, MAX_WAITING_BYTES, Waiting};

/// This many assignments add one more basic budget to a satellite's. Then each of its checks may report, once
/// a minute, the most that NATS usually carries.
const ASSIGNMENTS_OF_A_SHARE: f32 = 32.0;

/// A result that was cut off counts with one part in this many of its bytes: it is read, and the cut part is
/// not published. A few checks must be able to report pages of ten megabytes every minute.
const CUT_OFF_SHARE: usize = 8;

/// How long a satellite above its budget is left unread at most: less than a heartbeat's interval, so that it
/// is not declared lost for it.
pub const LONGEST_REST: Duration = Duration::from_secs(10);

/// Results under way at once, and their bytes: as much as a slow connection to NATS carries while the stream may
/// take to acknowledge. A larger result goes alone.
const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// NATS' default payload limit, assumed until the server has said its own.
const USUAL_MAX_PAYLOAD: usize = 1024 * 1024;

/// What the headers of a result take of it: type, id and cell.
const HEADER_BYTES: usize = 1024;

/// A result that is assigned to its satellite.
#[derive(Debug, Clone)]
pub struct Finding {
    /// The satellite.
    pub satellite: SatelliteId,
    /// Its config.
    pub config_id: String,
    /// Its system.
    pub system_id: String,
    /// The version of the assignments that allowed it.
    pub version: i64,
    /// The body to publish.
    pub body: Bytes,
}

impl Finding {
    /// The id depends on the content only, so a repeated result has the same id.
    fn message_id(&self) -> String {
        let digest = Sha256::digest(&self.body);
        let hexadecimal: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
        format!("{}-{hexadecimal}", self.satellite)
    }
}

/// The waiting results of one pod.
pub struct Results {
    rate: Rate,
    budgets: Mutex<Budgets>,
    waiting: Mutex<Waiting>,
    /// The most bytes of a body that can be published, as far as is known.
    largest: AtomicUsize,
    news: Notify,
    metrics: Metrics,
}

impl Results {
    /// No results yet. `rate` is each satellite's budget in bytes.
    pub fn new(rate: Rate, metrics: Metrics) -> Results {
        Results {
            rate,
            budgets: Mutex::new(Budgets::new(rate)),
            waiting: Mutex::default(),
            largest: AtomicUsize::new(USUAL_MAX_PAYLOAD - HEADER_BYTES),
            news: Notify::new(),
            metrics,
        }
    }

    /// The most bytes of a body that can be published, as far as is known.
    pub fn largest(&self) -> usize {
        self.largest.load(Ordering::Relaxed)
    }

    /// Notes that a result is passed on without its findings.
    pub fn was_truncated(&self, satellite: SatelliteId, bytes: usize) {
        self.metrics.results_truncated.inc();
        debug!(%satellite, bytes, largest = self.largest(), "a result exceeds what NATS carries: truncated");
    }

    /// Takes a result that arrived in `received` bytes, from a satellite with `assigned` assignments. Returns
    /// how long the satellite is to be left unread. Never blocks: if there is no room, the oldest result of
    /// the satellite that takes the most is dropped; a result far above its satellite's budget is dropped
    /// itself.
    pub fn offer(&self, finding: Finding, received: usize, assigned: usize) -> Duration {
        let credit = self.rate.per_second * LONGEST_REST.as_secs_f32();
        let shares = 1.0 + assigned as f32 / ASSIGNMENTS_OF_A_SHARE;
        let satellite = finding.satellite;
        let cost = finding.body.len().max(received / CUT_OFF_SHARE);
        let bytes = (cost as f32 / shares) as usize;
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let owed = budgets.spend(satellite, bytes, credit, Instant::now());
        drop(budgets);
        let mut waiting = self.lock();
        let Ok(owed) = owed else {
            *waiting.dropped.entry(satellite).or_default() += 1;
            self.metrics.result("over_budget");
            return LONGEST_REST;
        };
        waiting.push_back(finding);
        self.keep_bounds(&mut waiting);
        drop(waiting);
        self.news.notify_one();
        Duration::from_secs_f32(owed / self.rate.per_second).min(LONGEST_REST)
    }

    fn take(&self) -> Vec<Finding> {
        let mut waiting = self.lock();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < MAX_BATCH
            && let Some(next) = waiting.peek()
        {
            bytes += next.body.len();
            if bytes > MAX_BATCH_BYTES && !taken.is_empty() {
                break;
            }
            taken.extend(waiting.next());
        }
        self.metrics.results_waiting.set(waiting.count as i64);
        taken
    }

    /// Puts results back to the front: they are still the oldest.
    fn put_back(&self, findings: Vec<Finding>) {
        let mut waiting = self.lock();
        for finding in findings.into_iter().rev() {
            waiting.push_front(finding);
        }
        self.keep_bounds(&mut waiting);
    }

    fn keep_bounds(&self, waiting: &mut Waiting) {
        while waiting.count > MAX_WAITING || waiting.bytes > MAX_WAITING_BYTES {
            let Some(oldest) = waiting.pop_of_largest() else { break };
            *waiting.dropped.entry(oldest.satellite).or_default() += 1;
            self.metrics.result("overflowed");
        }
        self.metrics.results_waiting.set(waiting.count as i64);
    }

    fn len(&self) -> usize {
        self.lock().count
    }

    fn take_dropped(&self) -> HashMap<SatelliteId, u64> {
        std::mem::take(&mut self.lock().dropped)
    }

    /// Valid after a panic elsewhere: every change to it is one call.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn finding(satellite: u128, body: &str) -> Finding {
        Finding {
            satellite: SatelliteId(Uuid::from_u128(satellite)),
            config_id: "c".to_owned(),
            system_id: "s".to_owned(),
            version: 1,
            body: Bytes::from(body.to_owned()),
        }
    }

    fn unbounded() -> Results {
        Results::new(Rate { burst: 1e9, per_second: 1e9 }, Metrics::new())
    }

    fn bodies(results: &Results) -> Vec<Bytes> {
        results.take().into_iter().map(|finding| finding.body).collect()
    }

    #[test]
    fn what_is_put_back_is_first_again() {
        let results = unbounded();
        for body in ["a", "b", "c"] {
            results.offer(finding(1, body), 0, 0);
        }
        let taken = results.take();
        results.offer(finding(1, "d"), 0, 0);
        results.put_back(taken);
        assert_eq!(bodies(&results), ["a", "b", "c", "d"]);
        assert_eq!(results.lock().bytes, 0);
    }

    #[test]
    fn a_batch_has_so_many_bytes_and_one_that_is_larger_goes_alone() {
        let results = unbounded();
        let large = "x".repeat(MAX_BATCH_BYTES + 1);
        for body in ["a", "b", &large, "c"] {
            results.offer(finding(1, body), 0, 0);
        }
        let batches: Vec<usize> = (0..4).map(|_| results.take().len()).collect();
        assert_eq!(batches, [2, 1, 1, 0]);
    }

    #[test]
    fn the_oldest_of_whoever_takes_the_most_room_go_first_and_are_counted_for_it() {
        let results = unbounded();
        let large = "x".repeat(1024 * 1024);
        results.offer(finding(1, "first"), 0, 0);
        results.offer(finding(2, "second"), 0, 0);
        for _ in 0..40 {
            results.offer(finding(3, &large), 0, 0);
        }
        let id = |n| SatelliteId(Uuid::from_u128(n));
        assert_eq!(results.take_dropped(), HashMap::from([(id(3), 9)]));
        assert_eq!(results.len(), 33);
        for n in 0..MAX_WAITING {
            results.offer(finding(4, &n.to_string()), 0, 0);
        }
        // By now the many small ones take more room than the few large ones.
        assert_eq!(results.take_dropped(), HashMap::from([(id(4), 33)]));
        assert_eq!(results.len(), MAX_WAITING);
        let waiting = results.lock();
        assert_eq!((waiting.of[&id(1)].len(), waiting.of[&id(2)].len()), (1, 1));
        assert_eq!(waiting.of[&id(3)].len(), 31);
    }

    #[test]
    fn satellites_take_turns() {
        let results = unbounded();
        for n in 0..MAX_BATCH {
            results.offer(finding(1, &n.to_string()), 0, 0);
        }
        results.offer(finding(2, "mine"), 0, 0);
        assert!(bodies(&results).iter().take(2).any(|body| body == "mine"));
        assert_eq!(bodies(&results).len(), 1);
        let waiting = results.lock();
        assert!(waiting.of.is_empty() && waiting.costs.is_empty() && waiting.turns.is_empty());
        assert!(waiting.cost_of.is_empty() && (waiting.count, waiting.bytes) == (0, 0));
    }

    #[test]
    fn what_was_cut_off_of_a_result_counts_as_an_eighth() {
        let results = Results::new(Rate { burst: 100.0, per_second: 10.0 }, Metrics::new());
        assert_eq!(results.offer(finding(1, "x"), 800, 0), Duration::ZERO);
        assert!(results.offer(finding(1, "x"), 160, 0) > Duration::from_secs(1));
    }

    #[test]
    fn whoever_reports_too_much_is_to_be_left_unread_and_is_dropped_if_it_goes_on() {
        let rate = Rate { burst: 100.0, per_second: 10.0 };
        let results = Results::new(rate, Metrics::new());
        let body = "x".repeat(60);
        assert_eq!(results.offer(finding(1, &body), 0, 0), Duration::ZERO);
        let rest = results.offer(finding(1, &body), 0, 0);
        assert!(rest > Duration::from_secs(1) && rest <= Duration::from_secs(2), "{rest:?}");
        for _ in 0..5 {
            results.offer(finding(1, &body), 0, 0);
        }
        assert_eq!(results.len(), 4, "ten seconds' worth ahead of its budget, and no more");
        assert_eq!(results.offer(finding(2, &body), 0, 0), Duration::ZERO);
        assert_eq!(results.take_dropped().len(), 1);
    }

    #[test]
    fn the_same_result_has_the_same_id_and_no_other_has() {
        let id = finding(1, "a").message_id();
        assert_eq!(finding(1, "a").message_id(), id);
        assert_ne!(finding(1, "b").message_id(), id);
        assert_ne!(finding(2, "a").message_id(), id);
    }
}
