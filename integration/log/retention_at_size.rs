//! Retention of partitions as large as in the field holds no edge up: pods archive and drop millions of transitions while
//! satellites come and go.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, stream::Config};
use flate2::read::MultiGzDecoder;
use time::macros::datetime;

use crate::harness::relaying::{SHORT_MEMORY, STREAM, expect_relay, subjects};
use crate::harness::traffic::Traffic;
use crate::harness::written_log::{self, Turns};
use crate::harness::{CALM, Fleet, eventually, stores, within};
use crate::stream::audit::audit;

/// The positions of a partition, which are those of the field, and of a log that has two to drop.
const PARTITION: i64 = 1_000_000;
const LENGTH: i64 = 2 * PARTITION + 500;

/// How many satellites have a past, and how far apart their edges were.
const SATELLITES: i64 = 10_000;
const STEP: Duration = Duration::from_secs(1);

/// So many others come and go, each once in this time: fifty edges a second.
const COMING_AND_GOING: usize = 25;
const EVERY: Duration = Duration::from_secs(1);

/// How many of their edges there are before retention begins, and behind its end.
const SOME: i64 = 100;

/// How long an edge may be held up.
const LONGEST: Duration = Duration::from_secs(1);

/// How long archiving and dropping two partitions may take a program that is not optimized.
const A_LONG_TIME: Duration = Duration::from_secs(900);

/// A stream whose limits have removed all messages of this log, as far as stream and relay know.
async fn stream_behind(fleet: &Fleet, length: i64) {
    let config = Config {
        name: STREAM.to_owned(),
        subjects: subjects(),
        duplicate_window: SHORT_MEMORY,
        max_age: Duration::from_secs(24 * 60 * 60),
        first_sequence: Some(length as u64 + 1),
        ..Config::default()
    };
    jetstream::new(fleet.nats().await).create_stream(config).await.expect("a stream");
    let checkpoint = "update relay set position = $1, stream_sequence = $1";
    fleet.sql().await.execute(checkpoint, &[&length]).await.expect("the relay's row");
}

async fn goes_on(fleet: &Fleet) {
    let sql = fleet.sql().await;
    let head = async || {
        let head = "select max(position) from entity_transitions";
        sql.query_one(head, &[]).await.expect("the log can be read").get::<_, i64>(0)
    };
    let before = head().await;
    eventually("edges", async || {
        let head = head().await;
        if head >= before + SOME { Ok(()) } else { Err(head.to_string()) }
    })
    .await;
}

fn lines(file: &Path) -> usize {
    let file = std::fs::File::open(file).expect("an archive");
    BufReader::new(MultiGzDecoder::new(BufReader::new(file))).lines().count()
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn dropping_partitions_of_a_million_holds_no_edge_up_for_a_second() {
    let fleet = Fleet::with_own_postgres(CALM).await;
    let sql = fleet.sql().await;
    let begin = datetime!(2020-01-01 00:00:00 UTC);
    let turns = Turns { satellites: SATELLITES, begin, step: STEP };
    for first in (1..=LENGTH).step_by(PARTITION as usize) {
        let last = LENGTH.min(first + PARTITION - 1);
        written_log::write_turns(&sql, &turns, first, last).await;
    }
    sql.batch_execute("vacuum analyze").await.expect("vacuum");
    stream_behind(&fleet, LENGTH).await;

    let pod = fleet.pod("a").await;
    expect_relay(&pod, "leading").await;
    let traffic = Traffic::begin(&fleet, &pod, COMING_AND_GOING, EVERY).await;
    goes_on(&fleet).await;
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("archives").join(stores::random());
    let keeper = fleet
        .plan("b")
        .with("GROUNDSTATION_RETENTION", "90d")
        .with("GROUNDSTATION_ARCHIVE_DIR", folder.to_str().expect("a name"))
        .start()
        .await;
    within(A_LONG_TIME, "two partitions to be dropped", async || {
        let horizon = keeper.metric("groundstation_log_horizon").await;
        if horizon == (2 * PARTITION) as f64 { Ok(()) } else { Err(keeper.log()) }
    })
    .await;
    goes_on(&fleet).await;
    let longest = traffic.end().await;
    println!("the longest wait for an edge was {longest:?}");
    assert!(longest < LONGEST, "an edge was held up for {longest:?}");

    let files = folder.read_dir().expect("the archive").map(|file| file.expect("a file").path());
    let archived: Vec<usize> = files.map(|file| lines(&file)).collect();
    assert_eq!(archived, [PARTITION as usize; 2]);
    std::fs::remove_dir_all(&folder).expect("the archive");
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok, "{ended:?}");
}
