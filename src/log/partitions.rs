//! The log's partitions: room ahead of the head, and the old end.
//!
//! Owns the list `transition_partitions`, dropped partitions included. Promises that room is there before it is
//! needed; that the oldest partition goes first, never the one that holds the newest transition, and none that the
//! relay has not published; and that the [`horizon`] says what was dropped. The database itself checks all of this
//! again, row by row, and keeps what is younger than a [`floor`] that pods cannot move. So a faulty or compromised
//! pod cannot drop too much.

use std::time::Duration;

use deadpool_postgres::GenericClient;
use time::OffsetDateTime;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

use crate::domain::lifecycle::Position;

/// Positions in one partition, unless set otherwise: retention drops whole partitions.
pub const DEFAULT_WIDTH: i64 = 1_000_000;

/// The widths the database accepts.
pub const WIDTHS: std::ops::RangeInclusive<i64> = 1_000..=100_000_000;

/// Positions that always have a partition: at the highest rate measured, enough for several times the pause between
/// two checks.
const ROOM_AHEAD: i64 = 1_000_000;

/// At most so many partitions ahead: narrow ones give less room.
const PARTITIONS_AHEAD: i64 = 20;

/// How long dropping one partition may take. Nearly all of it is spent reading the partition twice, before any lock.
pub const DROP_TIMEOUT: Duration = Duration::from_secs(300);

/// A partition that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Its first position.
    pub first: Position,
    /// Its last position.
    pub last: Position,
    /// When its last transition was recorded; `None` while it is not full.
    pub last_recorded_at: Option<OffsetDateTime>,
    /// What keeps it from being dropped.
    pub obstacle: Option<String>,
}

/// Makes partitions of `width` positions ahead of time; returns how many were made.
pub async fn make_room(client: &impl GenericClient, width: i64) -> Result<i32, Error> {
    let ahead = ROOM_AHEAD.min(width.saturating_mul(PARTITIONS_AHEAD));
    let statement = client.prepare_cached("select extend_transition_log($1, $2)").await?;
    client.query_one(&statement, &[&width, &ahead]).await?.try_get(0)
}

const HORIZON: &str = "
    select coalesce(max(past_position), 1) - 1, max(last_recorded_at)
      from transition_partitions where dropped_at is not null";

/// The newest position that was dropped; [`Position::ZERO`] while the log is whole.
pub async fn horizon(client: &impl GenericClient) -> Result<Position, Error> {
    let statement = client.prepare_cached(HORIZON).await?;
    client.query_one(&statement, &[]).await?.try_get(0).map(Position)
}

/// When the transition at the horizon was recorded: moments before that are below the horizon.
pub async fn horizon_time(client: &impl GenericClient) -> Result<Option<OffsetDateTime>, Error> {
    let statement = client.prepare_cached(HORIZON).await?;
    client.query_one(&statement, &[]).await?.try_get(1)
}

const KEPT: &str = "
    select first_position, last_position, last_recorded_at, obstacle
      from kept_transition_partitions(since_long_ago(make_interval(secs => $1)))
     order by first_position limit $2";

/// The oldest partitions, at most `limit`, each with what keeps it if `older_than` is the span to keep.
pub async fn kept(
    client: &impl GenericClient,
    older_than: Duration,
    limit: i64,
) -> Result<Vec<Partition>, Error> {
    let rows = client.query(KEPT, &[&older_than.as_secs_f64(), &limit]).await?;
    rows.iter()
        .map(|row| {
            Ok(Partition {
                first: row.try_get("first_position")?,
                last: row.try_get("last_position")?,
                last_recorded_at: row.try_get("last_recorded_at")?,
                obstacle: row.try_get("obstacle")?,
            })
        })
        .collect()
}

const FLOOR: &str = "select extract(epoch from keep)::float8 from retention_floor";

/// What is kept at least, whatever `older_than` asks for. Only the owner can change it.
pub async fn floor(client: &impl GenericClient) -> Result<Duration, Error> {
    let seconds: f64 = client.query_one(FLOOR, &[]).await?.try_get(0)?;
    Ok(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
}

/// A clock that has stepped ahead makes nothing old.
const DROP: &str =
    "select drop_transition_partition($1, since_long_ago(make_interval(secs => $2)))";

/// Drops the partition that begins at `first`, for good. After a failure the transaction stays open: the caller
/// closes the connection.
pub async fn drop_oldest(
    client: &impl GenericClient,
    first: Position,
    older_than: Duration,
) -> Result<(), Error> {
    let limit = DROP_TIMEOUT.as_millis();
    let begin = format!("begin; set local statement_timeout = {limit}");
    let seconds = older_than.as_secs_f64();
    client.batch_execute(&begin).await?;
    client.execute(DROP, &[&first, &seconds]).await?;
    client.batch_execute("commit").await
}

/// Whether a partition was not dropped because a long read holds the log, or because another drop is under way.
/// Appends must not wait for either, so the drop did not wait. A retry helps.
pub fn is_busy(error: &Error) -> bool {
    error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
}

const LEAD: &str = "
    select pg_try_advisory_lock(hashtextextended('groundstation: retention', 0))";

const STEP_DOWN: &str = "
    select pg_advisory_unlock(hashtextextended('groundstation: retention', 0))";

/// Whether this connection now leads: the leader archives and drops. The lead only saves work: two that both believe
/// to lead write the same archive twice, and the database drops a partition once.
pub async fn take_the_lead(client: &Client) -> Result<bool, Error> {
    client.query_one(LEAD, &[]).await?.try_get(0)
}

/// Lets another connection lead.
pub async fn step_down(client: &Client) -> Result<(), Error> {
    client.execute(STEP_DOWN, &[]).await.map(drop)
}
