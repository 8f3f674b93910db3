//! The live sessions of this pod, fenced: an entry is replaced only by a newer session and removed
//! only by its own.
//!
//! The registry is a convenience of one pod, for reaching its sockets. Which session is current is
//! decided in the log and nowhere else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::lifecycle::{SatelliteId, Session};
use crate::liveness;

/// What a session's socket is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// End: a newer session, here or on another pod, has taken over.
    Superseded,
    /// End: the satellite is no longer registered.
    Removed,
    /// End: the satellite has a new token.
    TokenRotated,
}

/// Commands that wait for one socket: each of them ends it, so one is enough.
pub const COMMANDS: usize = 1;

struct Live {
    session: Session,
    commands: mpsc::Sender<Command>,
    /// When it was last heard, by the pod's monotonic clock.
    heard_at: Instant,
    /// Its own offline threshold in milliseconds, if it has one.
    threshold_ms: Option<i64>,
}

/// How the sessions of this pod stand.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// How many there are.
    pub sessions: u64,
    /// How many have missed a heartbeat, so that the next one missed is the last.
    pub late: u64,
    /// Those that were not heard within their threshold.
    pub due: Vec<(SatelliteId, Session)>,
}

/// See the module.
#[derive(Default)]
pub struct Registry {
    sessions: Mutex<HashMap<SatelliteId, Live>>,
}

impl Registry {
    /// Enters a session. An older one of the same satellite is told to end. Returns false when a
    /// newer one is already here: then it is the caller that has to end. `threshold_ms` is the
    /// satellite's own offline threshold.
    pub fn enter(
        &self,
        satellite: SatelliteId,
        session: Session,
        commands: mpsc::Sender<Command>,
        threshold_ms: Option<i64>,
    ) -> bool {
        let live = Live { session, commands, heard_at: Instant::now(), threshold_ms };
        match self.lock().entry(satellite) {
            Entry::Vacant(entry) => {
                entry.insert(live);
                true
            }
            Entry::Occupied(mut entry) if entry.get().session < session => {
                tell(entry.get(), Command::Superseded);
                entry.insert(live);
                true
            }
            Entry::Occupied(_) => false,
        }
    }

    /// Takes a session out, if it is still the one that is here.
    pub fn leave(&self, satellite: SatelliteId, session: Session) {
        if let Entry::Occupied(entry) = self.lock().entry(satellite)
            && entry.get().session == session
        {
            entry.remove();
        }
    }

    /// Tells a session to end, if it is here.
    pub fn end(&self, satellite: SatelliteId, session: Session, command: Command) {
        if let Some(live) = self.lock().get(&satellite)
            && live.session == session
        {
            tell(live, command);
        }
    }

    /// Calls `then` while it is certain that the session has not left. `then` must not block.
    pub fn while_live(&self, satellite: SatelliteId, session: Session, then: impl FnOnce()) {
        let sessions = self.lock();
        if sessions.get(&satellite).is_some_and(|live| live.session == session) {
            then();
        }
    }

    /// Notes that a session was heard just now.
    pub fn heard(&self, satellite: SatelliteId, session: Session) {
        if let Some(live) = self.lock().get_mut(&satellite)
            && live.session == session
        {
            live.heard_at = Instant::now();
        }
    }

    /// A satellite has another offline threshold of its own from now on, or none.
    pub fn set_threshold(&self, satellite: SatelliteId, threshold_ms: Option<i64>) {
        if let Some(live) = self.lock().get_mut(&satellite) {
            live.threshold_ms = threshold_ms;
        }
    }

    /// How the sessions stand at `now`. One is late when less than a heartbeat's interval, or half
    /// of a threshold shorter than two of those, is left of its time.
    pub fn look(&self, now: Instant, default_threshold: Duration, interval: Duration) -> Look {
        let sessions = self.lock();
        let mut look = Look { sessions: sessions.len() as u64, ..Look::default() };
        for (satellite, live) in sessions.iter() {
            let threshold = liveness::threshold(live.threshold_ms, default_threshold);
            let silence = now.saturating_duration_since(live.heard_at);
            if silence + interval.min(threshold / 2) > threshold {
                look.late += 1;
            }
            if silence > threshold {
                look.due.push((*satellite, live.session));
            }
        }
        look
    }

    /// Whether this very session is here.
    pub fn holds(&self, satellite: SatelliteId, session: Session) -> bool {
        self.lock().get(&satellite).is_some_and(|live| live.session == session)
    }

    /// Which of these satellites have a session here, and which.
    pub fn held(&self, satellites: &[SatelliteId]) -> Vec<(SatelliteId, Session)> {
        let sessions = self.lock();
        let held = |id: &SatelliteId| sessions.get(id).map(|live| (*id, live.session));
        satellites.iter().filter_map(held).collect()
    }

    /// How many sessions are here.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether none is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The map is valid after a panic elsewhere: every change to it is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<SatelliteId, Live>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that has a command waiting is ending already; one that is gone has ended.
fn tell(live: &Live, command: Command) {
    match live.commands.try_send(command) {
        Ok(()) | Err(mpsc::error::TrySendError::Full(_) | mpsc::error::TrySendError::Closed(_)) => {
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    const ID: SatelliteId = SatelliteId(Uuid::from_u128(1));

    #[test]
    fn a_newer_session_ends_the_older_one_and_never_the_other_way_round() {
        let registry = Registry::default();
        let (first, mut first_hears) = mpsc::channel(COMMANDS);
        let (second, mut second_hears) = mpsc::channel(COMMANDS);
        assert!(registry.enter(ID, Session(1), first.clone(), None));
        assert!(registry.enter(ID, Session(2), second, None));
        assert_eq!(first_hears.try_recv(), Ok(Command::Superseded));
        assert!(!registry.enter(ID, Session(1), first, None));
        assert!(second_hears.try_recv().is_err());
    }

    #[test]
    fn an_old_session_that_leaves_late_does_not_take_the_new_one_out() {
        let registry = Registry::default();
        let (commands, _hears) = mpsc::channel(COMMANDS);
        registry.enter(ID, Session(1), commands.clone(), None);
        registry.enter(ID, Session(2), commands, None);
        registry.leave(ID, Session(1));
        assert_eq!(registry.held(&[ID]), [(ID, Session(2))]);
        registry.leave(ID, Session(2));
        assert!(registry.is_empty());
    }

    #[test]
    fn only_the_named_session_is_told() {
        let registry = Registry::default();
        let (commands, mut hears) = mpsc::channel(COMMANDS);
        registry.enter(ID, Session(2), commands, None);
        registry.end(ID, Session(1), Command::Removed);
        assert!(hears.try_recv().is_err());
        registry.end(ID, Session(2), Command::Removed);
        assert_eq!(hears.try_recv(), Ok(Command::Removed));
    }

    #[test]
    fn who_is_late_and_who_is_due_follows_from_when_each_was_heard_and_its_threshold() {
        let registry = Registry::default();
        let (commands, _hears) = mpsc::channel(COMMANDS);
        let id = |n| SatelliteId(Uuid::from_u128(n));
        registry.enter(id(1), Session(1), commands.clone(), None);
        registry.enter(id(2), Session(1), commands, Some(10_000));
        let entered = Instant::now();
        let look = |seconds| {
            let now = entered + Duration::from_secs(seconds);
            registry.look(now, Duration::from_secs(45), Duration::from_secs(15))
        };
        let counts = |look: &Look| (look.sessions, look.late, look.due.len());
        assert_eq!(counts(&look(4)), (2, 0, 0));
        assert_eq!(counts(&look(6)), (2, 1, 0));
        assert_eq!(look(11).due, [(id(2), Session(1))]);
        assert_eq!(counts(&look(31)), (2, 2, 1));
        assert_eq!(counts(&look(46)), (2, 2, 2));
        registry.set_threshold(id(2), None);
        assert_eq!(counts(&look(11)), (2, 0, 0));
        registry.heard(id(1), Session(2));
        assert_eq!(counts(&look(46)), (2, 2, 2), "another session was heard");
    }
}
