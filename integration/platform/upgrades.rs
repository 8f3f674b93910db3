//! A newer version's migration is made while pods of this version run. They go on, and start again, on every schema
//! that allows them. On one that does not they end, with a line that says what to do.
//!
//! The next version is made up: its migrations are made by the real `migrate`, which is told that it knows them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use groundstation::platform::database::Address;
use groundstation::platform::migrations::{self, Migrated};
use refinery::Migration;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::harness::pod::try_call;
use crate::harness::wait::{PATIENCE, blocking};
use crate::harness::{
    Agents, Credentials, Fleet, Pod, SWEPT_OFTEN, Satellite, eventually, program, within,
    written_log,
};

/// Each kind of a migration that only adds, in an order in which they can be made: one large table a migration.
const EXPANSIONS: [(&str, &str); 18] = [
    ("a_column_of_satellites", "alter table satellites add column note text"),
    ("a_column_of_connections", "alter table satellite_connections add column note text"),
    ("a_column_of_changes", "alter table registry_changes add column note text"),
    ("a_column_of_pods", "alter table pods add column note text"),
    // Statements use this name for something else.
    (
        "columns_of_the_horizon",
        "alter table transitions_at_horizon add column note text, add column region text",
    ),
    (
        "columns_of_the_log",
        "alter table entity_transitions add column note text, add column region text",
    ),
    (
        "a_new_table",
        "create table notes (satellite_id uuid primary key, note text not null);
         grant select, insert, update on notes to groundstation_service;",
    ),
    ("a_new_index", "create index satellites_by_note on satellites (note)"),
    (
        "a_new_index_of_the_log",
        "create index entity_transitions_by_session on entity_transitions (session)",
    ),
    (
        "a_new_index_made_concurrently",
        "-- outside a transaction
         drop index concurrently if exists connections_by_revision;
         create index concurrently connections_by_revision on satellite_connections (revision);\n",
    ),
    (
        "other_bodies_of_all_functions",
        "do $$
         declare
             body text;
         begin
             for body in select pg_get_functiondef(p.oid) from pg_proc p join pg_language l on l.oid = p.prolang
                          where p.pronamespace = current_schema()::regnamespace and l.lanname = 'plpgsql' loop
                 execute replace(body, 'AS $function$', E'AS $function$\\n-- as before\\n');
             end loop;
         end
         $$;",
    ),
    (
        "one_more_column_of_a_view",
        "do $$
         begin
             execute 'create or replace view satellites_now with (security_invoker = true) as '
                     || regexp_replace(pg_get_viewdef('satellites_now'), E'\\n +FROM ', E',\\n s.note FROM ');
         end
         $$;",
    ),
    (
        "a_check_of_new_satellites",
        "alter table satellites add constraint note_is_short check (octet_length(note) <= 1000) not valid",
    ),
    (
        "a_check_of_new_transitions",
        "alter table entity_transitions add constraint note_is_short check (octet_length(note) <= 1000) not valid",
    ),
    (
        "a_wider_check_in_the_place_of_a_narrower_one",
        "alter table entity_transitions
             drop constraint reason_is_known,
             add constraint reason_is_known check (reason <> '') not valid;",
    ),
    (
        "another_trigger_of_satellites",
        "create trigger pods_hear_of_a_note after update of note on satellites
             for each row execute function note_change_of_satellite();",
    ),
    (
        "a_new_table_that_belongs_to_satellites",
        "create table satellite_notes (
             satellite_id uuid primary key references satellites (id) on delete cascade, note text not null
         );
         grant select, insert, update on satellite_notes to groundstation_service;",
    ),
    (
        "the_checks_of_all_rows",
        "alter table satellites validate constraint note_is_short;
         alter table entity_transitions validate constraint note_is_short;
         alter table entity_transitions validate constraint reason_is_known;",
    ),
];

/// The migrations of a version that is to come.
struct Next {
    known: Vec<Migration>,
    /// The newest schema that pods of this version know.
    before: i32,
}

impl Next {
    fn version() -> Next {
        let known = migrations::known();
        let before = known.last().expect("migrations").version();
        Next { known, before }
    }

    /// The version that has all of [`EXPANSIONS`].
    fn expanded() -> Next {
        let mut next = Next::version();
        for (name, sql) in EXPANSIONS {
            next.expand(name, sql);
        }
        next
    }

    /// One that lets pods of this version go on.
    fn expand(&mut self, name: &str, sql: &str) {
        self.add(&format!("{name}__beside_{}", self.before), sql);
    }

    /// One that only its own version can live with.
    fn contract(&mut self, name: &str, sql: &str) {
        let version = self.newest() + 1;
        self.add(&format!("{name}__beside_{version}"), sql);
    }

    fn add(&mut self, name: &str, sql: &str) {
        let name = format!("V{}__{name}", self.newest() + 1);
        self.known.push(Migration::unapplied(&name, sql).expect("the name of a migration"));
    }

    fn newest(&self) -> i32 {
        self.known.last().expect("migrations").version()
    }

    /// What its `migrate` does.
    fn migrate(&self, fleet: &Fleet) -> JoinHandle<anyhow::Result<Migrated>> {
        let (known, url) = (self.known.clone(), fleet.database_url.clone());
        tokio::task::spawn_blocking(move || {
            migrations::migrate_by(&known, &Address::parse("DATABASE_URL", &url)?, None)
        })
    }

    async fn is_made(&self, fleet: &Fleet) {
        self.migrate(fleet).await.expect("no panic").expect("the migration");
    }
}

/// The work of two pods: satellites that beat, others that come and go, and people who read and write.
struct Traffic {
    beating: [Agents; 2],
    coming_and_going: Vec<(Credentials, JoinHandle<u32>)>,
    asking: Vec<JoinHandle<u32>>,
    watching: Vec<JoinHandle<Vec<String>>>,
    stop: CancellationToken,
}

impl Traffic {
    async fn begin(fleet: &Fleet, pods: [&Pod; 2]) -> Traffic {
        let stop = CancellationToken::new();
        let [one, other] = pods.map(|pod| pod.address);
        let mut beating = fleet.register_many("beating", 12).await;
        let beating =
            [Agents::start(fleet, other, beating.split_off(6)), Agents::start(fleet, one, beating)];
        for agents in &beating {
            agents.expect_all().await;
        }
        let mut coming_and_going = Vec::new();
        for (n, credentials) in
            fleet.register_many("comes-and-goes", 4).await.into_iter().enumerate()
        {
            let address = [one, other][n % 2];
            let going = come_and_go(address, credentials.clone(), fleet.sql().await, stop.clone());
            coming_and_going.push((credentials, tokio::spawn(going)));
        }
        let paths = questions(fleet, &coming_and_going[0].0).await;
        let mut asking = Vec::new();
        let mut watching = Vec::new();
        for address in [one, other] {
            let changed = fleet.register_many("changed", 1).await.remove(0);
            let (paths, token) = (paths.clone(), fleet.admin_token.clone());
            asking.push(tokio::spawn(ask(address, token.clone(), paths, stop.clone())));
            asking.push(tokio::spawn(change(address, token, changed, stop.clone())));
            watching.push(tokio::spawn(watch(address, stop.clone())));
        }
        Traffic { beating, coming_and_going, asking, watching, stop }
    }

    /// Waits until everything has been done some times more.
    async fn goes_on(&self, fleet: &Fleet) {
        let edges = fleet.log_length().await + 16;
        eventually("edges", async || {
            let now = fleet.log_length().await;
            if now >= edges { Ok(()) } else { Err(format!("{now} of {edges}")) }
        })
        .await;
    }

    /// Ends it: each edge is in the log once, nobody was lost, nothing was refused, and no pod was unready.
    async fn end(self, fleet: &Fleet) {
        self.stop.cancel();
        for (credentials, going) in self.coming_and_going {
            let rounds = going.await.expect("a satellite that comes and goes");
            assert!(rounds > 0, "it never came");
            let expected: Vec<String> = (1..=rounds)
                .flat_map(|n| {
                    [format!("{n} connected connect"), format!("{n} disconnected client_close")]
                })
                .collect();
            assert_eq!(fleet.history(credentials.id).await, expected);
        }
        for asking in self.asking {
            assert!(asking.await.expect("answers") > 0);
        }
        for watching in self.watching {
            assert_eq!(watching.await.expect("answers"), [""; 0], "a pod was not ready");
        }
        assert_eq!(fleet.edges("beating", "connected").await, 12);
        assert_eq!(fleet.edges("beating", "heartbeat_lost").await, 0);
        assert_eq!(fleet.edges("beating", "disconnected").await, 0);
        drop(self.beating);
        fleet.check().await;
    }
}

/// Connects and says goodbye until told to stop; returns how often.
async fn come_and_go(
    address: SocketAddr,
    credentials: Credentials,
    sql: Client,
    stop: CancellationToken,
) -> u32 {
    let mut rounds = 0;
    while !stop.is_cancelled() {
        Satellite::connect(address, &credentials).await.close().await;
        rounds += 1;
        let edges = both_edges_are_in_the_log(&sql, &credentials, 2 * i64::from(rounds));
        timeout(PATIENCE, edges).await.expect("both edges in the log");
    }
    rounds
}

/// Otherwise the next session would take this one over.
async fn both_edges_are_in_the_log(sql: &Client, credentials: &Credentials, edges: i64) {
    const EDGES: &str = "select count(*) from entity_transitions where entity_id = $1";
    loop {
        let row = sql.query_one(EDGES, &[&credentials.id]).await.expect("the log");
        if row.get::<_, i64>(0) >= edges {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads of every kind: of the present, the past and the log.
async fn questions(fleet: &Fleet, satellite: &Credentials) -> Vec<String> {
    const NOW: &str =
        "select to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
    let at: String = fleet.sql().await.query_one(NOW, &[]).await.expect("a time").get(0);
    // As of a millisecond that is over, and up to which all pods have told what they heard.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let id = satellite.id;
    [
        format!("/v1/satellites/{id}"),
        "/v1/satellites".to_owned(),
        "/v1/satellites?sort=region&status=online".to_owned(),
        format!("/v1/satellites?at={at}"),
        format!("/v1/satellites?at={at}&sort=region"),
        "/v1/fleet".to_owned(),
        format!("/v1/fleet?at={at}"),
        format!("/v1/fleet/timeline?since={at}"),
        format!("/v1/intervals?ids={id}"),
        format!("/v1/satellites/{id}/stats?window=1h"),
        format!("/v1/satellites/{id}/transitions"),
        "/v1/transitions?order=desc".to_owned(),
    ]
    .to_vec()
}

async fn answered(
    address: SocketAddr,
    method: &str,
    path: &str,
    token: &str,
    body: Option<String>,
) {
    const LIMIT: Duration = Duration::from_secs(15);
    let answer = try_call(address, method, path, Some(token), body, LIMIT).await;
    let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
}

async fn ask(
    address: SocketAddr,
    token: String,
    paths: Vec<String>,
    stop: CancellationToken,
) -> u32 {
    let mut rounds = 0;
    while !stop.is_cancelled() {
        for path in &paths {
            answered(address, "GET", path, &token, None).await;
        }
        rounds += 1;
    }
    rounds
}

async fn change(
    address: SocketAddr,
    token: String,
    satellite: Credentials,
    stop: CancellationToken,
) -> u32 {
    let (mut rounds, path) = (0, format!("/v1/satellites/{}", satellite.id));
    while !stop.is_cancelled() {
        rounds += 1;
        let body = format!(r#"{{"name": "changed-{rounds}"}}"#);
        answered(address, "PATCH", &path, &token, Some(body)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    rounds
}

/// Every answer of `/readyz` that was not 200.
async fn watch(address: SocketAddr, stop: CancellationToken) -> Vec<String> {
    let mut unready = Vec::new();
    while !stop.is_cancelled() {
        match try_call(address, "GET", "/readyz", None, None, Duration::from_secs(5)).await {
            Ok(answer) if answer.status == 200 => {}
            Ok(answer) => unready.push(answer.text),
            Err(error) => unready.push(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unready
}

fn of_the_database(fleet: &Fleet) -> Vec<(String, String)> {
    [
        ("DATABASE_URL", fleet.database_url.as_str()),
        ("NATS_URL", fleet.nats_url.as_str()),
        ("GROUNDSTATION_RETENTION_FLOOR", "2d"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A command that must succeed; returns what it wrote.
async fn written(fleet: &Fleet, arguments: &[&str]) -> String {
    let (ok, out, err) = program::ran(arguments, &of_the_database(fleet)).await;
    assert!(ok, "{arguments:?}: {out}{err}");
    out
}

/// Every command that needs the schema refuses this one, with one line that has these words.
async fn expect_refused(fleet: &Fleet, words: &[&str]) {
    let serve = fleet.plan("again").without("GROUNDSTATION_LOG_FORMAT").environment();
    for arguments in [
        &["serve"][..],
        &["migrate"],
        &["rebuild", "--check"],
        &["audit"],
        &["retention", "--dry-run", "--older-than", "90d"],
    ] {
        let environment =
            if arguments == ["serve"] { serve.clone() } else { of_the_database(fleet) };
        let (ok, out, err) = program::ran(arguments, &environment).await;
        assert!(!ok && out.is_empty() && err.lines().count() == 1, "{arguments:?}: {out}{err}");
        assert!(words.iter().all(|word| err.contains(word)), "{arguments:?}: {err}");
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn pods_go_on_and_start_again_while_each_kind_of_expansion_is_made() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let (a, b, mut c) = (fleet.pod("a").await, fleet.pod("b").await, fleet.pod("c").await);
    let traffic = Traffic::begin(&fleet, [&a, &b]).await;
    let mut next = Next::version();
    for (name, sql) in EXPANSIONS {
        next.expand(name, sql);
        let begun = Instant::now();
        next.is_made(&fleet).await;
        println!("{name}: {:?}", begun.elapsed());
        traffic.goes_on(&fleet).await;
        c.kill();
        c = fleet.pod("c").await;
    }
    make_partitions(&fleet).await;
    traffic.goes_on(&fleet).await;
    traffic.end(&fleet).await;
    written(&fleet, &["audit"]).await;
    written(&fleet, &["audit", "--chain"]).await;
    written(&fleet, &["rebuild", "--check"]).await;
}

#[tokio::test]
async fn a_pod_goes_on_and_starts_again_on_a_schema_that_has_every_kind_of_expansion() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let mut pod = fleet.pod("a").await;
    let satellite = pod.register("here", "eu").await;
    Satellite::connect(pod.address, &satellite).await.close().await;
    pod.show(satellite.id).await;
    let next = Next::expanded();
    next.is_made(&fleet).await;
    pod.show(satellite.id).await;
    Satellite::connect(pod.address, &satellite).await.close().await;
    const TWICE: [&str; 4] = [
        "1 connected connect",
        "1 disconnected client_close",
        "2 connected connect",
        "2 disconnected client_close",
    ];
    fleet.expect_history(satellite.id, &TWICE).await;

    pod.kill();
    let pod = fleet.pod("a").await;
    let newer = pod.expect_log("the schema is newer, and lets this groundstation run").await;
    assert_eq!(newer["schema"], next.newest());
    assert_eq!(newer["known"], next.before);
    let other = pod.register("there", "eu").await;
    Satellite::connect(pod.address, &other).await.close().await;
    fleet.expect_history(other.id, &TWICE[..2]).await;
    make_partitions(&fleet).await;

    let said = written(&fleet, &["migrate"]).await;
    assert!(said.contains("lets it run: nothing to do") && said.lines().count() == 1, "{said}");
    let floor = "select keep = interval '2 days' from retention_floor";
    let row = fleet.sql().await.query_one(floor, &[]).await.expect("the floor");
    assert!(row.get::<_, bool>(0), "it sets the floor all the same");
    fleet.check().await;
}

/// As pods do when there is room no more.
async fn make_partitions(fleet: &Fleet) {
    let make = "select extend_transition_log(1000000, 20000000)";
    let row = fleet.sql().await.query_one(make, &[]).await.expect("further partitions");
    assert!(row.get::<_, i32>(0) > 0);
}

#[tokio::test]
async fn retention_drops_partitions_of_an_expanded_schema() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let sql = fleet.sql().await;
    written_log::narrow(&sql, 1_000).await;
    written_log::write(&sql, 1, 2_500).await;
    let published = "update relay set position = 2500, stream_sequence = 2500";
    sql.execute(published, &[]).await.expect("the relay's row");
    Next::expanded().is_made(&fleet).await;
    written_log::write(&sql, 2_501, 3_500).await;
    let said = written(&fleet, &["retention", "--older-than", "90d"]).await;
    assert!(said.contains("positions 1 to 1000") && said.contains("1001 to 2000"), "{said}");
    written(&fleet, &["rebuild", "--check"]).await;
}

#[tokio::test]
async fn a_pod_ends_with_one_line_when_a_migration_takes_away_what_it_uses() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let mut pod = fleet.pod("a").await;
    let agents = Agents::start(&fleet, pod.address, fleet.register_many("beating", 6).await);
    agents.expect_all().await;
    let mut next = Next::version();
    next.expand("notes", "create table notes (note text)");
    next.contract(
        "without_the_watermarks_function",
        "alter function observe(integer, timestamptz, double precision, interval, interval) rename to observed",
    );
    let name = format!("`{} without_the_watermarks_function", next.newest());
    next.is_made(&fleet).await;
    let status = pod.exit().await;
    assert_eq!(status.code(), Some(1), "{}", pod.log());
    assert_eq!(pod.told("may not run on: it drains and ends"), 1, "{}", pod.log());
    let line = pod.logged("may not run on").expect("a line");
    let why = line["outgrown"].as_str().expect("a reason");
    assert!(why.contains(&name) && why.contains("use the newer groundstation"), "{why}");
    drop(agents);
    let needed = format!("know {} or more: use the newer groundstation", next.newest());
    expect_refused(&fleet, &[&name, &needed]).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_ends_within_a_minute_of_a_migration_that_breaks_no_statement() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let mut pod = fleet.pod("a").await;
    let mut next = Next::version();
    next.contract(
        "other_meaning_of_a_column",
        "comment on column satellites.region is 'of another kind'",
    );
    next.is_made(&fleet).await;
    let ended = async || pod.has_ended().ok_or_else(|| "it runs".to_owned());
    let status = within(Duration::from_secs(90), "the pod to end", ended).await;
    assert_eq!(status.code(), Some(1), "{}", pod.log());
    assert_eq!(pod.told("may not run on: it drains and ends"), 1, "{}", pod.log());
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_migration_that_waits_for_a_table_keeps_no_pod_waiting() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let traffic = Traffic::begin(&fleet, [&a, &b]).await;
    let reader = fleet.sql().await;
    reader
        .batch_execute("begin; select from satellites; select from entity_transitions")
        .await
        .expect("a reader");
    let mut next = Next::version();
    // Pods take these tables in the other order, too: who waits for whom is for the migration to end.
    next.expand(
        "columns_of_two_tables",
        "alter table satellites add column note text; alter table registry_changes add column note text",
    );
    let migration = next.migrate(&fleet);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        traffic.goes_on(&fleet).await;
        assert!(!migration.is_finished(), "it waits for the reader");
    }
    reader.batch_execute("commit").await.expect("the reader ends");
    let migrated = migration.await.expect("no panic").expect("the migration");
    assert_eq!(migrated.version, next.newest());
    traffic.goes_on(&fleet).await;
    traffic.end(&fleet).await;
}

/// A program that dies in between leaves nothing half made.
#[tokio::test]
async fn a_migration_and_its_record_are_made_together_or_not_at_all() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let sql = fleet.sql().await;
    let mut next = Next::version();
    let takes_its_place = format!(
        "create table notes (note text);
         insert into refinery_schema_history values ({}, 'in its place', '2031-01-01T00:00:00Z', '1')",
        next.newest() + 1
    );
    next.expand("notes", &takes_its_place);
    let error = next.migrate(&fleet).await.expect("no panic").expect_err("its record has no place");
    assert!(error.to_string().contains("notes__beside"), "{error:#}");
    let row = sql.query_one("select to_regclass('notes') is null", &[]).await.expect("an answer");
    assert!(row.get::<_, bool>(0), "the table was made without the record");
    let (ok, out, err) = program::ran(&["migrate"], &of_the_database(&fleet)).await;
    assert!(ok && out.contains(&format!("at version {}", next.before)), "{out}{err}");
}

#[tokio::test]
async fn a_migration_outside_a_transaction_that_was_interrupted_is_made_again() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let sql = fleet.sql().await;
    // What CREATE INDEX CONCURRENTLY leaves where it is stopped is an index of that name that is not used.
    let left = "create index connections_by_revision on satellite_connections (session)";
    sql.batch_execute(left).await.expect("an index");
    let next = Next::expanded();
    next.is_made(&fleet).await;
    let index = "select indexdef from pg_indexes where indexname = 'connections_by_revision'";
    let made: String = sql.query_one(index, &[]).await.expect("one index").get(0);
    assert!(made.ends_with("(revision)"), "{made}");
    next.is_made(&fleet).await;
}

/// Calls the server something else, in this database: `version()` of another schema is found first.
async fn call_it(sql: &Client, url: &str, version: &str) {
    let database = url.rsplit('/').next().expect("a database");
    let named = format!(
        "create schema if not exists other;
         create or replace function other.version() returns text language sql as $$ select '{version}' $$;
         alter database {database} set search_path = other, pg_catalog, public"
    );
    sql.batch_execute(&named).await.expect("another name");
}

#[tokio::test]
async fn an_engine_that_only_looks_like_postgres_is_refused_by_name_and_nothing_is_made_in_it() {
    let url = blocking(crate::harness::stores::share_without_schema).await.database_url;
    let (sql, connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let environment = vec![("DATABASE_URL".to_owned(), url.clone())];
    let cases = [
        ("CockroachDB CCL v25.4.5 (x86_64-pc-linux-gnu)", "CockroachDB", "advisory locks"),
        ("PostgreSQL 15.12-YB-2025.2.3.2-b0 on x86_64-pc-linux-gnu", "YugabyteDB", "xmin"),
        ("CrateDB 5.2.3", "CrateDB", "transactions"),
    ];
    for (version, engine, reason) in cases {
        call_it(&sql, &url, version).await;
        let (ok, out, err) = program::ran(&["migrate"], &environment).await;
        assert!(!ok && out.is_empty() && err.lines().count() == 1, "{out}{err}");
        assert!(err.contains(engine) && err.contains(reason), "{err}");
    }
    call_it(&sql, &url, "PostgreSQL 16").await;
    let dsql = "create schema sys; create function sys.dsql_major_version() returns int return 1";
    sql.batch_execute(dsql).await.expect("a function");
    let (ok, _, err) = program::ran(&["migrate"], &environment).await;
    assert!(!ok && err.contains("Aurora DSQL") && err.contains("triggers"), "{err}");
    let made = "select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
                 where n.nspname in ('public', 'other')";
    let made: i64 = sql.query_one(made, &[]).await.expect("an answer").get(0);
    assert_eq!(made, 0, "something was made");
}

#[tokio::test]
async fn a_pod_does_not_start_on_an_engine_that_only_looks_like_postgres() {
    let fleet = Fleet::new(SWEPT_OFTEN).await;
    let sql = fleet.sql().await;
    let engine = "PostgreSQL 15.12-YB-2025.2.3.2-b0 on x86_64-pc-linux-gnu";
    call_it(&sql, &fleet.database_url, engine).await;
    sql.batch_execute("grant usage on schema other to public").await.expect("a right");
    let serve = fleet.plan("a").without("GROUNDSTATION_LOG_FORMAT").environment();
    let (ok, out, err) = program::ran(&["serve"], &serve).await;
    assert!(!ok && out.is_empty() && err.lines().count() == 1, "{out}{err}");
    assert!(err.contains("YugabyteDB") && err.contains("xmin"), "{err}");
}
