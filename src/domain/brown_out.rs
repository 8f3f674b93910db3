//! The brown-out guard. When a large part of the fleet, or of one pod's sessions, goes silent
//! together, the fault is more likely on the way to them than in all of them. Pure.
//!
//! Losses are then held for a bounded time, in which satellites that are alive are heard again.
//! After that all losses are declared. No satellite is held twice for the same silence: a new hold
//! begins only after the part has fallen below the bound in between. How far the part exceeds the
//! bound does not matter: 100 % is treated like 60 %.

use std::time::{Duration, Instant};

/// When losses are held, and how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The part of the sessions, in per cent, beyond which losses are held.
    pub share: u8,
    /// Losses of this many sessions or fewer are never held.
    pub floor: u64,
    /// The longest hold.
    pub hold: Duration,
}

impl Default for Rules {
    /// More than 55 % and more than 20, for a minute.
    fn default() -> Rules {
        Rules { share: 55, floor: 20, hold: Duration::from_secs(60) }
    }
}

/// How many sessions of a group have missed heartbeats.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lateness {
    /// All sessions of the group.
    pub sessions: u64,
    /// Those that have missed a heartbeat: they may be lost soon, or are lost.
    pub late: u64,
}

impl std::ops::Add for Lateness {
    type Output = Lateness;

    fn add(self, other: Lateness) -> Lateness {
        Lateness {
            sessions: self.sessions.saturating_add(other.sessions),
            late: self.late.saturating_add(other.late),
        }
    }
}

impl Lateness {
    fn exceeds(self, rules: &Rules) -> bool {
        self.late > rules.floor
            && u128::from(self.late) * 100 > u128::from(self.sessions) * u128::from(rules.share)
    }
}

/// The guard of one group of sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Guard {
    /// Losses are declared as they are found.
    #[default]
    Calm,
    /// Losses are held.
    Holding {
        /// When the hold began.
        since: Instant,
    },
    /// Losses were held for as long as they may be, and are now declared.
    Spent,
}

impl Guard {
    /// Judges the group at `now`; returns its new state.
    pub fn judge(self, lateness: Lateness, now: Instant, rules: &Rules) -> Guard {
        match self {
            _ if !lateness.exceeds(rules) => Guard::Calm,
            Guard::Calm => Guard::Holding { since: now },
            Guard::Holding { since } if now.duration_since(since) >= rules.hold => Guard::Spent,
            Guard::Holding { .. } | Guard::Spent => self,
        }
    }

    /// Whether losses are held.
    pub fn holds(self) -> bool {
        matches!(self, Guard::Holding { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { share: 55, floor: 20, hold: Duration::from_secs(60) };

    fn lateness(late: u64, sessions: u64) -> Lateness {
        Lateness { sessions, late }
    }

    #[test]
    fn a_large_part_is_held_and_a_small_one_or_a_few_are_not() {
        let cases = [
            (lateness(0, 0), false),
            (lateness(20, 20), false),
            (lateness(21, 21), true),
            (lateness(55, 100), false),
            (lateness(56, 100), true),
            (lateness(60, 100), true),
            (lateness(100, 100), true),
            (lateness(u64::MAX, u64::MAX), true),
        ];
        for (lateness, held) in cases {
            let guard = Guard::Calm.judge(lateness, Instant::now(), &RULES);
            assert_eq!(guard.holds(), held, "{lateness:?}");
        }
    }

    #[test]
    fn a_hold_ends_in_time_and_begins_anew_only_after_it_was_calm() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (many, few) = (lateness(60, 100), lateness(10, 100));
        let holding = Guard::Calm.judge(many, start, &RULES);
        assert_eq!(holding.judge(many, at(59), &RULES), holding);
        let spent = holding.judge(many, at(60), &RULES);
        assert_eq!(spent, Guard::Spent);
        assert_eq!(spent.judge(many, at(600), &RULES), Guard::Spent);
        assert_eq!(spent.judge(few, at(601), &RULES), Guard::Calm);
        assert_eq!(holding.judge(few, at(30), &RULES), Guard::Calm, "they came back");
        assert!(Guard::Calm.judge(many, at(602), &RULES).holds());
    }
}
