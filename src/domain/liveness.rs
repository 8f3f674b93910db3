//! The rules of being online. Pure: no clock, no IO; every moment is passed in.
//!
//! A satellite whose last edge is `connected` is *online* while its last heartbeat is no older than
//! its *offline threshold*. The status is computed at each read and stored nowhere, so it can never
//! be stale. It is computed for the last moment at which any pod could have heard a satellite
//! ([`Watermark`]). Time in which no pod could hear counts against no satellite, and after it every
//! satellite that was online has a threshold to come back.
//!
//! The same rule exists once more in SQL (`online_until`, in `schema/`), for filters and for the
//! monitor's sweep. An integration test compares the two.

use std::time::Duration;

use strum::{EnumString, IntoStaticStr};
use time::OffsetDateTime;

/// How old the last heartbeat may be before a satellite counts as offline: three intervals of 15 s.
pub const DEFAULT_OFFLINE_THRESHOLD: Duration = Duration::from_secs(45);

/// How often a satellite sends a heartbeat unless told otherwise.
pub const DEFAULT_HEARTBEAT_INTERVAL: Duration = Duration::from_secs(15);

/// Whether a satellite can be reached, judged at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Status {
    /// Heard within its threshold.
    Online,
    /// Not heard within its threshold, cleanly disconnected, or lost.
    Offline,
}

impl Status {
    /// The word used on every wire.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How far satellites were observed: the pods' account of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermark {
    /// Up to when a pod has observed. Nothing later can be judged yet.
    pub observed_at: OffsetDateTime,
    /// The end of the newest blind span.
    pub resumption: Option<Resumption>,
    /// The default offline threshold: the least time that a satellite gets to come back after a
    /// blind span.
    pub grace: Duration,
}

/// The end of a blind span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resumption {
    /// Satellites that were online then get the grace.
    pub judged_at: OffsetDateTime,
    /// When a pod observed again.
    pub resumed_at: OffsetDateTime,
}

/// The threshold in force: the satellite's own in milliseconds, or the default if it has none
/// (null, zero and negative numbers mean "none").
pub fn threshold(own_ms: Option<i64>, default: Duration) -> Duration {
    match own_ms.map(u64::try_from) {
        Some(Ok(ms)) if ms > 0 => Duration::from_millis(ms),
        _ => default,
    }
}

/// Until when a heartbeat keeps its satellite online: for its threshold. If the satellite was
/// online when a blind span began, it gets a threshold after the end of the span, and not less than
/// the default.
pub fn online_until(
    last_heartbeat_at: OffsetDateTime,
    threshold: Duration,
    watermark: &Watermark,
) -> OffsetDateTime {
    let until = last_heartbeat_at + threshold;
    match watermark.resumption {
        Some(Resumption { judged_at, resumed_at })
            if last_heartbeat_at < resumed_at && until >= judged_at =>
        {
            until.max(resumed_at + threshold.max(watermark.grace))
        }
        _ => until,
    }
}

/// The status at `now` of a satellite whose last edge is `connected`. A heartbeat exactly
/// `threshold` old is still online. A heartbeat from the future (the database's clock was set back)
/// is online too, until it is brought back (see [`crate::log::watermark`]).
pub fn status(
    last_heartbeat_at: Option<OffsetDateTime>,
    now: OffsetDateTime,
    threshold: Duration,
    watermark: &Watermark,
) -> Status {
    match last_heartbeat_at {
        Some(at) if now.min(watermark.observed_at) <= online_until(at, threshold, watermark) => {
            Status::Online
        }
        _ => Status::Offline,
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);
    const CLEAR: Watermark =
        Watermark { observed_at: NOW, resumption: None, grace: DEFAULT_OFFLINE_THRESHOLD };

    fn ago(seconds: f64) -> OffsetDateTime {
        NOW - time::Duration::seconds_f64(seconds)
    }

    #[test]
    fn status_follows_the_age_of_the_heartbeat() {
        let threshold = DEFAULT_OFFLINE_THRESHOLD;
        let cases = [
            ("fresh", Some(ago(1.0)), Status::Online),
            ("exactly at the threshold", Some(ago(45.0)), Status::Online),
            ("just past it", Some(ago(45.001)), Status::Offline),
            ("aged", Some(ago(3600.0)), Status::Offline),
            ("from the future", Some(ago(-5.0)), Status::Online),
            ("absent", None, Status::Offline),
        ];
        for (name, heartbeat, expected) in cases {
            assert_eq!(status(heartbeat, NOW, threshold, &CLEAR), expected, "{name}");
        }
    }

    #[test]
    fn while_nobody_observes_everybody_stays_as_they_were() {
        let blind = Watermark { observed_at: ago(300.0), ..CLEAR };
        let of = |seconds| status(Some(ago(seconds)), NOW, DEFAULT_OFFLINE_THRESHOLD, &blind);
        assert_eq!(of(300.0 + 45.0), Status::Online);
        assert_eq!(of(300.0 + 45.1), Status::Offline);
    }

    #[test]
    fn after_blind_time_whoever_was_online_before_has_a_threshold_to_come_back() {
        let (judged_at, resumed_at) = (ago(330.0), ago(30.0));
        let watermark = |observed_at| Watermark {
            observed_at,
            resumption: Some(Resumption { judged_at, resumed_at }),
            ..CLEAR
        };
        let day = Duration::from_secs(86_400);
        let second = Duration::from_secs(1);
        let cases = [
            ("online when it began", 331.0, DEFAULT_OFFLINE_THRESHOLD, 15.0),
            ("at its threshold when it began", 375.0, DEFAULT_OFFLINE_THRESHOLD, 15.0),
            ("offline when it began", 375.1, DEFAULT_OFFLINE_THRESHOLD, -330.1),
            ("hasty, and gets the default's time", 330.5, second, 15.0),
            ("patient, and gets its own time", 331.0, day, 86_370.0),
            ("heard again, which counts as ever", 29.0, second, -28.0),
        ];
        for (name, heartbeat, threshold, expected) in cases {
            let until = online_until(ago(heartbeat), threshold, &watermark(NOW));
            assert_eq!(until, ago(-expected), "{name}");
        }
    }

    proptest! {
        #[test]
        fn blind_time_never_makes_anybody_offline_sooner(
            heartbeat in 0..10_000_000i64,
            own in 1..100_000u64,
            judged in 0..10_000_000i64,
            span in 1..1_000_000i64,
        ) {
            let at = |ms| NOW + time::Duration::milliseconds(ms);
            let resumption =
                Some(Resumption { judged_at: at(judged), resumed_at: at(judged + span) });
            let own = Duration::from_millis(own);
            let plain = online_until(at(heartbeat), own, &CLEAR);
            let graced = online_until(at(heartbeat), own, &Watermark { resumption, ..CLEAR });
            prop_assert!(graced >= plain);
            prop_assert!(graced == plain || graced == at(judged + span) + own.max(CLEAR.grace));
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
        let of = |own| status(heartbeat, NOW, threshold(own, DEFAULT_OFFLINE_THRESHOLD), &CLEAR);
        assert_eq!(of(None), Status::Online);
        assert_eq!(of(Some(5_000)), Status::Offline);
        assert_eq!(of(Some(10_000)), Status::Online);
        assert_eq!(of(Some(0)), Status::Online);
    }

    #[test]
    fn words_round_trip() {
        for status in [Status::Online, Status::Offline] {
            assert_eq!(Status::from_str(status.as_str()).ok(), Some(status));
        }
        assert_eq!(Status::from_str("Online").ok(), None);
    }
}
