//! The monitor: finds satellites that went silent, from stored state alone.
//!
//! A pod that never saw a satellite can find it, so no pod's death goes unnoticed. Every pod
//! sweeps; the sweep only proposes, and the append decides under the satellite's lock, where a
//! heartbeat that came in between is seen and a second pod's proposal changes nothing. So each
//! loss is declared once, however many pods sweep.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::database::{self, Database};
use crate::lifecycle::{Edge, Reason, SatelliteId, Session};
use crate::log::append::{Log, Outcome};
use crate::metrics::Metrics;

/// Losses one sweep declares; the next one goes on where it stopped.
const MAX_DUE: i64 = 5_000;

/// The task.
pub struct Monitor {
    /// Where it looks.
    pub database: Database,
    /// Where it declares.
    pub log: Log,
    /// How often it looks.
    pub interval: Duration,
    /// The default offline threshold.
    pub default_threshold: Duration,
    /// What it counts.
    pub metrics: Metrics,
}

/// A session that looks lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    satellite: SatelliteId,
    session: Session,
}

impl Monitor {
    /// Sweeps until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let swept = tokio::select! {
                swept = self.sweep() => swept,
                () = stop.cancelled() => return,
            };
            match swept {
                Ok(()) => failing = false,
                Err(error) => {
                    self.metrics.sweep_failures.inc();
                    if !failing {
                        warn!(error = %format!("{error:#}"), "cannot look for silent satellites");
                    }
                    failing = true;
                }
            }
        }
    }

    async fn sweep(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        let due = tokio::time::timeout(database::REPLY_TIMEOUT, self.find())
            .await
            .context("no answer from the database")??;
        self.metrics.sweep_seconds.observe(started.elapsed().as_secs_f64());
        self.declare(withhold(due)).await
    }

    async fn find(&self) -> anyhow::Result<Vec<Due>> {
        let client = self.database.get().await?;
        let default_ms = i64::try_from(self.default_threshold.as_millis())?;
        let find = async {
            let statement = client.prepare_cached(FIND).await?;
            client.query(&statement, &[&default_ms, &MAX_DUE]).await
        };
        let rows = find.await.map_err(|error| anyhow::anyhow!(database::describe(&error)))?;
        rows.iter()
            .map(|row| {
                Ok(Due {
                    satellite: SatelliteId(row.try_get("satellite_id")?),
                    session: Session(row.try_get("session")?),
                })
            })
            .collect()
    }

    async fn declare(&self, due: Vec<Due>) -> anyhow::Result<()> {
        if due.is_empty() {
            return Ok(());
        }
        let reason = Reason::HeartbeatTimeout;
        let edges = due
            .iter()
            .map(|due| (due.satellite, Edge::Lost { session: due.session, reason }))
            .collect();
        let outcomes = self.log.append_all(edges).await?;
        let declared =
            outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Appended { .. })).count();
        info!(due = due.len(), declared, "satellites went silent");
        Ok(())
    }
}

/// The place of the rules that keep a found loss from being declared: time in which nobody could
/// have heard the satellite, and a large part of the fleet expiring together. None applies yet.
fn withhold(due: Vec<Due>) -> Vec<Due> {
    due
}

/// Rows that an append is deciding right now are left to it.
const FIND: &str = "
    select c.satellite_id, c.session
      from satellite_connections c
      join satellites s on s.id = c.satellite_id
     where c.last_event = 'connected'
       and not heartbeat_is_fresh(c.last_heartbeat_at, s.offline_threshold_ms, $1, statement_timestamp())
     limit $2
       for no key update of c skip locked";
