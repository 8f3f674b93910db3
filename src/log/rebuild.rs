//! The projection from the log alone: what it should be, whether it is, and how it is made so.
//!
//! On the live path, the append that writes a transition writes its row too. Here the whole log is folded again with
//! the same function, [`lifecycle::project`], beside the live rows and while traffic goes on, and both are compared
//! in one snapshot. [`rebuild`] then replaces the rows that differ, some at a time, each time under the locks of an
//! append, which it holds for seconds at most. Nothing is published, and heartbeats survive.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use deadpool_postgres::{GenericClient, Object, Transaction};
use fail::fail_point;
use time::OffsetDateTime;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tracing::info;
use uuid::Uuid;

use crate::domain::lifecycle::{self, Connection, Event, Position, SatelliteId};
use crate::log::{self, Entry, read, transaction};
use crate::platform::database::{self, Database};

/// Live rows in one read.
const PAGE: i32 = 10_000;

/// Rows replaced under one lock of the log. They take some milliseconds, and what the server sends meanwhile fits
/// into a socket's buffer, so the server does not get stuck in a send when the program stands still.
const BATCH: usize = 200;

/// Transitions of these satellites that may have come since they were last folded. There are few: the satellites'
/// rows are locked.
const MAX_LATE: i64 = 100;

/// How long the locks are held at most, by the clock of this program. If the program stands still, the server ends
/// the transaction, see [`BOUND`].
const LOCKED: Duration = Duration::from_secs(4);

/// Tries to get every lock. Each gives up after the time-out in [`BOUND`].
const LOCK_TRIES: u32 = 10;

/// Folded entries between two reports of progress.
const PROGRESS_EVERY: i64 = 100_000;

/// Differences named one by one; further ones are only counted.
const MAX_NAMED: usize = 100;

/// One row of a projection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The state of the connection.
    pub connection: Connection,
}

impl Row {
    /// Whether a live row follows from this one at `now`. It may be ahead by heartbeats, but only on a connected
    /// session. It may be behind where its heartbeat was brought back because the database's clock has gone back.
    fn allows(&self, live: &Row, now: OffsetDateTime) -> bool {
        let heartbeats = (self.connection.last_heartbeat_at, live.connection.last_heartbeat_at);
        let beat = match (live.connection.last_event, heartbeats) {
            (Event::Connected, (Some(log), Some(live))) => live >= log || log > now,
            (Event::Connected, _) => false,
            (_, (log, live)) => live == log,
        };
        let known = |row: &Row| Connection { last_heartbeat_at: None, ..row.connection.clone() };
        beat && known(self) == known(live)
    }

    /// What the live row is to be. A heartbeat newer than the log's survives on the same connected session.
    fn instead_of(&self, live: Option<&Row>) -> Row {
        let mut row = self.clone();
        if let Some(live) = live
            && row.connection.last_event == Event::Connected
            && row.connection.session == live.connection.session
        {
            let newest = row.connection.last_heartbeat_at.max(live.connection.last_heartbeat_at);
            row.connection.last_heartbeat_at = newest;
        }
        row
    }

    fn from_live(row: &tokio_postgres::Row) -> anyhow::Result<(SatelliteId, Row)> {
        let id: SatelliteId = row.try_get("satellite_id")?;
        let event: &str = row.try_get("last_event")?;
        let last_event = Event::from_str(event).ok().with_context(|| {
            format!("the row of satellite {id} says {event:?}, which is no event")
        })?;
        let connection = Connection {
            session: row.try_get("session")?,
            revision: row.try_get("revision")?,
            last_event,
            last_heartbeat_at: row.try_get("last_heartbeat_at")?,
            vouched_until: None,
        };
        Ok((id, Row { connection }))
    }
}

/// The row after one more entry of the log.
fn after(row: Option<&Row>, entry: &Entry) -> anyhow::Result<Row> {
    let transition = entry.transition().with_context(|| {
        format!("position {} was written by a newer groundstation", entry.position.0)
    })?;
    let connection = lifecycle::project(row.map(|row| &row.connection), &transition)
        .with_context(|| format!("the log is damaged at position {}", entry.position.0))?;
    Ok(Row { connection })
}

/// The fold of the log up to a position.
#[derive(Debug, Clone, Default)]
pub struct Fold {
    rows: HashMap<SatelliteId, Row>,
    reached: i64,
}

impl Fold {
    /// The position up to which the log has been folded.
    pub fn reached(&self) -> Position {
        Position(self.reached)
    }

    /// Folds the entries behind that position. Reads in pages and keeps one row per satellite.
    pub async fn catch_up(
        &mut self,
        client: &impl GenericClient,
        progress: impl Fn(Position),
    ) -> anyhow::Result<()> {
        if self.reached == 0 {
            self.begin_at_horizon(client).await?;
        }
        loop {
            let page = read::after(client, self.reached(), read::MAX_LIMIT).await;
            let page = page.map_err(|error| anyhow::anyhow!(database::describe(&error)))?;
            if page.is_empty() {
                return Ok(());
            }
            for entry in page {
                // Positions have no gap. Without this check, a satellite whose transitions are missing would be
                // folded to an older state unnoticed.
                if entry.position.0 != self.reached + 1 {
                    bail!("retention has dropped positions meanwhile: start again");
                }
                let row = after(self.rows.get(&entry.satellite), &entry)?;
                self.rows.insert(entry.satellite, row);
                self.reached = entry.position.0;
                if self.reached % PROGRESS_EVERY == 0 {
                    progress(self.reached());
                }
            }
        }
    }
}

impl Fold {
    /// Starts from the states at the horizon, to which the dropped part of the log folds.
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
                self.rows.insert(entry.satellite, Row { connection });
            }
        }
    }
}

/// What a check or a rebuild found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// The position up to which both were compared.
    pub position: Position,
    /// How many rows the log folds to.
    pub rows: usize,
    /// How many live rows are missing, different, or without any transition.
    pub differing: usize,
    /// The first of them, in words.
    pub named: Vec<String>,
}

/// Satellites whose live row does not follow from the log, each with its live row if it has one.
type Differing = BTreeMap<SatelliteId, Option<Row>>;

/// Compares the live rows with the fold of the log in one snapshot, so traffic goes on and neither side is ahead of
/// the other.
pub async fn check(database: &Database, progress: impl Fn(Position)) -> anyhow::Result<Findings> {
    let mut client = database.get().await?;
    let mut fold = Fold::default();
    fold.catch_up(&client, &progress).await?;
    let differing = compare(&mut client, &mut fold, progress).await?;
    Ok(findings(&differing, &fold))
}

/// Replaces every live row that does not follow from the log. First it reads log and rows while traffic goes on, for
/// as long as that takes. Then it replaces the rows that differ, [`BATCH`] at a time, each time in one short
/// transaction with the locks of an append of these satellites. An interrupted rebuild leaves some rows replaced and
/// the others unchanged, and can be run again.
pub async fn rebuild(database: &Database, progress: impl Fn(Position)) -> anyhow::Result<Findings> {
    let mut client = database.get().await?;
    let mut fold = Fold::default();
    fold.catch_up(&client, &progress).await?;
    let differing = compare(&mut client, &mut fold, &progress).await?;
    let ids: Vec<SatelliteId> = differing.keys().copied().collect();
    let findings = findings(&differing, &fold);
    for batch in ids.chunks(BATCH) {
        replace_when_free(&mut client, &mut fold, batch).await?;
    }
    Ok(findings)
}

async fn compare(
    client: &mut Object,
    fold: &mut Fold,
    progress: impl Fn(Position),
) -> anyhow::Result<Differing> {
    let snapshot = client
        .build_transaction()
        .isolation_level(tokio_postgres::IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()
        .await?;
    snapshot.batch_execute(PATIENT).await?;
    fold.catch_up(&snapshot, progress).await?;
    let now = time(&snapshot).await?;
    let live = snapshot.prepare(LIVE).await?;
    let live = snapshot.bind(&live, &[]).await?;
    let mut missing: HashSet<SatelliteId> = fold.rows.keys().copied().collect();
    let mut differing = Differing::new();
    loop {
        let page = snapshot.query_portal(&live, PAGE).await?;
        if page.is_empty() {
            break;
        }
        for row in &page {
            let (id, row) = Row::from_live(row)?;
            missing.remove(&id);
            if !fold.rows.get(&id).is_some_and(|log| log.allows(&row, now)) {
                differing.insert(id, Some(row));
            }
        }
    }
    differing.extend(missing.into_iter().map(|id| (id, None)));
    snapshot.rollback().await?;
    Ok(differing)
}

fn findings(differing: &Differing, fold: &Fold) -> Findings {
    let side = |row: Option<&Row>| {
        row.map_or("no row".to_owned(), |Row { connection }| {
            let (event, session) = (connection.last_event.as_str(), connection.session.0);
            format!("{event}, session {session}, revision {}", connection.revision.0)
        })
    };
    let named = differing.iter().take(MAX_NAMED).map(|(id, live)| {
        let (live, log) = (side(live.as_ref()), side(fold.rows.get(id)));
        format!("satellite {id}: the row says {live}; the log says {log}")
    });
    Findings {
        position: fold.reached(),
        rows: fold.rows.len(),
        differing: differing.len(),
        named: named.collect(),
    }
}

async fn replace_when_free(
    client: &mut Object,
    fold: &mut Fold,
    batch: &[SatelliteId],
) -> anyhow::Result<()> {
    for attempt in 1..=LOCK_TRIES {
        // Folds all but the newest transitions while nothing is locked.
        fold.catch_up(&*client, |_| {}).await?;
        match tokio::time::timeout(LOCKED, replace(client, fold, batch)).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => {}
            Ok(Err(error)) if is_lock_timeout(&error) => {}
            Ok(Err(error)) if error.is::<tokio_postgres::Error>() => {
                return Err(error).with_context(gave_up);
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => bail!(gave_up()),
        }
        info!(attempt, "the rows are busy, trying again");
    }
    bail!("the rows were busy {LOCK_TRIES} times in a row: try again when there is less traffic")
}

fn gave_up() -> String {
    format!(
        "cannot replace rows within {LOCKED:?}, for which edges may be held up; what was replaced before \
         stays so: run `groundstation rebuild` again"
    )
}

/// Replaces those of these rows that still differ. False: too many transitions came since they were folded.
async fn replace(client: &mut Object, fold: &Fold, batch: &[SatelliteId]) -> anyhow::Result<bool> {
    let transaction = client.transaction().await?;
    transaction.batch_execute(BOUND).await?;
    let now = time(&transaction).await?;
    let ids: Vec<Uuid> = batch.iter().map(|id| id.0).collect();
    // In the appender's order: the registry's rows, the projection's rows, the log. After that nothing is appended,
    // and every earlier append has committed.
    transaction.execute(LOCK_SATELLITES, &[&ids]).await?;
    let mut live: HashMap<SatelliteId, Row> = HashMap::with_capacity(batch.len());
    for row in &transaction.query(LOCK_LIVE, &[&ids]).await? {
        let (id, row) = Row::from_live(row)?;
        live.insert(id, row);
    }
    transaction::lock_head(&transaction).await?;
    let late = read::of_satellites(&transaction, &ids, fold.reached(), MAX_LATE).await?;
    if late.len() as i64 == MAX_LATE {
        transaction.rollback().await?;
        return Ok(false);
    }
    let mut log: HashMap<SatelliteId, Row> = HashMap::with_capacity(batch.len());
    log.extend(batch.iter().filter_map(|id| Some((*id, fold.rows.get(id)?.clone()))));
    for entry in &late {
        let row = after(log.get(&entry.satellite), entry)?;
        log.insert(entry.satellite, row);
    }
    let unfounded: Vec<Uuid> =
        live.keys().filter(|id| !log.contains_key(id)).map(|id| id.0).collect();
    transaction.execute(DELETE, &[&unfounded]).await?;
    let differing = log.iter().filter_map(|(id, row)| {
        let live = live.get(id);
        let is_right = live.is_some_and(|live| row.allows(live, now));
        (!is_right).then(|| (*id, row.instead_of(live)))
    });
    write(&transaction, &differing.collect::<Vec<_>>()).await?;
    fail_point!("projector::before_commit", |_| std::process::abort());
    transaction.commit().await?;
    Ok(true)
}

async fn time(transaction: &Transaction<'_>) -> Result<OffsetDateTime, tokio_postgres::Error> {
    transaction.query_one("select clock_timestamp()", &[]).await?.try_get(0)
}

fn is_lock_timeout(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    code.is_some_and(|code| {
        [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code)
    })
}

async fn write(
    transaction: &Transaction<'_>,
    rows: &[(SatelliteId, Row)],
) -> Result<(), tokio_postgres::Error> {
    let ids: Vec<Uuid> = rows.iter().map(|(id, _)| id.0).collect();
    let sessions: Vec<i64> = rows.iter().map(|(_, row)| row.connection.session.0).collect();
    let revisions: Vec<i64> = rows.iter().map(|(_, row)| row.connection.revision.0).collect();
    let events: Vec<&str> =
        rows.iter().map(|(_, row)| row.connection.last_event.as_str()).collect();
    let heartbeats: Vec<Option<OffsetDateTime>> =
        rows.iter().map(|(_, row)| row.connection.last_heartbeat_at).collect();
    let parameters: [&(dyn ToSql + Sync); 5] = [&ids, &sessions, &revisions, &events, &heartbeats];
    transaction.execute(REPLACE, &parameters).await.map(drop)
}

/// A snapshot holds nothing up, but it keeps what is dropped or vacuumed meanwhile, so its life is bounded.
const PATIENT: &str = "set local idle_in_transaction_session_timeout = '60s'";

/// How long the server lets a transaction hold its locks when the program or its connection stands still. An edge
/// waits this long at most. The last of these bounds the whole transaction, on servers that know the setting.
const BOUND: &str = "
    set local lock_timeout = '2s';
    set local statement_timeout = '3s';
    set local idle_in_transaction_session_timeout = '3s';
    select set_config('transaction_timeout', '6s', true)
     where current_setting('server_version_num')::int >= 170000";

const LIVE: &str = "
    select satellite_id, session, revision, last_event, last_heartbeat_at
      from satellite_connections";

const LOCK_SATELLITES: &str =
    "select from satellites where id = any($1) order by id for no key update";

const LOCK_LIVE: &str = "
    select satellite_id, session, revision, last_event, last_heartbeat_at
      from satellite_connections where satellite_id = any($1)
     order by satellite_id for update";

const DELETE: &str = "delete from satellite_connections where satellite_id = any($1)";

/// A session that was wrongly taken for ended had lost its pod in the row: which pod holds it is unknown.
const REPLACE: &str = "
    insert into satellite_connections as c
           (satellite_id, session, revision, last_event, last_heartbeat_at)
    select * from unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::text[], $5::timestamptz[])
    on conflict (satellite_id) do update
       set session = excluded.session, revision = excluded.revision,
           last_event = excluded.last_event, last_heartbeat_at = excluded.last_heartbeat_at,
           pod = nullif(c.pod, 0),
           vouched = c.vouched and c.session = excluded.session and excluded.last_event = 'connected'";
