//! Checks that positions lie side by side on the stream, from the checkpoint to its tail.
//!
//! Pure. A position that is skipped there was lost between publish and checkpoint. The relay cannot
//! bring it back to its place. It is no loss if the stream's own limits removed it, or if retention
//! dropped it from the log before the stream lost it.

use super::message::{Epoch, Mark};
use crate::domain::lifecycle::Position;

/// What is at one sequence of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A message of ours, of any epoch.
    Ours(Mark),
    /// A foreign message.
    Foreign,
    /// Nothing: the message was deleted.
    Gone,
}

/// Positions that are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// The first of them.
    pub first: Position,
    /// The last.
    pub last: Position,
}

/// A walk along the stream, from the checkpoint on.
pub struct Walk {
    epoch: Epoch,
    next: i64,
    horizon: Position,
    /// Whether the stream removes messages by itself.
    is_limited: bool,
    /// Empty sequences since the last message of ours.
    gone: u64,
}

/// The result of one step of a [`Walk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next position is there.
    Next,
    /// Nothing that counts.
    Other,
}

impl Walk {
    /// Begins after `checkpoint`, in an epoch, with a log that begins after `horizon`.
    pub fn new(epoch: Epoch, checkpoint: Position, horizon: Position, is_limited: bool) -> Walk {
        Walk { epoch, next: checkpoint.0 + 1, horizon, is_limited, gone: 0 }
    }

    /// Takes what is at the checkpoint's sequence. It is another transition if the stream was lost
    /// and built again meanwhile by a relay that no longer owned the checkpoint.
    pub fn anchor(&mut self, seen: &Seen) {
        if let Seen::Ours(mark) = seen
            && mark.epoch == self.epoch
        {
            self.next = mark.position.0 + 1;
        }
    }

    /// Skips this many empty sequences.
    pub fn gone(&mut self, count: u64) {
        self.gone += count;
    }

    /// Takes what is at the next sequence; an error if positions were skipped.
    pub fn see(&mut self, seen: &Seen) -> Result<Step, Hole> {
        let position = match seen {
            Seen::Gone => {
                self.gone += 1;
                return Ok(Step::Other);
            }
            Seen::Foreign => return Ok(Step::Other),
            // Messages of an earlier epoch and copies of old messages do not count.
            Seen::Ours(mark) if mark.epoch != self.epoch || mark.position.0 < self.next => {
                return Ok(Step::Other);
            }
            Seen::Ours(mark) => mark.position,
        };
        let missing = position.0.abs_diff(self.next);
        let was_removed = self.is_limited && missing <= self.gone;
        let was_dropped = position.0 - 1 <= self.horizon.0;
        if missing > 0 && !was_removed && !was_dropped {
            // Positions below the horizon are not missing.
            let first = self.next.max(self.horizon.0 + 1);
            return Err(Hole { first: Position(first), last: Position(position.0 - 1) });
        }
        self.next = position.0 + 1;
        self.gone = 0;
        Ok(Step::Next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ours(position: i64) -> Seen {
        let (position, change) = (Position(position), String::new());
        Seen::Ours(Mark { position, change, epoch: Epoch::FIRST, cell: None })
    }

    /// Walks from position 3 on.
    fn walked(horizon: i64, is_limited: bool, seen: &[Seen]) -> Result<(), (i64, i64)> {
        let mut walk = Walk::new(Epoch::FIRST, Position(3), Position(horizon), is_limited);
        let hole = |hole: Hole| (hole.first.0, hole.last.0);
        seen.iter().try_for_each(|seen| walk.see(seen).map(drop)).map_err(hole)
    }

    #[test]
    fn positions_side_by_side_have_no_hole_whatever_others_publish_between_them() {
        assert_eq!(walked(0, false, &[]), Ok(()));
        assert_eq!(walked(0, false, &[ours(4), ours(5), ours(6)]), Ok(()));
        assert_eq!(walked(0, false, &[Seen::Foreign, ours(4), Seen::Foreign, ours(5)]), Ok(()));
        // Copies of old messages, and messages of an older epoch.
        assert_eq!(walked(0, false, &[ours(2), ours(4), ours(4), ours(1), ours(5)]), Ok(()));
        let old =
            Mark { position: Position(9), change: String::new(), epoch: Epoch(0), cell: None };
        assert_eq!(walked(0, false, &[Seen::Ours(old), ours(4)]), Ok(()));
    }

    #[test]
    fn a_position_that_was_passed_over_is_a_hole() {
        assert_eq!(walked(0, false, &[ours(5)]), Err((4, 4)));
        assert_eq!(walked(0, false, &[ours(4), Seen::Foreign, ours(7)]), Err((5, 6)));
        assert_eq!(walked(0, false, &[Seen::Gone, ours(5)]), Err((4, 4)), "deleted by hand");
    }

    #[test]
    fn what_limits_removed_is_no_hole_as_far_as_there_was_room_for_it() {
        assert_eq!(walked(0, true, &[Seen::Gone, ours(5)]), Ok(()));
        assert_eq!(walked(0, true, &[Seen::Gone, Seen::Gone, ours(5), ours(6)]), Ok(()));
        assert_eq!(walked(0, true, &[Seen::Gone, ours(6)]), Err((4, 5)));
        assert_eq!(walked(0, true, &[ours(4), Seen::Foreign, ours(6)]), Err((5, 5)));
        let mut walk = Walk::new(Epoch::FIRST, Position(3), Position::ZERO, true);
        walk.gone(7);
        assert_eq!(walk.see(&ours(11)), Ok(Step::Next));
        assert_eq!(walk.see(&ours(11)), Ok(Step::Other));
        assert_eq!(walk.see(&ours(13)), Err(Hole { first: Position(12), last: Position(12) }));
    }

    #[test]
    fn what_retention_dropped_before_is_no_hole() {
        assert_eq!(walked(6, false, &[ours(7), ours(8)]), Ok(()));
        assert_eq!(walked(5, false, &[ours(7)]), Err((6, 6)));
    }
}
