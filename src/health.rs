//! What a pod knows of its own state, for `/readyz`, and the probe that finds it out.
//!
//! A pod is ready while the database can be written and it is not draining. NATS does not count:
//! without it edges go on being appended and wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::database::{self, Database};
use crate::log::partitions;
use crate::metrics::Metrics;

/// How often the database is proved writable.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long a probe may take before the database counts as not writable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Shared by everything that knows part of it.
#[derive(Default)]
pub struct Health {
    database: AtomicBool,
    appends_fail: AtomicBool,
    nats: AtomicBool,
    draining: AtomicBool,
    relay: Mutex<RelayState>,
}

/// What the relay of this pod is doing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum RelayState {
    /// Another pod relays, or nobody does yet.
    #[default]
    Standby,
    /// This pod relays.
    Leading,
    /// This pod should relay and cannot, because NATS does not answer as it should.
    Waiting {
        /// What is in the way.
        reason: String,
    },
    /// Stream and log contradict each other; a person has to decide.
    Halted {
        /// How.
        reason: String,
    },
}

/// The body of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether the pod takes satellites.
    pub ready: bool,
    /// Whether the database can be written.
    pub database: &'static str,
    /// Whether NATS is there; the pod is ready without it.
    pub nats: &'static str,
    /// Whether the pod is shutting down.
    pub draining: bool,
    /// What the relay of this pod is doing.
    pub relay: RelayState,
}

impl Health {
    /// The pod begins to shut down.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the pod is shutting down.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// The relay tells what it is doing; returns whether that is news.
    pub fn relay(&self, state: RelayState) -> bool {
        let mut relay = self.relay.lock().unwrap_or_else(PoisonError::into_inner);
        let news = *relay != state;
        *relay = state;
        news
    }

    /// The probe tells whether the database could be written; returns whether that is news.
    pub fn database(&self, writable: bool) -> bool {
        self.database.swap(writable, Ordering::Relaxed) != writable
    }

    /// The appender tells whether the log takes no edges: a database can take the probe's row and
    /// have no room for one more transition. Returns whether that is news.
    pub fn appends_fail(&self, fail: bool) -> bool {
        self.appends_fail.swap(fail, Ordering::Relaxed) != fail
    }

    fn is_writable(&self) -> bool {
        self.database.load(Ordering::Relaxed) && !self.appends_fail.load(Ordering::Relaxed)
    }

    fn nats(&self, up: bool) {
        self.nats.store(up, Ordering::Relaxed);
    }

    /// Everything at once.
    pub fn report(&self) -> Report {
        let word = |up: bool| if up { "up" } else { "down" };
        let (writable, draining) = (self.is_writable(), self.is_draining());
        Report {
            ready: writable && !draining,
            database: word(writable),
            nats: word(self.nats.load(Ordering::Relaxed)),
            draining,
            relay: self.relay.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

/// The task that proves the database writable by keeping this pod's row in `pods`, and makes room
/// in the log ahead of time.
pub struct Probe {
    /// What it tells.
    pub health: std::sync::Arc<Health>,
    /// This pod's name.
    pub pod: String,
    /// What it probes.
    pub database: Database,
    /// Positions in a partition it makes.
    pub partition_width: i64,
    /// Whose state it copies.
    pub nats: async_nats::Client,
    /// What it counts.
    pub metrics: Metrics,
}

impl Probe {
    /// Probes until told to stop, then takes the pod's row away.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.probe().await,
                () = stop.cancelled() => break,
            }
        }
        if let Err(error) = self.within_time(self.sign_off()).await {
            tracing::debug!(%error, "the pod's row stays behind");
        }
    }

    async fn probe(&self) {
        let connected = self.nats.connection_state() == async_nats::connection::State::Connected;
        self.health.nats(connected);
        self.metrics.nats_up.set(connected.into());

        let written = self.within_time(self.write()).await;
        self.metrics.database_up.set(written.is_ok().into());
        let (in_use, _) = self.database.usage();
        self.metrics.database_connections.set(i64::try_from(in_use).unwrap_or(i64::MAX));
        let news = self.health.database(written.is_ok());
        match written {
            Ok(()) if news => info!("the database can be written"),
            Err(error) if news => error!(%error, "the database cannot be written: not ready"),
            _ => {}
        }
    }

    async fn within_time(
        &self,
        work: impl Future<Output = anyhow::Result<()>>,
    ) -> Result<(), String> {
        match tokio::time::timeout(PROBE_TIMEOUT, work).await {
            Ok(done) => done.map_err(|error| format!("{error:#}")),
            Err(_) => Err(format!("no answer within {PROBE_TIMEOUT:?}")),
        }
    }

    async fn write(&self) -> anyhow::Result<()> {
        let client = self.database.get().await?;
        let write = async {
            client.execute(SIGN_ON, &[&self.pod]).await?;
            partitions::make_room(&client, self.partition_width).await
        };
        let made = write.await.map_err(|error| anyhow::anyhow!(database::describe(&error)))?;
        if made > 0 {
            info!(partitions = made, "made room in the log");
        }
        Ok(())
    }

    async fn sign_off(&self) -> anyhow::Result<()> {
        let client = self.database.get().await?;
        client.execute(SIGN_OFF, &[&self.pod]).await?;
        Ok(())
    }
}

const SIGN_ON: &str = "
    with forgotten as (
        delete from pods where seen_at < clock_timestamp() - interval '1 day' and name <> $1
    )
    insert into pods (name, started_at, seen_at) values ($1, clock_timestamp(), clock_timestamp())
    on conflict (name) do update set seen_at = excluded.seen_at";

const SIGN_OFF: &str = "delete from pods where name = $1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_ready_while_the_database_can_be_written_and_it_is_not_draining() {
        let health = Health::default();
        assert!(!health.report().ready);
        assert!(health.database(true));
        assert!(!health.database(true));
        assert!(health.report().ready, "NATS does not count");
        assert!(health.appends_fail(true));
        assert_eq!((health.report().ready, health.report().database), (false, "down"));
        assert!(health.appends_fail(false));
        assert!(health.report().ready);
        health.drain();
        assert!(!health.report().ready);
    }

    #[test]
    fn the_reason_of_a_halt_is_told() {
        let health = Health::default();
        let reason = "stream is ahead".to_owned();
        assert!(health.relay(RelayState::Halted { reason: reason.clone() }));
        assert!(!health.relay(RelayState::Halted { reason }));
        let json = serde_json::to_value(health.report()).expect("json");
        assert_eq!(json["relay"]["state"], "halted");
        assert_eq!(json["relay"]["reason"], "stream is ahead");
    }
}
