//! The satellites of a Checkstack database: one table, which each of its plugins' schemas may hold.
//!
//! Columns came over time (capabilities, last edge, threshold), so a row is read as JSON first and
//! what is not there counts as null. Its times are in UTC without saying so.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Known, SOURCE_TIMEOUT, TokenHash, connect};
use crate::database::describe;
use crate::satellites::NewSatellite;

/// Where Checkstack's satellite plugin keeps its tables.
const USUAL_SCHEMA: &str = "plugin_satellite";

/// Rows of one read.
const PAGE: i64 = 1_000;

/// The most capabilities that are copied, and the most characters of each, and of a version.
const MAX_CAPABILITIES: usize = 64;
const MAX_WORD: usize = 200;

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// In which schema.
    pub schema: String,
    /// Satellites that can be copied, by id.
    pub satellites: Vec<Known>,
    /// Those that cannot: id, name as far as it can be shown, and which field breaks which rule.
    pub refused: Vec<(Uuid, String, String)>,
}

/// Reads them all. Blocking: call it before any runtime starts. Writes nothing there.
pub fn read(from: &str, schema: Option<&str>) -> anyhow::Result<Found> {
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
    const PATH: &str = "select set_config('search_path', quote_ident($1), true)";
    transaction.execute(PATH, &[&schema]).context("cannot set the schema")?;
    let mut found = Found { schema, ..Found::default() };
    let mut after = Uuid::nil();
    loop {
        let rows = transaction.query(SATELLITES, &[&after, &PAGE]).map_err(|error| {
            let said = describe(&error);
            anyhow::anyhow!(
                "cannot read {}.satellites within {SOURCE_TIMEOUT:?}: {said}",
                found.schema
            )
        })?;
        let Some(last) = rows.last() else { return Ok(found) };
        after = last.try_get("id")?;
        for row in &rows {
            let (id, name): (Uuid, String) = (row.try_get("id")?, row.try_get("name")?);
            match satellite(row)? {
                Ok(known) => found.satellites.push(known),
                Err(why) => found.refused.push((id, name.chars().take(60).collect(), why)),
            }
        }
    }
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

/// As text where a column may be of several types or not be there at all.
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

/// One satellite, or which field of it cannot be taken and why.
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
        // There, too, zero and less mean the default.
        offline_threshold_ms: threshold.filter(|ms| *ms > 0),
    };
    if let Err(invalid) = described.check() {
        return Ok(Err(invalid.to_string()));
    }
    let Some(token_hash) = TokenHash::parse(row.try_get("token_hash")?) else {
        let forms = "token_hash must be a bcrypt hash ($2a$, $2b$ or $2y$, cost 04 to 31)";
        return Ok(Err(forms.to_owned()));
    };
    let last_event: Option<String> = row.try_get("last_event")?;
    let known = ["connected", "disconnected", "heartbeat_lost"];
    let created_at: OffsetDateTime = row.try_get("created_at")?;
    Ok(Ok(Known {
        id: row.try_get("id")?,
        described,
        token_hash,
        capabilities: words(row.try_get("capabilities")?),
        version: row.try_get::<_, Option<String>>("version")?.filter(|text| fits(text)),
        last_event: last_event.filter(|event| known.contains(&event.as_str())),
        last_heartbeat_at: row.try_get("last_heartbeat_at")?,
        created_at,
    }))
}

/// What an agent said of itself it says again when it connects: what does not fit is left out.
fn words(value: Option<serde_json::Value>) -> Vec<String> {
    let words: Vec<String> =
        value.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default();
    words.into_iter().filter(|word| fits(word)).take(MAX_CAPABILITIES).collect()
}

fn fits(text: &str) -> bool {
    text.chars().count() <= MAX_WORD && !text.contains('\0')
}
