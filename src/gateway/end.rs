//! How a socket came to its end, and what that means for its session.

use std::time::Duration;

use crate::domain::lifecycle::{Reason, SessionKey};
use crate::sessions::table::Command;

/// How a socket came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The satellite sent a close frame.
    ClientClose,
    /// The connection broke.
    Dropped,
    /// The satellite broke the protocol's framing: closed with this code.
    Violation(u16),
    /// Nothing was heard for so long that nobody can be there.
    Silent,
    /// The satellite does not read what it is sent.
    Stuck,
    /// It was let in, and now there is no telling it what to do: the service's fault.
    Unavailable,
    /// Somebody else in the pod said so.
    Told(Command),
    /// The pod is draining: no edge, the satellite comes back elsewhere.
    Drain,
    /// A fault of ours in the middle of it.
    Panicked,
}

/// The edge an end leads to. A session that was superseded or removed has its edge already; a
/// draining pod leaves it to the satellite to come back, or to the monitor to tell the truth.
pub(super) fn reason(end: End) -> Option<Reason> {
    match end {
        End::ClientClose => Some(Reason::ClientClose),
        End::Dropped | End::Violation(_) | End::Silent | End::Stuck | End::Panicked => {
            Some(Reason::ConnectionDropped)
        }
        End::Unavailable => Some(Reason::Shutdown),
        // Where the rotation has ended it already this changes nothing.
        End::Told(Command::TokenRotated) => Some(Reason::TokenRotated),
        End::Told(Command::Superseded | Command::Removed) | End::Drain => None,
    }
}

/// A moment within `over`, different for each session: a whole pod's satellites do not come back
/// in the same instant.
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
