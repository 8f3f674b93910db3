//! What a pod vouches for: the rules by which a heartbeat need not be written. Pure.
//!
//! A pod says again and again that every session of its that it vouches for was heard within its window
//! (`watermark::observe`). So the row of such a session need not be touched while the satellite beats.
//! A session that was not heard for a window is an exception: its row gets the exact time, before the pod
//! says the next such thing. What a row says is known by the answer to the statement that wrote it; until
//! then, and where no answer came, it may say either ([`Recorded::Unknown`]), and both hold: its heartbeats
//! are written, and it becomes an exception.

use std::time::Duration;

use crate::platform::database_clock::Moment;

/// What the row of a session says of when it was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// When exactly.
    Exact,
    /// That its pod vouches for it.
    Vouched,
    /// One or the other.
    Unknown,
}

impl Recorded {
    /// Whether the next heartbeat is to be written.
    pub fn needs_heartbeats(self) -> bool {
        self != Recorded::Vouched
    }

    /// Whether the row may say that the session is vouched for.
    pub fn may_be_vouched(self) -> bool {
        self != Recorded::Exact
    }
}

/// Whether a session with this threshold can be vouched for: two windows are less than its time, so that
/// it is an exception long before it is due.
pub fn can_vouch(threshold: Duration, window: Duration) -> bool {
    threshold >= window * 2
}

/// Whether a session that was heard at `heard` was heard within the window before `moment`.
pub fn is_within(window: Duration, heard: Moment, moment: Moment) -> bool {
    moment.since(heard) <= window
}
