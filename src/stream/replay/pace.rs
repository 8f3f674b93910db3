//! How fast a replay goes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use time::OffsetDateTime;

/// The longest pause between two transitions: a quiet night is not waited for.
pub const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Shorter pauses are added up: every pause costs a flush.
const MIN_PAUSE: Duration = Duration::from_millis(2);

/// The speed of a replay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Speed {
    /// Without a pause.
    Max,
    /// This many times as fast as it happened.
    Times(f64),
}

impl Speed {
    /// Parses `max`, `1x`, `10x`, `0.5x` …
    pub fn parse(text: &str) -> anyhow::Result<Speed> {
        if text == "max" {
            return Ok(Speed::Max);
        }
        let times = text.strip_suffix('x').and_then(|times| times.parse::<f64>().ok());
        let times = times.context("it must be max, 1x, 10x or another multiple")?;
        ensure!((0.01..=10_000.0).contains(&times), "it must be from 0.01x to 10000x, or max");
        Ok(Speed::Times(times))
    }
}

/// Says when each transition is due, from its recorded time and the one before.
pub struct Pace {
    speed: Speed,
    previous: Option<OffsetDateTime>,
    due: Instant,
}

impl Pace {
    /// The first transition is due now.
    pub fn new(speed: Speed) -> Pace {
        Pace { speed, previous: None, due: Instant::now() }
    }

    /// When the next transition is due, if that is worth waiting for. A slow sink catches up: the
    /// due moments follow each other, whatever time the sink took.
    pub fn due(&mut self, recorded_at: OffsetDateTime) -> Option<Instant> {
        let Speed::Times(times) = self.speed else {
            return None;
        };
        let previous = self.previous.replace(recorded_at).unwrap_or(recorded_at);
        self.due += pause(recorded_at - previous, times);
        (self.due > Instant::now() + MIN_PAUSE).then_some(self.due)
    }
}

fn pause(gap: time::Duration, times: f64) -> Duration {
    let seconds = (gap.as_seconds_f64() / times).clamp(0.0, MAX_PAUSE.as_secs_f64());
    Duration::from_secs_f64(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_speed_is_max_or_a_multiple_within_its_limits() {
        assert_eq!(Speed::parse("max").expect("max"), Speed::Max);
        assert_eq!(Speed::parse("1x").expect("1x"), Speed::Times(1.0));
        assert_eq!(Speed::parse("0.5x").expect("0.5x"), Speed::Times(0.5));
        for text in ["", "x", "10", "fast", "0x", "-1x", "NaNx", "infx", "20000x"] {
            assert!(Speed::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pause_is_the_gap_at_that_speed_and_never_too_long() {
        assert_eq!(pause(time::Duration::seconds(4), 1.0), Duration::from_secs(4));
        assert_eq!(pause(time::Duration::seconds(4), 10.0), Duration::from_millis(400));
        assert_eq!(pause(time::Duration::days(1), 10.0), MAX_PAUSE);
        assert_eq!(pause(time::Duration::ZERO, 1.0), Duration::ZERO);
        assert_eq!(pause(time::Duration::seconds(-4), 1.0), Duration::ZERO);
    }

    #[test]
    fn moments_follow_each_other() {
        let start = datetime!(2026-03-01 12:00 UTC);
        let mut pace = Pace::new(Speed::Times(10.0));
        let begun = pace.due;
        assert_eq!(pace.due(start), None, "the first one is due at once");
        let second = pace.due(start + Duration::from_secs(20)).expect("a pause");
        assert_eq!(second, begun + Duration::from_secs(2));
        let third = pace.due(start + Duration::from_secs(50)).expect("a pause");
        assert_eq!(third, begun + Duration::from_secs(5));
        let mut pace = Pace::new(Speed::Max);
        assert_eq!(pace.due(start), None);
        assert_eq!(pace.due(start + Duration::from_secs(3600)), None);
    }
}
