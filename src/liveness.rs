//! The rules of being online. Pure: no clock, no IO; `now` is always passed in.
//!
//! A satellite is *online* while its last heartbeat is no older than its *offline threshold*.
//! The status is computed whenever somebody reads it and stored nowhere, so it can never be stale.
//! The same rule exists once more in SQL (`heartbeat_is_fresh`, in `schema/`), for filters and for
//! the monitor's sweep; an integration test holds the two against each other.

use std::time::Duration;

use time::OffsetDateTime;

/// How old the last heartbeat may be before a satellite counts as offline: three intervals of 15 s.
pub const DEFAULT_OFFLINE_THRESHOLD: Duration = Duration::from_secs(45);

/// How often a satellite sends a heartbeat unless told otherwise.
pub const DEFAULT_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Whether a satellite can be reached, as seen at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Heard within its threshold.
    Online,
    /// Not heard within its threshold, or cleanly gone.
    Offline,
}

impl Status {
    /// The word used on every wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Online => "online",
            Status::Offline => "offline",
        }
    }

    /// The inverse of [`Status::as_str`].
    pub fn parse(word: &str) -> Option<Status> {
        [Status::Online, Status::Offline].into_iter().find(|status| status.as_str() == word)
    }
}

/// The threshold in force: the satellite's own in milliseconds, or the default when it has none
/// (null and anything not positive mean "none").
pub fn threshold(own_ms: Option<i64>, default: Duration) -> Duration {
    match own_ms.map(u64::try_from) {
        Some(Ok(ms)) if ms > 0 => Duration::from_millis(ms),
        _ => default,
    }
}

/// The status at `now`. A heartbeat exactly `threshold` old is still online; one from the future
/// (the database's clock was set back) is online too.
pub fn status(
    last_heartbeat_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
    threshold: Duration,
) -> Status {
    match last_heartbeat_at {
        Some(at) if now - at <= threshold => Status::Online,
        _ => Status::Offline,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);

    #[test]
    fn status_follows_the_age_of_the_heartbeat() {
        let threshold = DEFAULT_OFFLINE_THRESHOLD;
        let millisecond = Duration::from_millis(1);
        let cases = [
            ("fresh", Some(NOW - Duration::from_secs(1)), Status::Online),
            ("exactly at the threshold", Some(NOW - threshold), Status::Online),
            ("just past it", Some(NOW - threshold - millisecond), Status::Offline),
            ("aged", Some(NOW - Duration::from_secs(3600)), Status::Offline),
            ("from the future", Some(NOW + Duration::from_secs(5)), Status::Online),
            ("absent", None, Status::Offline),
        ];
        for (name, heartbeat, expected) in cases {
            assert_eq!(status(heartbeat, NOW, threshold), expected, "{name}");
        }
    }

    #[test]
    fn a_threshold_of_its_own_counts_unless_null_or_not_positive() {
        let default = Duration::from_secs(45);
        let cases = [
            (None, 45_000),
            (Some(0), 45_000),
            (Some(-1), 45_000),
            (Some(i64::MIN), 45_000),
            (Some(1), 1),
            (Some(86_400_000), 86_400_000),
        ];
        for (own, expected_ms) in cases {
            assert_eq!(threshold(own, default).as_millis(), expected_ms, "{own:?}");
        }
    }

    #[test]
    fn the_same_heartbeat_is_online_or_offline_by_the_satellites_own_threshold() {
        let heartbeat = Some(NOW - Duration::from_secs(10));
        let of = |own| status(heartbeat, NOW, threshold(own, DEFAULT_OFFLINE_THRESHOLD));
        assert_eq!(of(None), Status::Online);
        assert_eq!(of(Some(5_000)), Status::Offline);
        assert_eq!(of(Some(10_000)), Status::Online);
        assert_eq!(of(Some(0)), Status::Online);
    }

    #[test]
    fn words_round_trip() {
        for status in [Status::Online, Status::Offline] {
            assert_eq!(Status::parse(status.as_str()), Some(status));
        }
        assert_eq!(Status::parse("Online"), None);
    }
}
