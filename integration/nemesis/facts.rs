//! What the run has seen of log and stream so far.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::verdict::{FEED, TAKEN};
use super::verdicts::Promise;

/// What the log says of a satellite.
#[derive(Debug, Clone)]
pub struct Latest {
    pub event: String,
    pub revision: i64,
    /// When its last transition was seen.
    pub seen: Instant,
}

/// A relay publishes at least this many transitions a second again, on a machine as busy as a run makes it.
const AGAIN_A_SECOND: u64 = 2_000;

/// A row of the log, as far as the checker looks at it.
#[derive(Debug, Clone)]
pub struct Row {
    pub position: i64,
    pub satellite: Uuid,
    pub revision: i64,
    pub event: String,
    pub reason: String,
}

/// A transition that the stream lacks.
#[derive(Debug, Clone, Copy)]
pub struct Missing {
    pub since: Instant,
    /// How long the stream may lack it.
    pub bound: Duration,
}

impl Missing {
    /// Which promise it breaks if it stays away.
    pub fn promise(self) -> Promise {
        if self.bound >= TAKEN { Promise::TakenComesBack } else { Promise::FeedDoesNotWait }
    }
}

#[derive(Default)]
pub struct Facts {
    /// The newest position of the log.
    pub head: i64,
    pub latest: HashMap<Uuid, Latest>,
    pub missing: BTreeMap<i64, Missing>,
    /// What was read of the stream: position by sequence.
    by_sequence: BTreeMap<u64, i64>,
    /// The positions in `by_sequence`.
    there: HashSet<i64>,
    /// Up to where the stream was read.
    pub sequence: u64,
    /// The newest position read since the stream was last built.
    newest: Option<i64>,
    /// Positions that a fault took from the stream, which it may skip.
    taken: BTreeSet<i64>,
    /// Taken positions that may stay away: something newer was on top of them, or everything was purged.
    pub given_up: BTreeSet<i64>,
    /// The whole log may be published again, and new transitions come behind it.
    is_catching_up: bool,
    /// Something was taken from the stream since it was last built.
    pub is_tampered: bool,
    /// The stream was built anew.
    pub is_rebuilt: bool,
    /// The stream is being built anew: what is read of it now means nothing.
    pub is_paused: bool,
}

impl Facts {
    /// Takes a row that was read between these moments; returns what is wrong with it.
    pub fn row(&mut self, row: &Row, seen: Instant) -> Option<String> {
        let expected = self.head + 1;
        let before = self.latest.get(&row.satellite);
        let revision = before.map_or(1, |latest| latest.revision + 1);
        let is_removed = before.is_some_and(|latest| latest.event == "removed");
        let fault = if row.position != expected {
            Some(format!("position {} where {expected} was to follow", row.position))
        } else if row.revision != revision {
            let Row { position, revision: found, .. } = row;
            Some(format!("position {position}: revision {found} instead of {revision}"))
        } else {
            is_removed.then(|| format!("position {}: a removed satellite goes on", row.position))
        };
        self.head = row.position;
        let latest = Latest { event: row.event.clone(), revision: row.revision, seen };
        self.latest.insert(row.satellite, latest);
        // The stream may have been read before the log, and this message may be gone for good by now.
        if !self.there.contains(&row.position) && !self.given_up.contains(&row.position) {
            self.missing.insert(row.position, Missing { since: seen, bound: self.bound() });
        }
        fault
    }

    /// Takes a message of the service that was read at a sequence of the stream. Returns whether the stream
    /// lacked it so far, and what is wrong with it.
    pub fn message(&mut self, sequence: u64, position: i64) -> (Option<Missing>, Option<String>) {
        let newest = self.newest.unwrap_or(position - 1);
        let is_excused = |p: &i64| self.taken.contains(p) || self.given_up.contains(p);
        let skipped: Vec<i64> = (newest + 1..position).filter(|p| !is_excused(p)).collect();
        self.newest = Some(newest.max(position));
        self.by_sequence.insert(sequence, position);
        self.there.insert(position);
        self.is_catching_up &= position < self.head;
        let missing = self.missing.remove(&position);
        let fault = skipped.first().zip(skipped.last()).map(|(first, last)| {
            let count = skipped.len();
            format!(
                "after position {newest} came {position} (message {sequence}): {count} skipped, \
                 {first} to {last}"
            )
        });
        (missing, fault)
    }

    /// How many messages of the service were read at these sequences.
    pub fn are_on_the_stream(&self, sequences: Range<u64>) -> usize {
        if sequences.is_empty() { 0 } else { self.by_sequence.range(sequences).count() }
    }

    /// A position is about to be deleted from the stream, or was not after all: the stream may lack it.
    pub fn may_go(&mut self, position: i64) {
        self.given_up.insert(position);
    }

    /// The newest positions of the stream were deleted; with `is_for_good` they need not come back.
    pub fn took(&mut self, positions: &[i64], is_for_good: bool) {
        self.is_tampered = true;
        let taken: HashSet<i64> = positions.iter().copied().collect();
        self.by_sequence.retain(|_, position| !taken.contains(position));
        for position in positions {
            self.missing.remove(position);
            self.there.remove(position);
            if is_for_good {
                self.given_up.insert(*position);
            } else {
                let missing = Missing { since: Instant::now(), bound: TAKEN };
                self.given_up.remove(position);
                self.taken.insert(*position);
                self.missing.insert(*position, missing);
            }
        }
    }

    /// How long the next position may take.
    fn bound(&self) -> Duration {
        if !self.is_catching_up {
            return FEED;
        }
        TAKEN + Duration::from_secs(self.head.unsigned_abs() / AGAIN_A_SECOND)
    }

    /// The stream was emptied, as its limits might have done. What was on it up to this position, or was to
    /// come back to it, need not come any more. It may come all the same, and what follows waits for it.
    pub fn emptied(&mut self, newest: i64) {
        let pending = self.missing.iter().filter(|(_, missing)| missing.bound >= TAKEN);
        let newest = pending.map(|(position, _)| *position).max().map_or(newest, |p| p.max(newest));
        self.took(&(1..=newest).collect::<Vec<_>>(), true);
        self.is_catching_up = true;
        let (since, bound) = (Instant::now(), self.bound());
        self.missing.values_mut().for_each(|missing| *missing = Missing { since, bound });
    }

    /// The stream went back to what it was at this sequence.
    pub fn rewind(&mut self, sequence: u64) {
        self.is_tampered = true;
        let gone = self.by_sequence.split_off(&(sequence + 1));
        for position in gone.values() {
            self.there.remove(position);
            self.missing.insert(*position, Missing { since: Instant::now(), bound: TAKEN });
        }
        self.sequence = self.sequence.min(sequence);
        self.newest = self.by_sequence.values().max().copied();
    }

    /// The stream was built anew: every transition is there once more.
    pub fn rebuilt(&mut self) {
        let since = Instant::now();
        self.missing = (1..=self.head).map(|p| (p, Missing { since, bound: TAKEN })).collect();
        (self.by_sequence, self.there) = (BTreeMap::new(), HashSet::new());
        (self.newest, self.is_tampered, self.is_catching_up) = (Some(0), false, false);
        (self.is_rebuilt, self.is_paused) = (true, false);
        (self.taken, self.given_up) = (BTreeSet::new(), BTreeSet::new());
    }
}

mod tests {
    use super::*;

    fn row(position: i64) -> Row {
        Row {
            position,
            satellite: Uuid::nil(),
            revision: position,
            event: "connected".to_owned(),
            reason: "connect".to_owned(),
        }
    }

    fn with_stream(positions: &[i64]) -> (Facts, Vec<String>) {
        let mut facts = Facts::default();
        let read = positions.iter().zip(1..).filter_map(|(p, s)| facts.message(s, *p).1);
        let found = read.collect();
        (facts, found)
    }

    #[test]
    fn a_stream_that_skips_is_found_and_one_that_goes_back_is_not() {
        assert_eq!(with_stream(&[1, 2, 3, 2, 3, 4]).1, [""; 0]);
        let found = with_stream(&[1, 2, 5]).1;
        assert!(found.len() == 1 && found[0].contains("2 skipped, 3 to 4"), "{found:?}");
    }

    #[test]
    fn what_was_read_on_the_stream_first_is_not_missing() {
        let (mut facts, _) = with_stream(&[1]);
        assert_eq!(facts.row(&row(1), Instant::now()), None);
        assert_eq!(facts.row(&row(2), Instant::now()), None);
        assert_eq!(facts.missing.keys().copied().collect::<Vec<_>>(), [2]);
        assert!(facts.row(&row(4), Instant::now()).is_some());
    }

    #[test]
    fn what_was_taken_is_missing_until_it_is_back() {
        let (mut facts, _) = with_stream(&[1, 2, 3, 4]);
        facts.took(&[3, 4], false);
        assert_eq!(facts.missing.keys().copied().collect::<Vec<_>>(), [3, 4]);
        assert!(facts.message(5, 3).0.is_some());
        assert_eq!(facts.missing.len(), 1);
        facts.took(&[4], true);
        assert!(facts.missing.is_empty() && facts.given_up.contains(&4));
    }

    #[test]
    fn what_went_for_good_before_its_row_was_read_is_not_missed() {
        let (mut facts, _) = with_stream(&[1]);
        facts.took(&[1], true);
        assert_eq!(facts.row(&row(1), Instant::now()), None);
        assert!(facts.missing.is_empty());
    }

    #[test]
    fn what_follows_an_emptied_stream_may_wait_until_all_of_it_is_there_again() {
        let (mut facts, _) = with_stream(&[1]);
        facts.row(&row(1), Instant::now());
        facts.emptied(1);
        facts.row(&row(2), Instant::now());
        assert!(facts.missing[&2].bound >= TAKEN);
        facts.message(3, 2);
        facts.row(&row(3), Instant::now());
        assert_eq!(facts.missing[&3].bound, FEED);
    }

    #[test]
    fn a_stream_that_went_back_lacks_what_came_after() {
        let (mut facts, _) = with_stream(&[1, 2, 3, 4]);
        facts.rewind(2);
        assert_eq!(facts.missing.keys().copied().collect::<Vec<_>>(), [3, 4]);
        assert_eq!(facts.message(3, 3).1, None);
        assert!(facts.message(4, 5).1.is_some());
    }
}
