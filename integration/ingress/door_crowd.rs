//! Clients that say nothing at the door, or something wrong, cost others nothing: not from a few addresses, not from
//! many, and not from all of a network.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Error, Message};
use uuid::Uuid;

use crate::harness::faults::full;
use crate::harness::raw::{Raw, UPGRADE};
use crate::harness::{CALM, Credentials, Fleet, Heard, Pod, Satellite, eventually};

const SHED: &str = "groundstation_door_refusals_total{reason=\"handshake_shed\"}";

/// The nth of many networks of this machine.
fn network(n: u8, host: u8) -> IpAddr {
    IpAddr::from([127, 30 + n / 200, n % 200, host])
}

/// Upgrades and says nothing, again and again, on this many sockets at once from each of these addresses.
fn besiege(pod: SocketAddr, from: &[IpAddr], sockets: usize) -> (JoinSet<()>, Arc<AtomicU32>) {
    let (mut besiegers, inside) = (JoinSet::new(), Arc::new(AtomicU32::new(0)));
    for from in from.iter().copied() {
        for _ in 0..sockets {
            let inside = inside.clone();
            besiegers.spawn(async move {
                loop {
                    if let Ok(mut raw) = Raw::connect_from(pod, from).await {
                        raw.send(format!("{UPGRADE}\r\n")).await;
                        if raw.ended_after(b"HTTP/1.1 101").await {
                            inside.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    // Each tries a few times a second, whatever the answer.
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
            });
        }
    }
    (besiegers, inside)
}

/// One attempt to be let in.
async fn try_from(pod: SocketAddr, from: IpAddr, who: &Credentials) -> Result<Satellite, String> {
    let opened = Satellite::try_open_from(pod, from).await;
    let mut satellite = opened.map_err(|error| error.to_string())?;
    satellite.authenticate(who);
    match satellite.hear().await {
        Heard::Message(message) if message["type"] == "authenticated" => Ok(satellite),
        other => Err(format!("{other:?}")),
    }
}

/// How many of twenty get in at once, at least; a busy machine may be late with some answers.
fn at_their_first_try() -> usize {
    if full() { 20 } else { 16 }
}

/// Acts as an agent: tries until it is let in, with growing pauses. Returns the number of tries.
async fn come_back(pod: SocketAddr, from: IpAddr, who: Credentials) -> (Satellite, u32) {
    for tried in 0..8 {
        match try_from(pod, from, &who).await {
            Ok(satellite) => return (satellite, tried + 1),
            Err(_) => {
                let pause = (1_000u64 << tried).min(30_000) as f64 * (0.75 + 0.5 * fastrand::f64());
                tokio::time::sleep(Duration::from_millis(pause as u64)).await;
            }
        }
    }
    panic!("it was never let in");
}

#[tokio::test]
async fn two_addresses_that_say_nothing_keep_nobody_else_out() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let honest = fleet.register(&pod, "honest", 20).await;
    let (_besiegers, _) = besiege(pod.address, &[network(1, 1), network(2, 1)], 300);
    eventually("the siege", async || {
        let refused = ["handshakes_per_address", "handshake_shed", "handshakes"];
        let mut met = 0.0;
        for reason in refused {
            met += pod
                .metric(&format!("groundstation_door_refusals_total{{reason=\"{reason}\"}}"))
                .await;
        }
        if met > 100.0 { Ok(()) } else { Err(met.to_string()) }
    })
    .await;
    let mut held = Vec::new();
    for (n, who) in honest.iter().enumerate() {
        match try_from(pod.address, network(100 + n as u8, 1), who).await {
            Ok(satellite) => held.push(satellite),
            Err(why) => eprintln!("the {n}th was not let in: {why}"),
        }
    }
    assert!(held.len() >= at_their_first_try(), "only {} got in at their first try", held.len());
}

#[tokio::test]
async fn a_crowd_that_takes_all_the_room_is_shed_and_whoever_has_done_nothing_wrong_gets_in() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let honest = fleet.register(&pod, "honest", 20).await;
    let crowd: Vec<IpAddr> = (0..60).map(|n| network(n, 1)).collect();
    let (_besiegers, _) = besiege(pod.address, &crowd, 12);
    eventually("all the room to be taken", async || {
        let taken = pod.metric("groundstation_handshakes").await;
        if taken > 500.0 { Ok(()) } else { Err(taken.to_string()) }
    })
    .await;
    let mut comers = JoinSet::new();
    for (n, who) in honest.into_iter().enumerate() {
        comers.spawn(come_back(pod.address, network(100 + n as u8, 1), who));
    }
    let let_in = comers.join_all().await;
    let tries: Vec<u32> = let_in.iter().map(|(_, tries)| *tries).collect();
    println!("tries: {tries:?}");
    assert!(tries.iter().sum::<u32>() < 60, "{tries:?}");
    assert!(pod.metric(SHED).await > 0.0);
}

/// Three hundred of them at once after a deploy: the pod is new and knows no address.
#[tokio::test]
async fn many_satellites_behind_one_address_all_get_in_a_little_later() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let many = fleet.register_many("nat", 300).await;
    let mut comers = JoinSet::new();
    for who in many {
        comers.spawn(come_back(pod.address, network(7, 7), who));
    }
    let let_in = comers.join_all().await;
    println!("the most tries: {:?}", let_in.iter().map(|(_, tries)| tries).max());
    pod.expect_metric("groundstation_sessions", 300.0).await;
}

/// Opens this many connections from there that send this much and no more, and reopens each when it is closed.
fn hold(pod: SocketAddr, from: IpAddr, count: usize, says: &'static [u8]) -> JoinSet<()> {
    hold_with(pod, from, count, says, 200)
}

/// The same with pauses of so many milliseconds at most.
fn hold_with(
    pod: SocketAddr,
    from: IpAddr,
    count: usize,
    says: &'static [u8],
    pause: u64,
) -> JoinSet<()> {
    let mut held = JoinSet::new();
    for _ in 0..count {
        held.spawn(async move {
            loop {
                if let Ok(mut raw) = Raw::connect_from(pod, from).await {
                    raw.send(says).await;
                    raw.ended_or_said(TRY_AGAIN_LATER).await;
                }
                // Each at its own time: in waves they would leave quiet between them.
                tokio::time::sleep(Duration::from_millis(fastrand::u64(..pause))).await;
            }
        });
    }
    held
}

/// A close frame with 1013 and no reason in words.
const TRY_AGAIN_LATER: &[u8] = b"\x88\x02\x03\xf5";

/// An upgrade, and half a frame.
const HALF_A_FRAME: &[u8] = b"GET /api/ws/satellite HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n\
    \x81\xff\0\0\0\0\0\0\0\x64";

/// A request that may be made without a token, and the beginning of its body.
const HALF_A_BODY: &[u8] =
    b"POST /console/session HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
    content-length: 4000\r\n\r\n{";

/// An upgrade, and a whole message that is no `authenticate`. It does not answer the close.
const NO_AUTHENTICATE: &[u8] = b"GET /api/ws/satellite HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n\
    \x81\x82\0\0\0\0{}";

/// An upgrade, and a frame that is not masked. It does not answer the close.
const BROKEN_FRAMING: &[u8] = b"GET /api/ws/satellite HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n\
    \x81\x02{}";

/// Four satellites come in beside many silent clients at their own address.
async fn four_come_in(is_known: bool, count: usize, says: &'static [u8]) {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    four_come_into(&fleet, &pod, network(9, 9), is_known, &[(count, says)]).await;
}

async fn four_come_into(
    fleet: &Fleet,
    pod: &Pod,
    from: IpAddr,
    is_known: bool,
    crowd: &[(usize, &'static [u8])],
) {
    let mut honest = fleet.register(pod, "honest", 5).await;
    let first = honest.pop().expect("five");
    let known = match is_known {
        true => Some(try_from(pod.address, from, &first).await.expect("it is let in")),
        false => None,
    };
    // Most are turned away at once: thousands a second would take all of a machine that runs other tests too.
    let pause = if full() { 200 } else { 1_000 };
    let hold =
        |(count, says): &(usize, &'static [u8])| hold_with(pod.address, from, *count, says, pause);
    let _silent: Vec<JoinSet<()>> = crowd.iter().map(hold).collect();
    // A client that comes in the first second is refused: none was silent for longer than a slow line is.
    eventually("them to make room for each other", async || {
        let mut shed = 0.0;
        for kind in ["connection_shed", "handshake_shed"] {
            let name = format!("groundstation_door_refusals_total{{reason=\"{kind}\"}}");
            shed += pod.metric(&name).await;
        }
        if shed > 100.0 { Ok(()) } else { Err(shed.to_string()) }
    })
    .await;
    let mut comers = JoinSet::new();
    for who in honest {
        comers.spawn(come_back(pod.address, from, who));
    }
    let let_in = comers.join_all().await;
    let tries: Vec<u32> = let_in.iter().map(|(_, tries)| *tries).collect();
    println!("tries: {tries:?}");
    // An answer that a busy machine is late with costs a try.
    let most = if full() { 8 } else { 20 };
    assert!(tries.iter().sum::<u32>() <= most, "{tries:?}");
    drop(known);
}

#[tokio::test]
async fn silent_connections_keep_no_satellite_of_their_own_address_out() {
    four_come_in(false, 600, b"").await;
}

#[tokio::test]
async fn silent_connections_keep_no_satellite_of_an_address_out_that_is_known() {
    four_come_in(true, 600, b"").await;
}

/// Signing in needs no token before its body is there.
#[tokio::test]
async fn half_bodies_keep_no_satellite_of_their_own_address_out() {
    four_come_in(false, 600, HALF_A_BODY).await;
}

#[tokio::test]
async fn half_bodies_keep_no_satellite_of_an_address_out_that_is_known() {
    four_come_in(true, 600, HALF_A_BODY).await;
}

#[tokio::test]
async fn half_messages_keep_no_satellite_of_their_own_address_out() {
    four_come_in(false, 300, HALF_A_FRAME).await;
}

#[tokio::test]
async fn half_messages_keep_no_satellite_of_an_address_out_that_is_known() {
    four_come_in(true, 300, HALF_A_FRAME).await;
}

#[tokio::test]
async fn first_messages_that_are_none_keep_no_satellite_of_their_own_address_out() {
    four_come_in(false, 300, NO_AUTHENTICATE).await;
}

#[tokio::test]
async fn first_messages_that_are_none_keep_no_satellite_of_an_address_out_that_is_known() {
    four_come_in(true, 300, NO_AUTHENTICATE).await;
}

#[tokio::test]
async fn broken_framing_keeps_no_satellite_of_its_own_address_out() {
    four_come_in(false, 300, BROKEN_FRAMING).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn first_messages_that_are_none_take_all_the_room_and_no_place_from_others() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let honest = fleet.register(&pod, "honest", 20).await;
    let _crowd: Vec<JoinSet<()>> =
        (0..12).map(|n| hold(pod.address, network(n, 1), 60, NO_AUTHENTICATE)).collect();
    pod.expect_metric(SHED, 100.0).await;
    let mut held = Vec::new();
    for (n, who) in honest.iter().enumerate() {
        match try_from(pod.address, network(100 + n as u8, 1), who).await {
            Ok(satellite) => held.push(satellite),
            Err(why) => eprintln!("the {n}th was not let in: {why}"),
        }
    }
    assert!(held.len() >= at_their_first_try(), "only {} got in at their first try", held.len());
}

#[tokio::test]
async fn silent_connections_and_half_messages_together_keep_no_satellite_of_their_own_address_out()
{
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    four_come_into(&fleet, &pod, network(9, 9), false, &[(600, b""), (300, HALF_A_FRAME)]).await;
}

/// Others were there first: the crowd's places come after theirs, side by side.
#[tokio::test]
async fn half_messages_keep_no_satellite_of_their_own_address_out_beside_those_of_others() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let _others: Vec<JoinSet<()>> =
        (100..111).map(|n| hold(pod.address, network(n, 1), 40, HALF_A_FRAME)).collect();
    // Not all of them are there at every moment: each is closed when its time is over.
    pod.expect_metric("groundstation_handshakes", 400.0).await;
    four_come_into(&fleet, &pod, network(9, 9), false, &[(300, HALF_A_FRAME)]).await;
}

/// Opens a socket as a proxy does for this address. Returns the status if refused.
async fn open(pod: &Pod, client: &str) -> Result<Satellite, u16> {
    match Satellite::try_open_with(pod.address, &[("x-forwarded-for", client)]).await {
        Ok(satellite) => Ok(satellite),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

async fn fail(pod: &Pod, client: &str) -> Result<(), u16> {
    let mut satellite = open(pod, client).await?;
    satellite.authenticate(&Credentials { id: Uuid::new_v4(), token: "csat_void".to_owned() });
    satellite.expect("auth_failed").await;
    Ok(())
}

#[tokio::test]
async fn sockets_that_do_not_try_to_authenticate_do_not_make_a_pod_turn_their_address_away() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.0.0/8");
    let plan = plan.with("GROUNDSTATION_AUTHENTICATION_TIMEOUT", "1s");
    let pod = plan.with("GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS_PER_ADDRESS", "4").start().await;
    let who = pod.register("edge", "eu").await;
    for nth in 0..16 {
        let mut socket = open(&pod, "198.51.100.1").await.expect("a socket");
        match nth % 4 {
            0 => assert_eq!(socket.hear().await, Heard::Closed(1013)),
            1 => socket.vanish(),
            2 => {
                socket.beat();
                socket.expect("auth_failed").await;
            }
            _ => {
                socket.send_frame(Message::text("x".repeat(65_537)));
                assert_eq!(socket.hear().await, Heard::Closed(1009));
            }
        }
    }
    let mut honest = open(&pod, "198.51.100.1").await.expect("a socket");
    honest.authenticate(&who);
    honest.expect("authenticated").await;
}

#[tokio::test]
async fn failures_of_a_whole_network_are_on_its_account_and_not_on_that_of_whoever_authenticated() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.0.0/8");
    let pod = plan.with("GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS_PER_ADDRESS", "4").start().await;
    let who = pod.register("edge", "eu").await;
    let home = "2001:db8:1:ff::1";
    let mut honest = open(&pod, home).await.expect("a socket");
    honest.authenticate(&who);
    honest.expect("authenticated").await;
    let other = pod.register("other", "eu").await;
    let mut v4 = open(&pod, "198.51.100.200").await.expect("a socket");
    v4.authenticate(&other);
    v4.expect("authenticated").await;
    type NthOf = fn(u16) -> String;
    let cases: [(NthOf, &str, &str); 2] = [
        (|n| format!("2001:db8:1:{n:x}::1"), "2001:db8:1:fe::1", "2001:db8:2::1"),
        (|n| format!("198.51.100.{n}"), "198.51.100.199", "198.51.101.1"),
    ];
    for (networks, clean, outside) in cases {
        let mut failed = 0;
        while fail(&pod, &networks(failed)).await.is_ok() {
            failed += 1;
            assert!(failed < 180, "nobody is refused");
        }
        assert_eq!(open(&pod, clean).await.err(), Some(429), "an address of the network");
        assert!(open(&pod, outside).await.is_ok());
    }
    assert!(open(&pod, home).await.is_ok(), "it authenticated a moment ago");
    assert!(open(&pod, "198.51.100.200").await.is_ok(), "so did this one");
}

#[tokio::test]
async fn failures_from_everywhere_keep_out_whoever_failed_and_nobody_else() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_TRUSTED_PROXIES", "127.0.0.0/8");
    let pod = plan.with("GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS", "30").start().await;
    let known = pod.register("known", "eu").await;
    let mut first = open(&pod, "203.0.113.9").await.expect("a socket");
    first.authenticate(&known);
    first.expect("authenticated").await;
    let mut failed = 0;
    while fail(&pod, &format!("198.51.{}.1", failed % 40)).await.is_ok() {
        failed += 1;
        assert!(failed < 200, "nobody is refused");
    }
    assert!(failed >= 30, "{failed}");
    assert_eq!(open(&pod, "198.51.3.1").await.err(), Some(503));
    assert!(open(&pod, "203.0.113.9").await.is_ok(), "it authenticated a moment ago");
    assert!(open(&pod, "192.0.2.77").await.is_ok(), "nothing is on its account");
}
