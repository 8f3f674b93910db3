//! The two pools of a pod, and what the sessions of each are for.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use deadpool_postgres::{
    Hook, HookError, Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime,
};
use tokio::sync::Semaphore;

use super::address::Address;
use super::{CONNECT_TIMEOUT, Database, REPLY_TIMEOUT, Sessions};
use crate::platform::session::Settings;

/// How long a statement waits for a lock before it gives up and is tried again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(4);

/// How long one statement of the log's own work may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a transaction may wait for its pod: a stopped pod holds its locks no longer than this.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(4);

/// Connections of one pod for the log's own work: the appender, heartbeats, the monitor, the relay,
/// the probe, and what sessions and administrators need. Each holds one for a statement or two.
const WRITE_CONNECTIONS: usize = 8;

/// A read's limit here is longer by this than in the database, so that the database's error comes
/// first.
const READ_MARGIN: Duration = Duration::from_secs(1);

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

impl Address {
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
}
