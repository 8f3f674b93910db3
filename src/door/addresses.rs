//! Who is at the door: connections, sockets that are not authenticated yet, and authentications
//! that failed, each bounded per address and for the pod.
//!
//! An address is an IPv4 address or an IPv6 network of 64 bits, of which anybody has a whole one.
//! What is remembered is bounded too: an address with nothing open and nothing on its account is
//! forgotten when room is needed.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::bucket::{Bucket, Rate};
use super::refusal::Refusal;

/// How much of each is let in.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections of one pod, before they become WebSockets.
    pub connections: u32,
    /// The same of one address.
    pub connections_per_address: u32,
    /// Sockets of one pod that are not authenticated yet.
    pub handshakes: u32,
    /// The same of one address.
    pub handshakes_per_address: u32,
    /// Failed authentications of one pod.
    pub failures: Rate,
    /// The same of one address.
    pub failures_per_address: Rate,
    /// Addresses to remember.
    pub addresses: usize,
}

/// See the module.
pub struct Addresses {
    bounds: Bounds,
    state: Mutex<State>,
}

struct State {
    connections: u32,
    handshakes: u32,
    failures: Bucket,
    of: HashMap<Address, Account>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(ip: IpAddr) -> Address {
        match ip.to_canonical() {
            IpAddr::V4(v4) => Address(v4.into()),
            IpAddr::V6(v6) => {
                let network = u128::from(v6) & !u128::from(u64::MAX);
                Address(Ipv6Addr::from(network).into())
            }
        }
    }
}

struct Account {
    connections: u32,
    handshakes: u32,
    failures: Bucket,
}

impl Account {
    fn is_idle(&self) -> bool {
        self.connections == 0 && self.handshakes == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Connection,
    Handshake,
}

/// A place at the door, given back when it is dropped.
pub struct Place {
    addresses: Arc<Addresses>,
    address: Option<Address>,
    kind: Kind,
}

impl Addresses {
    /// Nobody is there yet.
    pub fn new(bounds: Bounds) -> Addresses {
        let failures = Bucket::full(bounds.failures, Instant::now());
        let state = State { connections: 0, handshakes: 0, failures, of: HashMap::new() };
        Addresses { bounds, state: Mutex::new(state) }
    }

    /// A place for a connection; that of a proxy is counted for the pod alone (`None`).
    pub fn connection(
        self: &Arc<Self>,
        address: Option<IpAddr>,
        now: Instant,
    ) -> Result<Place, Refusal> {
        let mut state = self.lock();
        if state.connections >= self.bounds.connections {
            return Err(Refusal::Connections);
        }
        let address = address.map(Address::from);
        if let Some(address) = address {
            let account = state.account(address, &self.bounds, now);
            if account.connections >= self.bounds.connections_per_address {
                return Err(Refusal::ConnectionsPerAddress);
            }
            account.connections += 1;
        }
        state.connections += 1;
        Ok(Place { addresses: self.clone(), address, kind: Kind::Connection })
    }

    /// A place for a socket that is to authenticate.
    pub fn handshake(self: &Arc<Self>, address: IpAddr, now: Instant) -> Result<Place, Refusal> {
        let mut state = self.lock();
        let address = Address::from(address);
        let bounds = &self.bounds;
        let account = state.account(address, bounds, now);
        if !account.failures.has_one(bounds.failures_per_address, now) {
            return Err(Refusal::FailedAuthenticationsPerAddress);
        }
        if account.handshakes >= bounds.handshakes_per_address {
            return Err(Refusal::HandshakesPerAddress);
        }
        if !state.failures.has_one(bounds.failures, now) {
            return Err(Refusal::FailedAuthentications);
        }
        if state.handshakes >= bounds.handshakes {
            return Err(Refusal::Handshakes);
        }
        state.account(address, bounds, now).handshakes += 1;
        state.handshakes += 1;
        Ok(Place { addresses: self.clone(), address: Some(address), kind: Kind::Handshake })
    }

    /// Puts a failed authentication on the address' account, and on the pod's.
    pub fn failed(&self, address: IpAddr, now: Instant) {
        let mut state = self.lock();
        // An empty bucket stays empty: those already inside may be more than it held.
        state.failures.take(self.bounds.failures, now);
        let rate = self.bounds.failures_per_address;
        state.account(address.into(), &self.bounds, now).failures.take(rate, now);
    }

    /// How many addresses are remembered.
    pub fn remembered(&self) -> usize {
        self.lock().of.len()
    }

    /// The numbers are right after a panic elsewhere: nothing here can panic halfway.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn account(&mut self, address: Address, bounds: &Bounds, now: Instant) -> &mut Account {
        if self.of.len() >= bounds.addresses && !self.of.contains_key(&address) {
            self.make_room(bounds, now);
        }
        self.of.entry(address).or_insert_with(|| Account {
            connections: 0,
            handshakes: 0,
            failures: Bucket::full(bounds.failures_per_address, now),
        })
    }

    /// Forgets whom it costs nothing to forget; if that is nobody, half of those with nothing open,
    /// whose failures are then only on the pod's account. Frees enough to be rare.
    fn make_room(&mut self, bounds: &Bounds, now: Instant) {
        let rate = bounds.failures_per_address;
        self.of.retain(|_, account| !account.is_idle() || !account.failures.is_full(rate, now));
        if self.of.len() >= bounds.addresses {
            let mut spared = false;
            self.of.retain(|_, account| {
                spared = !spared;
                !account.is_idle() || spared
            });
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.addresses.lock();
        let account = self.address.and_then(|address| state.of.get_mut(&address));
        match self.kind {
            Kind::Connection => {
                if let Some(account) = account {
                    account.connections -= 1;
                }
                state.connections -= 1;
            }
            Kind::Handshake => {
                if let Some(account) = account {
                    account.handshakes -= 1;
                }
                state.handshakes -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const BOUNDS: Bounds = Bounds {
        connections: 8,
        connections_per_address: 2,
        handshakes: 5,
        handshakes_per_address: 2,
        failures: Rate { burst: 50.0, per_second: 5.0 },
        failures_per_address: Rate { burst: 3.0, per_second: 1.0 },
        addresses: 10,
    };

    fn addresses() -> Arc<Addresses> {
        Arc::new(Addresses::new(BOUNDS))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn an_address_has_its_places_and_gives_them_back() {
        let (door, now) = (addresses(), Instant::now());
        let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let first = door.handshake(a, now).ok();
        let second = door.handshake(a, now).ok();
        assert!(first.is_some() && second.is_some());
        assert_eq!(door.handshake(a, now).err(), Some(Refusal::HandshakesPerAddress));
        assert!(door.handshake(b, now).is_ok());
        drop(first);
        assert!(door.handshake(a, now).is_ok());
        assert!(door.connection(Some(a), now).is_ok(), "connections are counted by themselves");
    }

    #[test]
    fn the_pod_has_its_places_whoever_takes_them() {
        let (door, now) = (addresses(), Instant::now());
        let take = |n: u8| door.handshake(IpAddr::from([10, 0, 0, n]), now);
        let held: Vec<Place> = (1..=5).filter_map(|n| take(n).ok()).collect();
        assert_eq!(held.len(), 5);
        assert_eq!(take(6).err(), Some(Refusal::Handshakes));
        drop(held);
        assert!(take(6).is_ok());

        let proxied: Vec<Place> = (0..8).filter_map(|_| door.connection(None, now).ok()).collect();
        assert_eq!(proxied.len(), 8, "a proxy is not an address of its own");
        assert_eq!(door.connection(Some(ip("10.0.0.9")), now).err(), Some(Refusal::Connections));
    }

    #[test]
    fn failures_are_on_the_account_of_their_address_until_time_has_passed() {
        let (door, now) = (addresses(), Instant::now());
        let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
        for _ in 0..3 {
            assert!(door.handshake(bad, now).is_ok());
            door.failed(bad, now);
        }
        let refused = Some(Refusal::FailedAuthenticationsPerAddress);
        assert_eq!(door.handshake(bad, now).err(), refused);
        assert!(door.handshake(good, now).is_ok());
        assert_eq!(door.handshake(bad, now + Duration::from_millis(900)).err(), refused);
        assert!(door.handshake(bad, now + Duration::from_millis(1_100)).is_ok());
    }

    #[test]
    fn failures_of_many_addresses_are_on_the_account_of_the_pod() {
        let (door, now) = (addresses(), Instant::now());
        for n in 0..50 {
            door.failed(IpAddr::from([10, 0, n, 1]), now);
        }
        let refused = door.handshake(ip("192.0.2.2"), now).err();
        assert_eq!(refused, Some(Refusal::FailedAuthentications));
        assert!(door.handshake(ip("192.0.2.2"), now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn an_ipv6_network_is_one_address_and_a_mapped_one_is_ipv4() {
        let (door, now) = (addresses(), Instant::now());
        let _first = door.handshake(ip("2001:db8:1:2::1"), now).ok();
        let _second = door.handshake(ip("2001:db8:1:2:ffff::2"), now).ok();
        let refused = Some(Refusal::HandshakesPerAddress);
        assert_eq!(door.handshake(ip("2001:db8:1:2:3::3"), now).err(), refused);
        assert!(door.handshake(ip("2001:db8:1:3::1"), now).is_ok());
        let _one = door.handshake(ip("192.0.2.1"), now).ok();
        let _same = door.handshake(ip("::ffff:192.0.2.1"), now).ok();
        assert_eq!(door.handshake(ip("192.0.2.1"), now).err(), refused);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_whoever_is_inside_stays_counted() {
        let (door, now) = (addresses(), Instant::now());
        let inside = ip("192.0.2.1");
        let held = (door.handshake(inside, now).ok(), door.handshake(inside, now).ok());
        for n in 0..250 {
            door.failed(IpAddr::from([10, 0, 0, n]), now + Duration::from_millis(n.into()));
            assert!(door.remembered() <= BOUNDS.addresses, "{}", door.remembered());
        }
        let later = now + Duration::from_secs(60);
        assert_eq!(door.handshake(inside, later).err(), Some(Refusal::HandshakesPerAddress));
        drop(held);
        assert!(door.handshake(inside, later).is_ok());
    }
}
