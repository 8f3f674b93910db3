//! Admission at the door: connections, and sockets that are not authenticated yet. Each has a place in a
//! room.
//!
//! Everything is charged to an origin: an IPv4 address, or an IPv6 network of 64 bits (anyone has a whole
//! one). It is also charged to the wider networks around the origin: /24, or /56 and /48. Each has a share of
//! a room and a budget of failures; a wider network has several times as much as one origin.
//!
//! A full room sheds places; it does not close. A place that was idle for a while, because its client neither
//! sends nor reads, goes to the newcomer. The place of a suspect origin goes at once: one that failed lately,
//! or whose network failed often. An origin from which a satellite authenticated lately is *proven*: its
//! share grows with the number of such satellites, its networks' accounts do not count for it, and no
//! stranger takes its places. When too many authentications fail at the pod as a whole, only suspect origins
//! are refused.
//!
//! Silence is not a failure. A failure costs a check of credentials; silence costs only a place, and is paid
//! for with its place. So no origin is refused because others were silent. A message that is no attempt to
//! authenticate is worth no more than silence: its sender keeps its place only until it is gone. When many
//! clients of one origin were silent, a newcomer from there takes the place of one that waits there, at once.
//! Two of the waiting places are drawn at random, each as likely as any other, and the one that has waited
//! longer is taken. So among n waiting places, one outlives k later newcomers with a chance of about
//! exp(-k²/n²): a satellite that needs its place for two round trips nearly always keeps it for that long,
//! and some slow satellites keep it too, which none would if the oldest place always went. With one draw the
//! chance would be exp(-k/n), which is less for all k below n.
//!
//! What is remembered is bounded too: an origin with no place and an empty account is forgotten when room is
//! needed, a proven one last.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::recent::Recent;
use super::refusal::Refusal;
use crate::platform::bucket::{Bucket, Rate};

/// A wider network, by the length of its prefix: how many times an origin's share of a room it has, and how
/// many times its failures.
const V4_NETWORKS: [(u8, u32, f32); 1] = [(24, 4, 8.0)];
const V6_NETWORKS: [(u8, u32, f32); 2] = [(56, 4, 8.0), (48, 8, 64.0)];

/// How many times the failures of another origin a proven one may have: behind one address there may be many
/// satellites, some of them with a void credential.
const PROVEN_FAILURES: f32 = 8.0;

/// The time in which half of the remembered successes, or failures, is forgotten.
const SUCCESSES_FADE: Duration = Duration::from_secs(15 * 60);
const FAILURES_FADE: Duration = Duration::from_secs(2 * 60);

/// This many silent clients of one origin are a crowd: more than those on a slow line.
const CROWD: f32 = 8.0;

/// This many failures of a network make all its origins suspect; of an origin's own, one is enough.
const SUSPECT_NETWORK: f32 = 8.0;

/// How many places are examined to find one to shed: by default all of an origin, and all of the pod.
const LOOKED_AT: usize = 4_096;

/// The bounds of admission.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections of one pod, before they become WebSockets.
    pub connections: u32,
    /// The same of one origin.
    pub connections_per_address: u32,
    /// Sockets of one pod that are not authenticated yet.
    pub handshakes: u32,
    /// The same of one origin.
    pub handshakes_per_address: u32,
    /// Failed authentications of one pod.
    pub failures: Rate,
    /// The same of one origin.
    pub failures_per_address: Rate,
    /// How long a place may be kept in silence before a newcomer may take it.
    pub patience: Duration,
    /// The most origins and networks to remember.
    pub addresses: usize,
}

impl Bounds {
    /// The most places that an origin may have.
    fn share(&self, kind: Kind, proven: f32) -> u32 {
        let (all, per_address) = self.of(kind);
        // No more than half of the room, however many satellites have authenticated.
        per_address.saturating_add(proven as u32).min((all / 2).max(per_address))
    }

    fn of(&self, kind: Kind) -> (u32, u32) {
        match kind {
            Kind::Connection => (self.connections, self.connections_per_address),
            Kind::Handshake => (self.handshakes, self.handshakes_per_address),
        }
    }
}

pub struct Addresses {
    bounds: Bounds,
    state: Mutex<State>,
}

struct State {
    connections: Room,
    handshakes: Room,
    failures: Bucket,
    of: HashMap<IpNet, Account>,
}

/// The purpose of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connection,
    Handshake,
}

impl Kind {
    fn full(self) -> Refusal {
        match self {
            Kind::Connection => Refusal::Connections,
            Kind::Handshake => Refusal::Handshakes,
        }
    }

    fn full_of_address(self) -> Refusal {
        match self {
            Kind::Connection => Refusal::ConnectionsPerAddress,
            Kind::Handshake => Refusal::HandshakesPerAddress,
        }
    }

    fn full_of_network(self) -> Refusal {
        match self {
            Kind::Connection => Refusal::ConnectionsPerNetwork,
            Kind::Handshake => Refusal::HandshakesPerNetwork,
        }
    }
}

/// The origin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    own: IpNet,
    address: IpAddr,
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Origin {
        let address = address.to_canonical();
        Origin { own: network(address, if address.is_ipv4() { 32 } else { 64 }), address }
    }
}

impl Origin {
    /// The networks around it, each with how many times an origin's share and how many times its failures it
    /// has.
    fn networks(self) -> impl Iterator<Item = (IpNet, u32, f32)> {
        let networks: &[_] = if self.address.is_ipv4() { &V4_NETWORKS } else { &V6_NETWORKS };
        networks.iter().map(move |(length, share, failures)| {
            (network(self.address, *length), *share, *failures)
        })
    }

    fn and_its_networks(self) -> impl Iterator<Item = IpNet> {
        std::iter::once(self.own).chain(self.networks().map(|(network, ..)| network))
    }
}

/// Every length above is valid for its address family.
fn network(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address)).trunc()
}

/// What is known of an origin or a network.
struct Account {
    /// The slots of its places.
    connections: Vec<usize>,
    handshakes: Vec<usize>,
    failures: Bucket,
    /// Wrong administrators' tokens.
    wrong_tokens: Bucket,
    /// Connections that failed or were silent lately.
    failed: Recent,
    silent: Recent,
    proven: Recent,
}

impl Account {
    fn new(rate: Rate, now: Instant) -> Account {
        Account {
            connections: Vec::new(),
            handshakes: Vec::new(),
            failures: Bucket::full(rate, now),
            wrong_tokens: Bucket::full(WRONG_TOKENS, now),
            failed: Recent::never(now),
            silent: Recent::never(now),
            proven: Recent::never(now),
        }
    }

    fn is_idle(&self) -> bool {
        self.connections.is_empty() && self.handshakes.is_empty()
    }

    fn is_proven(&self, now: Instant) -> bool {
        self.proven.is_any(SUCCESSES_FADE, now)
    }

    fn has_nothing(&mut self, now: Instant) -> bool {
        self.is_idle()
            && !self.is_proven(now)
            && !self.failed.is_any(FAILURES_FADE, now)
            && self.wrong_tokens.is_full(WRONG_TOKENS, now)
    }

    fn slots(&self, kind: Kind) -> &[usize] {
        match kind {
            Kind::Connection => &self.connections,
            Kind::Handshake => &self.handshakes,
        }
    }

    fn slots_mut(&mut self, kind: Kind) -> &mut Vec<usize> {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Handshake => &mut self.handshakes,
        }
    }
}

/// Wrong administrators' tokens of one origin: more than a person mistypes.
const WRONG_TOKENS: Rate = Rate { burst: 10.0, per_second: 0.2 };

/// The state of an origin at admission.
#[derive(Debug, Clone, Copy)]
struct Standing {
    /// How many satellites authenticated from there lately, fading.
    proven: f32,
    is_proven: bool,
    /// An authentication from there failed lately, and none succeeded.
    is_suspect: bool,
}

/// The places of one kind.
#[derive(Default)]
struct Room {
    places: Vec<Option<Held>>,
    free: Vec<usize>,
    /// The number of the next place. A slot that was shed and taken again has another number.
    next: u64,
}

struct Held {
    number: u64,
    origin: Option<Origin>,
    is_proven: bool,
    is_suspect: bool,
    /// Since when nothing was heard; none while a request of it is served.
    silent_since: Option<Instant>,
    /// Since when the client reads nothing of what is written to it.
    stuck_since: Option<Instant>,
    shed: CancellationToken,
}

/// The connection for which a place is needed.
#[derive(Clone, Copy)]
struct Newcomer {
    is_proven: bool,
    now: Instant,
    /// How long a place must have been idle to be taken.
    patience: Duration,
}

impl Held {
    /// A client that does not read is as idle as one that does not send.
    fn idle_since(&self) -> Option<Instant> {
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
    fn taken(&self) -> usize {
        self.places.len() - self.free.len()
    }

    fn take(&mut self, held: impl FnOnce(u64) -> Held) -> (usize, u64) {
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
    fn leave(&mut self, slot: usize, number: u64) -> Option<Held> {
        let place = self.places.get_mut(slot)?;
        let held = place.take_if(|held| held.number == number)?;
        self.free.push(slot);
        Some(held)
    }

    fn held(&mut self, slot: usize, number: u64) -> Option<&mut Held> {
        self.places.get_mut(slot)?.as_mut().filter(|held| held.number == number)
    }

    /// One of these places that the newcomer may take: of two drawn at random, the one that was idle for
    /// longer.
    fn to_shed(
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
fn in_turn(all: usize) -> impl Iterator<Item = usize> {
    let from = if all > 0 { fastrand::usize(..all) } else { 0 };
    (from..all).chain(0..from)
}

/// A place at the door, given back when it is dropped.
pub struct Place {
    addresses: Arc<Addresses>,
    kind: Kind,
    slot: usize,
    number: u64,
    shed: CancellationToken,
}

impl Place {
    /// Resolves when the place was given to another connection.
    pub async fn shed(&self) {
        self.shed.cancelled().await;
    }

    /// Notes that a request of this connection is served: its place cannot be taken.
    pub fn is_busy(&self) {
        self.set_silent_since(None);
    }

    /// Notes that it is the client's turn to send.
    pub fn is_silent(&self) {
        self.set_silent_since(Some(Instant::now()));
    }

    /// Notes that the client reads nothing of what is written to it, or reads again.
    pub fn is_stuck(&self, is_stuck: bool) {
        let since = is_stuck.then(Instant::now);
        self.note(|held| held.stuck_since = since);
    }

    fn set_silent_since(&self, since: Option<Instant>) {
        self.note(|held| held.silent_since = since);
    }

    fn note(&self, note: impl FnOnce(&mut Held)) {
        let mut state = self.addresses.lock();
        if let Some(held) = state.room(self.kind).held(self.slot, self.number) {
            note(held);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.addresses.lock().leave(self.kind, self.slot, self.number);
    }
}

impl Addresses {
    /// No places taken yet.
    pub fn new(bounds: Bounds) -> Addresses {
        let state = State {
            connections: Room::default(),
            handshakes: Room::default(),
            failures: Bucket::full(bounds.failures, Instant::now()),
            of: HashMap::new(),
        };
        Addresses { bounds, state: Mutex::new(state) }
    }

    /// A place for a connection, and whether another connection lost its place for it. A proxy's connection
    /// is counted for the pod alone (`None`).
    pub fn connection(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<(Place, bool), Refusal> {
        self.place(Kind::Connection, address.map(Origin::from), now)
    }

    /// A place for a socket that is to authenticate, and whether another socket lost its place for it.
    pub fn handshake(
        self: &Arc<Self>,
        address: IpAddr,
        now: Instant,
    ) -> Result<(Place, bool), Refusal> {
        let origin = Origin::from(address);
        self.lock().check_failures(origin, &self.bounds, now)?;
        self.place(Kind::Handshake, Some(origin), now)
    }

    fn place(
        self: &Arc<Self>,
        kind: Kind,
        origin: Option<Origin>,
        now: Instant,
    ) -> Result<(Place, bool), Refusal> {
        let mut state = self.lock();
        let (slot, number, shed, somebody) = state.admit(kind, origin, &self.bounds, now)?;
        drop(state);
        Ok((Place { addresses: self.clone(), kind, slot, number, shed }, somebody))
    }

    /// Charges a failed authentication to the address, its networks and the pod.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        self.lock().failed(address.into(), &self.bounds, now);
    }

    /// Remembers that a connection from there had a place and sent nothing, or nothing that is an attempt to
    /// authenticate.
    pub fn silent(&self, address: IpAddr, now: Instant) {
        self.lock().silent(address.into(), &self.bounds, now);
    }

    /// Remembers that a satellite authenticated from there.
    pub fn succeeded(&self, address: IpAddr, now: Instant) {
        let mut state = self.lock();
        let account = state.account(Origin::from(address).own, &self.bounds, now);
        account.proven.add(SUCCESSES_FADE, now);
    }

    /// What is charged for failures of this address, and whether an authentication from there failed lately and
    /// none succeeded.
    pub fn suspicion(&self, address: IpAddr, now: Instant) -> (IpNet, bool) {
        let origin = Origin::from(address);
        (origin.own, self.lock().standing(origin, now).is_suspect)
    }

    /// Charges a wrong administrator's token to the address; false if there were too many lately.
    pub fn wrong_token(&self, address: IpAddr, now: Instant) -> bool {
        let mut state = self.lock();
        let account = state.account(Origin::from(address).own, &self.bounds, now);
        account.wrong_tokens.take(WRONG_TOKENS, now)
    }

    /// The numbers are right after a panic elsewhere: nothing here can panic halfway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn room(&mut self, kind: Kind) -> &mut Room {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Handshake => &mut self.handshakes,
        }
    }

    /// Whether failures allow another authentication from this origin.
    fn check_failures(
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

    fn admit(
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

    fn leave(&mut self, kind: Kind, slot: usize, number: u64) -> Option<Held> {
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

    fn failed(&mut self, origin: Origin, bounds: &Bounds, now: Instant) {
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

    fn silent(&mut self, origin: Origin, bounds: &Bounds, now: Instant) {
        self.account(origin.own, bounds, now).silent.add(FAILURES_FADE, now);
        for network in origin.and_its_networks() {
            self.account(network, bounds, now).failed.add(FAILURES_FADE, now);
        }
    }

    fn standing(&self, origin: Origin, now: Instant) -> Standing {
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

    fn account(&mut self, network: IpNet, bounds: &Bounds, now: Instant) -> &mut Account {
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

impl Bounds {
    /// The failures that an origin or a network may have.
    fn failures_of(&self, network: IpNet) -> Rate {
        let networks: &[_] =
            if matches!(network, IpNet::V4(_)) { &V4_NETWORKS } else { &V6_NETWORKS };
        let wider = networks.iter().find(|(length, ..)| *length == network.prefix_len());
        self.failures_per_address.times(wider.map_or(1.0, |(.., failures)| *failures))
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
