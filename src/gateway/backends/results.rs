//! Results of checks on their way to JetStream: each waits here until the stream has stored it.
//!
//! A session offers results that are assigned to its satellite. The [`Publisher`] asks the database again, in
//! one statement for a whole batch: a result whose assignment was revoked before that is not published,
//! whatever this pod's memory says. Only the stream's acknowledgement counts as delivery. While NATS or the
//! database is away results wait, bounded in number and bytes. Beyond the bounds, the oldest results of the
//! satellite that takes the most room are dropped, and counted for it. Satellites take turns, so one with
//! many results delays no other.
//!
//! The bytes that a satellite may report are bounded as well, however often it reconnects. A satellite above
//! its budget is left unread for a while; results that arrive all the same are dropped.
//!
//! Results that wait here are lost with the pod.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info};
use async_nats::jetstream::{self, Context, ErrorCode};
use bytes::Bytes;
use deadpool_postgres::Object;
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::domain::cell::{self, Cell};
use crate::domain::lifecycle::SatelliteId;
use crate::gateway::backends::body;
use crate::gateway::intake::MAX_MESSAGE_BYTES;
use crate::platform::bucket::Rate;
use crate::platform::database::{Database, Failed};
use crate::platform::log_gate::LogGate;
use crate::platform::metrics::Metrics;
use crate::platform::replicas::{Replicas, Replication};
use crate::registry::assignments;
use crate::sessions::budgets::Budgets;

/// The stream's name.
pub const STREAM: &str = "SATELLITE_RESULTS";

/// The stream's only subject.
pub const SUBJECT: &str = "satellite.result";

/// How long, and up to how many bytes, a stream that a pod makes keeps results. Consumers are minutes behind
/// at worst, and results never end.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_STREAM_BYTES: i64 = 256 * 1024 * 1024;

/// How long the stream recognises a message id: longer than a publish is retried.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// The most results that wait in one pod, and their bytes.
pub const MAX_WAITING: usize = 10_000;
const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;

// One message of the largest size does not push itself out.
const _: () = assert!(MAX_WAITING_BYTES > MAX_MESSAGE_BYTES);

/// What each waiting result counts beside its bytes, so that one measure enforces both bounds.
const COST_OF_ONE: usize = MAX_WAITING_BYTES / MAX_WAITING;

/// This many assignments add one more basic budget to a satellite's. Then each of its checks may report, once
/// a minute, the most that NATS usually carries.
const ASSIGNMENTS_OF_A_SHARE: f32 = 32.0;

/// A result that was cut off counts with one part in this many of its bytes: it is read, and the cut part is
/// not published. A few checks must be able to report pages of ten megabytes every minute.
const CUT_OFF_SHARE: usize = 8;

/// How long a satellite above its budget is left unread at most: less than a heartbeat's interval, so that it
/// is not declared lost for it.
pub const LONGEST_REST: Duration = Duration::from_secs(10);

/// How many satellites with dropped results are named at once; the others are summed up.
const TOLD_AT_ONCE: usize = 20;

/// Results under way at once, and their bytes: as much as a slow connection to NATS carries within
/// [`ACK_TIMEOUT`]. A larger result goes alone.
const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// NATS' default payload limit, assumed until the server has said its own.
const USUAL_MAX_PAYLOAD: usize = 1024 * 1024;

/// What the headers of a result take of it: type, id and cell.
const HEADER_BYTES: usize = 1024;

/// How long the stream may take to acknowledge.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a failure, and the interval at which NATS is checked.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a pod that ends still delivers waiting results.
const LAST_EFFORT: Duration = Duration::from_secs(5);

/// How often dropped results are logged.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

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

#[derive(Default)]
struct Waiting {
    of: HashMap<SatelliteId, VecDeque<Finding>>,
    /// The order of turns: each satellite with waiting results, once.
    turns: VecDeque<SatelliteId>,
    /// Satellites by the room they take.
    costs: BTreeSet<(usize, SatelliteId)>,
    cost_of: HashMap<SatelliteId, usize>,
    count: usize,
    bytes: usize,
    /// Results dropped since the last log line.
    dropped: HashMap<SatelliteId, u64>,
}

impl Waiting {
    fn push_back(&mut self, finding: Finding) {
        self.charge(&finding);
        self.queue(finding.satellite).push_back(finding);
    }

    fn push_front(&mut self, finding: Finding) {
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
    fn peek(&self) -> Option<&Finding> {
        self.of.get(self.turns.front()?)?.front()
    }

    /// Takes the oldest result of the satellite whose turn it is.
    fn next(&mut self) -> Option<Finding> {
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
    fn pop_of_largest(&mut self) -> Option<Finding> {
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

/// The task that publishes them.
pub struct Publisher {
    /// The results to publish.
    pub results: Arc<Results>,
    /// The connection to NATS.
    pub nats: async_nats::Client,
    /// Where the assignments in force are stored.
    pub database: Database,
    /// Bounds the log lines about results that are not passed on.
    pub complaints: Arc<LogGate>,
    /// On how many servers the stream is made.
    pub replicas: Replicas,
    /// The cell that the messages name.
    pub cell: Option<Cell>,
    /// The pod's metrics.
    pub metrics: Metrics,
}

/// Why a batch is not delivered for now.
#[derive(Debug, thiserror::Error)]
enum Held {
    #[error("NATS is away")]
    NatsAway,
    #[error("the stream {STREAM} cannot be used: {0}")]
    Stream(String),
    #[error("the assignments in force cannot be read: {0:#}")]
    Database(Failed),
    #[error("{0} results were not acknowledged")]
    Unacknowledged(usize),
}

impl Publisher {
    /// Publishes until told to stop, then what it can within [`LAST_EFFORT`].
    pub async fn run(self, stop: CancellationToken) {
        let mut jetstream = jetstream::new(self.nats.clone());
        jetstream.set_timeout(ACK_TIMEOUT);
        let mut stream = None;
        let mut replication = Replication::of(STREAM, self.replicas);
        let mut held = false;
        let mut told_at = Instant::now();
        let mut last_effort = None;
        loop {
            let delivered = self.deliver(&jetstream, &mut stream, &mut replication).await;
            let mut tell = told_at.elapsed() > TELL_INTERVAL;
            match &delivered {
                // Nothing waits, so what was dropped so far is all of it.
                Ok(0) => tell = true,
                Ok(_) if std::mem::take(&mut held) => {
                    info!("results are delivered again");
                    tell = true;
                }
                Ok(_) => {}
                Err(why) if self.results.len() > 0 && !std::mem::replace(&mut held, true) => {
                    warn!(%why, waiting = self.results.len(), "results wait");
                }
                Err(_) => {}
            }
            if tell {
                self.tell_dropped();
                told_at = Instant::now();
            }
            if stop.is_cancelled() {
                let until = *last_effort.get_or_insert_with(|| Instant::now() + LAST_EFFORT);
                if self.results.len() == 0 || Instant::now() > until {
                    break;
                }
            }
            match delivered {
                Ok(0) => tokio::select! {
                    () = self.results.news.notified() => {}
                    () = stop.cancelled() => {}
                },
                Ok(_) => {}
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Names the satellites with the most dropped results.
    fn tell_dropped(&self) {
        let mut dropped: Vec<_> = self.results.take_dropped().into_iter().collect();
        dropped.sort_unstable_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (satellite, dropped) in dropped.iter().take(TOLD_AT_ONCE) {
            warn!(%satellite, dropped, "results were dropped, oldest first: it reported too much, or too many waited");
        }
        let others = dropped.get(TOLD_AT_ONCE..).unwrap_or_default();
        if !others.is_empty() {
            let dropped: u64 = others.iter().map(|(_, count)| count).sum();
            warn!(
                satellites = others.len(),
                dropped, "results of other satellites were dropped as well"
            );
        }
    }

    /// Delivers one batch and returns its size. `stream` is the largest message that the stream takes, once
    /// the stream is known to exist.
    async fn deliver(
        &self,
        jetstream: &Context,
        stream: &mut Option<usize>,
        replication: &mut Replication,
    ) -> Result<usize, Held> {
        if self.nats.connection_state() != State::Connected {
            *stream = None;
            return Err(Held::NatsAway);
        }
        let carries = match *stream {
            Some(carries) => carries,
            None => {
                let info = ensure(jetstream, replication).await;
                let info = info.map_err(|error| Held::Stream(format!("{error:#}")))?;
                replication.look(&info, &self.metrics);
                largest_message(&info)
            }
        };
        *stream = Some(carries);
        let largest = self.nats.max_payload().min(carries).saturating_sub(HEADER_BYTES);
        self.results.largest.store(largest, Ordering::Relaxed);
        let taken = self.results.take();
        if taken.is_empty() {
            return Ok(0);
        }
        let count = taken.len();
        let in_force = match self.in_force(&taken).await {
            Ok(in_force) => in_force,
            Err(failed) => {
                self.results.put_back(taken);
                return Err(Held::Database(failed));
            }
        };
        let mut allowed = Vec::with_capacity(count);
        for (finding, in_force) in taken.into_iter().zip(in_force) {
            if in_force {
                allowed.push(self.as_far_as_it_goes(finding));
            } else {
                self.metrics.result("revoked");
                if let Some(left_out) = self.complaints.pass(Instant::now()) {
                    info!(satellite = %finding.satellite, config = %finding.config_id, left_out,
                        "a result whose assignment was revoked was dropped");
                }
            }
        }
        let left = self.publish(jetstream, allowed).await;
        if left.is_empty() {
            return Ok(count);
        }
        let unacknowledged = left.len();
        *stream = None;
        self.results.put_back(left);
        Err(Held::Unacknowledged(unacknowledged))
    }

    /// Whether each of these is still allowed by the assignments in force.
    async fn in_force(&self, findings: &[Finding]) -> Result<Vec<bool>, Failed> {
        let mut in_force = vec![true; findings.len()];
        let known: Vec<_> = findings.iter().map(|f| (f.satellite, f.version)).collect();
        let changed = async |client: &mut Object| assignments::changed(client, &known).await;
        for (n, now) in self.database.run(changed).await? {
            if let (Some(allowed), Some(finding)) = (in_force.get_mut(n), findings.get(n)) {
                *allowed = now.allows(&finding.config_id, &finding.system_id);
            }
        }
        Ok(in_force)
    }

    /// Truncates a result that turned out to be too large while it waited.
    fn as_far_as_it_goes(&self, finding: Finding) -> Finding {
        if finding.body.len() <= self.results.largest() {
            return finding;
        }
        match body::truncated(&finding.body) {
            Ok(body) => {
                self.results.was_truncated(finding.satellite, finding.body.len());
                Finding { body, ..finding }
            }
            Err(error) => {
                error!(%error, "a result cannot be truncated");
                finding
            }
        }
    }

    /// Publishes these in order and waits for the acknowledgements; returns those without one.
    async fn publish(&self, jetstream: &Context, findings: Vec<Finding>) -> Vec<Finding> {
        let until = Instant::now() + ACK_TIMEOUT;
        let mut sent = Vec::with_capacity(findings.len());
        for finding in findings {
            let mut message = PublishMessage::build()
                .payload(finding.body.clone())
                .header("Content-Type", "application/json")
                .message_id(finding.message_id());
            if let Some(cell) = &self.cell {
                message = message.header(cell::HEADER, cell.as_str());
            }
            let ack = timeout_at(until, jetstream.send_publish(SUBJECT, message)).await;
            sent.push((finding, ack));
        }
        let acknowledged = sent.into_iter().map(async |(finding, ack)| {
            let ack = match ack {
                Ok(Ok(ack)) => timeout_at(until, ack.into_future()).await,
                Ok(Err(error)) => Ok(Err(error)),
                Err(elapsed) => Err(elapsed),
            };
            match ack {
                // A server of a cluster can report a duplicate of a message that was never stored; such an
                // acknowledgement has no sequence.
                Ok(Ok(ack)) if ack.sequence == 0 => {
                    debug!("the stream takes a result for a duplicate, but never stored it");
                    Some(finding)
                }
                Ok(Ok(_)) => {
                    self.metrics.result("delivered");
                    None
                }
                Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    self.metrics.result("too_large");
                    if let Some(left_out) = self.complaints.pass(Instant::now()) {
                        error!(satellite = %finding.satellite, bytes = finding.body.len(), left_out,
                            "a result is larger than the NATS server takes: dropped");
                    }
                    None
                }
                Ok(Err(error)) => {
                    debug!(%error, "a result was not acknowledged");
                    Some(finding)
                }
                Err(_) => Some(finding),
            }
        });
        join_all(acknowledged).await.into_iter().flatten().collect()
    }
}

/// Also runs if the pod's deadline cancels the task.
impl Drop for Publisher {
    fn drop(&mut self) {
        let lost = self.results.len();
        if lost > 0 {
            warn!(lost, "the pod ends with results that were not delivered");
        }
        self.tell_dropped();
    }
}

/// Makes the stream if it does not exist. A stream made by an operator is used as it is, if it has the
/// subject.
async fn ensure(jetstream: &Context, replication: &mut Replication) -> anyhow::Result<Info> {
    match jetstream.get_stream(STREAM).await {
        Ok(stream) => {
            let info = stream.cached_info();
            anyhow::ensure!(
                info.config.subjects.iter().any(|subject| subject == SUBJECT),
                "it exists without the subject {SUBJECT}: add it"
            );
            return Ok(info.clone());
        }
        Err(error)
            if !matches!(error.kind(), GetStreamErrorKind::JetStream(error)
            if error.error_code() == ErrorCode::STREAM_NOT_FOUND) =>
        {
            anyhow::bail!("{error}");
        }
        Err(_) => {}
    }
    let config = Config {
        subjects: vec![SUBJECT.to_owned()],
        description: Some("Results of checks, as satellites reported them".to_owned()),
        max_age: MAX_AGE,
        max_bytes: MAX_STREAM_BYTES,
        discard: DiscardPolicy::Old,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    };
    let stream = replication.make(jetstream, config).await?;
    info!("made the stream {STREAM}");
    Ok(stream.cached_info().clone())
}

/// The largest message that the stream takes.
fn largest_message(stream: &Info) -> usize {
    // None and -1 both mean no limit.
    match usize::try_from(stream.config.max_message_size) {
        Ok(0) | Err(_) => usize::MAX,
        Ok(largest) => largest,
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
