//! A window of time, and which part of the log it is about.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use time::OffsetDateTime;
use time::macros::datetime;

use crate::contract::wire::Timestamp;
use crate::domain::lifecycle::Position;
use crate::log::history::NoAnswer;
use crate::log::{partitions, past, read};

/// How long after it happened an edge is still looked for: what was recorded later than this after a window's end is
/// not looked at, so that a question about long ago does not read everything since. An edge waits that long only
/// while nobody can observe, which is told as unknown anyway, or while somebody has locked its satellite's row.
pub const LATE: time::Duration = time::Duration::HOUR;

/// The most transitions that an answer of the whole fleet looks at.
const MAX_TRANSITIONS: i64 = 1_000_000;

/// The first moment that can be told.
const EARLIEST: OffsetDateTime = datetime!(0001-01-01 00:00 UTC);

/// From one moment to a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// When it begins.
    pub from: OffsetDateTime,
    /// When it ends.
    pub to: OffsetDateTime,
}

/// Which positions a window is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The newest position that was recorded before it begins, or the horizon.
    pub after: Position,
    /// The newest one that is looked at.
    pub through: Position,
    /// From when on the log tells, where that is later than the window's begin.
    pub begins_at: Option<OffsetDateTime>,
}

impl Reach {
    /// Refuses what is too long to be read whole: it has to be answered within the time a read may take.
    pub fn is_short(&self) -> Result<(), NoAnswer> {
        if self.through.0 - self.after.0 > MAX_TRANSITIONS {
            return Err(NoAnswer::Refused(format!(
                "since and until must be so near to each other that there are at most {MAX_TRANSITIONS} transitions between them"
            )));
        }
        Ok(())
    }
}

/// The window that is asked for: until now and for `span` unless told otherwise. What is not past yet is refused.
pub async fn asked(
    client: &impl GenericClient,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    span: Duration,
    longest: Duration,
) -> Result<Window, NoAnswer> {
    let row = client.query_one("select clock_timestamp()", &[]).await?;
    let now = Timestamp::new(row.try_get(0)?).moment();
    let to = until.map_or(now, Timestamp::moment);
    if to > now {
        return Err(NoAnswer::Future(format!("until, {},", Timestamp::new(to))));
    }
    // What is told of a window has years of four digits.
    let from = since.map_or((to - span).max(EARLIEST), Timestamp::moment);
    if from >= to {
        return Err(NoAnswer::Refused("since must be before until".to_owned()));
    }
    if to - from > longest {
        let days = longest.as_secs() / (24 * 60 * 60);
        let rule = format!("since must be at most {days} days before until");
        return Err(NoAnswer::Refused(rule));
    }
    Ok(Window { from, to })
}

/// Finds the positions a window is about; one that ends later than now is refused.
pub async fn reach(client: &impl GenericClient, window: Window) -> Result<Reach, NoAnswer> {
    let horizon = partitions::horizon(client).await?;
    let dropped = partitions::horizon_time(client).await?;
    let begins_at = dropped.filter(|horizon| window.from <= *horizon);
    let begins_at = begins_at.map(|horizon| horizon + time::Duration::MILLISECOND);
    // Microseconds are what Postgres tells apart.
    let before = past::position_at(client, window.from - time::Duration::MICROSECOND).await?;
    let after = before.unwrap_or(horizon).max(horizon);
    let through = match past::position_at(client, window.to + LATE).await? {
        Some(through) => through.max(after),
        None => after,
    };
    let head = read::head(client).await?;
    Ok(Reach { after, through: through.min(head.max(after)), begins_at })
}
