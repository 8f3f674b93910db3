//! `groundstation import`: copies the satellites of another system into the registry.

use anyhow::bail;
use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};

use super::exit::wrong_usage;
use super::operator;
use super::output::print_line;
use crate::contract::wire::Actor;
use crate::log::audit::Author;
use crate::platform::database::Address;
use crate::platform::migrations;
use crate::pod::config::DatabaseArgs;
use crate::registry::import::checkstack::Found;
use crate::registry::import::{Done, Known, checkstack, store};
use crate::registry::satellites::NewSatellite;

const AFTER_HELP: &str = "\
Copies id, name, region, tags, threshold, token hash, version and capabilities, and what the satellite is to
check (where that database has it: checks that name it, are turned on and are not paused), and remembers
the last heartbeat and the last edge there. It appends no transition and publishes nothing: a satellite's
first edge is the one it makes here, with the credentials it has.

It may be run again, for example just before the agents are pointed here. A satellite that has
connected here, or was removed here, is left as it is; so are assignments that were replaced here.";

#[derive(Args)]
pub struct ImportArgs {
    #[command(subcommand)]
    system: System,
}

#[derive(Subcommand)]
enum System {
    /// From the database of Checkstack 0.5's satellite plugin, or of an older one
    Checkstack(CheckstackArgs),
}

#[derive(Args)]
#[command(after_help = AFTER_HELP)]
struct CheckstackArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Checkstack's database, e.g. postgres://user:password@host:5432/checkstack; it is only read
    #[arg(long, env = "CHECKSTACK_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    from: SecretString,
    /// The schema with its table `satellites` [default: plugin_satellite, or the only one there is]
    #[arg(long, value_name = "NAME")]
    schema: Option<String>,
    /// The schema with its table `system_health_checks` [default: plugin_healthcheck, or the only one
    /// there is]
    #[arg(long, value_name = "NAME")]
    checks_schema: Option<String>,
}

/// Runs `groundstation import …`. Reads the other database before any runtime starts.
pub fn run(args: ImportArgs) -> anyhow::Result<()> {
    let System::Checkstack(args) = args.system;
    // Before anything is read for nothing.
    args.database.required().map_err(wrong_usage)?;
    Address::parse("--from", args.from.expose_secret()).map_err(wrong_usage)?;
    let found = checkstack::read(
        args.from.expose_secret(),
        args.schema.as_deref(),
        args.checks_schema.as_deref(),
    )?;
    super::block_on(write(args.database, found))
}

async fn write(database: DatabaseArgs, found: Found) -> anyhow::Result<()> {
    let address = database.required()?;
    let database = address.pool("import")?;
    migrations::check(&database, &address).await?;
    if found.checks.is_none() {
        eprintln!(
            "--from has no table `system_health_checks` with satellites: no assignments are copied"
        );
    }
    let (mut created, mut updated, mut unchanged, mut skipped) = (0u64, 0u64, 0u64, 0u64);
    let author = Author::from(Actor::command(&operator::name()));
    store(&database, &found.satellites, &author, |satellite, done| {
        let (id, name) = (satellite.id, shown(&satellite.described));
        let assigned = assigned(satellite);
        match done {
            Done::Created => {
                created += 1;
                print_line!("created {id} {name}{assigned}");
            }
            Done::Updated => {
                updated += 1;
                print_line!("updated {id} {name}{assigned}");
            }
            Done::Unchanged => unchanged += 1,
            Done::Skipped(why) => {
                skipped += 1;
                print_line!("skipped {id} {name}: {why}");
            }
        }
    })
    .await?;
    for (id, name, why) in &found.odd {
        eprintln!("{id} {name:?}: {why}; it is kept as it is: change it where you can");
    }
    for (id, name, why) in &found.refused {
        print_line!("refused {id} {name:?}: {why}");
    }
    let (schema, refused) = (&found.schema, found.refused.len());
    print_line!(
        "{schema}: {created} created, {updated} updated, {unchanged} unchanged, {skipped} skipped, {refused} refused"
    );
    if refused > 0 {
        bail!(
            "{refused} satellites break a limit of this system: change them there and import again"
        );
    }
    Ok(())
}

/// Its name, quoted if it has invisible characters.
fn shown(satellite: &NewSatellite) -> String {
    let name = &satellite.name;
    if satellite.check_seen().is_ok() { name.clone() } else { format!("{name:?}") }
}

/// How many assignments it has, if that is known.
fn assigned(satellite: &Known) -> String {
    let list = satellite.assignments.as_ref().and_then(serde_json::Value::as_array);
    list.map_or_else(String::new, |list| format!(", assignments there: {}", list.len()))
}
