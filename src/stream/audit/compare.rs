//! The comparison itself: the stream's messages, one after the other, against the log's positions.
//!
//! Pure but for reading entries. It walks the log's positions along with the messages. A message
//! further on than expected is either the first after a gap or one that came too early. The next
//! message decides: if it goes on from there it was a gap, if it goes back it was too early.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use async_nats::HeaderMap;
use async_nats::jetstream::Message;

use crate::domain::cell::Cell;
use crate::domain::lifecycle::Position;
use crate::log::Entry;
use crate::stream::message::{Content, Epoch, Mark};

/// Gaps and early messages kept in memory. Beyond this the oldest gap is reported as missing at
/// once.
const MAX_OPEN: usize = 100_000;

/// Where the log's entries come from.
pub trait Entries {
    /// The entry at this position, if the log has one.
    fn at(
        &mut self,
        position: Position,
    ) -> impl Future<Output = anyhow::Result<Option<Entry>>> + Send;
}

/// A message on the stream.
#[derive(Debug, Clone)]
pub struct Seen {
    sequence: u64,
    subject: String,
    headers: HeaderMap,
    body: Vec<u8>,
    mark: Option<Mark>,
}

impl Seen {
    /// Reads it from a delivered message.
    pub fn of(message: &Message, sequence: u64) -> Seen {
        let headers = message.headers.clone().unwrap_or_default();
        let (subject, body) = (message.subject.to_string(), message.payload.to_vec());
        let mark = Mark::read(&headers);
        Seen { sequence, subject, headers, body, mark }
    }
}

/// A fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// In the log, not on the stream.
    Missing {
        /// The first that is missing.
        first: Position,
        /// The last of an unbroken run.
        last: Position,
    },
    /// A message of ours that should not be there.
    Extra {
        /// The position it carries.
        position: Position,
        /// Its sequence.
        sequence: u64,
        /// Why it should not be there.
        why: String,
    },
    /// In both, but not the same.
    Different {
        /// Its position.
        position: Position,
        /// Its sequence.
        sequence: u64,
        /// What differs.
        what: String,
    },
    /// In both, but not in its place.
    Misplaced {
        /// Its position.
        position: Position,
        /// Its sequence.
        sequence: u64,
        /// The position that it follows on the stream.
        after: Position,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Missing { first, last } if first == last => {
                write!(f, "missing    position {}", first.0)
            }
            Finding::Missing { first, last } => {
                write!(f, "missing    positions {} to {}", first.0, last.0)
            }
            Finding::Extra { position, sequence, why } => {
                write!(f, "extra      position {} at sequence {sequence}: {why}", position.0)
            }
            Finding::Different { position, sequence, what } => {
                write!(f, "different  position {} at sequence {sequence}: {what}", position.0)
            }
            Finding::Misplaced { position, sequence, after } => write!(
                f,
                "misplaced  position {} at sequence {sequence}: comes after position {}",
                position.0, after.0
            ),
        }
    }
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transitions found as they should be, or misplaced.
    pub compared: u64,
    /// Transitions that are not on the stream.
    pub missing: u64,
    /// Messages of ours that should not be there.
    pub extra: u64,
    /// Messages that differ from the log.
    pub different: u64,
    /// Messages that are not in their place.
    pub misplaced: u64,
    /// Foreign messages.
    pub foreign: u64,
    /// Messages whose rows retention has dropped from the log.
    pub older: u64,
    /// The stream's first position, if its limits removed what was before.
    pub begins_at: Option<Position>,
    /// The cell that the newest message names which is as it should be.
    pub cell: Option<Cell>,
}

impl Counts {
    /// The number of faults.
    pub fn faults(&self) -> u64 {
        self.missing + self.extra + self.different + self.misplaced
    }
}

/// One comparison.
pub struct Comparison<L, F> {
    log: L,
    begin: Position,
    end: Position,
    epoch: Epoch,
    is_limited: bool,
    found: F,
    counts: Counts,
    /// The position that should come next.
    next: i64,
    /// A message further on than expected, until the next one decides.
    pending: Option<(Position, Seen)>,
    /// Skipped positions: first → last.
    gaps: BTreeMap<i64, i64>,
    /// Positions that came too early.
    early: BTreeSet<i64>,
}

impl<L: Entries, F: FnMut(Finding)> Comparison<L, F> {
    /// Compares with the log from `begin` to `end`, under `epoch`. `is_limited` says that the
    /// stream's limits may have removed its oldest messages.
    pub fn new(
        log: L,
        begin: Position,
        end: Position,
        epoch: Epoch,
        is_limited: bool,
        found: F,
    ) -> Comparison<L, F> {
        Comparison {
            log,
            begin,
            end,
            epoch,
            is_limited,
            found,
            counts: Counts::default(),
            next: begin.0,
            pending: None,
            gaps: BTreeMap::new(),
            early: BTreeSet::new(),
        }
    }

    /// Takes the next message.
    pub async fn observe(&mut self, seen: Seen) -> anyhow::Result<()> {
        let Some(mark) = &seen.mark else {
            self.counts.foreign += 1;
            return Ok(());
        };
        let (position, epoch) = (mark.position, mark.epoch);
        if epoch != self.epoch {
            let why = format!("of epoch {}, the relay's is {}", epoch.0, self.epoch.0);
            self.extra(position, &seen, why);
        } else if position < self.begin {
            self.counts.older += 1;
        } else if position > self.end {
            let why = format!("the log ends at {}", self.end.0);
            self.extra(position, &seen, why);
        } else {
            self.settle_pending(position).await?;
            self.place(position, seen).await?;
        }
        Ok(())
    }

    /// Ends the comparison. What was not seen up to `head` is missing, except for what the stream's
    /// limits removed, up to `removed`.
    pub async fn finish(mut self, head: Position, removed: Position) -> anyhow::Result<Counts> {
        if let Some((position, seen)) = self.pending.take() {
            self.accept(position, seen).await?;
        }
        if self.counts.compared == 0 && removed.0 >= self.next {
            self.next = removed.0 + 1;
            self.counts.begins_at = Some(Position(self.next));
        }
        self.pass_over(head.0 + 1);
        for (first, last) in std::mem::take(&mut self.gaps) {
            self.missing(first, last);
        }
        Ok(self.counts)
    }

    async fn settle_pending(&mut self, position: Position) -> anyhow::Result<()> {
        let Some((ahead, seen)) = self.pending.take() else {
            return Ok(());
        };
        if position > ahead {
            return self.accept(ahead, seen).await;
        }
        if !self.early.insert(ahead.0) {
            self.extra(ahead, &seen, "a second time".to_owned());
            return Ok(());
        }
        self.misplaced(ahead, &seen);
        self.compare(ahead, &seen).await
    }

    async fn place(&mut self, position: Position, seen: Seen) -> anyhow::Result<()> {
        if position.0 == self.next {
            self.compare(position, &seen).await?;
            self.next += 1;
            self.skip_early();
        } else if position.0 > self.next {
            if self.is_the_logs(position, &seen).await? {
                self.pending = Some((position, seen));
            }
        } else if self.take_from_gap(position.0) {
            self.misplaced(position, &seen);
            self.compare(position, &seen).await?;
        } else if self.is_the_logs(position, &seen).await? {
            self.extra(position, &seen, "a second time".to_owned());
        }
        Ok(())
    }

    /// Takes a message after a gap.
    async fn accept(&mut self, position: Position, seen: Seen) -> anyhow::Result<()> {
        if self.early.contains(&position.0) || position.0 < self.next {
            self.extra(position, &seen, "a second time".to_owned());
            return Ok(());
        }
        if self.counts.compared == 0 && self.is_limited {
            self.counts.begins_at = Some(position);
        } else {
            self.pass_over(position.0);
        }
        self.compare(position, &seen).await?;
        self.next = position.0 + 1;
        self.skip_early();
        Ok(())
    }

    /// Stores the positions from the next one up to before `to` as a gap.
    fn pass_over(&mut self, to: i64) {
        let early: Vec<i64> = self.early.range(..to).copied().collect();
        for stop in early.into_iter().chain([to]) {
            self.early.remove(&stop);
            if self.next < stop {
                self.gaps.insert(self.next, stop - 1);
            }
            self.next = self.next.max(stop + 1);
        }
        self.next = self.next.min(to);
        while self.gaps.len() > MAX_OPEN {
            if let Some((first, last)) = self.gaps.pop_first() {
                self.missing(first, last);
            }
        }
        while self.early.len() > MAX_OPEN {
            self.early.pop_first();
        }
    }

    fn skip_early(&mut self) {
        while self.early.remove(&self.next) {
            self.next += 1;
        }
    }

    /// Whether the position was in a gap; removes it from there.
    fn take_from_gap(&mut self, position: i64) -> bool {
        let Some((&first, &last)) = self.gaps.range(..=position).next_back() else {
            return false;
        };
        if last < position {
            return false;
        }
        self.gaps.remove(&first);
        if first < position {
            self.gaps.insert(first, position - 1);
        }
        if position < last {
            self.gaps.insert(position + 1, last);
        }
        true
    }

    /// Whether the log has this message, which is not in its place; reports it if not.
    async fn is_the_logs(&mut self, position: Position, seen: &Seen) -> anyhow::Result<bool> {
        let entry = self.log.at(position).await?;
        let change = seen.mark.as_ref().map(|mark| mark.change.as_str());
        let is = entry.is_some_and(|entry| change == Some(&entry.change.0.to_string()));
        if !is {
            self.extra(position, seen, "the log has another change there".to_owned());
        }
        Ok(is)
    }

    /// Compares a message with its entry.
    async fn compare(&mut self, position: Position, seen: &Seen) -> anyhow::Result<()> {
        self.counts.compared += 1;
        let Some(entry) = self.log.at(position).await? else {
            self.extra(position, seen, "the log itself lacks this position".to_owned());
            return Ok(());
        };
        // The log does not know the cell: it may have got its name later.
        let cell = seen.mark.as_ref().and_then(|mark| mark.cell.as_ref());
        let Some(expected) = Content::of(&entry, self.epoch, cell) else {
            return Ok(());
        };
        if let Some(what) = difference(&expected, seen) {
            let what = format!("{what}{}", of_cell(seen));
            self.counts.different += 1;
            (self.found)(Finding::Different { position, sequence: seen.sequence, what });
        } else if self.counts.cell.as_ref() != cell {
            self.counts.cell = cell.cloned();
        }
        Ok(())
    }

    fn misplaced(&mut self, position: Position, seen: &Seen) {
        self.counts.misplaced += 1;
        let after = Position(self.next - 1);
        (self.found)(Finding::Misplaced { position, sequence: seen.sequence, after });
    }

    fn extra(&mut self, position: Position, seen: &Seen, why: String) {
        let why = format!("{why}{}", of_cell(seen));
        self.counts.extra += 1;
        (self.found)(Finding::Extra { position, sequence: seen.sequence, why });
    }

    fn missing(&mut self, first: i64, last: i64) {
        self.counts.missing += (last - first + 1).unsigned_abs();
        (self.found)(Finding::Missing { first: Position(first), last: Position(last) });
    }
}

/// The cell that a message names, for the end of a sentence.
fn of_cell(seen: &Seen) -> String {
    let cell = seen.mark.as_ref().and_then(|mark| mark.cell.as_ref());
    cell.map_or_else(String::new, |cell| format!(" (of cell {cell})"))
}

/// How a message differs from what it should be. Headers beyond the contract's do not count.
fn difference(expected: &Content, seen: &Seen) -> Option<String> {
    let mut differs = Vec::new();
    if seen.subject != expected.subject {
        differs.push(format!("the subject is {}, not {}", seen.subject, expected.subject));
    }
    for (name, values) in expected.headers.iter() {
        let mut found = seen.headers.get_all(name.clone());
        let is_same = values.iter().all(|value| found.next() == Some(value));
        if !is_same || found.next().is_some() {
            differs.push(format!("header {name}"));
        }
    }
    if seen.body != expected.body {
        differs.push("the body".to_owned());
    }
    (!differs.is_empty()).then(|| differs.join(", "))
}

#[cfg(test)]
mod tests;
