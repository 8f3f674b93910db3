//! Results of checks on their way to JetStream: each waits here until the stream has it.
//!
//! A session offers what its satellite was assigned to say; the [`Publisher`] asks the database once
//! more, in one statement for a whole batch, whether it still is: what was revoked before that is
//! not passed on, whatever this pod's memory says. Only the stream's acknowledgement counts as
//! delivered. While NATS or the database is away results wait, bounded in number and bytes; beyond
//! that the oldest are dropped and counted for their satellites.
//!
//! What waits here is lost with the pod.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{GetStreamErrorKind, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use async_nats::jetstream::{self, Context, ErrorCode};
use bytes::Bytes;
use deadpool_postgres::Object;
use futures_util::future::join_all;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::assignments;
use crate::body;
use crate::database::{Database, Failed};
use crate::gateway::intake::MAX_MESSAGE_BYTES;
use crate::lifecycle::SatelliteId;
use crate::metrics::Metrics;

/// The stream's name.
pub const STREAM: &str = "SATELLITE_RESULTS";

/// The stream's only subject.
pub const SUBJECT: &str = "satellite.result";

/// For how long, and how much of, results are kept on a stream that a pod makes: whoever consumes
/// them is minutes behind at worst, and there is no end of them.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
const MAX_STREAM_BYTES: i64 = 256 * 1024 * 1024;

/// For how long the stream knows a message id again: longer than any try is repeated.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(5 * 60);

/// Results that wait in one pod, and their bytes.
pub const MAX_WAITING: usize = 10_000;
const MAX_WAITING_BYTES: usize = 32 * 1024 * 1024;

// One of the largest messages there are does not push itself out.
const _: () = assert!(MAX_WAITING_BYTES > MAX_MESSAGE_BYTES);

/// Results under way at once, and their bytes: what a slow way to NATS carries before it counts as not
/// acknowledged. One that is larger goes alone.
const MAX_BATCH: usize = 256;
const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// What NATS carries as long as nobody has said so: its default.
const USUAL_MAX_PAYLOAD: usize = 1024 * 1024;

/// What a result needs of it beside its body, for its headers: type and id.
const HEADER_BYTES: usize = 1024;

/// How long the stream may take to acknowledge.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after something failed, and how often NATS is looked for.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a pod that ends goes on delivering what waits.
const LAST_EFFORT: Duration = Duration::from_secs(5);

/// How often it is told whose results were dropped.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// A result that its satellite was assigned to say.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Who says it.
    pub satellite: SatelliteId,
    /// Of which config
    pub config_id: String,
    /// on which system.
    pub system_id: String,
    /// The version of the assignments that allowed it.
    pub version: i64,
    /// What is published.
    pub body: Bytes,
}

impl Finding {
    /// The same result has the same id, however often it is sent.
    fn message_id(&self) -> String {
        let digest = Sha256::digest(&self.body);
        let hexadecimal: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
        format!("{}-{hexadecimal}", self.satellite)
    }
}

/// The results of one pod that wait.
pub struct Results {
    waiting: Mutex<Waiting>,
    /// The most bytes of a body that can be published, as far as is known.
    largest: AtomicUsize,
    news: Notify,
    metrics: Metrics,
}

#[derive(Default)]
struct Waiting {
    findings: VecDeque<Finding>,
    bytes: usize,
    /// Since it was last told.
    overflowed: HashMap<SatelliteId, u64>,
}

impl Results {
    /// None yet.
    pub fn new(metrics: Metrics) -> Results {
        Results {
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

    /// Tells of a result that is passed on without what it found.
    pub fn was_truncated(&self, satellite: SatelliteId, bytes: usize) {
        self.metrics.results_truncated.inc();
        debug!(%satellite, bytes, largest = self.largest(), "a result is more than NATS carries: truncated");
    }

    /// Takes a result. Never blocks: what there is no room for pushes the oldest out.
    pub fn offer(&self, finding: Finding) {
        let mut waiting = self.lock();
        waiting.bytes += finding.body.len();
        waiting.findings.push_back(finding);
        self.keep_bounds(&mut waiting);
        drop(waiting);
        self.news.notify_one();
    }

    fn take(&self) -> Vec<Finding> {
        let mut waiting = self.lock();
        let mut bytes = 0;
        let fits = |finding: &&Finding| {
            bytes += finding.body.len();
            bytes <= MAX_BATCH_BYTES
        };
        let count = waiting.findings.iter().take(MAX_BATCH).take_while(fits).count();
        let count = count.max(1).min(waiting.findings.len());
        let taken: Vec<Finding> = waiting.findings.drain(..count).collect();
        waiting.bytes -= taken.iter().map(|finding| finding.body.len()).sum::<usize>();
        self.metrics.results_waiting.set(waiting.findings.len() as i64);
        taken
    }

    /// They are the oldest still.
    fn put_back(&self, findings: Vec<Finding>) {
        let mut waiting = self.lock();
        waiting.bytes += findings.iter().map(|finding| finding.body.len()).sum::<usize>();
        for finding in findings.into_iter().rev() {
            waiting.findings.push_front(finding);
        }
        self.keep_bounds(&mut waiting);
    }

    fn keep_bounds(&self, waiting: &mut Waiting) {
        while waiting.findings.len() > MAX_WAITING || waiting.bytes > MAX_WAITING_BYTES {
            let Some(oldest) = waiting.findings.pop_front() else { break };
            waiting.bytes -= oldest.body.len();
            *waiting.overflowed.entry(oldest.satellite).or_default() += 1;
            self.metrics.result("overflowed");
        }
        self.metrics.results_waiting.set(waiting.findings.len() as i64);
    }

    fn len(&self) -> usize {
        self.lock().findings.len()
    }

    fn take_overflowed(&self) -> HashMap<SatelliteId, u64> {
        std::mem::take(&mut self.lock().overflowed)
    }

    /// Valid after a panic elsewhere: every change to it is one call.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that publishes them.
pub struct Publisher {
    /// What it publishes.
    pub results: Arc<Results>,
    /// The way to the stream.
    pub nats: async_nats::Client,
    /// Where the assignments in force are.
    pub database: Database,
    /// What it counts.
    pub metrics: Metrics,
}

/// Why a batch was not delivered, for now.
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
        let mut held = false;
        let mut told_at = Instant::now();
        let mut last_effort = None;
        loop {
            let delivered = self.deliver(&jetstream, &mut stream).await;
            let mut tell = told_at.elapsed() > TELL_INTERVAL;
            match &delivered {
                // Nothing waits: whatever was dropped is all of it.
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
                self.tell_overflowed();
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
        let lost = self.results.len();
        if lost > 0 {
            warn!(lost, "the pod ends with results that were not delivered");
        }
        self.tell_overflowed();
    }

    fn tell_overflowed(&self) {
        for (satellite, dropped) in self.results.take_overflowed() {
            warn!(%satellite, dropped, "results were dropped, oldest first: too many waited");
        }
    }

    /// Delivers one batch, and says how many it was. `stream` is the most bytes of a message that the
    /// stream takes, once it is known to be there.
    async fn deliver(
        &self,
        jetstream: &Context,
        stream: &mut Option<usize>,
    ) -> Result<usize, Held> {
        if self.nats.connection_state() != State::Connected {
            *stream = None;
            return Err(Held::NatsAway);
        }
        let carries = match *stream {
            Some(carries) => carries,
            None => ensure(jetstream).await.map_err(|error| Held::Stream(format!("{error:#}")))?,
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
                info!(satellite = %finding.satellite, config = %finding.config_id,
                    "a result whose assignment was revoked was dropped");
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

    /// Which of these are still allowed by the assignments in force.
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

    /// What waited while nobody knew that it was too much.
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

    /// Publishes these in order and waits until the stream has them; gives back what it has not.
    async fn publish(&self, jetstream: &Context, findings: Vec<Finding>) -> Vec<Finding> {
        let until = Instant::now() + ACK_TIMEOUT;
        let mut sent = Vec::with_capacity(findings.len());
        for finding in findings {
            let message = PublishMessage::build()
                .payload(finding.body.clone())
                .header("Content-Type", "application/json")
                .message_id(finding.message_id());
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
                // A server of a cluster knows the id of a message it did not store, and says so.
                Ok(Ok(ack)) if ack.sequence == 0 => {
                    debug!("a result is said to be a repetition of one that was not stored");
                    Some(finding)
                }
                Ok(Ok(_)) => {
                    self.metrics.result("delivered");
                    None
                }
                Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                    self.metrics.result("too_large");
                    error!(satellite = %finding.satellite, bytes = finding.body.len(),
                        "a result is larger than the NATS server takes: dropped");
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

/// Makes the stream if it is not there. One that an operator made is taken as it is, as long as it
/// has the subject. The most bytes of a message that it takes.
async fn ensure(jetstream: &Context) -> anyhow::Result<usize> {
    match jetstream.get_stream(STREAM).await {
        Ok(stream) => {
            let config = &stream.cached_info().config;
            anyhow::ensure!(
                config.subjects.iter().any(|subject| subject == SUBJECT),
                "it exists without the subject {SUBJECT}: add it"
            );
            // None, or -1, is no limit.
            let largest = usize::try_from(config.max_message_size).unwrap_or(0);
            return Ok(if largest == 0 { usize::MAX } else { largest });
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
        name: STREAM.to_owned(),
        subjects: vec![SUBJECT.to_owned()],
        description: Some("Results of checks, as satellites reported them".to_owned()),
        max_age: MAX_AGE,
        max_bytes: MAX_STREAM_BYTES,
        discard: DiscardPolicy::Old,
        duplicate_window: DUPLICATE_WINDOW,
        ..Config::default()
    };
    jetstream.create_stream(config).await?;
    info!("made the stream {STREAM}");
    Ok(usize::MAX)
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

    fn bodies(results: &Results) -> Vec<Bytes> {
        results.take().into_iter().map(|finding| finding.body).collect()
    }

    #[test]
    fn what_is_put_back_is_first_again() {
        let results = Results::new(Metrics::new());
        for body in ["a", "b", "c"] {
            results.offer(finding(1, body));
        }
        let taken = results.take();
        results.offer(finding(1, "d"));
        results.put_back(taken);
        assert_eq!(bodies(&results), ["a", "b", "c", "d"]);
        assert_eq!(results.lock().bytes, 0);
    }

    #[test]
    fn a_batch_has_so_many_bytes_and_one_that_is_larger_goes_alone() {
        let results = Results::new(Metrics::new());
        let large = "x".repeat(MAX_BATCH_BYTES + 1);
        for body in ["a", "b", &large, "c"] {
            results.offer(finding(1, body));
        }
        let batches: Vec<usize> = (0..4).map(|_| results.take().len()).collect();
        assert_eq!(batches, [2, 1, 1, 0]);
    }

    #[test]
    fn the_oldest_go_first_and_are_counted_for_their_satellite() {
        let results = Results::new(Metrics::new());
        let large = "x".repeat(1024 * 1024);
        results.offer(finding(1, "first"));
        results.offer(finding(2, "second"));
        for _ in 0..32 {
            results.offer(finding(3, &large));
        }
        let id = |n| SatelliteId(Uuid::from_u128(n));
        assert_eq!(results.take_overflowed(), HashMap::from([(id(1), 1), (id(2), 1)]));
        assert_eq!(results.len(), 32);
        for n in 0..MAX_WAITING {
            results.offer(finding(4, &n.to_string()));
        }
        assert_eq!(results.take_overflowed(), HashMap::from([(id(3), 32)]));
        assert_eq!((results.len(), bodies(&results)[0].as_ref()), (MAX_WAITING, &b"0"[..]));
    }

    #[test]
    fn the_same_result_has_the_same_id_and_no_other_has() {
        let id = finding(1, "a").message_id();
        assert_eq!(finding(1, "a").message_id(), id);
        assert_ne!(finding(1, "b").message_id(), id);
        assert_ne!(finding(2, "a").message_id(), id);
    }
}
