//! The memory that all large messages of a pod may take together, while they come and until they are
//! passed on.
//!
//! A message has room for what has come of it, and a little ahead: an announcement takes none. Whoever finds
//! none waits in turn: room that is given back goes to the one that has waited longest, so one that asks
//! again and again is behind all others each time. Messages of up to a megabyte have a part of the room to
//! themselves: they wait for none that are larger.
//!
//! Messages that each have some room and wait for more would wait for each other without an end. So one place
//! is kept for a whole message of the largest size, and goes to the one that has waited longest: that one needs
//! nothing more, and comes to its end, or is given up. It is given up where others wait and less than its pace
//! comes of it ([`Share::pace`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::platform::metrics::{Counted, Metrics};

/// Up to so many bytes a message has its room at once, in a part for those alone; a larger one has so much at
/// first.
const SMALLER_BYTES: u64 = 1024 * 1024;

/// What of the room is for those: a third of what is not kept for one of the largest.
const SMALLER_PART: usize = 3;

/// How often it is looked whether a message comes at its pace, in the time that it may take.
const LOOKS: u32 = 12;

/// See the module.
pub struct Room {
    smaller: Lane,
    larger: Lane,
    /// For one message, however large.
    whole: Arc<Semaphore>,
    patience: Duration,
    metrics: Metrics,
}

struct Lane {
    bytes: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// What one message takes of it, until dropped.
pub struct Share {
    room: Arc<Room>,
    /// How large the message may become.
    target: u64,
    bytes: u64,
    _given: Vec<OwnedSemaphorePermit>,
    has_whole: bool,
}

impl Room {
    /// So many bytes, for messages of up to `largest` bytes, each of which may take `patience` to come while
    /// others wait.
    pub fn new(bytes: u32, largest: u32, patience: Duration, metrics: Metrics) -> Arc<Room> {
        metrics.large_message_bytes_max.set(i64::from(bytes));
        let shared = bytes.saturating_sub(largest) as usize;
        let smaller = shared / SMALLER_PART;
        Arc::new(Room {
            smaller: Lane::of(smaller),
            larger: Lane::of(shared - smaller),
            whole: Arc::new(Semaphore::new(1)),
            patience,
            metrics,
        })
    }

    /// No room yet, for a message that may become so large.
    pub fn share(self: &Arc<Self>, target: u64) -> Share {
        let room = self.clone();
        Share { room, target, bytes: 0, _given: Vec::new(), has_whole: false }
    }

    fn lane(&self, target: u64) -> &Lane {
        if target <= SMALLER_BYTES { &self.smaller } else { &self.larger }
    }
}

impl Lane {
    fn of(bytes: usize) -> Lane {
        Lane { bytes: Arc::new(Semaphore::new(bytes)), waiting: AtomicUsize::new(0) }
    }

    fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}

impl Share {
    /// Whether there is room for so many bytes of the message.
    pub fn is_enough_for(&self, bytes: u64) -> bool {
        bytes <= self.bytes
    }

    /// Whether others wait for what this one takes.
    pub fn is_waited_for(&self) -> bool {
        let Room { smaller, larger, .. } = &*self.room;
        if self.has_whole {
            return smaller.is_waited_for() || larger.is_waited_for();
        }
        self.room.lane(self.target).is_waited_for()
    }

    /// What must come of the message at least while others wait: so many bytes in so long.
    pub fn pace(&self) -> (u64, Duration) {
        (self.target / u64::from(LOOKS), self.room.patience / LOOKS)
    }

    /// Takes the room for so many bytes of the message and some ahead, if there is room and nobody waits.
    pub fn try_grow(&mut self, bytes: u64) -> bool {
        let step = self.step(bytes);
        let lane = self.room.lane(self.target);
        let given = match lane.is_waited_for() {
            true => None,
            false => lane.bytes.clone().try_acquire_many_owned(permits(step)).ok(),
        };
        if let Some(given) = given {
            self.add(step, given);
            return true;
        }
        let (smaller, larger) = (&self.room.smaller, &self.room.larger);
        if smaller.is_waited_for() || larger.is_waited_for() {
            return false;
        }
        match self.room.whole.clone().try_acquire_owned() {
            Ok(whole) => {
                self.add_whole(whole);
                true
            }
            Err(_) => false,
        }
    }

    /// The same, when it is this one's turn.
    pub async fn grow(mut self, bytes: u64) -> Share {
        let step = self.step(bytes);
        let room = self.room.clone();
        room.metrics.held_back("room");
        let lane = room.lane(self.target);
        let _waiting = Waiting::on(lane, &room.metrics);
        tokio::select! {
            biased;
            Ok(given) = lane.bytes.clone().acquire_many_owned(permits(step)) => self.add(step, given),
            Ok(whole) = room.whole.clone().acquire_owned() => self.add_whole(whole),
        }
        self
    }

    /// As much again as has come, for the layer above takes memory like that; all that is announced of
    /// a smaller message.
    fn step(&self, bytes: u64) -> u64 {
        let ahead = bytes.max(2 * self.bytes).max(SMALLER_BYTES);
        ahead.min(self.target).max(bytes) - self.bytes
    }

    fn add(&mut self, bytes: u64, given: OwnedSemaphorePermit) {
        self.bytes += bytes;
        self._given.push(given);
        self.room.metrics.large_message_bytes.inc_by(bytes.cast_signed());
    }

    fn add_whole(&mut self, whole: OwnedSemaphorePermit) {
        self.has_whole = true;
        self.add(self.target.max(self.bytes) - self.bytes, whole);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.metrics.large_message_bytes.dec_by(self.bytes.cast_signed());
    }
}

/// A message is bounded by 16 MiB.
fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

struct Waiting<'a> {
    lane: &'a Lane,
    _counted: Counted,
}

impl Waiting<'_> {
    fn on<'a>(lane: &'a Lane, metrics: &Metrics) -> Waiting<'a> {
        lane.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { lane, _counted: Counted::on(&metrics.large_messages_waiting) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.lane.waiting.fetch_sub(1, Ordering::Relaxed);
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

    /// Takes a message in, a piece at a time; gives its room back when all of it has come.
    async fn take_in(room: Arc<Room>, bytes: u64, target: u64, piece: u64) {
        let mut share = room.share(target);
        let mut come = 0;
        while come < bytes {
            come = bytes.min(come + piece);
            if !share.is_enough_for(come) && !share.try_grow(come) {
                share = share.grow(come).await;
            }
            let taken = room.metrics.large_message_bytes.get();
            assert!(taken <= room.metrics.large_message_bytes_max.get(), "{taken}");
            tokio::task::yield_now().await;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// However many come at once, and however the room is cut: none waits for ever, and all is given back.
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
                    let target = if is_announced { bytes } else { u64::from(LARGEST) };
                    tokio::spawn(take_in(room.clone(), bytes, target, piece))
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
        let mut share = room.share(u64::from(LARGEST));
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
        let mut short = room.share(100_000);
        assert!(short.try_grow(1));
        assert_eq!(taken(), 100_000);
    }

    #[test]
    fn smaller_ones_find_room_where_larger_ones_have_all_of_theirs() {
        let room = room(4 * LARGEST);
        let mut large = Vec::new();
        loop {
            let mut share = room.share(u64::from(LARGEST));
            if !share.try_grow(u64::from(LARGEST)) {
                break;
            }
            large.push(share);
        }
        assert_eq!(large.len(), 3, "two, and the one that there is always room for");
        assert!(room.share(SMALLER_BYTES).try_grow(1));
        assert!(!room.share(SMALLER_BYTES + 1).try_grow(1));
    }
}
