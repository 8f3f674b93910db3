//! When a delivery that failed is tried again, and when no more.

use std::time::Duration;

/// How often a message is tried at least by a forwarder that comes to it late.
const LEAST_ATTEMPTS: u32 = 8;

/// The longest that a receiver may ask to be left alone.
pub const LONGEST_WISH: Duration = Duration::from_secs(24 * 60 * 60);

/// The pauses between attempts, and their end.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// The pause after the first failure; each next one is twice as long.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// How old a message may be before it is given up.
    pub give_up_after: Duration,
}

impl Retry {
    /// The pause after so many failed attempts (at least one) at a message of this age; none if it is given up.
    /// `wished` is what the receiver asked for, `chance` is from 0 to 1: a pause is from half as long to as long as it
    /// may be, so that many satellites do not come back at once.
    pub fn pause(
        &self,
        attempts: u32,
        age: Duration,
        wished: Option<Duration>,
        chance: f64,
    ) -> Option<Duration> {
        if age >= self.give_up_after && attempts >= LEAST_ATTEMPTS {
            return None;
        }
        let doubled = self.first.saturating_mul(1 << attempts.saturating_sub(1).min(30));
        let pause = doubled.min(self.longest).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0);
        Some(pause.max(wished.unwrap_or_default().min(LONGEST_WISH)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const RETRY: Retry = Retry {
        first: SECOND,
        longest: Duration::from_secs(600),
        give_up_after: Duration::from_secs(259_200),
    };

    #[test]
    fn pauses_double_up_to_the_longest_and_chance_halves_them_at_most() {
        let pauses = |chance: f64| {
            let pause = |n| RETRY.pause(n, SECOND, None, chance).expect("again").as_secs_f64();
            [1, 2, 3, 10, 11, 1_000, u32::MAX].map(pause)
        };
        assert_eq!(pauses(1.0), [1.0, 2.0, 4.0, 512.0, 600.0, 600.0, 600.0]);
        assert_eq!(pauses(0.0), [0.5, 1.0, 2.0, 256.0, 300.0, 300.0, 300.0]);
    }

    #[test]
    fn a_message_is_given_up_when_it_is_old_and_was_tried_often_enough() {
        let old = RETRY.give_up_after;
        assert!(RETRY.pause(7, old, None, 0.5).is_some(), "the forwarder came to it late");
        assert_eq!(RETRY.pause(8, old, None, 0.5), None);
        assert!(RETRY.pause(1_000, old - SECOND, None, 0.5).is_some());
    }

    #[test]
    fn a_receivers_wish_lengthens_a_pause_and_never_shortens_it() {
        let pause = |n, wished| RETRY.pause(n, SECOND, Some(Duration::from_secs(wished)), 1.0);
        assert_eq!(pause(1, 120), Some(Duration::from_secs(120)));
        assert_eq!(pause(10, 1), Some(Duration::from_secs(512)));
        assert_eq!(pause(1, 10_000_000), Some(LONGEST_WISH));
    }
}
