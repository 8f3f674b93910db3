//! What another offline threshold would have done, from the log: `GET /v1/what-if`.
//!
//! By the rule of [`domain::what_if`](crate::domain::what_if). The cost is one look at each transition of the window
//! and of the hour after it, in which losses near its end are decided.

use std::collections::HashMap;
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};
use futures_util::{StreamExt, pin_mut};
use time::OffsetDateTime;
use tokio_postgres::{IsolationLevel, Row};
use uuid::Uuid;

use crate::contract::what_if::{Delay, Losses, MAX_TOLD, OfRegion, OfSatellite, WhatIf};
use crate::contract::wire::Timestamp;
use crate::domain::access::Selector;
use crate::domain::lifecycle::Event;
use crate::domain::what_if::{self, Outcome, Silence, Told};
use crate::log::history::NoAnswer;
use crate::log::window::{self, LATE, Reach, Window};
use crate::log::{partitions, within};

/// A loss tells the last heartbeat in its state after it, any other edge in its state before. The removal of a satellite that
/// never connected has neither, and ends no silence.
const TRANSITIONS: &str = "
    select t.entity_id, t.event, t.reason, t.occurred_at, state->>'name' as name, state->>'region' as region,
           ((case t.event when 'heartbeat_lost' then t.next else t.prev end)->>'lastSeenAt')::timestamptz as heard
      from entity_transitions t cross join lateral (select coalesce(t.next, t.prev) as state) newest
     where t.position > $1 and t.position <= $2 and newest.state is not null
     order by t.position";

/// What is asked.
#[derive(Debug, Clone)]
pub struct Question {
    /// The other threshold.
    pub threshold: Duration,
    /// Only of satellites that were in this region.
    pub region: Option<String>,
    /// Only of satellites that are within this now.
    pub selector: Selector,
    /// Which losses, by when they were due.
    pub window: Window,
}

/// Answers it. `vouch_window` is how far the last heartbeat of an online satellite may be out.
pub async fn answer(
    client: &mut Object,
    question: &Question,
    vouch_window: Duration,
) -> Result<WhatIf, NoAnswer> {
    let window = question.window;
    let reach = window::reach(client, window).await?;
    reach.is_short()?;
    let transaction = client.build_transaction().read_only(true);
    let transaction = transaction.isolation_level(IsolationLevel::RepeatableRead).start().await?;
    let now = transaction.query_one("select clock_timestamp()", &[]).await?;
    let known_until = (window.to + LATE).min(now.try_get(0)?);
    let what_if = what_if::WhatIf::new(question.threshold, vouch_window, window.from, window.to);
    let mut silences = silences(&transaction, what_if, reach, known_until).await?;
    // Not in the statement: a satellite may come back in another region.
    if let Some(region) = &question.region {
        silences.retain(|silence| silence.region == *region);
    }
    if question.selector.is_bounded() {
        let ids: Vec<Uuid> = silences.iter().map(|silence| silence.satellite).collect();
        let within = within::among(&transaction, &ids, &question.selector).await?;
        silences.retain(|silence| within.contains(&silence.satellite));
    }
    transaction.commit().await?;
    // What was dropped meanwhile may be missing.
    let horizon = partitions::horizon(client).await?;
    if reach.after < horizon {
        return Err(NoAnswer::Dropped(horizon.0 + 1));
    }
    let mut answer = told(question, silences);
    if let Some(begins_at) = reach.begins_at {
        let begins_at = Timestamp::new(begins_at);
        answer.unknown.push(format!("what was before {begins_at}: it has been dropped"));
    }
    Ok(answer)
}

async fn silences(
    client: &impl GenericClient,
    mut what_if: what_if::WhatIf,
    reach: Reach,
    known_until: OffsetDateTime,
) -> Result<Vec<Silence>, tokio_postgres::Error> {
    let bounds = [&reach.after, &reach.through];
    let rows = client.query_raw(TRANSITIONS, bounds).await?;
    pin_mut!(rows);
    while let Some(row) = rows.next().await {
        if let Some(told) = transition(&row?)? {
            what_if.transition(told);
        }
    }
    Ok(what_if.known_until(known_until))
}

/// None for an event that this version does not know.
fn transition(row: &Row) -> Result<Option<Told>, tokio_postgres::Error> {
    let (event, reason): (&str, &str) = (row.try_get("event")?, row.try_get("reason")?);
    let Ok(event) = event.parse::<Event>() else { return Ok(None) };
    Ok(Some(Told {
        satellite: row.try_get("entity_id")?,
        event,
        reason: reason.parse().ok(),
        at: row.try_get("occurred_at")?,
        heard: row.try_get("heard")?,
        name: row.try_get("name")?,
        region: row.try_get("region")?,
    }))
}

fn told(question: &Question, silences: Vec<Silence>) -> WhatIf {
    let mut all = Losses::default();
    let mut delays = Vec::new();
    let mut regions: HashMap<String, Losses> = HashMap::new();
    let mut satellites: HashMap<Uuid, OfSatellite> = HashMap::new();
    for silence in silences {
        let Silence { satellite, name, region, outcome } = silence;
        if let Outcome::Kept(delay) = outcome {
            delays.push(i64::try_from(delay.whole_milliseconds()).unwrap_or(i64::MAX));
        }
        count(&mut all, outcome);
        count(regions.entry(region.clone()).or_default(), outcome);
        let none = Losses::default();
        let of_satellite = satellites.entry(satellite).or_insert_with(|| OfSatellite {
            id: satellite,
            name: String::new(),
            region: String::new(),
            losses: none,
        });
        (of_satellite.name, of_satellite.region) = (name, region);
        count(&mut of_satellite.losses, outcome);
    }
    let regions = regions.into_iter().map(|(region, losses)| OfRegion { region, losses });
    let mut regions: Vec<_> = regions.collect();
    regions.sort_by(|a, b| (b.losses.losses, &a.region).cmp(&(a.losses.losses, &b.region)));
    let otherwise = |of: &OfSatellite| of.losses.spared + of.losses.added_at_least;
    let mut satellites: Vec<_> = satellites.into_values().collect();
    satellites.retain(|of| otherwise(of) > 0);
    satellites.sort_by(|a, b| (otherwise(b), a.id).cmp(&(otherwise(a), b.id)));
    regions.truncate(MAX_TOLD);
    satellites.truncate(MAX_TOLD);
    WhatIf {
        threshold_ms: i64::try_from(question.threshold.as_millis()).unwrap_or(i64::MAX),
        since: Timestamp::new(question.window.from),
        until: Timestamp::new(question.window.to),
        losses: all,
        delay: delay(delays),
        regions,
        satellites,
        unknown: unknown(),
    }
}

fn unknown() -> Vec<String> {
    [
        "silences that ended with a heartbeat before a loss was due: what a shorter threshold would have added is at least addedAtLeast",
        "when exactly a satellite was last heard whose pod died with it: reason pod_lost, or up to a vouch window before a takeover",
        "what a satellite would have done that was not called lost",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn count(losses: &mut Losses, outcome: Outcome) {
    let of_outcome = match outcome {
        Outcome::Spared => &mut losses.spared,
        Outcome::Kept(_) => &mut losses.kept,
        Outcome::Undecided => &mut losses.undecided,
        Outcome::Added => &mut losses.added_at_least,
    };
    *of_outcome += 1;
    losses.losses += i64::from(outcome != Outcome::Added);
}

fn delay(mut delays: Vec<i64>) -> Option<Delay> {
    delays.sort_unstable();
    let last = delays.len().checked_sub(1)?;
    let share = |percent| delays[last * percent / 100];
    Some(Delay { p50_ms: share(50), p99_ms: share(99), max_ms: delays[last] })
}
