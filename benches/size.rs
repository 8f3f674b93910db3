//! Ten million transitions: until they are on a new stream and sealed, then replay, both audits and reads of the past,
//! each beside a bare COPY of the same rows.

use std::time::{Duration, Instant};

use crate::Scale;
use crate::history;
use crate::pod::Pod;
use crate::stores::Stores;
use crate::table::{self, compared, figure, note, rate, seconds};
use crate::timing::best;

/// Over how many days they were recorded.
const DAYS: f64 = 30.0;

/// How often it is looked how far the pod has got.
const LOOK: Duration = Duration::from_millis(200);

/// Reads are measured to their end, also where a pod of the field gives them up (after 5 s).
const READ_TIMEOUT: (&str, &str) = ("GROUNDSTATION_READ_TIMEOUT", "10m");

pub fn measure(scale: Scale) {
    let (transitions, satellites) = scale.choose((10_000_000, 100_000), (5_000, 500));
    let stores = Stores::start();
    let ids = stores.register(satellites);
    let step = DAYS * 24.0 * 3_600.0 / transitions as f64;
    history::write(&stores, &ids, transitions, step);

    table::section(&format!("The log: {transitions} transitions of {satellites} satellites"));
    let mut sql = stores.sql();
    let began = Instant::now();
    let (pod, _) = Pod::start_with(&stores, "bench", &[READ_TIMEOUT]);
    let [streamed, sealed] = reached(&mut sql, transitions as i64, began);
    figure("to a new stream, while it is sealed", rate(transitions, streamed), "");
    figure("sealed, while it goes to a new stream", rate(transitions, sealed), "");

    let copy = "copy (select * from entity_transitions order by position) to stdout";
    let bare = best(2, || {
        let mut reader = sql.copy_out(copy).expect("copy");
        std::io::copy(&mut reader, &mut std::io::sink()).expect("rows");
    });
    let beside = |what: &str, measured: f64| {
        compared(what, seconds(measured), seconds(bare), measured / bare, "");
    };
    beside("replay to JSON lines; bare: COPY of all rows", history::replayed(&stores, transitions));
    beside("audit: log against stream", history::timed(&stores, &["audit"], 1));
    beside("audit --chain: log against seals", history::timed(&stores, &["audit", "--chain"], 1));
    let read = |what: &str, path: &str| {
        beside(what, best(3, || drop(pod.get(path).expect("an answer"))));
    };
    let half = moment(&mut sql, DAYS / 2.0);
    read("counts in the middle of it", &format!("/v1/fleet?at={half}"));
    read("those online then, 1,000 a page", &format!("{ONLINE}&at={half}"));
    read("timeline of the last day, 721 points", "/v1/fleet/timeline?step=2m");
    let since = moment(&mut sql, DAYS - 0.1);
    let all = format!("/v1/fleet/timeline?since={since}&step=1h");
    read("timeline of all of it, 718 points", &all);
    note("reads were not given up after GROUNDSTATION_READ_TIMEOUT, which is 5 s elsewhere");
}

/// The seconds after which the whole log is on the stream, and after which it is sealed.
fn reached(sql: &mut postgres::Client, end: i64, began: Instant) -> [f64; 2] {
    let mut reached = [None, None];
    loop {
        let row = sql.query_one(PROGRESS, &[]).expect("relay and seals");
        for (n, reached) in reached.iter_mut().enumerate() {
            if row.get::<_, i64>(n) >= end {
                reached.get_or_insert(began.elapsed().as_secs_f64());
            }
        }
        if let [Some(streamed), Some(sealed)] = reached {
            return [streamed, sealed];
        }
        std::thread::sleep(LOOK);
    }
}

const PROGRESS: &str =
    "select position, (select coalesce(max(last_position), 0) from log_seals) from relay";

/// So many days ago, as the API takes it.
fn moment(sql: &mut postgres::Client, days: f64) -> String {
    const THEN: &str = r#"
        select to_char(now() at time zone 'utc' - $1::float8 * interval '1 day',
                       'YYYY-MM-DD"T"HH24:MI:SS"Z"')"#;
    sql.query_one(THEN, &[&days]).expect("a moment").get(0)
}

const ONLINE: &str = "/v1/satellites?status=online&limit=1000";
