//! The sandbox policy of scripts on satellites. It belongs to another backend, which is asked over NATS.
//!
//! Agents of later versions deny scripts the network until they receive a policy. A responder on
//! `satellite.sandbox-policy` has it. If there is no answer in time, satellites are sent none.

use std::time::Duration;

use async_nats::connection::State;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use crate::platform::metrics::Metrics;

const SUBJECT: &str = "satellite.sandbox-policy";

/// How long the backend may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long one answer is reused: many satellites connect at once.
const AGE: Duration = Duration::from_secs(1);

/// The same for a missing answer: every caller waits until the time-out.
const AGE_OF_SILENCE: Duration = Duration::from_secs(30);

/// The most bytes of a policy.
const MAX_BYTES: usize = 64 * 1024;

pub struct Sandbox {
    nats: async_nats::Client,
    metrics: Metrics,
    /// The last answer and until when it is reused. Callers wait for the same answer.
    known: Mutex<Option<(Instant, Option<Box<RawValue>>)>>,
}

impl Sandbox {
    pub fn new(nats: async_nats::Client, metrics: Metrics) -> Sandbox {
        Sandbox { nats, metrics, known: Mutex::new(None) }
    }

    /// The policy, at most [`AGE`] old; none if the backend gives none.
    pub async fn policy(&self) -> Option<Box<RawValue>> {
        let mut known = self.known.lock().await;
        if let Some((until, policy)) = &*known
            && Instant::now() < *until
        {
            return policy.clone();
        }
        let (policy, outcome) = self.ask().await;
        self.metrics.asked(SUBJECT, outcome);
        let age = if outcome == "timeout" { AGE_OF_SILENCE } else { AGE };
        *known = Some((Instant::now() + age, policy.clone()));
        policy
    }

    async fn ask(&self) -> (Option<Box<RawValue>>, &'static str) {
        #[derive(Deserialize)]
        struct Answer {
            policy: Option<Box<RawValue>>,
        }
        if self.nats.connection_state() != State::Connected {
            return (None, "nats_away");
        }
        let message = match timeout(TIMEOUT, self.nats.request(SUBJECT, "{}".into())).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) if error.kind() == async_nats::RequestErrorKind::NoResponders => {
                return (None, "no_responders");
            }
            Ok(Err(error)) => {
                debug!(%error, "no answer on {SUBJECT}");
                return (None, "failed");
            }
            Err(_) => return (None, "timeout"),
        };
        if message.payload.len() > MAX_BYTES {
            warn!(bytes = message.payload.len(), "the answer on {SUBJECT} is too large");
            return (None, "too_large");
        }
        match serde_json::from_slice::<Answer>(&message.payload) {
            Ok(Answer { policy: None }) => (None, "answered"),
            Ok(Answer { policy: Some(policy) }) if policy.get().starts_with('{') => {
                (Some(policy), "answered")
            }
            _ => {
                warn!("the answer on {SUBJECT} is not valid");
                (None, "malformed")
            }
        }
    }
}
