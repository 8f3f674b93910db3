//! What sessions pass on to others and ask of others, and the bounds on it.

use std::sync::Arc;

use async_nats::connection::State;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::Semaphore;

use crate::database::Database;
use crate::metrics::Metrics;
use crate::packages::Packages;
use crate::results::Results;
use crate::secrets::Provider;

/// Questions of satellites that one pod has open at once; more get the answer that says nothing.
const MAX_QUESTIONS: usize = 256;

/// Shared by all sessions of a pod.
pub struct Backends {
    /// Where results go.
    pub results: Arc<Results>,
    /// Who knows the script packages.
    pub packages: Arc<Packages>,
    /// Who knows the secrets.
    pub secrets: Provider,
    /// Where the assignments in force are.
    pub database: Database,
    /// The places for questions.
    pub questions: Arc<Semaphore>,
    nats: async_nats::Client,
    metrics: Metrics,
}

impl Backends {
    /// Over these connections.
    pub fn new(
        results: Arc<Results>,
        packages: Arc<Packages>,
        secrets: Provider,
        database: Database,
        nats: async_nats::Client,
        metrics: Metrics,
    ) -> Backends {
        let questions = Arc::new(Semaphore::new(MAX_QUESTIONS));
        Backends { results, packages, secrets, database, questions, nats, metrics }
    }

    /// Publishes on core NATS, once at most: while NATS is away, or takes no more, it is counted and
    /// dropped. Never blocks.
    pub fn pass_on(&self, subject: &'static str, body: Bytes) {
        let outcome = if self.nats.connection_state() != State::Connected {
            "nats_away"
        } else {
            match self.nats.publish(subject, body).now_or_never() {
                Some(Ok(())) => "sent",
                Some(Err(_)) => "failed",
                None => "busy",
            }
        };
        self.metrics.passed_on(subject, outcome);
    }
}
