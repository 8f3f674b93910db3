//! Work on connections to Postgres.
//!
//! A pod has two pools ([`pools`]). Reads from outside (HTTP, NATS, live streams) have their own. However many
//! they are and however long they take, the log's own work finds a connection. Every pooled session
//! runs as the role `groundstation_service`, which cannot change the log. It also has server-side
//! time-outs, so that a pod that stops in the middle of a transaction holds its locks
//! no longer than those. A pooler on the way must leave each connection its session ([`checks`]).
//! Work on a connection goes through [`Database::run`]: a connection without an answer,
//! or whose caller did not wait for the answer, never goes to the next caller. This module knows no
//! table.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::{HookError, Object, Pool, PoolError};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::debug;

use crate::platform::metrics::Metrics;
use crate::platform::session::Settings;

mod address;
mod checks;
mod pools;

pub use address::Address;
pub use checks::SharedSession;
pub use pools::Reads;

/// How long a connection may take to open, and how long the log's own work waits for one from the
/// pool.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take to open and to be set up.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);

/// How long a client waits for any answer before it gives the connection up. This is longer than
/// every server-side time-out, so that it only matters when the network is silent.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// How long an abandoned statement may go on. Most end sooner than the database would receive the
/// cancellation.
const GRACE: Duration = Duration::from_millis(100);

/// How long the database may take to cancel a statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The purpose and the bounds of a pool's sessions.
struct Sessions {
    /// The pool's name in metrics.
    pool: &'static str,
    /// The sessions' name in the database.
    name: String,
    connections: usize,
    settings: Settings,
    /// How long a caller waits for a connection.
    wait: Duration,
    /// How long work may take, as measured here.
    limit: Duration,
    /// Whether nothing of a session outlives its statement: no transaction of several statements,
    /// no lock. Then a connection can be used again after its work was given up.
    outlive_work: bool,
}

/// A pool of connections to the database, or a lane of one.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    sessions: Arc<Sessions>,
    /// For the connection that cancels a statement.
    tls: MakeRustlsConnect,
    /// As many places as there may be connections. Callers wait here, in order.
    places: Arc<Semaphore>,
    /// A lane's callers wait for a place in the lane first.
    lane: Option<Arc<Semaphore>>,
    /// The metrics of a pod; a one-shot command has none.
    metrics: Option<Metrics>,
    /// Told when a statement did not fit the schema.
    misfits: Arc<Notify>,
}

/// Why work on a connection failed.
#[derive(Debug, Error)]
pub enum Failed {
    /// All connections were in use.
    #[error("no database connection was free within {0:?}")]
    Busy(Duration),
    /// No connection could be opened.
    #[error("cannot connect to the database: {0}")]
    NoConnection(String),
    /// The database did not answer in time. Whether the work was done is unknown.
    #[error("no answer from the database within {0:?}")]
    NoAnswer(Duration),
    /// The server's error, or the driver's.
    #[error("{}", describe(.0))]
    Server(tokio_postgres::Error),
    /// Anything else.
    #[error("{0:#}")]
    Work(anyhow::Error),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Failed {
        Failed::Server(error)
    }
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Failed {
        match error.downcast() {
            Ok(server) => Failed::Server(server),
            Err(error) => Failed::Work(error),
        }
    }
}

impl Database {
    /// The same connections, with their use counted.
    pub fn counted(self, metrics: Metrics) -> Database {
        Database { metrics: Some(metrics), ..self }
    }

    /// The same connections, for work of which at most this many run at once: the rest of the pool
    /// is for others. Callers get a place in order.
    pub fn lane(&self, at_once: usize) -> Database {
        Database { lane: Some(Arc::new(Semaphore::new(at_once))), ..self.clone() }
    }

    /// Works on a connection, within the pool's own limit. See [`Database::run_within`].
    pub async fn run<T, E: Into<Failed>>(
        &self,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, E>,
    ) -> Result<T, Failed> {
        self.run_within(self.sessions.limit, work).await
    }

    /// Works on a connection for at most `limit`, not counting the wait for it. Only successful
    /// work gives its connection back as it is. After an error the connection is closed, which ends
    /// its transaction. When the time is over, or the caller has gone (the future is dropped), the
    /// database is told to cancel the work, and the connection is not used again before it is idle.
    pub async fn run_within<T, E: Into<Failed>>(
        &self,
        limit: Duration,
        work: impl AsyncFnOnce(&mut Object) -> Result<T, E>,
    ) -> Result<T, Failed> {
        let Taken { client, turn } = self.take().await?;
        let mut lease = Lease { client: None, turn: Some(turn), database: self };
        let client = lease.client.insert(client);
        match timeout(limit, work(client)).await {
            Ok(Ok(done)) => {
                drop(lease.client.take());
                Ok(done)
            }
            Ok(Err(error)) => {
                if let Some(client) = lease.client.take() {
                    abandon(client);
                }
                let failed = error.into();
                if does_not_fit(&failed) {
                    self.misfits.notify_one();
                }
                Err(failed)
            }
            Err(_) => Err(Failed::NoAnswer(limit)),
        }
    }

    /// Waits until a statement has failed because it does not fit the schema; one that failed while
    /// nobody waited counts too.
    pub async fn misfit(&self) {
        self.misfits.notified().await;
    }

    /// A connection for a command that is the pool's only user.
    pub async fn get(&self) -> anyhow::Result<Object> {
        Ok(self.take().await?.client)
    }

    async fn take(&self) -> Result<Taken, Failed> {
        let asked = Instant::now();
        let waiting = self.metrics.as_ref().map(|metrics| metrics.waiting(self.sessions.pool));
        let taken = match timeout(self.sessions.wait, self.turn()).await {
            Ok(turn) => self.connection(turn).await,
            Err(_) => Err(Failed::Busy(self.sessions.wait)),
        };
        drop(waiting);
        if let Some(metrics) = &self.metrics {
            metrics.waited(self.sessions.pool, asked.elapsed(), taken.is_ok());
        }
        taken
    }

    /// Waits for a place in the lane, if this is one, and in the pool.
    async fn turn(&self) -> Turn {
        // None only comes from a closed semaphore, and these are never closed.
        let lane = match &self.lane {
            Some(lane) => lane.clone().acquire_owned().await.ok(),
            None => None,
        };
        Turn { _lane: lane, _place: self.places.clone().acquire_owned().await.ok() }
    }

    /// A connection from the pool, opened if need be. Opening is a task of its own: if its caller
    /// has gone before the connection is open, the next caller gets it. Otherwise every caller that
    /// goes would make the next one begin anew.
    async fn connection(&self, turn: Turn) -> Result<Taken, Failed> {
        let pool = self.pool.clone();
        let taking = tokio::spawn(async move {
            // A pooler lets a new connection wait for its first answer.
            let client = timeout(OPEN_TIMEOUT, pool.get()).await;
            client.map(|client| client.map(|client| Taken { client, turn }))
        });
        match taking.await {
            Ok(Ok(Ok(taken))) => Ok(taken),
            Ok(Ok(Err(error))) => Err(Failed::NoConnection(no_connection(error))),
            Ok(Err(_)) => Err(Failed::NoConnection(format!("no session within {OPEN_TIMEOUT:?}"))),
            Err(error) => Err(Failed::NoConnection(error.to_string())),
        }
    }

    /// How many connections are in use.
    pub fn usage(&self) -> Usage {
        let status = self.pool.status();
        Usage {
            pool: self.sessions.pool,
            in_use: status.size.saturating_sub(status.available),
            max: status.max_size,
        }
    }
}

/// Whether the schema is not as the statement takes it to be: a table, a column, a function or a right
/// is missing.
fn does_not_fit(failed: &Failed) -> bool {
    let Failed::Server(error) = failed else { return false };
    error.code().is_some_and(|code| code.code().starts_with("42"))
}

fn no_connection(error: PoolError) -> String {
    match error {
        PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)) => {
            describe(&error)
        }
        PoolError::PostCreateHook(HookError::Message(differences)) => {
            format!("its session is not what was asked for: {differences}")
        }
        error => error.to_string(),
    }
}

/// A connection, and the place that it takes until this is dropped.
struct Taken {
    client: Object,
    turn: Turn,
}

/// A place in a pool, and in a lane of it.
struct Turn {
    _lane: Option<OwnedSemaphorePermit>,
    _place: Option<OwnedSemaphorePermit>,
}

/// A connection in use; `None` once its further use is decided. If it is dropped with a connection,
/// the caller has gone.
struct Lease<'a> {
    client: Option<Object>,
    turn: Option<Turn>,
    database: &'a Database,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let Ok(runtime) = Handle::try_current() else { return abandon(client) };
        runtime.spawn(end(client, self.turn.take(), self.database.clone()));
    }
}

/// Ends the work of a connection. Its place in the pool, and in the lane, is taken until then:
/// otherwise more statements would run than there are places.
async fn end(client: Object, turn: Option<Turn>, database: Database) {
    let ended = {
        // Statements are answered in order: with this answer everything before is over.
        let mut over = pin!(client.simple_query(""));
        match timeout(GRACE, &mut over).await {
            Ok(ended) => ended.is_ok() && database.sessions.outlive_work,
            Err(_) => {
                if let Some(metrics) = &database.metrics {
                    metrics.database_cancelled.inc();
                }
                let cancel = async {
                    client.cancel_token().cancel_query(database.tls.clone()).await?;
                    over.await
                };
                match timeout(CANCEL_TIMEOUT, cancel).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => debug!(error = describe(&error), "cannot cancel a statement"),
                    Err(_) => debug!("cannot cancel a statement: the database does not answer"),
                }
                // The cancellation may arrive after the statement's own end, and would hit the
                // connection's next statement.
                false
            }
        }
    };
    if ended {
        drop(client);
    } else {
        abandon(client);
    }
    drop(turn);
}

/// The pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The pool's name in metrics.
    pub pool: &'static str,
    /// Connections in use.
    pub in_use: usize,
    /// Connections that there may be.
    pub max: usize,
}

/// Closes a connection instead of giving it back to the pool, which ends its transaction. For a
/// connection whose state is unknown.
pub fn abandon(client: Object) {
    drop(Object::take(client));
}

/// One line for an error of the server or the driver: the server's own words if there are any.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}
