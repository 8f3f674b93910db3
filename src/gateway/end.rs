//! How a socket ended, and what that means for its session.

use std::time::Duration;

use crate::domain::lifecycle::{Reason, Session, SessionKey};
use crate::registry::desired::DesiredState;
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
        // No change if the administrator's call has ended the session already.
        End::Told(Command::TokenRotated) => Some(Reason::TokenRotated),
        End::Told(Command::Kicked) => Some(Reason::Kicked),
        End::Told(Command::Disabled) => Some(Reason::Disabled),
        End::Told(Command::Superseded | Command::Removed) | End::Drain => None,
    }
}

/// Whether a session that came in with this token may stay; how it ends if not.
pub(super) fn may_stay(
    desired: &DesiredState,
    session: Session,
    token_version: i64,
) -> Result<(), End> {
    let valid = [desired.token_version, desired.previous_token];
    let command = if desired.token_version.is_none() {
        Command::Removed
    } else if desired.disabled {
        Command::Disabled
    } else if desired.ended_session >= Some(session) {
        Command::Kicked
    } else if !valid.contains(&Some(token_version)) {
        Command::TokenRotated
    } else {
        return Ok(());
    };
    Err(End::Told(command))
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
    use crate::domain::lifecycle::SatelliteId;
    use crate::registry::assignments::Assigned;

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
            (End::Told(Command::Kicked), Some(Reason::Kicked)),
            (End::Told(Command::Disabled), Some(Reason::Disabled)),
            (End::Told(Command::Superseded), None),
            (End::Told(Command::Removed), None),
            (End::Drain, None),
        ];
        for (end, expected) in cases {
            assert_eq!(reason(end), expected, "{end:?}");
        }
    }

    #[test]
    fn a_session_stays_while_its_token_is_valid_and_nobody_has_ended_it() {
        let present = DesiredState {
            change: 1,
            token_version: Some(3),
            previous_token: None,
            disabled: false,
            ended_session: None,
            label: String::new(),
            threshold_ms: None,
            assigned: Assigned::nothing().expect("a list"),
            sent_version: None,
        };
        let overlaps = || DesiredState { previous_token: Some(2), ..present.clone() };
        let ended = |session| DesiredState { ended_session: Some(Session(session)), ..overlaps() };
        let disabled = || DesiredState { disabled: true, ..ended(7) };
        let removed = DesiredState { token_version: None, previous_token: None, ..present.clone() };
        let cases = [
            (present.clone(), 3, None),
            (present.clone(), 2, Some(Command::TokenRotated)),
            (overlaps(), 3, None),
            (overlaps(), 2, None),
            (overlaps(), 1, Some(Command::TokenRotated)),
            (ended(6), 3, None),
            (ended(7), 3, Some(Command::Kicked)),
            (ended(8), 3, Some(Command::Kicked)),
            (disabled(), 3, Some(Command::Disabled)),
            (removed, 3, Some(Command::Removed)),
        ];
        for (n, (desired, token, expected)) in cases.into_iter().enumerate() {
            let found = may_stay(&desired, Session(7), token);
            assert_eq!(found.err(), expected.map(End::Told), "case {n}");
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
