//! A past that was made up, for `groundstation dev`: the only other writer of the log.
//!
//! It writes into an empty log and nowhere else. Every edge is decided by the rules that decide real ones, at moments
//! that are passed in, and its actor says that it was made. So positions, revisions, sessions and times are as in any
//! log, and the relay, the seals and audits take it as one.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use postgres::Transaction;
use time::OffsetDateTime;
use tokio_postgres::types::Json;

use super::columns::Columns;
use super::{ChangeId, KIND, SCHEMA_VERSION};
use crate::contract::wire::{Actor, StateJson};
use crate::domain::flapping::{self, Flapping};
use crate::domain::lifecycle::{
    self, Connection, Decision, Event, Profile, Reason, SatelliteId, Session, Signal, State,
    Transition,
};
use crate::domain::liveness::Watermark;

/// What is to have happened to a satellite's newest session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It began.
    Connect,
    /// It ended.
    Disconnect(Reason),
    /// It fell silent.
    Lost,
}

/// An edge that is to have been.
#[derive(Debug, Clone, Copy)]
pub struct Edge {
    /// The satellite.
    pub satellite: SatelliteId,
    /// What happened.
    pub kind: Kind,
    /// When the satellite was heard last before it.
    pub heard: OffsetDateTime,
    /// When the log took it.
    pub at: OffsetDateTime,
}

/// A satellite, as the past goes on.
#[derive(Default)]
struct Satellite {
    row: Option<Connection>,
    flapping: Flapping,
}

/// An edge, decided.
struct Made {
    transition: Transition,
    change: ChangeId,
    at: OffsetDateTime,
}

const LOCK: &str = "select lock_log()";

const IS_EMPTY: &str = "
    select not exists (select from entity_transitions) and not exists (select from registry_changes)";

/// Locks the log for the transaction, and says whether nothing was ever written to it or to the registry.
pub fn is_empty(transaction: &mut Transaction<'_>) -> anyhow::Result<bool> {
    transaction.execute(LOCK, &[])?;
    Ok(transaction.query_one(IS_EMPTY, &[])?.try_get(0)?)
}

/// Positions from 1 on: the log is empty, and the caller's transaction has its lock.
const INSERT: &str = "
    insert into entity_transitions
           (position, revision, change_id, kind, entity_id, event, reason, session, prev, next,
            actor_type, actor_id, schema_version, occurred_at, recorded_at)
    select n, revision, change_id, {kind}, entity_id, event, reason, session, prev, next,
           {actor_type}, {actor_id}, {schema_version}, occurred_at, recorded_at
      from {rows}";

/// All have left: a session of the past has no pod that could hold it.
const PROJECT: &str = "
    insert into satellite_connections (satellite_id, session, revision, last_event, last_heartbeat_at)
    select satellite_id, session, revision, event, last_heartbeat_at
      from {rows}";

/// Writes a past into the log, which [`is_empty`] has found empty: edges in the order of their times, each satellite's
/// last one an end.
pub fn write(
    transaction: &mut Transaction<'_>,
    profiles: &HashMap<SatelliteId, Profile>,
    edges: &[Edge],
) -> anyhow::Result<()> {
    let mut satellites: HashMap<SatelliteId, Satellite> = HashMap::new();
    let mut made = Vec::with_capacity(edges.len());
    for edge in edges {
        let profile = profiles.get(&edge.satellite).context("an edge of nobody")?;
        let transition = satellites.entry(edge.satellite).or_default().decide(edge, profile)?;
        made.push(Made { transition, change: ChangeId::new(), at: edge.at });
    }
    let rows: Vec<(SatelliteId, Connection)> =
        satellites.into_iter().filter_map(|(id, satellite)| Some((id, satellite.row?))).collect();
    ensure!(rows.iter().all(|(_, row)| row.last_event != Event::Connected), "a session is open");

    let actor = Actor::demonstration();
    let entries = entries(&made, &actor);
    transaction.execute(&entries.statement(INSERT), &entries.parameters())?;
    let rows = projected(&rows);
    transaction.execute(&rows.statement(PROJECT), &rows.parameters())?;
    Ok(())
}

impl Satellite {
    fn decide(&mut self, edge: &Edge, profile: &Profile) -> anyhow::Result<Transition> {
        let session = self.row.as_ref().map_or(Session(0), |row| row.session);
        let signal = match edge.kind {
            Kind::Connect => Signal::Connect,
            Kind::Disconnect(reason) => Signal::Disconnect { session, reason },
            Kind::Lost => Signal::Lost { session, reason: Reason::HeartbeatTimeout },
        };
        if let Some(row) = self.row.as_mut().filter(|row| row.last_event == Event::Connected) {
            row.last_heartbeat_at = Some(edge.heard);
        }
        let watermark = Watermark { observed_at: edge.at, resumption: None, grace: Duration::ZERO };
        let (row, at) = (self.row.as_ref(), edge.at);
        let decision = lifecycle::next(edge.satellite, profile, row, signal, at, at, &watermark)?;
        let Decision::Append(mut transition) = decision else {
            anyhow::bail!("{edge:?} changes nothing");
        };
        self.row = Some(lifecycle::project(self.row.as_ref(), &transition)?);
        let before = self.flapping.mark(at);
        self.flapping.edge(at, &flapping::Rules::default());
        transition.mark_flapping(before, self.flapping.mark(at));
        Ok(*transition)
    }
}

fn entries<'a>(made: &'a [Made], actor: &'a Actor) -> Columns<'a, Made> {
    let state = |state: &Option<State>| state.as_ref().map(|state| Json(StateJson::from(state)));
    Columns::of(made)
        .column("entity_id", "uuid", |it| it.transition.satellite)
        .column("revision", "bigint", |it| it.transition.revision)
        .column("change_id", "uuid", |it| it.change)
        .column("event", "text", |it| it.transition.event.as_str())
        .column("reason", "text", |it| it.transition.reason.as_str())
        .column("session", "bigint", |it| it.transition.session)
        .column("prev", "jsonb", |it| state(&it.transition.prev))
        .column("next", "jsonb", |it| state(&it.transition.next))
        .column("occurred_at", "timestamptz", |it| it.transition.occurred_at)
        .column("recorded_at", "timestamptz", |it| it.at)
        .value("kind", "text", KIND)
        .value("schema_version", "smallint", SCHEMA_VERSION)
        .value("actor_type", "text", actor.kind.as_str())
        .value("actor_id", "text", actor.id.as_str())
}

fn projected(rows: &[(SatelliteId, Connection)]) -> Columns<'_, (SatelliteId, Connection)> {
    Columns::of(rows)
        .column("satellite_id", "uuid", |(id, _)| *id)
        .column("session", "bigint", |(_, row)| row.session)
        .column("revision", "bigint", |(_, row)| row.revision)
        .column("event", "text", |(_, row)| row.last_event.as_str())
        .column("last_heartbeat_at", "timestamptz", |(_, row)| row.last_heartbeat_at)
}
