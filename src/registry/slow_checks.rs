//! Who may verify a slow digest, and when.
//!
//! A few verifications run at once, and a few more wait. Strangers with wrong tokens can ask for any number of them, for
//! any satellite whose id they know, so places are shared by who asks. When all are taken, a newcomer takes the place of
//! one that waits if that one has less right to it: one of an origin whose authentications failed lately comes after one
//! of any other, and then whoever has the more places comes after. Those that wait have their turn in that order too.
//! So whatever others ask for, the first verification of an origin that is not suspect waits only for those that run, and
//! for first ones of other such origins.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::sync::oneshot;

use crate::domain::lifecycle::SatelliteId;

/// Slow verifications that run at once. Each takes a core.
const AT_ONCE: usize = 2;

/// Slow verifications that run or wait. Each takes tens of milliseconds, so all of them are done before an agent gives
/// up.
const PLACES: usize = 32;

/// The most of those of one satellite, so that strangers that know its id keep out no other. An agent itself has one,
/// or two if it comes back before it was answered.
const PLACES_OF_ONE: usize = 4;

/// Who asks for a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asker {
    /// What is charged for its failures.
    pub origin: IpNet,
    /// An authentication from there failed lately, and none succeeded.
    pub is_suspect: bool,
}

/// The places, taken and free.
#[derive(Default)]
pub struct SlowChecks(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    checks: Vec<Check>,
}

struct Check {
    number: u64,
    satellite: SatelliteId,
    asker: Asker,
    stage: Stage,
}

enum Stage {
    Waits(oneshot::Sender<()>),
    Runs,
    /// It needs no core any more, only its place.
    Verified,
}

impl Check {
    fn waits(&self) -> bool {
        matches!(self.stage, Stage::Waits(_))
    }
}

/// A place, until dropped.
pub struct Place {
    all: Arc<SlowChecks>,
    number: u64,
    turn: Option<oneshot::Receiver<()>>,
}

impl SlowChecks {
    /// A place for a verification of this satellite's token; none if all are taken by those with no less right.
    pub fn enter(self: &Arc<Self>, satellite: SatelliteId, asker: Asker) -> Option<Place> {
        let mut state = self.lock();
        let of_this = |check: &Check| check.satellite == satellite;
        if state.checks.iter().filter(|check| of_this(check)).count() >= PLACES_OF_ONE {
            state.displace(asker, of_this)?;
        } else if state.checks.len() >= PLACES {
            state.displace(asker, |_| true)?;
        }
        let (start, turn) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.checks.push(Check { number, satellite, asker, stage: Stage::Waits(start) });
        state.start_next();
        Some(Place { all: self.clone(), number, turn: Some(turn) })
    }

    /// Valid after a panic elsewhere: nothing here can panic halfway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What decides between two: the greater has less right to a place.
    fn rank(&self, asker: Asker, places: usize) -> (bool, usize) {
        let of_origin = self.checks.iter().filter(|check| check.asker.origin == asker.origin);
        (asker.is_suspect, of_origin.count() + places)
    }

    /// Takes the place of one that waits, has less right to it than a newcomer, and came last.
    fn displace(&mut self, newcomer: Asker, which: impl Fn(&Check) -> bool) -> Option<()> {
        let waiting = self.checks.iter().enumerate();
        let waiting = waiting.filter(|(_, check)| check.waits() && which(check));
        let worst = waiting.max_by_key(|(_, check)| (self.rank(check.asker, 0), check.number));
        let (nth, check) = worst?;
        if self.rank(check.asker, 0) <= self.rank(newcomer, 1) {
            return None;
        }
        self.checks.swap_remove(nth);
        Some(())
    }

    fn start_next(&mut self) {
        let runs = |check: &&Check| matches!(check.stage, Stage::Runs);
        while self.checks.iter().filter(runs).count() < AT_ONCE {
            let waiting = self.checks.iter().enumerate().filter(|(_, check)| check.waits());
            let first = waiting.min_by_key(|(_, check)| (self.rank(check.asker, 0), check.number));
            let Some((nth, _)) = first else { return };
            if let Stage::Waits(start) = std::mem::replace(&mut self.checks[nth].stage, Stage::Runs)
            {
                // One that no longer waits for its turn leaves by itself.
                start.send(()).ok();
            }
        }
    }
}

impl Place {
    /// Waits for its turn; false if the place was taken from it.
    pub async fn turn(&mut self) -> bool {
        match self.turn.take() {
            Some(turn) => turn.await.is_ok(),
            None => true,
        }
    }

    /// Leaves its core to the next, and keeps the place.
    pub fn is_verified(&self) {
        let mut state = self.all.lock();
        for check in state.checks.iter_mut().filter(|check| check.number == self.number) {
            check.stage = Stage::Verified;
        }
        state.start_next();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.all.lock();
        state.checks.retain(|check| check.number != self.number);
        state.start_next();
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn id(n: usize) -> SatelliteId {
        SatelliteId(uuid::Uuid::from_u128(n as u128))
    }

    fn from(n: u32) -> Asker {
        Asker { origin: std::net::IpAddr::from(n.to_be_bytes()).into(), is_suspect: false }
    }

    fn suspect(n: u32) -> Asker {
        Asker { is_suspect: true, ..from(n) }
    }

    /// Whether its turn has come; none if its place was taken.
    fn turn(place: &mut Place) -> Option<bool> {
        match place.turn.as_mut()?.try_recv() {
            Ok(()) => Some(true),
            Err(TryRecvError::Empty) => Some(false),
            Err(TryRecvError::Closed) => None,
        }
    }

    /// As many places as this origin gets, four a satellite.
    fn fill(all: &Arc<SlowChecks>, asker: Asker, satellites: std::ops::Range<usize>) -> Vec<Place> {
        satellites.flat_map(|n| std::iter::from_fn(move || all.enter(id(n), asker))).collect()
    }

    #[test]
    fn one_satellite_has_a_few_places_and_the_others_theirs() {
        let all = Arc::<SlowChecks>::default();
        let mut of_one = fill(&all, from(1), 1..2);
        assert_eq!(of_one.len(), PLACES_OF_ONE);
        let of_others = fill(&all, from(1), 2..100);
        assert_eq!(of_one.len() + of_others.len(), PLACES);
        assert!(all.enter(id(1_000), from(1)).is_none(), "no place is left for this origin");
        drop(of_one.pop());
        assert!(all.enter(id(1_000), from(1)).is_some());
        assert!(all.enter(id(1), from(1)).is_some(), "it was given back");
        drop((of_one, of_others));
        assert!(all.lock().checks.is_empty(), "nothing is remembered");
    }

    #[test]
    fn whoever_comes_from_another_origin_is_the_next_to_run_however_many_wait() {
        let all = Arc::<SlowChecks>::default();
        let mut crowd = fill(&all, from(1), 1..100);
        let mut other = all.enter(id(1_000), from(2)).expect("a place");
        assert_eq!(crowd.iter_mut().filter_map(turn).count(), PLACES - 1, "one lost its place");
        assert_eq!(turn(&mut other), Some(false));
        drop(crowd.remove(0));
        assert_eq!(turn(&mut other), Some(true));
        // A satellite's own places are shared in the same way.
        let mut again = all.enter(id(2), from(3)).expect("a place");
        drop(crowd.remove(0));
        assert_eq!(turn(&mut again), Some(true));
    }

    #[test]
    fn suspects_from_any_number_of_origins_come_behind_everybody_else() {
        let all = Arc::<SlowChecks>::default();
        let mut crowd: Vec<Place> =
            (1..).map_while(|n| all.enter(id(n as usize / 2), suspect(n))).collect();
        assert_eq!(crowd.len(), PLACES);
        assert!(all.enter(id(1_000), suspect(1_000)).is_none());
        let mut fleet = fill(&all, from(2_000), 2_000..2_002);
        assert_eq!(fleet.len(), 2 * PLACES_OF_ONE);
        drop(crowd.drain(..AT_ONCE));
        let running = fleet.iter_mut().filter_map(turn).filter(|runs| *runs).count();
        assert_eq!(running, AT_ONCE);
    }

    #[test]
    fn whoever_stops_waiting_leaves_its_place_to_the_next() {
        let all = Arc::<SlowChecks>::default();
        let mut places = fill(&all, from(1), 1..2);
        drop(places.drain(1..3));
        assert_eq!(turn(&mut places[1]), Some(true));
        assert_eq!(all.lock().checks.len(), 2);
    }

    #[test]
    fn a_verified_one_keeps_its_place_and_no_core() {
        let all = Arc::<SlowChecks>::default();
        let mut places = fill(&all, from(1), 1..2);
        places[0].is_verified();
        assert_eq!(turn(&mut places[2]), Some(true));
        assert_eq!(turn(&mut places[3]), Some(false));
        assert!(all.enter(id(1), from(1)).is_none());
    }
}
