//! The lifecycle of a satellite's connection: which signals it gets, which transition follows,
//! which trigger fires.
//!
//! Pure: no runtime, no SQL, no clock, no serde. `now` is passed in. Two functions own every rule:
//! [`next`] decides what a [`Signal`] does to a connection, and [`project`] folds a decided
//! [`Transition`] into the current [`Connection`]. The live path, a rebuild and every as-of read
//! call these two and nothing else, so they cannot disagree.
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
//! Every signal but connect and remove names its session. A session that is not the current one
//! changes nothing ([`Unchanged::StaleSession`]); one that was never given out is illegal. A lost
//! connection that closes later changes nothing: its loss stands. A loss happened when the
//! heartbeat's time was over (`occurred_at`), not when it was found. A session that ended cleanly
//! stays ended: a heartbeat that was in flight cannot revive it. A heartbeat brings a satellite
//! back only while it is no older than the threshold: one that its pod could not report in time
//! says nothing about now. Blind time makes it no younger. A satellite that is alive has been heard
//! since on the same socket, so this keeps none away, and a dead one stays lost.

use std::time::Duration;

use postgres_types::{FromSql, ToSql};
use strum::{EnumIter, EnumString, IntoStaticStr};
use thiserror::Error;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::liveness::{self, Status, Watermark};
use crate::domain::marks::Marks;

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

/// The key of a session: satellite and session number.
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

    /// The next position.
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

/// Why an event happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// A satellite that was offline connected.
    Connect,
    /// A newer session replaced one that had not ended.
    Takeover,
    /// A heartbeat came on a session that was already lost.
    Recovered,
    /// The satellite closed the connection with a close frame.
    ClientClose,
    /// The connection broke without a close frame.
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
    /// An administrator disabled the satellite.
    Disabled,
    /// An administrator ended the session; the satellite may come back.
    Kicked,
}

impl Reason {
    /// The word used in the log and on every wire.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// What happened to a satellite, before it is decided what it changes.
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
        /// The cause, as far as it is known.
        reason: Reason,
    },
    /// A heartbeat came on a session that was lost.
    Recover {
        /// The session that was heard again.
        session: Session,
    },
    /// The satellite is deleted.
    Remove,
}

/// The registry's data about a satellite that a transition needs.
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
    /// The newest transition's event. `Removed` leaves a tombstone, so that sessions and revisions
    /// go on growing if the same id is registered again.
    pub last_event: Event,
    /// The last heartbeat, as far as it is proven; none after a clean end.
    pub last_heartbeat_at: Option<OffsetDateTime>,
    /// Up to when its pod vouches for it, if the pod does: it was heard shortly before.
    pub vouched_until: Option<OffsetDateTime>,
}

impl Connection {
    /// Up to when it counts as heard.
    fn heard_at(&self) -> Option<OffsetDateTime> {
        self.last_heartbeat_at.max(self.vouched_until)
    }

    /// The state that a reader sees at `now`; none once removed. A lost satellite stays offline
    /// until it is heard again, even if a longer threshold would make the aged heartbeat fresh.
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
            flapping_until: None,
        })
    }
}

/// The state of a connection, as transitions and messages carry it.
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
    /// The last edge; none if it is absent or a word that this version does not know.
    pub last_event: Option<Event>,
    /// Where the satellite is flapping: until when, if no edge comes, see [`crate::domain::flapping`].
    pub flapping_until: Option<OffsetDateTime>,
}

/// A decided change of one satellite, without its position in the log yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// The satellite.
    pub satellite: SatelliteId,
    /// Its revision.
    pub revision: Revision,
    /// What happened.
    pub event: Event,
    /// Why it happened.
    pub reason: Reason,
    /// The session it belongs to; 0 for the removal of a satellite that never connected.
    pub session: Session,
    /// The state before; none for a first edge.
    pub prev: Option<State>,
    /// The state after; none for a removal.
    pub next: Option<State>,
    /// When it happened, by the database's clock. For a loss: until when the satellite counted as
    /// online.
    pub occurred_at: OffsetDateTime,
    /// What it belongs to beside its satellite.
    pub marks: Marks,
}

impl Transition {
    /// Marks the states before and after as those of a satellite that is flapping until then.
    pub fn mark_flapping(&mut self, before: Option<OffsetDateTime>, after: Option<OffsetDateTime>) {
        for (state, until) in [(&mut self.prev, before), (&mut self.next, after)] {
            if let Some(state) = state {
                state.flapping_until = until;
            }
        }
    }
}

/// What a signal leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// This transition is to be appended.
    Append(Box<Transition>),
    /// The signal changes nothing.
    Nothing(Unchanged),
}

/// Why a signal changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Unchanged {
    /// It names a session that a newer one has replaced, or a satellite that was removed.
    StaleSession,
    /// That session has already ended or is already lost.
    AlreadyEnded,
    /// It was a loss, but the satellite has been heard within its threshold after all.
    StillHeard,
    /// It was a recovery, but the session was not lost.
    NotLost,
    /// It was withdrawn before it was in the log: the connecting satellite had gone.
    Withdrawn,
    /// It was a recovery by a heartbeat that is older than the threshold by now.
    HeardTooLongAgo,
}

impl Unchanged {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A signal that cannot happen: a fault of the program, never of a satellite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Illegal {
    /// The signal names a session that was never given out.
    #[error(
        "session {named:?} of satellite {satellite} was never given out (newest is {newest:?})"
    )]
    UnknownSession {
        /// The satellite.
        satellite: SatelliteId,
        /// The session that the signal names.
        named: Session,
        /// The newest session given out.
        newest: Session,
    },
}

/// A transition that does not follow on the row it is folded into: the log is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("satellite {satellite}: revision {found:?} does not follow revision {after:?}")]
pub struct OutOfOrder {
    /// The satellite.
    pub satellite: SatelliteId,
    /// The revision of the transition.
    pub found: Revision,
    /// The revision of the row.
    pub after: Revision,
}

/// Decides at `now` what `signal`, which happened at `happened`, does to a satellite whose row is
/// `current`.
///
/// Both moments are by the database's clock. For a loss `happened` is when it was found, for a
/// recovery when the heartbeat was heard. `watermark` says how far the pods observed the satellite.
/// Errors are faults of the caller, see [`Illegal`].
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
            flapping_until: None,
        }),
        occurred_at,
        marks: Marks::default(),
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

/// The row after a transition, if the transitions before it are no longer known one by one.
pub fn resume(transition: &Transition) -> Connection {
    Connection {
        session: transition.session,
        revision: transition.revision,
        last_event: transition.event,
        last_heartbeat_at: transition.next.as_ref().and_then(|state| state.last_seen_at),
        vouched_until: None,
    }
}

/// A trigger that an automation can subscribe to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case", prefix = "satellite.")]
pub enum Trigger {
    /// A satellite connected.
    Connected,
    /// A satellite disconnected.
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

/// What a transition's message says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The body of a trigger.
    Edge {
        /// The satellite.
        satellite: SatelliteId,
        /// The state after.
        state: &'a State,
    },
    /// The body of the cleanup signal.
    Removed {
        /// The satellite.
        satellite: SatelliteId,
    },
}

/// The subject and payload of a transition; none if it fires nothing.
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
