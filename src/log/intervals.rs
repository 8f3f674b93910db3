//! How some satellites were within a window, their states run together: `GET /v1/intervals`.
//!
//! By the rule of [`runs`], which stats sum up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};
use futures_util::{StreamExt, pin_mut};
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, IsolationLevel};
use uuid::Uuid;

use crate::contract::fleet::{Interval, Intervals};
use crate::contract::wire::Timestamp;
use crate::domain::access::Selector;
use crate::log::history::runs::{self, Run};
use crate::log::history::{self, NoAnswer};
use crate::log::window::{self, Reach, Window};
use crate::log::{Entry, partitions, watermark, within};

/// The most satellites one answer tells of.
pub const MAX_NAMED: usize = 200;

/// The most transitions one answer looks at: one satellite's stats look at as many.
const MAX_TRANSITIONS: usize = history::MAX_TRANSITIONS;

/// Of each the last transition before the window.
const BEFORE: &str = "
    select last.* from unnest($1::uuid[]) asked (id) cross join lateral (
        select position, revision, change_id, entity_id, event, reason, session, prev, next,
               actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
               occurred_at, recorded_at
          from remembered_transitions
         where position <= $2 and entity_id = asked.id
         order by position desc
         limit 1
    ) last";

/// Of each those within it, in order.
const WITHIN: &str = "
    select inside.* from unnest($1::uuid[]) asked (id) cross join lateral (
        select position, revision, change_id, entity_id, event, reason, session, prev, next,
               actor_type, actor_id, traceparent, outage_id, maintenance_id, goodbye,
               occurred_at, recorded_at
          from entity_transitions
         where entity_id = asked.id and position > $2 and position <= $3
         order by position
         limit $4
    ) inside
     limit $4";

/// How these satellites were. Of one that never was nothing is known, nor of one that is not inside now.
pub async fn intervals(
    client: &mut Object,
    satellites: &BTreeSet<Uuid>,
    selector: &Selector,
    window: Window,
    default_threshold: Duration,
) -> Result<Intervals, NoAnswer> {
    let reach = window::reach(client, window).await?;
    if reach.begins_at.is_some() {
        return Err(NoAnswer::Dropped(partitions::horizon(client).await?.0 + 1));
    }
    let asked: Vec<Uuid> = satellites.iter().copied().collect();
    let transaction = client.build_transaction().read_only(true);
    let transaction = transaction.isolation_level(IsolationLevel::RepeatableRead).start().await?;
    let ids: Vec<Uuid> = within::among(&transaction, &asked, selector).await?.into_iter().collect();
    let mut before = HashMap::new();
    for row in transaction.query(BEFORE, &[&ids, &reach.after]).await? {
        let entry = Entry::from_row(&row)?;
        before.insert(entry.satellite.0, entry);
    }
    let within = within(&transaction, &ids, reach).await?;
    let lapsed = lapsed(&transaction, &ids, default_threshold).await?;
    let (from, to) = (window.from, window.to);
    let blind = watermark::blind_spans(&transaction, from, to, default_threshold).await?;
    transaction.commit().await?;
    // What was dropped meanwhile may be missing.
    let horizon = partitions::horizon(client).await?;
    if reach.after < horizon {
        return Err(NoAnswer::Dropped(horizon.0 + 1));
    }
    let told = satellites.iter().map(|id| {
        let window = runs::Window {
            from,
            to,
            before: before.get(id),
            within: within.get(id).map_or(&[], Vec::as_slice),
            lapsed: lapsed.get(id).copied(),
            blind: &blind,
        };
        (*id, runs::runs(&window).iter().map(interval).collect())
    });
    let (from, to) = (Timestamp::new(from), Timestamp::new(to));
    Ok(Intervals { from, to, intervals: told.collect::<BTreeMap<_, Vec<_>>>() })
}

async fn within(
    client: &impl GenericClient,
    ids: &[Uuid],
    reach: Reach,
) -> Result<HashMap<Uuid, Vec<Entry>>, NoAnswer> {
    let most = MAX_TRANSITIONS as i64 + 1;
    let parameters: [&(dyn ToSql + Sync); 4] = [&ids, &reach.after, &reach.through, &most];
    let rows = client.query_raw(WITHIN, parameters).await?;
    pin_mut!(rows);
    let (mut within, mut seen) = (HashMap::<Uuid, Vec<Entry>>::new(), 0);
    while let Some(row) = rows.next().await {
        seen += 1;
        if seen > MAX_TRANSITIONS {
            return Err(NoAnswer::Refused(format!(
                "ids and the time from since to until must be so few that they have at most {MAX_TRANSITIONS} transitions"
            )));
        }
        let entry = Entry::from_row(&row?)?;
        within.entry(entry.satellite.0).or_default().push(entry);
    }
    Ok(within)
}

/// Since when those are offline that nobody has declared lost yet.
async fn lapsed(
    client: &impl GenericClient,
    ids: &[Uuid],
    default_threshold: Duration,
) -> Result<HashMap<Uuid, OffsetDateTime>, Error> {
    let mut lapsed = HashMap::new();
    for row in client.query(history::PRESENT, &[&ids]).await? {
        if let Some(since) = history::lapsed(&row, default_threshold)? {
            lapsed.insert(row.try_get("id")?, since);
        }
    }
    Ok(lapsed)
}

fn interval(run: &Run<'_>) -> Interval {
    Interval {
        from: Timestamp::new(run.from),
        to: Timestamp::new(run.to),
        state: run.state.into(),
        event: run.by.map(|entry| entry.event.clone()),
        reason: run.by.map(|entry| entry.reason.clone()),
    }
}
