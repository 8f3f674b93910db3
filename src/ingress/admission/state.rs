//! Who has a place, who is charged for what, and who makes room for whom.

use std::collections::HashMap;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::account::{Account, FAILURES_FADE, SUCCESSES_FADE, Standing};
use super::bounds::Bounds;
use super::origin::Origin;
use super::room::{Held, Kind, Newcomer, Room, in_turn};
use crate::ingress::refusal::Refusal;
use crate::platform::bucket::Bucket;

/// How many times the failures of another origin a proven one may have: behind one address there may be many
/// satellites, some of them with a void credential.
const PROVEN_FAILURES: f32 = 8.0;

/// This many silent clients of one origin are a crowd: more than those on a slow line.
pub(super) const CROWD: f32 = 8.0;

/// This many failures of a network make all its origins suspect; of an origin's own, one is enough.
const SUSPECT_NETWORK: f32 = 8.0;

/// Everything that is known at the door.
pub(super) struct State {
    connections: Room,
    handshakes: Room,
    failures: Bucket,
    pub(super) of: HashMap<IpNet, Account>,
}

impl State {
    /// No places taken, nothing remembered.
    pub(super) fn new(bounds: &Bounds) -> State {
        State {
            connections: Room::default(),
            handshakes: Room::default(),
            failures: Bucket::full(bounds.failures, Instant::now()),
            of: HashMap::new(),
        }
    }

    pub(super) fn room(&mut self, kind: Kind) -> &mut Room {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Handshake => &mut self.handshakes,
        }
    }

    /// Whether failures allow another authentication from this origin.
    pub(super) fn check_failures(
        &mut self,
        origin: Origin,
        bounds: &Bounds,
        now: Instant,
    ) -> Result<(), Refusal> {
        let standing = self.standing(origin, now);
        let rate = bounds.failures_per_address;
        let own = self.account(origin.own, bounds, now);
        let times = if standing.is_proven { PROVEN_FAILURES } else { 1.0 };
        if !own.failures.has_one(rate.times(times), now) {
            return Err(Refusal::FailedAuthenticationsPerAddress);
        }
        if standing.is_proven {
            return Ok(());
        }
        for (network, _, times) in origin.networks() {
            if let Some(account) = self.of.get_mut(&network)
                && !account.failures.has_one(rate.times(times), now)
            {
                return Err(Refusal::FailedAuthenticationsPerNetwork);
            }
        }
        if standing.is_suspect && !self.failures.has_one(bounds.failures, now) {
            return Err(Refusal::FailedAuthentications);
        }
        Ok(())
    }

    pub(super) fn admit(
        &mut self,
        kind: Kind,
        origin: Option<Origin>,
        bounds: &Bounds,
        now: Instant,
    ) -> Result<(usize, u64, CancellationToken, bool), Refusal> {
        let standing = origin.map(|origin| self.standing(origin, now));
        let is_proven = standing.is_some_and(|standing| standing.is_proven);
        let newcomer = Newcomer { is_proven, now, patience: bounds.patience };
        let (all, _) = bounds.of(kind);
        let mut somebody = false;
        if let Some(origin) = origin {
            let share = bounds.share(kind, standing.map_or(0.0, |standing| standing.proven));
            let own = self.account(origin.own, bounds, now);
            if own.slots(kind).len() >= share as usize {
                let is_crowd = own.silent.level(FAILURES_FADE, now) >= CROWD;
                let patience = if is_crowd { Duration::ZERO } else { bounds.patience };
                self.shed(kind, &Newcomer { patience, ..newcomer }, Some(origin.own), bounds)
                    .ok_or(kind.full_of_address())?;
                somebody = true;
            }
            for (network, times, _) in origin.networks().filter(|_| !is_proven) {
                let share = bounds.share(kind, 0.0).saturating_mul(times);
                if self.account(network, bounds, now).slots(kind).len() >= share as usize {
                    self.shed(kind, &newcomer, Some(network), bounds)
                        .ok_or(kind.full_of_network())?;
                    somebody = true;
                }
            }
        }
        if self.room(kind).taken() >= all as usize {
            self.shed(kind, &newcomer, None, bounds).ok_or(kind.full())?;
            somebody = true;
        }
        let shed = CancellationToken::new();
        let (slot, number) = self.room(kind).take(|number| Held {
            number,
            origin,
            is_proven,
            is_suspect: standing.is_some_and(|standing| standing.is_suspect),
            silent_since: Some(now),
            stuck_since: None,
            shed: shed.clone(),
        });
        for network in origin.into_iter().flat_map(Origin::and_its_networks) {
            self.account(network, bounds, now).slots_mut(kind).push(slot);
        }
        Ok((slot, number, shed, somebody))
    }

    /// Takes a place for the newcomer; none if no place can be shed. Silence that was longer than `patience`
    /// is charged to its origin, as it would have been at its time-out.
    fn shed(
        &mut self,
        kind: Kind,
        newcomer: &Newcomer,
        within: Option<IpNet>,
        bounds: &Bounds,
    ) -> Option<()> {
        let room = match kind {
            Kind::Connection => &self.connections,
            Kind::Handshake => &self.handshakes,
        };
        let (slot, number) = match within {
            Some(network) => {
                let slots = self.of.get(&network)?.slots(kind);
                room.to_shed(newcomer, in_turn(slots.len()).map(|nth| slots[nth]))
            }
            None => room.to_shed(newcomer, in_turn(room.places.len())),
        }?;
        let held = self.leave(kind, slot, number)?;
        held.shed.cancel();
        let silence = held.idle_since().map(|since| newcomer.now.saturating_duration_since(since));
        if silence.is_some_and(|silence| silence >= bounds.patience)
            && let Some(origin) = held.origin
        {
            self.silent(origin, bounds, newcomer.now);
        }
        Some(())
    }

    pub(super) fn leave(&mut self, kind: Kind, slot: usize, number: u64) -> Option<Held> {
        let held = self.room(kind).leave(slot, number)?;
        for network in held.origin.into_iter().flat_map(Origin::and_its_networks) {
            if let Some(account) = self.of.get_mut(&network) {
                let slots = account.slots_mut(kind);
                if let Some(nth) = slots.iter().position(|held| *held == slot) {
                    slots.swap_remove(nth);
                }
            }
        }
        Some(held)
    }

    pub(super) fn failed(&mut self, origin: Origin, bounds: &Bounds, now: Instant) {
        // An empty bucket stays empty: the connections already inside may be more than it held.
        self.failures.take(bounds.failures, now);
        let rate = bounds.failures_per_address;
        let own = self.account(origin.own, bounds, now);
        let times = if own.is_proven(now) { PROVEN_FAILURES } else { 1.0 };
        own.failures.take(rate.times(times), now);
        own.failed.add(FAILURES_FADE, now);
        for (network, _, times) in origin.networks() {
            let account = self.account(network, bounds, now);
            account.failures.take(rate.times(times), now);
            account.failed.add(FAILURES_FADE, now);
        }
    }

    pub(super) fn silent(&mut self, origin: Origin, bounds: &Bounds, now: Instant) {
        self.account(origin.own, bounds, now).silent.add(FAILURES_FADE, now);
        for network in origin.and_its_networks() {
            self.account(network, bounds, now).failed.add(FAILURES_FADE, now);
        }
    }

    pub(super) fn standing(&self, origin: Origin, now: Instant) -> Standing {
        let own = self.of.get(&origin.own);
        let is_proven = own.is_some_and(|own| own.is_proven(now));
        let has_failed = own.is_some_and(|own| own.failed.is_any(FAILURES_FADE, now));
        let networks = &mut origin.networks();
        let is_suspect = !is_proven
            && (has_failed
                || networks.any(|(network, ..)| {
                    let account = self.of.get(&network);
                    account.is_some_and(|a| a.failed.level(FAILURES_FADE, now) >= SUSPECT_NETWORK)
                }));
        let proven = own.map_or(0.0, |own| own.proven.level(SUCCESSES_FADE, now));
        Standing { proven, is_proven, is_suspect }
    }

    pub(super) fn account(
        &mut self,
        network: IpNet,
        bounds: &Bounds,
        now: Instant,
    ) -> &mut Account {
        if self.of.len() >= bounds.addresses && !self.of.contains_key(&network) {
            self.make_room(bounds, now);
        }
        let full = bounds.failures_of(network);
        self.of.entry(network).or_insert_with(|| Account::new(full, now))
    }

    /// Forgets the accounts that cost nothing to forget. If there are none, it forgets half of those without
    /// a place; their failures then remain only on the pod's account. Proven ones are forgotten only if there
    /// is no other way. Frees enough to run seldom.
    fn make_room(&mut self, bounds: &Bounds, now: Instant) {
        self.of.retain(|network, account| {
            let rate = bounds.failures_of(*network);
            !account.has_nothing(now) || !account.failures.is_full(rate, now)
        });
        for also_proven in [false, true] {
            if self.of.len() < bounds.addresses {
                return;
            }
            let mut spared = false;
            self.of.retain(|_, account| {
                if !account.is_idle() || (account.is_proven(now) && !also_proven) {
                    return true;
                }
                spared = !spared;
                spared
            });
        }
    }
}
