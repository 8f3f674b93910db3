//! The lifecycle of a satellite's connection: what may happen, what it leads to, what it fires.
//!
//! Pure: no runtime, no SQL, no clock, no serde. `now` is passed in. Two functions own every rule:
//! [`next`] decides what an [`Signal`] does to a connection, and [`project`] folds a decided
//! [`Transition`] into the current [`Connection`]. The live path, a rebuild and every as-of read
//! call these two and nothing else, which is why they cannot disagree.
//!
//! # The rules
//!
//! | edge \ last edge | none, removed | `connected` | `disconnected` | `heartbeat_lost` |
//! |---|---|---|---|---|
//! | connect | connected, *connect* | connected, *takeover* | connected, *connect* | connected, *connect* |
//! | disconnect | illegal | disconnected | nothing | nothing |
//! | lost | illegal | heartbeat_lost, if offline | nothing | nothing |
//! | recover | illegal | nothing | nothing | connected, *recovered*, if young |
//! | remove | removed | removed | removed | removed |
//!
//! Every edge but connect and remove names its session. A session that is not the current one
//! changes nothing ([`Unchanged::StaleSession`]); one that was never given out is illegal.
//! A connection that was given up and then closes was given up once: that close changes nothing.
//! A loss happened when the heartbeat's time was over (`occurred_at`), not when it was found.
//! A session that ended cleanly stays ended: a heartbeat that was under way cannot revive it.
//! A heartbeat brings a satellite back only while it is no older than the threshold: one that its pod could
//! not tell of in time says nothing about now. Blind time makes it no younger. A satellite that is alive
//! has been heard since on the same socket, so this keeps none away, and whoever is dead stays lost.

use std::time::Duration;

use postgres_types::{FromSql, ToSql};
use strum::{EnumIter, EnumString, IntoStaticStr};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::liveness::{self, Status, Watermark};

/// A registered satellite. Its UUID is the `clientId` its agent authenticates with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromSql, ToSql)]
#[postgres(transparent)]
pub struct SatelliteId(pub Uuid);

impl std::fmt::Display for SatelliteId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// One authenticated connection of a satellite: a number that only grows, per satellite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromSql, ToSql)]
#[postgres(transparent)]
pub struct Session(pub i64);

/// Which session of which satellite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// The satellite.
    pub satellite: SatelliteId,
    /// Its session.
    pub session: Session,
}

/// A transition's place among those of one satellite: 1, 2, 3 … without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromSql, ToSql)]
#[postgres(transparent)]
pub struct Revision(pub i64);

/// A transition's place in the whole log: 1, 2, 3 … in commit order, without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromSql, ToSql)]
#[postgres(transparent)]
pub struct Position(pub i64);

impl Position {
    /// Before the first transition.
    pub const ZERO: Position = Position(0);

    /// The one that follows.
    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }
}

/// What happened: the three edges of a connection, and the removal of its satellite; in the order of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Event {
    /// The satellite authenticated, or was heard again.
    Connected,
    /// The connection ended.
    Disconnected,
    /// The satellite went silent.
    HeartbeatLost,
    /// The satellite was deleted from the registry.
    Removed,
}

impl Event {
    /// The word used in the log and on every wire.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why it happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// A satellite that was away came.
    Connect,
    /// A newer session replaced one that had not ended.
    Takeover,
    /// A heartbeat came on a session already given up.
    Recovered,
    /// The satellite said goodbye with a close frame.
    ClientClose,
    /// The connection broke without a goodbye.
    ConnectionDropped,
    /// No heartbeat within the threshold.
    HeartbeatTimeout,
    /// No heartbeat within the threshold, and the pod that held the session is gone.
    PodLost,
    /// The satellite was deleted.
    Removed,
    /// The satellite's token was replaced.
    TokenRotated,
    /// The service ended the session.
    Shutdown,
}

impl Reason {
    /// The word used in the log and on every wire.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Something that happened to a satellite, before it is decided what it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A satellite authenticated; it takes the next session.
    Connect,
    /// A session's connection ended.
    Disconnect {
        /// The session that ended.
        session: Session,
        /// How it ended.
        reason: Reason,
    },
    /// A session was silent for longer than its threshold.
    Lost {
        /// The silent session.
        session: Session,
        /// What is known of the cause.
        reason: Reason,
    },
    /// A heartbeat came on a session that had been given up.
    Recover {
        /// The session that was heard again.
        session: Session,
    },
    /// The satellite is deleted.
    Remove,
}

/// What the registry says of a satellite, as far as a transition needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The satellite's name.
    pub name: String,
    /// The satellite's region.
    pub region: String,
    /// The offline threshold in force for it.
    pub threshold: Duration,
}

/// The current row of one satellite: what the log folds to. Heartbeats move `last_heartbeat_at`
/// between transitions; everything else changes only by a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The newest session given out.
    pub session: Session,
    /// The newest transition of this satellite.
    pub revision: Revision,
    /// The newest transition's event; `Removed` leaves a tombstone, so that sessions and
    /// revisions go on growing should the same id ever be registered again.
    pub last_event: Event,
    /// The last heartbeat, as far as it is proven; none after a clean end.
    pub last_heartbeat_at: Option<OffsetDateTime>,
    /// Up to when its pod vouches for it, if it does: it was heard shortly before.
    pub vouched_until: Option<OffsetDateTime>,
}

impl Connection {
    /// Up to when it counts as heard.
    fn heard_at(&self) -> Option<OffsetDateTime> {
        self.last_heartbeat_at.max(self.vouched_until)
    }

    /// The state a reader sees at `now`; none once removed. Who was given up stays offline until
    /// heard again, even if a longer threshold would make the aged heartbeat fresh.
    pub fn state(
        &self,
        profile: &Profile,
        now: OffsetDateTime,
        watermark: &Watermark,
    ) -> Option<State> {
        let heard = self.heard_at().filter(|_| self.last_event == Event::Connected);
        (self.last_event != Event::Removed).then(|| State {
            status: liveness::status(heard, now, profile.threshold, watermark),
            name: profile.name.clone(),
            region: profile.region.clone(),
            last_seen_at: self.last_heartbeat_at,
            last_event: Some(self.last_event),
            flapping: false,
        })
    }
}

/// The state of a connection as it is told to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// Computed at the moment of the transition or of the read.
    pub status: Status,
    /// The satellite's name then.
    pub name: String,
    /// The satellite's region then.
    pub region: String,
    /// The last heartbeat, or none after a clean disconnect.
    pub last_seen_at: Option<OffsetDateTime>,
    /// The last edge; none where it is absent or a word this version does not know.
    pub last_event: Option<Event>,
    /// Whether the satellite comes and goes too often, see [`crate::domain::flapping`].
    pub flapping: bool,
}

/// A decided change of one satellite, not yet given its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Whose.
    pub satellite: SatelliteId,
    /// Its place among those of this satellite.
    pub revision: Revision,
    /// What happened.
    pub event: Event,
    /// Why.
    pub reason: Reason,
    /// The session it belongs to; 0 for the removal of a satellite that never connected.
    pub session: Session,
    /// The state before; none for a first edge.
    pub prev: Option<State>,
    /// The state after; none for a removal.
    pub next: Option<State>,
    /// When it happened, by the database's clock; for a loss, until when the satellite counted as
    /// online.
    pub occurred_at: OffsetDateTime,
}

impl Transition {
    /// Marks the states before and after as those of a satellite that flaps.
    pub fn mark_flapping(&mut self, before: bool, after: bool) {
        for (state, flaps) in [(&mut self.prev, before), (&mut self.next, after)] {
            if let Some(state) = state {
                state.flapping = flaps;
            }
        }
    }
}

/// What an edge leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This transition is to be appended.
    Append(Box<Transition>),
    /// The edge changes nothing.
    Nothing(Unchanged),
}

/// Why an edge changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Unchanged {
    /// It names a session that a newer one has replaced, or a satellite that was removed.
    StaleSession,
    /// That session has already ended or was already given up.
    AlreadyEnded,
    /// It was to be given up, but has been heard within its threshold after all.
    StillHeard,
    /// It was to be recovered, but had not been given up.
    NotLost,
    /// It was taken back before it was in the log: whoever was to be let in had gone.
    Withdrawn,
    /// It was to be recovered by a heartbeat that is older than its threshold by now.
    HeardTooLongAgo,
}

impl Unchanged {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// An edge that cannot happen: a fault of the program, never of a satellite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Illegal {
    /// The edge names a session that was never given out.
    #[error(
        "session {named:?} of satellite {satellite} was never given out (newest is {newest:?})"
    )]
    UnknownSession {
        /// Whose.
        satellite: SatelliteId,
        /// The session the edge names.
        named: Session,
        /// The newest session given out.
        newest: Session,
    },
}

/// A transition that does not follow on the row it is folded into: the log is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("satellite {satellite}: revision {found:?} does not follow revision {after:?}")]
pub struct OutOfOrder {
    /// Whose.
    pub satellite: SatelliteId,
    /// The revision that came.
    pub found: Revision,
    /// The revision it came after.
    pub after: Revision,
}

/// Decides at `now` what `signal`, which happened at `happened`, does to a satellite whose row is `current`.
///
/// Both by the database's clock. A loss happened here when it was found, a recovery when the heartbeat was
/// heard. `watermark` is what the pods could see of it. Errors are faults of the caller, see [`Illegal`].
pub fn next(
    satellite: SatelliteId,
    profile: &Profile,
    current: Option<&Connection>,
    signal: Signal,
    happened: OffsetDateTime,
    now: OffsetDateTime,
    watermark: &Watermark,
) -> Result<Decision, Illegal> {
    let newest = current.map_or(Session(0), |row| row.session);
    let last = current.map(|row| row.last_event);
    let heartbeat = current.and_then(|row| row.last_heartbeat_at);
    let heard = current.and_then(Connection::heard_at);

    let mut occurred_at = happened;
    let (event, reason, session, last_seen_at) = match signal {
        Signal::Connect => {
            let reason = match last {
                Some(Event::Connected) => Reason::Takeover,
                _ => Reason::Connect,
            };
            (Event::Connected, reason, Session(newest.0 + 1), Some(happened))
        }
        Signal::Remove => (Event::Removed, Reason::Removed, newest, None),
        Signal::Disconnect { session, .. }
        | Signal::Lost { session, .. }
        | Signal::Recover { session }
            if session > newest =>
        {
            return Err(Illegal::UnknownSession { satellite, named: session, newest });
        }
        Signal::Disconnect { session, .. }
        | Signal::Lost { session, .. }
        | Signal::Recover { session }
            if session < newest || last == Some(Event::Removed) =>
        {
            return Ok(Decision::Nothing(Unchanged::StaleSession));
        }
        Signal::Disconnect { session, reason } => match last {
            Some(Event::Connected) => (Event::Disconnected, reason, session, None),
            _ => return Ok(Decision::Nothing(Unchanged::AlreadyEnded)),
        },
        Signal::Lost { session, reason } => match last {
            Some(Event::Connected) => {
                if liveness::status(heard, happened, profile.threshold, watermark) == Status::Online
                {
                    return Ok(Decision::Nothing(Unchanged::StillHeard));
                }
                if let Some(heard) = heard {
                    occurred_at = liveness::online_until(heard, profile.threshold, watermark);
                }
                (Event::HeartbeatLost, reason, session, heartbeat)
            }
            _ => return Ok(Decision::Nothing(Unchanged::AlreadyEnded)),
        },
        Signal::Recover { session } => match last {
            Some(Event::HeartbeatLost) if now > happened + profile.threshold => {
                return Ok(Decision::Nothing(Unchanged::HeardTooLongAgo));
            }
            Some(Event::HeartbeatLost) => {
                (Event::Connected, Reason::Recovered, session, Some(happened))
            }
            Some(Event::Connected) => return Ok(Decision::Nothing(Unchanged::NotLost)),
            _ => return Ok(Decision::Nothing(Unchanged::AlreadyEnded)),
        },
    };

    Ok(Decision::Append(Box::new(Transition {
        satellite,
        revision: Revision(current.map_or(0, |row| row.revision.0) + 1),
        event,
        reason,
        session,
        prev: current.and_then(|row| row.state(profile, occurred_at, watermark)),
        next: (event != Event::Removed).then(|| State {
            status: if event == Event::Connected { Status::Online } else { Status::Offline },
            name: profile.name.clone(),
            region: profile.region.clone(),
            last_seen_at,
            last_event: Some(event),
            flapping: false,
        }),
        occurred_at,
    })))
}

/// Folds a transition into the row it follows on.
pub fn project(
    current: Option<&Connection>,
    transition: &Transition,
) -> Result<Connection, OutOfOrder> {
    let after = current.map_or(Revision(0), |row| row.revision);
    if transition.revision.0 != after.0 + 1 {
        return Err(OutOfOrder {
            satellite: transition.satellite,
            found: transition.revision,
            after,
        });
    }
    Ok(resume(transition))
}

/// The row after a transition, where those before it are no longer known one by one.
pub fn resume(transition: &Transition) -> Connection {
    Connection {
        session: transition.session,
        revision: transition.revision,
        last_event: transition.event,
        last_heartbeat_at: transition.next.as_ref().and_then(|state| state.last_seen_at),
        vouched_until: None,
    }
}

/// What an automation can subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case", prefix = "satellite.")]
pub enum Trigger {
    /// A satellite came.
    Connected,
    /// A satellite left.
    Disconnected,
    /// A satellite went silent.
    HeartbeatLost,
}

impl Trigger {
    /// The trigger's id, which is its subject on NATS.
    pub fn id(self) -> &'static str {
        self.into()
    }
}

/// The subject of the cleanup signal, which is no trigger.
pub const REMOVED_SUBJECT: &str = "satellite.removed";

/// The trigger a change fires, read from the new state's last event and from nothing else.
/// A removal (no new state) and an absent or unknown last event fire none.
pub fn trigger(next: Option<&State>) -> Option<Trigger> {
    match next?.last_event? {
        Event::Connected => Some(Trigger::Connected),
        Event::Disconnected => Some(Trigger::Disconnected),
        Event::HeartbeatLost => Some(Trigger::HeartbeatLost),
        Event::Removed => None,
    }
}

/// What is told to the world about a transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The body of a trigger.
    Edge {
        /// Whose.
        satellite: SatelliteId,
        /// The state after.
        state: &'a State,
    },
    /// The body of the cleanup signal.
    Removed {
        /// Whose.
        satellite: SatelliteId,
    },
}

/// The subject and payload of a transition; none where it fires nothing.
pub fn announcement(transition: &Transition) -> Option<(&'static str, Payload<'_>)> {
    let satellite = transition.satellite;
    match &transition.next {
        Some(state) => {
            let trigger = trigger(Some(state))?;
            Some((trigger.id(), Payload::Edge { satellite, state }))
        }
        None => (transition.event == Event::Removed)
            .then_some((REMOVED_SUBJECT, Payload::Removed { satellite })),
    }
}

#[cfg(test)]
mod tests;
