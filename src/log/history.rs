//! Questions about the past: the state of one satellite or of the fleet as of a position or a
//! moment, since when a satellite is as it is, and for how long it was up.
//!
//! As-of is the fold of the log up to a position. A moment maps to one position, because time never
//! goes back along positions, so the same question has the same answer for ever. The future is
//! refused; a time before the first transition gives an empty fleet; what retention has dropped is
//! said to be gone instead of guessed.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use serde::Serialize;
use serde_json::Value;
use strum::{EnumIter, EnumString, IntoStaticStr};
use thiserror::Error;
use time::OffsetDateTime;
use tokio_postgres::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::contract::fleet::RunState;
use crate::contract::wire::{SatelliteJson, StateJson, Timestamp};
use crate::contract::word::Word;
use crate::domain::flapping;
use crate::domain::lifecycle::{Event, Position, SatelliteId};
use crate::domain::liveness::{self, Status};
use crate::log::read::Filter;
use crate::log::watermark;
use crate::log::{Entry, disabled_then, maintenance, partitions, past, read};

pub mod runs;

use runs::Window;

/// A place in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Right after this transition.
    Position(Position),
    /// At this moment.
    Moment(Timestamp),
}

/// Why a question about the past has no answer.
#[derive(Debug, Error)]
pub enum NoAnswer {
    /// It is not past yet.
    #[error("{0} has not happened yet")]
    Future(String),
    /// Retention has dropped it.
    #[error("history begins at position {0}: what was before has been dropped")]
    Dropped(i64),
    /// It breaks a limit, which this says.
    #[error("{0}")]
    Refused(String),
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] tokio_postgres::Error),
}

/// A resolved place in the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf {
    /// The newest transition that had happened; zero before the first.
    pub position: Position,
    /// The moment asked for, or the one at which that transition was recorded.
    pub moment: OffsetDateTime,
}

/// What is read at a place is whole only if it has not been dropped by then: asked after reading, since
/// what is dropped stays dropped.
pub(super) async fn still_there(client: &impl GenericClient, as_of: AsOf) -> Result<(), NoAnswer> {
    let horizon = partitions::horizon(client).await?;
    if as_of.position < horizon {
        return Err(NoAnswer::Dropped(horizon.0 + 1));
    }
    Ok(())
}

/// The same for a window that begins at `from`.
async fn begins_in_the_log(
    client: &impl GenericClient,
    from: OffsetDateTime,
) -> Result<(), NoAnswer> {
    if partitions::horizon_time(client).await?.is_some_and(|horizon| from <= horizon) {
        return Err(NoAnswer::Dropped(partitions::horizon(client).await?.0 + 1));
    }
    Ok(())
}

/// Finds the position a question is about.
pub async fn resolve(client: &impl GenericClient, at: At) -> Result<AsOf, NoAnswer> {
    let oldest = past::oldest(client).await?.unwrap_or(Position(1));
    match at {
        At::Position(position) => {
            if position > read::head(client).await? {
                return Err(NoAnswer::Future(format!("position {}", position.0)));
            }
            if position.0 < oldest.0 - 1 || (position == Position::ZERO && oldest.0 > 1) {
                return Err(NoAnswer::Dropped(oldest.0));
            }
            let entry = read::after(client, Position(position.0 - 1), 1).await?.pop();
            let entry = entry.filter(|entry| entry.position == position);
            let moment = match entry {
                Some(entry) => Some(entry.recorded_at),
                // At the horizon itself the row is gone, and what it came to is not.
                None => partitions::horizon_time(client).await?,
            };
            let moment = moment.unwrap_or(OffsetDateTime::UNIX_EPOCH);
            Ok(AsOf { position, moment })
        }
        At::Moment(moment) => {
            // Something may still be recorded in the millisecond that goes on.
            let now = "select date_trunc('milliseconds', clock_timestamp())";
            let row = client.query_one(now, &[]).await?;
            if moment.moment() >= row.try_get::<_, OffsetDateTime>(0)? {
                return Err(NoAnswer::Future(moment.to_string()));
            }
            // An append under way may have taken an earlier time: it is waited for.
            past::settle(client).await?;
            let position = match past::position_at(client, moment.moment()).await? {
                Some(position) => position,
                None if oldest.0 > 1 => return Err(NoAnswer::Dropped(oldest.0)),
                None => Position::ZERO,
            };
            Ok(AsOf { position, moment: moment.moment() })
        }
    }
}

/// One satellite's state then; none before its first transition and after its removal.
pub async fn state(
    client: &impl GenericClient,
    satellite: SatelliteId,
    as_of: AsOf,
) -> Result<Option<StateJson>, NoAnswer> {
    let last = past::last_of(client, as_of.position, satellite).await?;
    still_there(client, as_of).await?;
    Ok(last.and_then(|entry| entry.next))
}

/// A page of the fleet then, by id, `skip` of them behind a place; and the id after which the next page begins, if
/// there is one.
pub async fn fleet(
    client: &impl GenericClient,
    as_of: AsOf,
    after: Uuid,
    skip: i64,
    limit: i64,
) -> Result<(Vec<SatelliteJson>, Option<Uuid>), NoAnswer> {
    let entries = past::last_of_each(client, as_of.position, after, skip, limit).await?;
    let next = entries.last().filter(|_| entries.len() as i64 >= limit).map(|e| e.satellite.0);
    let ids: Vec<Uuid> = entries.iter().map(|entry| entry.satellite.0).collect();
    let records = registered(client, &ids, as_of).await?;
    let mut satellites: Vec<SatelliteJson> = entries
        .into_iter()
        .filter_map(|entry| {
            let record = records.iter().find(|record| record.id == entry.satellite.0);
            satellite_then(entry, record, as_of)
        })
        .collect();
    disabled_then::mark(client, &mut satellites, (as_of.position, as_of.moment)).await?;
    maintenance::mark(client, &mut satellites, Some(as_of.moment)).await?;
    still_there(client, as_of).await?;
    Ok((satellites, next))
}

/// A satellite as the registry knew it then.
pub(super) struct Record {
    pub(super) id: Uuid,
    pub(super) created_at: OffsetDateTime,
    pub(super) after: Value,
}

const REGISTERED: &str = "
    select distinct on (r.satellite_id) r.satellite_id, r.after,
           (select min(c.changed_at) from registry_changes c
             where c.satellite_id = r.satellite_id and c.action = 'created') as created_at
      from registry_changes r
     where r.satellite_id = any($1) and r.action in ('created', 'updated')
       and r.position <= $2 and r.changed_at <= $3
     order by r.satellite_id, r.change desc";

async fn registered(
    client: &impl GenericClient,
    ids: &[Uuid],
    as_of: AsOf,
) -> Result<Vec<Record>, tokio_postgres::Error> {
    let rows = client.query(REGISTERED, &[&ids, &as_of.position, &as_of.moment]).await?;
    rows.iter()
        .map(|row| {
            let Json(after) = row.try_get("after")?;
            let (id, created_at) = (row.try_get("satellite_id")?, row.try_get("created_at")?);
            Ok(Record { id, created_at, after })
        })
        .collect()
}

/// What agents say of themselves (version, capabilities) has no history and is left out. Whether it was disabled is for
/// [`disabled_then::mark`] to say.
pub(super) fn satellite_then(
    entry: Entry,
    record: Option<&Record>,
    as_of: AsOf,
) -> Option<SatelliteJson> {
    let state = entry.next?;
    let after = record.map(|record| &record.after);
    let text = |field: &str, otherwise: &str| {
        let value = after.and_then(|after| after[field].as_str());
        value.unwrap_or(otherwise).to_owned()
    };
    let tags = after.and_then(|after| serde_json::from_value(after["tags"].clone()).ok());
    let marked_until = state.flapping_until.map(Timestamp::moment);
    Some(SatelliteJson {
        id: entry.satellite.0,
        name: text("name", &state.name),
        region: text("region", &state.region),
        tags: tags.unwrap_or_default(),
        capabilities: Vec::new(),
        version: None,
        status: state.status,
        last_heartbeat_at: state.last_seen_at,
        last_seen_at: state.last_seen_at,
        last_event: state.last_event,
        flapping: flapping::is_marked(marked_until, as_of.moment),
        disabled: false,
        maintenance: None,
        offline_threshold_ms: after.and_then(|after| after["offlineThresholdMs"].as_i64()),
        created_at: Timestamp::new(record.map_or(entry.occurred_at, |record| record.created_at)),
        imported: None,
    })
}

/// A field of a satellite's state that can be asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "camelCase")]
pub enum Field {
    /// `status`
    Status,
    /// `lastEvent`
    LastEvent,
    /// `name`
    Name,
    /// `region`
    Region,
}

impl Field {
    /// The field's name in JSON.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    fn of(self, state: Option<&StateJson>) -> Option<String> {
        let state = state?;
        match self {
            Field::Status => Some(state.status.to_string()),
            Field::LastEvent => state.last_event.as_ref().map(Word::to_string),
            Field::Name => Some(state.name.clone()),
            Field::Region => Some(state.region.clone()),
        }
    }
}

/// Answers about one satellite over a window that ends now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// The field asked about.
    pub field: &'static str,
    /// Its present value; null while the satellite has no state.
    pub value: Option<String>,
    /// Since when it has that value.
    pub in_state_since: Option<Timestamp>,
    /// For how long, in milliseconds.
    pub in_state_for_ms: Option<i64>,
    /// How often it changed within the window.
    pub transition_count: u64,
    /// When the window begins.
    pub from: Timestamp,
    /// When it ends: now, by the database's clock.
    pub to: Timestamp,
    /// Milliseconds of the window in which the satellite was online.
    pub up_ms: i64,
    /// In which it was offline.
    pub down_ms: i64,
    /// Of which nothing is known: before its first transition, after its removal, and while nobody
    /// could observe.
    pub unknown_ms: i64,
    /// In which it was in maintenance, whatever else: such time is in none of the others.
    pub maintenance_ms: i64,
}

/// The transitions one answer looks at, at most: a satellite that has more in its window flaps
/// more than once a second for a day.
pub(super) const MAX_TRANSITIONS: usize = 100_000;

/// How satellites stand now, those that are not there included.
pub(super) const PRESENT: &str = "
    select asked.id, clock_timestamp() as now, c.last_event, s.offline_threshold_ms,
           heard_at(c.last_heartbeat_at, c.vouched, p.seen_at) as heard_at,
           status_as_of(watermark.observed_at, p.seen_at) as observed_at, watermark.judged_at, watermark.resumed_at
      from watermark cross join unnest($1::uuid[]) asked (id)
      left join satellites s on s.id = asked.id
      left join satellite_connections c on c.satellite_id = asked.id
      left join pods p on p.number = c.pod";

/// Answers for one satellite, or `None` where there is none and never was.
pub async fn stats(
    client: &impl GenericClient,
    satellite: SatelliteId,
    field: Field,
    window: Duration,
    default_threshold: Duration,
) -> Result<Option<Stats>, NoAnswer> {
    let row = client.query_one(PRESENT, &[&vec![satellite.0]]).await?;
    let now = Timestamp::new(row.try_get("now")?).moment();
    let from = now - window;
    // Before anything is read for nothing.
    begins_in_the_log(client, from).await?;
    let since = Filter {
        satellite: Some(satellite),
        since: Some(Timestamp::new(from)),
        ..Filter::default()
    };
    let mut within = Vec::new();
    let mut after = Position::ZERO;
    loop {
        let page = read::filtered(client, after, read::MAX_LIMIT, &since).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        within.extend(page);
        if within.len() >= MAX_TRANSITIONS {
            break;
        }
    }
    let head = read::head(client).await?;
    let newest = past::last_of(client, head, satellite).await?;
    let Some(newest) = newest else {
        return Ok(None);
    };
    let first = within.first().map_or(head.next(), |entry| entry.position);
    let before = past::last_of(client, Position(first.0 - 1), satellite).await?;
    let changed = past::last_change(client, satellite, field.as_str()).await?;
    let lapsed = lapsed(&row, default_threshold)?;
    let blind = watermark::blind_spans(client, from, now, default_threshold).await?;
    let mut planned = maintenance::during(client, &[satellite.0], from, now).await?;
    let maintenance = planned.remove(&satellite.0).unwrap_or_default();
    // And after: what was dropped meanwhile may be missing.
    begins_in_the_log(client, from).await?;
    Ok(Some(answer(&Known {
        field,
        from,
        now,
        before,
        within,
        newest,
        changed,
        lapsed,
        maintenance,
        blind,
    })))
}

/// Since when a satellite whose last edge is `connected` has been offline all the same, because
/// its heartbeat is too old and nobody has declared it lost yet.
pub(super) fn lapsed(
    row: &tokio_postgres::Row,
    default_threshold: Duration,
) -> Result<Option<OffsetDateTime>, tokio_postgres::Error> {
    let last_event: Option<Word<Event>> = row.try_get("last_event")?;
    let heard: Option<OffsetDateTime> = row.try_get("heard_at")?;
    let threshold = liveness::threshold(row.try_get("offline_threshold_ms")?, default_threshold);
    let watermark = watermark::from_row(row, default_threshold)?;
    let is_late = last_event.is_some_and(|event| event == Event::Connected)
        && liveness::status(heard, watermark.observed_at, threshold, &watermark) == Status::Offline;
    let until = heard.map(|heard| liveness::online_until(heard, threshold, &watermark));
    Ok(until.filter(|_| is_late))
}

/// What an answer is made from.
struct Known {
    field: Field,
    from: OffsetDateTime,
    now: OffsetDateTime,
    /// The last transition before the window.
    before: Option<Entry>,
    /// Those within it.
    within: Vec<Entry>,
    newest: Entry,
    /// The newest one that changed the field.
    changed: Option<Entry>,
    /// See [`lapsed`].
    lapsed: Option<OffsetDateTime>,
    /// Within the window, when it was in maintenance; oldest first, not overlapping.
    maintenance: Vec<(OffsetDateTime, OffsetDateTime)>,
    /// Likewise, when nobody observed.
    blind: Vec<(OffsetDateTime, OffsetDateTime)>,
}

/// Pure: everything is in `known`.
fn answer(known: &Known) -> Stats {
    let milliseconds = |span: time::Duration| i64::try_from(span.whole_milliseconds()).unwrap_or(0);
    let mut value = known.field.of(known.newest.next.as_ref());
    let mut since = known.changed.as_ref().map(|entry| entry.occurred_at);
    if let (Field::Status, Some(lapsed)) = (known.field, known.lapsed) {
        value = Some(Status::Offline.as_str().to_owned());
        since = Some(lapsed);
    }
    let changes = known
        .within
        .iter()
        .filter(|entry| known.field.of(entry.prev.as_ref()) != known.field.of(entry.next.as_ref()));

    let window = Window {
        from: known.from,
        to: known.now,
        before: known.before.as_ref(),
        within: &known.within,
        lapsed: known.lapsed,
        maintenance: &known.maintenance,
        blind: &known.blind,
    };
    let runs = runs::runs(&window);
    let time_in = |state: RunState| {
        let runs = runs.iter().filter(|run| run.state == state);
        runs.map(|run| milliseconds(run.to - run.from)).sum()
    };

    Stats {
        field: known.field.as_str(),
        in_state_since: value.as_ref().and(since).map(Timestamp::new),
        in_state_for_ms: value.as_ref().and(since).map(|since| milliseconds(known.now - since)),
        value,
        transition_count: changes.count() as u64,
        from: Timestamp::new(known.from),
        to: Timestamp::new(known.now),
        up_ms: time_in(RunState::Up),
        down_ms: time_in(RunState::Down),
        unknown_ms: time_in(RunState::Unknown),
        maintenance_ms: time_in(RunState::Maintenance),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::wire::Actor;
    use crate::domain::lifecycle::{Revision, Session};
    use crate::domain::marks::Marks;
    use crate::log::ChangeId;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);
    const HOUR: time::Duration = time::Duration::HOUR;

    fn state(status: Status, last_event: Event) -> StateJson {
        StateJson {
            status: status.into(),
            name: "edge".to_owned(),
            region: "eu".to_owned(),
            last_seen_at: None,
            last_event: Some(last_event.into()),
            flapping: false,
            flapping_until: None,
        }
    }

    fn here() -> Option<StateJson> {
        Some(state(Status::Online, Event::Connected))
    }

    fn gone() -> Option<StateJson> {
        Some(state(Status::Offline, Event::Disconnected))
    }

    fn entry(hours_ago: i32, prev: Option<StateJson>, next: Option<StateJson>) -> Entry {
        let at = NOW - HOUR * hours_ago;
        Entry {
            position: Position(1),
            revision: Revision(1),
            change: ChangeId(Uuid::nil()),
            satellite: SatelliteId(Uuid::nil()),
            event: Word::Unknown(String::new()),
            reason: Word::Unknown(String::new()),
            session: Session(1),
            prev,
            next,
            actor: Actor::system(),
            traceparent: None,
            marks: Marks::default(),
            occurred_at: at,
            recorded_at: at,
        }
    }

    fn ask(before: Option<Entry>, within: Vec<Entry>, lapsed: Option<OffsetDateTime>) -> Stats {
        ask_with(before, within, lapsed, Vec::new(), Vec::new())
    }

    /// The answer about the status over the last ten hours.
    fn ask_with(
        before: Option<Entry>,
        within: Vec<Entry>,
        lapsed: Option<OffsetDateTime>,
        maintenance: Vec<(OffsetDateTime, OffsetDateTime)>,
        blind: Vec<(OffsetDateTime, OffsetDateTime)>,
    ) -> Stats {
        let all: Vec<Entry> = before.iter().chain(&within).cloned().collect();
        let newest = all.last().cloned().expect("a transition");
        let changed = all
            .iter()
            .rev()
            .find(|e| Field::Status.of(e.prev.as_ref()) != Field::Status.of(e.next.as_ref()));
        let changed = changed.cloned();
        let (field, from) = (Field::Status, NOW - HOUR * 10);
        answer(&Known {
            field,
            from,
            now: NOW,
            before,
            within,
            newest,
            changed,
            lapsed,
            maintenance,
            blind,
        })
    }

    #[test]
    fn time_up_down_and_unknown_adds_up_to_the_window() {
        let hour = 3_600_000;
        let first = entry(8, None, here());
        let left = entry(5, here(), gone());
        let back = entry(1, gone(), here());
        let cases = [
            // first seen eight hours ago, gone from five hours ago to one hour ago
            (ask(None, vec![first.clone(), left.clone(), back], None), (4, 4, 2), 3, 1),
            // in its state since before the window
            (ask(Some(entry(20, None, here())), vec![], None), (10, 0, 0), 0, 20),
            // connected, but silent for three hours and not declared lost yet
            (ask(None, vec![first.clone()], Some(NOW - HOUR * 3)), (5, 3, 2), 1, 3),
            // removed: nothing is known of it since
            (ask(None, vec![first, left, entry(4, gone(), None)], None), (3, 1, 6), 3, 4),
        ];
        for (n, (stats, (up, down, unknown), count, hours)) in cases.into_iter().enumerate() {
            let found = (stats.up_ms / hour, stats.down_ms / hour, stats.unknown_ms / hour);
            assert_eq!(found, (up, down, unknown), "case {n}");
            assert_eq!(stats.up_ms + stats.down_ms + stats.unknown_ms, 10 * hour, "case {n}");
            assert_eq!(stats.transition_count, count, "case {n}");
            if stats.value.is_some() {
                assert_eq!(stats.in_state_for_ms, Some(hours * hour), "case {n}");
            }
        }
    }

    #[test]
    fn time_in_which_nobody_observed_is_unknown_whatever_the_state() {
        let at = |hours: i32| NOW - HOUR * hours;
        // before it was known at all, across its coming, and across its leaving
        let blind = vec![(at(10), at(9)), (at(7), at(5)), (at(3), at(1))];
        let within = vec![entry(8, None, here()), entry(2, here(), gone())];
        let stats = ask_with(None, within.clone(), None, Vec::new(), blind.clone());
        let hour = 3_600_000;
        assert_eq!((stats.up_ms / hour, stats.down_ms / hour), (3, 1));
        assert_eq!(stats.unknown_ms / hour, 6);

        // Planned time is in none of the others, observed or not.
        let planned = vec![(at(12), at(8) + HOUR / 2), (at(4), at(2) + HOUR / 2)];
        let stats = ask_with(None, within, None, planned, blind);
        assert_eq!((stats.up_ms / (hour / 2), stats.down_ms / hour), (3, 1));
        assert_eq!(stats.maintenance_ms / (hour / 2), 10);
        let all = stats.up_ms + stats.down_ms + stats.unknown_ms + stats.maintenance_ms;
        assert_eq!(all, 10 * hour);
    }

    #[test]
    fn an_undeclared_loss_is_the_present_value() {
        let stats = ask(None, vec![entry(8, None, here())], Some(NOW - HOUR));
        assert_eq!(stats.value.as_deref(), Some("offline"));
        assert_eq!(stats.in_state_since, Some(Timestamp::new(NOW - HOUR)));
    }

    #[test]
    fn a_removed_satellite_is_in_no_state() {
        let stats = ask(None, vec![entry(8, None, here()), entry(4, here(), None)], None);
        assert_eq!((stats.value, stats.in_state_since), (None, None));
    }
}
