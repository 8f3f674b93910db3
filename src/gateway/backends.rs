//! What sessions pass on to other backends and ask of them, and the bounds on it.

use std::sync::Arc;

use async_nats::connection::State;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::gateway::backends::packages::Packages;
use crate::gateway::backends::results::Results;
use crate::gateway::backends::sandbox::Sandbox;
use crate::gateway::backends::secrets::Provider;
use crate::gateway::backends::wanted::Wanted;
use crate::platform::database::Database;
use crate::platform::log_gate::LogGate;
use crate::platform::metrics::{Counted, Metrics};

pub(crate) mod body;
pub(crate) mod packages;
pub(crate) mod results;
pub(crate) mod run_secrets;
pub(crate) mod sandbox;
pub(crate) mod secrets;
pub(crate) mod wanted;

/// Questions of satellites that one pod has open at once; further ones wait.
const MAX_QUESTIONS: usize = 256;

/// The bytes of all questions that wait in one pod, except the first few of each session.
const MAX_WAITING_BYTES: usize = 16 * 1024 * 1024;

/// Shared by all sessions of a pod.
pub struct Backends {
    /// Where results go.
    pub results: Arc<Results>,
    /// The source of script packages.
    pub packages: Arc<Packages>,
    /// The source of secrets.
    pub secrets: Provider,
    /// Where the assignments in force are stored.
    pub database: Database,
    /// The source of the sandbox policy.
    pub sandbox: Sandbox,
    /// Which subjects are kept by a stream; messages on the others are not passed on.
    pub wanted: Arc<Wanted>,
    /// The places for open questions.
    pub questions: Arc<Semaphore>,
    /// The memory for questions that wait, in bytes.
    room_to_wait: Arc<Semaphore>,
    /// Bounds the log lines about questions that cannot be answered.
    pub complaints: Arc<LogGate>,
    nats: async_nats::Client,
    metrics: Metrics,
}

impl Backends {
    pub fn new(
        results: Arc<Results>,
        packages: Arc<Packages>,
        secrets: Provider,
        database: Database,
        nats: async_nats::Client,
        complaints: Arc<LogGate>,
        metrics: Metrics,
    ) -> Backends {
        Backends {
            results,
            packages,
            secrets,
            database,
            sandbox: Sandbox::new(nats.clone(), metrics.clone()),
            wanted: Arc::default(),
            questions: Arc::new(Semaphore::new(MAX_QUESTIONS)),
            room_to_wait: Arc::new(Semaphore::new(MAX_WAITING_BYTES)),
            complaints,
            nats,
            metrics,
        }
    }

    /// Reserves memory for a waiting question of `bytes` bytes, until dropped; none if there is not enough.
    pub fn room_to_wait(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        self.room_to_wait.clone().try_acquire_many_owned(bytes).ok()
    }

    /// Counts a waiting question, until dropped.
    pub fn question_waits(&self) -> Counted {
        Counted::on(&self.metrics.questions_waiting)
    }

    /// Counts a question that was not answered in time.
    pub fn question_was_late(&self) {
        self.metrics.dropped("late_question");
    }

    /// Publishes on core NATS, at most once, and returns whether it was sent. While NATS is away or its queue
    /// is full, the message is counted and dropped. Never blocks.
    pub fn pass_on(&self, subject: &'static str, body: Bytes) -> bool {
        let outcome = if self.nats.connection_state() != State::Connected {
            "nats_away"
        } else if body.len() > self.nats.max_payload() {
            "too_large"
        } else {
            match self.nats.publish(subject, body).now_or_never() {
                Some(Ok(())) => "sent",
                Some(Err(_)) => "failed",
                None => "busy",
            }
        };
        self.metrics.passed_on(subject, outcome);
        outcome == "sent"
    }
}
