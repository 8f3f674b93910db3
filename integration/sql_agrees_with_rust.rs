//! The rule of being online exists twice, in Rust and in SQL: here they are held together.

use std::time::Duration;

use groundstation::liveness::{self, Status};
use time::OffsetDateTime;

use crate::harness::{CALM, Fleet};

#[tokio::test]
async fn heartbeat_is_fresh_is_the_rule_of_liveness() {
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
    let mut seen = [0, 0];
    for default in defaults {
        for own in own {
            for heartbeat in
                ages.iter().map(|us| Some(now - time::Duration::microseconds(*us))).chain([None])
            {
                let threshold = liveness::threshold(own, Duration::from_millis(default as u64));
                let rust = liveness::status(heartbeat, now, threshold) == Status::Online;
                let row = sql
                    .query_one(
                        "select heartbeat_is_fresh($1, $2, $3, $4)",
                        &[&heartbeat, &own, &default, &now],
                    )
                    .await
                    .expect("the function");
                let fresh: bool = row.get(0);
                assert_eq!(fresh, rust, "{heartbeat:?}, own {own:?}, default {default}");
                seen[usize::from(fresh)] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}
