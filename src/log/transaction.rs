//! One batch of edges as one transaction: lock the rows, read, decide, project, lock the log, insert, commit.
//!
//! Owns the statements that write the log and its projected rows, and the log's lock. [`super::append`], the only
//! caller except for [`lock_head`], says what this promises and why.

use std::collections::HashMap;
use std::str::FromStr;
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::future::{try_join, try_join3, try_join4, try_join5};
use serde_json::json;
use time::OffsetDateTime;
use tokio_postgres::types::Json;
use tokio_postgres::{Error, Row, Statement};
use tracing::error;
use uuid::Uuid;

use super::audit::{self, Entry};
use super::columns::Columns;
use super::request::{Outcome, Request};
use super::{ChangeId, KIND, SCHEMA_VERSION};
use crate::contract::audit::AuditAction;
use crate::contract::wire::{GoodbyeJson, StateJson, Timestamp};
use crate::domain::flapping::{self, Flapping};
use crate::domain::lifecycle::{
    self, Connection, Decision, Event, Illegal, Position, Profile, Reason, Signal, Transition,
    Unchanged,
};
use crate::domain::liveness::{self, Watermark};
use crate::log::watermark;
use crate::log::watermark::PodNumber;
use crate::platform::database_clock::{DatabaseClock, Moment};
use crate::platform::failpoint::stand_still;

/// What a pod needs to decide edges.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The offline threshold of satellites without their own.
    pub default_threshold: Duration,
    /// When a satellite counts as flapping.
    pub flapping: flapping::Rules,
    /// The pod that will hold the sessions it accepts, see [`crate::log::watermark`].
    pub pod: PodNumber,
}

/// Writes a batch in one transaction and commits it. The outcomes are in the order of the edges; there is none where
/// another transaction has the satellite's row locked. Also returns when they were decided.
pub(super) async fn transact(
    client: &Object,
    batch: &[Request],
    rules: &Rules,
    clock: &DatabaseClock,
) -> Result<(Vec<Option<Outcome>>, Vec<Transition>, OffsetDateTime), Error> {
    let (now, watermark, mut satellites) = lock_and_read(client, batch, rules, clock).await?;
    stand_still("append::rows_locked").await;
    let known = find_changes(client, batch).await?;

    let mut outcomes = Vec::with_capacity(batch.len());
    let mut transitions: Vec<Decided> = Vec::new();
    for request in batch {
        if request.is_withdrawn() && !request.tried {
            // It never reached the log, so it need not wait for any lock.
            outcomes.push(Some(Outcome::Nothing(Unchanged::Withdrawn)));
            continue;
        }
        let satellite = satellites.entry(request.satellite.0).or_default();
        if satellite.is_locked {
            // The holder may be the lost transaction of an earlier try: nothing is known yet.
            outcomes.push(None);
            continue;
        }
        if let Some(outcome) = known.get(&request.change) {
            outcomes.push(Some(*outcome));
            continue;
        }
        if request.is_withdrawn() {
            outcomes.push(Some(Outcome::Nothing(Unchanged::Withdrawn)));
            continue;
        }
        let happened = Timestamp::new(clock.time_of(request.happened, now)).moment();
        match satellite.decide(request, happened, now, &watermark, rules) {
            Ok(transition) => {
                // The insert tells the position; until then this is the place in the insert.
                outcomes.push(Some(Outcome::Appended {
                    position: Position(transitions.len() as i64),
                    session: transition.session,
                    event: transition.event,
                }));
                let flapping = satellite.flapping.clone();
                transitions.push(Decided { transition, request, flapping });
            }
            Err(outcome) => outcomes.push(Some(outcome)),
        }
    }

    if transitions.is_empty() {
        client.batch_execute("rollback").await?;
        return Ok((outcomes, Vec::new(), now));
    }
    let first = insert_and_commit(client, &transitions, rules.pod).await?;
    for (request, outcome) in batch.iter().zip(&mut outcomes) {
        if let Some(Outcome::Appended { position, .. }) = outcome
            && !known.contains_key(&request.change)
        {
            position.0 += first.0;
        }
    }
    let transitions = transitions.into_iter().map(|decided| decided.transition).collect();
    Ok((outcomes, transitions, now))
}

/// A decided edge, on its way into the log.
struct Decided<'a> {
    transition: Transition,
    request: &'a Request,
    /// What is remembered of the satellite after it.
    flapping: Flapping,
}

async fn lock_and_read(
    client: &Object,
    batch: &[Request],
    rules: &Rules,
    clock: &DatabaseClock,
) -> Result<(OffsetDateTime, Watermark, HashMap<Uuid, Satellite>), Error> {
    let ids = ids_of(batch.iter());
    let removed = ids_of(batch.iter().filter(|request| request.signal == Signal::Remove));
    let (lock_satellites, lock_rows): (Statement, Statement) =
        try_join(client.prepare_cached(LOCK_SATELLITES), client.prepare_cached(LOCK_ROWS)).await?;
    let ids_parameter: &[&(dyn tokio_postgres::types::ToSql + Sync)] = &[&ids];
    let locks = try_join3(
        client.batch_execute(BEGIN),
        client.query(&lock_satellites, ids_parameter),
        client.query(&lock_rows, ids_parameter),
    );
    let lock_removed = async {
        if removed.is_empty() {
            return Ok(Vec::new());
        }
        let lock = client.prepare_cached(LOCK_REMOVED).await?;
        client.query(&lock, &[&removed]).await
    };
    let sent = Moment::now();
    let watermark = async {
        let (now, watermark) = watermark::read(client, rules.default_threshold).await?;
        clock.note(sent, now, Moment::now());
        Ok((now, watermark))
    };
    let ((_, registered, rows), removed, (now, watermark)) =
        try_join3(locks, lock_removed, watermark).await?;

    let mut satellites: HashMap<Uuid, Satellite> = HashMap::with_capacity(ids.len());
    for row in &registered {
        let satellite = satellites.entry(row.try_get("id")?).or_default();
        satellite.is_locked |= row.try_get::<_, bool>("is_locked")?;
        satellite.profile = profile(row, rules.default_threshold)?;
    }
    for row in &rows {
        let satellite = satellites.entry(row.try_get("id")?).or_default();
        satellite.is_locked |= row.try_get::<_, bool>("is_locked")?;
        satellite.stands(row)?;
    }
    for row in &removed {
        let satellite = satellites.entry(row.try_get("id")?).or_default();
        satellite.is_locked |= row.try_get::<_, bool>("is_locked")?;
    }
    Ok((now, watermark, satellites))
}

/// The satellites of these edges, in the order in which rows are locked.
fn ids_of<'a>(requests: impl Iterator<Item = &'a Request>) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = requests.map(|request| request.satellite.0).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

fn profile(row: &Row, default: Duration) -> Result<Option<Profile>, Error> {
    let Some(name) = row.try_get("name")? else { return Ok(None) };
    Ok(Some(Profile {
        name,
        region: row.try_get("region")?,
        threshold: liveness::threshold(row.try_get("offline_threshold_ms")?, default),
    }))
}

/// A satellite under its lock, as the transaction proceeds.
#[derive(Default)]
struct Satellite {
    /// Not locked by this transaction: another one has one of its rows.
    is_locked: bool,
    profile: Option<Profile>,
    row: Option<Connection>,
    flapping: Flapping,
}

impl Satellite {
    /// Takes over what its row says, if it has one.
    fn stands(&mut self, row: &Row) -> Result<(), Error> {
        let Some(last_event) = row.try_get("last_event")? else { return Ok(()) };
        self.row = match Event::from_str(last_event).ok() {
            None => None,
            Some(last_event) => Some(Connection {
                session: row.try_get("session")?,
                revision: row.try_get("revision")?,
                last_event,
                last_heartbeat_at: row.try_get("last_heartbeat_at")?,
                vouched_until: row.try_get("vouched_until")?,
            }),
        };
        self.flapping = Flapping {
            recent: row.try_get("recent_edges")?,
            until: row.try_get("flapping_until")?,
        };
        Ok(())
    }

    /// Decides an edge and moves on to the row after it.
    fn decide(
        &mut self,
        request: &Request,
        happened: OffsetDateTime,
        now: OffsetDateTime,
        watermark: &Watermark,
        rules: &Rules,
    ) -> Result<Transition, Outcome> {
        let profile = self.profile.as_ref().ok_or(Outcome::UnknownSatellite)?;
        let (id, signal, row) = (request.satellite, request.signal, self.row.as_ref());
        let decision = lifecycle::next(id, profile, row, signal, happened, now, watermark);
        let mut transition = match decision {
            Ok(Decision::Append(transition)) => *transition,
            Ok(Decision::Nothing(why)) => return Err(Outcome::Nothing(why)),
            Err(illegal @ Illegal::UnknownSession { .. }) => {
                error!(%illegal, edge = ?request.signal, "an edge that cannot happen was refused");
                return Err(Outcome::Refused);
            }
        };
        match lifecycle::project(self.row.as_ref(), &transition) {
            Ok(row) => self.row = Some(row),
            Err(out_of_order) => {
                error!(%out_of_order, "an edge was decided out of order");
                return Err(Outcome::Refused);
            }
        }
        let before = self.flapping.mark(happened);
        if transition.event == Event::Removed {
            self.profile = None;
        } else {
            self.flapping.edge(happened, &rules.flapping);
        }
        transition.mark_flapping(before, self.flapping.mark(happened));
        Ok(transition)
    }
}

/// Planned once: for a batch of one edge Postgres would plan the statements anew each time, because an array of one
/// costs less than one of unknown length, and the planning takes longer than the statements.
const BEGIN: &str =
    "begin isolation level read committed; set local plan_cache_mode = force_generic_plan";

/// A locking SELECT returns each row as it is once it is locked, whatever the statement saw at its start. It waits
/// for no row: a row that exists and is not returned is locked by another transaction.
const LOCK_SATELLITES: &str = "
    select i.id, s.name, s.region, s.offline_threshold_ms,
           s.name is null and exists (select from satellites where id = i.id) as is_locked
      from unnest($1::uuid[]) i (id)
      left join lateral (
          select name, region, offline_threshold_ms
            from satellites where id = i.id for no key update skip locked
      ) s on true";

/// After the satellites: a transaction that inserted a row here for one of our satellites has committed by now.
const LOCK_ROWS: &str = "
    select i.id, c.session, c.revision, c.last_event, c.recent_edges, c.flapping_until,
           proven_heard_at(c.last_heartbeat_at, c.vouched, p.seen_at, p.vouch_window) as last_heartbeat_at,
           case when c.vouched then p.seen_at end as vouched_until,
           c.session is null and exists (select from satellite_connections where satellite_id = i.id) as is_locked
      from unnest($1::uuid[]) i (id)
      left join lateral (
          select session, revision, last_event, last_heartbeat_at, recent_edges, flapping_until, vouched, pod
            from satellite_connections where satellite_id = i.id for no key update skip locked
      ) c on true
      left join pods p on p.number = c.pod and c.vouched";

/// A removal deletes the registry's row and what belongs to it, under the log's lock. So no other transaction may
/// hold any of these rows, not even a lock on a key.
const LOCK_REMOVED: &str = "
    select i.id,
           s.id is null and exists (select from satellites where id = i.id)
           or a.satellite_id is null and exists (select from satellite_assignments where satellite_id = i.id)
           or m.satellite_id is null and exists (select from satellite_imports where satellite_id = i.id)
           or p.satellite_id is null and exists (select from previous_tokens where satellite_id = i.id)
           as is_locked
      from unnest($1::uuid[]) i (id)
      left join lateral (select id from satellites where id = i.id for update skip locked) s on true
      left join lateral (
          select satellite_id from satellite_assignments where satellite_id = i.id for update skip locked
      ) a on true
      left join lateral (
          select satellite_id from satellite_imports where satellite_id = i.id for update skip locked
      ) m on true
      left join lateral (
          select satellite_id from previous_tokens where satellite_id = i.id for update skip locked
      ) p on true";

/// Which edges of an earlier try are in the log. The newest transition of a satellite that retention has dropped is
/// searched too: a pod that was cut off for that long may ask after it. Any later transition has moved the row on,
/// and with it what the edge means.
const FIND_CHANGES: &str = "
    select change_id, position, session, event from entity_transitions where change_id = any($1)
     union all
    select change_id, position, session, event from transitions_at_horizon
     where entity_id = any($2) and change_id = any($1)";

async fn find_changes(
    client: &Object,
    batch: &[Request],
) -> Result<HashMap<ChangeId, Outcome>, Error> {
    let tried = || batch.iter().filter(|request| request.tried);
    let changes: Vec<Uuid> = tried().map(|request| request.change.0).collect();
    if changes.is_empty() {
        return Ok(HashMap::new());
    }
    let satellites: Vec<Uuid> = tried().map(|request| request.satellite.0).collect();
    let rows = client.query(FIND_CHANGES, &[&changes, &satellites]).await?;
    let mut known = HashMap::with_capacity(rows.len());
    for row in &rows {
        let event = Event::from_str(row.try_get("event")?).ok();
        let outcome = event.map_or(Outcome::Refused, |event| Outcome::Appended {
            position: row.get("position"),
            session: row.get("session"),
            event,
        });
        known.insert(row.try_get("change_id")?, outcome);
    }
    Ok(known)
}

/// The log's lock, for a transaction that waits for it no longer than for any other lock.
const LOCK_HEAD: &str =
    "select pg_advisory_xact_lock(hashtextextended('groundstation: entity_transitions', 0))";

const HEAD: &str = "
    select coalesce(max(newest.position), 0),
           greatest(max(newest.recorded_at), date_trunc('milliseconds', clock_timestamp()))
      from (select position, recorded_at from entity_transitions order by position desc limit 1) newest";

/// Takes the log's lock for the rest of a transaction. Returns the head, and the moment at which everything written
/// under the lock counts as done. Nothing is appended meanwhile, so the caller must be quick.
pub async fn lock_head(
    transaction: &deadpool_postgres::Transaction<'_>,
) -> Result<(Position, OffsetDateTime), Error> {
    let lock = transaction.prepare_cached(LOCK_HEAD).await?;
    transaction.execute(&lock, &[]).await?;
    let head = transaction.prepare_cached(HEAD).await?;
    let row = transaction.query_one(&head, &[]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// The rows after a batch: only a satellite's last transition of the batch reaches its row. The rows are locked by
/// this transaction already, or new. They have no positions: those are known only under the log's lock, which is
/// taken later.
const PROJECT: &str = "
    insert into satellite_connections as c
           (satellite_id, session, revision, last_event, last_heartbeat_at,
            recent_edges, flapping_until, pod)
    select satellite_id, session, revision, event, last_heartbeat_at,
           {recent}[recent_from:recent_to], flapping_until, {pod}
      from {rows}
    on conflict (satellite_id) do update
       set session = excluded.session, revision = excluded.revision, vouched = false, flushed = 0,
           last_event = excluded.last_event, last_heartbeat_at = excluded.last_heartbeat_at,
           recent_edges = excluded.recent_edges, flapping_until = excluded.flapping_until,
           pod = case excluded.last_event when 'connected' then excluded.pod else c.pod end";

/// The log's lock for appends, which has its own time-out.
const LOCK_LOG: &str = "select lock_log()";

/// Positions follow the head, which the statement before locked. `recorded_at` never goes back, whatever the server's
/// clock does. Returns the first position.
const INSERT: &str = "
    with head as materialized (
        select coalesce(max(newest.position), 0) as position,
               greatest(max(newest.recorded_at), date_trunc('milliseconds', clock_timestamp())) as recorded_at
          from (select position, recorded_at from entity_transitions order by position desc limit 1) newest
    ), appended as (
        insert into entity_transitions
               (position, revision, change_id, kind, entity_id, event, reason, session, prev, next,
                actor_type, actor_id, traceparent, schema_version, occurred_at, recorded_at,
                outage_id, maintenance_id, goodbye)
        select head.position + n, revision, change_id, {kind}, entity_id, event, reason, session, prev, next,
               actor_type, actor_id, traceparent, {schema_version}, occurred_at, head.recorded_at,
               outage_id, maintenance_id, goodbye
          from head, {rows}
    )
    select position + 1 from head";

/// The registry forgets a removed satellite; its description stays in `registry_changes`. A removal's position
/// follows from how many transitions of the batch come after it: the newest position is the batch's last.
const DELETE_REMOVED: &str = "
    with removed as (
        select * from {rows}
    ), gone as (
        delete from satellites s using removed r where s.id = r.satellite_id
        returning s.*, r.actor_type, r.actor_id, r.behind
    )
    insert into registry_changes
           (position, changed_at, satellite_id, action, actor_type, actor_id, before)
    select newest.position - gone.behind, date_trunc('milliseconds', clock_timestamp()), gone.id, 'removed',
           gone.actor_type, gone.actor_id,
           jsonb_build_object('name', gone.name, 'region', gone.region, 'tags', gone.tags,
                              'offlineThresholdMs', gone.offline_threshold_ms)
      from gone, (select position from entity_transitions order by position desc limit 1) newest";

async fn insert_and_commit(
    client: &Object,
    transitions: &[Decided<'_>],
    pod: PodNumber,
) -> Result<Position, Error> {
    let (last, removals) = (last_of_each(transitions), removals(transitions));
    let rows = rows(&last, pod);
    let (entries, removed) = (entries(transitions), removed(&removals));
    let prepare = async |text: &str| client.prepare_cached(text).await;
    let (project, lock, insert, delete) = try_join4(
        prepare(&rows.statement(PROJECT)),
        prepare(LOCK_LOG),
        prepare(&entries.statement(INSERT)),
        prepare(&removed.statement(DELETE_REMOVED)),
    )
    .await?;
    // Removals and kicks are rare: other batches pay nothing for their entries in the audit.
    let audited = audited(transitions);
    let audited = (!audited.is_empty()).then(|| audit::columns(&audited));
    let note = match &audited {
        Some(audited) => Some(prepare(&audited.statement(audit::APPEND_OF_EDGES)).await?),
        None => None,
    };
    let note = note.as_ref().zip(audited.as_ref().map(Columns::parameters));
    let (rows, entries, removed) = (rows.parameters(), entries.parameters(), removed.parameters());
    let remove =
        async { if removals.is_empty() { Ok(0) } else { client.execute(&delete, &removed).await } };
    // Each is sent after the one before without waiting for its answer. If one fails, the server refuses those after
    // it and answers COMMIT with a rollback, and the failed statement's error counts.
    let note = async {
        match &note {
            Some((statement, audited)) => client.execute(*statement, audited).await,
            None => Ok(0),
        }
    };
    let statements = try_join5(
        client.execute(&project, &rows),
        client.execute(&lock, &[]),
        client.query_one(&insert, &entries),
        remove,
        note,
    );
    let commit = async {
        stand_still("append::log_locked").await;
        client.batch_execute("commit").await
    };
    let ((_, _, row, _, _), ()) = try_join(statements, commit).await?;
    row.try_get(0)
}

/// The entries of the audit for what administrators do by an edge.
fn audited(transitions: &[Decided<'_>]) -> Vec<Entry> {
    let audited = transitions.iter().filter_map(|Decided { transition, request, .. }| {
        let (action, after) = match (transition.event, transition.reason) {
            (Event::Removed, _) => (AuditAction::SatelliteRemoved, None),
            (_, Reason::Kicked) => {
                (AuditAction::SatelliteKicked, Some(json!({"session": transition.session.0})))
            }
            _ => return None,
        };
        Some(Entry::of_satellite(&request.author, action, transition.satellite, None, after))
    });
    audited.collect()
}

/// What is inserted into the log.
fn entries<'a>(transitions: &'a [Decided<'a>]) -> Columns<'a, Decided<'a>> {
    let state = |state: &Option<lifecycle::State>| state.as_ref().map(|s| Json(StateJson::from(s)));
    Columns::of(transitions)
        .column("entity_id", "uuid", |it| it.transition.satellite.0)
        .column("revision", "bigint", |it| it.transition.revision.0)
        .column("change_id", "uuid", |it| it.request.change.0)
        .column("event", "text", |it| it.transition.event.as_str())
        .column("reason", "text", |it| it.transition.reason.as_str())
        .column("session", "bigint", |it| it.transition.session.0)
        .column("prev", "jsonb", |it| state(&it.transition.prev))
        .column("next", "jsonb", |it| state(&it.transition.next))
        .column("actor_type", "text", |it| it.request.author.actor.kind.as_str())
        .column("actor_id", "text", |it| it.request.author.actor.id.as_str())
        .column("traceparent", "text", |it| it.request.traceparent.map(|trace| trace.to_string()))
        .column("occurred_at", "timestamptz", |it| it.transition.occurred_at)
        .column("outage_id", "uuid", |it| it.transition.marks.outage)
        .column("maintenance_id", "uuid", |it| it.transition.marks.maintenance)
        .column("goodbye", "jsonb", |it| {
            it.transition.marks.goodbye.as_ref().map(|goodbye| Json(GoodbyeJson::from(goodbye)))
        })
        .value("kind", "text", KIND)
        .value("schema_version", "smallint", SCHEMA_VERSION)
}

/// A satellite's last transition of a batch. The recent edges of all satellites are one array, because an array of
/// arrays would have to be rectangular. Each satellite has the begin and end of its part, counted from 1.
struct Last<'a> {
    decided: &'a Decided<'a>,
    recent_from: i32,
    recent_to: i32,
}

fn last_of_each<'a>(transitions: &'a [Decided<'a>]) -> Vec<Last<'a>> {
    let mut last = HashMap::with_capacity(transitions.len());
    for (n, decided) in transitions.iter().enumerate() {
        last.insert(decided.transition.satellite, n);
    }
    let is_last = |(n, decided): &(usize, &Decided<'_>)| last[&decided.transition.satellite] == *n;
    let mut recent_to = 0;
    let in_turn = transitions.iter().enumerate().filter(is_last).map(|(_, decided)| {
        let recent_from = recent_to + 1;
        recent_to += decided.flapping.recent.len() as i32;
        Last { decided, recent_from, recent_to }
    });
    in_turn.collect()
}

/// What is written to the projection.
fn rows<'a>(last: &'a [Last<'a>], pod: PodNumber) -> Columns<'a, Last<'a>> {
    let heartbeat = |next: &Option<lifecycle::State>| next.as_ref()?.last_seen_at;
    let recent = last.iter().flat_map(|it| &it.decided.flapping.recent);
    let recent: Vec<&OffsetDateTime> = recent.collect();
    Columns::of(last)
        .column("satellite_id", "uuid", |it| it.decided.transition.satellite.0)
        .column("session", "bigint", |it| it.decided.transition.session.0)
        .column("revision", "bigint", |it| it.decided.transition.revision.0)
        .column("event", "text", |it| it.decided.transition.event.as_str())
        .column("last_heartbeat_at", "timestamptz", |it| heartbeat(&it.decided.transition.next))
        .column("recent_from", "integer", |it| it.recent_from)
        .column("recent_to", "integer", |it| it.recent_to)
        .column("flapping_until", "timestamptz", |it| it.decided.flapping.until)
        .value("recent", "timestamptz[]", recent)
        .value("pod", "integer", pod)
}

/// A removal, and how many transitions of the batch come after it.
struct Removal<'a> {
    decided: &'a Decided<'a>,
    behind: i64,
}

fn removals<'a>(transitions: &'a [Decided<'a>]) -> Vec<Removal<'a>> {
    let from_the_end = (0..).zip(transitions.iter().rev());
    let removals = from_the_end.filter(|(_, it)| it.transition.event == Event::Removed);
    removals.map(|(behind, decided)| Removal { decided, behind }).collect()
}

/// What the registry is to forget.
fn removed<'a>(removals: &'a [Removal<'a>]) -> Columns<'a, Removal<'a>> {
    Columns::of(removals)
        .column("satellite_id", "uuid", |it| it.decided.transition.satellite.0)
        .column("actor_type", "text", |it| it.decided.request.author.actor.kind.as_str())
        .column("actor_id", "text", |it| it.decided.request.author.actor.id.as_str())
        .column("behind", "bigint", |it| it.behind)
}
