//! The rules by which a pod vouches for its sessions, so that their heartbeats need not be written. Pure.
//!
//! A pod says again and again that it heard every session it vouches for within its window
//! (`watermark::observe`). So the row of such a session is not written while its heartbeats arrive. A session
//! that was not heard for a window is an exception: its row gets the exact time before the pod says so the
//! next time. The answer to a statement confirms what a row says. Until the answer, or if none came, the row
//! may say either ([`Recorded::Unknown`]), and the pod provides for both: it writes the session's heartbeats,
//! and it treats the session as an exception.

use std::time::Duration;

use crate::platform::database_clock::Moment;

/// What the row of a session says about when it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// The exact time.
    Exact,
    /// That its pod vouches for it.
    Vouched,
    /// One or the other.
    Unknown,
}

impl Recorded {
    /// Whether the next heartbeat must be written.
    pub fn needs_heartbeats(self) -> bool {
        self != Recorded::Vouched
    }

    /// Whether the row may say that the session is vouched for.
    pub fn may_be_vouched(self) -> bool {
        self != Recorded::Exact
    }
}

/// Whether a session with this threshold can be vouched for: two windows must be shorter than the threshold,
/// so that the session is an exception long before it is due.
pub fn can_vouch(threshold: Duration, window: Duration) -> bool {
    threshold >= window * 2
}

/// Whether a session that was heard at `heard` was heard within the window before `moment`.
pub fn is_within(window: Duration, heard: Moment, moment: Moment) -> bool {
    moment.since(heard) <= window
}
