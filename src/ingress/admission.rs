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

use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::refusal::Refusal;
use account::{SUCCESSES_FADE, WRONG_TOKENS};
use origin::Origin;
use room::{Held, Kind};
use state::State;

pub use bounds::Bounds;

mod account;
mod bounds;
mod origin;
mod room;
mod state;
#[cfg(test)]
mod tests;

/// The door of one pod: who has a place there.
pub struct Addresses {
    bounds: Bounds,
    state: Mutex<State>,
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
        Addresses { bounds, state: Mutex::new(State::new(&bounds)) }
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
