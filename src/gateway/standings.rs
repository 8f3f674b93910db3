//! What each session of this pod was last told of its satellite's standing.
//!
//! Two tell it: the session itself, which reads after its connect, and the task that follows the
//! changes. Whoever comes late changes nothing: only a newer standing replaces one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::lifecycle::{SatelliteId, Session};
use crate::standing::Standing;

/// What a session is told; none before the first look.
pub type Told = Option<Arc<Standing>>;

struct Ear {
    session: Session,
    tell: watch::Sender<Told>,
}

/// See the module.
#[derive(Default)]
pub struct Standings {
    ears: Mutex<HashMap<SatelliteId, Ear>>,
}

/// A session's place; leaves with it.
pub struct Place {
    standings: Arc<Standings>,
    satellite: SatelliteId,
    session: Session,
}

impl Standings {
    /// Enters a session. Enter before reading: what is changed after the read is told.
    pub fn enter(
        self: &Arc<Self>,
        satellite: SatelliteId,
        session: Session,
    ) -> (Place, watch::Receiver<Told>) {
        let (tell, told) = watch::channel(None);
        let ear = Ear { session, tell };
        match self.lock().entry(satellite) {
            Entry::Vacant(entry) => {
                entry.insert(ear);
            }
            Entry::Occupied(mut entry) if entry.get().session < session => {
                entry.insert(ear);
            }
            // A newer one is here: this one is about to hear that it is over.
            Entry::Occupied(_) => {}
        }
        (Place { standings: self.clone(), satellite, session }, told)
    }

    /// Tells a satellite's session, if it is here and knows less.
    pub fn tell(&self, satellite: SatelliteId, standing: Standing) {
        if let Some(ear) = self.lock().get(&satellite) {
            ear.tell.send_if_modified(|told| {
                let news = told.as_ref().is_none_or(|told| told.change < standing.change);
                if news {
                    *told = Some(Arc::new(standing));
                }
                news
            });
        }
    }

    /// Which of these satellites are here.
    pub fn held(&self, satellites: impl Iterator<Item = SatelliteId>) -> Vec<SatelliteId> {
        let ears = self.lock();
        satellites.filter(|id| ears.contains_key(id)).collect()
    }

    /// The map is valid after a panic elsewhere: every change to it is one call.
    fn lock(&self) -> MutexGuard<'_, HashMap<SatelliteId, Ear>> {
        self.ears.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Entry::Occupied(entry) = self.standings.lock().entry(self.satellite)
            && entry.get().session == self.session
        {
            entry.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assignments::Assigned;
    use uuid::Uuid;

    const ID: SatelliteId = SatelliteId(Uuid::from_u128(1));

    fn standing(change: i64) -> Standing {
        let assigned = Assigned::nothing().expect("a list");
        Standing { change, token_version: Some(1), label: String::new(), assigned }
    }

    fn heard(told: &watch::Receiver<Told>) -> Option<i64> {
        told.borrow().as_ref().map(|standing| standing.change)
    }

    #[test]
    fn an_older_standing_that_comes_late_is_not_told() {
        let standings = Arc::new(Standings::default());
        let (_place, told) = standings.enter(ID, Session(1));
        standings.tell(ID, standing(5));
        standings.tell(ID, standing(4));
        assert_eq!(heard(&told), Some(5));
        standings.tell(ID, standing(6));
        assert_eq!(heard(&told), Some(6));
    }

    #[test]
    fn only_the_newest_session_is_told_and_an_older_one_takes_nothing_with_it() {
        let standings = Arc::new(Standings::default());
        let (older, first) = standings.enter(ID, Session(1));
        let (_newer, second) = standings.enter(ID, Session(2));
        drop(older);
        let (late, third) = standings.enter(ID, Session(1));
        standings.tell(ID, standing(1));
        assert_eq!((heard(&first), heard(&second), heard(&third)), (None, Some(1), None));
        drop(late);
        assert_eq!(standings.held([ID].into_iter()), [ID]);
    }
}
