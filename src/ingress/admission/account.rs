//! What is remembered of an origin or a network.

use std::time::Duration;

use tokio::time::Instant;

use super::room::Kind;
use crate::ingress::recent::Recent;
use crate::platform::bucket::{Bucket, Rate};

/// The time in which half of the remembered successes, or failures, is forgotten.
pub(super) const SUCCESSES_FADE: Duration = Duration::from_secs(15 * 60);
pub(super) const FAILURES_FADE: Duration = Duration::from_secs(2 * 60);

/// Wrong administrators' tokens of one origin: more than a person mistypes.
pub(super) const WRONG_TOKENS: Rate = Rate { burst: 10.0, per_second: 0.2 };

/// What is known of an origin or a network.
pub(super) struct Account {
    /// The slots of its places.
    connections: Vec<usize>,
    handshakes: Vec<usize>,
    pub(super) failures: Bucket,
    /// Wrong administrators' tokens.
    pub(super) wrong_tokens: Bucket,
    /// Connections that failed or were silent lately.
    pub(super) failed: Recent,
    pub(super) silent: Recent,
    pub(super) proven: Recent,
}

impl Account {
    pub(super) fn new(rate: Rate, now: Instant) -> Account {
        Account {
            connections: Vec::new(),
            handshakes: Vec::new(),
            failures: Bucket::full(rate, now),
            wrong_tokens: Bucket::full(WRONG_TOKENS, now),
            failed: Recent::never(now),
            silent: Recent::never(now),
            proven: Recent::never(now),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.connections.is_empty() && self.handshakes.is_empty()
    }

    pub(super) fn is_proven(&self, now: Instant) -> bool {
        self.proven.is_any(SUCCESSES_FADE, now)
    }

    pub(super) fn has_nothing(&mut self, now: Instant) -> bool {
        self.is_idle()
            && !self.is_proven(now)
            && !self.failed.is_any(FAILURES_FADE, now)
            && self.wrong_tokens.is_full(WRONG_TOKENS, now)
    }

    pub(super) fn slots(&self, kind: Kind) -> &[usize] {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Handshake => &self.handshakes,
        }
    }

    pub(super) fn slots_mut(&mut self, kind: Kind) -> &mut Vec<usize> {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Handshake => &mut self.handshakes,
        }
    }
}

/// The state of an origin at admission.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    /// How many satellites authenticated from there lately, fading.
    pub(super) proven: f32,
    pub(super) is_proven: bool,
    /// An authentication from there failed lately, and none succeeded.
    pub(super) is_suspect: bool,
}
