//! Connections to Postgres: addresses, TLS, time-outs, the pools.
//!
//! A pod has two pools. Reads from outside (HTTP, NATS, live streams) have their own. However many
//! they are and however long they take, the log's own work finds a connection. Every pooled session
//! runs as the role `groundstation_service`, which cannot change the log. It also has server-side
//! time-outs ([`Settings`]), so that a pod that stops in the middle of a transaction holds its locks
//! no longer than those. A pooler on the way must leave each connection its session ([`pooler`]).
//! Work on a connection goes through [`Database::run`]: a connection without an answer,
//! or whose caller did not wait for the answer, never goes to the next caller. This module knows no
//! table.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Object, Pool, PoolError, QueueMode, RecyclingMethod,
    Runtime,
};
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::platform::client_tls::{Roots, is_this_machine};
use crate::platform::engines;
use crate::platform::metrics::Metrics;
use crate::platform::pooler::{self, Note};
use crate::platform::session::{SERVICE_ROLE, Settings};
use crate::platform::unreachable::Unreachable;

/// How long a connection may take to open, and how long the log's own work waits for one from the
/// pool.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take to open and to be set up.
const OPEN_TIMEOUT: Duration = Duration::from_secs(8);

/// How often it is looked whether connections have their sessions to themselves.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long one look may take: the next one may find what a connection that got stuck does not.
const WATCH_LIMIT: Duration = Duration::from_secs(3);

/// How long a statement waits for a lock before it gives up and is tried again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(4);

/// How long one statement of the log's own work may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a transaction may wait for its pod: a stopped pod holds its locks no longer than this.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a client waits for any answer before it gives the connection up. This is longer than
/// every server-side time-out, so that it only matters when the network is silent.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections of one pod for the log's own work: the appender, heartbeats, the monitor, the relay,
/// the probe, and what sessions and administrators need. Each holds one for a statement or two.
const WRITE_CONNECTIONS: usize = 8;

/// How long an abandoned statement may go on. Most end sooner than the database would receive the
/// cancellation.
const GRACE: Duration = Duration::from_millis(100);

/// A read's limit here is longer by this than in the database, so that the database's error comes
/// first.
const READ_MARGIN: Duration = Duration::from_secs(1);

/// How long the database may take to cancel a statement.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// The bounds of reads from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reads {
    /// How many reads have a connection at once.
    pub connections: usize,
    /// How long one read may take.
    pub timeout: Duration,
    /// How long one read waits for a connection.
    pub wait: Duration,
}

impl Reads {
    /// How many reads of many rows have a connection at once. The other connections are for short
    /// reads.
    pub fn of_many_rows(&self) -> usize {
        self.connections.div_ceil(2)
    }
}

/// A parsed and checked database address. Holds the password: it has no `Debug`.
#[derive(Clone)]
pub struct Address {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
}

impl Address {
    /// Parses `postgres://…` (or `key=value` words). Supports `sslmode=verify-full`,
    /// `sslmode=verify-ca` and `sslrootcert=FILE` of a URL, which tokio-postgres does not: with
    /// TLS, a server's certificate is always verified here.
    pub fn parse(variable: &str, text: &str) -> anyhow::Result<Address> {
        let (text, root_certificate) = map_ssl_words(text);
        let mut config: tokio_postgres::Config = text
            .parse()
            .map_err(|error| anyhow::anyhow!("{variable} is not a Postgres address: {error}"))?;
        if config.get_hosts().is_empty() {
            bail!("{variable} names no host, for example postgres://user@localhost/groundstation");
        }
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(REPLY_TIMEOUT)
            .keepalives_idle(Duration::from_secs(15));
        Ok(Address {
            config,
            tls: tls(root_certificate.as_deref()).with_context(|| variable.to_owned())?,
        })
    }

    /// Host and database, for messages; never the user or the password.
    pub fn display(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().unwrap_or_default();
        format!("{host}:{port}/{database}")
    }

    /// A host that could be reached without TLS, if the server or an attacker on the way wants it
    /// so.
    pub fn in_plain_text(&self) -> Option<&str> {
        let is_far = |host: &&Host| matches!(host, Host::Tcp(name) if !is_this_machine(name));
        match (self.config.get_ssl_mode(), self.config.get_hosts().iter().find(is_far)?) {
            (SslMode::Require, _) => None,
            (_, Host::Tcp(name)) => Some(name),
            #[cfg(unix)]
            (_, Host::Unix(_)) => None,
        }
    }

    /// A blocking connection as the role of the address: for migrations and other one-shot commands
    /// that run before any runtime.
    pub fn connect_blocking(&self) -> anyhow::Result<postgres::Client> {
        let mut config = postgres::Config::from(self.config.clone());
        config.application_name("groundstation migrate");
        config.connect(self.tls.clone()).map_err(|error| unreachable_server(self, &error))
    }

    /// The same, but only for sessions that may write. A session begun while the server was
    /// read-only can stay read-only for ever, and of several hosts only one takes writes.
    pub fn for_writing(mut self) -> Address {
        self.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        self
    }

    /// The pool of the log's own work. Opens no connection yet.
    pub fn pool(&self, pod: &str) -> anyhow::Result<Database> {
        self.pool_of(Sessions {
            pool: "writes",
            name: format!("groundstation {pod}"),
            connections: WRITE_CONNECTIONS,
            settings: Settings::new(
                LOCK_TIMEOUT,
                STATEMENT_TIMEOUT,
                IDLE_IN_TRANSACTION_TIMEOUT,
                &[],
            ),
            wait: CONNECT_TIMEOUT,
            limit: REPLY_TIMEOUT,
            outlive_work: false,
        })
    }

    /// The pool of reads from outside, separate from that of the log's own work. Opens no
    /// connection yet.
    pub fn reads(&self, pod: &str, reads: &Reads) -> anyhow::Result<Database> {
        self.pool_of(Sessions {
            pool: "reads",
            name: format!("groundstation {pod} reads"),
            connections: reads.connections,
            settings: Settings::new(
                // Nobody tries a read again, so it waits for a lock as long as it may take.
                reads.timeout,
                reads.timeout,
                IDLE_IN_TRANSACTION_TIMEOUT,
                // One statement is one process: otherwise the number of connections would bound
                // nothing.
                &["max_parallel_workers_per_gather = 0"],
            ),
            wait: reads.wait,
            limit: reads.timeout + READ_MARGIN,
            outlive_work: true,
        })
    }

    fn pool_of(&self, sessions: Sessions) -> anyhow::Result<Database> {
        let mut config = self.config.clone();
        config.application_name(&sessions.name);
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, self.tls.clone(), recycling);
        let sessions = Arc::new(sessions);
        let asked = sessions.clone();
        let pool = Pool::builder(manager)
            .max_size(sessions.connections)
            // The most recently used connection has its statements and the server's caches warm.
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(sessions.wait))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .post_create(Hook::async_fn(move |client, _| {
                let asked = asked.clone();
                Box::pin(async move {
                    let differences = asked.settings.set(client).await;
                    match differences.map_err(HookError::Backend)? {
                        differences if differences.is_empty() => Ok(()),
                        differences => Err(HookError::message(differences.join(", "))),
                    }
                })
            }))
            .runtime(Runtime::Tokio1)
            .build()
            .context("cannot build the connection pool")?;
        let tls = self.tls.clone();
        let places = Arc::new(Semaphore::new(sessions.connections));
        Ok(Database {
            pool,
            sessions,
            tls,
            places,
            lane: None,
            metrics: None,
            misfits: Arc::default(),
        })
    }

    /// Refuses a pooler that lets connections share sessions, for programs that need no pool. Call it
    /// where a runtime of its own can be made.
    pub fn check_pooler_blocking(&self) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let connect = async || {
                let connecting = timeout(REPLY_TIMEOUT, self.config.connect(self.tls.clone()));
                let connected = connecting.await.map_err(|_| self.no_connection_is_left())?;
                let (client, connection) =
                    connected.map_err(|error| unreachable_server(self, &error))?;
                tokio::spawn(connection);
                anyhow::Ok(Box::new(client))
            };
            let (first, second) = (connect().await?, connect().await?);
            self.check_sessions(pooler::sessions_are_own(first, &second)).await
        })
    }

    /// Whether the sessions of two connections are their own.
    async fn check_sessions(
        &self,
        are_own: impl Future<Output = Result<bool, tokio_postgres::Error>>,
    ) -> anyhow::Result<()> {
        match timeout(REPLY_TIMEOUT, are_own).await {
            Ok(Ok(true)) => Ok(()),
            Ok(Ok(false)) => bail!(
                "a pooler on the way to {} lets connections share sessions of Postgres: {PAST_THE_POOLER}",
                self.display()
            ),
            Ok(Err(error)) => Err(unreachable_server(self, &error)),
            Err(_) => Err(self.no_connection_is_left()),
        }
    }

    /// A pooler makes a connection wait until one of its own to Postgres is free.
    fn no_connection_is_left(&self) -> anyhow::Error {
        Unreachable(format!(
            "{} does not serve two connections at once: if a pooler is on the way, its pool is too small",
            self.display()
        ))
        .into()
    }
}

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

    /// Checks that the binary can work with this server, and with a pooler before it. Each problem is
    /// one clear line.
    pub async fn check(&self, address: &Address) -> anyhow::Result<()> {
        let first = self.open(address).await?;
        let ask = async |question| {
            first.simple_query(question).await.context("cannot ask Postgres for its version")
        };
        engines::check_version(&ask(engines::VERSION).await?)?;
        engines::check_number(&ask(engines::SERVER).await?)?;
        let second = self.open(address).await.map_err(|error| match error.is::<Unreachable>() {
            true => address.no_connection_is_left(),
            false => error,
        })?;
        let are_own = pooler::sessions_are_own(Object::take(first), &second);
        address.check_sessions(are_own).await
    }

    /// Checks that a session of this pool is what it should be, and leaves it open.
    pub async fn check_session(&self, address: &Address) -> anyhow::Result<()> {
        self.open(address).await.map(drop)
    }

    /// A session, outside of the order of callers: for the time before there are any.
    async fn open(&self, address: &Address) -> anyhow::Result<Object> {
        let unreachable = |why: String| {
            Unreachable(format!("cannot connect to Postgres at {}: {why}", address.display()))
        };
        let Ok(opened) = timeout(OPEN_TIMEOUT, self.pool.get()).await else {
            return Err(unreachable(format!("no session within {OPEN_TIMEOUT:?}")).into());
        };
        let error = match opened {
            Ok(client) => return Ok(client),
            Err(
                PoolError::Backend(error) | PoolError::PostCreateHook(HookError::Backend(error)),
            ) => error,
            Err(PoolError::PostCreateHook(HookError::Message(differences))) => bail!(
                "sessions at {} are not what was asked for ({differences}): a pooler on the way \
                 does not keep what is set; {PAST_THE_POOLER}",
                address.display()
            ),
            Err(error) => return Err(unreachable(error.to_string()).into()),
        };
        let is_about_the_role =
            error.as_db_error().is_some_and(|db| db.message().contains(SERVICE_ROLE));
        match error.code() {
            Some(&SqlState::INSUFFICIENT_PRIVILEGE) if is_about_the_role => bail!(
                "the login may not become {SERVICE_ROLE} at {}: grant it that role \
                 (`grant {SERVICE_ROLE} to …`)",
                address.display()
            ),
            _ if is_about_the_role => bail!(
                "the database at {} has no schema yet: run `groundstation migrate`",
                address.display()
            ),
            _ => Err(unreachable_server(address, &error)),
        }
    }

    /// Looks once a second whether connections still have their sessions to themselves. Returns what
    /// is wrong as soon as something is, or nothing when told to stop. A pooler can be changed while
    /// pods run; PgBouncer then mixes the sessions of connections that are open.
    pub async fn watch(self, reads: Database, stop: CancellationToken) -> Option<SharedSession> {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return None,
            }
            match self.compare_sessions(&reads).await {
                Ok(None) => {}
                Ok(shared) => return shared,
                // The probe reports it when the database is away.
                Err(error) => debug!(%error, "cannot look at the sessions"),
            }
        }
    }

    /// A session of this pool must have what its connection set, and one of the other pool must not.
    async fn compare_sessions(&self, reads: &Database) -> Result<Option<SharedSession>, Failed> {
        let settings = &self.sessions.settings;
        let own = self.run_within(WATCH_LIMIT, async |client: &mut Object| {
            let note = Note::leave(client).await?;
            let differences = settings.differences(client).await?;
            let is_there = note.is_in(client).await?;
            Ok::<_, tokio_postgres::Error>((note, differences, is_there))
        });
        let (note, differences, is_there) = own.await?;
        if !differences.is_empty() {
            return Ok(Some(SharedSession(differences.join(", "))));
        }
        if !is_there {
            return Ok(Some(SharedSession("what a connection has set is not there".to_owned())));
        }
        // It keeps no reader waiting, and none keeps it waiting.
        let usage = reads.usage();
        let look = async |client: &mut Object| note.is_in(client).await;
        if usage.in_use < usage.max && reads.run_within(WATCH_LIMIT, look).await? {
            return Ok(Some(SharedSession("one connection has what another has set".to_owned())));
        }
        Ok(None)
    }
}

/// Whether the schema is not as the statement takes it to be: a table, a column, a function or a right
/// is missing.
fn does_not_fit(failed: &Failed) -> bool {
    let Failed::Server(error) = failed else { return false };
    error.code().is_some_and(|code| code.code().starts_with("42"))
}

/// Statements of a connection ran in another one's session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a pooler on the way lets connections share sessions of Postgres ({0}): {PAST_THE_POOLER}")]
pub struct SharedSession(String);

const PAST_THE_POOLER: &str = "let the pooler have pool_mode = session and server_reset_query = \
                               DISCARD ALL, or set DATABASE_URL to Postgres itself";

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

fn unreachable_server(address: &Address, error: &tokio_postgres::Error) -> anyhow::Error {
    let text = format!("cannot connect to Postgres at {}: {}", address.display(), describe(error));
    match error.as_db_error() {
        // It was reached, and let nobody in.
        Some(_) => anyhow::anyhow!(text),
        None => Unreachable(text).into(),
    }
}

/// Takes words that tokio-postgres refuses out of a URL's query.
fn map_ssl_words(text: &str) -> (String, Option<String>) {
    let Some((base, query)) = text.split_once('?') else {
        return (text.to_owned(), None);
    };
    let (mut kept, mut root_certificate) = (Vec::new(), None);
    for word in query.split('&') {
        match word.split_once('=') {
            Some(("sslrootcert", path)) => root_certificate = Some(path.replace("%2F", "/")),
            Some(("sslmode", "verify-full" | "verify-ca")) => kept.push("sslmode=require"),
            _ => kept.push(word),
        }
    }
    (format!("{base}?{}", kept.join("&")), root_certificate)
}

fn tls(root_certificate: Option<&str>) -> anyhow::Result<MakeRustlsConnect> {
    let roots = Roots::of("sslrootcert", root_certificate.map(Path::new))?;
    Ok(MakeRustlsConnect::new(roots.client()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_host_that_need_not_speak_tls_is_spoken_to_in_plain_text() {
        let cases = [
            ("postgres://u@127.0.0.1/d", None),
            ("postgres://u@localhost/d", None),
            ("postgres:///d?host=/run/postgresql", None),
            ("postgres://u@db.example/d", Some("db.example")),
            ("postgres://u@db.example/d?sslmode=prefer", Some("db.example")),
            ("postgres://u@db.example/d?sslmode=require", None),
            ("postgres://u@db.example/d?sslmode=verify-full", None),
        ];
        for (url, host) in cases {
            assert_eq!(
                Address::parse("DATABASE_URL", url).expect(url).in_plain_text(),
                host,
                "{url}"
            );
        }
    }

    #[test]
    fn the_ssl_words_of_libpq_are_understood() {
        let cases = [
            ("postgres://h/d", "postgres://h/d", None),
            ("postgres://h/d?sslmode=disable", "postgres://h/d?sslmode=disable", None),
            (
                "postgres://h/d?sslmode=verify-full&sslrootcert=%2Fca.pem&connect_timeout=3",
                "postgres://h/d?sslmode=require&connect_timeout=3",
                Some("/ca.pem"),
            ),
        ];
        for (text, mapped, root) in cases {
            assert_eq!(map_ssl_words(text), (mapped.to_owned(), root.map(str::to_owned)));
        }
    }

    #[test]
    fn an_address_is_shown_without_user_and_password() {
        let address = Address::parse("DATABASE_URL", "postgres://me:secret@db.example:5433/fleet")
            .expect("an address");
        assert_eq!(address.display(), "db.example:5433/fleet");
    }

    #[test]
    fn a_bad_address_names_the_variable_and_not_the_password() {
        for text in ["postgres://me:secret@host:notaport/x", "nonsense", "postgres:///x"] {
            let Err(error) = Address::parse("DATABASE_URL", text) else {
                panic!("{text} was taken");
            };
            let error = format!("{error:#}");
            assert!(error.contains("DATABASE_URL"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
