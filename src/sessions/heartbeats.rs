//! The newest heartbeat of each session of this pod, until it is written (see [`crate::presence::flusher`]).

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::domain::lifecycle::{SatelliteId, Session, SessionKey};
use crate::platform::database_clock::Moment;
use crate::registry::satellites::AgentInfo;

/// What waits to be written for one session.
pub(crate) struct Beat {
    pub session: Session,
    /// When it was heard; none if that need not be written.
    pub at: Option<Moment>,
    pub agent_info: AgentInfo,
}

/// The newest heartbeat of each session, until it is written.
#[derive(Default)]
pub struct Heartbeats {
    waiting: Mutex<HashMap<SatelliteId, Beat>>,
}

impl Heartbeats {
    /// Notes when a session was heard.
    pub fn beat(&self, key: SessionKey, at: Moment, agent_info: AgentInfo) {
        self.put(key.satellite, Beat { session: key.session, at: Some(at), agent_info });
    }

    /// Notes what an agent said of itself, or was told, when its heartbeat needs no write: with a connect, or while the
    /// pod vouches for it.
    pub fn said(&self, key: SessionKey, agent_info: AgentInfo) {
        if agent_info != AgentInfo::default() {
            self.put(key.satellite, Beat { session: key.session, at: None, agent_info });
        }
    }

    /// Keeps the newer of two heartbeats, and the newest value of each thing the agent said of itself.
    pub(crate) fn put(&self, satellite: SatelliteId, beat: Beat) {
        let mut waiting = self.lock();
        let Some(other) = waiting.remove(&satellite) else {
            waiting.insert(satellite, beat);
            return;
        };
        let newer_first = (beat.session, beat.at) >= (other.session, other.at);
        let (mut newer, older) = if newer_first { (beat, other) } else { (other, beat) };
        newer.agent_info = newer.agent_info.after(older.agent_info);
        waiting.insert(satellite, newer);
    }

    /// Takes everything that waits.
    pub(crate) fn take(&self) -> Vec<(SatelliteId, Beat)> {
        std::mem::take(&mut *self.lock()).into_iter().collect()
    }

    /// The map is valid after a panic elsewhere: every change to it is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<SatelliteId, Beat>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ID: SatelliteId = SatelliteId(Uuid::from_u128(1));

    fn key(session: i64) -> SessionKey {
        SessionKey { satellite: ID, session: Session(session) }
    }

    #[test]
    fn the_newest_heartbeat_waits_and_nothing_an_agent_said_is_lost() {
        let heartbeats = Heartbeats::default();
        let said =
            |version: &str| AgentInfo { version: Some(version.to_owned()), ..AgentInfo::default() };
        heartbeats.beat(key(1), Moment::now(), said("0.4"));
        heartbeats.beat(key(2), Moment::now(), AgentInfo::default());
        let old = Beat { session: Session(1), at: Some(Moment::now()), agent_info: said("0.3") };
        heartbeats.put(ID, old);
        let taken = heartbeats.take();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].1.session, Session(2));
        assert_eq!(taken[0].1.agent_info, said("0.4"));
    }

    #[test]
    fn what_is_said_with_a_connect_is_no_heartbeat_and_waits_for_one() {
        let heartbeats = Heartbeats::default();
        let agent_info =
            AgentInfo { capabilities: Some(vec!["http".to_owned()]), ..AgentInfo::default() };
        heartbeats.said(key(1), agent_info.clone());
        assert_eq!(heartbeats.lock()[&ID].at, None);
        heartbeats.beat(key(1), Moment::now(), AgentInfo::default());
        let taken = heartbeats.take();
        assert!(taken[0].1.at.is_some());
        assert_eq!(taken[0].1.agent_info, agent_info);
    }
}
