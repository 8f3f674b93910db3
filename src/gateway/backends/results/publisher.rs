//! Publishes the results that wait, a batch at a time, once each of them is still allowed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, Context};
use deadpool_postgres::Object;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::domain::cell::{self, Cell};
use crate::gateway::backends::body;
use crate::gateway::backends::results::stream::{self, STREAM, SUBJECT};
use crate::gateway::backends::results::{Finding, HEADER_BYTES, Results};
use crate::platform::database::{Database, Failed};
use crate::platform::log_gate::LogGate;
use crate::platform::metrics::Metrics;
use crate::platform::replicas::{Replicas, Replication};
use crate::registry::assignments;

/// How many satellites with dropped results are named at once; the others are summed up.
const TOLD_AT_ONCE: usize = 20;

/// How long the stream may take to acknowledge.
const ACK_TIMEOUT: Duration = Duration::from_secs(5);

/// The pause after a failure, and the interval at which NATS is checked.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a pod that ends still delivers waiting results.
const LAST_EFFORT: Duration = Duration::from_secs(5);

/// How often dropped results are logged.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

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
        let mut carries = None;
        let mut replication = Replication::of(STREAM, self.replicas);
        let mut held = false;
        let mut told_at = Instant::now();
        let mut last_effort = None;
        loop {
            let delivered = self.deliver(&jetstream, &mut carries, &mut replication).await;
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

    /// Delivers one batch and returns its size. `known` is the largest message that the stream takes, once
    /// the stream is known to exist.
    async fn deliver(
        &self,
        jetstream: &Context,
        known: &mut Option<usize>,
        replication: &mut Replication,
    ) -> Result<usize, Held> {
        if self.nats.connection_state() != State::Connected {
            *known = None;
            return Err(Held::NatsAway);
        }
        let carries = match *known {
            Some(carries) => carries,
            None => {
                let info = stream::ensure(jetstream, replication).await;
                let info = info.map_err(|error| Held::Stream(format!("{error:#}")))?;
                replication.look(&info, &self.metrics);
                stream::largest_message(&info)
            }
        };
        *known = Some(carries);
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
        *known = None;
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
