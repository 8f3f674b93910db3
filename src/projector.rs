//! The projection, from the log alone: what it should be, whether it is, and making it so.
//!
//! On the live path the row is written by the append that wrote its transition. Here the whole log
//! is folded again with the same function, [`lifecycle::project`], beside the live rows and while
//! traffic goes on. [`check`] compares both in one snapshot. [`rebuild`] then replaces what differs,
//! under the log's lock. Nothing is published, and heartbeats survive.

use std::collections::HashMap;

use anyhow::{Context, bail};
use deadpool_postgres::{GenericClient, Object, Transaction};
use fail::fail_point;
use time::OffsetDateTime;
use tokio_postgres::types::ToSql;
use tracing::info;
use uuid::Uuid;

use crate::database::{self, Database};
use crate::lifecycle::{self, Connection, Event, Position, Revision, SatelliteId, Session};
use crate::log::{self, read, transaction};

/// Rows written to the second projection in one statement.
const BATCH: usize = 10_000;

/// Tries to get every lock: each gives up after the session's `lock_timeout`.
const LOCK_TRIES: u32 = 10;

/// Folded entries between two reports of progress.
const PROGRESS_EVERY: i64 = 100_000;

/// Differences named one by one; the rest is counted.
const MAX_NAMED: i64 = 100;

/// One row of a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The state of the connection.
    pub connection: Connection,
    /// The newest transition that is in it.
    pub position: Position,
}

/// The fold of the log up to a position.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    rows: HashMap<SatelliteId, Row>,
    reached: i64,
}

impl Fold {
    /// Up to where the log has been folded.
    pub fn reached(&self) -> Position {
        Position(self.reached)
    }

    /// The folded rows.
    pub fn rows(&self) -> &HashMap<SatelliteId, Row> {
        &self.rows
    }

    /// Folds whatever is behind; returns the satellites it touched, each once or more. Reads in
    /// pages; what it keeps is one row a satellite.
    pub async fn catch_up(
        &mut self,
        client: &impl GenericClient,
        progress: impl Fn(Position),
    ) -> anyhow::Result<Vec<SatelliteId>> {
        let mut touched = Vec::new();
        if self.reached == 0 {
            self.begin_at_horizon(client).await?;
            touched.extend(self.rows.keys());
        }
        loop {
            let page = read::after(client, self.reached(), read::MAX_LIMIT).await;
            let page = page.map_err(|error| anyhow::anyhow!(database::describe(&error)))?;
            if page.is_empty() {
                return Ok(touched);
            }
            for entry in page {
                // Positions have no gap: without this, a satellite whose transitions are the ones
                // that are missing would be folded to an older state and nobody would know.
                if entry.position.0 != self.reached + 1 {
                    bail!("retention has dropped positions meanwhile: start again");
                }
                let transition = entry.transition().with_context(|| {
                    format!("position {} was written by a newer groundstation", entry.position.0)
                })?;
                let row = self.rows.get(&entry.satellite).map(|row| &row.connection);
                let connection = lifecycle::project(row, &transition).with_context(|| {
                    format!("the log is damaged at position {}", entry.position.0)
                })?;
                self.rows.insert(entry.satellite, Row { connection, position: entry.position });
                touched.push(entry.satellite);
                self.reached = entry.position.0;
                if self.reached % PROGRESS_EVERY == 0 {
                    progress(self.reached());
                }
            }
        }
    }
}

impl Fold {
    /// What retention has dropped folded to is where the log begins.
    async fn begin_at_horizon(&mut self, client: &impl GenericClient) -> anyhow::Result<()> {
        let server = |error| anyhow::anyhow!(database::describe(&error));
        self.reached = log::horizon(client).await.map_err(server)?.0;
        let mut after = None;
        loop {
            let page = read::at_horizon(client, after, read::MAX_LIMIT).await.map_err(server)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.satellite);
            for entry in page {
                let transition = entry.transition().with_context(|| {
                    format!("position {} was written by a newer groundstation", entry.position.0)
                })?;
                let connection = lifecycle::resume(&transition);
                self.rows.insert(entry.satellite, Row { connection, position: entry.position });
            }
        }
    }
}

/// What a check or a rebuild found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Up to which position both were compared.
    pub position: Position,
    /// How many rows the log folds to.
    pub rows: usize,
    /// How many live rows are missing, different, or without any transition.
    pub differing: u64,
    /// The first of them, in words.
    pub named: Vec<String>,
}

/// Compares the live rows with the fold of the log, in one snapshot: traffic goes on and neither
/// side is ahead of the other.
pub async fn check(database: &Database, progress: impl Fn(Position)) -> anyhow::Result<Findings> {
    let mut client = database.get().await?;
    let snapshot = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .start()
        .await?;
    take_time(&snapshot).await?;
    let mut fold = Fold::default();
    fold.catch_up(&snapshot, progress).await?;
    second_projection(&snapshot, &fold, None).await?;
    let findings = compare(&snapshot, &fold).await?;
    snapshot.rollback().await?;
    Ok(findings)
}

/// Replaces every live row that does not follow from the log. The log is folded while traffic
/// goes on; then the rows and the log are locked, the rest is folded, and what differs is
/// replaced, in one commit. An interrupted rebuild has changed nothing.
pub async fn rebuild(database: &Database, progress: impl Fn(Position)) -> anyhow::Result<Findings> {
    let mut client = database.get().await?;
    let mut fold = Fold::default();
    fold.catch_up(&client, &progress).await?;
    for attempt in 1..=LOCK_TRIES {
        match replace(&mut client, &mut fold).await {
            Err(error) if is_lock_timeout(&error) && attempt < LOCK_TRIES => {
                info!(attempt, "the rows are busy, trying again");
                fold.catch_up(&client, &progress).await?;
            }
            outcome => return outcome,
        }
    }
    bail!("the rows were busy {LOCK_TRIES} times in a row: try again when there is less traffic")
}

async fn replace(client: &mut Object, fold: &mut Fold) -> anyhow::Result<Findings> {
    let transaction = client.transaction().await?;
    take_time(&transaction).await?;
    second_projection(&transaction, fold, None).await?;
    // The rows before the log, as the appender does: it holds row locks when it waits for the log.
    transaction.batch_execute(LOCK_ROWS).await?;
    transaction::lock_head(&transaction).await?;
    let late = fold.catch_up(&transaction, |_| {}).await?;
    second_projection(&transaction, fold, Some(&late)).await?;
    let findings = compare(&transaction, fold).await?;
    transaction.execute(DELETE_UNFOUNDED, &[]).await?;
    transaction.execute(REPLACE, &[]).await?;
    fail_point!("projector::before_commit", |_| std::process::abort());
    transaction.commit().await?;
    Ok(findings)
}

/// Folding a long log takes longer than any statement of a pod may; waiting for a lock does not.
async fn take_time(transaction: &Transaction<'_>) -> Result<(), tokio_postgres::Error> {
    const TAKE_TIME: &str = "
        set local statement_timeout = 0;
        set local idle_in_transaction_session_timeout = 0";
    transaction.batch_execute(TAKE_TIME).await
}

fn is_lock_timeout(error: &anyhow::Error) -> bool {
    use tokio_postgres::error::SqlState;
    let code = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    code.is_some_and(|code| {
        [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code)
    })
}

/// Writes folded rows, all or only some, into a table that goes with the transaction.
async fn second_projection(
    transaction: &Transaction<'_>,
    fold: &Fold,
    only: Option<&[SatelliteId]>,
) -> anyhow::Result<()> {
    transaction.batch_execute(SECOND_PROJECTION).await?;
    let insert = transaction.prepare(FILL).await?;
    let ids: Vec<SatelliteId> = match only {
        Some(only) => {
            let mut ids = only.to_vec();
            ids.sort_unstable();
            ids.dedup();
            ids
        }
        None => fold.rows.keys().copied().collect(),
    };
    for batch in ids.chunks(BATCH) {
        let rows: Vec<(&SatelliteId, &Row)> =
            batch.iter().filter_map(|id| fold.rows.get_key_value(id)).collect();
        let ids: Vec<Uuid> = rows.iter().map(|(id, _)| id.0).collect();
        let sessions: Vec<i64> = rows.iter().map(|(_, row)| row.connection.session.0).collect();
        let revisions: Vec<i64> = rows.iter().map(|(_, row)| row.connection.revision.0).collect();
        let positions: Vec<i64> = rows.iter().map(|(_, row)| row.position.0).collect();
        let events: Vec<&str> =
            rows.iter().map(|(_, row)| row.connection.last_event.as_str()).collect();
        let heartbeats: Vec<Option<OffsetDateTime>> =
            rows.iter().map(|(_, row)| row.connection.last_heartbeat_at).collect();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&ids, &sessions, &revisions, &positions, &events, &heartbeats];
        transaction.execute(&insert, &parameters).await?;
    }
    Ok(())
}

async fn compare(transaction: &Transaction<'_>, fold: &Fold) -> anyhow::Result<Findings> {
    transaction.batch_execute("analyze rebuilt").await?;
    let differing: i64 = transaction.query_one(COUNT_DIFFERING, &[]).await?.try_get(0)?;
    let rows = transaction.query(NAME_DIFFERING, &[&MAX_NAMED]).await?;
    let named = rows.iter().map(describe).collect::<Result<_, _>>()?;
    Ok(Findings {
        position: fold.reached(),
        rows: fold.rows.len(),
        differing: u64::try_from(differing)?,
        named,
    })
}

fn describe(row: &tokio_postgres::Row) -> Result<String, tokio_postgres::Error> {
    let side = |prefix: &str| -> Result<Option<String>, tokio_postgres::Error> {
        let column = |name: &str| format!("{prefix}_{name}");
        let session: Option<i64> = row.try_get(column("session").as_str())?;
        let Some(session) = session.map(Session) else {
            return Ok(None);
        };
        let revision = Revision(row.try_get(column("revision").as_str())?);
        let event: String = row.try_get(column("last_event").as_str())?;
        let event = Event::parse(&event).map_or("?", Event::as_str);
        Ok(Some(format!("{event}, session {}, revision {}", session.0, revision.0)))
    };
    let id: Uuid = row.try_get("satellite_id")?;
    let none = || "no row".to_owned();
    let (live, log) = (side("live")?.unwrap_or_else(none), side("log")?.unwrap_or_else(none));
    Ok(format!("satellite {id}: the row says {live}; the log says {log}"))
}

const LOCK_ROWS: &str = "lock table satellite_connections in exclusive mode";

const SECOND_PROJECTION: &str = "
    create temporary table if not exists rebuilt (
        satellite_id uuid primary key, session bigint, revision bigint, position bigint,
        last_event text, last_heartbeat_at timestamptz
    ) on commit drop";

const FILL: &str = "
    insert into rebuilt
    select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::timestamptz[])
    on conflict (satellite_id) do update
       set session = excluded.session, revision = excluded.revision, position = excluded.position,
           last_event = excluded.last_event, last_heartbeat_at = excluded.last_heartbeat_at";

/// A live row may be ahead of the log by heartbeats, but only on a connected session; it is behind where
/// its heartbeat was brought back because the database's clock has gone back.
const COUNT_DIFFERING: &str = "
    select count(*)
      from satellite_connections c full join rebuilt r using (satellite_id)
     where (c.session, c.revision, c.position, c.last_event)
           is distinct from (r.session, r.revision, r.position, r.last_event)
        or (c.last_event = 'connected' and not coalesce(c.last_heartbeat_at >= r.last_heartbeat_at or r.last_heartbeat_at > clock_timestamp(), false))
        or (c.last_event <> 'connected' and c.last_heartbeat_at is distinct from r.last_heartbeat_at)";

const NAME_DIFFERING: &str = "
    select satellite_id,
           c.session as live_session, c.revision as live_revision, c.last_event as live_last_event,
           r.session as log_session, r.revision as log_revision, r.last_event as log_last_event
      from satellite_connections c full join rebuilt r using (satellite_id)
     where (c.session, c.revision, c.position, c.last_event)
           is distinct from (r.session, r.revision, r.position, r.last_event)
        or (c.last_event = 'connected' and not coalesce(c.last_heartbeat_at >= r.last_heartbeat_at or r.last_heartbeat_at > clock_timestamp(), false))
        or (c.last_event <> 'connected' and c.last_heartbeat_at is distinct from r.last_heartbeat_at)
     order by satellite_id
     limit $1";

const DELETE_UNFOUNDED: &str = "
    delete from satellite_connections c
     where not exists (select 1 from rebuilt r where r.satellite_id = c.satellite_id)";

/// A heartbeat that is newer than the log's survives on the same connected session. A session that was
/// thought to be over, and had been taken from its pod, is one of which nobody knows who holds it.
const REPLACE: &str = "
    insert into satellite_connections as c
           (satellite_id, session, revision, position, last_event, last_heartbeat_at)
    select r.satellite_id, r.session, r.revision, r.position, r.last_event,
           case when r.last_event = 'connected' and l.session = r.session
                then greatest(l.last_heartbeat_at, r.last_heartbeat_at)
                else r.last_heartbeat_at end
      from rebuilt r left join satellite_connections l using (satellite_id)
     where l.satellite_id is null
        or (l.session, l.revision, l.position, l.last_event)
           is distinct from (r.session, r.revision, r.position, r.last_event)
        or (r.last_event = 'connected' and not coalesce(l.last_heartbeat_at >= r.last_heartbeat_at or r.last_heartbeat_at > clock_timestamp(), false))
        or (r.last_event <> 'connected' and l.last_heartbeat_at is distinct from r.last_heartbeat_at)
    on conflict (satellite_id) do update
       set session = excluded.session, revision = excluded.revision, position = excluded.position,
           last_event = excluded.last_event, last_heartbeat_at = excluded.last_heartbeat_at,
           pod = nullif(c.pod, 0)";
