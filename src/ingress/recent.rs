//! PURE: a count of recent events that fades. The caller passes in the time.

use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug, Clone, Copy)]
pub struct Recent {
    level: f32,
    at: Instant,
}

impl Recent {
    /// No events yet.
    pub fn never(now: Instant) -> Recent {
        Recent { level: 0.0, at: now }
    }

    /// Adds one event. Half of the count fades in `half`.
    pub fn add(&mut self, half: Duration, now: Instant) {
        self.add_many(1.0, half, now);
    }

    /// Adds `count` events.
    pub fn add_many(&mut self, count: f32, half: Duration, now: Instant) {
        self.level = self.level(half, now) + count;
        self.at = self.at.max(now);
    }

    /// What is left of the count.
    pub fn level(&self, half: Duration, now: Instant) -> f32 {
        let passed = now.saturating_duration_since(self.at).as_secs_f32();
        self.level * (-passed / half.as_secs_f32()).exp2()
    }

    /// Whether at least half an event is left.
    pub fn is_any(&self, half: Duration, now: Instant) -> bool {
        self.level(half, now) >= 0.5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_fades_by_half_and_one_is_remembered_for_that_long() {
        let (half, start) = (Duration::from_secs(60), Instant::now());
        let mut recent = Recent::never(start);
        assert!(!recent.is_any(half, start));
        recent.add(half, start);
        assert!(recent.is_any(half, start + Duration::from_secs(59)));
        assert!(!recent.is_any(half, start + Duration::from_secs(61)));
        for _ in 0..7 {
            recent.add(half, start);
        }
        let left = recent.level(half, start + 2 * half);
        assert!((1.99..2.01).contains(&left), "{left}");
    }
}
