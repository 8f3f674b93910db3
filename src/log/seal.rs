//! Evidence against tampering: a chain of seals over the log.
//!
//! Owns the table `log_seals`. A seal covers the transitions that follow on the seal before it, in position order. It
//! holds the SHA-256 of the hash before, of its own fields, and of every row's canonical form
//! ([`crate::log::canonical`]). A change, a drop or a swap of a sealed row or of a seal breaks the chain, and
//! [`chain::check`] names the place. What was never sealed, and the newest seal together with all its rows, have no
//! witness in the database. Each seal's hash is also logged, and operators who keep those lines elsewhere have a
//! witness.
//!
//! [`history`] does the same for histories beside the log: the [`registry`]'s, and the [`audit`].
//!
//! The [`Sealer`] runs on every pod. An advisory lock lets one pod seal at a time, and the table accepts no second
//! seal for the same place. Positions are dense in commit order, so what is below a visible position is complete.
//! Must not touch: the log's rows, the stream.

use std::fmt;
use std::time::Duration;

use deadpool_postgres::{GenericClient, Object};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_postgres::Error;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::domain::lifecycle::Position;
use crate::log::canonical::{self, Canonical};
use crate::platform::database::{Database, Failed};
use crate::platform::metrics::Metrics;

pub(crate) mod audit;
pub(crate) mod chain;
pub(crate) mod history;
pub(crate) mod registry;

use audit::AUDIT;
use history::History;
use registry::REGISTRY;

/// Transitions that one seal covers at most. A seal is made as soon as there are this many, or with fewer when the
/// interval is over.
pub const MAX_ROWS: i64 = 1_000;

/// Prefix of everything that is hashed, so that no hash made for another purpose can pass for a seal's.
const DOMAIN: &[u8] = b"groundstation log seal 1\n";

/// SHA-256 of a seal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first seal names as the hash before it.
    pub const NONE: Hash = Hash([0; 32]);

    fn from_column(bytes: &[u8]) -> Hash {
        // The table accepts no other length. Should one get through, this hash matches nothing.
        Hash(bytes.try_into().unwrap_or([0xff; 32]))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The first position it covers.
    pub first: Position,
    /// The last one.
    pub last: Position,
    /// The hash of the seal before it.
    pub previous: Hash,
    /// Its own hash.
    pub hash: Hash,
    /// When it was made.
    pub sealed_at: OffsetDateTime,
}

impl Seal {
    /// Its hash over these rows, after the seal with the hash `previous`. The rows must be those it covers.
    pub fn hash_of(&self, previous: Hash, rows: &[Canonical]) -> Hash {
        let sealed_at = self.sealed_at.unix_timestamp_nanos() / 1_000;
        let mut hasher = Sha256::new();
        hasher.update(DOMAIN);
        hasher.update(previous.0);
        hasher.update(self.first.0.to_be_bytes());
        hasher.update(self.last.0.to_be_bytes());
        hasher.update((sealed_at as i64).to_be_bytes());
        for row in rows {
            hasher.update((row.bytes.len() as u64).to_be_bytes());
            hasher.update(&row.bytes);
        }
        Hash(hasher.finalize().into())
    }

    fn from_row(row: &tokio_postgres::Row) -> Result<Seal, Error> {
        Ok(Seal {
            first: row.try_get("first_position")?,
            last: row.try_get("last_position")?,
            previous: Hash::from_column(row.try_get("previous_hash")?),
            hash: Hash::from_column(row.try_get("hash")?),
            sealed_at: row.try_get("sealed_at")?,
        })
    }
}

/// The task.
pub struct Sealer {
    /// The database that holds the log and the seals.
    pub database: Database,
    /// Changes when the log grows.
    pub head: watch::Receiver<Position>,
    /// How long a transition waits for its seal at most, while the database answers.
    pub interval: Duration,
    /// What it counts.
    pub metrics: Metrics,
}

/// The result of one attempt.
enum Attempt {
    /// This seal was made.
    Sealed(Seal),
    /// There are fewer transitions than asked for.
    TooFew,
    /// Another pod is sealing.
    Busy,
}

impl Sealer {
    /// Seals until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut sealed = Position::ZERO;
        let mut failing = false;
        loop {
            let least = tokio::select! {
                _ = ticks.tick() => 1,
                Ok(()) = self.head.changed() => MAX_ROWS,
                () = stop.cancelled() => return,
            };
            let head = *self.head.borrow_and_update();
            if head.0 - sealed.0 < least && least > 1 {
                continue;
            }
            let work = tokio::select! {
                work = self.seal_all(least) => work,
                () = stop.cancelled() => return,
            };
            let work = match work {
                // The other histories are short, so once an interval is often enough.
                Ok(newest) if least == 1 => self.seal_histories().await.map(|()| newest),
                work => work,
            };
            match work {
                Ok(newest) => {
                    sealed = newest.unwrap_or(sealed);
                    failing = false;
                }
                Err(error) => {
                    self.metrics.seal_failures.inc();
                    if !failing {
                        warn!(%error, "cannot seal the log");
                    }
                    failing = true;
                }
            }
        }
    }

    /// Seals what is new in the registry's history and in the audit.
    async fn seal_histories(&self) -> Result<(), Failed> {
        self.seal_history(&REGISTRY).await?;
        self.seal_history(&AUDIT).await
    }

    async fn seal_history(&self, history: &History) -> Result<(), Failed> {
        while let Some(seal) = self.database.run(async |client| history.seal(client).await).await? {
            let (last, rows) = (seal.last(), seal.rows());
            info!(last, rows, hash = %seal.hash, "sealed {}", history.title);
        }
        Ok(())
    }

    /// Seals while there are `least` transitions to seal. Returns the newest sealed position, or `None` if another
    /// pod is sealing.
    async fn seal_all(&self, least: i64) -> Result<Option<Position>, Failed> {
        loop {
            match self.database.run(async |client| seal(client, least).await).await? {
                Attempt::Sealed(seal) => {
                    self.metrics.sealed_position.set(seal.last.0);
                    info!(first = seal.first.0, last = seal.last.0, hash = %seal.hash, "sealed");
                }
                Attempt::TooFew => {
                    let sealed = self.database.run(async |client| newest(client).await).await?;
                    let sealed = sealed.map_or(Position::ZERO, |seal| seal.last);
                    self.metrics.sealed_position.set(sealed.0);
                    return Ok(Some(sealed));
                }
                Attempt::Busy => {
                    debug!("another pod seals");
                    return Ok(None);
                }
            }
        }
    }
}

const LOCK: &str =
    "select pg_try_advisory_xact_lock(hashtextextended('groundstation: log seals', 0)) as locked";

const INSERT: &str = "
    insert into log_seals (first_position, last_position, transitions, previous_hash, hash, sealed_at, covers_marks)
    values ($1, $2, $3, $4, $5, $6, true)";

/// Makes one seal over what follows on the newest one: at least `least` transitions, at most [`MAX_ROWS`].
async fn seal(client: &Object, least: i64) -> Result<Attempt, Error> {
    client.batch_execute("begin isolation level read committed").await?;
    if !client.query_one(LOCK, &[]).await?.try_get::<_, bool>("locked")? {
        client.batch_execute("rollback").await?;
        return Ok(Attempt::Busy);
    }
    // In a later statement than the lock, so that it sees the seal of the previous holder.
    let before = newest(client).await?;
    let (after, previous) =
        before.map_or((Position::ZERO, Hash::NONE), |seal| (seal.last, seal.hash));
    let mut rows = canonical::rows(client, after, Position(i64::MAX), MAX_ROWS).await?;
    rows.truncate(dense(&rows));
    let Some((first, last)) = rows.first().zip(rows.last()) else {
        client.batch_execute("rollback").await?;
        return Ok(Attempt::TooFew);
    };
    if (rows.len() as i64) < least {
        client.batch_execute("rollback").await?;
        return Ok(Attempt::TooFew);
    }
    if after > Position::ZERO && first.position.0 != after.0 + 1 {
        warn!(
            after = after.0,
            next = first.position.0,
            "positions are gone before they were sealed"
        );
    }
    let sealed_at = client.query_one("select clock_timestamp()", &[]).await?.try_get(0)?;
    let (first, last) = (first.position, last.position);
    let mut seal = Seal { first, last, previous, hash: Hash::NONE, sealed_at };
    seal.hash = seal.hash_of(previous, &rows);
    let (previous, hash) = (previous.0.as_slice(), seal.hash.0.as_slice());
    let count = rows.len() as i64;
    client.execute(INSERT, &[&first, &last, &count, &previous, &hash, &sealed_at]).await?;
    client.batch_execute("commit").await?;
    Ok(Attempt::Sealed(seal))
}

/// How many rows follow on each other without a gap. A gap exists only if rows were removed by hand.
fn dense(rows: &[Canonical]) -> usize {
    let gap = rows.windows(2).position(|pair| pair[1].position.0 != pair[0].position.0 + 1);
    gap.map_or(rows.len(), |before| before + 1)
}

const NEWEST: &str = "
    select first_position, last_position, previous_hash, hash, sealed_at
      from log_seals order by last_position desc limit 1";

/// The newest seal.
pub async fn newest(client: &impl GenericClient) -> Result<Option<Seal>, Error> {
    let statement = client.prepare_cached(NEWEST).await?;
    client.query_opt(&statement, &[]).await?.as_ref().map(Seal::from_row).transpose()
}

const AFTER: &str = "
    select first_position, last_position, previous_hash, hash, sealed_at
      from log_seals where first_position > $1 order by first_position limit $2";

async fn after(
    client: &impl GenericClient,
    first: Position,
    limit: i64,
) -> Result<Vec<Seal>, Error> {
    let statement = client.prepare_cached(AFTER).await?;
    let rows = client.query(&statement, &[&first, &limit]).await?;
    rows.iter().map(Seal::from_row).collect()
}
