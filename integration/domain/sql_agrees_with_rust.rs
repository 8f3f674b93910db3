//! The rules of being online and of flapping exist twice, in Rust and in SQL: here they are held together.

use std::time::Duration;

use groundstation::contract::word::Word;
use groundstation::domain::flapping;
use groundstation::domain::lifecycle::SatelliteId;
use groundstation::domain::liveness::{self, Resumption, Status, Watermark};
use groundstation::domain::selection::{Order, Selection};
use groundstation::platform::database::Address;
use groundstation::registry::satellites::{self, ListFilter, states};
use time::OffsetDateTime;

use crate::harness::{CALM, Fleet};

#[tokio::test]
async fn is_flapping_is_the_rule_of_flapping() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    let now = OffsetDateTime::from_unix_timestamp(1_772_366_400).expect("a time");
    let around = [-1_000_000, -1, 0, 1].map(|us| Some(now + time::Duration::microseconds(us)));
    for until in around.into_iter().chain([None]) {
        let row = sql.query_one("select is_flapping($1, $2)", &[&until, &now]).await;
        let in_sql: bool = row.expect("the function").get(0);
        assert_eq!(in_sql, flapping::is_marked(until, now), "{until:?}");
    }
}

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
            let watermark = Watermark { observed_at: now, resumption, grace };
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
                let rust = liveness::online_until(heartbeat, threshold, &watermark);
                let sql: OffsetDateTime = row.get(0);
                assert_eq!(sql, rust, "{heartbeat}, own {own:?}, default {default}, {span:?}");
                let status = liveness::status(Some(heartbeat), now, threshold, &watermark);
                seen[usize::from(status == Status::Online)] += 1;
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}

/// Satellites whose pods are silent, are not, have never said anything, or are nobody's, each heard at
/// moments around its threshold. The newest moment of any pod is `seen`.
const AROUND_THEIR_THRESHOLDS: &str = "
    with pod as (
        insert into pods (name, started_at, seen_at)
        select name, $1::timestamptz, $1::timestamptz - make_interval(secs => age::float8)
          from (values ('live', 0), ('slow', 2), ('silent', 2.001), ('dead', 60), ('new', null)) p (name, age)
        returning number
    ), satellite as (
        insert into satellites (id, name, region, token_hash, offline_threshold_ms)
        select gen_random_uuid(), 'edge', 'eu', '', own
          from (values (null), (10000::bigint), (90000)) own (own), generate_series(1, 66)
        returning id, offline_threshold_ms
    ), place as (
        select s.*, row_number() over (partition by offline_threshold_ms) - 1 as n from satellite s
    )
    insert into satellite_connections
           (satellite_id, session, revision, last_event, last_heartbeat_at, pod)
    select id, 1, 1, 'connected',
           $1::timestamptz
               - interval '1 millisecond' * (coalesce(offline_threshold_ms, 45000) - 300 + n / 6 * 120),
           (array(select number from pod order by number))[(n % 6 + 1)::int]
      from place";

#[tokio::test]
async fn all_reads_judge_a_session_by_the_same_moment() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    // No pod runs, so that this stays the newest moment of any.
    let seen = OffsetDateTime::from_unix_timestamp(1_772_366_400).expect("a time");
    sql.execute(AROUND_THEIR_THRESHOLDS, &[&seen]).await.expect("satellites");
    let database = Address::parse("DATABASE_URL", &fleet.database_url).expect("an address");
    let database = database.pool("test").expect("a pool");
    let client = database.get().await.expect("a connection");
    let default = liveness::DEFAULT_OFFLINE_THRESHOLD;

    let named = async |status| {
        let selection = Selection { status, ..Selection::default() };
        let filter = ListFilter { selection, ..ListFilter::default() };
        let order = Order::default();
        let page = satellites::list(&client, &filter, order, None, 0, 1_000, default).await;
        let page = page.expect("a page");
        page.into_iter().map(|satellite| (satellite.id, satellite.status)).collect::<Vec<_>>()
    };
    let all = named(None).await;
    assert_eq!(all.len(), 3 * 66);
    let ids: Vec<SatelliteId> = all.iter().map(|(id, _)| SatelliteId(*id)).collect();
    let states = states::states(&client, &ids, default).await.expect("states");
    const HEARD: &str = "
        select c.last_heartbeat_at, s.offline_threshold_ms,
               coalesce(p.seen_at < $2::timestamptz - interval '2 seconds', false) as is_silent
          from satellites s join satellite_connections c on c.satellite_id = s.id
          left join pods p on p.number = c.pod
         where s.id = $1";
    let mut counts = [[0, 0], [0, 0]];
    for (id, listed) in &all {
        let row = sql.query_one(HEARD, &[id, &seen]).await.expect("its row");
        let (heard, is_silent): (OffsetDateTime, bool) = (row.get(0), row.get(2));
        let allowed = time::Duration::milliseconds(if is_silent { 500 } else { 0 });
        let watermark = Watermark { observed_at: seen - allowed, resumption: None, grace: default };
        let threshold = liveness::threshold(row.get(1), default);
        let status = liveness::status(Some(heard), seen, threshold, &watermark);
        let got = satellites::get(&client, SatelliteId(*id), default).await.expect("an answer");
        let shown = [listed, &states[id].status, &got.expect("a satellite").status];
        assert_eq!(shown.map(Word::known), [Some(status); 3], "heard {heard}, silent: {is_silent}");
        counts[usize::from(is_silent)][usize::from(status == Status::Online)] += 1;
    }
    for status in [Status::Online, Status::Offline] {
        let filtered = named(Some(status)).await;
        let mut expected = all.clone();
        expected.retain(|(_, listed)| *listed == status);
        assert_eq!(filtered, expected, "{status:?}");
    }
    assert!(counts.iter().flatten().all(|count| *count > 10), "{counts:?}");
}
