//! PURE: a bucket of tokens, which refills steadily. The caller passes in the time.

use std::time::Duration;

use tokio::time::Instant;

/// How many tokens a bucket holds at most, and how fast it refills.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Tokens in a full bucket.
    pub burst: f32,
    /// Tokens a second.
    pub per_second: f32,
}

impl Rate {
    /// A rate of `count` a minute, with a burst of as many.
    pub fn per_minute(count: u32) -> Rate {
        Rate { burst: count as f32, per_second: count as f32 / 60.0 }
    }

    /// The rate multiplied.
    pub fn times(self, times: f32) -> Rate {
        Rate { burst: self.burst * times, per_second: self.per_second * times }
    }
}

/// A bucket of tokens. Small, because every connection has one.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    tokens: f32,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn full(rate: Rate, now: Instant) -> Bucket {
        Bucket { tokens: rate.burst, filled_at: now }
    }

    /// Takes a token; false if there is none.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        self.refill(rate, now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    /// Takes a token that may not be there yet; returns the time until it is.
    pub fn owe(&mut self, rate: Rate, now: Instant) -> Duration {
        self.refill(rate, now);
        self.tokens -= 1.0;
        Duration::from_secs_f32((-self.tokens).max(0.0) / rate.per_second)
    }

    /// Changes the rate. A larger burst counts at once.
    pub fn change(&mut self, from: Rate, to: Rate, now: Instant) {
        self.refill(from, now);
        self.tokens = (self.tokens + (to.burst - from.burst).max(0.0)).min(to.burst);
    }

    /// Whether there is a token.
    pub fn has_one(&mut self, rate: Rate, now: Instant) -> bool {
        self.refill(rate, now);
        self.tokens >= 1.0
    }

    /// Whether it is full: then a new bucket is as good as this one.
    pub fn is_full(&mut self, rate: Rate, now: Instant) -> bool {
        self.refill(rate, now);
        self.tokens >= rate.burst
    }

    fn refill(&mut self, rate: Rate, now: Instant) {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f32();
        self.tokens = (self.tokens + passed * rate.per_second).min(rate.burst);
        self.filled_at = self.filled_at.max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let rate = Rate { burst: 3.0, per_second: 2.0 };
        let start = Instant::now();
        let mut bucket = Bucket::full(rate, start);
        for _ in 0..3 {
            assert!(bucket.take(rate, start));
        }
        assert!(!bucket.take(rate, start));
        assert!(!bucket.has_one(rate, start + Duration::from_millis(499)));
        assert!(bucket.take(rate, start + Duration::from_millis(501)));
        assert!(!bucket.take(rate, start + Duration::from_millis(502)));
        assert!(!bucket.is_full(rate, start + Duration::from_millis(1_990)));
        assert!(bucket.is_full(rate, start + Duration::from_millis(2_010)));
    }

    #[test]
    fn what_is_owed_is_paid_in_time_and_a_larger_bucket_is_larger_at_once() {
        let rate = Rate { burst: 2.0, per_second: 2.0 };
        let start = Instant::now();
        let mut bucket = Bucket::full(rate, start);
        let owed: Vec<Duration> = (0..4).map(|_| bucket.owe(rate, start)).collect();
        let half = Duration::from_millis(500);
        assert_eq!(owed, [Duration::ZERO, Duration::ZERO, half, 2 * half]);
        assert_eq!(bucket.owe(rate, start + 2 * half), half);
        let larger = Rate { burst: 12.0, per_second: 2.0 };
        bucket.change(rate, larger, start + 2 * half);
        for _ in 0..9 {
            assert_eq!(bucket.owe(larger, start + 2 * half), Duration::ZERO);
        }
        assert_eq!(bucket.owe(larger, start + 2 * half), half);
        bucket.change(larger, rate, start + 20 * half);
        assert!(bucket.is_full(rate, start + 20 * half));
    }

    proptest! {
        #[test]
        fn never_more_than_a_burst_and_what_has_flowed_since(
            burst in 1u16..200,
            per_second in 1u16..200,
            pauses in proptest::collection::vec(0u64..300, 1..300),
        ) {
            let rate = Rate { burst: f32::from(burst), per_second: f32::from(per_second) };
            let start = Instant::now();
            let mut bucket = Bucket::full(rate, start);
            let (mut now, mut taken) = (start, 0u32);
            for pause in pauses {
                now += Duration::from_millis(pause);
                taken += u32::from(bucket.take(rate, now));
            }
            let allowed = rate.burst + (now - start).as_secs_f32() * rate.per_second;
            prop_assert!(taken as f32 <= allowed + 0.5, "{taken} of {allowed}");
        }

        #[test]
        fn whoever_keeps_to_the_rate_is_never_refused(per_second in 1u16..200, times in 1u32..500) {
            let rate = Rate { burst: 1.0, per_second: f32::from(per_second) };
            let start = Instant::now();
            let mut bucket = Bucket::full(rate, start);
            for n in 0..times {
                let now = start + Duration::from_secs_f64(1.02 * f64::from(n) / f64::from(per_second));
                prop_assert!(bucket.take(rate, now), "the {n}th");
            }
        }
    }
}
