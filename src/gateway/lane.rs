//! A number of permits that are given out in turn: first to those that took little lately, then to those that
//! took much, and within each group to the one that has waited longest.
//!
//! If the first in line does not fit, those behind it wait as well; otherwise it would never fit.
//! Guests, which have a lane of their own elsewhere, come after all others, and nothing waits for a guest.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

pub struct Lane(Mutex<State>);

#[derive(Default)]
struct State {
    free: u64,
    /// Those that took little lately, and the others.
    waiting: [VecDeque<Waiting>; 2],
    /// The same of guests.
    guests: [VecDeque<Waiting>; 2],
}

struct Waiting {
    count: u64,
    to: oneshot::Sender<Given>,
}

/// Some permits, until dropped.
pub struct Given {
    lane: Arc<Lane>,
    count: u64,
}

impl Drop for Given {
    fn drop(&mut self) {
        self.lane.lock().free += self.count;
        self.lane.give();
    }
}

impl Lane {
    /// A lane of `count` free permits.
    pub fn of(count: u64) -> Arc<Lane> {
        Arc::new(Lane(Mutex::new(State { free: count, ..State::default() })))
    }

    /// Whether anything but guests waits.
    pub fn is_waited_for(&self) -> bool {
        self.lock().is_waited_for()
    }

    /// Takes `count` permits if they are free and nothing waits.
    pub fn try_take(self: &Arc<Self>, count: u64) -> Option<Given> {
        let mut state = self.lock();
        if state.is_waited_for() || state.free < count {
            return None;
        }
        state.free -= count;
        Some(Given { lane: self.clone(), count })
    }

    /// Takes `count` permits when it is the caller's turn. A caller that drops the receiver leaves the line.
    pub fn take(self: &Arc<Self>, count: u64, took_much: bool) -> oneshot::Receiver<Given> {
        let (to, given) = oneshot::channel();
        self.lock().waiting[usize::from(took_much)].push_back(Waiting { count, to });
        self.give();
        given
    }

    /// The same for a guest: it is served when nothing else waits.
    pub fn take_as_guest(
        self: &Arc<Self>,
        count: u64,
        took_much: bool,
    ) -> oneshot::Receiver<Given> {
        let (to, given) = oneshot::channel();
        self.lock().guests[usize::from(took_much)].push_back(Waiting { count, to });
        self.give();
        given
    }

    /// Gives free permits to those whose turn it is. Permits that are not accepted come back and go to the
    /// next in line.
    fn give(self: &Arc<Self>) {
        loop {
            let Some(Waiting { count, to }) = self.lock().next() else { return };
            drop(to.send(Given { lane: self.clone(), count }));
        }
    }

    /// How many permits are free.
    #[cfg(test)]
    pub fn free(&self) -> u64 {
        self.lock().free
    }

    /// The numbers are right after a panic elsewhere: nothing here can panic halfway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_waited_for(&self) -> bool {
        self.waiting.iter().flatten().any(|waiting| !waiting.to.is_closed())
    }

    fn next(&mut self) -> Option<Waiting> {
        for waiting in self.waiting.iter_mut().chain(&mut self.guests) {
            while waiting.front().is_some_and(|first| first.to.is_closed()) {
                waiting.pop_front();
            }
            if let Some(first) = waiting.front() {
                self.free = self.free.checked_sub(first.count)?;
                return waiting.pop_front();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_took_little_goes_first_and_among_those_who_waits_longest() {
        let lane = Lane::of(10);
        let all = lane.try_take(10).expect("free");
        let mut much = lane.take(4, true);
        let mut first = lane.take(6, false);
        let mut second = lane.take(6, false);
        assert!(lane.is_waited_for() && lane.try_take(1).is_none());
        drop(all);
        let first = first.try_recv().expect("its turn");
        assert!(second.try_recv().is_err(), "it does not fit");
        assert!(much.try_recv().is_err(), "it would fit, and is behind");
        drop(first);
        let second = second.try_recv().expect("its turn");
        let much = much.try_recv().expect("its turn");
        assert!(!lane.is_waited_for());
        drop((second, much));
        assert!(lane.try_take(10).is_some());
    }

    #[test]
    fn a_guest_comes_last_and_keeps_nobody_waiting() {
        let lane = Lane::of(10);
        let all = lane.try_take(10).expect("free");
        let mut guest = lane.take_as_guest(10, false);
        let mut greedy_guest = lane.take_as_guest(1, true);
        assert!(!lane.is_waited_for());
        let mut much = lane.take(4, true);
        drop(all);
        let much = much.try_recv().expect("its turn");
        assert!(guest.try_recv().is_err() && greedy_guest.try_recv().is_err());
        let other = lane.try_take(6).expect("whatever guests wait for");
        drop((much, other));
        drop(guest.try_recv().expect("its turn"));
        assert!(greedy_guest.try_recv().is_ok());
    }

    #[test]
    fn who_waits_no_more_keeps_nobody_waiting_and_what_it_was_given_comes_back() {
        let lane = Lane::of(10);
        let all = lane.try_take(10).expect("free");
        drop(lane.take(10, false));
        assert!(!lane.is_waited_for());
        let given_and_gone = lane.take(10, false);
        let mut next = lane.take(10, true);
        drop(all);
        assert!(next.try_recv().is_err());
        drop(given_and_gone);
        assert!(next.try_recv().is_ok());
    }
}
