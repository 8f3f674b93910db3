use std::time::Duration;

use super::room::LOOKED_AT;
use super::state::CROWD;
use super::*;
use crate::platform::bucket::Rate;

const BOUNDS: Bounds = Bounds {
    connections: 8,
    connections_per_address: 2,
    handshakes: 5,
    handshakes_per_address: 2,
    failures: Rate { burst: 50.0, per_second: 5.0 },
    failures_per_address: Rate { burst: 3.0, per_second: 1.0 },
    patience: Duration::from_secs(1),
    addresses: 30,
};

fn addresses() -> Arc<Addresses> {
    Arc::new(Addresses::new(BOUNDS))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An address of the nth network.
fn of(n: u8) -> IpAddr {
    IpAddr::from([10, 0, n, 1])
}

fn second(now: Instant, n: u64) -> Instant {
    now + Duration::from_secs(n)
}

fn is_shed(place: &Place) -> bool {
    place.shed.is_cancelled()
}

fn take(door: &Arc<Addresses>, address: IpAddr, now: Instant) -> Result<Place, Refusal> {
    door.handshake(address, now).map(|(place, _)| place)
}

#[test]
fn an_address_has_its_places_and_gives_them_back() {
    let (door, now) = (addresses(), Instant::now());
    let (a, b) = (ip("192.0.2.1"), ip("192.0.2.2"));
    let first = take(&door, a, now).ok();
    let second = take(&door, a, now).ok();
    assert!(first.is_some() && second.is_some());
    assert_eq!(take(&door, a, now).err(), Some(Refusal::HandshakesPerAddress));
    assert!(take(&door, b, now).is_ok());
    drop(first);
    assert!(take(&door, a, now).is_ok());
    assert!(door.connection(Some(a), now).is_ok(), "connections are counted by themselves");
}

#[test]
fn the_pod_has_its_places_whoever_takes_them() {
    let (door, now) = (addresses(), Instant::now());
    let held: Vec<Place> = (1..=5).filter_map(|n| take(&door, of(n), now).ok()).collect();
    assert_eq!(held.len(), 5);
    assert_eq!(take(&door, of(6), now).err(), Some(Refusal::Handshakes));
    drop(held);
    assert!(take(&door, of(6), now).is_ok());

    let proxied: Vec<_> = (0..8).filter_map(|_| door.connection(None, now).ok()).collect();
    assert_eq!(proxied.len(), 8, "a proxy is not an address of its own");
    let refused = door.connection(Some(ip("10.0.0.9")), now).err();
    assert_eq!(refused, Some(Refusal::Connections));
}

#[test]
fn whoever_says_nothing_for_a_while_makes_room_and_is_charged() {
    let (door, now) = (addresses(), Instant::now());
    let held: Vec<Place> = (1..=5).filter_map(|n| take(&door, of(n), now).ok()).collect();
    for place in &held[..4] {
        place.is_busy();
    }
    assert_eq!(take(&door, of(6), now).err(), Some(Refusal::Handshakes));
    let (_newcomer, somebody_left) = door.handshake(of(6), second(now, 1)).expect("a place");
    assert!(somebody_left);
    let shed: Vec<bool> = held.iter().map(is_shed).collect();
    assert_eq!(shed, [false, false, false, false, true]);
    // Its place has another owner now, so dropping it frees nothing.
    drop(held);
    let many = (10..20).filter(|n| take(&door, of(*n), second(now, 1)).is_ok()).count();
    assert_eq!(many, 10, "each goes before the next comes");
    let suspect = door.lock().standing(of(5).into(), second(now, 1)).is_suspect;
    assert!(suspect, "its silence is remembered");
    for _ in 0..100 {
        door.silent(of(5), second(now, 1));
    }
    assert!(take(&door, of(5), second(now, 1)).is_ok(), "and no origin is refused for it");
}

/// The room was full a moment ago, and much of it is free: the places of one address lie side by side.
#[test]
fn where_many_were_silent_who_has_just_come_is_spared_and_some_of_those_who_waited_are_too() {
    const SHARE: usize = 32;
    const TRIES: usize = 200;
    let bounds = Bounds {
        handshakes: 512,
        handshakes_per_address: SHARE as u32,
        addresses: 1_000,
        ..BOUNDS
    };
    let start = Instant::now();
    let later = |ms: u64| start + Duration::from_millis(ms);
    let (mut kept, mut oldest_kept) = (0, 0);
    for _ in 0..TRIES {
        let door = Arc::new(Addresses::new(bounds));
        let crowd: Vec<_> = (0..=255).filter_map(|n| take(&door, of(n), start).ok()).collect();
        assert_eq!(crowd.len(), 256);
        drop(crowd);
        for _ in 0..CROWD as u32 {
            door.silent(of(1), start);
        }
        let come = |ms: u64| take(&door, of(1), later(ms)).expect("a place");
        let waiting: Vec<_> = (0..SHARE as u64).map(come).collect();
        let newcomer = come(100);
        let _others: Vec<_> = (101..109).map(come).collect();
        kept += usize::from(!is_shed(&newcomer));
        oldest_kept += usize::from(!is_shed(&waiting[0]));
    }
    // exp(-8² / 32²) of them are 188.
    assert!(kept > 165, "{kept} of {TRIES} were spared by eight that came after them");
    // (1 - 2/32)^9 of them are 112.
    assert!(oldest_kept > 70, "{oldest_kept} of {TRIES} that had waited longest were spared");
}

#[test]
fn however_large_the_room_the_places_of_an_address_are_found() {
    let others = 4 * LOOKED_AT;
    let bounds = Bounds { connections: 2 * others as u32, ..BOUNDS };
    let (door, now) = (Arc::new(Addresses::new(bounds)), Instant::now());
    let _proxied: Vec<_> =
        (0..others).map(|_| door.connection(None, now).expect("a place")).collect();
    let mut held: Vec<_> =
        (0..2).map(|_| door.connection(Some(of(1)), now).expect("its share")).collect();
    for n in 1..=20 {
        let newcomer = door.connection(Some(of(1)), second(now, n));
        held.push(newcomer.expect("a place of one that was silent"));
    }
}

#[test]
fn where_many_were_silent_each_that_comes_takes_the_place_of_one_who_waits() {
    for is_proven in [false, true] {
        let (door, now) = (addresses(), Instant::now());
        if is_proven {
            door.succeeded(of(1), now);
        }
        for _ in 0..CROWD as u32 {
            door.silent(of(1), now);
        }
        let waiting = [take(&door, of(1), now), take(&door, of(1), now)];
        let [Ok(busy), Ok(idle)] = waiting else { panic!("its share") };
        busy.is_busy();
        for _ in 0..20 {
            let newcomer = take(&door, of(1), now).expect("a place");
            assert!(!is_shed(&newcomer));
        }
        assert!(is_shed(&idle) && !is_shed(&busy));
    }
}

#[test]
fn an_address_from_which_somebody_failed_makes_room_at_once() {
    let (door, now) = (addresses(), Instant::now());
    door.failed(of(1), now);
    let suspect = take(&door, of(1), now).expect("a place");
    let others: Vec<Place> = (2..=5).filter_map(|n| take(&door, of(n), now).ok()).collect();
    let newcomer = take(&door, of(6), now);
    assert!(newcomer.is_ok() && is_shed(&suspect) && !others.iter().any(is_shed));
    assert_eq!(take(&door, of(7), now).err(), Some(Refusal::Handshakes));
}

#[test]
fn an_address_that_authenticated_has_a_larger_share_and_strangers_make_room_for_it() {
    let (door, now) = (addresses(), Instant::now());
    let (nat, stranger) = (of(1), of(2));
    let strangers =
        [take(&door, stranger, now), take(&door, stranger, now), take(&door, of(3), now)];
    assert!(strangers.iter().all(Result::is_ok));
    for _ in 0..100 {
        door.succeeded(nat, now);
    }
    // Half of five, or what any address has.
    let own: Vec<Place> = (0..9).filter_map(|_| take(&door, nat, now).ok()).collect();
    assert_eq!(own.len(), 2);
    drop(own);
    let bounds = Bounds { handshakes: 20, ..BOUNDS };
    let door = Arc::new(Addresses::new(bounds));
    for _ in 0..3 {
        door.succeeded(nat, now);
    }
    let own: Vec<Place> = (0..9).filter_map(|_| take(&door, nat, now).ok()).collect();
    assert_eq!(own.len(), 5, "its own two, and one for each that authenticated");
    let strangers: Vec<Place> = (10..25).filter_map(|n| take(&door, of(n), now).ok()).collect();
    assert_eq!(strangers.len(), 15);
    drop(own);
    let own: Vec<Place> = (0..5).filter_map(|_| take(&door, nat, now).ok()).collect();
    assert_eq!(own.len(), 5);
    door.succeeded(of(30), now);
    assert!(take(&door, of(30), now).is_ok());
    assert_eq!(strangers.iter().filter(|place| is_shed(place)).count(), 1);
    assert!(!own.iter().any(is_shed), "a proven one goes before no stranger");
}

#[test]
fn failures_are_on_the_account_of_their_address_until_time_has_passed() {
    let (door, now) = (addresses(), Instant::now());
    let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
    for _ in 0..3 {
        assert!(take(&door, bad, now).is_ok());
        door.failed(bad, now);
    }
    let refused = Some(Refusal::FailedAuthenticationsPerAddress);
    assert_eq!(take(&door, bad, now).err(), refused);
    assert!(take(&door, good, now).is_ok());
    assert_eq!(take(&door, bad, now + Duration::from_millis(900)).err(), refused);
    assert!(take(&door, bad, now + Duration::from_millis(1_100)).is_ok());
}

#[test]
fn failures_of_a_network_are_on_its_account_and_not_on_that_of_a_proven_address() {
    let (door, now) = (addresses(), Instant::now());
    door.succeeded(ip("192.0.2.250"), now);
    for n in 0..24 {
        door.failed(IpAddr::from([192, 0, 2, n]), now);
    }
    let refused = Some(Refusal::FailedAuthenticationsPerNetwork);
    assert_eq!(take(&door, ip("192.0.2.99"), now).err(), refused);
    assert!(take(&door, ip("192.0.2.250"), now).is_ok());
    assert!(take(&door, ip("192.0.3.99"), now).is_ok());
}

#[test]
fn when_too_many_failed_at_the_pod_those_without_a_failure_still_get_in() {
    let (door, now) = (addresses(), Instant::now());
    for n in 0..50 {
        door.failed(of(n), now);
    }
    let refused = take(&door, of(49), now).err();
    assert_eq!(refused, Some(Refusal::FailedAuthentications));
    assert!(take(&door, ip("192.0.2.2"), now).is_ok());
    door.succeeded(of(49), now);
    assert!(take(&door, of(49), now).is_ok());
    assert!(take(&door, of(48), second(now, 1)).is_ok(), "and all the others once time has passed");
}

#[test]
fn an_ipv6_network_is_one_address_and_a_mapped_one_is_ipv4() {
    let (door, now) = (addresses(), Instant::now());
    let _first = take(&door, ip("2001:db8:1:2::1"), now).ok();
    let _second = take(&door, ip("2001:db8:1:2:ffff::2"), now).ok();
    let refused = Some(Refusal::HandshakesPerAddress);
    assert_eq!(take(&door, ip("2001:db8:1:2:3::3"), now).err(), refused);
    assert!(take(&door, ip("2001:db8:1:3::1"), now).is_ok());
    let _one = take(&door, ip("192.0.2.1"), now).ok();
    let _same = take(&door, ip("::ffff:192.0.2.1"), now).ok();
    assert_eq!(take(&door, ip("192.0.2.1"), now).err(), refused);
}

#[test]
fn a_wider_network_has_a_share_of_its_own() {
    let door = Arc::new(Addresses::new(Bounds { handshakes: 100, ..BOUNDS }));
    let now = Instant::now();
    let of = |n: u16| ip(&format!("2001:db8:1:{n:x}::1"));
    let held: Vec<Place> = (0..20).filter_map(|n| take(&door, of(n), now).ok()).collect();
    assert_eq!(held.len(), 8, "four times an address' share in a /56");
    assert_eq!(take(&door, of(30), now).err(), Some(Refusal::HandshakesPerNetwork));
    let held: Vec<Place> = (0..20).filter_map(|n| take(&door, of(n << 8 | 1), now).ok()).collect();
    assert_eq!(held.len(), 8, "eight times in a /48, half of it taken");
}

#[test]
fn what_is_remembered_is_bounded_and_whoever_is_inside_stays_counted() {
    let (door, now) = (addresses(), Instant::now());
    let (inside, known) = (ip("192.0.2.1"), ip("198.51.100.1"));
    let held = (take(&door, inside, now).ok(), take(&door, inside, now).ok());
    door.succeeded(known, now);
    for n in 0..250 {
        door.failed(IpAddr::from([10, 0, n, 1]), now + Duration::from_millis(n.into()));
        let remembered = door.lock().of.len();
        assert!(remembered <= BOUNDS.addresses, "{remembered}");
    }
    assert!(door.lock().standing(known.into(), now).is_proven, "a proven one goes last");
    assert_eq!(take(&door, inside, now).err(), Some(Refusal::HandshakesPerAddress));
    drop(held);
    assert!(take(&door, inside, second(now, 60)).is_ok());
}
