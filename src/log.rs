//! The log of transitions: the only module that names `entity_transitions` in SQL.
//!
//! [`append`] is the only writer (but for [`made_past`], before the first pod); [`read`] reads, and [`canonical`] for seals; [`partitions`] makes
//! room ahead and drops what is old, whole partitions at a time. What they promise:
//!
//! * A transition and its projected row are in one commit, or neither is.
//! * Positions are 1, 2, 3 … in commit order without a gap, so that whoever has read up to `p`
//!   reads on with `position > p` and misses nothing.
//! * An edge that is tried again after an unknown outcome is in the log once.
//! * What retention dropped is below the [`horizon`], and nothing above it is missing.

use postgres_types::{FromSql, ToSql};
use time::OffsetDateTime;
use tokio_postgres::types::Json;
use uuid::Uuid;

use crate::contract::wire::{self, Actor, GoodbyeJson, StateJson, Timestamp, TransitionJson};
use crate::contract::word::Word;
use crate::domain::lifecycle::{
    Event, Position, Reason, Revision, SatelliteId, Session, State, Transition,
};
use crate::domain::marks::{Goodbye, Marks};

pub mod append;
pub(crate) mod audit;
pub(crate) mod canonical;
mod columns;
pub(crate) mod continuity;
mod disabled_then;
pub(crate) mod fleet_then;
mod held;
pub mod history;
pub(crate) mod intervals;
pub(crate) mod listed;
pub(crate) mod locked_rows;
pub(crate) mod made_past;
pub(crate) mod partitions;
pub(crate) mod past;
pub(crate) mod read;
pub(crate) mod rebuild;
pub mod request;
pub(crate) mod retention;
pub(crate) mod rights;
pub(crate) mod seal;
pub(crate) mod timeline;
pub mod transaction;
pub mod watermark;
pub(crate) mod what_if;
pub mod window;
pub(crate) mod within;

pub use partitions::horizon;

/// The identity of a change, made before it is first tried; also the message id on the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromSql, ToSql)]
#[postgres(transparent)]
pub struct ChangeId(pub Uuid);

impl ChangeId {
    /// A new one (UUID version 7: ordered by time).
    pub fn new() -> ChangeId {
        ChangeId(Uuid::now_v7())
    }
}

impl Default for ChangeId {
    fn default() -> ChangeId {
        ChangeId::new()
    }
}

/// The log's table; its partitions' names begin with this.
const TABLE: &str = "entity_transitions";

/// What the log records; transitions of other kinds may follow.
pub const KIND: &str = "satellite-connection";

/// The form in which `prev` and `next` are stored. Readers of a later version upcast older rows.
pub const SCHEMA_VERSION: i16 = 1;

/// One row of the log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its place in the whole log.
    pub position: Position,
    /// Its place among those of its satellite.
    pub revision: Revision,
    /// Its identity.
    pub change: ChangeId,
    /// Whose.
    pub satellite: SatelliteId,
    /// What happened, as stored.
    pub event: Word<Event>,
    /// Why, as stored.
    pub reason: Word<Reason>,
    /// In which session.
    pub session: Session,
    /// The state before.
    pub prev: Option<StateJson>,
    /// The state after.
    pub next: Option<StateJson>,
    /// Who caused it.
    pub actor: Actor,
    /// The trace it belongs to, where there is one.
    pub traceparent: Option<String>,
    /// What it belongs to.
    pub marks: Marks,
    /// When it happened.
    pub occurred_at: OffsetDateTime,
    /// When the log took it.
    pub recorded_at: OffsetDateTime,
}

impl Entry {
    /// The transition, for folding; `None` where a later version stored a word unknown here.
    pub fn transition(&self) -> Option<Transition> {
        Some(Transition {
            satellite: self.satellite,
            revision: self.revision,
            event: self.event.known()?,
            reason: self.reason.known()?,
            session: self.session,
            prev: self.prev.clone().map(State::from),
            next: self.next.clone().map(State::from),
            occurred_at: self.occurred_at,
            marks: self.marks.clone(),
        })
    }

    /// The form outsiders see.
    pub fn to_json(&self) -> TransitionJson {
        let delta = wire::delta(self.prev.as_ref(), self.next.as_ref());
        TransitionJson {
            position: self.position.0,
            revision: self.revision.0,
            change_id: self.change.0,
            kind: KIND.to_owned(),
            id: self.satellite.0,
            event: self.event.clone(),
            reason: self.reason.clone(),
            session: self.session.0,
            prev: self.prev.clone(),
            next: self.next.clone(),
            changed_fields: delta.iter().map(|(name, _)| name.clone()).collect(),
            delta: delta.into_iter().collect(),
            actor: self.actor.clone(),
            outage_id: self.marks.outage.map(|outage| outage.0),
            maintenance_id: self.marks.maintenance.map(|maintenance| maintenance.0),
            goodbye: self.marks.goodbye.as_ref().map(GoodbyeJson::from),
            occurred_at: Timestamp::new(self.occurred_at),
            recorded_at: Timestamp::new(self.recorded_at),
        }
    }

    fn from_row(row: &tokio_postgres::Row) -> Result<Entry, tokio_postgres::Error> {
        let state = |column| {
            row.try_get::<_, Option<Json<StateJson>>>(column)
                .map(|json| json.map(|Json(json)| json))
        };
        Ok(Entry {
            position: row.try_get("position")?,
            revision: row.try_get("revision")?,
            change: row.try_get("change_id")?,
            satellite: row.try_get("entity_id")?,
            event: row.try_get("event")?,
            reason: row.try_get("reason")?,
            session: row.try_get("session")?,
            prev: state("prev")?,
            next: state("next")?,
            actor: Actor { kind: row.try_get("actor_type")?, id: row.try_get("actor_id")? },
            traceparent: row.try_get("traceparent")?,
            marks: marks(row)?,
            occurred_at: row.try_get("occurred_at")?,
            recorded_at: row.try_get("recorded_at")?,
        })
    }
}

fn marks(row: &tokio_postgres::Row) -> Result<Marks, tokio_postgres::Error> {
    let goodbye: Option<Json<GoodbyeJson>> = row.try_get("goodbye")?;
    Ok(Marks {
        outage: row.try_get("outage_id")?,
        maintenance: row.try_get("maintenance_id")?,
        goodbye: goodbye.map(|Json(goodbye)| Goodbye::from(goodbye)),
    })
}
