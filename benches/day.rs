//! A day of a large fleet as people read it: counts along it, counts and a page as of a moment, intervals. Each
//! beside a bare scan of the same day's transitions.

use std::time::Duration;

use uuid::Uuid;

use crate::Scale;
use crate::history;
use crate::pod::Pod;
use crate::stores::Stores;
use crate::table::{self, compared, seconds};
use crate::timing::best;

/// Satellites whose intervals are asked for at once: the maximum.
const AT_ONCE: usize = 200;

/// Two days' edges, four of each satellite.
const DAYS: f64 = 2.0 * 24.0 * 60.0 * 60.0;

pub fn measure(scale: Scale) {
    let satellites = scale.choose(100_000, 500);
    let transitions = 4 * satellites;
    let stores = Stores::start();
    let ids = stores.register(satellites);
    history::write(&stores, &ids, transitions, DAYS / transitions as f64);
    let (pod, _) = Pod::start(&stores, "bench");
    let mut sql = stores.sql();
    // Else the pod would relay the log beside what is measured.
    while relayed(&mut sql) < transitions as i64 {
        std::thread::sleep(Duration::from_millis(50));
    }

    table::section(&format!("A day of {satellites} satellites, two edges of each within it"));
    let bare = best(3, || {
        let rows = sql.query(DAY, &[]).expect("rows");
        assert!(rows.len() >= satellites, "{}", rows.len());
    });
    let aim = "1 s";
    let read = |what: &str, path: &str, aim: &str| {
        let measured = best(5, || drop(pod.get(path).expect("an answer")));
        compared(what, seconds(measured), seconds(bare), measured / bare, aim);
    };
    read("timeline of the day, 721 points", "/v1/fleet/timeline?step=2m", aim);
    read("intervals of 200 satellites over the day", &intervals(&ids), aim);
    read("counts now", "/v1/fleet", "");
    let then = moment(&mut sql);
    read("counts a day ago", &format!("/v1/fleet?at={then}"), "");
    read("those online a day ago, 1,000 a page", &format!("{ONLINE}&at={then}"), "");
}

fn intervals(ids: &[Uuid]) -> String {
    let ids: Vec<String> = ids.iter().take(AT_ONCE).map(Uuid::to_string).collect();
    format!("/v1/intervals?ids={}", ids.join(","))
}

/// The position up to which the log is on the stream.
fn relayed(sql: &mut postgres::Client) -> i64 {
    sql.query_one("select position from relay", &[]).expect("the relay").get(0)
}

/// A day ago, as the API takes it.
fn moment(sql: &mut postgres::Client) -> String {
    const THEN: &str = r#"
        select to_char(now() at time zone 'utc' - interval '1 day', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;
    sql.query_one(THEN, &[]).expect("a moment").get(0)
}

const ONLINE: &str = "/v1/satellites?status=online&limit=1000";

/// What a timeline needs of a transition.
const DAY: &str = "
    select entity_id, event, occurred_at, recorded_at from entity_transitions
     where recorded_at > now() - interval '1 day' - interval '1 minute'";
