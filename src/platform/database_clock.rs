//! The database's clock, as far as a pod knows it: which moment here was which moment there.
//!
//! Only the database's clock decides, and a pod learns of it by round trips. A round trip was sent
//! here at `sent`, read `told` there and was answered here at `answered`. It proves that the clock
//! there showed `told` at some moment between the two. So the clock there was between
//! `told - answered` and `told - sent` when the clock here was zero. The pod keeps what all round
//! trips agree on. If a round trip contradicts those before it, a clock was set (or the two drift),
//! and the newest one counts.
//!
//! This bounds the error of a time ([`DatabaseClock::time_of`]). The truth and the kept value both
//! lie within the bounds of the newest round trip, so the error is at most the length of that round
//! trip, and less if an earlier one was faster. A statement that waits for a lock or in a socket,
//! or a pod that stands still, makes one round trip long and its bounds wide; nothing known is
//! lost. Within the bounds the latest value is taken. A heartbeat may seem younger than it is by
//! part of a round trip. It never seems older, but for the clocks' drift since, so our rounding
//! makes no false alarm. What a pod vouches for takes the earliest value instead
//! ([`DatabaseClock::least_time_of`]): a pod must not vouch for too much.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use time::OffsetDateTime;

/// A clock that cannot be set and that goes on while the machine is suspended. The clock of
/// [`std::time::Instant`] stops on Linux, and a heartbeat from before would seem to be from after.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

/// A moment of this machine, since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Duration);

impl Moment {
    /// This moment.
    pub fn now() -> Moment {
        let time = clock_gettime(CLOCK);
        let part = |n: i64| u64::try_from(n).unwrap_or(0);
        Moment(Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec)))
    }

    /// In microseconds. A later moment on this machine has a greater number, until the machine
    /// restarts.
    pub fn number(self) -> i64 {
        i64::try_from(self.0.as_micros()).unwrap_or(i64::MAX)
    }

    /// How long this is after `earlier`; zero if it is not after it.
    pub fn since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// What a pod knows of the database clock, by its own.
#[derive(Default)]
pub struct DatabaseClock {
    known: Mutex<Option<Bounds>>,
}

/// The bounds of what the database's clock showed when ours was zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    earliest: OffsetDateTime,
    latest: OffsetDateTime,
}

impl DatabaseClock {
    /// Notes a round trip that was sent at `sent`, read `told` from the database's clock, and was
    /// answered at `answered`.
    pub fn note(&self, sent: Moment, told: OffsetDateTime, answered: Moment) {
        let newest = Bounds { earliest: told - answered.0, latest: told - sent.0 };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some(known.map_or(newest, |known| known.and(newest)));
    }

    /// The least that the database's clock can have shown at a moment: what holds up to that moment
    /// must not be claimed for a later one. None before the first round trip.
    pub fn least_time_of(&self, moment: Moment) -> Option<OffsetDateTime> {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.map(|known| known.earliest + moment.0)
    }

    /// What the database's clock showed at a moment; the moment was before it showed `now`.
    pub fn time_of(&self, moment: Moment, now: OffsetDateTime) -> OffsetDateTime {
        let known = *self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.map_or(now, |known| (known.latest + moment.0).min(now))
    }
}

impl Bounds {
    /// What both agree on, or the newest if they contradict each other. If the newest is later, it
    /// counts as no later than it must be: clocks that drift contradict what is known by
    /// microseconds, and a round trip that took seconds must not shift a time by seconds.
    fn and(self, newest: Bounds) -> Bounds {
        let earliest = self.earliest.max(newest.earliest);
        let latest = self.latest.min(newest.latest);
        if earliest <= latest {
            return Bounds { earliest, latest };
        }
        Bounds { latest: newest.latest.min(earliest), ..newest }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    /// What the database's clock shows when ours is zero.
    const ZERO: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);

    fn at(seconds: f64) -> Moment {
        Moment(Duration::from_secs_f64(seconds))
    }

    fn there(seconds: f64) -> OffsetDateTime {
        ZERO + time::Duration::seconds_f64(seconds)
    }

    const NEVER: OffsetDateTime = datetime!(9999-01-01 00:00:00 UTC);

    #[test]
    fn a_long_round_trip_takes_nothing_from_what_is_known() {
        let clock = DatabaseClock::default();
        clock.note(at(10.0), there(10.001), at(10.002));
        clock.note(at(20.0), there(24.9), at(25.0));
        assert_eq!(clock.time_of(at(20.0), NEVER), there(20.001));
        clock.note(at(30.0), there(30.0), at(35.0));
        assert_eq!(clock.time_of(at(30.0), NEVER), there(30.0));
    }

    #[test]
    fn a_clock_that_was_set_is_believed_at_once() {
        let clock = DatabaseClock::default();
        clock.note(at(10.0), there(10.001), at(10.002));
        clock.note(at(20.0), there(3_620.001), at(20.002));
        assert_eq!(clock.time_of(at(20.0), NEVER), there(3_619.999));
        clock.note(at(30.0), there(30.001), at(30.002));
        assert_eq!(clock.time_of(at(30.0), NEVER), there(30.001));
    }

    #[test]
    fn a_long_round_trip_over_which_clocks_drifted_makes_no_time_later_than_that() {
        let clock = DatabaseClock::default();
        clock.note(at(10.0), there(10.0), at(10.000_001));
        clock.note(at(20.0), there(28.000_1), at(28.0));
        let (latest, least) = (clock.time_of(at(20.0), NEVER), clock.least_time_of(at(20.0)));
        assert_eq!((latest, least), (there(20.000_1), Some(there(20.000_1))));
    }

    #[test]
    fn the_least_time_is_never_after_the_truth() {
        let clock = DatabaseClock::default();
        assert_eq!(clock.least_time_of(at(10.0)), None);
        // It was read at its beginning and answered eight seconds later: all of that may have been
        // before.
        clock.note(at(10.0), there(10.0), at(18.0));
        assert_eq!(clock.least_time_of(at(10.0)), Some(there(2.0)));
        clock.note(at(20.0), there(20.001), at(20.002));
        assert_eq!(clock.least_time_of(at(20.0)), Some(there(19.999)));
    }

    #[test]
    fn nothing_that_happened_is_in_the_future() {
        let clock = DatabaseClock::default();
        assert_eq!(clock.time_of(at(10.0), there(10.5)), there(10.5), "nothing is known yet");
        clock.note(at(10.0), there(14.0), at(15.0));
        assert_eq!(clock.time_of(at(10.0), there(13.0)), there(13.0));
    }

    proptest! {
        /// For any round trips and any drift of the clocks.
        #[test]
        fn a_time_is_off_by_no_more_than_the_newest_round_trip(
            trips in proptest::collection::vec((0.0..10.0f64, 0.0..1.0f64, 0.0..5.0f64), 1..50),
            drift in -0.001..0.001f64,
        ) {
            let truth = |moment: f64| there(moment * (1.0 + drift));
            let clock = DatabaseClock::default();
            let mut now = 0.0;
            for (pause, read, length) in trips {
                let sent = now + pause;
                now = sent + length;
                clock.note(at(sent), truth(sent + read * length), at(now));
                let off = clock.time_of(at(now), NEVER) - truth(now);
                prop_assert!(off.as_seconds_f64().abs() <= length + 1e-6, "{off} after {length}");
            }
        }
    }
}
