//! The sessions that silent pods left behind: how many are late or due, and when that can change.
//!
//! A pod that died may have left tens of thousands of sessions. Every pod looks at them in every sweep until
//! they have moved to another pod or are lost. Sessions whose times are written differ from each other and
//! are few: they are counted in each sweep. Sessions that the silent pod vouched for all count as heard when
//! it last spoke. Nothing about them changes until that is a threshold ago, except that some are taken over.
//! So they are counted again when one can have become late or due, when an administrator has changed
//! something, and otherwise seldom.

use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use time::OffsetDateTime;
use tokio_postgres::Error;

use crate::log::watermark::PodNumber;

/// A count without such a reason takes at most one part in this many of a pod's time.
const PACE: u32 = 50;

/// The pods that have fallen silent, at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Silent {
    pub(super) pods: Vec<PodNumber>,
    /// Up to when satellites could be judged.
    pub(super) watermark: Option<OffsetDateTime>,
    /// The newest change by an administrator.
    pub(super) change: i64,
}

impl Silent {
    pub(super) fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }
}

/// What one pod left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftBehind {
    pub(super) pod: PodNumber,
    /// Sessions with less than a heartbeat's interval left, including those that are due.
    pub(super) late: u64,
    /// Sessions whose threshold is over.
    pub(super) due: u64,
    /// When the next one becomes late or due.
    next_at: Option<OffsetDateTime>,
}

/// The result of the last count of sessions that silent pods had vouched for.
#[derive(Default)]
pub(super) struct Vouched {
    silent: Silent,
    left_behind: Vec<LeftBehind>,
    again_at: Option<Instant>,
}

impl Vouched {
    /// Notes the result of a count that began at `now` and took `took`.
    pub(super) fn seen(
        silent: &Silent,
        left_behind: Vec<LeftBehind>,
        now: Instant,
        took: Duration,
    ) -> Vouched {
        Vouched { silent: silent.clone(), left_behind, again_at: Some(now + took * PACE) }
    }

    pub(super) fn left_behind(&self) -> &[LeftBehind] {
        &self.left_behind
    }

    /// Whether the last count may be out of date. Sessions that are due and not `held` are being declared:
    /// each sweep leaves fewer of them.
    pub(super) fn is_to_be_looked_at(&self, silent: &Silent, held: bool, now: Instant) -> bool {
        let is_known = self.silent.pods == silent.pods && self.silent.change == silent.change;
        let next_at = self.left_behind.iter().filter_map(|left| left.next_at).min();
        let is_due = self.left_behind.iter().any(|left| left.due > 0);
        // The database's clock may have been set back.
        let goes_on = silent.watermark >= self.silent.watermark;
        let is_same = next_at.is_none_or(|next_at| silent.watermark <= Some(next_at));
        let in_turn = self.again_at.is_none_or(|again_at| now >= again_at);
        !is_known || !goes_on || !is_same || in_turn || (is_due && !held)
    }
}

/// Counts what each of these pods left behind: the sessions that it had vouched for, or the others.
pub(super) async fn count(
    client: &Object,
    pods: &[PodNumber],
    vouched: bool,
    default_threshold: Duration,
    heartbeat_interval: Duration,
) -> Result<Vec<LeftBehind>, Error> {
    let ms = |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    let (default_ms, interval_ms) = (ms(default_threshold), ms(heartbeat_interval));
    // Not cached: the plan must fit these pods, most of which have no sessions left.
    let rows = client.query(COUNT, &[&pods, &default_ms, &interval_ms, &vouched]).await?;
    let number = |n: i64| u64::try_from(n).unwrap_or(0);
    let left = |row: tokio_postgres::Row| {
        Ok(LeftBehind {
            pod: row.try_get("pod")?,
            late: number(row.try_get("late")?),
            due: number(row.try_get("due")?),
            next_at: row.try_get("next_at")?,
        })
    };
    rows.into_iter().map(left).collect()
}

/// A session with less than a heartbeat's interval left is late, as in `SessionTable::look`.
const COUNT: &str = "
    with watermark as materialized (select * from watermark), left_behind as (
        select c.pod, status_as_of(watermark.observed_at, p.seen_at) as status_as_of, watermark.observed_at,
               online_until(heard_at(c.last_heartbeat_at, c.vouched, p.seen_at), s.offline_threshold_ms, $2,
                            watermark.judged_at, watermark.resumed_at) as online_until,
               least(interval '1 millisecond' * $3::bigint, threshold_of(s.offline_threshold_ms, $2) / 2) as warning
          from watermark, satellite_connections c
          join satellites s on s.id = c.satellite_id
          join pods p on p.number = c.pod
         where c.pod = any($1) and c.last_event = 'connected' and c.vouched = $4
    )
    select pod,
           count(*) filter (where observed_at > online_until - warning) as late,
           count(*) filter (where status_as_of > online_until) as due,
           min(case when observed_at <= online_until - warning then online_until - warning
                    when status_as_of <= online_until then online_until + (observed_at - status_as_of) end) as next_at
      from left_behind
     group by pod";

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const WATERMARK: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);

    fn silent(seconds: f64, change: i64) -> Silent {
        let watermark = Some(WATERMARK + time::Duration::seconds_f64(seconds));
        Silent { pods: vec![PodNumber(1)], watermark, change }
    }

    fn seen(due: u64, now: Instant) -> Vouched {
        let next_at = Some(WATERMARK + Duration::from_secs(30));
        let left = LeftBehind { pod: PodNumber(1), late: due, due, next_at };
        Vouched::seen(&silent(0.0, 1), vec![left], now, Duration::from_millis(100))
    }

    #[test]
    fn what_was_vouched_for_is_looked_at_again_only_where_it_can_be_otherwise() {
        let now = Instant::now();
        let second = now + Duration::from_secs(1);
        let cases = [
            ("nothing has changed", seen(0, now), silent(1.0, 1), false, second, false),
            ("one becomes late or due", seen(0, now), silent(30.1, 1), false, second, true),
            (
                "an administrator changed something",
                seen(0, now),
                silent(1.0, 2),
                false,
                second,
                true,
            ),
            ("the clock went back", seen(0, now), silent(-1.0, 1), false, second, true),
            ("some are being declared", seen(3, now), silent(1.0, 1), false, second, true),
            ("they are held", seen(3, now), silent(1.0, 1), true, second, false),
            (
                "its turn has come",
                seen(3, now),
                silent(1.0, 1),
                true,
                now + Duration::from_secs(5),
                true,
            ),
            ("it was never looked at", Vouched::default(), silent(1.0, 1), false, now, true),
        ];
        for (name, vouched, silent, held, now, expected) in cases {
            assert_eq!(vouched.is_to_be_looked_at(&silent, held, now), expected, "{name}");
        }
    }

    #[test]
    fn another_pod_that_falls_silent_is_looked_at_at_once() {
        let now = Instant::now();
        let two = Silent { pods: vec![PodNumber(1), PodNumber(2)], ..silent(0.0, 1) };
        assert!(seen(0, now).is_to_be_looked_at(&two, false, now));
    }
}
