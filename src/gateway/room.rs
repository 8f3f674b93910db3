//! The memory that all large messages of a pod may take together, from their arrival until they are passed
//! on.
//!
//! A message takes room for what has arrived of it and a little ahead; an announcement takes none. A message
//! that finds no room waits in turn ([`Lane`]). Freed room goes to the message that has waited longest. A
//! satellite whose messages took much room for long lately comes after the others, so a satellite that seldom
//! needs room is next, however many take as much as they can. Messages of up to a megabyte have a part of the
//! room to themselves and never wait for larger ones. A fragmented message, whose size is unknown, counts
//! among these until it exceeds a megabyte; then it changes over.
//!
//! A smaller message that finds its part full is a guest in the other part, while there is room and no larger
//! message waits; otherwise it would wait beside room that nothing uses. It is never the other way round, because the
//! larger messages would soon have all. A guest keeps no larger message from completing: once one waits, no more guests
//! come in, and those that are there have all they need and are held to their pace. A message in fragments that turns
//! out to be larger waits as a larger one does.
//!
//! Messages that each hold some room and wait for more could wait for each other for ever. So one place is
//! kept for a whole message of the largest size. It goes to the message that has waited longest. That message
//! needs nothing more: it completes, or it is given up. It is given up if others wait and it arrives more
//! slowly than its pace ([`Share::pace`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::OptionFuture;
use tokio::time::{Instant, interval};

use super::lane::{Given, Lane};
use crate::domain::lifecycle::SatelliteId;
use crate::ingress::recent::Recent;
use crate::platform::metrics::{Counted, Metrics};

/// A message of up to this many bytes takes its room at once, in the part for such messages. A larger one
/// begins with this much.
const SMALLER_BYTES: u64 = 1024 * 1024;

/// Smaller messages have one part in this many of the room that is not kept for the largest message.
const SMALLER_PART: u64 = 3;

/// What a fragmented message takes at first.
const UNKNOWN_BYTES: u64 = 128 * 1024;

/// A satellite that took this many megabyte-seconds lately took much: several pages that arrive slowly do,
/// one does not.
const MUCH: f32 = 64.0;

/// The time in which half of that is forgotten.
const FADES: Duration = Duration::from_secs(5 * 60);

/// Satellites whose use is remembered. If there are more, those that took little are forgotten.
const REMEMBERED: usize = 4_096;

/// How often the pace of a message is checked within the time it may take.
const LOOKS: u32 = 12;

/// The memory that large messages of a pod may take together.
pub struct Room {
    largest: u64,
    smaller: Arc<Lane>,
    larger: Arc<Lane>,
    /// For one message of any size.
    whole: Arc<Lane>,
    patience: Duration,
    /// Megabyte-seconds by satellite.
    taken: Mutex<HashMap<SatelliteId, Recent>>,
    metrics: Metrics,
}

/// What one message takes of the room, until dropped.
pub struct Share {
    room: Arc<Room>,
    /// The size of the message, if it is known.
    announced: Option<u64>,
    /// The satellite that sends it.
    satellite: Option<SatelliteId>,
    bytes: u64,
    given: Vec<Given>,
    /// Whether what it has is of the larger ones' part: it is one, or a guest.
    is_in_larger: bool,
    has_whole: bool,
    /// Up to when its use is charged to its satellite.
    charged: Instant,
}

/// What a message is to have, how much of that is to be given, and of which part.
struct Ask {
    total: u64,
    step: u64,
    of_larger: bool,
}

impl Room {
    /// A room of `bytes` bytes for messages of up to `largest` bytes. Each may take `patience` to arrive
    /// while others wait.
    pub fn new(bytes: u32, largest: u32, patience: Duration, metrics: Metrics) -> Arc<Room> {
        metrics.large_message_bytes_max.set(i64::from(bytes));
        let shared = u64::from(bytes.saturating_sub(largest));
        let smaller = shared / SMALLER_PART;
        Arc::new(Room {
            largest: u64::from(largest),
            smaller: Lane::of(smaller),
            larger: Lane::of(shared - smaller),
            whole: Lane::of(1),
            patience,
            taken: Mutex::default(),
            metrics,
        })
    }

    /// A share without room yet, for a message of this satellite, of `announced` bytes if its size is known.
    pub fn share(
        self: &Arc<Self>,
        satellite: Option<SatelliteId>,
        announced: Option<u64>,
    ) -> Share {
        Share {
            room: self.clone(),
            announced,
            satellite,
            bytes: 0,
            given: Vec::new(),
            is_in_larger: announced.is_some_and(|bytes| bytes > SMALLER_BYTES),
            has_whole: false,
            charged: Instant::now(),
        }
    }

    /// Charges a satellite, and returns whether it took much lately.
    fn charge(&self, satellite: SatelliteId, megabyte_seconds: f32) -> bool {
        let (mut taken, now) = (self.taken(), Instant::now());
        if taken.len() >= REMEMBERED && !taken.contains_key(&satellite) {
            taken.retain(|_, of_one| of_one.level(FADES, now) >= MUCH);
        }
        if taken.len() >= REMEMBERED && !taken.contains_key(&satellite) {
            return false;
        }
        let of_one = taken.entry(satellite).or_insert_with(|| Recent::never(now));
        of_one.add_many(megabyte_seconds, FADES, now);
        of_one.level(FADES, now) >= MUCH
    }

    /// Valid after a panic elsewhere: every change to it is one call.
    fn taken(&self) -> MutexGuard<'_, HashMap<SatelliteId, Recent>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    /// Whether the share has room for this many bytes of the message.
    pub fn is_enough_for(&self, bytes: u64) -> bool {
        bytes <= self.bytes
    }

    /// Whether others wait for the room of this message.
    pub fn is_waited_for(&self) -> bool {
        let Room { smaller, larger, .. } = &*self.room;
        // What a guest has the next guest could have.
        let by_smaller = self.has_whole || self.is_guest() || !self.is_in_larger;
        let by_larger = self.has_whole || self.is_in_larger;
        by_smaller && smaller.is_waited_for() || by_larger && larger.is_waited_for()
    }

    fn is_guest(&self) -> bool {
        self.is_in_larger && self.announced.unwrap_or(self.bytes) <= SMALLER_BYTES
    }

    /// The least that must arrive of the message while others wait: bytes, and the time for them.
    pub fn pace(&self) -> (u64, Duration) {
        (self.announced.unwrap_or(self.bytes) / u64::from(LOOKS), self.room.patience / LOOKS)
    }

    /// Takes room for this many bytes of the message and some ahead, if there is room and nothing waits.
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let ask = self.ask(bytes);
        let Room { smaller, larger, whole, .. } = &*self.room.clone();
        let lane = if ask.of_larger { larger } else { smaller };
        if let Some(given) = lane.try_take(ask.step) {
            self.add(&ask, given);
            return true;
        }
        if smaller.is_waited_for() || larger.is_waited_for() {
            return false;
        }
        if let Some(ask) = self.ask_as_guest(&ask)
            && let Some(given) = larger.try_take(ask.step)
        {
            self.add(&ask, given);
            return true;
        }
        match whole.try_take(1) {
            Some(whole) => {
                self.add_whole(whole);
                true
            }
            None => false,
        }
    }

    /// The same, when it is this message's turn. None if the message is given up: it must change over, and
    /// others wait for the room it holds.
    pub async fn grow(mut self, bytes: u64) -> Option<Share> {
        let ask = self.ask(bytes);
        let as_guest = self.ask_as_guest(&ask);
        let room = self.room.clone();
        room.metrics.held_back("room");
        let mut took_much = self.charge();
        let _waiting = Counted::on(&room.metrics.large_messages_waiting);
        let mut looks = interval(room.patience / LOOKS);
        looks.reset();
        let lane = if ask.of_larger { &room.larger } else { &room.smaller };
        let wait = |took_much| {
            let guest = |ask: &Ask| room.larger.take_as_guest(ask.step, took_much);
            let beside = OptionFuture::from(as_guest.as_ref().map(guest));
            (lane.take(ask.step, took_much), room.whole.take(1, took_much), beside)
        };
        let (mut given, mut whole, mut beside) = wait(took_much);
        loop {
            tokio::select! {
                biased;
                Ok(given) = &mut given => {
                    self.add(&ask, given);
                    return Some(self);
                }
                Some(Ok(given)) = &mut beside => {
                    self.add(as_guest.as_ref().unwrap_or(&ask), given);
                    return Some(self);
                }
                Ok(whole) = &mut whole => {
                    self.add_whole(whole);
                    return Some(self);
                }
                _ = looks.tick() => {
                    if self.changes_over(&ask) && room.smaller.is_waited_for() {
                        return None;
                    }
                    // It keeps what it has while it waits for more.
                    if !took_much && self.charge() {
                        took_much = true;
                        (given, whole, beside) = wait(took_much);
                    }
                }
            }
        }
    }

    /// What is to be given for so many bytes of the message: all of it to one that changes over.
    fn ask(&self, bytes: u64) -> Ask {
        let total = self.total(bytes);
        let of_larger = self.is_in_larger || total > SMALLER_BYTES;
        let step = if of_larger == self.is_in_larger { total - self.bytes } else { total };
        Ask { total, step, of_larger }
    }

    /// What a smaller one asks the larger ones' part for: all that it can need, or it would wait again while it has
    /// room that larger ones wait for.
    fn ask_as_guest(&self, ask: &Ask) -> Option<Ask> {
        let total = self.announced.unwrap_or(SMALLER_BYTES);
        (!ask.of_larger).then_some(Ask { total, step: total, of_larger: true })
    }

    /// How much room the message is to have: twice what has arrived, because the layer above allocates that
    /// way; all that is announced of a smaller message.
    fn total(&self, bytes: u64) -> u64 {
        let first = if self.announced.is_some() { SMALLER_BYTES } else { UNKNOWN_BYTES };
        let ahead = bytes.max(2 * self.bytes).max(first);
        // It counts as one of the smaller ones for as long as it can.
        let most = match self.announced {
            Some(announced) => announced,
            None if bytes <= SMALLER_BYTES => SMALLER_BYTES,
            None => self.room.largest,
        };
        ahead.min(most).max(bytes)
    }

    fn changes_over(&self, ask: &Ask) -> bool {
        ask.of_larger && !self.is_in_larger
    }

    /// Charges the use until now to its satellite, and returns whether that satellite took much lately.
    fn charge(&mut self) -> bool {
        let seconds = self.charged.elapsed().as_secs_f32();
        self.charged = Instant::now();
        let megabytes = self.bytes as f32 / SMALLER_BYTES as f32;
        self.satellite.is_some_and(|satellite| self.room.charge(satellite, megabytes * seconds))
    }

    fn add(&mut self, ask: &Ask, given: Given) {
        self.charge();
        if self.changes_over(ask) {
            self.given.clear();
        }
        self.is_in_larger = ask.of_larger;
        self.given.push(given);
        self.set(ask.total);
    }

    fn add_whole(&mut self, whole: Given) {
        self.charge();
        self.has_whole = true;
        self.given.push(whole);
        self.set(self.announced.unwrap_or(self.room.largest));
    }

    fn set(&mut self, bytes: u64) {
        self.room.metrics.large_message_bytes.inc_by((bytes - self.bytes).cast_signed());
        self.bytes = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.charge();
        self.room.metrics.large_message_bytes.dec_by(self.bytes.cast_signed());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LARGEST: u32 = 16 * 1024 * 1024;

    fn room(bytes: u32) -> Arc<Room> {
        Room::new(bytes, LARGEST, Duration::from_secs(60), Metrics::new())
    }

    /// Takes in a message piece by piece, and gives its room back when all of it has arrived.
    async fn take_in(room: Arc<Room>, bytes: u64, announced: Option<u64>, piece: u64) {
        let mut share = room.share(None, announced);
        let mut come = 0;
        while come < bytes {
            come = bytes.min(come + piece);
            if !share.is_enough_for(come) && !share.try_grow(come) {
                share = share.grow(come).await.expect("others do not wait for a minute");
            }
            let taken = room.metrics.large_message_bytes.get();
            assert!(taken <= room.metrics.large_message_bytes_max.get(), "{taken}");
            tokio::task::yield_now().await;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However many messages arrive at once, and however the room is cut: none waits for ever, and all
        /// room comes back.
        #[test]
        fn all_messages_come_to_their_end_within_the_room(
            beyond in 0u32..64 * 1024 * 1024,
            messages in prop::collection::vec(
                (sizes(), any::<bool>(), 16_384u64..2_000_000), 1..60),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let room = room(LARGEST + beyond);
            let before = free(&room);
            runtime.expect("a runtime").block_on(async {
                let all: Vec<_> = messages.into_iter().map(|(bytes, is_announced, piece)| {
                    let announced = is_announced.then_some(bytes);
                    tokio::spawn(take_in(room.clone(), bytes, announced, piece))
                }).collect();
                for one in all {
                    let ended = tokio::time::timeout(Duration::from_secs(30), one).await;
                    ended.expect("it waits for ever").expect("within the room");
                }
            });
            prop_assert_eq!(room.metrics.large_message_bytes.get(), 0);
            prop_assert_eq!(room.metrics.large_messages_waiting.get(), 0);
            prop_assert_eq!(free(&room), before);
        }
    }

    /// As many smaller ones as larger ones.
    fn sizes() -> impl Strategy<Value = u64> {
        prop_oneof![65_536..=SMALLER_BYTES, SMALLER_BYTES..u64::from(LARGEST)]
    }

    /// What is free of the part for smaller ones, and of the other.
    fn free(room: &Room) -> (u64, u64) {
        (room.smaller.free(), room.larger.free())
    }

    #[test]
    fn an_announcement_takes_a_megabyte_and_what_comes_as_much_again() {
        let room = room(4 * LARGEST);
        let taken = || room.metrics.large_message_bytes.get().cast_unsigned();
        let mut share = room.share(None, Some(u64::from(LARGEST)));
        for (come, expected) in [
            (1, SMALLER_BYTES),
            (SMALLER_BYTES, SMALLER_BYTES),
            (SMALLER_BYTES + 1, 2 * SMALLER_BYTES),
            (5 * SMALLER_BYTES, 5 * SMALLER_BYTES),
            (6 * SMALLER_BYTES, 10 * SMALLER_BYTES),
            (11 * SMALLER_BYTES, u64::from(LARGEST)),
        ] {
            assert!(share.is_enough_for(come) || share.try_grow(come));
            assert_eq!(taken(), expected, "{come}");
        }
        drop(share);
        let mut short = room.share(None, Some(100_000));
        assert!(short.try_grow(1));
        assert_eq!(taken(), 100_000);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_in_fragments_is_a_smaller_one_until_it_is_not() {
        let room = room(4 * LARGEST);
        let free = || free(&room);
        let (smaller, larger) = free();
        let mut share = room.share(None, None);
        assert!(share.try_grow(100_000));
        assert_eq!(free(), (smaller - UNKNOWN_BYTES, larger));
        assert!(share.try_grow(SMALLER_BYTES));
        assert_eq!(free(), (smaller - SMALLER_BYTES, larger));
        assert!(share.try_grow(SMALLER_BYTES + 1));
        assert_eq!(free(), (smaller, larger - 2 * SMALLER_BYTES));
        drop(share);
        assert_eq!(free(), (smaller, larger));
        // If it cannot change over, it does not block the room of the smaller ones.
        let _all = larger_ones(&room);
        let mut share = room.share(None, None);
        assert!(share.try_grow(SMALLER_BYTES));
        let mut others: Vec<Share> =
            (1..smaller / SMALLER_BYTES).map(|_| room.share(None, None)).collect();
        assert!(others.iter_mut().all(|other| other.try_grow(SMALLER_BYTES)));
        let small = tokio::spawn(room.share(None, Some(SMALLER_BYTES)).grow(1));
        assert!(share.grow(SMALLER_BYTES + 1).await.is_none());
        assert!(small.await.expect("it ends").is_some());
    }

    /// Enough messages that no other larger one finds room.
    fn larger_ones(room: &Arc<Room>) -> Vec<Share> {
        let mut large = Vec::new();
        loop {
            let mut share = room.share(None, Some(u64::from(LARGEST)));
            if !share.try_grow(u64::from(LARGEST)) {
                return large;
            }
            large.push(share);
        }
    }

    #[test]
    fn smaller_ones_find_room_where_larger_ones_have_all_of_theirs() {
        let room = room(4 * LARGEST);
        let large = larger_ones(&room);
        assert_eq!(large.len(), 3, "two, and the one that there is always room for");
        assert!(room.share(None, Some(SMALLER_BYTES)).try_grow(1));
        assert!(!room.share(None, Some(SMALLER_BYTES + 1)).try_grow(1));
    }

    /// So many bytes for a smaller one, if there is room.
    fn smaller_one(room: &Arc<Room>) -> Option<Share> {
        let mut share = room.share(None, Some(SMALLER_BYTES));
        share.try_grow(1).then_some(share)
    }

    /// As many smaller ones as there are in all the room of four of the largest: those that have the part for them,
    /// those that have of the other, and the one that there is always room for.
    fn smaller_ones(room: &Arc<Room>) -> (Vec<Share>, Vec<Share>, Share) {
        let mut all: Vec<Share> = std::iter::from_fn(|| smaller_one(room)).collect();
        assert_eq!(all.len(), 16 + 32 + 1, "all the room there is");
        assert_eq!(free(room), (0, 0));
        let whole = all.pop().expect("one");
        let others = all.split_off(16);
        (all, others, whole)
    }

    #[test]
    fn smaller_ones_take_what_larger_ones_leave_and_larger_ones_nothing_of_theirs() {
        let room = room(4 * LARGEST);
        drop(smaller_ones(&room));
        let large = larger_ones(&room);
        assert_eq!(free(&room), (16 * SMALLER_BYTES, 0));
        drop(large);
        assert_eq!(free(&room), (16 * SMALLER_BYTES, 32 * SMALLER_BYTES));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_room_of_larger_ones_has_it_before_any_more_smaller_ones() {
        let room = room(4 * LARGEST);
        let (own, mut others, _whole) = smaller_ones(&room);
        let small = tokio::spawn(room.share(None, Some(SMALLER_BYTES)).grow(1));
        tokio::task::yield_now().await;
        // Whoever is in the way of smaller ones has to hurry, wherever its room is.
        assert!(own.iter().chain(&others).all(Share::is_waited_for));
        let large = tokio::spawn(room.share(None, Some(u64::from(LARGEST))).grow(1));
        tokio::task::yield_now().await;
        drop(others.pop());
        let large = large.await.expect("its turn");
        assert!(large.is_some() && !small.is_finished());
        // Where no larger one waits, it is the smaller one's turn.
        drop(others.pop());
        let small = small.await.expect("its turn").expect("room");
        assert_eq!(free(&room), (0, 0));
        assert!(!others.iter().chain([&small]).any(Share::is_waited_for));
        let mut large = room.share(None, Some(u64::from(LARGEST)));
        assert!(!large.try_grow(1));
        let large = tokio::spawn(large.grow(1));
        tokio::task::yield_now().await;
        assert!(others.iter().chain([&small]).all(Share::is_waited_for), "a larger one waits");
        assert!(!own.iter().any(Share::is_waited_for), "not for what is for smaller ones alone");
        drop(small);
        assert!(large.await.expect("its turn").is_some());
    }

    /// Smaller ones come without an end, more than there is room for, and each takes a second.
    #[tokio::test(start_paused = true)]
    async fn a_larger_one_comes_to_its_end_however_many_smaller_ones_come() {
        let room = room(4 * LARGEST);
        let _crowd: tokio::task::JoinSet<()> = (0..100)
            .map(|_| {
                let room = room.clone();
                async move {
                    loop {
                        let mut share = room.share(None, Some(SMALLER_BYTES));
                        if !share.try_grow(1) {
                            share = share.grow(1).await.expect("room");
                        }
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        drop(share);
                        tokio::task::yield_now().await;
                    }
                }
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let began = Instant::now();
        take_in(room.clone(), u64::from(LARGEST), Some(u64::from(LARGEST)), SMALLER_BYTES).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    /// In fragments, too: with all that it can need as a smaller one, so that it waits no more.
    #[test]
    fn a_message_in_fragments_that_goes_to_the_larger_ones_keeps_nothing_of_the_smaller_part() {
        let room = room(4 * LARGEST);
        let mut share = room.share(None, None);
        assert!(share.try_grow(100_000));
        let rest = room.smaller.free() / SMALLER_BYTES;
        let _own: Vec<Share> = (0..rest).filter_map(|_| smaller_one(&room)).collect();
        let mut short = room.share(None, Some(100_000));
        assert!(short.try_grow(1));
        assert!(share.try_grow(SMALLER_BYTES));
        let left = SMALLER_BYTES - 100_000;
        assert_eq!(free(&room), (left, 31 * SMALLER_BYTES));
        assert!(share.try_grow(SMALLER_BYTES + 1));
        assert_eq!(free(&room), (left, 30 * SMALLER_BYTES));
        drop(share);
        assert_eq!(free(&room), (left, 32 * SMALLER_BYTES));
    }

    #[tokio::test(start_paused = true)]
    async fn who_keeps_much_while_it_waits_for_more_is_behind_somebody_who_comes_later() {
        let room = room(4 * LARGEST);
        let id = |n| Some(SatelliteId(uuid::Uuid::from_u128(n)));
        let mut crowd: Vec<Share> = (0..32)
            .map(|n| {
                let mut share = room.share(id(n), Some(u64::from(LARGEST)));
                assert!(share.try_grow(SMALLER_BYTES));
                share
            })
            .collect();
        assert_eq!(room.larger.free(), 0, "each has a megabyte, and together they have all");
        let mut first = crowd.pop().expect("one");
        assert!(first.try_grow(2 * SMALLER_BYTES), "by the place for a whole one");
        let grow = |share: Share| tokio::spawn(share.grow(2 * SMALLER_BYTES));
        let _crowd: Vec<_> = crowd.into_iter().map(grow).collect();
        tokio::time::sleep(Duration::from_secs(80)).await;
        let other = tokio::spawn(room.share(id(100), Some(3 * SMALLER_BYTES)).grow(1));
        tokio::task::yield_now().await;
        drop(first);
        let other = tokio::time::timeout(Duration::from_secs(1), other).await;
        assert!(other.expect("its turn").expect("it ends").is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_took_much_for_long_is_behind_somebody_who_did_not() {
        let room = room(LARGEST);
        let id = |n| Some(SatelliteId(uuid::Uuid::from_u128(n)));
        let mut greedy = room.share(id(1), Some(u64::from(LARGEST)));
        assert!(greedy.try_grow(1));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let mut holding = room.share(id(3), Some(1));
        drop(greedy);
        assert!(holding.try_grow(1));
        let again = tokio::spawn(room.share(id(1), Some(100_000)).grow(1));
        tokio::task::yield_now().await;
        let other = tokio::spawn(room.share(id(2), Some(100_000)).grow(1));
        tokio::task::yield_now().await;
        drop(holding);
        let other = other.await.expect("its turn");
        assert!(other.is_some() && !again.is_finished());
        drop(other);
        assert!(again.await.expect("its turn").is_some());
    }
}
