//! Edges of satellites whose rows another transaction has locked.
//!
//! A batch waits for no row. It leaves out the edges of satellites it finds locked. They wait here, in the order of
//! arrival, until a later batch finds the row free. The holder may be another pod that needs the row for
//! milliseconds, so the next try comes soon, and further tries less and less often.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::request::{Outcome, Request};
use crate::domain::lifecycle::{SatelliteId, Signal};

/// Pauses between two tries of a locked row. The first is about as long as another pod's batch; the last is what a
/// satellite can wait once an administrator has released the row.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Edges that one batch takes from here in addition to those that have just arrived.
const MAX_DUE: usize = 500;

/// Edges of one satellite that wait. Its agent reconnects again and again while it gets no answer.
const MAX_OF_SATELLITE: usize = 16;

#[derive(Default)]
pub(super) struct Held {
    satellites: HashMap<SatelliteId, Waiting>,
}

struct Waiting {
    /// None while a batch has them.
    edges: Vec<Request>,
    pause: Duration,
    again_at: Instant,
}

impl Held {
    pub fn is_empty(&self) -> bool {
        self.satellites.is_empty()
    }

    pub fn satellites(&self) -> impl Iterator<Item = SatelliteId> {
        self.satellites.keys().copied()
    }

    /// Takes edges out of `batch` that have to wait behind others of their satellite.
    pub fn queue_behind(&mut self, batch: &mut Vec<Request>) {
        if self.satellites.is_empty() {
            return;
        }
        let waits = |request: &mut Request| {
            let waiting = self.satellites.get(&request.satellite);
            waiting.is_some_and(|waiting| !waiting.edges.is_empty())
        };
        let behind: Vec<Request> = batch.extract_if(.., waits).collect();
        for request in behind {
            if let Some(waiting) = self.satellites.get_mut(&request.satellite) {
                waiting.push(request);
            }
        }
    }

    /// Adds the edges whose next try is due by `now`: all edges of a satellite or none.
    pub fn take_due(&mut self, now: Instant, batch: &mut Vec<Request>) {
        let due = self.satellites.iter().filter(|(_, waiting)| waiting.again_at <= now);
        let mut due: Vec<_> = due.map(|(id, waiting)| (waiting.again_at, *id)).collect();
        due.sort_unstable();
        let room = batch.len() + MAX_DUE;
        for (_, id) in due {
            if batch.len() >= room {
                return;
            }
            if let Some(waiting) = self.satellites.get_mut(&id) {
                batch.append(&mut waiting.edges);
            }
        }
    }

    /// Keeps what a batch had to leave out.
    pub fn hold(&mut self, left_out: Vec<Request>, now: Instant) {
        for request in left_out {
            if is_found_again(&request.signal) {
                request.answer(Outcome::Locked);
                continue;
            }
            let waiting = self.satellites.entry(request.satellite).or_insert_with(|| Waiting {
                edges: Vec::new(),
                pause: FIRST_PAUSE / 2,
                again_at: now,
            });
            if waiting.edges.is_empty() {
                waiting.pause = (waiting.pause * 2).min(LONGEST_PAUSE);
                waiting.again_at = now + waiting.pause;
            }
            waiting.push(request);
        }
    }

    /// Forgets satellites whose edges were all decided.
    pub fn forget_decided(&mut self) {
        self.satellites.retain(|_, waiting| !waiting.edges.is_empty());
    }

    /// Waits until the next try is due.
    pub async fn due(&self) {
        match self.satellites.values().map(|waiting| waiting.again_at).min() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

impl Waiting {
    fn push(&mut self, request: Request) {
        // The newest heartbeat is the one that brings it back.
        let is_same = |waiting: &&mut Request| waiting.signal == request.signal;
        if matches!(request.signal, Signal::Recover { .. })
            && let Some(waiting) = self.edges.iter_mut().find(is_same)
        {
            waiting.happened = waiting.happened.max(request.happened);
            return request.answer(Outcome::Locked);
        }
        // The end of a session is never refused: each session that began has only one.
        let may_be_refused = matches!(request.signal, Signal::Connect | Signal::Remove);
        let is_full = self.edges.len() >= MAX_OF_SATELLITE && may_be_refused && !request.tried;
        if is_full || is_found_again(&request.signal) {
            request.answer(Outcome::Locked);
        } else {
            self.edges.push(request);
        }
    }
}

/// The next sweep finds a loss again, if it is still one. The sweep waits for its outcome, and must not wait for
/// another transaction's lock.
fn is_found_again(signal: &Signal) -> bool {
    matches!(signal, Signal::Lost { .. })
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::Receiver;
    use uuid::Uuid;

    use super::*;
    use crate::contract::wire::Actor;
    use crate::domain::lifecycle::{Reason, Session};
    use crate::platform::database_clock::Moment;

    const GONE: Signal = Signal::Disconnect { session: Session(1), reason: Reason::ClientClose };
    const LOST: Signal = Signal::Lost { session: Session(1), reason: Reason::HeartbeatTimeout };

    fn request(satellite: u128, signal: Signal) -> (Request, Receiver<Outcome>) {
        let satellite = SatelliteId(Uuid::from_u128(satellite));
        Request::new(satellite, signal, Actor::system(), Moment::now(), None)
    }

    fn what(batch: &[Request]) -> Vec<(u128, Signal)> {
        batch.iter().map(|request| (request.satellite.0.as_u128(), request.signal)).collect()
    }

    #[test]
    fn edges_of_a_held_satellite_wait_in_order_and_those_of_others_do_not() {
        let (mut held, now) = (Held::default(), Instant::now());
        let (gone, _gone) = request(1, GONE);
        held.hold(vec![gone], now);
        let (comes, _comes) = request(1, Signal::Connect);
        let (other, _other) = request(2, Signal::Connect);
        let mut batch = vec![comes, other];
        held.queue_behind(&mut batch);
        assert_eq!(what(&batch), [(2, Signal::Connect)]);
        held.take_due(now, &mut batch);
        assert_eq!(batch.len(), 1, "not before its pause is over");
        batch.clear();
        held.take_due(now + FIRST_PAUSE, &mut batch);
        assert_eq!(what(&batch), [(1, GONE), (1, Signal::Connect)]);
        held.forget_decided();
        assert!(held.is_empty());
    }

    #[test]
    fn what_is_still_locked_is_looked_at_less_and_less_often_and_keeps_its_order() {
        let (mut held, mut now) = (Held::default(), Instant::now());
        let (gone, _gone) = request(1, GONE);
        let (comes, _comes) = request(1, Signal::Connect);
        let mut batch = vec![gone, comes];
        let mut pauses = Vec::new();
        for _ in 0..10 {
            held.hold(std::mem::take(&mut batch), now);
            let before = now;
            while batch.is_empty() {
                now += Duration::from_millis(1);
                held.take_due(now, &mut batch);
            }
            pauses.push((now - before).as_millis());
            assert_eq!(what(&batch), [(1, GONE), (1, Signal::Connect)]);
        }
        assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 500, 500, 500]);
    }

    #[test]
    fn one_of_two_that_are_tried_one_by_one_goes_behind_the_other() {
        let (mut held, now) = (Held::default(), Instant::now());
        let (gone, _gone) = request(1, GONE);
        held.hold(vec![gone], now);
        let mut batch = Vec::new();
        held.take_due(now + FIRST_PAUSE, &mut batch);
        let (mut first, (comes, _comes)) = (batch, request(1, Signal::Connect));
        held.queue_behind(&mut first);
        assert_eq!(first.len(), 1, "nothing waits before it");
        held.hold(first, now);
        let mut second = vec![comes];
        held.queue_behind(&mut second);
        assert!(second.is_empty());
    }

    #[test]
    fn heartbeats_that_would_bring_a_satellite_back_wait_as_one_the_newest() {
        let (mut held, now) = (Held::default(), Instant::now());
        let recover = Signal::Recover { session: Session(1) };
        let (old, _old) = request(1, recover);
        held.hold(vec![old], now);
        let (new, _new) = request(1, recover);
        let newest = new.happened;
        held.hold(vec![new], now);
        let mut batch = Vec::new();
        held.take_due(now + FIRST_PAUSE, &mut batch);
        assert_eq!((batch.len(), batch[0].happened), (1, newest));
    }

    #[test]
    fn a_loss_does_not_wait_and_too_many_connects_are_turned_away() {
        let (mut held, now) = (Held::default(), Instant::now());
        let (lost, mut outcome) = request(1, LOST);
        held.hold(vec![lost], now);
        assert_eq!(outcome.try_recv(), Ok(Outcome::Locked));
        assert!(held.is_empty());
        let mut outcomes = Vec::new();
        for _ in 0..=MAX_OF_SATELLITE {
            let (comes, outcome) = request(1, Signal::Connect);
            held.hold(vec![comes], now);
            outcomes.push(outcome);
        }
        let (gone, mut waits) = request(1, GONE);
        held.hold(vec![gone], now);
        let answered = |outcome: &mut Receiver<Outcome>| outcome.try_recv().is_ok();
        let answered: Vec<bool> = outcomes.iter_mut().map(answered).collect();
        assert_eq!(answered.iter().filter(|answered| **answered).count(), 1);
        assert!(answered[MAX_OF_SATELLITE] && waits.try_recv().is_err());
    }
}
