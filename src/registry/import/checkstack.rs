//! The satellites of a Checkstack database and their checks. Each of its plugins has a schema.
//!
//! Columns were added over time (capabilities, last edge, threshold), so a row is read as JSON first, and a missing
//! column counts as null. Times have no zone there and are UTC. A check of a system names the satellites that run it.
//! A check that is turned off or whose configuration is paused is assigned to no satellite.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Known, SOURCE_TIMEOUT, TokenHash, connect};
use crate::contract::word::Word;
use crate::domain::lifecycle::Event;
use crate::platform::database::describe;
use crate::platform::token::MAX_BCRYPT_COST;
use crate::registry::assignments;
use crate::registry::satellites::NewSatellite;

/// Where Checkstack's satellite plugin keeps its tables.
const USUAL_SCHEMA: &str = "plugin_satellite";

/// Where its plugins for health checks and for the catalogue keep theirs.
const USUAL_SCHEMA_OF_CHECKS: &str = "plugin_healthcheck";
const SCHEMA_OF_SYSTEMS: &str = "plugin_catalog";

/// Rows in one read.
const PAGE: i64 = 1_000;

/// Limits of what is copied: capabilities of a satellite, and characters of each and of a version.
const MAX_CAPABILITIES: usize = 64;
const MAX_WORD: usize = 200;

/// What the other database has.
#[derive(Debug, Default)]
pub struct Found {
    /// The schema with the satellites.
    pub schema: String,
    /// The schema with the checks, if there is one.
    pub checks: Option<String>,
    /// Satellites that can be copied, by id.
    pub satellites: Vec<Known>,
    /// Those of them with texts that this system does not accept from an administrator: id, name, and which field
    /// breaks which rule. They are copied unchanged: their agents are in the field, and nobody else can say what is
    /// meant.
    pub odd: Vec<(Uuid, String, String)>,
    /// Satellites that cannot be copied: id, name as far as it can be shown, and which field breaks which rule.
    pub refused: Vec<(Uuid, String, String)>,
}

/// Reads all satellites. Blocking: call it before any runtime starts. Writes nothing to the other database.
pub fn read(from: &str, schema: Option<&str>, checks: Option<&str>) -> anyhow::Result<Found> {
    let mut client = connect(from)?;
    let mut transaction = client
        .build_transaction()
        .read_only(true)
        .isolation_level(postgres::IsolationLevel::RepeatableRead)
        .start()
        .context("cannot begin")?;
    let schema = match schema {
        Some(schema) => schema.to_owned(),
        None => find_schema(&mut transaction)?,
    };
    let checks = match checks {
        Some(schema) => Some(schema.to_owned()),
        None => find_schema_of_checks(&mut transaction)?,
    };
    let mut found = Found { schema, checks, ..Found::default() };
    read_satellites(&mut transaction, &mut found)?;
    if let Some(checks) = found.checks.clone() {
        let read = |error| {
            anyhow::anyhow!("cannot read {checks}.system_health_checks: {}", describe(&error))
        };
        let lists = lists(&mut transaction, &checks, &found.satellites).map_err(read)?;
        found.assign(lists);
    }
    Ok(found)
}

fn set_schema(
    transaction: &mut postgres::Transaction<'_>,
    schema: &str,
) -> Result<(), postgres::Error> {
    const PATH: &str = "select set_config('search_path', quote_ident($1), true)";
    transaction.execute(PATH, &[&schema]).map(drop)
}

fn read_satellites(
    transaction: &mut postgres::Transaction<'_>,
    found: &mut Found,
) -> anyhow::Result<()> {
    set_schema(transaction, &found.schema).context("cannot set the schema")?;
    let mut after = Uuid::nil();
    loop {
        let rows = transaction.query(SATELLITES, &[&after, &PAGE]).map_err(|error| {
            let said = describe(&error);
            anyhow::anyhow!(
                "cannot read {}.satellites within {SOURCE_TIMEOUT:?}: {said}",
                found.schema
            )
        })?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.try_get("id")?;
        for row in &rows {
            let (id, name): (Uuid, String) = (row.try_get("id")?, row.try_get("name")?);
            match satellite(row)? {
                Ok(known) => {
                    if let Err(invalid) = known.described.check_seen() {
                        found.odd.push((id, shown(&name), invalid.to_string()));
                    }
                    found.satellites.push(known);
                }
                Err(why) => found.refused.push((id, shown(&name), why)),
            }
        }
    }
}

/// A name from the other system, cut to a bounded length.
fn shown(name: &str) -> String {
    name.chars().take(60).collect()
}

impl Found {
    /// Gives each satellite its list. Refuses satellites whose list breaks a limit.
    fn assign(&mut self, mut lists: HashMap<Uuid, Vec<Value>>) {
        for mut known in std::mem::take(&mut self.satellites) {
            match assignments::check(Value::from(lists.remove(&known.id).unwrap_or_default())) {
                Ok(list) => {
                    known.assignments = Some(list);
                    self.satellites.push(known);
                }
                Err(invalid) => {
                    let name = shown(&known.described.name);
                    self.refused.push((known.id, name, invalid.to_string()));
                }
            }
        }
    }
}

const SCHEMAS_OF_CHECKS: &str = "
    select table_schema::text
      from information_schema.columns
     where table_name = 'system_health_checks'
       and column_name in ('system_id', 'configuration_id', 'enabled', 'satellite_ids')
     group by table_schema
    having count(*) = 4
     order by table_schema";

/// None if no check names satellites, as in a Checkstack older than they are.
fn find_schema_of_checks(
    client: &mut impl postgres::GenericClient,
) -> anyhow::Result<Option<String>> {
    let rows = client.query(SCHEMAS_OF_CHECKS, &[]).context("cannot look for the checks")?;
    let schemas: Vec<String> =
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, postgres::Error>>()?;
    match schemas.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(only.clone())),
        many if many.iter().any(|schema| schema == USUAL_SCHEMA_OF_CHECKS) => {
            Ok(Some(USUAL_SCHEMA_OF_CHECKS.to_owned()))
        }
        many => bail!(
            "--from has several tables `system_health_checks`: choose by --checks-schema {}",
            many.join("|")
        ),
    }
}

/// Checks name satellites by their ids as text.
const CHECKS: &str = "
    select named.id::uuid as satellite, s.system_id, c.id::text as config_id, c.name, c.strategy_id,
           c.config, c.interval_seconds::bigint, to_jsonb(c) -> 'collectors' as collectors
      from unnest($1::text[]) as named (id)
      join system_health_checks s on s.satellite_ids ? named.id
      join health_check_configurations c on c.id = s.configuration_id
     where s.enabled and not coalesce((to_jsonb(c) ->> 'paused')::boolean, false)
     order by s.system_id, c.id";

const SYSTEMS: &str = "select to_regclass($1) is not null";

/// The list of each satellite, in the form of assignments.
fn lists(
    transaction: &mut postgres::Transaction<'_>,
    schema: &str,
    satellites: &[Known],
) -> Result<HashMap<Uuid, Vec<Value>>, postgres::Error> {
    set_schema(transaction, schema)?;
    let names = names_of_systems(transaction)?;
    let mut lists: HashMap<Uuid, Vec<Value>> = HashMap::new();
    for page in satellites.chunks(PAGE as usize) {
        let ids: Vec<String> = page.iter().map(|known| known.id.to_string()).collect();
        for row in transaction.query(CHECKS, &[&ids])? {
            let system: String = row.try_get("system_id")?;
            // Checkstack, too, shows the id of a system that its catalogue does not know.
            let system_name = names.get(&system).unwrap_or(&system);
            let mut assignment = json!({
                "configId": row.try_get::<_, String>("config_id")?,
                "configName": row.try_get::<_, String>("name")?,
                "systemName": system_name,
                "systemId": system,
                "strategyId": row.try_get::<_, String>("strategy_id")?,
                "config": row.try_get::<_, Value>("config")?,
                "intervalSeconds": row.try_get::<_, i64>("interval_seconds")?,
            });
            let collectors: Option<Value> = row.try_get("collectors")?;
            if let Some(collectors) = collectors.filter(|collectors| !collectors.is_null()) {
                assignment["collectors"] = collectors;
            }
            lists.entry(row.try_get("satellite")?).or_default().push(assignment);
        }
    }
    Ok(lists)
}

fn names_of_systems(
    transaction: &mut postgres::Transaction<'_>,
) -> Result<HashMap<String, String>, postgres::Error> {
    let table = format!("{SCHEMA_OF_SYSTEMS}.systems");
    if !transaction.query_one(SYSTEMS, &[&table])?.try_get::<_, bool>(0)? {
        return Ok(HashMap::new());
    }
    let rows = transaction.query(&format!("select id::text, name from {table}"), &[])?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

const SCHEMAS: &str = "
    select table_schema::text
      from information_schema.columns
     where table_name = 'satellites'
       and column_name in ('id', 'name', 'region', 'tags', 'token_hash', 'last_heartbeat_at', 'created_at')
     group by table_schema
    having count(*) = 7
     order by table_schema";

fn find_schema(client: &mut impl postgres::GenericClient) -> anyhow::Result<String> {
    let rows = client.query(SCHEMAS, &[]).context("cannot look for the satellites")?;
    let schemas: Vec<String> =
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, postgres::Error>>()?;
    match schemas.as_slice() {
        [] => bail!("--from has no table `satellites` that looks like Checkstack's"),
        [only] => Ok(only.clone()),
        many if many.iter().any(|schema| schema == USUAL_SCHEMA) => Ok(USUAL_SCHEMA.to_owned()),
        many => {
            bail!("--from has several tables `satellites`: choose by --schema {}", many.join("|"))
        }
    }
}

/// Columns that may have several types, or be missing, are read as text.
const SATELLITES: &str = "
    select s.id, s.name, s.region, s.tags, s.token_hash, j.row ->> 'version' as version,
           j.row -> 'capabilities' as capabilities,
           (j.row ->> 'offline_threshold_ms')::bigint as offline_threshold_ms,
           j.row ->> 'last_connection_event' as last_event,
           date_trunc('milliseconds', s.last_heartbeat_at) at time zone 'UTC' as last_heartbeat_at,
           date_trunc('milliseconds', s.created_at) at time zone 'UTC' as created_at
      from satellites s, lateral (select to_jsonb(s) as row) j
     where s.id > $1
     order by s.id
     limit $2";

/// One satellite, or the field that cannot be accepted, with the reason.
fn satellite(row: &postgres::Row) -> Result<Result<Known, String>, postgres::Error> {
    let tags = serde_json::from_value::<BTreeMap<String, String>>(row.try_get("tags")?);
    let Ok(tags) = tags else {
        return Ok(Err("tags must be an object of texts".to_owned()));
    };
    let threshold: Option<i64> = row.try_get("offline_threshold_ms")?;
    let described = NewSatellite {
        name: row.try_get("name")?,
        region: row.try_get("region")?,
        tags,
        // Checkstack, too, takes zero and less for the default.
        offline_threshold_ms: threshold.filter(|ms| *ms > 0),
    };
    if let Err(invalid) = described.check_limits() {
        return Ok(Err(invalid.to_string()));
    }
    let Some(token_hash) = TokenHash::parse(row.try_get("token_hash")?) else {
        return Ok(Err(format!(
            "token_hash must be a bcrypt hash ($2a$, $2b$ or $2y$, cost 04 to {MAX_BCRYPT_COST})"
        )));
    };
    let last_event: Option<Word<Event>> = row.try_get("last_event")?;
    let last_event = last_event.and_then(|event| event.known());
    let created_at: OffsetDateTime = row.try_get("created_at")?;
    Ok(Ok(Known {
        id: row.try_get("id")?,
        described,
        token_hash,
        capabilities: words(row.try_get("capabilities")?),
        version: row.try_get::<_, Option<String>>("version")?.filter(|text| fits(text)),
        last_event: last_event.filter(|event| *event != Event::Removed),
        last_heartbeat_at: row.try_get("last_heartbeat_at")?,
        created_at,
        assignments: None,
    }))
}

/// An agent repeats what it says of itself when it connects, so values that do not fit are left out.
fn words(value: Option<serde_json::Value>) -> Vec<String> {
    let words: Vec<String> =
        value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    words.into_iter().filter(|word| fits(word)).take(MAX_CAPABILITIES).collect()
}

fn fits(text: &str) -> bool {
    text.chars().count() <= MAX_WORD && !text.contains('\0')
}
