//! An attacker with a pod's password and any SQL can at most add to the log. With the rights of `deploy/postgres` it
//! destroys no history, becomes no other role, and cannot make the log lie about time.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::harness::relaying::come_and_go;
use crate::harness::stores::{Rights, random};
use crate::harness::wait::{blocking, eventually};
use crate::harness::{CALM, Fleet, program, written_log};

const ROLES: &str = include_str!("../../deploy/postgres/roles.sql");

/// A fleet with the deployed rights, except for what `change` makes of the roles.
async fn fleet_with(change: impl FnOnce(&str) -> String) -> (Fleet, Rights) {
    Fleet::with_rights(CALM, String::new(), change(ROLES), random()).await
}

async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    client
}

/// A session of a pod, with SQL of the attacker's choice.
async fn attacker(rights: &Rights) -> Client {
    let client = connect(&rights.pod_database_url).await;
    client.batch_execute("set role groundstation_service").await.expect("its role");
    client
}

async fn number(client: &Client, query: &str) -> i64 {
    client.query_one(query, &[]).await.expect(query).get(0)
}

const LENGTH: &str = "select count(*) from entity_transitions";

/// Thirty transitions of now, in a partition of a thousand.
async fn thirty_young(fleet: &Fleet) -> Client {
    let sql = fleet.sql().await;
    written_log::narrow(&sql, 1_000).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    for _ in 0..15 {
        come_and_go(&pod, &credentials).await;
    }
    fleet.expect_log_length(30).await;
    sql
}

/// A well-formed row of the log for an edge that never happened.
fn forged(position: &str, recorded_at: &str) -> String {
    let state = r#"{"status": "online", "name": "edge", "region": "eu", "lastSeenAt": null, "lastEvent": "connected"}"#;
    format!(
        "insert into entity_transitions
         select {position}, 1, gen_random_uuid(), 'satellite-connection', gen_random_uuid(),
                'connected', 'connect', 1, null, '{state}', 'system', 'system', null, 1, now(), {recorded_at}"
    )
}

#[tokio::test]
async fn forged_rows_at_a_partitions_end_and_a_moved_checkpoint_drop_no_young_row() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let sql = thirty_young(&fleet).await;
    let pod = attacker(&rights).await;
    let old = "now() - interval '10 years'";
    for position in ["1000", "1001"] {
        pod.batch_execute(&forged(position, old)).await.ok();
    }
    pod.batch_execute("update relay set position = 1001").await.expect("its own table");
    let drop = "select drop_transition_partition(1, interval '1 hour')";
    pod.batch_execute(drop).await.expect_err("nothing may go");
    assert_eq!(number(&sql, LENGTH).await, 30);

    // The drop itself trusts no single row, however the row got there.
    let forged = format!(
        "begin; set local session_replication_role = replica; {}; {}; commit",
        forged("1000", old),
        forged("1001", old)
    );
    sql.batch_execute(&forged).await.expect("forged by the superuser");
    let error = pod.batch_execute(drop).await.expect_err("nothing may go");
    let said = error.as_db_error().expect("a refusal").message().to_owned();
    assert!(said.contains("31 of 1000"), "{said}");
    assert_eq!(number(&sql, LENGTH).await, 32);
}

#[tokio::test]
async fn a_whole_partition_with_one_young_row_in_its_middle_stays() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let sql = fleet.sql().await;
    written_log::narrow(&sql, 1_000).await;
    written_log::write(&sql, 1, 1_500).await;
    let young = "
        begin;
        set local session_replication_role = replica;
        update entity_transitions set recorded_at = now() where position = 500;
        update relay set position = 1500;
        commit";
    sql.batch_execute(young).await.expect("made young by the superuser");
    let pod = attacker(&rights).await;
    let drop = "select drop_transition_partition(1, interval '1 hour')";
    let error = pod.batch_execute(drop).await.expect_err("it may not go");
    let said = error.as_db_error().expect("a refusal").message().to_owned();
    assert!(said.contains("not old enough"), "{said}");
    assert_eq!(number(&sql, LENGTH).await, 1_500);
}

#[tokio::test]
async fn a_row_that_leaves_a_gap_or_lies_about_when_it_was_recorded_is_refused() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let sql = thirty_young(&fleet).await;
    let pod = attacker(&rights).await;
    let now = "date_trunc('milliseconds', clock_timestamp())";
    let cases = [
        ("a gap", forged("32", now)),
        ("a far gap", forged("999", now)),
        ("older than the head", forged("31", "(now() - interval '1 day')")),
        ("of tomorrow", forged("31", "(now() + interval '1 day')")),
        (
            "back in one statement",
            format!(
                "{} - n * interval '1 second' from generate_series(0, 1) n",
                forged("31 + n", now)
            ),
        ),
        (
            "a gap in a subtransaction",
            format!("begin; savepoint s; {}; release s; commit", forged("33", now)),
        ),
        (
            "a gap behind a row that follows",
            format!("begin; {}; savepoint s; {}; commit", forged("31", now), forged("33", now)),
        ),
    ];
    for (what, attempt) in &cases {
        let error = pod.batch_execute(attempt).await.expect_err(what);
        assert_eq!(error.code(), Some(&SqlState::RESTRICT_VIOLATION), "{what}: {error}");
        pod.batch_execute("rollback").await.expect("ended");
        assert_eq!(number(&sql, LENGTH).await, 30, "{what}");
    }
    // Rows that follow on the head are accepted as ever, also several at once.
    let three = format!("{} from generate_series(0, 2) n", forged("31 + n", now));
    pod.batch_execute(&three).await.expect("taken");
    assert_eq!(number(&sql, LENGTH).await, 33);
}

/// One unreadable row would hold up the stream, audits, rebuilds and seals for ever.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_row_that_no_program_can_read_is_refused() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let sql = fleet.sql().await;
    let running = fleet.pod("a").await;
    let credentials = running.register("edge", "eu").await;
    come_and_go(&running, &credentials).await;
    let pod = attacker(&rights).await;
    let honest = forged("3", "date_trunc('milliseconds', clock_timestamp())");
    let replaced = |from: &str, to: &str| {
        assert!(honest.contains(from), "{from}");
        honest.replacen(from, to, 1)
    };
    let state =
        &honest[honest.find("'{").expect("a state")..=honest.find("}'").expect("its end") + 1];
    let seen = |at: &str| replaced("\"lastSeenAt\": null", &format!("\"lastSeenAt\": {at}"));
    let cases = [
        ("a list", replaced(state, "'[1]'")),
        ("a word", replaced(state, "'\"online\"'")),
        ("nothing in it", replaced(state, "'{}'")),
        ("no name", replaced("\"name\": \"edge\", ", "")),
        ("a name that is a number", replaced("\"edge\"", "7")),
        ("a region that is null", replaced("\"eu\"", "null")),
        ("a status of its own", replaced("\"online\"", "\"away\"")),
        ("no status", replaced("\"online\"", "null")),
        ("an event that is a list", replaced("\"connected\"}", "[]}")),
        ("a moment that is a word", seen("\"yesterday\"")),
        ("a moment that is a number", seen("5")),
        ("a day that is none", seen("\"2026-02-31T00:00:00Z\"")),
        ("an hour that is none", seen("\"2026-02-01T24:00:00Z\"")),
        ("the year 0", seen("\"0000-02-01T00:00:00Z\"")),
        ("4 MB", replaced("\"eu\"", &format!("\"{}\"", noise(4 << 20)))),
        ("a prev that is a list", replaced("1, null, '{", "1, '[1]', '{")),
        ("it happened at the end of time", replaced("1, now()", "1, 'infinity'")),
        ("it happened in the year 10000", replaced("1, now()", "1, '10000-01-01T00:00:00Z'")),
        ("it happened before all time", replaced("1, now()", "1, '-infinity'")),
        ("a reason of its own", replaced("'connect', 1", "'because', 1")),
        ("a revision beyond its position", replaced("select 3, 1,", "select 3, 4,")),
        ("the last revision there is", replaced("select 3, 1,", "select 3, 9223372036854775807,")),
        ("the last session there is", replaced("'connect', 1,", "'connect', 9223372036854775807,")),
        ("an actor of 2 kB", replaced("'system', null", &format!("'{}', null", noise(2_000)))),
    ];
    for (what, attempt) in &cases {
        pod.batch_execute(attempt).await.expect_err(what);
        assert_eq!(number(&sql, LENGTH).await, 2, "{what}");
    }
    // A readable row is accepted and published: adding to the log is a pod's right.
    pod.batch_execute(&honest).await.expect("taken");
    come_and_go(&running, &credentials).await;
    fleet.expect_log_length(5).await;
    eventually("all is on the stream", async || {
        let published = running.metric("groundstation_relay_published_messages_total").await;
        (published == 5.0).then_some(()).ok_or(published.to_string())
    })
    .await;
    let audit = fleet.audit().await;
    assert!(audit.status.success(), "{audit:?}");
}

/// Text that does not compress.
fn noise(length: usize) -> String {
    (0..length / 32).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect()
}

#[tokio::test]
async fn no_forged_seal_ends_sealing_and_no_blind_time_is_still_to_come() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let sql = fleet.sql().await;
    let running = fleet.pod("a").await;
    let credentials = running.register("edge", "eu").await;
    come_and_go(&running, &credentials).await;
    fleet.expect_log_length(2).await;
    let pod = attacker(&rights).await;
    let hash = "decode(repeat('ab', 32), 'hex')";
    let seal = |first: i64, last: i64, at: &str| {
        format!(
            "insert into log_seals values
                 ({first}, {last}, {}, {hash}, decode(repeat('cd', 32), 'hex'), {at})",
            last - first + 1
        )
    };
    let registry_seal = |number: &str, changes: &str| {
        format!(
            "insert into registry_seals values
                 ({number}, array[{changes}], {hash}, {hash}, decode(repeat('cd', 32), 'hex'), now())"
        )
    };
    let span = |from: &str, to: &str| {
        format!("insert into blind_spans (from_at, to_at, judged_at) values ({from}, {to}, {from})")
    };
    for (what, attempt) in [
        ("a seal beyond the head", seal(1, 9_000_000_000_000_000_000, "now()")),
        ("a seal of the end of time", seal(1, 2, "'infinity'")),
        ("a registry's seal beyond its history", registry_seal("1", "9000000000000000000")),
        ("a registry's seal with a number far away", registry_seal("9000000000000000000", "1")),
        ("blind until next year", span("now()", "now() + interval '1 year'")),
        ("blind until the end of time", span("now()", "'infinity'")),
        ("blind for ever before", span("'-infinity'", "now()")),
        ("a pod that is seen at the end of time", "update pods set seen_at = 'infinity'".to_owned()),
        ("a satellite of the last revision", "update satellite_connections set revision = 9223372036854775807".to_owned()),
        ("a checkpoint at the last position", "update relay set position = 9223372036854775807".to_owned()),
        (
            "a satellite that is heard at the end of time",
            "update satellite_connections set last_heartbeat_at = 'infinity', last_event = 'connected'".to_owned(),
        ),
    ] {
        pod.batch_execute(&attempt).await.expect_err(what);
    }
    assert_eq!(number(&sql, "select count(*) from log_seals where last_position > 2").await, 0);
    assert_eq!(number(&sql, "select count(*) from blind_spans where to_at > now()").await, 0);
}

/// A login may set its own defaults, and they outlast the session that set them.
#[tokio::test]
async fn defaults_of_the_login_do_not_reach_a_pods_sessions() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let login = connect(&rights.pod_database_url).await;
    for change in ["synchronous_commit = off", "default_transaction_isolation = 'serializable'"] {
        let change = format!("alter role groundstation_pod set {change}");
        login.batch_execute(&change).await.expect("its own defaults");
    }
    let (isolation, commit) = session_of_a_pod(&rights).await;
    assert_eq!((isolation.as_str(), commit.as_str()), ("read committed", "on"));
    // Values above the minimum stay unchanged.
    let change = "alter role groundstation_pod set synchronous_commit = remote_apply";
    login.batch_execute(change).await.expect("its own default");
    assert_eq!(session_of_a_pod(&rights).await.1, "remote_apply");
    drop(fleet);
}

/// The isolation and the commit of a session, as pods open them.
async fn session_of_a_pod(rights: &Rights) -> (String, String) {
    let address =
        groundstation::platform::database::Address::parse("test", &rights.pod_database_url);
    let database = address.expect("an address").for_writing().pool("a").expect("a pool");
    let ask = async |client: &mut deadpool_postgres::Object| {
        let query = "select current_setting('transaction_isolation'), current_setting('synchronous_commit')";
        client.query_one(query, &[]).await
    };
    let row = database.run(ask).await.expect("its settings");
    (row.get(0), row.get(1))
}

#[tokio::test]
async fn pods_make_no_partition_that_is_never_full() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let sql = fleet.sql().await;
    let pod = attacker(&rights).await;
    let extend = "select extend_transition_log(100000000, 2000000000)";
    pod.batch_execute(extend).await.expect("as much as there may be");
    let widest = "select max(past_position - first_position) from transition_partitions";
    assert_eq!(number(&sql, widest).await, 1_000_000);
    assert!(number(&sql, "select count(*) from transition_partitions").await <= 22);
    pod.batch_execute("update retention_floor set widest_partition = 100000000")
        .await
        .expect_err("the owner's alone");
}

#[tokio::test]
async fn pods_drop_nothing_younger_than_the_floor_and_cannot_lower_it() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let sql = fleet.sql().await;
    written_log::narrow(&sql, 1_000).await;
    written_log::write(&sql, 1, 1_500).await;
    // Two hours old, which is more than the minimum of one hour.
    let two_hours = "
        begin;
        set local session_replication_role = replica;
        update entity_transitions set recorded_at = now() - interval '2 hours';
        update relay set position = 1500;
        commit";
    sql.batch_execute(two_hours).await.expect("made younger by the superuser");
    let pod = attacker(&rights).await;
    let drop = "select drop_transition_partition(1, interval '1 hour')";
    let error = pod.batch_execute(drop).await.expect_err("it may not go");
    let said = error.as_db_error().expect("a refusal").message().to_owned();
    assert!(said.contains("1 day"), "{said}");
    for attempt in [
        "update retention_floor set keep = interval '1 hour'",
        "delete from retention_floor",
        "insert into retention_floor (keep) values (interval '1 hour')",
        "truncate retention_floor",
    ] {
        let error = pod.batch_execute(attempt).await.expect_err(attempt);
        assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{attempt}");
    }
    assert_eq!(number(&sql, LENGTH).await, 1_500);

    // The role that migrates sets the floor. Without the setting the floor stays.
    let migrate = async |floor: Option<&str>| {
        let mut environment =
            vec![("DATABASE_URL".to_owned(), rights.migrator_database_url.clone())];
        environment.extend(
            floor.map(|span| ("GROUNDSTATION_RETENTION_FLOOR".to_owned(), span.to_owned())),
        );
        program::ran(&["migrate"], &environment).await
    };
    let keep = "select extract(epoch from keep)::bigint / 3600 from retention_floor";
    assert_eq!(number(&sql, keep).await, 24);
    assert!(migrate(Some("90d")).await.0);
    assert!(migrate(None).await.0);
    assert_eq!(number(&sql, keep).await, 90 * 24);
    let (ok, _, said) = migrate(Some("59m")).await;
    assert!(!ok && said.contains("from 1h"), "{said}");
    assert!(migrate(Some("1h")).await.0);
    pod.batch_execute(drop).await.expect("now it may go");
    assert_eq!(number(&sql, LENGTH).await, 500);
}

/// Names under which a temporary object of the attacker could pass for one of the schema's.
const SHADOWS: &str = "
    create temporary table transition_partitions
        (first_position bigint, past_position bigint, relation name, dropped_at timestamptz, last_recorded_at timestamptz);
    insert into transition_partitions values (1, 2, '{victim}', null, null);
    create temporary table entity_transitions (like public.entity_transitions);
    insert into entity_transitions
    select n, 1, gen_random_uuid(), 'k', gen_random_uuid(), 'connected', 'r', 1, null, '{}', 's', 's', null, 1,
           'epoch', 'epoch' from generate_series(1, 2) n;
    create temporary table transitions_at_horizon (like public.transitions_at_horizon including all);
    create temporary table relay (position bigint);
    insert into relay values (2);
    grant all on transition_partitions, entity_transitions, transitions_at_horizon, relay to public;";

/// A function that runs this with its caller's rights, and a view that calls it.
fn trap(deed: &str) -> String {
    format!(
        "create function pg_temp.trap() returns bigint language plpgsql as
             $$ begin {deed}; return 1000000000000; end $$;
         create temporary view transition_partitions as
             select pg_temp.trap() as past_position, 1::bigint as first_position;
         grant all on transition_partitions to public;"
    )
}

/// TEMP was granted to everybody, as in every new database, and `migrate` has not run since.
async fn grant_temp(sql: &Client) {
    let grant = "
        do $$ begin execute format('grant temporary on database %I to public', current_database()); end $$";
    sql.batch_execute(grant).await.expect("granted");
}

#[tokio::test]
async fn temporary_tables_that_shadow_names_drop_nothing() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let sql = thirty_young(&fleet).await;
    grant_temp(&sql).await;
    for victim in ["registry_changes", "log_seals", "entity_transitions_from_1"] {
        let pod = attacker(&rights).await;
        pod.batch_execute(&SHADOWS.replace("{victim}", victim)).await.expect("the shadows");
        let drop = "select public.drop_transition_partition(1, interval '1 hour')";
        pod.batch_execute(drop).await.expect_err(victim);
        let there = format!("select count(*) from pg_class where relname = '{victim}'");
        assert_eq!(number(&sql, &there).await, 1, "{victim} is gone");
    }
    assert_eq!(number(&sql, "select count(*) from public.entity_transitions").await, 30);
}

#[tokio::test]
async fn temporary_names_run_no_code_as_the_owner_and_make_no_superuser_of_the_pods() {
    // The worst case: the migrating role was a superuser.
    let as_superuser =
        |roles: &str| format!("{roles}; alter role groundstation_migrator superuser;");
    let (fleet, rights) = fleet_with(as_superuser).await;
    let sql = thirty_young(&fleet).await;
    grant_temp(&sql).await;
    let pod = attacker(&rights).await;
    pod.batch_execute(&trap("alter role groundstation_pod superuser")).await.expect("the trap");
    pod.batch_execute("select public.extend_transition_log(1000, 1)").await.ok();
    let superuser =
        "select count(*) from pg_roles where rolname = 'groundstation_pod' and rolsuper";
    assert_eq!(number(&sql, superuser).await, 0, "the pods' login became a superuser");
    // An inserted row is checked against the true head, not against a shadow of it.
    let pod = attacker(&rights).await;
    let shadow = "
        create temporary table entity_transitions (like public.entity_transitions);
        insert into entity_transitions
        select 998, 1, gen_random_uuid(), 'k', gen_random_uuid(), 'connected', 'r', 1, null, '{}', 's', 's',
               null, 1, 'epoch', 'epoch'";
    pod.batch_execute(shadow).await.expect("a shadow");
    let gap = forged("999", "now()").replace("into entity", "into public.entity");
    pod.batch_execute(&gap).await.expect_err("a gap");
}

#[tokio::test]
async fn migrate_takes_temp_from_everybody_or_says_that_it_could_not() {
    // As in every new database.
    let without = |roles: &str| roles.replace("revoke all on database %I from public", "select %L");
    let (fleet, rights) = fleet_with(without).await;
    let pod = attacker(&rights).await;
    let temporary = "create temporary table mine (x int)";
    let error = pod.batch_execute(temporary).await.expect_err("no right to");
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{error}");

    let sql = fleet.sql().await;
    grant_temp(&sql).await;
    let migrate = async || {
        let environment = [("DATABASE_URL".to_owned(), rights.migrator_database_url.clone())];
        program::ran(&["migrate"], &environment).await
    };
    let (ok, _, said) = migrate().await;
    assert!(ok && said.is_empty(), "{said}");
    pod.batch_execute(temporary).await.expect_err("taken again");

    // A right on a database of another owner can be taken away only by that owner.
    grant_temp(&sql).await;
    let anothers = "
        do $$ begin execute format('alter database %I owner to postgres', current_database()); end $$;
        grant create on schema public to groundstation_migrator";
    sql.batch_execute(anothers).await.expect("another's");
    let (ok, _, said) = migrate().await;
    assert!(ok, "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("TEMP") && said.contains("groundstation_pod"), "{said}");
}

#[tokio::test]
async fn every_function_that_looks_names_up_does_so_in_the_schema_first_and_last_among_temporary_ones()
 {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    // In a schema of another name too.
    let sql = fleet.sql().await;
    let database = format!("fleet_{}", random());
    sql.batch_execute(&format!("create database {database} owner groundstation_migrator"))
        .await
        .expect("a database");
    let at = |url: &str| format!("{}/{database}", url.rsplit_once('/').expect("a URL").0);
    let other = connect(&at(&rights.superuser_url)).await;
    let schema = format!(
        r#"create schema "Fleet of 1" authorization groundstation_migrator;
           alter database {database} set search_path = "Fleet of 1";
           grant usage on schema "Fleet of 1" to groundstation_service"#
    );
    other.batch_execute(&schema).await.expect("a schema");
    let url = at(&rights.migrator_database_url);
    let migrated = blocking(move || program::migrate(&url)).await;
    assert!(migrated.status.success(), "{migrated:?}");

    const LOOSE: &str = "
        select p.oid::regprocedure::text from pg_proc p join pg_namespace n on n.oid = p.pronamespace
         where n.nspname = $1::text
           and (p.prosecdef or p.prorettype = 'trigger'::regtype or p.proconfig::text like '%search_path%')
           and not exists (select from unnest(p.proconfig) setting
                            where setting = format('search_path=%s, pg_temp', quote_ident($1::text)))";
    for (client, schema) in [(&sql, "public"), (&other, "Fleet of 1")] {
        let loose: Vec<String> = client
            .query(LOOSE, &[&schema])
            .await
            .expect("the functions")
            .iter()
            .map(|row| row.get(0))
            .collect();
        assert!(loose.is_empty(), "{schema}: {loose:?}");
    }
    // The objects work in that schema.
    let pod = connect(&at(&rights.pod_database_url)).await;
    let append = format!(
        "set role groundstation_service; {}; select extend_transition_log(1000000, 2000000)",
        forged("1", "now()")
    );
    pod.batch_execute(&append).await.expect("a first row");
    pod.batch_execute(&forged("3", "now()")).await.expect_err("a gap");
}

#[tokio::test]
async fn a_pod_that_could_be_owner_or_superuser_says_so_at_start_and_one_with_the_deployed_rights_does_not()
 {
    const WARNING: &str = "more rights than a pod needs";
    let (fleet, rights) = fleet_with(str::to_owned).await;
    let pod = fleet.pod("a").await;
    assert!(pod.logged(WARNING).is_none(), "{}", pod.log());
    for (url, word) in
        [(&rights.migrator_database_url, "owner"), (&rights.superuser_url, "superuser")]
    {
        let pod = fleet.plan("b").with("DATABASE_URL", url).start().await;
        let line = pod.expect_log(WARNING).await;
        assert!(line.to_string().contains(word), "{line}");
        assert_eq!(line["level"], "WARN", "{line}");
        assert_eq!(pod.log().matches(WARNING).count(), 1);
    }
}

#[tokio::test]
async fn commands_that_read_the_whole_log_work_with_the_deployed_rights() {
    let (fleet, rights) = fleet_with(str::to_owned).await;
    thirty_young(&fleet).await;
    for url in [&rights.pod_database_url, &rights.migrator_database_url] {
        let environment = [("DATABASE_URL".to_owned(), url.clone())];
        for command in [
            &["rebuild", "--check"][..],
            &["rebuild"],
            &["audit", "--chain"],
            &["retention", "--older-than", "90d", "--dry-run"],
            &["retention", "--older-than", "90d"],
        ] {
            let (ok, out, err) = program::ran(command, &environment).await;
            assert!(ok, "{command:?}: {out}{err}");
        }
    }
}
