//! The rule of being online exists twice, in Rust and in SQL: here they are held together.

use std::time::Duration;

use groundstation::liveness::{self, Resumption, Sight, Status};
use time::OffsetDateTime;

use crate::harness::{CALM, Fleet};

#[tokio::test]
async fn online_until_is_the_rule_of_liveness() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    let now = OffsetDateTime::from_unix_timestamp(1_772_366_400).expect("a time");
    let defaults: [i64; 3] = [1, 45_000, 86_400_000];
    let own: [Option<i64>; 8] = [
        None,
        Some(i64::MIN),
        Some(-1),
        Some(0),
        Some(1),
        Some(999),
        Some(45_001),
        Some(7 * 86_400_000),
    ];
    // Around every threshold, and far from it; microseconds are what Postgres can tell apart.
    let thresholds = [1, 999, 45_000, 45_001, 86_400_000, 7 * 86_400_000];
    let around = thresholds.iter().flat_map(|ms| [-1, 0, 1].map(|us| ms * 1_000 + us));
    let ages: Vec<i64> = around.chain([-5_000_000, 0, i64::from(i32::MAX) * 1_000_000]).collect();
    let ago = |us: i64| now - time::Duration::microseconds(us);
    let spans = [None, Some((300_000_000, 30_000_000)), Some((60_000_000, 10_000_000))];
    let spans = spans.map(|span| span.map(|(judged, resumed)| (ago(judged), ago(resumed))));
    let mut seen = [0, 0];
    for default in defaults {
        for (own, span) in own.iter().flat_map(|own| spans.map(|span| (*own, span))) {
            let threshold = liveness::threshold(own, Duration::from_millis(default as u64));
            let resumption =
                span.map(|(judged_at, resumed_at)| Resumption { judged_at, resumed_at });
            let grace = Duration::from_millis(default as u64);
            let sight = Sight { observed_at: now, resumption, grace };
            let heartbeats: Vec<OffsetDateTime> = ages.iter().map(|us| ago(*us)).collect();
            let (judged_at, resumed_at) = span.unzip();
            let rows = sql
                .query(
                    "select online_until(h, $2, $3, $4, $5) from unnest($1::timestamptz[]) h",
                    &[&heartbeats, &own, &default, &judged_at, &resumed_at],
                )
                .await
                .expect("the function");
            for (heartbeat, row) in heartbeats.into_iter().zip(rows) {
                let rust = liveness::online_until(heartbeat, threshold, &sight);
                let sql: OffsetDateTime = row.get(0);
                assert_eq!(sql, rust, "{heartbeat}, own {own:?}, default {default}, {span:?}");
                let status = liveness::status(Some(heartbeat), now, threshold, &sight);
                seen[usize::from(status == Status::Online)] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}
