//! The live sessions of this pod, fenced: an entry is replaced only by a newer session and removed
//! only by its own.
//!
//! The registry is a convenience of one pod, for reaching its sockets. Which session is current is
//! decided in the log and nowhere else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::lifecycle::{SatelliteId, Session};

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
}

/// See the module.
#[derive(Default)]
pub struct Registry {
    sessions: Mutex<HashMap<SatelliteId, Live>>,
}

impl Registry {
    /// Enters a session. An older one of the same satellite is told to end. Returns false when a
    /// newer one is already here: then it is the caller that has to end.
    pub fn enter(
        &self,
        satellite: SatelliteId,
        session: Session,
        commands: mpsc::Sender<Command>,
    ) -> bool {
        match self.lock().entry(satellite) {
            Entry::Vacant(entry) => {
                entry.insert(Live { session, commands });
                true
            }
            Entry::Occupied(mut entry) if entry.get().session < session => {
                tell(entry.get(), Command::Superseded);
                entry.insert(Live { session, commands });
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
        assert!(registry.enter(ID, Session(1), first.clone()));
        assert!(registry.enter(ID, Session(2), second));
        assert_eq!(first_hears.try_recv(), Ok(Command::Superseded));
        assert!(!registry.enter(ID, Session(1), first));
        assert!(second_hears.try_recv().is_err());
    }

    #[test]
    fn an_old_session_that_leaves_late_does_not_take_the_new_one_out() {
        let registry = Registry::default();
        let (commands, _hears) = mpsc::channel(COMMANDS);
        registry.enter(ID, Session(1), commands.clone());
        registry.enter(ID, Session(2), commands);
        registry.leave(ID, Session(1));
        assert_eq!(registry.held(&[ID]), [(ID, Session(2))]);
        registry.leave(ID, Session(2));
        assert!(registry.is_empty());
    }

    #[test]
    fn only_the_named_session_is_told() {
        let registry = Registry::default();
        let (commands, mut hears) = mpsc::channel(COMMANDS);
        registry.enter(ID, Session(2), commands);
        registry.end(ID, Session(1), Command::Removed);
        assert!(hears.try_recv().is_err());
        registry.end(ID, Session(2), Command::Removed);
        assert_eq!(hears.try_recv(), Ok(Command::Removed));
    }
}
