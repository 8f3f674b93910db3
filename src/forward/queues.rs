//! The messages in hand, a queue for each satellite: of each only the first is sent.
//!
//! It knows nothing of HTTP, NATS and clocks: `now` is passed in. Whatever arrives in whatever order is taken in the
//! order of positions, and what arrives again is known.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::event::Event;

/// A message in hand.
struct Held<A> {
    event: Arc<Event>,
    /// How its end is told.
    acknowledge: A,
    failures: u32,
}

/// What is in hand of one satellite, by position.
struct Queue<A> {
    held: BTreeMap<i64, Held<A>>,
    /// When the first is due; none while it is being sent.
    due: Option<Instant>,
}

/// All that is in hand. `A` is how a message's end is told.
pub struct Queues<A> {
    of: HashMap<String, Queue<A>>,
    due: BTreeSet<(Instant, String)>,
    count: usize,
}

/// A message to be sent.
pub struct Taken<A> {
    /// What is sent.
    pub event: Arc<Event>,
    /// How its end is told.
    pub acknowledge: A,
    /// How often that failed before.
    pub failures: u32,
}

impl<A: Clone> Queues<A> {
    /// Nothing in hand.
    pub fn new() -> Queues<A> {
        Queues { of: HashMap::new(), due: BTreeSet::new(), count: 0 }
    }

    /// How many are in hand.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Of how many satellites.
    pub fn satellites(&self) -> usize {
        self.of.len()
    }

    /// Takes a message into its queue. One that is there already keeps its place, and is acknowledged as it came last.
    pub fn insert(&mut self, event: Event, acknowledge: A, now: Instant) {
        let of = event.of.clone();
        let queue = self.of.entry(of.clone()).or_insert_with(|| {
            self.due.insert((now, of));
            Queue { held: BTreeMap::new(), due: Some(now) }
        });
        if let Some(known) = queue.held.get_mut(&event.position) {
            known.acknowledge = acknowledge;
            return;
        }
        let held = Held { event: Arc::new(event), acknowledge, failures: 0 };
        queue.held.insert(held.event.position, held);
        self.count += 1;
    }

    /// The next message that is due. It is its satellite's only one until it has failed or is done.
    pub fn take(&mut self, now: Instant) -> Option<Taken<A>> {
        let (due, _) = self.due.first()?;
        if *due > now {
            return None;
        }
        let (_, of) = self.due.pop_first()?;
        let queue = self.of.get_mut(&of)?;
        queue.due = None;
        let held = queue.held.values().next()?;
        let (event, acknowledge) = (held.event.clone(), held.acknowledge.clone());
        Some(Taken { event, acknowledge, failures: held.failures })
    }

    /// When the next one is due.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A message was not taken; it is due again then.
    pub fn failed(&mut self, event: &Event, due: Instant) {
        let Some(queue) = self.of.get_mut(&event.of) else { return };
        if let Some(held) = queue.held.get_mut(&event.position) {
            held.failures = held.failures.saturating_add(1);
        }
        queue.due = Some(due);
        self.due.insert((due, event.of.clone()));
    }

    /// A message's end was told; its satellite's next one is due.
    pub fn done(&mut self, event: &Event, now: Instant) {
        let Some(queue) = self.of.get_mut(&event.of) else { return };
        self.count -= usize::from(queue.held.remove(&event.position).is_some());
        if queue.held.is_empty() {
            self.of.remove(&event.of);
        } else {
            queue.due = Some(now);
            self.due.insert((now, event.of.clone()));
        }
    }

    /// The acknowledgements of all in hand, in the order of positions.
    pub fn acknowledgements(&self) -> Vec<A> {
        let held = self.of.values().flat_map(|queue| &queue.held);
        let mut held: Vec<(&i64, &Held<A>)> = held.collect();
        held.sort_by_key(|(position, _)| **position);
        held.into_iter().map(|(_, held)| held.acknowledge.clone()).collect()
    }

    /// The first position in hand.
    pub fn first_position(&self) -> Option<i64> {
        self.of.values().filter_map(|queue| queue.held.keys().next()).min().copied()
    }

    /// How long the oldest in hand has been on the stream.
    pub fn oldest(&self, now: time::OffsetDateTime) -> Duration {
        let firsts = self.of.values().filter_map(|queue| queue.held.values().next());
        firsts.map(|held| held.event.age(now)).max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::OffsetDateTime;

    use super::*;

    fn event(of: u8, position: i64) -> Event {
        Event {
            position,
            change: position.to_string(),
            subject: "satellite.connected".to_owned(),
            of: of.to_string(),
            occurred_at: OffsetDateTime::UNIX_EPOCH,
            stored_at: OffsetDateTime::UNIX_EPOCH,
            headers: Vec::new(),
            body: bytes::Bytes::new(),
        }
    }

    fn positions(queues: &mut Queues<()>, now: Instant) -> Vec<i64> {
        std::iter::from_fn(|| queues.take(now)).map(|taken| taken.event.position).collect()
    }

    #[test]
    fn one_message_of_a_satellite_is_sent_at_a_time_and_a_failing_one_holds_back_only_its_own() {
        let (mut queues, start) = (Queues::new(), Instant::now());
        for (of, position) in [(1, 1), (1, 2), (2, 3), (1, 4), (2, 5)] {
            queues.insert(event(of, position), (), start);
        }
        assert_eq!(positions(&mut queues, start), [1, 3]);
        let later = start + Duration::from_secs(10);
        queues.failed(&event(1, 1), later);
        queues.done(&event(2, 3), start);
        assert_eq!(positions(&mut queues, start), [5]);
        queues.done(&event(2, 5), start);
        assert_eq!((queues.next_due(), queues.count(), queues.satellites()), (Some(later), 3, 1));
        let again = queues.take(later).expect("due");
        assert_eq!((again.event.position, again.failures), (1, 1));
        queues.done(&again.event, later);
        assert_eq!(positions(&mut queues, later), [2]);
        queues.done(&event(1, 2), later);
        assert_eq!(positions(&mut queues, later), [4]);
        queues.done(&event(1, 4), later);
        assert_eq!((queues.count(), queues.next_due(), queues.first_position()), (0, None, None));
    }

    #[test]
    fn what_arrives_again_is_known_and_told_of_as_it_came_last() {
        let (mut queues, start) = (Queues::new(), Instant::now());
        queues.insert(event(1, 1), "first", start);
        assert_eq!(queues.take(start).expect("due").acknowledge, "first");
        queues.insert(event(1, 1), "second", start);
        assert_eq!((queues.count(), queues.take(start).is_none()), (1, true));
        assert_eq!(queues.acknowledgements(), ["second"]);
    }

    proptest! {
        /// Whatever fails and however messages arrive again, each satellite's are done in order, and all are.
        #[test]
        fn each_satellites_messages_are_done_in_order(
            of in proptest::collection::vec(0u8..4, 1..60),
            choices in proptest::collection::vec(0u8..4, 0..200),
        ) {
            let (mut queues, mut now) = (Queues::new(), Instant::now());
            let mut done: HashMap<String, Vec<i64>> = HashMap::new();
            let mut arriving = of.iter().zip(0..).map(|(of, n)| event(*of, n));
            let mut sending: Vec<Arc<Event>> = Vec::new();
            // In the end everything arrives and is taken.
            let last = (0..of.len()).flat_map(|_| [0, 2]).chain((0..of.len()).map(|_| 2));
            for choice in choices.into_iter().chain(last) {
                now += Duration::from_millis(1);
                match choice {
                    0 => if let Some(event) = arriving.next() {
                        queues.insert(event.clone(), (), now);
                        queues.insert(event, (), now);
                    },
                    1 => if let Some(event) = sending.pop() {
                        queues.failed(&event, now + Duration::from_micros(500));
                    },
                    _ => for event in sending.drain(..) {
                        queues.done(&event, now);
                        done.entry(event.of.clone()).or_default().push(event.position);
                    },
                }
                sending.extend(std::iter::from_fn(|| queues.take(now)).map(|taken| taken.event));
                let each: BTreeSet<&str> = sending.iter().map(|event| event.of.as_str()).collect();
                prop_assert_eq!(each.len(), sending.len(), "two of one satellite");
            }
            prop_assert!(done.values().all(|positions| positions.is_sorted()), "{:?}", done);
            prop_assert_eq!(done.values().map(Vec::len).sum::<usize>(), of.len());
        }
    }
}
