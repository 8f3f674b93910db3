//! The memory that all large messages of a pod may take together, while they come and until they are
//! passed on.
//!
//! Whoever finds none waits in turn: room that is given back goes to the one that has waited longest, and
//! nobody who needs less goes before it. So one that asks again and again is behind all others each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::metrics::{Counted, Metrics};

/// How often somebody who keeps room for long looks whether others wait for it.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// See the module.
pub struct Room {
    bytes: Arc<Semaphore>,
    waiting: AtomicUsize,
    patience: Duration,
    metrics: Metrics,
}

/// What one message takes of it, until dropped.
pub struct Share {
    permit: OwnedSemaphorePermit,
    metrics: Metrics,
}

impl Room {
    /// So many bytes. Whoever has not finished within `patience` must not keep others waiting.
    pub fn new(bytes: u32, patience: Duration, metrics: Metrics) -> Arc<Room> {
        metrics.large_message_bytes_max.set(i64::from(bytes));
        Arc::new(Room {
            bytes: Arc::new(Semaphore::new(bytes as usize)),
            waiting: AtomicUsize::new(0),
            patience,
            metrics,
        })
    }

    /// For how long a message may be unfinished while others wait.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// How long after that, and again, to look whether they do.
    pub fn look_again(&self) -> Duration {
        LOOK_AGAIN
    }

    /// Whether anybody waits.
    pub fn is_waited_for(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// A share, if there is one and nobody waits.
    pub fn try_take(&self, bytes: u64) -> Option<Share> {
        if self.is_waited_for() {
            return None;
        }
        let permit = self.bytes.clone().try_acquire_many_owned(permits(bytes)).ok()?;
        Some(self.share(permit))
    }

    /// A share, when it is this one's turn.
    pub async fn take(self: Arc<Self>, bytes: u64) -> Share {
        self.metrics.held_back("room");
        let _waiting = Waiting::of(&self);
        match self.bytes.clone().acquire_many_owned(permits(bytes)).await {
            Ok(permit) => self.share(permit),
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    fn share(&self, permit: OwnedSemaphorePermit) -> Share {
        let metrics = self.metrics.clone();
        metrics.large_message_bytes.inc_by(permit.num_permits() as i64);
        Share { permit, metrics }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.metrics.large_message_bytes.dec_by(self.permit.num_permits() as i64);
    }
}

/// A message is bounded by 16 MiB.
fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

struct Waiting<'a> {
    room: &'a Room,
    _counted: Counted,
}

impl Waiting<'_> {
    fn of(room: &Room) -> Waiting<'_> {
        room.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting { room, _counted: Counted::on(&room.metrics.large_messages_waiting) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.room.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
