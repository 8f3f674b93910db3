//! The fleet over a while, and each of its satellites: what the log says of every moment, as stats sum it up.

use std::collections::BTreeMap;

use groundstation::contract::wire::Timestamp;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::harness::relaying::come_and_go;
use crate::harness::written_log::{self, Turns};
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, eventually, faults};

fn moment(value: &Value) -> OffsetDateTime {
    let text = value.as_str().expect("a time");
    text.parse::<Timestamp>().expect("a time").moment()
}

fn written(at: OffsetDateTime) -> String {
    Timestamp::new(at).to_string()
}

async fn get(pod: &Pod, path: &str) -> Value {
    let answer = pod.get(path).await;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

/// The database's time.
async fn now(fleet: &Fleet) -> OffsetDateTime {
    let sql = fleet.sql().await;
    let row = sql.query_one("select date_trunc('milliseconds', clock_timestamp())", &[]).await;
    row.expect("the time").get(0)
}

/// Satellites that come, go, are taken over, fall silent and are removed.
async fn lived(fleet: &Fleet, pod: &Pod) -> (Vec<Credentials>, Vec<Satellite>) {
    let mut credentials = fleet.register(pod, "edge", 5).await;
    let silent = json!({"name": "silent", "region": "eu", "offlineThresholdMs": 1_000});
    credentials.push(pod.register_with(silent).await);
    let mut open = Vec::new();
    for credentials in &credentials {
        open.push(Satellite::connect(pod.address, credentials).await);
    }
    open.swap_remove(0).close().await;
    open.push(Satellite::connect(pod.address, &credentials[1]).await);
    assert_eq!(pod.remove(credentials[2].id).await.status, 204);
    come_and_go(pod, &credentials[0]).await;
    fleet.expect_log_length(12).await;
    (credentials, open)
}

/// The states of each satellite, as they are told.
fn states(intervals: &Value) -> BTreeMap<Uuid, Vec<(OffsetDateTime, OffsetDateTime, String)>> {
    let of_each = intervals["intervals"].as_object().expect("an object").iter();
    of_each
        .map(|(id, runs)| {
            let runs = runs.as_array().expect("a list").iter().map(|run| {
                let state = run["state"].as_str().expect("a state").to_owned();
                (moment(&run["from"]), moment(&run["to"]), state)
            });
            (id.parse().expect("a UUID"), runs.collect())
        })
        .collect()
}

fn ids(satellites: &[Credentials]) -> String {
    let ids: Vec<String> = satellites.iter().map(|one| one.id.to_string()).collect();
    ids.join(",")
}

/// The sums of the states are the stats of the same window.
async fn expect_sums_of_stats(pod: &Pod, satellites: &[Credentials]) {
    for satellite in satellites {
        let stats = get(pod, &format!("/v1/satellites/{}/stats?window=1h", satellite.id)).await;
        let (from, to) = (moment(&stats["from"]), moment(&stats["to"]));
        let window = format!("since={}&until={}", written(from), written(to));
        let intervals = get(pod, &format!("/v1/intervals?ids={}&{window}", satellite.id)).await;
        assert_eq!((&intervals["from"], &intervals["to"]), (&stats["from"], &stats["to"]));
        let states = states(&intervals);
        let runs = &states[&satellite.id];
        let mut reached = from;
        let mut sums = BTreeMap::from([("up", 0), ("down", 0), ("unknown", 0)]);
        let mut last = String::new();
        for (begin, end, state) in runs {
            assert!(*begin == reached && begin < end && last != *state, "{runs:?}");
            (reached, last) = (*end, state.clone());
            let sum = sums.get_mut(state.as_str()).expect("a known state");
            *sum += i64::try_from((*end - *begin).whole_milliseconds()).expect("a number");
        }
        assert_eq!(reached, to);
        for (state, sum) in sums {
            assert_eq!(stats[format!("{state}Ms")], sum, "{state} of {runs:?}: {stats}");
        }
    }
}

#[tokio::test]
async fn the_states_of_a_satellite_add_up_to_its_stats() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let (satellites, _open) = lived(&fleet, &pod).await;
    // Time in which nobody could observe, in the middle of all that.
    let sql = fleet.sql().await;
    const BLIND: &str = "
        insert into blind_spans (from_at, to_at, judged_at)
        select at, at + interval '30 milliseconds', at from (
            select min(recorded_at) + interval '5 milliseconds' as at from entity_transitions) first";
    sql.batch_execute(BLIND).await.expect("blind time");
    expect_sums_of_stats(&pod, &satellites).await;

    let nobody = Uuid::new_v4();
    let asked = format!("{},{nobody}&ids={}", ids(&satellites), satellites[0].id);
    let intervals = get(&pod, &format!("/v1/intervals?ids={asked}")).await;
    let states = states(&intervals);
    assert_eq!(states.len(), 7, "each once");
    assert_eq!(states[&nobody].len(), 1);
    assert_eq!(states[&nobody][0].2, "unknown", "of one that never was nothing is known");
    let day = moment(&intervals["to"]) - moment(&intervals["from"]);
    assert_eq!(day, time::Duration::DAY, "unless told otherwise");
    let last = |n: usize| {
        let runs = intervals["intervals"][satellites[n].id.to_string()].as_array();
        let last = runs.expect("a list").last().expect("a state");
        [&last["state"], &last["event"], &last["reason"]]
            .map(|word| word.as_str().map(str::to_owned))
    };
    let words = |words: [&str; 3]| words.map(|word| Some(word.to_owned()));
    assert_eq!(last(0), words(["down", "disconnected", "client_close"]));
    assert_eq!(last(2), words(["unknown", "removed", "removed"]));
    assert_eq!(last(3), words(["up", "connected", "connect"]));
    assert_eq!(last(5), words(["down", "heartbeat_lost", "heartbeat_timeout"]));
}

#[tokio::test]
async fn each_point_of_the_timeline_is_how_many_satellites_are_in_which_state_then() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let begin = now(&fleet).await;
    let (satellites, _open) = lived(&fleet, &pod).await;
    let end = now(&fleet).await;
    let window = format!("since={}&until={}", written(begin), written(end));
    let intervals = get(&pod, &format!("/v1/intervals?ids={}&{window}", ids(&satellites))).await;
    let states = states(&intervals);
    // As fine as it gets: moments of a millisecond, a thousand at a time, are more than a second apart.
    let step = ((end - begin).whole_seconds() / 900).max(1);
    let timeline = get(&pod, &format!("/v1/fleet/timeline?{window}&step={step}s")).await;
    let points = timeline["points"].as_array().expect("points");
    assert!(points.len() > 1 && points[0]["at"] == written(begin), "{timeline}");
    for (n, point) in points.iter().enumerate() {
        let at = begin + time::Duration::seconds(step * n as i64);
        assert_eq!(moment(&point["at"]), at);
        let in_state = |state: &str| {
            let runs = states.values().map(|runs| {
                runs.iter().filter(|(from, to, is)| *from <= at && at < *to && is == state).count()
            });
            runs.sum::<usize>()
        };
        assert_eq!(point["online"], in_state("up"), "{at}");
        assert_eq!(point["offline"], in_state("down"), "{at}");
        assert_eq!(point["unknown"], 0, "{at}");
    }

    // While nobody could observe all are unknown, and the counts go on behind it.
    let sql = fleet.sql().await;
    let span = "insert into blind_spans (from_at, to_at, judged_at) values ($1, $2, $1)";
    let (from, to) = (end - time::Duration::seconds(2), end - time::Duration::MILLISECOND);
    sql.execute(span, &[&from, &to]).await.expect("blind time");
    let since = written(end - time::Duration::seconds(1));
    let query = format!("since={since}&until={}&step=1s", written(end));
    let points = get(&pod, &format!("/v1/fleet/timeline?{query}")).await["points"].clone();
    let known = |point: &Value| ["online", "offline", "unknown"].map(|n| point[n].as_i64());
    assert_eq!(known(&points[1]), [Some(3), Some(2), Some(0)], "{points}");
    let [online, offline, unknown] = known(&points[0]);
    assert_eq!((online, offline), (Some(0), Some(0)), "{points}");
    assert!(unknown >= Some(4), "{points}");
}

#[tokio::test]
async fn a_timeline_of_long_ago_is_the_same_whichever_end_of_the_log_is_near() {
    let fleet = Fleet::new(CALM).await;
    written_log::write(&fleet.sql().await, 1, 8_000).await;
    let pod = fleet.pod("a").await;
    // Position p was recorded p seconds after the year began; ten take turns in coming, and then in going.
    for (first, query) in [
        (600, "since=2020-01-01T00:10:00Z&until=2020-01-01T00:12:00Z&step=1s"),
        (7_200, "since=2020-01-01T02:00:00Z&until=2020-01-01T02:02:00Z&step=1s"),
    ] {
        let points = get(&pod, &format!("/v1/fleet/timeline?{query}")).await["points"].clone();
        let points = points.as_array().expect("points");
        assert_eq!(points.len(), 121);
        for (position, point) in (first..).zip(points) {
            let turn = (position - 1) % 20;
            let online = if turn < 10 { turn + 1 } else { 19 - turn };
            let expected = (&json!(online), &json!(10 - online));
            assert_eq!((&point["online"], &point["offline"]), expected, "{point}");
            if position % 40 == 0 {
                let then = get(&pod, &format!("/v1/fleet?position={position}")).await;
                assert_eq!((&then["online"], &then["offline"]), expected, "{then}");
            }
        }
    }
    let before = "since=2019-12-31T23:00:00Z&until=2020-01-01T00:00:00Z&step=30m";
    let points = get(&pod, &format!("/v1/fleet/timeline?{before}")).await;
    let nobody = |at: &str| json!({"at": at, "online": 0, "offline": 0, "unknown": 0});
    let expected =
        ["2019-12-31T23:00:00.000Z", "2019-12-31T23:30:00.000Z", "2020-01-01T00:00:00.000Z"];
    assert_eq!(points["points"], json!(expected.map(nobody)));
}

#[tokio::test]
async fn what_retention_has_dropped_is_unknown_in_a_timeline_and_refused_elsewhere() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    written_log::narrow(&sql, 1_000).await;
    written_log::write(&sql, 1, 2_500).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    eventually("the relay to have published all", async || {
        let row = sql.query_one("select position from relay", &[]).await;
        let position: i64 = row.map_err(|error| error.to_string())?.get(0);
        if position == 2_500 { Ok(()) } else { Err(position.to_string()) }
    })
    .await;
    let at = |second: i64| {
        let begin = time::macros::datetime!(2020-01-01 00:00:00 UTC);
        written(begin + time::Duration::seconds(second))
    };
    let window = format!("since={}&until={}&step=10s", at(1_980), at(2_040));
    let whole = get(&pod, &format!("/v1/fleet/timeline?{window}")).await["points"].clone();
    let database = [("DATABASE_URL".to_owned(), fleet.database_url.clone())];
    let drop = ["retention", "--older-than", "1h"];
    let dropped =
        crate::harness::wait::blocking(move || crate::harness::program::run(&drop, &database));
    assert!(dropped.await.status.success());

    let points = get(&pod, &format!("/v1/fleet/timeline?{window}")).await["points"].clone();
    for n in 0..7 {
        if n <= 2 {
            let unknown =
                json!({"at": at(1_980 + 10 * n), "online": 0, "offline": 0, "unknown": 10});
            assert_eq!(points[n as usize], unknown);
        } else {
            assert_eq!(points[n as usize], whole[n as usize]);
        }
    }
    let satellite = written_log::satellite(0);
    let asked = format!("/v1/intervals?ids={satellite}&since={}&until={}", at(2_000), at(2_040));
    let refused = pod.get(&asked).await;
    assert_eq!(
        (refused.status, &refused.json()["type"]),
        (410, &json!("urn:groundstation:problem:dropped"))
    );
    let told = get(
        &pod,
        &format!("/v1/intervals?ids={satellite}&since={}&until={}", at(2_001), at(2_040)),
    )
    .await;
    let states = states(&told);
    let told: Vec<&str> = states[&satellite].iter().map(|(_, _, state)| state.as_str()).collect();
    assert_eq!(told, ["up", "down", "up", "down"], "{states:?}");
    assert_eq!(pod.get("/v1/fleet?position=10").await.status, 410);
    assert_eq!(pod.get("/v1/fleet?position=2000&region=eu").await.json()["total"], 10);
}

#[tokio::test]
async fn a_window_that_cannot_be_told_is_refused_by_name_and_limit() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let id = Uuid::new_v4();
    let many: Vec<String> = (0..201).map(|_| Uuid::new_v4().to_string()).collect();
    let too_many = format!("intervals?ids={}", many.join(","));
    let intervals = |query: &str| format!("intervals?ids={id}&{query}");
    for (path, status, words) in [
        ("fleet/timeline?step=0s".to_owned(), 422, "step must be"),
        ("fleet/timeline?step=100ms".to_owned(), 422, "step must be a duration of 1s at least"),
        ("fleet/timeline?step=1m".to_owned(), 422, "at most 1000 points"),
        ("fleet/timeline?since=yesterday".to_owned(), 422, "since must be a time"),
        (
            "fleet/timeline?until=0000-01-01T00:00:00Z".to_owned(),
            422,
            "until must be a time such as",
        ),
        (
            "fleet/timeline?until=0000-01-01T00:00:00Z".to_owned(),
            422,
            "from the year 1 to the year 9999",
        ),
        // Its offset brings it into the year 10000.
        (
            "fleet/timeline?since=9999-12-31T23:59:59-00:01".to_owned(),
            422,
            "since must be a time such as",
        ),
        ("fleet?at=0000-12-31T00:00:00Z".to_owned(), 422, "at must be a time such as"),
        ("transitions?since=0000-12-31T00:00:00Z".to_owned(), 422, "since must be a time such as"),
        ("fleet/timeline?until=0001-01-01T00:00:00Z".to_owned(), 422, "since must be before until"),
        ("fleet/timeline?until=2999-01-01T00:00:00Z".to_owned(), 422, "not happened"),
        ("fleet/timeline?since=2020-01-01T00:00:00Z".to_owned(), 422, "at most 366 days"),
        (
            "fleet/timeline?since=2020-01-02T00:00:00Z&until=2020-01-01T00:00:00Z".to_owned(),
            422,
            "since must be before until",
        ),
        ("fleet/timeline?region=eu".to_owned(), 400, "no parameter \"region\""),
        ("intervals".to_owned(), 422, "ids must be 1 to 200"),
        ("intervals?ids=".to_owned(), 422, "ids must be UUIDs"),
        (format!("intervals?ids={id},edge"), 422, "\"edge\" is none"),
        (too_many, 422, "ids must be 1 to 200"),
        (intervals("until=2999-01-01T00:00:00Z"), 422, "not happened"),
        (intervals("since=2020-01-01T00:00:00Z"), 422, "at most 366 days"),
        (intervals("window=1h"), 400, "no parameter \"window\""),
    ] {
        let answer = pod.get(&format!("/v1/{path}")).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(words), "{path}: {detail}");
    }
    let empty = get(&pod, "/v1/fleet/timeline").await;
    assert_eq!(empty["points"].as_array().map(Vec::len), Some(201));
}

/// A hundred thousand satellites in a full run, each with two edges within the day and some before it. How long it takes is
/// measured by `make bench`.
#[tokio::test]
async fn every_point_of_a_large_fleets_day_counts_the_whole_fleet() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    let satellites: i64 = if faults::full() { 100_000 } else { 2_000 };
    let transitions = 4 * satellites;
    let days = std::time::Duration::from_secs(2 * 24 * 60 * 60);
    let step = days.div_f64(transitions as f64 + 1.0);
    let turns = Turns { satellites, begin: now(&fleet).await - days, step };
    written_log::write_turns(&sql, &turns, 1, transitions).await;
    sql.batch_execute("vacuum analyze").await.expect("vacuum");
    // A pod that is not optimised, on a busy machine, needs longer.
    let pod = fleet.plan("a").with("GROUNDSTATION_READ_TIMEOUT", "60s").start().await;
    let timeline = get(&pod, "/v1/fleet/timeline?step=2m").await;
    let points = timeline["points"].as_array().expect("points");
    assert_eq!(points.len(), 721);
    let last = points.last().expect("a point");
    assert_eq!((&last["online"], &last["offline"]), (&json!(0), &json!(satellites)), "{last}");
    let first = points.first().expect("a point");
    // A turn of everybody takes half a day: as the day begins all have just gone.
    assert!(first["offline"].as_i64() > Some(satellites * 9 / 10), "{first}");
    let count = |point: &Value, state: &str| point[state].as_i64().expect("a number");
    assert!(points.iter().all(|p| count(p, "online") + count(p, "offline") == satellites));
}
