//! Whether a pod can work with a server, and with a pooler before it: at its start and while it runs.

use std::time::Duration;

use anyhow::{Context, bail};
use deadpool_postgres::{HookError, Object, PoolError};
use thiserror::Error;
use tokio::time::{MissedTickBehavior, timeout};
use tokio_postgres::error::SqlState;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::address::{Address, unreachable_server};
use super::{Database, Failed, OPEN_TIMEOUT, REPLY_TIMEOUT};
use crate::platform::engines;
use crate::platform::pooler::{self, Note};
use crate::platform::session::SERVICE_ROLE;
use crate::platform::unreachable::Unreachable;

/// How often it is looked whether connections have their sessions to themselves.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How long one look may take: the next one may find what a connection that got stuck does not.
const WATCH_LIMIT: Duration = Duration::from_secs(3);

impl Address {
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

impl Database {
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

/// Statements of a connection ran in another one's session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a pooler on the way lets connections share sessions of Postgres ({0}): {PAST_THE_POOLER}")]
pub struct SharedSession(String);

const PAST_THE_POOLER: &str = "let the pooler have pool_mode = session and server_reset_query = \
                               DISCARD ALL, or set DATABASE_URL to Postgres itself";
