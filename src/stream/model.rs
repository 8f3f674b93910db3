//! Relay and stream as a small model, every run of which is checked: refused publishes, foreign
//! messages, two relays that both think they lead, crashes with messages in flight, a checkpoint
//! that lags, the loss of the stream's newest messages.
//!
//! The stream is that of one server. It takes a message whose expected sequence is its last one and
//! whose expected id, if any, is that of the last message it took. The model leaves out messages
//! that are lost while others are in flight (the relay looks before each publish with none in
//! flight, but not within the same moment; `groundstation audit` names what falls between).

use stateright::{Checker, Model, Property};

use super::density::{Seen, Walk};
use super::message::{Epoch, Mark};
use crate::domain::lifecycle::Position;

/// Transitions in the log.
const LOG: i64 = 3;
/// Messages that one relay has in flight at most.
const WINDOW: usize = 2;
/// How often each fault may happen.
const FOREIGN: u8 = 1;
const TAKEOVERS: u8 = 1;
const CRASHES: u8 = 1;
const LOSSES: u8 = 1;

/// The way of publishing that is checked.
struct Protocol {
    /// Whether a message names the one before it while that one is in flight.
    chained: bool,
}

/// A place on the stream, as the relay knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
struct Place {
    position: i64,
    sequence: usize,
    /// The sequence of the transition itself, if it was seen.
    newest: Option<usize>,
}

/// What is at one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Slot {
    Ours(i64),
    Foreign,
    Gone,
}

/// A message on its way to the server.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Message {
    place: Place,
    /// The position that it must follow, if it names one.
    behind: Option<i64>,
    /// Whether its sender still waits for the acknowledgement.
    is_awaited: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Relay {
    /// The newest place published and the newest acknowledged, while it relays.
    window: Option<(Place, Place)>,
    /// Its connection to the server.
    wire: Vec<Message>,
    /// Whether the stream took the messages it waits for, oldest first.
    answers: Vec<(Place, bool)>,
}

impl Relay {
    /// Stops at once: what was sent stays in flight.
    fn drop_window(&mut self) {
        self.window = None;
        self.answers.clear();
        self.wire.iter_mut().for_each(|message| message.is_awaited = false);
    }

    fn under_way(&self) -> usize {
        self.answers.len() + self.wire.iter().filter(|message| message.is_awaited).count()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct World {
    stream: Vec<Slot>,
    /// The id that the server remembers as the last one.
    last_id: Option<i64>,
    relays: [Relay; 2],
    leader: usize,
    checkpoint: Place,
    halted: bool,
    foreign: u8,
    takeovers: u8,
    crashes: u8,
    losses: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    /// The leader reads the tail and begins, or halts.
    Begin,
    /// A relay publishes the next transition.
    Publish(usize),
    /// The server takes or refuses the oldest message of a connection.
    Arrive(usize),
    /// A relay receives the answer to its oldest message.
    Hear(usize),
    /// The leader stores its checkpoint.
    Remember,
    /// The other relay takes the lease; the first does not know.
    TakeOver,
    /// A relay dies and is started again.
    Crash(usize),
    /// Another program publishes on our subjects.
    Intrude,
    /// The newest messages are deleted: their sequences stay, empty.
    Delete(usize),
    /// An older copy of the stream is back: the newest sequences are gone.
    Restore(usize),
}

impl World {
    fn seen(&self, sequence: usize) -> Seen {
        match self.stream[sequence - 1] {
            Slot::Gone => Seen::Gone,
            Slot::Foreign => Seen::Foreign,
            Slot::Ours(position) => Seen::Ours(Mark {
                position: Position(position),
                change: String::new(),
                epoch: Epoch::FIRST,
                cell: None,
            }),
        }
    }

    /// How the relay reads the tail: our newest message, if no position before it is missing.
    fn tail(&self) -> Result<Place, ()> {
        let known = self.checkpoint;
        let sequence = self.stream.len();
        let newest = (1..=sequence).rev().find_map(|sequence| match self.stream[sequence - 1] {
            Slot::Ours(old) if sequence > known.sequence && old <= known.position => None,
            Slot::Ours(position) => Some((position, sequence)),
            _ => None,
        });
        let Some((position, newest)) = newest else {
            return Ok(Place { position: 0, sequence, newest: None });
        };
        let mut walk = Walk::new(Epoch::FIRST, Position(known.position), Position::ZERO, false);
        if (1..newest).contains(&known.sequence) {
            walk.anchor(&self.seen(known.sequence));
        }
        for sequence in known.sequence + 1..=newest {
            walk.see(&self.seen(sequence)).map_err(drop)?;
        }
        Ok(Place { position, sequence, newest: Some(newest) })
    }

    /// How a relay with nothing in flight looks: the place where it goes on, behind any foreign
    /// messages; none if it has to read the tail.
    fn look(&self, left: Place) -> Option<Place> {
        let newer = |slot: &Slot| matches!(slot, Slot::Ours(other) if *other > left.position);
        let is_there =
            |newest: usize| self.stream.get(newest - 1) == Some(&Slot::Ours(left.position));
        let is_as_left = self.stream.len() >= left.sequence
            && left.newest.is_none_or(is_there)
            && match &self.stream[left.sequence..] {
                [] => !self.stream.iter().skip(left.newest.unwrap_or(0)).any(newer),
                on_top => on_top.iter().all(|slot| *slot == Slot::Foreign),
            };
        is_as_left.then_some(Place { sequence: self.stream.len(), ..left })
    }

    fn publish(&mut self, relay: usize, chained: bool) {
        let Some((mut published, mut acknowledged)) = self.relays[relay].window else { return };
        let is_alone = self.relays[relay].under_way() == 0;
        if is_alone {
            let Some(found) = self.look(acknowledged) else {
                self.relays[relay].drop_window();
                return;
            };
            (published, acknowledged) = (found, found);
        }
        let sequence = published.sequence + 1;
        let place = Place { position: published.position + 1, sequence, newest: Some(sequence) };
        let behind = (chained && !is_alone).then_some(published.position);
        self.relays[relay].wire.push(Message { place, behind, is_awaited: true });
        self.relays[relay].window = Some((place, acknowledged));
    }

    fn arrive(&mut self, relay: usize) {
        let Message { place, behind, is_awaited } = self.relays[relay].wire.remove(0);
        let follows = place.sequence == self.stream.len() + 1;
        let is_taken = follows && (behind.is_none() || behind == self.last_id);
        if is_taken {
            self.stream.push(Slot::Ours(place.position));
            self.last_id = Some(place.position);
        }
        if is_awaited {
            self.relays[relay].answers.push((place, is_taken));
        }
    }

    fn hear(&mut self, relay: usize) {
        let relay = &mut self.relays[relay];
        match (relay.answers.remove(0), relay.window) {
            ((place, true), Some((published, _))) => relay.window = Some((published, place)),
            // The other messages in flight will be refused as well.
            ((_, false), Some((_, acknowledged))) => {
                relay.drop_window();
                relay.window = Some((acknowledged, acknowledged));
            }
            _ => relay.drop_window(),
        }
    }

    /// Our positions on the stream, in its order.
    fn ours(&self) -> Vec<i64> {
        let position = |slot: &Slot| match slot {
            Slot::Ours(position) => Some(*position),
            _ => None,
        };
        self.stream.iter().filter_map(position).collect()
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            stream: Vec::new(),
            last_id: None,
            relays: [Relay::default(), Relay::default()],
            leader: 0,
            checkpoint: Place::default(),
            halted: false,
            foreign: FOREIGN,
            takeovers: TAKEOVERS,
            crashes: CRASHES,
            losses: LOSSES,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.halted {
            return;
        }
        let leader = &world.relays[world.leader];
        match leader.window {
            None => actions.push(Action::Begin),
            Some((_, acknowledged)) if acknowledged != world.checkpoint => {
                actions.push(Action::Remember);
            }
            Some(_) => {}
        }
        for (n, relay) in world.relays.iter().enumerate() {
            let has_more = relay.window.is_some_and(|(published, _)| published.position < LOG);
            if has_more && relay.under_way() < WINDOW {
                actions.push(Action::Publish(n));
            }
            if !relay.wire.is_empty() {
                actions.push(Action::Arrive(n));
            }
            if !relay.answers.is_empty() {
                actions.push(Action::Hear(n));
            }
            if world.crashes > 0 && relay.window.is_some() {
                actions.push(Action::Crash(n));
            }
        }
        if world.takeovers > 0 {
            actions.push(Action::TakeOver);
        }
        if world.foreign > 0 {
            actions.push(Action::Intrude);
        }
        let is_quiet = |relay: &Relay| relay.wire.is_empty() && relay.answers.is_empty();
        if world.losses > 0 && world.relays.iter().all(is_quiet) {
            for count in 1..=world.stream.len().min(2) {
                actions.extend([Action::Delete(count), Action::Restore(count)]);
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Begin => match world.tail() {
                Ok(tail) => {
                    world.relays[world.leader].window = Some((tail, tail));
                    world.checkpoint = tail;
                }
                Err(()) => world.halted = true,
            },
            Action::Publish(relay) => world.publish(relay, self.chained),
            Action::Arrive(relay) => world.arrive(relay),
            Action::Hear(relay) => world.hear(relay),
            Action::Remember => {
                world.checkpoint = world.relays[world.leader].window?.1;
            }
            Action::TakeOver => {
                world.takeovers -= 1;
                world.leader = 1 - world.leader;
            }
            Action::Crash(relay) => {
                world.crashes -= 1;
                world.relays[relay].drop_window();
            }
            Action::Intrude => {
                world.foreign -= 1;
                world.stream.push(Slot::Foreign);
                world.last_id = None;
            }
            Action::Delete(count) => {
                world.losses -= 1;
                world.stream.iter_mut().rev().take(count).for_each(|slot| *slot = Slot::Gone);
            }
            Action::Restore(count) => {
                world.losses -= 1;
                world.stream.truncate(world.stream.len() - count);
                world.last_id = None;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Protocol>> {
        vec![
            Property::always("each once, in order, none skipped", |_, world: &World| {
                world.ours().into_iter().eq(1..=world.ours().len() as i64)
            }),
            Property::always("never halts", |_, world: &World| !world.halted),
            Property::sometimes("all of it is there", |_, world: &World| {
                world.ours().len() as i64 == LOG
            }),
            Property::sometimes(
                "all of it, after everything that can happen",
                |_, world: &World| {
                    let left = world.foreign + world.takeovers + world.crashes + world.losses;
                    left == 0 && world.ours().len() as i64 == LOG
                },
            ),
        ]
    }
}

#[test]
fn chained_messages_are_on_the_stream_once_in_order_and_none_is_skipped() {
    let checker = Protocol { chained: true }.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    println!("{} states", checker.unique_state_count());
    assert!(checker.is_done());
}

#[test]
fn without_the_chain_somebody_elses_message_costs_one_of_ours_and_the_next_look_halts() {
    let checker = Protocol { chained: false }.checker().spawn_bfs().join();
    let how = |property| checker.discovery(property).expect("a run").into_actions();
    let skipped = how("each once, in order, none skipped");
    assert!(skipped.contains(&Action::Intrude), "{skipped:?}");
    let halted = how("never halts");
    assert!(halted.contains(&Action::Intrude), "{halted:?}");
    assert_eq!(halted.last(), Some(&Action::Begin));
}
