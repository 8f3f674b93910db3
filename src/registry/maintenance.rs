//! Maintenance windows: planned, listed and ended.
//!
//! Writes the table `maintenance_windows`; [`crate::log::maintenance`] says who is in maintenance when. A window is never
//! changed but that it is ended: it begins with its planning at the earliest, so nothing that happened is marked later.
//! Windows are planned one after another, under a lock, so that their limit holds.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use tokio_postgres::types::{Json, ToSql};
use tokio_postgres::{Error, Row, Transaction};
use utoipa::ToSchema;
use uuid::Uuid;

use super::satellites::{Invalid, check_text, invalid, seen};
use super::selector;
use crate::contract::audit::AuditAction;
use crate::contract::maintenance::{MaintenanceSelectorJson, WindowJson, WindowState, WindowsJson};
use crate::contract::wire::{Actor, Timestamp};
use crate::domain::access::Selector;
use crate::log::audit::{self, Author, Entry};
use crate::log::within;

/// The most windows that are planned or go on. Each is held against each satellite that is counted while it goes on.
pub const MAX_WINDOWS: i64 = 100;

/// The longest a window lasts.
const MAX_LENGTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How far ahead one may begin.
const MAX_AHEAD: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The most satellites that one names by their ids.
const MAX_IDS: usize = 1_000;

/// The most windows on a page.
pub const MAX_LIMIT: i64 = 1_000;

/// A window to be planned.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[schema(as = NewMaintenanceWindow)]
pub struct NewWindow {
    /// Which satellites it is for; without it the whole fleet. One that names nothing is refused.
    #[serde(default)]
    #[schema(value_type = Option<MaintenanceSelectorJson>)]
    selector: Option<Map<String, Value>>,
    /// When it begins, at most 366 days from now; now, where that is past or nothing is said.
    #[serde(default)]
    from: Option<Timestamp>,
    /// When it ends: at most 30 days after its begin.
    to: Timestamp,
    /// Why: 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    reason: String,
}

/// Which satellites a window is for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Selected {
    ids: Option<Vec<Uuid>>,
    by_description: Selector,
}

/// What has passed [`NewWindow::check`].
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    selected: Selected,
    from: Option<Timestamp>,
    to: Timestamp,
    reason: String,
}

impl NewWindow {
    /// Checks every limit that needs no clock and no other row; the error names the field.
    pub fn check(self) -> Result<Checked, Invalid> {
        let selected = self.selector.map(selected).transpose()?.unwrap_or_default();
        selector::check_limits(&selected.by_description)?;
        // A reason is a word like a satellite's name.
        check_text("reason", &self.reason)?;
        seen(("reason".to_owned(), &self.reason))?;
        if let Some(from) = self.from {
            length(from.moment(), self.to.moment())?;
        }
        Ok(Checked { selected, from: self.from, to: self.to, reason: self.reason })
    }
}

impl Checked {
    /// What it says of satellites by their descriptions; none where it names them.
    pub fn selector(&self) -> Option<&Selector> {
        self.selected.ids.is_none().then_some(&self.selected.by_description)
    }
}

/// One that names nothing would select more than was meant.
fn selected(named: Map<String, Value>) -> Result<Selected, Invalid> {
    selector::check_names(&named, &["ids", "region"], "tags")?;
    let selector: MaintenanceSelectorJson =
        serde_json::from_value(Value::Object(named)).map_err(|_| {
            let rule = "must be {\"ids\": [id, …]} or {\"region\": text, \"tags\": {name: text}}";
            invalid("selector", rule)
        })?;
    let MaintenanceSelectorJson { ids, region, tags } = selector;
    let by_description = Selector { region, tags };
    let Some(ids) = ids else {
        return match by_description.is_bounded() {
            true => Ok(Selected { ids: None, by_description }),
            false => Err(invalid(
                "selector",
                "must name ids, a region or tags; leave it out for the whole fleet",
            )),
        };
    };
    if by_description.is_bounded() {
        return Err(invalid("selector.ids", "must be alone: they go with no region and no tags"));
    }
    let ids: BTreeSet<Uuid> = ids.into_iter().collect();
    if !(1..=MAX_IDS).contains(&ids.len()) {
        return Err(invalid("selector.ids", format!("must be 1 to {MAX_IDS} satellites")));
    }
    Ok(Selected { ids: Some(ids.into_iter().collect()), by_description })
}

fn length(from: OffsetDateTime, to: OffsetDateTime) -> Result<(), Invalid> {
    if to <= from {
        return Err(invalid("to", "must be after from, and in the future"));
    }
    let days = MAX_LENGTH.as_secs() / (24 * 60 * 60);
    (to - from <= MAX_LENGTH)
        .then_some(())
        .ok_or_else(|| invalid("to", format!("must be at most {days} days after from")))
}

/// What the planning of a window came to.
pub enum Planned {
    /// It is planned.
    As(Box<WindowJson>),
    /// It breaks a limit.
    Invalid(Invalid),
    /// This satellite is not there, or not within reach.
    NoSatellite(Uuid),
    /// There are as many as there may be.
    TooMany,
}

/// Held past the commit.
const LOCK: &str =
    "select pg_advisory_xact_lock(hashtextextended('groundstation: maintenance', 0))";

/// In a statement after the one that waited for the lock.
const LOOK: &str = "
    select count(*) >= $1 as is_full, date_trunc('milliseconds', clock_timestamp()) as now
      from maintenance_windows where ends_at > clock_timestamp()";

const CREATE: &str = "
    insert into maintenance_windows
           (id, ids, region, tags, begins_at, planned_end, reason, created_by_type, created_by_id)
    values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
    returning {shown}";

/// What is read of a window `w`.
const SHOWN: &str = "
    id, ids, region, tags, begins_at, planned_end, ended_at, reason, created_at, created_by_type, created_by_id,
    case when ends_at <= clock_timestamp() then 'over' when begins_at <= clock_timestamp() then 'open'
         else 'planned' end as state";

/// Plans a window. Those that it names by their ids have to be there, and within `reach`.
pub async fn plan(
    client: &mut Object,
    new: &Checked,
    reach: &Selector,
    author: &Author,
) -> Result<Planned, Error> {
    let transaction = client.transaction().await?;
    transaction.execute(LOCK, &[]).await?;
    let row = transaction.query_one(LOOK, &[&MAX_WINDOWS]).await?;
    let now: OffsetDateTime = row.try_get("now")?;
    let from = new.from.map_or(now, |from| from.moment().max(now));
    let to = new.to.moment();
    if let Err(invalid) = length(from, to) {
        return Ok(Planned::Invalid(invalid));
    }
    if from - now > MAX_AHEAD {
        let days = MAX_AHEAD.as_secs() / (24 * 60 * 60);
        let rule = format!("must be at most {days} days from now");
        return Ok(Planned::Invalid(invalid("from", rule)));
    }
    if let Some(ids) = &new.selected.ids
        && let Some(foreign) = foreign(&transaction, ids, reach).await?
    {
        return Ok(Planned::NoSatellite(foreign));
    }
    if row.try_get("is_full")? {
        return Ok(Planned::TooMany);
    }
    let Selector { region, tags } = &new.selected.by_description;
    let (tags, kind) = (Json(tags), author.actor.kind.as_str());
    let parameters: [&(dyn ToSql + Sync); 9] = [
        &Uuid::now_v7(),
        &new.selected.ids,
        region,
        &tags,
        &from,
        &to,
        &new.reason,
        &kind,
        &author.actor.id,
    ];
    let create = CREATE.replace("{shown}", SHOWN);
    let window = from_row(&transaction.query_one(&create, &parameters).await?)?;
    let entry = entry(author, AuditAction::MaintenancePlanned, window.id, None, told(&window));
    audit::append(&transaction, &[entry]).await?;
    transaction.commit().await?;
    Ok(Planned::As(Box::new(window)))
}

/// The first of these that is not there for somebody of this reach.
async fn foreign(
    transaction: &Transaction<'_>,
    ids: &[Uuid],
    reach: &Selector,
) -> Result<Option<Uuid>, Error> {
    let statement = format!(
        "select asked.id from unnest($1::uuid[]) asked (id)
          where not (exists (select from satellites s where s.id = asked.id) and {})
          order by asked.id limit 1",
        within::condition("asked.id", 2)
    );
    let row = transaction.query_opt(&statement, &[&ids, &within::bound(reach)]).await?;
    row.map(|row| row.try_get(0)).transpose()
}

/// What the audit keeps of a window.
fn told(window: &WindowJson) -> Value {
    let WindowJson { selector, from, to, reason, .. } = window;
    json!({"selector": selector, "from": from, "to": to, "reason": reason})
}

fn entry(
    author: &Author,
    action: AuditAction,
    id: Uuid,
    before: Option<Value>,
    after: Value,
) -> Entry {
    let target = audit::target("maintenance", id.to_string());
    Entry { author: author.clone(), action, target, before, after: Some(after) }
}

/// What the end of a window came to.
pub enum Ended {
    /// It has ended now.
    Now,
    /// It was over already.
    Before,
    /// It is for satellites, too, that are not within reach.
    Foreign,
    /// There is none, within reach.
    Unknown,
}

/// A window that this reach is told of: it can be for one of its satellites. `$2` is the bound.
fn is_told() -> String {
    format!(
        "($2::jsonb is null or case when w.ids is not null
              then exists (select from unnest(w.ids) named (id)
                            where exists (select from satellites s where s.id = named.id) and {})
              else (w.region is null or $2->>'region' is null or w.region = $2->>'region')
                   and not exists (select from jsonb_each_text(w.tags) t
                                    where ($2->'tags'->>t.key) <> t.value) end)",
        within::condition("named.id", 2)
    )
}

const FIND: &str = "
    select {shown}, w.ids is not null and exists (
               select from unnest(w.ids) named (id)
                where exists (select from satellites s where s.id = named.id) and not {inside}) as names_others
      from maintenance_windows w where w.id = $1 and {is_told}
       for no key update of w";

/// The database says when.
const END: &str =
    "update maintenance_windows set ended_at = clock_timestamp() where id = $1 returning ended_at";

/// Ends a window now; one that has not begun never does.
pub async fn end(
    client: &mut Object,
    id: Uuid,
    reach: &Selector,
    author: &Author,
) -> Result<Ended, Error> {
    let transaction = client.transaction().await?;
    let find = FIND
        .replace("{shown}", SHOWN)
        .replace("{inside}", &within::condition("named.id", 2))
        .replace("{is_told}", &is_told());
    let Some(row) = transaction.query_opt(&find, &[&id, &within::bound(reach)]).await? else {
        return Ok(Ended::Unknown);
    };
    let window = from_row(&row)?;
    let selector = selector_of(&row)?;
    let is_foreign = match window.selector.as_ref().and_then(|named| named.ids.as_ref()) {
        Some(_) => row.try_get("names_others")?,
        None => !reach.covers(&selector),
    };
    if is_foreign {
        return Ok(Ended::Foreign);
    }
    if window.state == WindowState::Over {
        return Ok(Ended::Before);
    }
    let ended_at = transaction.query_one(END, &[&id]).await?.try_get(0)?;
    let after = json!({"endedAt": Timestamp::new(ended_at)});
    let entry = entry(author, AuditAction::MaintenanceEnded, id, Some(told(&window)), after);
    audit::append(&transaction, &[entry]).await?;
    transaction.commit().await?;
    Ok(Ended::Now)
}

/// Which windows to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those that have got so far.
    pub state: Option<WindowState>,
    /// Only those that are for this satellite, by what the registry says of it now.
    pub satellite: Option<Uuid>,
    /// Only those that can be for a satellite within this.
    pub reach: Selector,
}

const LIST: &str = "
    select * from (select {shown}, ends_at from maintenance_windows w where {is_told}) w
     where ($3::text is null or w.state = $3)
       and ($4::uuid is null or exists (
               select from satellites s
                where s.id = $4 and is_selected(w.ids, w.region, w.tags, s.id, s.region, s.tags)))
       and ($5::uuid is null or (w.begins_at, w.id) < (
               select b.begins_at, b.id from maintenance_windows b where b.id = $5))
     order by w.begins_at desc, w.id desc
     limit $1";

/// A page of windows, the one that begins latest first, behind one of them; at most `limit` (bounded by [`MAX_LIMIT`]).
pub async fn list(
    client: &impl GenericClient,
    filter: &Filter,
    behind: Option<Uuid>,
    limit: i64,
) -> Result<WindowsJson, Error> {
    let limit = limit.clamp(1, MAX_LIMIT);
    let statement = LIST.replace("{shown}", SHOWN).replace("{is_told}", &is_told());
    let (more, bound) = (limit + 1, within::bound(&filter.reach));
    let state = filter.state.map(WindowState::as_str);
    let parameters: [&(dyn ToSql + Sync); 5] = [&more, &bound, &state, &filter.satellite, &behind];
    let rows = client.query(&statement, &parameters).await?;
    let mut windows = rows.iter().map(from_row).collect::<Result<Vec<_>, _>>()?;
    let has_more = windows.len() as i64 > limit;
    windows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next_cursor = windows.last().filter(|_| has_more).map(|last| last.id.to_string());
    if filter.reach.is_bounded() {
        hide_foreign(client, &mut windows, &filter.reach).await?;
    }
    Ok(WindowsJson { windows, next_cursor })
}

/// Somebody of this reach is told of no other satellite.
async fn hide_foreign(
    client: &impl GenericClient,
    windows: &mut [WindowJson],
    reach: &Selector,
) -> Result<(), Error> {
    let lists = windows.iter_mut().filter_map(|window| window.selector.as_mut()?.ids.as_mut());
    let mut lists: Vec<&mut Vec<Uuid>> = lists.collect();
    let named: BTreeSet<Uuid> = lists.iter().flat_map(|ids| ids.iter().copied()).collect();
    let named: Vec<Uuid> = named.into_iter().collect();
    let inside = within::among(client, &named, reach).await?;
    lists.iter_mut().for_each(|ids| ids.retain(|id| inside.contains(id)));
    Ok(())
}

fn selector_of(row: &Row) -> Result<Selector, Error> {
    let Json(tags): Json<BTreeMap<String, String>> = row.try_get("tags")?;
    Ok(Selector { region: row.try_get("region")?, tags })
}

fn from_row(row: &Row) -> Result<WindowJson, Error> {
    let ids: Option<Vec<Uuid>> = row.try_get("ids")?;
    let Selector { region, tags } = selector_of(row)?;
    let is_bounded = ids.is_some() || region.is_some() || !tags.is_empty();
    let ended_at: Option<OffsetDateTime> = row.try_get("ended_at")?;
    Ok(WindowJson {
        id: row.try_get("id")?,
        selector: is_bounded.then_some(MaintenanceSelectorJson { ids, region, tags }),
        from: Timestamp::new(row.try_get("begins_at")?),
        to: Timestamp::new(row.try_get("planned_end")?),
        reason: row.try_get("reason")?,
        state: row.try_get("state")?,
        ended_at: ended_at.map(Timestamp::new),
        created_at: Timestamp::new(row.try_get("created_at")?),
        created_by: Actor {
            kind: row.try_get("created_by_type")?,
            id: row.try_get("created_by_id")?,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: Value) -> Result<Checked, String> {
        let new: NewWindow = serde_json::from_value(json).expect("a window");
        new.check().map_err(|invalid| invalid.to_string())
    }

    fn of(selector: Value) -> Value {
        json!({"selector": selector, "to": "2026-03-01T12:00:00Z", "reason": "an upgrade"})
    }

    #[test]
    fn a_window_is_for_satellites_that_are_named_or_described_or_for_all() {
        let all = check(json!({"to": "2026-03-01T12:00:00Z", "reason": "a move"})).expect("all");
        assert_eq!(all.selector(), Some(&Selector::default()));
        let eu = check(of(json!({"region": "eu", "tags": {"tier": "gold"}}))).expect("some");
        assert_eq!(eu.selector().and_then(|eu| eu.region.as_deref()), Some("eu"));
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let named = check(of(json!({"ids": [two, one, two]}))).expect("named");
        assert_eq!(named.selector(), None);
        assert_eq!(named.selected.ids, Some(vec![one, two]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let long = "x".repeat(201);
        let many: Vec<Uuid> = (0..1_001).map(Uuid::from_u128).collect();
        let timed = |from: &str, to: &str| json!({"from": from, "to": to, "reason": "x"});
        let reason = |reason: &str| json!({"to": "2026-03-01T12:00:00Z", "reason": reason});
        for (json, words) in [
            (of(json!({})), "selector must name ids, a region or tags"),
            (of(json!({"ids": null})), "selector must name ids, a region or tags"),
            (of(json!({"id": 1})), "selector.id must be ids, region or tags"),
            (of(json!({"ids": ["x"]})), "selector must be {"),
            (of(json!({"ids": []})), "selector.ids must be 1 to 1000"),
            (of(json!({"ids": many})), "selector.ids must be 1 to 1000"),
            (of(json!({"ids": [Uuid::nil()], "region": "eu"})), "selector.ids must be alone"),
            (of(json!({"region": long})), "selector.region must have 1 to 200"),
            (of(json!({"tags": {"a:b": "c"}})), "selector.tags.a:b must have a name"),
            (reason(""), "reason must have 1 to 200"),
            (reason(&long), "reason must have 1 to 200"),
            (reason("a\u{202e}b"), "reason must not contain"),
            (timed("2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"), "to must be after from"),
            (timed("2026-03-01T12:00:00Z", "2026-03-31T12:00:00.001Z"), "to must be at most 30"),
        ] {
            let said = check(json.clone()).expect_err("refused");
            assert!(said.starts_with(words), "{json}: {said}");
        }
        let longest = timed("2026-03-01T12:00:00Z", "2026-03-31T12:00:00Z");
        assert!(check(longest).is_ok());
    }
}
