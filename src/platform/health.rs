//! A pod's own state, for `/readyz`.
//!
//! A pod is ready while the database can be written and it is not draining. NATS does not count:
//! without it edges are still appended, and wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

/// Shared by all parts that know a piece of it.
#[derive(Default)]
pub struct Health {
    database: AtomicBool,
    appends_fail: AtomicBool,
    nats: AtomicBool,
    draining: CancellationToken,
    relay: Mutex<RelayState>,
    brown_outs: Mutex<Vec<BrownOut>>,
}

/// A large part of some sessions went silent together. Their losses are held for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BrownOut {
    /// The sessions it covers.
    pub scope: String,
    /// How many sessions there are.
    pub sessions: u64,
    /// How many of them went silent.
    pub late: u64,
}

/// What the relay of this pod is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, ToSchema)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RelayState {
    /// Another pod relays, or none does yet.
    #[default]
    Standby,
    /// This pod relays.
    Leading,
    /// This pod should relay but cannot, because NATS does not answer as it should.
    Waiting {
        /// The obstacle.
        reason: String,
    },
    /// Stream and log contradict each other. An operator has to decide.
    Halted {
        /// The contradiction.
        reason: String,
    },
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Report {
    /// Whether the pod takes satellites.
    pub ready: bool,
    /// Whether the database can be written.
    pub database: &'static str,
    /// Whether NATS is connected. The pod is ready without it.
    pub nats: &'static str,
    /// Whether the pod is shutting down.
    pub draining: bool,
    /// What the relay of this pod is doing.
    pub relay: RelayState,
    /// Losses that are held. The pod is ready all the same.
    #[serde(rename = "brownOut")]
    pub brown_outs: Vec<BrownOut>,
}

impl Health {
    /// The pod begins to shut down. From this moment it is not ready and accepts no connection.
    pub fn drain(&self) {
        self.draining.cancel();
    }

    /// Whether the pod is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits until the pod begins to shut down.
    pub async fn drained(&self) {
        self.draining.cancelled().await;
    }

    /// Stores what the relay is doing; returns whether that is news.
    pub fn relay(&self, state: RelayState) -> bool {
        let mut relay = self.relay.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *relay != state;
        *relay = state;
        news
    }

    /// Stores which losses the monitor holds.
    pub fn brown_out(&self, held: Vec<BrownOut>) {
        *self.brown_outs.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }

    /// Stores whether the probe could write the database; returns whether that is news.
    pub fn database(&self, writable: bool) -> bool {
        self.database.swap(writable, Ordering::Relaxed) != writable
    }

    /// Stores whether appends fail: a database can take the probe's row and have no room for one
    /// more transition. Returns whether that is news.
    pub fn appends_fail(&self, fail: bool) -> bool {
        self.appends_fail.swap(fail, Ordering::Relaxed) != fail
    }

    fn is_writable(&self) -> bool {
        self.database.load(Ordering::Relaxed) && !self.appends_fail.load(Ordering::Relaxed)
    }

    /// Stores whether NATS is connected.
    pub fn nats(&self, up: bool) {
        self.nats.store(up, Ordering::Relaxed);
    }

    /// The whole state.
    pub fn report(&self) -> Report {
        let word = |up: bool| if up { "up" } else { "down" };
        let (writable, draining) = (self.is_writable(), self.is_draining());
        Report {
            ready: writable && !draining,
            database: word(writable),
            nats: word(self.nats.load(Ordering::Relaxed)),
            draining,
            relay: self.relay.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            brown_outs: self.brown_outs.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_ready_while_the_database_can_be_written_and_it_is_not_draining() {
        let health = Health::default();
        assert!(!health.report().ready);
        assert!(health.database(true));
        assert!(!health.database(true));
        assert!(health.report().ready, "NATS does not count");
        assert!(health.appends_fail(true));
        assert_eq!((health.report().ready, health.report().database), (false, "down"));
        assert!(health.appends_fail(false));
        assert!(health.report().ready);
        health.drain();
        assert!(!health.report().ready);
    }

    #[test]
    fn the_reason_of_a_halt_is_told() {
        let health = Health::default();
        let reason = "stream is ahead".to_owned();
        assert!(health.relay(RelayState::Halted { reason: reason.clone() }));
        assert!(!health.relay(RelayState::Halted { reason }));
        let json = serde_json::to_value(health.report()).expect("json");
        assert_eq!(json["relay"]["state"], "halted");
        assert_eq!(json["relay"]["reason"], "stream is ahead");
    }
}
