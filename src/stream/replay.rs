//! Replay: transitions of the log once more, as lines or as messages, to catch up, to test a rule
//! against history, or to look.
//!
//! It reads a selection page by page, in position order, and writes it to a sink. It promises four
//! things. Memory is constant for a log of any length. The position it names to go on from is true:
//! everything at or below it has arrived, and a little of what is above may have. It fails where
//! retention has dropped what was asked for. Nothing goes onto the live subjects.
//!
//! It must not touch the log, the stream or the relay's checkpoint. It only reads.

use std::time::{Duration, Instant};

use anyhow::bail;
use deadpool_postgres::Object;
use tokio_postgres::Error;

use crate::contract::wire::Timestamp;
use crate::domain::lifecycle::{Event, Position, SatelliteId};
use crate::log::{self, Entry, partitions, past, read};
use crate::platform::database::Database;
use crate::platform::progress::Progress;

pub(crate) mod pace;
pub(crate) mod prefix;
pub(crate) mod sink;

use pace::{Pace, Speed};
use sink::Sink;

/// Positions that one query looks at: a query that finds nothing ends all the same.
const REACH: i64 = 100_000;

/// What to replay; everything by default.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// From this position on.
    pub first: Option<Position>,
    /// Up to and including this position; by default up to the head at the start.
    pub last: Option<Position>,
    /// After this position: where an earlier replay of the same selection ended.
    pub after: Option<Position>,
    /// Recorded at or after.
    pub since: Option<Timestamp>,
    /// Recorded before.
    pub until: Option<Timestamp>,
    /// Only this satellite's.
    pub satellite: Option<SatelliteId>,
    /// Only this event.
    pub event: Option<Event>,
}

/// The positions of a selection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    /// After this position.
    after: Position,
    /// Up to and including this position.
    through: Position,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Transitions that went out.
    pub replayed: u64,
    /// Everything selected up to here has arrived.
    pub through: Position,
    /// How long it took.
    pub took: Duration,
    /// The reader of the lines closed them: there may be more.
    pub closed: bool,
}

/// One replay.
pub struct Replay {
    database: Database,
    selection: Selection,
    sink: Sink,
    pace: Pace,
    progress: Progress,
    begun: Instant,
    replayed: u64,
    /// Everything selected up to here has arrived.
    arrived: Position,
}

impl Replay {
    /// Of this selection, into this sink.
    pub fn new(
        database: Database,
        selection: Selection,
        sink: Sink,
        speed: Speed,
        progress: Progress,
    ) -> Replay {
        let (pace, begun, arrived) = (Pace::new(speed), Instant::now(), Position::ZERO);
        Replay { database, selection, sink, pace, progress, begun, replayed: 0, arrived }
    }

    /// Replays to the end of the selection, or until `interrupted`. An error says where to go on.
    pub async fn run(mut self, interrupted: impl Future<Output = ()>) -> anyhow::Result<Summary> {
        let range = self.range().await?;
        self.arrived = range.after;
        let ended = tokio::select! {
            ended = self.replay(range) => ended,
            () = interrupted => Err(anyhow::anyhow!("interrupted")),
        };
        self.progress.clear();
        let closed = ended.as_ref().is_err_and(sink::is_closed);
        if let Err(error) = ended
            && !closed
        {
            bail!("{error:#}; go on with --after {}", self.arrived.0);
        }
        let took = self.begun.elapsed();
        Ok(Summary { replayed: self.replayed, through: self.arrived, took, closed })
    }

    async fn replay(&mut self, range: Range) -> anyhow::Result<()> {
        while self.arrived < range.through {
            let reach = Position(range.through.0.min(self.arrived.0 + REACH));
            let entries = self.page(self.arrived, reach).await?;
            for entry in &entries {
                self.put(entry).await?;
            }
            // A page that is not full has everything up to its reach, even if that is nothing.
            let is_full = entries.len() as i64 == read::MAX_LIMIT;
            let through = entries.last().filter(|_| is_full).map_or(reach, |last| last.position);
            self.sink.settle().await?;
            self.arrived = through;
            let (replayed, begun) = (self.replayed, self.begun);
            self.progress.tell(|| outlook(range, through, replayed, begun.elapsed()));
        }
        self.sink.finish().await
    }

    async fn put(&mut self, entry: &Entry) -> anyhow::Result<()> {
        if let Some(due) = self.pace.due(entry.recorded_at) {
            // Transitions that are due already arrive before the pause.
            self.sink.settle().await?;
            self.arrived = Position(entry.position.0 - 1);
            tokio::time::sleep_until(due.into()).await;
        }
        self.sink.put(entry).await?;
        self.replayed += 1;
        Ok(())
    }

    /// The next entries of the selection; an error if retention dropped some of them meanwhile.
    async fn page(&self, after: Position, through: Position) -> anyhow::Result<Vec<Entry>> {
        let Selection { satellite, event, .. } = self.selection;
        let read = async |client: &mut Object| {
            let limit = read::MAX_LIMIT;
            let entries = read::within(client, after, through, limit, satellite, event).await?;
            // The horizon is read after the entries: if it is not above `after` then, it was not
            // before.
            Ok::<_, Error>((entries, log::horizon(client).await?))
        };
        let (entries, horizon) = self.database.run(read).await?;
        if horizon > after {
            bail!(
                "retention has just dropped positions up to {}: they are in its archive",
                horizon.0
            );
        }
        Ok(entries)
    }

    async fn range(&self) -> anyhow::Result<Range> {
        let find = async |client: &mut Object| {
            let head = read::head(client).await?;
            // The horizon is read after the head: the head is never dropped.
            let horizon = log::horizon(client).await?;
            Ok::<_, Error>((head, horizon, partitions::horizon_time(client).await?))
        };
        let (head, horizon, horizon_time) = self.database.run(find).await?;
        let Selection { first, last, after, since, until, .. } = self.selection;
        let named = first.map(|first| Position(first.0 - 1)).max(after);
        if let Some(named) = named.filter(|named| *named < horizon) {
            bail!(
                "position {} was dropped by retention (its archive has it): the log begins at {}",
                named.0 + 1,
                horizon.0 + 1
            );
        }
        let mut range = Range {
            after: named.unwrap_or(horizon),
            through: last.map_or(head, |last| last.min(head)),
        };
        if let Some(since) = since {
            if let Some(at) = horizon_time.filter(|at| *at >= since.moment()) {
                bail!(
                    "what was recorded up to {} was dropped by retention (its archive has it): \
                     choose a later --since",
                    Timestamp::new(at)
                );
            }
            range.after = range.after.max(self.last_before(since, horizon).await?);
        }
        if let Some(until) = until {
            range.through = range.through.min(self.last_before(until, horizon).await?);
        }
        if named.is_none() && since.is_none() && horizon > Position::ZERO {
            eprintln!("the log begins at position {}: retention dropped the rest", horizon.0 + 1);
        }
        Ok(range)
    }

    /// The newest position recorded before `moment`; the horizon if everything was recorded later.
    async fn last_before(&self, moment: Timestamp, horizon: Position) -> anyhow::Result<Position> {
        // Recorded times are cut to the millisecond.
        let before = moment.moment() - Duration::from_millis(1);
        let find = async |client: &mut Object| past::position_at(client, before).await;
        Ok(self.database.run(find).await?.unwrap_or(horizon))
    }
}

/// The progress line: position, speed, and the time left at that speed.
fn outlook(range: Range, at: Position, replayed: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(0.001);
    let (done, all) = (at.0 - range.after.0, range.through.0 - range.after.0);
    let left = seconds * (all - done) as f64 / (done.max(1)) as f64;
    let left = Duration::from_secs(left.min(1e9) as u64);
    format!(
        "position {} of {}  {replayed} replayed  {:.0}/s  {} left",
        at.0,
        range.through.0,
        replayed as f64 / seconds,
        humantime::format_duration(left)
    )
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.took.as_secs_f64();
        write!(f, "replayed {} transitions in {seconds:.1} s", self.replayed)?;
        write!(f, "; what comes later: --after {}", self.through.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_says_where_how_fast_and_how_long() {
        let range = Range { after: Position(1_000), through: Position(5_000) };
        assert_eq!(
            outlook(range, Position(2_000), 500, Duration::from_secs(10)),
            "position 2000 of 5000  500 replayed  50/s  30s left"
        );
        // Nothing done yet and no time passed: no division by zero.
        outlook(range, Position(1_000), 0, Duration::ZERO);
    }
}
