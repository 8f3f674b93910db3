//! `groundstation migrate`: as often and as many at once as one likes.

use std::process::Output;

use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::harness::program::{self, migrate};
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, stores};

fn said(output: &Output) -> (bool, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Everything the schema consists of, as text.
async fn schema(url: &str) -> Vec<String> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    const SCHEMA: &str = "
        select format('%s %s %s %s %s', c.relname, c.relkind, c.relacl, a.attname, a.atttypid::regtype)
          from pg_class c left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
         where c.relnamespace = 'public'::regnamespace
         union all
        select format('%s %s', conname, pg_get_constraintdef(oid)) from pg_constraint
         where connamespace = 'public'::regnamespace
         union all
        select format('%s %s', proname, prosrc) from pg_proc
         where pronamespace = 'public'::regnamespace
         union all
        select format('%s %s %s', version, name, applied_on) from refinery_schema_history
         order by 1";
    let rows = client.query(SCHEMA, &[]).await.expect("the schema can be read");
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn an_empty_database_gets_the_schema_and_a_second_migration_changes_nothing() {
    let url = blocking(stores::share_without_schema).await.database_url;
    let migrate = async || {
        let url = url.clone();
        said(&blocking(move || migrate(&url)).await)
    };
    let (ok, out, err) = migrate().await;
    assert!(ok, "{err}");
    assert!(out.contains("applied 3 log"), "{out}");
    let after_first = schema(&url).await;
    assert!(after_first.len() > 50, "{after_first:?}");
    let (ok, out, err) = migrate().await;
    assert!(ok, "{err}");
    assert!(!out.contains("applied") && out.lines().count() == 1, "{out}");
    assert_eq!(schema(&url).await, after_first);
}

#[tokio::test]
async fn several_migrations_at_once_all_succeed_and_each_step_is_applied_once() {
    let url = blocking(stores::share_without_schema).await.database_url;
    let mut migrations = JoinSet::new();
    for _ in 0..5 {
        let url = url.clone();
        migrations.spawn(blocking(move || migrate(&url)));
    }
    let mut applied = Vec::new();
    while let Some(migrated) = migrations.join_next().await {
        let (ok, out, err) = said(&migrated.expect("a migration"));
        assert!(ok, "{err}");
        applied.extend(out.lines().filter(|line| line.starts_with("applied")).map(str::to_owned));
    }
    let count = applied.len();
    applied.sort();
    applied.dedup();
    assert_eq!(applied.len(), count, "a step was applied twice: {applied:?}");
    let one = blocking(stores::share_without_schema).await.database_url;
    let (_, out, _) = said(&blocking(move || migrate(&one)).await);
    assert_eq!(out.lines().filter(|line| line.starts_with("applied")).count(), count);
}

#[tokio::test]
async fn migrations_of_several_databases_of_one_server_at_once_all_succeed() {
    // They share the service's role.
    let mut migrations = JoinSet::new();
    for _ in 0..4 {
        let url = blocking(stores::share_without_schema).await.database_url;
        migrations.spawn(blocking(move || migrate(&url)));
    }
    while let Some(migrated) = migrations.join_next().await {
        let (ok, _, err) = said(&migrated.expect("a migration"));
        assert!(ok, "{err}");
    }
}

#[tokio::test]
async fn where_the_services_role_is_there_a_login_without_createrole_migrates() {
    // The schema of the other database brought the role.
    blocking(stores::share).await;
    let url = blocking(stores::share_without_schema).await.database_url;
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let database: String =
        client.query_one("select current_database()", &[]).await.expect("a name").get(0);
    let login = format!("migrator_of_{database}");
    let give = format!(
        "create role {login} login nocreaterole password 'of the tests';
         alter database {database} owner to {login};
         grant create on schema public to {login}"
    );
    client.batch_execute(&give).await.expect("a login that owns the database");
    let (_, address) = url.split_once('@').expect("a URL with a login");
    let own = format!("postgres://{login}:of%20the%20tests@{address}");
    let (ok, out, err) = said(&blocking(move || migrate(&own)).await);
    assert!(ok && out.contains("applied 8 seals"), "{out} {err}");
}

/// Both commands refuse this schema with one line that has these words, and leave it as it is.
async fn expect_refused(fleet: &Fleet, words: &[&str]) {
    let before = schema(&fleet.database_url).await;
    let plan = fleet.plan("a").without("GROUNDSTATION_LOG_FORMAT");
    let environment = plan.environment();
    for command in ["migrate", "serve"] {
        let environment = environment.clone();
        let output = blocking(move || program::run(&[command], &environment)).await;
        let (ok, out, err) = said(&output);
        assert!(!ok && out.is_empty(), "{command}: {out}");
        assert_eq!(err.lines().count(), 1, "{command}: {err}");
        assert!(words.iter().all(|word| err.contains(word)), "{command}: {err}");
    }
    assert_eq!(schema(&fleet.database_url).await, before);
}

#[tokio::test]
async fn a_newer_schema_that_does_not_allow_the_program_is_refused_with_one_line_by_migrate_and_by_serve()
 {
    let fleet = Fleet::new(CALM).await;
    const NEWER: &str = "
        insert into refinery_schema_history (version, name, applied_on, checksum)
        values (999, 'from_the_future', '2031-01-01T00:00:00Z', '1')";
    fleet.sql().await.execute(NEWER, &[]).await.expect("a newer schema");
    expect_refused(&fleet, &["999", "newer"]).await;
}

/// Numbers alone do not tell: theirs may be as many, fewer or more.
#[tokio::test]
async fn a_schema_that_other_migrations_made_is_refused_with_one_line_by_migrate_and_by_serve() {
    let fleet = Fleet::new(CALM).await;
    let sql = fleet.sql().await;
    let histories = [
        ("update refinery_schema_history set checksum = '1' where version = 3", "`3 log`"),
        (
            "update refinery_schema_history set name = 'satellites' where version = 2",
            "`2 satellites`",
        ),
        ("delete from refinery_schema_history where version > 2", "`2 satellites`"),
        (
            "insert into refinery_schema_history
             select n, 'more', '2031-01-01T00:00:00Z', '1' from generate_series(3, 99) n",
            "`2 satellites`",
        ),
        ("delete from refinery_schema_history where version = 2", "`3 more`"),
    ];
    for (change, word) in histories {
        sql.execute(change, &[]).await.expect(change);
        expect_refused(&fleet, &["other migrations", word]).await;
    }
}
