//! How a socket ended, and what that means for its session.

use std::time::Duration;

use crate::domain::lifecycle::{Reason, SessionKey};
use crate::sessions::table::Command;

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The satellite sent a close frame.
    ClientClose,
    /// The connection broke.
    Dropped,
    /// The satellite broke the protocol's framing: closed with this code.
    Violation(u16),
    /// Nothing was heard for longer than a living satellite may be silent.
    Silent,
    /// The satellite does not read what it is sent.
    Stuck,
    /// The satellite was let in, but its desired state cannot be read: the service's fault.
    Unavailable,
    /// Another part of the pod ended it.
    Told(Command),
    /// The pod is draining. No edge is appended: the satellite comes back at another pod.
    Drain,
    /// The session's task panicked.
    Panicked,
}

/// The reason of the edge that an end leads to. A session that was superseded or removed has its edge
/// already. For a draining pod none is appended: either the satellite comes back, or the monitor declares it
/// lost.
pub(super) fn reason(end: End) -> Option<Reason> {
    match end {
        End::ClientClose => Some(Reason::ClientClose),
        End::Dropped | End::Violation(_) | End::Silent | End::Stuck | End::Panicked => {
            Some(Reason::ConnectionDropped)
        }
        End::Unavailable => Some(Reason::Shutdown),
        // No change if the rotation has ended the session already.
        End::Told(Command::TokenRotated) => Some(Reason::TokenRotated),
        End::Told(Command::Superseded | Command::Removed) | End::Drain => None,
    }
}

/// A moment within `over`, different for each session, so that a pod's satellites do not all come back at the
/// same instant.
pub(super) fn spread(key: SessionKey, over: Duration) -> Duration {
    let (high, low) = key.satellite.0.as_u64_pair();
    let mixed = (high ^ low ^ key.session.0.unsigned_abs()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    over.mul_f64((mixed >> 11) as f64 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::lifecycle::{SatelliteId, Session};

    #[test]
    fn only_an_end_of_the_satellites_own_is_an_edge() {
        let cases = [
            (End::ClientClose, Some(Reason::ClientClose)),
            (End::Dropped, Some(Reason::ConnectionDropped)),
            (End::Violation(1009), Some(Reason::ConnectionDropped)),
            (End::Silent, Some(Reason::ConnectionDropped)),
            (End::Stuck, Some(Reason::ConnectionDropped)),
            (End::Panicked, Some(Reason::ConnectionDropped)),
            (End::Unavailable, Some(Reason::Shutdown)),
            (End::Told(Command::TokenRotated), Some(Reason::TokenRotated)),
            (End::Told(Command::Superseded), None),
            (End::Told(Command::Removed), None),
            (End::Drain, None),
        ];
        for (end, expected) in cases {
            assert_eq!(reason(end), expected, "{end:?}");
        }
    }

    #[test]
    fn goodbyes_are_spread_over_the_whole_time() {
        let over = Duration::from_secs(10);
        let key = |n: u128| {
            let satellite = SatelliteId(Uuid::from_u128(n * 7_919));
            SessionKey { satellite, session: Session(1) }
        };
        let moments: Vec<Duration> = (0..1_000).map(|n| spread(key(n), over)).collect();
        assert!(moments.iter().all(|moment| *moment < over));
        for tenth in 0..10 {
            let from = Duration::from_secs(tenth);
            let here = moments.iter().filter(|m| (from..from + over / 10).contains(*m)).count();
            assert!(here > 50, "{here} in tenth {tenth}");
        }
    }
}
