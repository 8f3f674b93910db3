//! The registry of satellites and the current fleet: who may connect, and how each one stands.
//!
//! Owns the table `satellites` and reads the projection beside it. Status is computed here, on the
//! way out, from the row and the database's clock. The token's hash leaves the database only to be
//! compared, in [`crate::registry::credentials`].

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object, Transaction};
use futures_util::{StreamExt, TryStreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;
use time::OffsetDateTime;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::contract::audit::AuditAction;
use crate::contract::fleet::{Counts, RegionCounts};
use crate::contract::wire::{ImportedJson, SatelliteJson, Timestamp};
use crate::contract::word::Word;
use crate::domain::lifecycle::{Event, SatelliteId, Session};
use crate::domain::liveness::{self, Status};
use crate::domain::selection::{Order, Place, Selection, Sort};
use crate::log;
use crate::log::audit::{self, Author, Entry};
use crate::log::listed::{self, Behind};
use crate::log::maintenance;
use crate::log::watermark;
use crate::platform::batch_loader::Read;
use crate::platform::token;

pub(crate) mod change;
pub(crate) mod idempotency;
pub mod states;

use idempotency::{Claim, Key};

/// The most characters of a name, a region and a tag's value.
pub const MAX_CHARACTERS: usize = 200;

/// The most tags of a satellite, and the most characters of a tag's name.
pub const MAX_TAGS: usize = 64;
const MAX_TAG_NAME: usize = 100;

/// The longest offline threshold: a week.
const MAX_THRESHOLD_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// The most satellites one read returns.
pub const MAX_LIMIT: i64 = 1_000;

/// A satellite to be registered.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NewSatellite {
    /// 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: String,
    /// 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub region: String,
    /// Names and values, both text; at most 64.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Its own offline threshold in milliseconds.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 604_800_000)]
    pub offline_threshold_ms: Option<i64>,
}

/// A field that breaks its limit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {rule}")]
pub struct Invalid {
    /// Which.
    pub field: String,
    /// The limit, as the end of a sentence.
    pub rule: String,
}

pub(super) fn invalid(field: impl Into<String>, rule: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), rule: rule.into() }
}

impl NewSatellite {
    /// Checks every limit; the error names the field.
    pub fn check(&self) -> Result<(), Invalid> {
        self.check_limits()?;
        self.check_seen()
    }

    /// The same, but for texts that were there before: those of an import may be of another taste.
    pub fn check_after(&self, before: &NewSatellite) -> Result<(), Invalid> {
        if self.name != before.name {
            check_text("name", &self.name)?;
        }
        if self.region != before.region {
            check_text("region", &self.region)?;
        }
        self.check_rest()?;
        let before: Vec<_> = before.texts().collect();
        self.texts().filter(|text| !before.contains(text)).try_for_each(seen)
    }

    /// Checks what cannot be kept otherwise, whoever says it.
    pub fn check_limits(&self) -> Result<(), Invalid> {
        check_text("name", &self.name)?;
        check_text("region", &self.region)?;
        self.check_rest()
    }

    /// Checks that every text is what it seems.
    pub fn check_seen(&self) -> Result<(), Invalid> {
        self.texts().try_for_each(seen)
    }

    /// As histories keep it.
    pub fn described(&self) -> Value {
        json!({
            "name": self.name,
            "region": self.region,
            "tags": self.tags,
            "offlineThresholdMs": self.offline_threshold_ms,
        })
    }

    /// Its texts, each with its field.
    fn texts(&self) -> impl Iterator<Item = (String, &str)> {
        let own = [("name".to_owned(), &*self.name), ("region".to_owned(), &*self.region)];
        let tags = self.tags.iter().flat_map(|(name, value)| {
            let field = field_of_tag(name);
            [(field.clone(), name.as_str()), (field, value.as_str())]
        });
        own.into_iter().chain(tags)
    }

    fn check_rest(&self) -> Result<(), Invalid> {
        if self.tags.len() > MAX_TAGS {
            return Err(invalid("tags", format!("must be at most {MAX_TAGS}")));
        }
        for (name, value) in &self.tags {
            let field = field_of_tag(name);
            if name.is_empty() || name.chars().count() > MAX_TAG_NAME || name.contains(['\0', ':'])
            {
                let rule =
                    format!("must have a name of 1 to {MAX_TAG_NAME} characters without a colon");
                return Err(invalid(&field, rule));
            }
            if value.chars().count() > MAX_CHARACTERS || value.contains('\0') {
                return Err(invalid(
                    &field,
                    format!("must have at most {MAX_CHARACTERS} characters"),
                ));
            }
        }
        match self.offline_threshold_ms {
            Some(ms) if !(1..=MAX_THRESHOLD_MS).contains(&ms) => Err(invalid(
                "offlineThresholdMs",
                format!("must be from 1 to {MAX_THRESHOLD_MS} milliseconds"),
            )),
            _ => Ok(()),
        }
    }
}

/// Checks a word of a satellite, or one that is like one.
pub(super) fn check_text(field: &str, text: &str) -> Result<(), Invalid> {
    if text.trim().is_empty() || text.chars().count() > MAX_CHARACTERS {
        return Err(invalid(field, format!("must have 1 to {MAX_CHARACTERS} characters")));
    }
    if text.contains(char::is_control) {
        return Err(invalid(field, "must not contain control characters"));
    }
    Ok(())
}

/// How the field of a tag is called; what is not seen of its name is not said back.
fn field_of_tag(name: &str) -> String {
    let fits = |c: char| if c.is_control() || is_unseen(c) { '\u{fffd}' } else { c };
    format!("tags.{}", name.chars().take(MAX_TAG_NAME).map(fits).collect::<String>())
}

pub(super) fn seen((field, text): (String, &str)) -> Result<(), Invalid> {
    if text.contains(char::is_control) {
        return Err(invalid(&field, "must not contain control characters"));
    }
    if text.contains(is_unseen) {
        let rule = "must not contain characters that change its direction or are not seen";
        return Err(invalid(&field, rule));
    }
    Ok(())
}

/// Whether a character makes a text look like another one. Joiners are not among them, nor the tags that end
/// flags: scripts and emoji need them.
pub(crate) fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{ad}' | '\u{200b}'
        | '\u{2028}' | '\u{2029}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0001}')
}

/// Which satellites of the present a question is about.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// What may be asked of the past too.
    pub selection: Selection,
    /// Only whose agent said that it is of this version.
    pub version: Option<String>,
    /// Only those that have never connected, or only the others.
    pub never_connected: Option<bool>,
}

pub(super) const CREATE: &str = "
    with created as (
        insert into satellites (id, name, region, tags, token_hash, offline_threshold_ms, created_at)
        values ($1, $2, $3, $4, $5, $6, $8)
    )
    insert into registry_changes
           (position, changed_at, satellite_id, action, actor_type, actor_id, after)
    values ($7, $8, $1, 'created', $9, $10,
            jsonb_build_object('name', $2::text, 'region', $3::text, 'tags', $4::jsonb,
                               'offlineThresholdMs', $6::bigint))";

/// What a registration came to.
pub enum Created {
    /// A new satellite.
    New {
        /// As it is now, with the number of the change that made it.
        satellite: Box<Shown>,
        /// Shown this once: only its digest is kept.
        token: SecretString,
    },
    /// The satellite that the same request with the same key made before.
    Again(Box<Shown>),
    /// The one it made has been removed.
    AgainButRemoved(SatelliteId),
    /// The key was used for another request.
    KeyOfAnother,
    /// No more keys are kept today.
    TooManyKeys,
}

/// Registers a satellite that has passed [`NewSatellite::check`], once for one key.
pub async fn create(
    client: &mut Object,
    new: &NewSatellite,
    key: Option<&Key>,
    author: &Author,
    default: Duration,
) -> anyhow::Result<Created> {
    let id = SatelliteId(Uuid::new_v4());
    let token = token::generate()?;
    let transaction = client.transaction().await?;
    if let Some(key) = key {
        match idempotency::claim(&transaction, key, new, id).await? {
            Claim::New => {}
            Claim::Used(earlier) => {
                let found = shown(&transaction, earlier, default).await?;
                return Ok(found.map_or(Created::AgainButRemoved(earlier), |satellite| {
                    Created::Again(Box::new(satellite))
                }));
            }
            Claim::OtherRequest => return Ok(Created::KeyOfAnother),
            Claim::Full => return Ok(Created::TooManyKeys),
        }
    }
    register(&transaction, id, new, &token, (author, AuditAction::SatelliteCreated)).await?;
    transaction.commit().await?;
    let satellite = just_registered(client, id, default).await?;
    Ok(Created::New { satellite: Box::new(satellite), token })
}

/// Writes a new satellite and the change that makes it. It takes the log's lock: the caller commits right after.
pub(super) async fn register(
    transaction: &Transaction<'_>,
    id: SatelliteId,
    new: &NewSatellite,
    token: &SecretString,
    (author, action): (&Author, AuditAction),
) -> Result<(), tokio_postgres::Error> {
    let digest = token::Digest::of(token.expose_secret()).to_stored();
    let tags = Json(&new.tags);
    let statement = transaction.prepare_cached(CREATE).await?;
    let (head, now) = log::transaction::lock_head(transaction).await?;
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &id,
        &new.name,
        &new.region,
        &tags,
        &digest,
        &new.offline_threshold_ms,
        &head,
        &now,
        &author.actor.kind.as_str(),
        &author.actor.id,
    ];
    transaction.execute(&statement, &parameters).await?;
    let entry = Entry::of_satellite(author, action, id, None, Some(new.described()));
    audit::append(transaction, &[entry]).await
}

/// The satellite whose registration was committed before.
pub(super) async fn just_registered(
    client: &impl GenericClient,
    id: SatelliteId,
    default: Duration,
) -> anyhow::Result<Shown> {
    let satellite = shown(client, id, default).await?;
    satellite.ok_or_else(|| anyhow::anyhow!("removed as soon as it was created"))
}

/// A satellite and how often its description was changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// As it stands now.
    pub satellite: SatelliteJson,
    /// The number of the newest change to its description: what an administrator said of it, not how
    /// it stands.
    pub version: i64,
}

/// What is read of `satellites_now`, as `s`. Every column by its name: a prepared statement fails once where its result
/// gets another column, and a later migration may add one to the view while this program runs.
const SHOWN: &str = "
    s.id, s.name, s.region, s.tags, s.capabilities, s.version, s.offline_threshold_ms, s.created_at, s.last_event,
    s.heard_at, s.last_heartbeat_at, s.flapping, s.imported_event, s.imported_heartbeat, s.imported_at, s.observed_at,
    s.judged_at, s.resumed_at, s.disabled";

const GET: &str = "
    select {shown},
           (select coalesce(max(r.change), 0) from registry_changes r
             where r.satellite_id = s.id and r.action in ('created', 'updated')) as described_by
      from satellites_now s
     where s.id = $1";

/// One satellite, as it stands now.
pub async fn get(
    client: &impl GenericClient,
    id: SatelliteId,
    default: Duration,
) -> Result<Option<SatelliteJson>, tokio_postgres::Error> {
    Ok(shown(client, id, default).await?.map(|shown| shown.satellite))
}

/// One satellite and the version of its description.
pub async fn shown(
    client: &impl GenericClient,
    id: SatelliteId,
    default: Duration,
) -> Result<Option<Shown>, tokio_postgres::Error> {
    let statement = client.prepare_cached(&GET.replace("{shown}", SHOWN)).await?;
    let Some(row) = client.query_opt(&statement, &[&id]).await? else { return Ok(None) };
    let mut satellites = [from_row(&row, default)?];
    maintenance::mark(client, &mut satellites, None).await?;
    let [satellite] = satellites;
    Ok(Some(Shown { satellite, version: row.try_get("described_by")? }))
}

/// Whether a satellite is online: the rule of `liveness.rs`.
const ONLINE: &str = "
    coalesce(s.last_event = 'connected' and s.observed_at <= online_until(
        s.heard_at, s.offline_threshold_ms, $5, s.judged_at, s.resumed_at), false)";

/// The filters, the same for a page and for counts; [`Selected`] has their parameters.
const SELECTED: &str = "
    ($1::text is null or s.region = $1)
    and s.tags @> all ($2::jsonb[])
    and ($3::text is null or strpos(without_case(s.name), without_case($3)) > 0)
    and ($4::bool is null or $4 = {online})
    and ($5::bigint is not null)
    and ($6::text is null or s.last_event = $6)
    and ($7::bool is null or s.flapping = $7)
    and ($8::text is null or s.version = $8)
    and ($9::bool is null or $9 = {never_connected})
    and ($10::float8 is null or (not {online}
         and {active_at} <= statement_timestamp() - make_interval(secs => $10)))";

/// A tombstone's edges are those of an earlier registration.
const NEVER_CONNECTED: &str = "(coalesce(s.last_event, 'removed') = 'removed')";

/// When a satellite that is offline was active last. After a clean end there is no heartbeat: then the newest of its
/// edges says it, which is in its row, unless that was rebuilt; then it is in the log.
const ACTIVE_AT: &str = "
    case when {never_connected} then s.created_at
         else coalesce(s.last_heartbeat_at,
                       (select c.recent_edges[cardinality(c.recent_edges)]
                          from satellite_connections c where c.satellite_id = s.id),
                       {last_edge_at}, s.created_at) end";

/// The statement with the filters in it.
fn with_filters(statement: &str) -> String {
    statement
        .replace("{shown}", SHOWN)
        .replace("{selected}", SELECTED)
        .replace("{active_at}", ACTIVE_AT)
        .replace("{last_edge_at}", log::past::LAST_EDGE_AT)
        .replace("{never_connected}", NEVER_CONNECTED)
        .replace("{online}", ONLINE)
}

/// The parameters $1 to $10 of [`SELECTED`], as they are sent.
struct Selected<'a> {
    filter: &'a ListFilter,
    tags: Vec<Json<BTreeMap<&'a str, &'a str>>>,
    online: Option<bool>,
    default_ms: i64,
    last_event: Option<&'static str>,
    inactive: Option<f64>,
}

impl<'a> Selected<'a> {
    fn new(filter: &'a ListFilter, default: Duration) -> Selected<'a> {
        let selection = &filter.selection;
        Selected {
            filter,
            tags: listed::tags(selection),
            online: selection.status.map(|status| status == Status::Online),
            default_ms: i64::try_from(default.as_millis()).unwrap_or(i64::MAX),
            last_event: selection.last_event.map(Event::as_str),
            inactive: selection.inactive_for.map(|span| span.as_secs_f64()),
        }
    }

    fn parameters(&self) -> [&(dyn ToSql + Sync); 10] {
        let selection = &self.filter.selection;
        [
            &selection.region,
            &self.tags,
            &selection.text,
            &self.online,
            &self.default_ms,
            &self.last_event,
            &selection.flapping,
            &self.filter.version,
            &self.filter.never_connected,
            &self.inactive,
        ]
    }
}

const LIST: &str = "
    select {shown} from satellites_now s
     where {selected} and {behind}
     order by {order}
     limit $11 offset $12";

/// The same where no index gives the order, or some are skipped. Which they are is found first, so that whole rows are
/// neither sorted nor skipped. Of two columns with one name the first is read.
const FIND: &str = "
    with found as materialized (
        select s.id, {moment} from satellites_now s
         where {selected} and {behind}
         order by {order}
         limit $11 offset $12
    )
    select coalesce(found.observed_at, s.observed_at) as observed_at,
           coalesce(found.flapping, s.flapping) as flapping, {shown}
      from (select found.*, row_number() over () as place from found) found
      join satellites_now s on s.id = found.id
     order by found.place";

const COLUMNS: listed::Columns = listed::Columns {
    name: "s.name",
    id: "s.id",
    region: "s.region",
    created_at: "date_trunc('milliseconds', s.created_at)",
    // Heartbeats must not move a satellite while somebody reads page after page.
    last_seen_at: "case when {online} then timestamptz 'infinity'
                        else coalesce(date_trunc('milliseconds', s.last_heartbeat_at), '-infinity') end",
};

/// What time alone changes is shown as it was when the page was found, or an online satellite could be listed among
/// those that are offline.
const MOMENT: &str = "s.observed_at, s.flapping";

/// Where it is not asked for it is not looked up.
const NO_MOMENT: &str = "null::timestamptz as observed_at, null::boolean as flapping";

/// The statement for a page of these.
fn statement(filter: &ListFilter, order: Order, skip: i64) -> String {
    if order.by == Sort::Name && skip == 0 {
        return LIST.to_owned();
    }
    let Selection { status, flapping, inactive_for, .. } = &filter.selection;
    let is_of_a_moment = order.by == Sort::LastSeenAt
        || status.is_some()
        || flapping.is_some()
        || inactive_for.is_some();
    FIND.replace("{moment}", if is_of_a_moment { MOMENT } else { NO_MOMENT })
}

/// The satellites that pass the filter, in this order, `skip` of them behind a place, at most `limit` (bounded by
/// [`MAX_LIMIT`]).
pub async fn list(
    client: &impl GenericClient,
    filter: &ListFilter,
    order: Order,
    after: Option<&Place>,
    skip: i64,
    limit: i64,
    default: Duration,
) -> Result<Vec<SatelliteJson>, tokio_postgres::Error> {
    let (selected, limit) = (Selected::new(filter, default), limit.clamp(1, MAX_LIMIT));
    let behind = Behind::new(after, order);
    let mut parameters = selected.parameters().to_vec();
    let bounds: [&(dyn ToSql + Sync); 2] = [&limit, &skip];
    parameters.extend(bounds);
    parameters.extend(behind.parameters());
    let statement =
        with_filters(&listed::in_order(&statement(filter, order, skip), order, &COLUMNS, 13));
    // Row by row: what has come is read while Postgres looks for the rest.
    let rows = client.query_raw(&statement, parameters).await?;
    let mut satellites: Vec<SatelliteJson> =
        rows.map(|row| from_row(&row?, default)).try_collect().await?;
    maintenance::mark(client, &mut satellites, None).await?;
    Ok(satellites)
}

const COUNT: &str = "
    select counted.region, count(*) as total, count(*) filter (where is_online) as online,
           count(*) filter (where never_connected) as never_connected,
           count(*) filter (where flapping) as flapping,
           count(*) filter (where in_maintenance) as in_maintenance
      from (select s.region, s.flapping, {online} as is_online, {never_connected} as never_connected,
                   {in_maintenance} as in_maintenance
              from satellites_now s where {selected}) counted
     group by counted.region";

/// Counts those that pass the filter, by region, in one statement.
pub async fn count(
    client: &impl GenericClient,
    filter: &ListFilter,
    default: Duration,
) -> Result<Vec<RegionCounts>, tokio_postgres::Error> {
    let selected = Selected::new(filter, default);
    let in_maintenance = maintenance::condition("statement_timestamp()");
    let count = with_filters(COUNT).replace("{in_maintenance}", &in_maintenance);
    let rows = client.query(&count, &selected.parameters()).await?;
    rows.iter()
        .map(|row| {
            let (total, online) = (row.try_get("total")?, row.try_get("online")?);
            let counts = Counts {
                total,
                online,
                offline: total - online,
                never_connected: row.try_get("never_connected")?,
                flapping: row.try_get("flapping")?,
                in_maintenance: row.try_get("in_maintenance")?,
            };
            Ok(RegionCounts { region: row.try_get("region")?, counts })
        })
        .collect()
}

fn from_row(row: &Row, default: Duration) -> Result<SatelliteJson, tokio_postgres::Error> {
    let own = row.try_get("offline_threshold_ms")?;
    let heartbeat: Option<OffsetDateTime> = row.try_get("last_heartbeat_at")?;
    let heard: Option<OffsetDateTime> = row.try_get("heard_at")?;
    let Json(tags) = row.try_get("tags")?;
    // A tombstone's is not told: the id was registered again and has not connected since.
    let last_event = row.try_get::<_, Option<Word<Event>>>("last_event")?;
    // Who was given up stays so until heard again.
    let counts =
        heard.filter(|_| last_event.as_ref().is_some_and(|event| *event == Event::Connected));
    let watermark = watermark::from_row(row, default)?;
    let threshold = liveness::threshold(own, default);
    let status = liveness::status(counts, watermark.observed_at, threshold, &watermark);
    Ok(SatelliteJson {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        region: row.try_get("region")?,
        tags,
        capabilities: row.try_get("capabilities")?,
        version: row.try_get("version")?,
        status: status.into(),
        last_heartbeat_at: heartbeat.map(Timestamp::new),
        last_seen_at: heartbeat.map(Timestamp::new),
        last_event: last_event.filter(|event| *event != Event::Removed),
        flapping: row.try_get("flapping")?,
        disabled: row.try_get("disabled")?,
        maintenance: None,
        offline_threshold_ms: own,
        created_at: Timestamp::new(row.try_get("created_at")?),
        imported: imported(row)?,
    })
}

/// What another system last knew of it, if it was copied from there.
fn imported(row: &Row) -> Result<Option<ImportedJson>, tokio_postgres::Error> {
    let Some(imported_at) = row.try_get::<_, Option<_>>("imported_at")? else { return Ok(None) };
    let heartbeat: Option<_> = row.try_get("imported_heartbeat")?;
    Ok(Some(ImportedJson {
        last_event: row.try_get("imported_event")?,
        last_heartbeat_at: heartbeat.map(Timestamp::new),
        imported_at: Timestamp::new(imported_at),
    }))
}

const CREDENTIALS: &str = "
    select s.id, s.name, s.token_hash, s.token_version, coalesce(s.disabled, false) as disabled,
           p.token_hash as previous_hash, coalesce(c.session, 0) as session
      from satellites s
      left join previous_tokens p on p.satellite_id = s.id and p.token_version = s.token_version - 1
                                 and p.ends_at > clock_timestamp()
      left join satellite_connections c on c.satellite_id = s.id
     where s.id = any($1)";

/// What is known of a satellite when it asks to be let in.
#[derive(Clone)]
pub struct Credential {
    /// Its name.
    pub name: String,
    token: StoredToken,
    /// The token before it, while that is valid too.
    previous: Option<StoredToken>,
    /// It is not let in, whatever its token.
    pub is_disabled: bool,
    /// Its newest session: how often it has connected, at whichever pod.
    pub session: Session,
}

/// A token that is valid.
#[derive(Clone)]
pub struct StoredToken {
    /// Its digest, for [`crate::registry::credentials`] and nothing else.
    pub digest: SecretString,
    /// The number of the token.
    pub version: i64,
}

impl StoredToken {
    /// Whether it takes long to compare.
    pub fn is_slow(&self) -> bool {
        token::is_bcrypt(self.digest.expose_secret())
    }
}

impl Credential {
    /// The tokens that are valid.
    pub fn tokens(&self) -> [Option<&StoredToken>; 2] {
        [Some(&self.token), self.previous.as_ref()]
    }

    fn from_row(row: &Row) -> Result<Credential, tokio_postgres::Error> {
        let version: i64 = row.try_get("token_version")?;
        let token = StoredToken { digest: row.try_get::<_, String>("token_hash")?.into(), version };
        let previous: Option<String> = row.try_get("previous_hash")?;
        let previous =
            previous.map(|digest| StoredToken { digest: digest.into(), version: version - 1 });
        let (is_disabled, session) = (row.try_get("disabled")?, row.try_get("session")?);
        Ok(Credential { name: row.try_get("name")?, token, previous, is_disabled, session })
    }
}

impl Read for Credential {
    async fn read(
        client: &Object,
        satellites: &[SatelliteId],
    ) -> anyhow::Result<Vec<(SatelliteId, Credential)>> {
        let ids: Vec<Uuid> = satellites.iter().map(|id| id.0).collect();
        let statement = client.prepare_cached(CREDENTIALS).await?;
        let rows = client.query(&statement, &[&ids]).await?;
        rows.iter().map(|row| Ok((row.try_get("id")?, Credential::from_row(row)?))).collect()
    }
}

/// The token may have become the one before meanwhile.
const REPLACE_DIGEST: [&str; 2] = [
    "update satellites set token_hash = $3 where id = $1 and token_hash = $2",
    "update previous_tokens set token_hash = $3 where satellite_id = $1 and token_hash = $2",
];

/// Stores the same token in another form; false where it is not stored any more.
pub async fn replace_digest(
    client: &impl GenericClient,
    id: SatelliteId,
    stored: &str,
    digest: &token::Digest,
) -> Result<bool, tokio_postgres::Error> {
    for statement in REPLACE_DIGEST {
        if client.execute(statement, &[&id, &stored, &digest.to_stored()]).await? == 1 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What an agent says of itself, and what it was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentInfo {
    /// The agent's version.
    pub version: Option<String>,
    /// What it can do.
    pub capabilities: Option<Vec<String>>,
    /// The version of the assignments that it was sent.
    pub sent_version: Option<i64>,
}

impl AgentInfo {
    /// What is newer of both, each by itself.
    pub fn after(self, before: AgentInfo) -> AgentInfo {
        AgentInfo {
            version: self.version.or(before.version),
            capabilities: self.capabilities.or(before.capabilities),
            // An older session may be written after the present one.
            sent_version: self.sent_version.max(before.sent_version),
        }
    }
}

/// Only rows that say something else are locked, and once locked they are looked at again: a fleet that
/// comes back saying what it said before costs no write. Waits for no row; returns those it was not given.
const DESCRIBE: &str = "
    with said as (
        select a.id, a.version, a.sent_version,
               case when a.capabilities is not null
                    then array(select jsonb_array_elements_text(a.capabilities)) end as capabilities
          from unnest($1::uuid[], $2::text[], $3::jsonb[], $4::bigint[])
               as a (id, version, capabilities, sent_version)
    ), news as (
        select s.id, a.version, a.capabilities, a.sent_version
          from satellites s join said a using (id)
         where (coalesce(a.version, s.version), coalesce(a.capabilities, s.capabilities),
                greatest(a.sent_version, s.sent_version))
               is distinct from (s.version, s.capabilities, s.sent_version)
         order by s.id
           for no key update of s skip locked
    ), kept as (
        update satellites s
           set version = coalesce(n.version, s.version),
               capabilities = coalesce(n.capabilities, s.capabilities),
               sent_version = greatest(n.sent_version, s.sent_version)
          from news n
         where s.id = n.id
    )
    select s.id
      from satellites s join said a using (id)
     where (coalesce(a.version, s.version), coalesce(a.capabilities, s.capabilities),
            greatest(a.sent_version, s.sent_version))
           is distinct from (s.version, s.capabilities, s.sent_version)
       and not exists (select from news n where n.id = s.id)";

/// Keeps what agents say of themselves; rows that say so already are not touched. Returns those that
/// somebody else has locked, of whom nothing was kept.
pub async fn describe(
    client: &impl GenericClient,
    news: &[(SatelliteId, AgentInfo)],
) -> Result<HashSet<SatelliteId>, tokio_postgres::Error> {
    let ids: Vec<Uuid> = news.iter().map(|(id, _)| id.0).collect();
    let versions: Vec<Option<&str>> = news.iter().map(|(_, a)| a.version.as_deref()).collect();
    let capabilities: Vec<_> =
        news.iter().map(|(_, a)| a.capabilities.as_ref().map(Json)).collect();
    let sent: Vec<Option<i64>> = news.iter().map(|(_, a)| a.sent_version).collect();
    let statement = client.prepare_cached(DESCRIBE).await?;
    let rows = client.query(&statement, &[&ids, &versions, &capabilities, &sent]).await?;
    rows.iter().map(|row| row.try_get("id")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(name: &str) -> NewSatellite {
        NewSatellite {
            name: name.to_owned(),
            region: "eu".to_owned(),
            tags: BTreeMap::new(),
            offline_threshold_ms: None,
        }
    }

    #[test]
    fn each_limit_is_named_with_its_field() {
        let tag = |name: &str, value: &str| {
            let tags = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            NewSatellite { tags, ..new("a") }
        };
        let many = (0..=MAX_TAGS).map(|n| (n.to_string(), String::new())).collect();
        let cases = [
            (new(""), Some("name")),
            (new("  "), Some("name")),
            (new(&"x".repeat(201)), Some("name")),
            (new("a\nb"), Some("name")),
            (new(&"ü".repeat(200)), None),
            (NewSatellite { region: String::new(), ..new("a") }, Some("region")),
            (tag("", "x"), Some("tags.")),
            (tag("k:v", "x"), Some("tags.k:v")),
            (tag("k", &"x".repeat(201)), Some("tags.k")),
            (tag("k", "v"), None),
            (tag("k", "a\u{202e}b"), Some("tags.k")),
            (tag("k\u{200b}", "v"), Some("tags.k\u{fffd}")),
            (tag("k", "a\u{200d}b"), None),
            (new("a\u{2069}b"), Some("name")),
            (NewSatellite { tags: many, ..new("a") }, Some("tags")),
            (
                NewSatellite { offline_threshold_ms: Some(0), ..new("a") },
                Some("offlineThresholdMs"),
            ),
            (NewSatellite { offline_threshold_ms: Some(1), ..new("a") }, None),
        ];
        for (new, field) in cases {
            let found = new.check().err().map(|invalid| invalid.field);
            assert_eq!(found.as_deref(), field, "{new:?}");
        }
    }

    #[test]
    fn tags_that_are_not_strings_are_refused_by_name() {
        let json = r#"{"name":"a","region":"eu","tags":{"rack":7}}"#;
        let error = serde_json::from_str::<NewSatellite>(json).expect_err("a number");
        assert!(error.to_string().contains("expected a string"), "{error}");
    }
}
