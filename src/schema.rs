//! The database schema: the migrations of `schema/`, compiled in, and which of them are there.
//!
//! [`migrate`] may be started by any number of programs at once: they queue on an advisory lock
//! held by a connection of their own (refinery takes none).

use anyhow::{Context, bail};
use deadpool_postgres::Object;

use crate::database::{self, Address, Database, Failed};

mod embedded {
    #![allow(missing_docs)]
    refinery::embed_migrations!("schema");
}

/// Serialises migrations of one database; any constant does, as long as it never changes.
const MIGRATION_LOCK: i64 = 0x6772_6f75_6e64_0001;

/// How long a migration waits for one that is already running.
const MIGRATION_LOCK_TIMEOUT: &str = "120s";

/// What a migration did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The migrations that were applied, in order, as `version name`.
    pub applied: Vec<String>,
    /// The version the schema has now.
    pub version: i32,
}

/// Brings the schema to the newest version this binary knows. Blocking: call it before any
/// runtime starts. Changes nothing when it is there already; refuses a schema that is newer.
pub fn migrate(address: &Address) -> anyhow::Result<Migrated> {
    let mut client = address.connect_blocking()?;
    let row = client
        .query_one("select current_setting('server_version_num')::int / 10000", &[])
        .context("cannot ask Postgres for its version")?;
    database::check_server(row.get(0))?;
    client
        .batch_execute(&format!("set lock_timeout = '{MIGRATION_LOCK_TIMEOUT}'"))
        .context("cannot set lock_timeout")?;
    client.execute("select pg_advisory_lock($1)", &[&MIGRATION_LOCK]).map_err(|error| {
        anyhow::anyhow!("another migration is running: {}", database::describe(&error))
    })?;
    // The lock goes with the connection, whichever way this function is left.

    let known = newest_known();
    let runner = embedded::migrations::runner();
    let found = applied_version(&mut client)?;
    if found > known {
        bail!(newer(found, known));
    }
    let report = runner.run(&mut client).map_err(describe)?;
    Ok(Migrated {
        applied: report
            .applied_migrations()
            .iter()
            .map(|migration| format!("{} {}", migration.version(), migration.name()))
            .collect(),
        version: known,
    })
}

/// Checks that the schema is exactly the one this binary knows.
pub async fn check(database: &Database, address: &Address) -> anyhow::Result<()> {
    database.check(address).await?;
    let newest = async |client: &mut Object| {
        let newest = "select max(version) from refinery_schema_history";
        client.query_one(newest, &[]).await?.try_get::<_, Option<i32>>(0)
    };
    let found = match database.run(newest).await {
        Ok(found) => found.unwrap_or(0),
        Err(Failed::Server(error)) if is_absent(&error) => 0,
        Err(failed) => bail!("cannot read the schema's version: {failed}"),
    };
    let known = newest_known();
    match found {
        0 => bail!(
            "the database at {} has no schema yet: run `groundstation migrate`",
            address.display()
        ),
        found if found < known => bail!(
            "the schema is at version {found}, this groundstation needs {known}: run `groundstation migrate`"
        ),
        found if found > known => bail!(newer(found, known)),
        _ => Ok(()),
    }
}

fn is_absent(error: &tokio_postgres::Error) -> bool {
    use tokio_postgres::error::SqlState;
    let absent = [SqlState::UNDEFINED_TABLE, SqlState::INSUFFICIENT_PRIVILEGE];
    error.code().is_some_and(|code| absent.contains(code))
}

fn newest_known() -> i32 {
    let runner = embedded::migrations::runner();
    runner.get_migrations().iter().map(|migration| migration.version()).max().unwrap_or(0)
}

fn applied_version(client: &mut postgres::Client) -> anyhow::Result<i32> {
    let row = client
        .query_one("select to_regclass('refinery_schema_history') is not null", &[])
        .context("cannot look for the schema")?;
    if !row.get::<_, bool>(0) {
        return Ok(0);
    }
    let row = client
        .query_one("select coalesce(max(version), 0) from refinery_schema_history", &[])
        .context("cannot read the schema's version")?;
    Ok(row.get(0))
}

fn newer(found: i32, known: i32) -> String {
    format!(
        "the schema is at version {found}, newer than the {known} this groundstation knows: \
         use the newer groundstation"
    )
}

/// refinery wraps the server's own words: they are what helps.
fn describe(error: refinery::Error) -> anyhow::Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(postgres) = current.downcast_ref::<postgres::Error>() {
            return anyhow::anyhow!("a migration failed: {}", database::describe(postgres));
        }
        cause = current.source();
    }
    anyhow::anyhow!("a migration failed: {error}")
}
