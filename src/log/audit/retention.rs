//! Retention of the audit: old entries are deleted, some at a time, the oldest first.
//!
//! The database decides what may go (`drop_audit_entries`): nothing younger than a month or than the retention floor, and
//! nothing that is not sealed. The seals stay, so the chain is proven as before. Any number of pods may do this at once.

use std::time::Duration;

use deadpool_postgres::Object;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::platform::database::{Database, Failed};
use crate::platform::metrics::Metrics;

/// The shortest span that is kept, as the database has it.
pub const LEAST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// How often a pod looks. Entries live for months, so nothing waits for this.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);

/// Entries that go in one transaction.
const AT_ONCE: i64 = 1_000;

/// A clock that has stepped ahead makes nothing old.
const DROP: &str = "select drop_audit_entries(since_long_ago(make_interval(secs => $1)), $2)";

/// Up to which position retention has dropped the entries.
pub(crate) const HORIZON: &str = "select position from audit_horizon";

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
                looked = self.drop_old() => looked,
                () = stop.cancelled() => return,
            };
            if let Err(error) = looked {
                self.metrics.retention_failures.inc();
                warn!(%error, "cannot drop old entries of the audit");
            }
        }
    }

    async fn drop_old(&self) -> Result<(), Failed> {
        let seconds = self.older_than.as_secs_f64();
        loop {
            let drop = async |client: &mut Object| {
                client.query_one(DROP, &[&seconds, &AT_ONCE]).await?.try_get::<_, i64>(0)
            };
            let entries = self.database.run(drop).await?;
            if entries > 0 {
                self.metrics.audit_dropped.inc_by(entries.unsigned_abs());
                info!(entries, "dropped old entries of the audit");
            }
            if entries < AT_ONCE {
                return Ok(());
            }
        }
    }
}
