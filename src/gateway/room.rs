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
//! Messages that each hold some room and wait for more could wait for each other for ever. So one place is
//! kept for a whole message of the largest size. It goes to the message that has waited longest. That message
//! needs nothing more: it completes, or it is given up. It is given up if others wait and it arrives more
//! slowly than its pace ([`Share::pace`]).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
    has_whole: bool,
    /// Up to when its use is charged to its satellite.
    charged: Instant,
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
            has_whole: false,
            charged: Instant::now(),
        }
    }

    /// The part of the room for a message of this many bytes.
    fn lane(&self, bytes: u64) -> &Arc<Lane> {
        if bytes <= SMALLER_BYTES { &self.smaller } else { &self.larger }
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
        if self.has_whole {
            return smaller.is_waited_for() || larger.is_waited_for();
        }
        self.room.lane(self.announced.unwrap_or(self.bytes)).is_waited_for()
    }

    /// The least that must arrive of the message while others wait: bytes, and the time for them.
    pub fn pace(&self) -> (u64, Duration) {
        (self.announced.unwrap_or(self.bytes) / u64::from(LOOKS), self.room.patience / LOOKS)
    }

    /// Takes room for this many bytes of the message and some ahead, if there is room and nothing waits.
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let total = self.total(bytes);
        let step = self.step(total);
        let Room { smaller, larger, whole, .. } = &*self.room.clone();
        let lane = self.room.lane(self.announced.unwrap_or(total));
        let given = match lane.is_waited_for() {
            true => None,
            false => lane.try_take(step),
        };
        if let Some(given) = given {
            self.add(total, given);
            return true;
        }
        if smaller.is_waited_for() || larger.is_waited_for() {
            return false;
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
        let total = self.total(bytes);
        let step = self.step(total);
        let room = self.room.clone();
        room.metrics.held_back("room");
        let lane = room.lane(self.announced.unwrap_or(total));
        let took_much = self.charge();
        let _waiting = Counted::on(&room.metrics.large_messages_waiting);
        let mut looks = interval(room.patience / LOOKS);
        looks.reset();
        let (mut given, mut whole) = (lane.take(step, took_much), room.whole.take(1, took_much));
        loop {
            tokio::select! {
                biased;
                Ok(given) = &mut given => {
                    self.add(total, given);
                    return Some(self);
                }
                Ok(whole) = &mut whole => {
                    self.add_whole(whole);
                    return Some(self);
                }
                _ = looks.tick(), if self.changes_over(total) => {
                    if room.smaller.is_waited_for() {
                        return None;
                    }
                }
            }
        }
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

    /// How much of that is still to be taken: all of it for a message that changes over.
    fn step(&self, total: u64) -> u64 {
        if self.changes_over(total) { total } else { total - self.bytes }
    }

    fn changes_over(&self, total: u64) -> bool {
        self.announced.is_none() && self.bytes <= SMALLER_BYTES && total > SMALLER_BYTES
    }

    /// Charges the use until now to its satellite, and returns whether that satellite took much lately.
    fn charge(&mut self) -> bool {
        let seconds = self.charged.elapsed().as_secs_f32();
        self.charged = Instant::now();
        let megabytes = self.bytes as f32 / SMALLER_BYTES as f32;
        self.satellite.is_some_and(|satellite| self.room.charge(satellite, megabytes * seconds))
    }

    fn add(&mut self, total: u64, given: Given) {
        self.charge();
        if self.changes_over(total) {
            self.given.clear();
        }
        self.given.push(given);
        self.set(total);
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
                (65_536u64..u64::from(LARGEST), any::<bool>(), 16_384u64..2_000_000), 1..40),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let room = room(LARGEST + beyond);
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
        }
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
        let free = || {
            let Room { smaller, larger, .. } = &*room;
            (smaller.free(), larger.free())
        };
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
