//! The database schema: the migrations of `schema/`, compiled in, and which of them were applied.
//!
//! Any number of programs may start [`migrate`] at once. They queue on an advisory lock held by a
//! connection of their own (refinery takes none).

use std::time::Duration;

use anyhow::{Context, bail};
use deadpool_postgres::Object;

use crate::platform::database::{self, Address, Database, Failed};

mod embedded {
    #![allow(missing_docs)]
    refinery::embed_migrations!("schema");
}

/// Serialises migrations of one database; any constant does, as long as it never changes.
const MIGRATION_LOCK: i64 = 0x6772_6f75_6e64_0001;

/// How long a migration waits for one that is already running.
const MIGRATION_LOCK_TIMEOUT: &str = "120s";

/// The result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Migrated {
    /// The migrations that were applied, in order, as `version name`.
    pub applied: Vec<String>,
    /// The version the schema has now.
    pub version: i32,
    /// Rights that should have been taken away but that this role could not change, in words.
    pub warnings: Vec<String>,
}

/// Brings the schema to the newest version that this binary knows. It blocks: call it before any
/// runtime starts. It changes nothing if the schema is there already, and refuses a newer schema
/// and one made by other migrations. `retention_floor` is the span of the log that pods may never
/// drop from now on; without it the floor stays as it is.
pub fn migrate(address: &Address, retention_floor: Option<Duration>) -> anyhow::Result<Migrated> {
    // Through a pooler that mixes sessions the lock below would be no lock, and would stay.
    address.check_pooler_blocking()?;
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
    // The lock goes with the connection, however this function returns.

    if let Comparison::Refused(why) = compare(&applied(&mut client)?) {
        bail!(why);
    }
    let report = embedded::migrations::runner().run(&mut client).map_err(describe)?;
    let warnings = take_rights(&mut client).context("cannot look at the rights in the database")?;
    if let Some(keep) = retention_floor {
        client
            .execute(SET_RETENTION_FLOOR, &[&keep.as_secs_f64()])
            .context("cannot set the retention floor")?;
    }
    Ok(Migrated {
        applied: report
            .applied_migrations()
            .iter()
            .map(|migration| format!("{} {}", migration.version(), migration.name()))
            .collect(),
        version: newest_known(),
        warnings,
    })
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

/// Checks that the schema is exactly the one this binary knows, made by the same migrations.
pub async fn check(database: &Database, address: &Address) -> anyhow::Result<()> {
    database.check(address).await?;
    let history = async |client: &mut Object| {
        client.query(HISTORY, &[]).await?.iter().map(Applied::read).collect()
    };
    let applied: Vec<Applied> = match database.run(history).await {
        Ok(applied) => applied,
        Err(Failed::Server(error)) if is_absent(&error) => Vec::new(),
        Err(failed) => bail!("cannot read the schema's version: {failed}"),
    };
    match compare(&applied) {
        Comparison::Same => Ok(()),
        Comparison::Behind(0) => bail!(
            "the database at {} has no schema yet: run `groundstation migrate`",
            address.display()
        ),
        Comparison::Behind(found) => bail!(
            "the schema is at version {found}, this groundstation needs {}: run `groundstation migrate`",
            newest_known()
        ),
        Comparison::Refused(why) => bail!(why),
    }
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

/// How a schema compares to the one this binary knows.
enum Comparison {
    Same,
    /// It has the first migrations, up to this version; 0 is none.
    Behind(i32),
    /// The binary refuses it; the text says why.
    Refused(String),
}

/// Compares version by version: the same number can belong to another set of migrations.
fn compare(applied: &[Applied]) -> Comparison {
    let known = known();
    for (found, ours) in applied.iter().zip(&known) {
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
    match applied.last().map_or(0, |newest| newest.version) {
        found if applied.len() < known.len() => Comparison::Behind(found),
        found if applied.len() > known.len() => Comparison::Refused(format!(
            "the schema is at version {found}, newer than the {} this groundstation knows: \
             use the newer groundstation",
            newest_known()
        )),
        _ => Comparison::Same,
    }
}

/// The migrations that this binary knows, in order.
fn known() -> Vec<refinery::Migration> {
    let mut known = embedded::migrations::runner().get_migrations().clone();
    known.sort();
    known
}

fn newest_known() -> i32 {
    known().last().map_or(0, refinery::Migration::version)
}

/// refinery wraps the server's own words, which are what helps.
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
