//! The database schema: the migrations of `schema/`, compiled in, and which of them were applied.
//!
//! A schema is known by the number of its newest migration. The name of a migration says beside which programs it may
//! be: `V13__a_note__beside_12` is made while pods that know schema 12 run, and lets them start again. So a program
//! runs on its own schema and on any newer one whose further migrations allow it. One that says nothing allows none.
//!
//! Any number of programs may start [`migrate`] at once. They queue on an advisory lock held by a
//! connection of their own (refinery takes none).

use std::time::Duration;

use anyhow::{Context, bail};
use deadpool_postgres::Object;
use refinery::{Migration, Runner, Target};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use crate::platform::database::{self, Address, Database, Failed};
use crate::platform::engines;

mod embedded {
    #![allow(missing_docs)]
    refinery::embed_migrations!("schema");
}

/// Serialises migrations of one database; any constant does, as long as it never changes.
const MIGRATION_LOCK: i64 = 0x6772_6f75_6e64_0001;

/// How long a migration waits for one that is already running.
const MIGRATION_LOCK_TIMEOUT: &str = "120s";

/// How long a step of a migration waits for a lock on a table. Everything that wants the table waits behind it: this is
/// less than any statement of a pod waits, and than a probe may take. It is less than `deadlock_timeout` (1 s), too:
/// where a pod and the migration wait for each other, the migration makes way before the server ends the pod's work.
const LOCK_TIMEOUT: &str = "300ms";

/// How often a migration is tried that got no lock, and the pause in between, in which the pods get on.
const LOCK_TRIES: u32 = 90;
const LOCK_PAUSE: Duration = Duration::from_secs(1);

/// A migration that begins with this line is made statement by statement, and each is to end at the end of a line: an
/// index of a large table is made CONCURRENTLY, which no transaction may do. It may be interrupted anywhere, and begins
/// from the start again.
const OUTSIDE_A_TRANSACTION: &str = "-- outside a transaction";

/// The end of a migration's name that says from which schema on programs may run beside it.
const BESIDE: &str = "__beside_";

/// How often a running pod looks whether the schema still allows it, beside after each statement that did not fit.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The least time between two looks.
const LOOK_PAUSE: Duration = Duration::from_secs(5);

/// The result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The migrations that were applied, in order, as `version name`.
    pub applied: Vec<String>,
    /// The version the schema has now.
    pub version: i32,
    /// The version this program knows. It is less than the schema's where a newer program made that.
    pub known: i32,
    /// Rights that should have been taken away but that this role could not change, in words.
    pub warnings: Vec<String>,
}

/// Brings the schema to the newest version that this binary knows. It blocks: call it before any
/// runtime starts. It changes nothing if the schema is there already, or is a newer one that allows this binary. It
/// refuses a newer one that does not, and one made by other migrations. `retention_floor` is the span of the log that
/// pods may never drop from now on; without it the floor stays as it is.
pub fn migrate(address: &Address, retention_floor: Option<Duration>) -> anyhow::Result<Migrated> {
    migrate_by(&known(), address, retention_floor)
}

/// The same as a binary that knows these migrations: tests make up the next version's.
pub fn migrate_by(
    known: &[Migration],
    address: &Address,
    retention_floor: Option<Duration>,
) -> anyhow::Result<Migrated> {
    // What is no Postgres need not know the locks that a pooler is known by.
    check_server(&mut address.connect_blocking()?)?;
    // Through a pooler that mixes sessions the lock below would be no lock, and would stay.
    address.check_pooler_blocking()?;
    let mut client = address.connect_blocking()?;
    set_lock_timeout(&mut client, MIGRATION_LOCK_TIMEOUT)?;
    client.execute("select pg_advisory_lock($1)", &[&MIGRATION_LOCK]).map_err(|error| {
        anyhow::anyhow!("another migration is running: {}", database::describe(&error))
    })?;
    // The lock goes with the connection, however this function returns.

    let before = applied(&mut client)?;
    let comparison = compare(known, &before);
    if let Comparison::Refused(why) = comparison {
        bail!(why);
    }
    let pending = known.get(before.len()..).unwrap_or_default();
    for migration in pending {
        apply(&mut client, known, migration)?;
    }
    let warnings = take_rights(&mut client).context("cannot look at the rights in the database")?;
    if let Some(keep) = retention_floor {
        client
            .execute(SET_RETENTION_FLOOR, &[&keep.as_secs_f64()])
            .context("cannot set the retention floor")?;
    }
    let newest = newest(known);
    Ok(Migrated {
        applied: pending
            .iter()
            .map(|migration| format!("{} {}", migration.version(), migration.name()))
            .collect(),
        version: if let Comparison::Ahead(found) = comparison { found } else { newest },
        known: newest,
        warnings,
    })
}

fn check_server(client: &mut postgres::Client) -> anyhow::Result<()> {
    let mut ask =
        |question| client.simple_query(question).context("cannot ask Postgres for its version");
    engines::check_version(&ask(engines::VERSION)?)?;
    engines::check_number(&ask(engines::SERVER)?)
}

fn set_lock_timeout(client: &mut postgres::Client, timeout: &str) -> anyhow::Result<()> {
    let set = format!("set lock_timeout = '{timeout}'");
    client.batch_execute(&set).context("cannot set lock_timeout")
}

/// Makes one migration, and records it in the same transaction. Without a lock that it needs it is tried again.
fn apply(
    client: &mut postgres::Client,
    known: &[Migration],
    migration: &Migration,
) -> anyhow::Result<()> {
    let sql = migration.sql().unwrap_or_default();
    if sql.starts_with(OUTSIDE_A_TRANSACTION) {
        // An index that is made concurrently waits for others, and lets nobody wait.
        set_lock_timeout(client, "0")?;
        for statement in sql.split(";\n").filter(|statement| !statement.trim().is_empty()) {
            client.batch_execute(statement).map_err(|error| failed(migration, &error))?;
        }
        let record = Runner::new(known).set_target(Target::FakeVersion(migration.version()));
        return record.run(client).map(drop).map_err(|error| describe(migration, &error));
    }
    set_lock_timeout(client, LOCK_TIMEOUT)?;
    let runner =
        Runner::new(known).set_grouped(true).set_target(Target::Version(migration.version()));
    for tries_left in (0..LOCK_TRIES).rev() {
        match runner.run(client) {
            Ok(_) => break,
            Err(error) if is_busy(&error) => match tries_left {
                0 => bail!(
                    "{:#}: a transaction keeps a lock; look for it in pg_stat_activity, end it, and migrate again",
                    describe(migration, &error)
                ),
                _ => std::thread::sleep(LOCK_PAUSE),
            },
            Err(error) => return Err(describe(migration, &error)),
        }
    }
    Ok(())
}

const SET_RETENTION_FLOOR: &str =
    "update retention_floor set keep = justify_hours(make_interval(secs => $1))";

/// A session with temporary tables, or with functions in the schema, can put its own names before
/// the schema's. Functions that run as their owner search temporary names last; this is a second
/// protection. Every new database gives all roles the first right, and one from before PostgreSQL
/// 15 the second too.
const TAKE_RIGHTS: &str = "
    do $$
    begin
        execute format('revoke temporary on database %I from public, groundstation_service', current_database());
    exception
        when insufficient_privilege then null;
    end
    $$;
    do $$
    begin
        execute format('revoke create on schema %I from public, groundstation_service', current_schema());
    exception
        when insufficient_privilege then null;
    end
    $$";

/// Roles that can act as the service and still have one of these rights. Superusers, owners, and who
/// can become the owner have them anyway.
const STILL_THERE: &str = "
    with service as (
        select r.oid, r.rolname
          from pg_roles r, pg_database d
         where pg_has_role(r.oid, 'groundstation_service', 'member') and not r.rolsuper
           and d.datname = current_database() and not pg_has_role(r.oid, d.datdba, 'member')
           and r.rolname <> current_user
    )
    select format('TEMP on database %I', current_database()), string_agg(rolname, ', ' order by rolname),
           format('revoke temporary on database %I from public', current_database())
      from service where has_database_privilege(oid, current_database(), 'temporary')
    having count(*) > 0
     union all
    select format('CREATE on schema %I', current_schema()), string_agg(rolname, ', ' order by rolname),
           format('revoke create on schema %I from public', current_schema())
      from service where has_schema_privilege(oid, current_schema(), 'create')
    having count(*) > 0";

/// Takes from all roles the rights that no pod needs. Returns a warning for each that this role
/// cannot take.
fn take_rights(client: &mut postgres::Client) -> Result<Vec<String>, postgres::Error> {
    client.batch_execute(TAKE_RIGHTS)?;
    let rows = client.query(STILL_THERE, &[])?;
    let warning = |row: &postgres::Row| {
        let [right, roles, remedy]: [String; 3] = [row.get(0), row.get(1), row.get(2)];
        format!("{right} could not be taken from {roles}: its owner can, by `{remedy}`")
    };
    Ok(rows.iter().map(warning).collect())
}

/// Checks that this binary may run on the schema: it is the one that it knows, or a newer one that allows it.
pub async fn check(database: &Database, address: &Address) -> anyhow::Result<()> {
    database.check(address).await?;
    let known = known();
    match look(database, &known).await? {
        Comparison::Same => Ok(()),
        Comparison::Ahead(schema) => {
            info!(
                schema,
                known = newest(&known),
                "the schema is newer, and lets this groundstation run"
            );
            Ok(())
        }
        Comparison::Behind(0) => bail!(
            "the database at {} has no schema yet: run `groundstation migrate`",
            address.display()
        ),
        Comparison::Behind(found) => bail!(behind(found, &known)),
        Comparison::Refused(why) => bail!(why),
    }
}

/// The schema has changed into one that this program may not run on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Outgrown(String);

/// Looks once a minute, and after a statement that did not fit the schema, whether this program may still run on it,
/// until told to stop. Returns early only if it may not.
pub async fn watch(
    database: Database,
    reads: Database,
    stop: CancellationToken,
) -> Option<Outgrown> {
    let known = known();
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            () = database.misfit() => {}
            () = reads.misfit() => {}
            () = stop.cancelled() => return None,
        }
        match look(&database, &known).await {
            Ok(Comparison::Same | Comparison::Ahead(_)) => {}
            Ok(Comparison::Behind(found)) => return Some(Outgrown(behind(found, &known))),
            Ok(Comparison::Refused(why)) => return Some(Outgrown(why)),
            // The probe reports it when the database is away.
            Err(error) => debug!(%error, "cannot look at the schema's version"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_PAUSE) => {}
            () = stop.cancelled() => return None,
        }
    }
}

async fn look(database: &Database, known: &[Migration]) -> anyhow::Result<Comparison> {
    let history = async |client: &mut Object| {
        client.query(HISTORY, &[]).await?.iter().map(Applied::read).collect()
    };
    let applied: Vec<Applied> = match database.run(history).await {
        Ok(applied) => applied,
        Err(Failed::Server(error)) if is_absent(&error) => Vec::new(),
        Err(failed) => bail!("cannot read the schema's version: {failed}"),
    };
    Ok(compare(known, &applied))
}

fn behind(found: i32, known: &[Migration]) -> String {
    let needed = newest(known);
    format!(
        "the schema is at version {found}, this groundstation needs {needed}: run `groundstation migrate`"
    )
}

fn is_absent(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    let absent = [SqlState::UNDEFINED_TABLE, SqlState::INSUFFICIENT_PRIVILEGE];
    error.code().is_some_and(|code| absent.contains(code))
}

/// A migration that was applied to the database.
struct Applied {
    version: i32,
    name: String,
    checksum: String,
}

const HISTORY: &str =
    "select version, name, checksum from refinery_schema_history order by version";

impl Applied {
    fn read(row: &postgres::Row) -> Result<Self, postgres::Error> {
        Ok(Self { version: row.try_get(0)?, name: row.try_get(1)?, checksum: row.try_get(2)? })
    }
}

fn applied(client: &mut postgres::Client) -> anyhow::Result<Vec<Applied>> {
    let row = client
        .query_one("select to_regclass('refinery_schema_history') is not null", &[])
        .context("cannot look for the schema")?;
    if !row.get::<_, bool>(0) {
        return Ok(Vec::new());
    }
    let rows = client.query(HISTORY, &[]).context("cannot read the schema's version")?;
    let applied = rows.iter().map(Applied::read).collect::<Result<_, _>>();
    applied.context("cannot read the schema's version")
}

/// How a schema compares to the one a binary knows.
#[derive(Debug, PartialEq, Eq)]
enum Comparison {
    Same,
    /// It has the first migrations, up to this version; 0 is none.
    Behind(i32),
    /// It has further migrations, up to this version, and all of them allow the binary.
    Ahead(i32),
    /// The binary refuses it; the text says why.
    Refused(String),
}

/// Compares version by version: the same number can belong to another set of migrations.
fn compare(known: &[Migration], applied: &[Applied]) -> Comparison {
    for (found, ours) in applied.iter().zip(known) {
        let is_same = found.version == ours.version()
            && found.name == ours.name()
            && found.checksum == ours.checksum().to_string();
        if !is_same {
            return Comparison::Refused(format!(
                "the schema was made by other migrations than this groundstation's: its `{} {}` is not `{} {}` \
                 as it is here; use an empty database, or the groundstation that made it",
                found.version,
                found.name,
                ours.version(),
                ours.name()
            ));
        }
    }
    let (found, newest) = (applied.last().map_or(0, |newest| newest.version), newest(known));
    if applied.len() < known.len() {
        return Comparison::Behind(found);
    }
    let further = applied.get(known.len()..).unwrap_or_default();
    let oldest = |migration: &Applied| oldest_beside(migration.version, &migration.name);
    match further.iter().find(|migration| oldest(migration) > newest) {
        Some(migration) => Comparison::Refused(format!(
            "the schema is at version {found}, newer than the {newest} this groundstation knows, and its migration \
             `{} {}` is for those that know {} or more: use the newer groundstation",
            migration.version,
            migration.name,
            oldest(migration)
        )),
        None if further.is_empty() => Comparison::Same,
        None => Comparison::Ahead(found),
    }
}

/// The least schema that a program knows which may run beside this migration.
fn oldest_beside(version: i32, name: &str) -> i32 {
    let declared = name.rsplit_once(BESIDE).and_then(|(_, oldest)| oldest.parse().ok());
    declared.unwrap_or(version)
}

/// The migrations that this binary knows, in order.
pub fn known() -> Vec<Migration> {
    let mut known = embedded::migrations::runner().get_migrations().clone();
    known.sort();
    known
}

fn newest(known: &[Migration]) -> i32 {
    known.last().map_or(0, Migration::version)
}

/// Another transaction has what the migration needs.
fn is_busy(error: &refinery::Error) -> bool {
    use postgres::error::SqlState;
    let busy = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
    of_the_server(error).and_then(postgres::Error::code).is_some_and(|code| busy.contains(code))
}

/// refinery wraps the server's own words, which are what helps.
fn describe(migration: &Migration, error: &refinery::Error) -> anyhow::Error {
    match of_the_server(error) {
        Some(error) => failed(migration, error),
        None => anyhow::anyhow!("migration {} failed: {error}", migration.version()),
    }
}

fn failed(migration: &Migration, error: &postgres::Error) -> anyhow::Error {
    let (version, name) = (migration.version(), migration.name());
    anyhow::anyhow!("migration `{version} {name}` failed: {}", database::describe(error))
}

fn of_the_server(error: &refinery::Error) -> Option<&postgres::Error> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(postgres) = current.downcast_ref() {
            return Some(postgres);
        }
        cause = current.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last migration from before they said it.
    const SILENT: i32 = 11;

    #[test]
    fn every_migration_says_beside_which_programs_it_may_be_made() {
        for migration in known().iter().filter(|migration| migration.version() > SILENT) {
            let (version, name) = (migration.version(), migration.name());
            let declared = name.rsplit_once(BESIDE).and_then(|(_, oldest)| oldest.parse().ok());
            let is_sound = |oldest: i32| (SILENT..=version).contains(&oldest);
            assert!(
                declared.is_some_and(is_sound),
                "schema/V{version}__{name}.sql: its name ends in {BESIDE}<the oldest schema that it lets pods know>"
            );
        }
    }

    #[test]
    fn a_schema_of_the_first_migrations_is_behind_and_its_own_is_the_same() {
        let known = made_up(&["one", "two"]);
        let applied = |count: usize| rows(&known[..count]);
        assert_eq!(compare(&known, &applied(0)), Comparison::Behind(0));
        assert_eq!(compare(&known, &applied(1)), Comparison::Behind(1));
        assert_eq!(compare(&known, &applied(2)), Comparison::Same);
    }

    #[test]
    fn a_program_runs_on_a_newer_schema_if_every_further_migration_allows_it() {
        let all = made_up(&["one", "two", "new_column__beside_2", "no_old_column__beside_3"]);
        let schema = rows(&all);
        assert_eq!(compare(&all[..3], &schema[..3]), Comparison::Same);
        assert_eq!(compare(&all[..2], &schema[..3]), Comparison::Ahead(3));
        assert_eq!(compare(&all[..3], &schema), Comparison::Ahead(4));
        let refused = compare(&all[..2], &schema);
        let Comparison::Refused(why) = refused else { panic!("{refused:?}") };
        for word in ["version 4", "the 2 this", "`4 no_old_column__beside_3`", "know 3 or more"] {
            assert!(why.contains(word), "{word}: {why}");
        }
        assert!(
            matches!(compare(&all[..1], &schema[..2]), Comparison::Refused(_)),
            "it says nothing"
        );
    }

    #[test]
    fn a_later_migration_that_allows_less_takes_back_what_an_earlier_one_allowed() {
        let all = made_up(&["one", "two__beside_1", "three__beside_1", "four__beside_3"]);
        let schema = rows(&all);
        assert_eq!(compare(&all[..1], &schema[..3]), Comparison::Ahead(3));
        assert!(matches!(compare(&all[..1], &schema), Comparison::Refused(_)));
        assert!(matches!(compare(&all[..2], &schema), Comparison::Refused(_)));
        assert_eq!(compare(&all[..3], &schema), Comparison::Ahead(4));
    }

    #[test]
    fn a_newer_schema_that_began_otherwise_is_refused() {
        let ours = made_up(&["one", "two"]);
        let theirs = rows(&made_up(&["one", "other", "three__beside_1"]));
        let refused = compare(&ours, &theirs);
        let Comparison::Refused(why) = refused else { panic!("{refused:?}") };
        assert!(why.contains("other migrations"), "{why}");
    }

    fn made_up(names: &[&str]) -> Vec<Migration> {
        let made = (1..).zip(names).map(|(version, name)| {
            Migration::unapplied(&format!("V{version}__{name}"), "select 1").expect("a name")
        });
        made.collect()
    }

    fn rows(migrations: &[Migration]) -> Vec<Applied> {
        let row = |migration: &Migration| Applied {
            version: migration.version(),
            name: migration.name().to_owned(),
            checksum: migration.checksum().to_string(),
        };
        migrations.iter().map(row).collect()
    }
}
