//! How many satellites were online over a while, from the log: `GET /v1/fleet/timeline`.
//!
//! The fleet at the window's begin is counted once; from there on the edges count, each from when it happened, by the
//! rule of [`runs`](super::history::runs). So the cost is one look at each satellite and one at each transition within
//! the window, and not the number of points. Where the present is near, the fleet at the begin is the present one
//! without what came since; else of each satellite its newest transition then is looked up.

use std::collections::HashMap;
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};
use futures_util::{StreamExt, TryStreamExt, pin_mut};
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, IsolationLevel, Row};
use uuid::Uuid;

use crate::contract::fleet::{Point, Timeline};
use crate::contract::wire::Timestamp;
use crate::domain::access::Selector;
use crate::domain::lifecycle::Event;
use crate::domain::liveness::Status;
use crate::log::history::NoAnswer;
use crate::log::window::{self, Reach, Window};
use crate::log::{partitions, read, watermark, within};

/// The most points of one answer.
pub const MAX_POINTS: i64 = 1_000;

/// To look a satellite up costs about as much as to read so many transitions: the present is near where no more than
/// this for each satellite lie between the window and it.
const NEAR: i64 = 4;

/// Whether a satellite counts, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counted {
    /// It has no state: before its first edge, or after its removal.
    Not,
    Online,
    Offline,
}

impl Counted {
    fn online(self) -> i64 {
        i64::from(self == Counted::Online)
    }

    fn offline(self) -> i64 {
        i64::from(self == Counted::Offline)
    }
}

/// One transition, as far as it counts.
#[derive(Debug, Clone, Copy)]
struct Change {
    satellite: Uuid,
    at: OffsetDateTime,
    before: Counted,
    after: Counted,
}

/// The moments that are asked for.
#[derive(Debug, Clone, Copy)]
pub struct Points {
    /// The first.
    pub from: OffsetDateTime,
    /// None is later.
    pub to: OffsetDateTime,
    /// From one to the next.
    pub step: Duration,
}

impl Points {
    /// How many there are.
    pub fn count(&self) -> i64 {
        self.before(self.to) + 1
    }

    /// How many whole steps fit before a moment that is not before the first one.
    fn before(&self, at: OffsetDateTime) -> i64 {
        let step = i128::try_from(self.step.as_millis()).unwrap_or(i128::MAX).max(1);
        i64::try_from((at - self.from).whole_milliseconds().div_euclid(step)).unwrap_or(i64::MAX)
    }

    /// The first that is not before this moment.
    fn first_not_before(&self, at: OffsetDateTime) -> usize {
        let at = Timestamp::new(at).moment();
        let step = i128::try_from(self.step.as_millis()).unwrap_or(i128::MAX).max(1);
        let since = (at - self.from).whole_milliseconds().max(0);
        usize::try_from((since + step - 1) / step).unwrap_or(usize::MAX)
    }

    fn at(&self, n: usize) -> OffsetDateTime {
        self.from + self.step * u32::try_from(n).unwrap_or(u32::MAX)
    }
}

/// Counts along the points, from what the fleet was at the first of them.
struct Counting {
    points: Points,
    /// Moments before this are not in the log.
    begins_at: OffsetDateTime,
    /// What comes to those online, and to those offline, at each point.
    steps: Vec<(i64, i64)>,
    /// The satellites that have had an edge.
    lives: HashMap<Uuid, Life>,
}

/// What is remembered of a satellite on the way along the log.
#[derive(Debug, Clone, Copy)]
struct Life {
    /// As what it counted at the begin.
    first: Counted,
    /// When its newest edge counted, and as what it counts since.
    reached: OffsetDateTime,
    last: Counted,
}

impl Counting {
    fn new(points: Points, begins_at: OffsetDateTime) -> Counting {
        let count = usize::try_from(points.count()).unwrap_or(0);
        Counting { points, begins_at, steps: vec![(0, 0); count], lives: HashMap::new() }
    }

    /// The fleet as it was at the begin.
    fn began(&mut self, online: i64, offline: i64) {
        if let Some(first) = self.steps.first_mut() {
            *first = (first.0 + online, first.1 + offline);
        }
    }

    /// The fleet as it is after all that has been counted.
    fn ended(&mut self, online: i64, offline: i64) {
        let (mut online, mut offline) = (online, offline);
        for life in self.lives.values() {
            online += life.first.online() - life.last.online();
            offline += life.first.offline() - life.last.offline();
        }
        self.began(online, offline);
    }

    /// The next transition of the log.
    fn change(&mut self, change: Change) {
        let first = change.before;
        let life = Life { first, reached: self.begins_at, last: first };
        let life = self.lives.entry(change.satellite).or_insert(life);
        let (at, before) = (change.at.max(life.reached), life.last);
        (life.reached, life.last) = (at, change.after);
        self.step(at, before, change.after);
    }

    /// A loss that nobody has declared yet.
    fn lapse(&mut self, satellite: Uuid, at: OffsetDateTime) {
        let reached = self.lives.get(&satellite).map_or(self.begins_at, |life| life.reached);
        self.step(at.max(reached), Counted::Online, Counted::Offline);
    }

    fn step(&mut self, at: OffsetDateTime, before: Counted, after: Counted) {
        if let Some((online, offline)) = self.steps.get_mut(self.points.first_not_before(at)) {
            *online += after.online() - before.online();
            *offline += after.offline() - before.offline();
        }
    }

    fn told(&self, blind: &[(OffsetDateTime, OffsetDateTime)]) -> Timeline {
        let (mut online, mut offline) = (0, 0);
        let points = self.steps.iter().enumerate().map(|(n, step)| {
            (online, offline) = (online + step.0, offline + step.1);
            let at = self.points.at(n);
            let is_blind = blind.iter().any(|(begin, end)| {
                let (begin, end) = (Timestamp::new(*begin).moment(), Timestamp::new(*end).moment());
                // What goes on at the end of the window goes on at its last moment.
                begin <= at && (at < end || (at == end && end == self.points.to))
            });
            let at = Timestamp::new(at);
            if is_blind || at.moment() < self.begins_at {
                return Point { at, online: 0, offline: 0, unknown: online + offline };
            }
            Point { at, online, offline, unknown: 0 }
        });
        Timeline { points: points.collect() }
    }
}

/// Of each satellite its newest transition at a position. The projection has a row for each that ever had one.
const FLEET: &str = "
    select count(*) filter (where t.next->>'status' = 'online') as online,
           count(*) filter (where t.next->>'status' <> 'online') as offline
      from satellite_connections c
      cross join lateral (
          select * from (
              (select e.position, e.next from entity_transitions e
                where e.entity_id = c.satellite_id and e.position <= $1
                order by e.position desc limit 1)
              union all
              select h.position, h.next from transitions_at_horizon h where h.entity_id = c.satellite_id
          ) last order by last.position desc limit 1
      ) t
     where {within:c.satellite_id}";

/// What the whole log folds to.
const PRESENT: &str = "
    select count(*) as satellites, count(*) filter (where last_event = 'connected') as online,
           count(*) filter (where last_event in ('disconnected', 'heartbeat_lost')) as offline
      from satellite_connections c
     where {within:c.satellite_id}";

const CHANGES: &str = "
    select entity_id, occurred_at, prev->>'lastEvent' as last_event, next->>'status' as status
      from entity_transitions
     where position > $1 and position <= $2 and {within:entity_transitions.entity_id}
     order by position";

/// The satellites that are offline although nobody has declared them lost, and since when.
const LAPSED: &str = "
    select late.satellite_id, late.since from (
        select c.satellite_id, status_as_of(watermark.observed_at, p.seen_at) as judged,
               online_until(heard_at(c.last_heartbeat_at, c.vouched, p.seen_at), s.offline_threshold_ms, $1,
                            watermark.judged_at, watermark.resumed_at) as since
          from watermark cross join satellite_connections c
          join satellites s on s.id = c.satellite_id
          left join pods p on p.number = c.pod
         where c.last_event = 'connected' and {within:c.satellite_id}) late
     where late.judged > late.since";

/// A statement in which only satellites that are inside count; its parameter $n is the bound.
fn within(statement: &str, n: usize) -> String {
    let ids = ["c.satellite_id", "entity_transitions.entity_id"];
    ids.iter().fold(statement.to_owned(), |statement, id| {
        statement.replace(&format!("{{within:{id}}}"), &within::condition(id, n))
    })
}

/// The fleet at these points, of those satellites that are inside now.
pub async fn timeline(
    client: &mut Object,
    points: Points,
    selector: &Selector,
    default_threshold: Duration,
) -> Result<Timeline, NoAnswer> {
    let (from, to) = (points.from, points.to);
    let reach = window::reach(client, Window { from, to }).await?;
    reach.is_short()?;
    let transaction = client.build_transaction().read_only(true);
    let transaction = transaction.isolation_level(IsolationLevel::RepeatableRead).start().await?;
    let counting = count(&transaction, points, reach, selector, default_threshold).await?;
    let blind = watermark::blind_spans(&transaction, from, to, default_threshold).await?;
    transaction.commit().await?;
    // What was dropped meanwhile may be missing.
    let horizon = partitions::horizon(client).await?;
    if reach.after < horizon {
        return Err(NoAnswer::Dropped(horizon.0 + 1));
    }
    Ok(counting.told(&blind))
}

async fn count(
    client: &impl GenericClient,
    points: Points,
    reach: Reach,
    selector: &Selector,
    default_threshold: Duration,
) -> Result<Counting, Error> {
    let bound = within::bound(selector);
    let present = client.query_one(&within(PRESENT, 1), &[&bound]).await?;
    let head = read::head(client).await?;
    let satellites: i64 = present.try_get("satellites")?;
    let is_near = head.0 - reach.through.0 <= NEAR.saturating_mul(satellites);
    let through = if is_near { head } else { reach.through };
    let mut counting = Counting::new(points, reach.begins_at.unwrap_or(points.from));
    let parameters: [&(dyn ToSql + Sync); 3] = [&reach.after, &through, &bound];
    let rows = client.query_raw(&within(CHANGES, 3), parameters).await?;
    pin_mut!(rows);
    while let Some(row) = rows.next().await {
        counting.change(change(&row?)?);
    }
    if is_near {
        counting.ended(present.try_get("online")?, present.try_get("offline")?);
    } else {
        let row = client.query_one(&within(FLEET, 2), &[&reach.after, &bound]).await?;
        counting.began(row.try_get("online")?, row.try_get("offline")?);
    }
    let default_ms = i64::try_from(default_threshold.as_millis()).unwrap_or(i64::MAX);
    let parameters: [&(dyn ToSql + Sync); 2] = [&default_ms, &bound];
    let late = client.query_raw(&within(LAPSED, 2), parameters).await?;
    let late = late.map(|row| row.and_then(|row| Ok((row.try_get(0)?, row.try_get(1)?))));
    for (satellite, since) in late.try_collect::<Vec<(Uuid, OffsetDateTime)>>().await? {
        counting.lapse(satellite, since);
    }
    Ok(counting)
}

fn change(row: &Row) -> Result<Change, Error> {
    let (last_event, status): (Option<&str>, Option<&str>) =
        (row.try_get("last_event")?, row.try_get("status")?);
    let counted = |word: Option<&str>, online: &str| match word {
        None => Counted::Not,
        Some(word) if word == online => Counted::Online,
        Some(_) => Counted::Offline,
    };
    Ok(Change {
        satellite: row.try_get("entity_id")?,
        at: row.try_get("occurred_at")?,
        // Its status says how it was when this came, its last edge what it counted as until then.
        before: counted(last_event, Event::Connected.as_str()),
        after: counted(status, Status::Online.as_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::fleet::RunState;
    use crate::log::Entry;
    use crate::log::history::runs::tests::{blind_spans, life, lives, second};
    use crate::log::history::runs::{self, runs};
    use proptest::prelude::*;

    fn of(entry: &Entry) -> Change {
        let counted = |online: bool| if online { Counted::Online } else { Counted::Offline };
        let before = entry.prev.as_ref().and_then(|state| state.last_event.as_ref());
        Change {
            satellite: entry.satellite.0,
            at: entry.occurred_at,
            before: before.map_or(Counted::Not, |event| counted(*event == Event::Connected)),
            after: entry
                .next
                .as_ref()
                .map_or(Counted::Not, |state| counted(state.status == Status::Online)),
        }
    }

    #[test]
    fn points_are_counted_from_the_first_to_the_last_that_is_not_too_late() {
        let points =
            |to, step| Points { from: second(0), to: second(to), step: Duration::from_secs(step) };
        for (to, step, count) in [(0, 60, 1), (59, 60, 1), (60, 60, 2), (3_600, 60, 61)] {
            assert_eq!(points(to, step).count(), count, "{to} {step}");
        }
        let points = points(120, 60);
        for (at, n) in [(-5, 0), (0, 0), (1, 1), (60, 1), (61, 2), (121, 3)] {
            assert_eq!(points.first_not_before(second(at)), n, "{at}");
        }
        assert_eq!(points.at(2), second(120));
    }

    #[test]
    fn before_the_log_begins_and_while_nobody_observes_the_fleet_is_unknown() {
        let points = Points { from: second(0), to: second(40), step: Duration::from_secs(10) };
        let mut counting = Counting::new(points, second(10));
        counting.began(2, 1);
        let lived = life(1, &[(25, Event::Connected)]);
        lived.iter().map(of).for_each(|change| counting.change(change));
        let timeline = counting.told(&[(second(20), second(30))]);
        let told: Vec<_> =
            timeline.points.iter().map(|p| (p.online, p.offline, p.unknown)).collect();
        assert_eq!(told, [(0, 0, 3), (2, 1, 0), (0, 0, 3), (3, 1, 0), (3, 1, 0)]);
    }

    proptest! {
        /// Each point says of how many satellites the runs say it.
        #[test]
        fn the_fleet_at_each_point_is_what_the_states_of_its_satellites_are(
            lived in prop::collection::vec((lives(8), prop::option::of(-20_i64..120)), 1..6),
            blind in blind_spans(),
            step in 1_u64..40,
            from_its_end: bool,
        ) {
            let lives: Vec<(Vec<Entry>, Option<OffsetDateTime>)> = lived
                .iter()
                .enumerate()
                .map(|(n, (events, lapsed))| {
                    let entries = life(n as u128, events);
                    let is_here = entries.last().is_some_and(|last| last.event == Event::Connected);
                    (entries, lapsed.filter(|_| is_here).map(second))
                })
                .collect();
            let points = Points { from: second(0), to: second(100), step: Duration::from_secs(step) };
            // The first of each was before the window.
            let first = |entries: &[Entry]| entries.first().map(of).map_or(Counted::Not, |c| c.after);
            let begin: Vec<Counted> = lives.iter().map(|(entries, _)| first(entries)).collect();
            let (online, offline) = begin.iter().fold((0, 0), |(online, offline), counted| {
                (online + counted.online(), offline + counted.offline())
            });
            let mut counting = Counting::new(points, second(0));
            for (entries, _) in &lives {
                entries.iter().skip(1).map(of).for_each(|change| counting.change(change));
            }
            if from_its_end {
                let last = lives.iter().filter_map(|(entries, _)| Some(of(entries.last()?).after));
                let last: Vec<Counted> = last.collect();
                counting.ended(
                    last.iter().map(|counted| counted.online()).sum(),
                    last.iter().map(|counted| counted.offline()).sum(),
                );
            } else {
                counting.began(online, offline);
            }
            for (entries, lapsed) in &lives {
                if let Some((entry, lapsed)) = entries.first().zip(*lapsed) {
                    counting.lapse(entry.satellite.0, lapsed);
                }
            }
            let told = counting.told(&blind);
            prop_assert_eq!(told.points.len() as i64, points.count());
            for point in &told.points {
                let at = point.at.moment();
                let mut expected = (0, 0);
                for (entries, lapsed) in &lives {
                    let window = runs::Window {
                        // A little longer, so that the last moment is in a run.
                        from: second(0), to: second(101), before: entries.first(),
                        within: entries.get(1..).unwrap_or_default(), lapsed: *lapsed, maintenance: &[],
                        blind: &[],
                    };
                    let runs = runs(&window);
                    let run = runs.iter().find(|run| run.from <= at && at < run.to).expect("a run");
                    expected.0 += i64::from(run.state == RunState::Up);
                    expected.1 += i64::from(run.state == RunState::Down);
                }
                let is_blind = blind.iter().any(|(begin, end)| {
                    *begin <= at && (at < *end || (at == *end && at == second(100)))
                });
                let found = (point.online, point.offline, point.unknown);
                let sum = expected.0 + expected.1;
                prop_assert_eq!(found, if is_blind { (0, 0, sum) } else { (expected.0, expected.1, 0) });
            }
        }
    }
}
