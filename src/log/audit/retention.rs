//! Retention of the audit: old entries are deleted, a few at a time, the oldest first.
//!
//! The database decides what may go: nothing younger than a month or than its own floor, and nothing that is not sealed. The
//! seals stay, so the chain can be checked as before.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::platform::database::{Database, Failed};
use crate::platform::metrics::Metrics;

/// The shortest span that is kept, as in the database.
pub const LEAST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often a pod looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);

/// Entries that go at once. Changes by administrators wait meanwhile.
const AT_ONCE: i64 = 1_000;

const DROP: &str = "select drop_audit_entries(make_interval(secs => $1), $2)";

/// The task of a pod that keeps the audit within a span.
pub struct AuditKeeper {
    /// The database that holds the audit.
    pub database: Database,
    /// Entries that are older than this go.
    pub older_than: Duration,
    /// What it counts.
    pub metrics: Metrics,
}

impl AuditKeeper {
    /// Looks every [`LOOK_INTERVAL`] until told to stop. It is safe to stop anywhere in between.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            let looked = tokio::select! {
                looked = drop_old(&self.database, self.older_than) => looked,
                () = stop.cancelled() => return,
            };
            match looked {
                Ok(0) => {}
                Ok(entries) => info!(entries, "dropped old entries of the audit"),
                Err(error) => {
                    self.metrics.retention_failures.inc();
                    warn!(%error, "cannot drop old entries of the audit");
                }
            }
        }
    }
}

/// Deletes what is older. Returns how many entries that were.
pub async fn drop_old(database: &Database, older_than: Duration) -> Result<i64, Failed> {
    let seconds = older_than.as_secs_f64();
    let mut all = 0;
    loop {
        let gone = async |client: &mut Object| {
            client.query_one(DROP, &[&seconds, &AT_ONCE]).await?.try_get::<_, i64>(0)
        };
        let gone = database.run(gone).await?;
        all += gone;
        if gone < AT_ONCE {
            return Ok(all);
        }
    }
}
