//! The places of one kind, and which of them a newcomer may take.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::origin::Origin;
use crate::ingress::refusal::Refusal;

/// How many places are examined to find one to shed: by default all of an origin, and all of the pod.
pub(super) const LOOKED_AT: usize = 4_096;

/// The purpose of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connection,
    Handshake,
}

impl Kind {
    pub(super) fn full(self) -> Refusal {
        match self {
            Kind::Connection => Refusal::Connections,
            Kind::Handshake => Refusal::Handshakes,
        }
    }

    pub(super) fn full_of_address(self) -> Refusal {
        match self {
            Kind::Connection => Refusal::ConnectionsPerAddress,
            Kind::Handshake => Refusal::HandshakesPerAddress,
        }
    }

    pub(super) fn full_of_network(self) -> Refusal {
        match self {
            Kind::Connection => Refusal::ConnectionsPerNetwork,
            Kind::Handshake => Refusal::HandshakesPerNetwork,
        }
    }
}

/// The places of one kind.
#[derive(Default)]
pub(super) struct Room {
    pub(super) places: Vec<Option<Held>>,
    free: Vec<usize>,
    /// The number of the next place. A slot that was shed and taken again has another number.
    next: u64,
}

pub(super) struct Held {
    pub(super) number: u64,
    pub(super) origin: Option<Origin>,
    pub(super) is_proven: bool,
    pub(super) is_suspect: bool,
    /// Since when nothing was heard; none while a request of it is served.
    pub(super) silent_since: Option<Instant>,
    /// Since when the client reads nothing of what is written to it.
    pub(super) stuck_since: Option<Instant>,
    pub(super) shed: CancellationToken,
}

/// The connection for which a place is needed.
#[derive(Clone, Copy)]
pub(super) struct Newcomer {
    pub(super) is_proven: bool,
    pub(super) now: Instant,
    /// How long a place must have been idle to be taken.
    pub(super) patience: Duration,
}

impl Held {
    /// A client that does not read is as idle as one that does not send.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        self.stuck_since.or(self.silent_since)
    }

    fn makes_room_for(&self, newcomer: &Newcomer) -> bool {
        let Some(since) = self.idle_since() else { return false };
        self.is_suspect
            || (newcomer.is_proven && !self.is_proven)
            || newcomer.now.saturating_duration_since(since) >= newcomer.patience
    }
}

impl Room {
    pub(super) fn taken(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(super) fn take(&mut self, held: impl FnOnce(u64) -> Held) -> (usize, u64) {
        let number = self.next;
        self.next += 1;
        let held = Some(held(number));
        let slot = match self.free.pop() {
            Some(slot) => {
                self.places[slot] = held;
                slot
            }
            None => {
                self.places.push(held);
                self.places.len() - 1
            }
        };
        (slot, number)
    }

    /// Empties a slot, if it still holds the place of this number.
    pub(super) fn leave(&mut self, slot: usize, number: u64) -> Option<Held> {
        let place = self.places.get_mut(slot)?;
        let held = place.take_if(|held| held.number == number)?;
        self.free.push(slot);
        Some(held)
    }

    pub(super) fn held(&mut self, slot: usize, number: u64) -> Option<&mut Held> {
        self.places.get_mut(slot)?.as_mut().filter(|held| held.number == number)
    }

    /// One of these places that the newcomer may take: of two drawn at random, the one that was idle for
    /// longer.
    pub(super) fn to_shed(
        &self,
        newcomer: &Newcomer,
        slots: impl Iterator<Item = usize>,
    ) -> Option<(usize, u64)> {
        let make_room = slots.take(LOOKED_AT).filter_map(|slot| {
            let held = self.places.get(slot)?.as_ref()?;
            held.makes_room_for(newcomer).then_some((slot, held))
        });
        let mut drawn = [None; 2];
        for (before, place) in make_room.enumerate() {
            for one in &mut drawn {
                if fastrand::usize(..=before) == 0 {
                    *one = Some(place);
                }
            }
        }
        let longest = drawn.into_iter().flatten().min_by_key(|(_, held)| held.idle_since());
        longest.map(|(slot, held)| (slot, held.number))
    }
}

/// All numbers below `all`, from a random one on.
pub(super) fn in_turn(all: usize) -> impl Iterator<Item = usize> {
    let from = if all > 0 { fastrand::usize(..all) } else { 0 };
    (from..all).chain(0..from)
}
