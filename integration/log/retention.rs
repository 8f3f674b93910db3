//! Retention drops only whole old partitions, after they are archived and published. The states they folded to stay.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use groundstation::domain::lifecycle::{Position, SatelliteId};
use groundstation::log::history::{self, At, NoAnswer};
use groundstation::platform::database::Address;
use serde_json::Value;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::harness::log_and_stream::{read_log, read_stream};
use crate::harness::pod::Answer;
use crate::harness::wait::blocking;
use crate::harness::{
    CALM, Fleet, Pod, Proxy, Satellite, eventually, program, stores, written_log,
};

const WIDTH: i64 = 1_000;

/// A fleet whose log holds this many old transitions in narrow partitions, all of them published as
/// far as the relay's row says.
async fn with_a_log(length: i64) -> (Fleet, Client) {
    let fleet = Fleet::new(CALM).await;
    let sql = log_in(&fleet, length).await;
    (fleet, sql)
}

async fn log_in(fleet: &Fleet, length: i64) -> Client {
    let sql = fleet.sql().await;
    written_log::narrow(&sql, WIDTH).await;
    written_log::write(&sql, 1, length).await;
    publish(&sql, length).await;
    sql
}

/// Makes the log begin so many days ago.
async fn make_younger(sql: &Client, days: i32) {
    let younger = format!(
        "set session_replication_role = replica;
         update entity_transitions t
            set occurred_at = began + position * interval '1 second',
                recorded_at = began + position * interval '1 second'
           from (select date_trunc('milliseconds', clock_timestamp()) - interval '{days} days' as began) b;
         reset session_replication_role"
    );
    sql.batch_execute(&younger).await.expect("a younger log");
}

async fn publish(sql: &Client, position: i64) {
    let checkpoint = "update relay set position = $1, stream_sequence = $1";
    sql.execute(checkpoint, &[&position]).await.expect("the relay's row");
}

/// Waits until a pod's relay reports that it has published up to here.
async fn published(sql: &Client, position: i64) {
    eventually("everything to be on the stream", async || {
        let row = sql.query_one("select position from relay", &[]).await.expect("the relay's row");
        let published: i64 = row.get(0);
        if published == position { Ok(()) } else { Err(format!("{published}")) }
    })
    .await;
}

/// A folder of the test's own that does not exist yet.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("archives").join(stores::random())
}

async fn run(fleet: &Fleet, arguments: &[&str]) -> Output {
    let environment = vec![("DATABASE_URL".to_owned(), fleet.database_url.clone())];
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        program::run(&arguments, &environment)
    })
    .await
}

/// The output of a command that must succeed.
async fn written(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = run(fleet, arguments).await;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The message of a command that must fail.
async fn refusal(fleet: &Fleet, arguments: &[&str]) -> String {
    let output = run(fleet, arguments).await;
    assert!(!output.status.success(), "{arguments:?} succeeded: {output:?}");
    String::from_utf8(output.stderr).expect("text")
}

async fn retention(fleet: &Fleet, archive: &Path) -> String {
    let archive = archive.to_str().expect("a name");
    written(fleet, &["retention", "--older-than", "90d", "--archive", archive]).await
}

/// The first position that is left, and the number of positions.
async fn left(sql: &Client) -> (i64, i64) {
    let row = sql.query_one("select min(position), count(*) from entity_transitions", &[]).await;
    let row = row.expect("the log can be read");
    (row.get(0), row.get(1))
}

fn archived(folder: &Path) -> Vec<PathBuf> {
    let entries = folder.read_dir().expect("the archive");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

fn lines(files: &[PathBuf]) -> Vec<Value> {
    let lines = |file: &PathBuf| {
        let file = MultiGzDecoder::new(std::fs::File::open(file).expect("an archive"));
        let lines = BufReader::new(file).lines();
        lines.map(|line| serde_json::from_str(&line.expect("text")).expect("JSON")).collect()
    };
    files.iter().flat_map(|file| -> Vec<Value> { lines(file) }).collect()
}

#[tokio::test]
async fn old_partitions_are_archived_whole_and_dropped() {
    let (fleet, sql) = with_a_log(3_500).await;
    let before = read_log(&sql).await;
    let replayed = written(&fleet, &["replay", "--last", "3000"]).await;
    let folder = folder();
    let said = retention(&fleet, &folder).await;
    assert!(
        said.contains("positions 1 to 1000") && said.contains("positions 2001 to 3000"),
        "{said}"
    );
    assert!(said.contains("positions 3001 to 4000 stay"), "{said}");
    assert_eq!(left(&sql).await, (3_001, 500));

    let files = archived(&folder);
    assert_eq!(files.len(), 3, "{files:?}");
    let name = "transitions-00000000000000001001-00000000000000002000.jsonl.gz";
    assert!(files[1].ends_with(name), "{files:?}");
    // Line by line as a replay prints them, plus the trace.
    let mut lines = lines(&files);
    for (line, row) in lines.iter_mut().zip(&before) {
        let line = line.as_object_mut().expect("an object");
        let traceparent = line.remove("traceparent");
        assert_eq!(traceparent, row.traceparent.clone().map(Value::from), "{}", row.position);
    }
    assert!(before[99].traceparent.is_some());
    let replayed: Vec<Value> =
        replayed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines, replayed);

    // A second run has nothing to do and says so.
    assert!(retention(&fleet, &folder).await.contains("nothing to drop"));
    assert_eq!(archived(&folder), files);
}

#[tokio::test]
async fn a_dry_run_says_what_a_run_would_do_and_does_nothing() {
    let (fleet, sql) = with_a_log(2_500).await;
    let said = written(&fleet, &["retention", "--older-than", "90d", "--dry-run"]).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].contains("positions 1 to 1000") && lines[0].contains("would be dropped"));
    assert!(lines[2].contains("positions 2001 to 3000") && lines[2].contains("stay"), "{said}");
    assert_eq!(left(&sql).await, (1, 2_500));
}

#[tokio::test]
async fn what_is_young_stays() {
    // Everything is 80 days old, except that all but the last position of the first partition are years old.
    let (fleet, sql) = with_a_log(999).await;
    let young = "
        insert into entity_transitions
        select 1000 + n, 1, gen_random_uuid(), kind, gen_random_uuid(), event, reason, session,
               null, next, actor_type, actor_id, null, 1, at, at
          from entity_transitions,
               generate_series(0, 1001) n,
               lateral (select date_trunc('milliseconds', clock_timestamp()) - interval '80 days' as at) then_
         where position = 1";
    sql.batch_execute("select extend_transition_log(1000, 5000)").await.expect("room");
    sql.batch_execute(young).await.expect("younger transitions");
    publish(&sql, 2_001).await;
    let folder = folder();
    let said = retention(&fleet, &folder).await;
    assert!(said.contains("nothing to drop") && said.contains("not old enough"), "{said}");
    assert_eq!(left(&sql).await, (1, 2_001));
    // Two full partitions are older than this, and only the newest transition comes after them.
    written(&fleet, &["retention", "--older-than", "79d"]).await;
    assert_eq!(left(&sql).await, (2_001, 1));
}

#[tokio::test]
async fn the_newest_transition_always_stays() {
    let (fleet, sql) = with_a_log(2_000).await;
    written(&fleet, &["retention", "--older-than", "1h"]).await;
    // The last partition is full and old, and holds the head.
    assert_eq!(left(&sql).await, (1_001, 1_000));
    let said = written(&fleet, &["retention", "--older-than", "1h"]).await;
    assert!(said.contains("the newest transitions"), "{said}");
    // Positions go on behind it.
    let pod = fleet.plan("a").with("GROUNDSTATION_PARTITION_WIDTH", "1000").start().await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    let ended = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(credentials.id, &ended).await;
    assert_eq!(left(&sql).await, (1_001, 1_002));
}

#[tokio::test]
async fn what_is_not_published_stays() {
    let (fleet, sql) = with_a_log(3_500).await;
    publish(&sql, 1_999).await;
    let said = retention(&fleet, &folder()).await;
    assert!(said.contains("the relay has published only up to position 1999"), "{said}");
    assert_eq!(left(&sql).await, (1_001, 2_500));
}

#[tokio::test]
async fn the_database_itself_refuses_to_drop_what_must_stay() {
    let (_fleet, sql) = with_a_log(3_500).await;
    publish(&sql, 2_500).await;
    sql.batch_execute("set role groundstation_service").await.expect("the role");
    let drop = async |first: i64, span: &str| {
        let drop = format!("select drop_transition_partition({first}, interval '{span}')");
        sql.batch_execute(&drop).await
    };
    let cases = [
        (1, "59 minutes", SqlState::INVALID_PARAMETER_VALUE),
        (1, "-90 days", SqlState::INVALID_PARAMETER_VALUE),
        (1_001, "90 days", SqlState::RESTRICT_VIOLATION),
        (2, "90 days", SqlState::RESTRICT_VIOLATION),
        (1, "90 years", SqlState::RESTRICT_VIOLATION),
    ];
    for (first, span, state) in cases {
        let error = drop(first, span).await.expect_err("a refusal");
        assert_eq!(error.code(), Some(&state), "{first} {span}: {error:?}");
    }
    assert_eq!(left(&sql).await, (1, 3_500));
    drop(1, "90 days").await.expect("the oldest may go");
    drop(1_001, "90 days").await.expect("then the next");
    let error = drop(2_001, "90 days").await.expect_err("not published");
    assert!(error.as_db_error().expect("a refusal").message().contains("the relay"), "{error:?}");
    assert_eq!(left(&sql).await, (2_001, 1_500));
    for change in
        ["delete from transitions_at_horizon", "update transition_partitions set dropped_at = null"]
    {
        let error = sql.batch_execute(change).await.expect_err(change);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{change}");
    }
}

#[tokio::test]
async fn nothing_is_dropped_without_a_whole_archive() {
    let (fleet, sql) = with_a_log(1_500).await;
    let folder = folder();
    std::fs::create_dir_all(folder.parent().expect("a parent")).expect("a folder");
    // A file in place of the folder.
    std::fs::write(&folder, "in the way").expect("a file");
    let arguments =
        ["retention", "--older-than", "90d", "--archive", folder.to_str().expect("a name")];
    let said = refusal(&fleet, &arguments).await;
    assert!(said.contains("cannot archive positions 1 to 1000"), "{said}");
    std::fs::remove_file(&folder).expect("a file");
    // Another installation's archive, and what a crash left of ours.
    std::fs::create_dir(&folder).expect("a folder");
    let name = "transitions-00000000000000000001-00000000000000001000.jsonl.gz";
    std::fs::write(folder.join(name), "somebody else's").expect("a file");
    let rest = folder.join(format!(".{name}.left"));
    std::fs::write(&rest, "half").expect("a file");
    let said = refusal(&fleet, &arguments).await;
    assert!(said.contains("is there and holds something else"), "{said}");
    assert_eq!(std::fs::read(folder.join(name)).expect("the file"), b"somebody else's");
    assert_eq!(left(&sql).await, (1, 1_500));
    assert!(!rest.exists());
    assert_eq!(archived(&folder).len(), 1, "nothing unfinished is left");

    // A run ended between archive and drop: the next one accepts the archive.
    std::fs::remove_file(folder.join(name)).expect("the file");
    let reader = fleet.sql().await;
    reader
        .batch_execute("begin; select 1 from entity_transitions limit 1")
        .await
        .expect("a reader");
    let said = refusal(&fleet, &arguments).await;
    assert!(said.contains("the log is in use"), "{said}");
    assert_eq!(left(&sql).await, (1, 1_500));
    assert_eq!(lines(&archived(&folder)).len(), 1_000);
    reader.batch_execute("commit").await.expect("the reader ends");
    written(&fleet, &arguments).await;
    assert_eq!(left(&sql).await, (1_001, 500));
    assert_eq!(lines(&archived(&folder)).len(), 1_000);
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn appends_are_hardly_held_up_while_a_drop_cannot_have_its_lock() {
    let (fleet, sql) = with_a_log(1_500).await;
    publish(&sql, 0).await;
    let pod = fleet.pod("a").await;
    published(&sql, 1_500).await;
    let credentials = pod.register("edge", "eu").await;
    let reader = fleet.sql().await;
    reader
        .batch_execute("begin; select 1 from entity_transitions limit 1")
        .await
        .expect("a reader");
    let mut longest = Duration::ZERO;
    let failed = async {
        let said = refusal(&fleet, &["retention", "--older-than", "90d"]).await;
        assert!(said.contains("the log is in use"), "{said}");
    };
    let mut failed = std::pin::pin!(failed);
    loop {
        let begun = Instant::now();
        tokio::select! {
            () = &mut failed => break,
            // Authenticated means appended.
            satellite = Satellite::connect(pod.address, &credentials) => satellite.vanish(),
        }
        longest = longest.max(begun.elapsed());
    }
    // One wait for the lock and a little more; the reader stays for longer than all tries together.
    assert!(longest < Duration::from_secs(4), "{longest:?}");
    assert_eq!(left(&sql).await.0, 1);
}

#[tokio::test]
async fn several_at_once_drop_each_partition_once() {
    let (fleet, sql) = with_a_log(5_500).await;
    let folder = folder();
    let archive = folder.to_str().expect("a name");
    let arguments = ["retention", "--older-than", "90d", "--archive", archive];
    let outputs =
        tokio::join!(run(&fleet, &arguments), run(&fleet, &arguments), run(&fleet, &arguments));
    let mut dropped = 0;
    for output in [outputs.0, outputs.1, outputs.2] {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() || said.contains("another retention is under way"),
            "{said}"
        );
        dropped += String::from_utf8_lossy(&output.stdout).matches(" dropped").count();
    }
    // Nothing was in the way of the run that led.
    assert_eq!(dropped, 5);
    assert_eq!(left(&sql).await, (5_001, 500));
    let positions: Vec<i64> = lines(&archived(&folder))
        .iter()
        .map(|line| line["position"].as_i64().expect("a position"))
        .collect();
    assert_eq!(positions, (1..=5_000).collect::<Vec<i64>>());
}

#[tokio::test]
async fn reads_from_below_the_horizon_say_so_or_begin_at_it() {
    let (fleet, _sql) = with_a_log(2_500).await;
    written(&fleet, &["retention", "--older-than", "90d"]).await;
    for below in [["--first", "2000"], ["--after", "0"], ["--since", "2020-01-01T00:33:20Z"]] {
        let said = refusal(&fleet, &["replay", below[0], below[1]]).await;
        assert!(said.contains("dropped by retention"), "{said}");
    }
    for above in [["--first", "2001"], ["--after", "2000"], ["--since", "2020-01-01T00:33:20.001Z"]]
    {
        let lines = written(&fleet, &["replay", above[0], above[1]]).await;
        assert_eq!(lines.lines().count(), 500, "{above:?}");
    }
    let output = run(&fleet, &["replay"]).await;
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the log begins at position 2001"), "{said}");

    let pod = fleet.pod("a").await;
    let page = pod.get("/v1/transitions?after=0&limit=1").await.json();
    assert_eq!(page["transitions"][0]["position"], 2_001);
}

#[tokio::test]
async fn a_replay_that_retention_overtakes_says_so() {
    let (fleet, sql) = with_a_log(3_500).await;
    let environment = [("DATABASE_URL".to_owned(), fleet.database_url.clone())];
    let mut command = program::command(&environment);
    // Four seconds for what it reads at once: what is dropped meanwhile comes after that.
    command.args(["replay", "--speed", "250x"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut replaying = command.spawn().expect("the program starts");
    let mut lines = BufReader::new(replaying.stdout.take().expect("piped")).lines();
    let lines = blocking(move || {
        lines.next().expect("a line").expect("text");
        lines
    })
    .await;
    written(&fleet, &["retention", "--older-than", "90d"]).await;
    assert_eq!(left(&sql).await, (3_001, 500));
    let (read, output) =
        blocking(move || (1 + lines.count(), replaying.wait_with_output().expect("it ends"))).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("retention has just dropped"), "{said}");
    // Nothing is skipped: whole pages were sent, and the last one says where it was.
    assert!(read % 1_000 == 0 && read <= 3_000, "{read}");
    assert!(said.trim().ends_with(&format!("--after {read}")), "{said}");
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn what_the_dropped_transitions_came_to_is_not_lost() {
    let (fleet, sql) = with_a_log(2_500).await;
    // One satellite has been quiet for the whole span that is kept.
    let quiet = "
        insert into entity_transitions
        select 2501, 1, gen_random_uuid(), kind, 'ffffffff-0000-0000-0000-000000000000', event, reason,
               1, null, next, actor_type, actor_id, null, 1, occurred_at, t.newest
          from entity_transitions, (select max(recorded_at) as newest from entity_transitions) t
         where position = 1";
    sql.batch_execute(quiet).await.expect("one more");
    written_log::write(&sql, 2_502, 4_500).await;
    publish(&sql, 0).await;
    let pod = fleet.pod("a").await;
    published(&sql, 4_500).await;
    let fleet_at = async |position: i64| {
        let mut page = pod.get(&format!("/v1/satellites?position={position}")).await.json();
        page["satellites"].take()
    };
    // The first of them becomes the horizon.
    let places = [4_000, 4_001, 4_250, 4_500];
    let mut before = Vec::new();
    for place in places {
        let fleet = fleet_at(place).await;
        assert_eq!(fleet.as_array().expect("a fleet").len(), 11);
        before.push(fleet);
    }
    written(&fleet, &["retention", "--older-than", "90d"]).await;
    assert_eq!(left(&sql).await.0, 4_001);
    for (place, before) in places.into_iter().zip(before) {
        assert_eq!(fleet_at(place).await, before, "{place}");
    }
    let gone = pod.get("/v1/satellites?position=3777").await;
    assert!(gone.status >= 400 && gone.text.contains("4001"), "{gone:?}");
    // The projection still follows from the log, whole.
    let checked = run(&fleet, &["rebuild", "--check"]).await;
    assert!(checked.status.success(), "{checked:?}");
    let rows = async || -> i64 {
        let count = sql.query_one("select count(*) from satellite_connections", &[]).await;
        count.expect("the projection").get(0)
    };
    assert_eq!(rows().await, 11);
    sql.batch_execute(
        "delete from satellite_connections
         where satellite_id in (select entity_id from transitions_at_horizon)
           and satellite_id not in (select entity_id from entity_transitions)",
    )
    .await
    .expect("owner");
    assert_eq!(rows().await, 10);
    assert!(!run(&fleet, &["rebuild", "--check"]).await.status.success());
    written(&fleet, &["rebuild"]).await;
    assert_eq!(rows().await, 11);
    written(&fleet, &["rebuild", "--check"]).await;
}

#[tokio::test]
async fn pods_do_it_by_themselves_and_make_room_ahead() {
    let (fleet, sql) = with_a_log(3_500).await;
    publish(&sql, 0).await;
    let folder = folder();
    let plan = |name: &str| fleet.plan(name).with("GROUNDSTATION_PARTITION_WIDTH", "1000");
    // The first relay publishes what is there; nothing is dropped before.
    let first = plan("first").start().await;
    published(&sql, 3_500).await;
    fleet.check().await;
    let keeping = |name: &str| {
        let folder = folder.to_str().expect("a name");
        plan(name).with("GROUNDSTATION_RETENTION", "90d").with("GROUNDSTATION_ARCHIVE_DIR", folder)
    };
    let (_second, _third) = tokio::join!(keeping("second").start(), keeping("third").start());
    eventually("what is old to go", async || {
        let left = left(&sql).await;
        if left == (3_001, 500) { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    assert_eq!(lines(&archived(&folder)).len(), 3_000);
    let room = "select max(past_position) - 3501, max(past_position - first_position)
                  from transition_partitions";
    let room = sql.query_one(room, &[]).await.expect("the partitions");
    assert!(room.get::<_, i64>(0) >= 20 * WIDTH, "{room:?}");
    assert_eq!(room.get::<_, i64>(1), WIDTH);
    // Edges continue across the end of a partition.
    written_log::write(&sql, 3_501, 3_999).await;
    let credentials = first.register("edge", "eu").await;
    Satellite::connect(first.address, &credentials).await.close().await;
    let ended = ["1 connected connect", "1 disconnected client_close"];
    fleet.expect_history(credentials.id, &ended).await;
    assert_eq!(left(&sql).await, (3_001, 1_001));
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn the_relay_goes_on_from_the_horizon() {
    let (fleet, sql) = with_a_log(1_000).await;
    publish(&sql, 0).await;
    let nats = fleet.nats().await;
    let on_stream = async |expected: Vec<i64>| {
        eventually("the stream to be whole", async || {
            let stream = read_stream(&nats).await;
            let positions: Vec<i64> = stream
                .iter()
                .map(|message| message.headers["Groundstation-Position"].parse().expect("a number"))
                .collect();
            if positions == expected {
                Ok(())
            } else {
                Err(format!("{} messages", positions.len()))
            }
        })
        .await;
    };
    let mut pod = fleet.pod("a").await;
    on_stream((1..=1_000).collect()).await;
    pod.terminate();
    pod.exit().await;
    // The stream's tail is the last dropped position: there is no row left to compare it with.
    publish(&sql, 1_000).await;
    written_log::write(&sql, 1_001, 1_200).await;
    written(&fleet, &["retention", "--older-than", "90d"]).await;
    assert_eq!(left(&sql).await, (1_001, 200));
    let mut pod = fleet.pod("b").await;
    on_stream((1..=1_200).collect()).await;
    assert_eq!(pod.metric("groundstation_relay_halted").await, 0.0);
    pod.terminate();
    pod.exit().await;
    // The stream is lost: the new one gets what is left of the log.
    let jetstream = async_nats::jetstream::new(nats.clone());
    jetstream.delete_stream("SATELLITE_TRANSITIONS").await.expect("it goes");
    let pod = fleet.pod("c").await;
    on_stream((1_001..=1_200).collect()).await;
    pod.expect_log("the stream goes on behind a gap").await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_clock_that_steps_ahead_lets_nothing_go() {
    let (fleet, clock) = Fleet::with_clock(CALM).await;
    let sql = log_in(&fleet, 2_500).await;
    make_younger(&sql, 30).await;
    publish(&sql, 0).await;
    let pod = fleet.pod("a").await;
    published(&sql, 2_500).await;
    let years = 3 * 366 * 24 * 60 * 60;
    for seconds in [years, 0] {
        clock.shift(seconds);
        written(&fleet, &["retention", "--older-than", "90d"]).await;
        pod.sweeps(10).await;
        written(&fleet, &["retention", "--older-than", "90d"]).await;
        assert_eq!(left(&sql).await, (1, 2_500), "{seconds} s off");
    }
    written(&fleet, &["retention", "--older-than", "29d"]).await;
    assert_eq!(left(&sql).await, (2_001, 500));
}

/// Asks a pod while another transaction holds a lock for which a statement with these words waits, and drops the
/// first thousand transitions before it releases the lock.
async fn asked_while_dropped(
    fleet: &Fleet,
    pod: &Pod,
    (lock, words): (&str, &str),
    path: &str,
) -> Answer {
    const WAITING: &str = "
        select count(*) from pg_stat_activity
         where datname = current_database() and wait_event_type = 'Lock' and strpos(query, $1) > 0";
    let (sql, dropping) = (fleet.sql().await, fleet.sql().await);
    dropping.batch_execute(&format!("begin; {lock}")).await.expect("the lock");
    let drop = async {
        eventually("the question to wait", async || {
            let waiting = sql.query_one(WAITING, &[&words]).await.expect("the activity");
            if waiting.get::<_, i64>(0) > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
        })
        .await;
        const DROP: &str = "select drop_transition_partition(1, interval '90 days'); commit";
        dropping.batch_execute(DROP).await.expect("dropped");
    };
    let (answer, ()) = tokio::join!(pod.get(path), drop);
    assert_eq!(left(&sql).await, (1_001, 1_500));
    answer
}

/// A pod whose reads wait for as long as a busy machine takes to drop a partition.
async fn patient(fleet: &Fleet) -> Pod {
    fleet.plan("a").with("GROUNDSTATION_READ_TIMEOUT", "60s").start().await
}

fn expect_gone(answer: &Answer) {
    assert_eq!(answer.status, 410, "{answer:?}");
    assert!(answer.text.contains("1001"), "{answer:?}");
}

#[tokio::test]
async fn a_moment_that_is_dropped_while_it_is_looked_for_is_gone() {
    let (fleet, sql) = with_a_log(2_500).await;
    publish(&sql, 0).await;
    let pod = patient(&fleet).await;
    published(&sql, 2_500).await;
    let lock =
        "select pg_advisory_xact_lock(hashtextextended('groundstation: entity_transitions', 0))";
    // Position 600.
    let path = "/v1/satellites?at=2020-01-01T00:10:00Z";
    let waits = (lock, "pg_advisory_xact_lock_shared");
    expect_gone(&asked_while_dropped(&fleet, &pod, waits, path).await);
}

#[tokio::test]
async fn stats_whose_window_is_dropped_while_they_are_made_are_gone() {
    let (fleet, sql) = with_a_log(2_500).await;
    publish(&sql, 0).await;
    // Old enough to go, and young enough to be asked about.
    make_younger(&sql, 200).await;
    let pod = patient(&fleet).await;
    published(&sql, 2_500).await;
    let path = format!("/v1/satellites/{}/stats?window=300d", written_log::satellite(0));
    let asked = pod.get(&path).await;
    assert_eq!(asked.status, 200, "{asked:?}");
    let lock = "lock table entity_transitions in access exclusive mode";
    expect_gone(&asked_while_dropped(&fleet, &pod, (lock, "recorded_at >= $5"), &path).await);
}

#[tokio::test]
async fn a_page_of_a_fleet_that_is_dropped_before_it_is_read_is_gone() {
    let (fleet, sql) = with_a_log(2_500).await;
    let database = Address::parse("DATABASE_URL", &fleet.database_url).expect("an address");
    let database = database.pool("test").expect("a pool");
    let client = database.get().await.expect("a connection");
    let as_of = async |position| {
        history::resolve(&client, At::Position(Position(position))).await.expect("a place")
    };
    let (dropped, left_over) = (as_of(600).await, as_of(1_000).await);
    let page = async |at| history::fleet(&client, at, Uuid::nil(), 0, 100).await;
    assert_eq!(page(dropped).await.expect("a page").0.len(), 10);
    sql.batch_execute("select drop_transition_partition(1, interval '90 days')")
        .await
        .expect("dropped");
    let gone = page(dropped).await;
    assert!(matches!(gone, Err(NoAnswer::Dropped(1_001))), "{gone:?}");
    let gone = history::state(&client, SatelliteId(written_log::satellite(0)), dropped).await;
    assert!(matches!(gone, Err(NoAnswer::Dropped(1_001))), "{gone:?}");
    assert_eq!(page(left_over).await.expect("a page").0.len(), 10);
}

/// A pod that was cut off for so long that its edge, which is in the log, has been dropped from it.
#[tokio::test]
async fn an_edge_whose_answer_was_lost_is_not_doubled_though_its_partition_is_dropped_before_the_retry()
 {
    let (fleet, sql) = with_a_log(0).await;
    let (database, database_url) = Proxy::before(&fleet.database_url).await;
    let pod = fleet.plan("a").with("DATABASE_URL", &database_url).start().await;
    let credentials = pod.register("edge", "eu").await;
    let mut satellite = Satellite::open(pod.address).await;
    // Committed, and unknown to the pod.
    database.lose_commit_about(credentials.id);
    satellite.authenticate(&credentials);
    fleet.expect_log_length(1).await;
    database.refuse();
    // The log grows by a partition and ages, and that partition is dropped.
    let goes_on = "
        begin;
        set local session_replication_role = replica;
        insert into entity_transitions
        select 1 + n, 1, gen_random_uuid(), kind, gen_random_uuid(), event, reason, 1, null, next,
               actor_type, actor_id, null, 1, occurred_at, recorded_at
          from generate_series(1, 1000) n, entity_transitions where position = 1;
        update entity_transitions set recorded_at = recorded_at - interval '100 days';
        update relay set position = 1001;
        commit";
    sql.batch_execute(goes_on).await.expect("the log goes on");
    written(&fleet, &["retention", "--older-than", "90d"]).await;
    assert_eq!(left(&sql).await, (1_001, 1));
    database.admit();
    satellite.expect("authenticated").await;
    let again = "select count(*) from remembered_transitions where entity_id = $1";
    let again: i64 = sql.query_one(again, &[&credentials.id]).await.expect("the log").get(0);
    assert_eq!(again, 1, "the same connect twice");
    satellite.close().await;
    let told = "
        select event, session from remembered_transitions where entity_id = $1 order by revision desc";
    eventually("the satellite to have left", async || {
        let row = sql.query_one(&format!("{told} limit 1"), &[&credentials.id]).await.expect("one");
        let (event, session): (String, i64) = (row.get(0), row.get(1));
        if event == "disconnected" && session == 1 {
            Ok(())
        } else {
            Err(format!("{event} {session}"))
        }
    })
    .await;
}
