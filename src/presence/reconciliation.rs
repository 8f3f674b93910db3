//! Compares what a pod vouches for with what is stored, in both directions.
//!
//! While a pod vouches for a session it does not write its row, so no answer tells what became of the row. So
//! the pod reads the rows of its sessions once a heartbeat interval, after a time in which it was silent to
//! others, and after a write without an answer. If a row is vouched for and the pod does not hold its session
//! (memory is not the truth), the pod stops vouching for it. If the row of a session differs from what the
//! pod assumes, or is no longer connected, the pod writes the session's last heartbeat, and the answer tells
//! what became of it (see [`super::flusher`]).

use std::collections::HashSet;
use std::time::{Duration, Instant};

use deadpool_postgres::Object;
use tracing::warn;
use uuid::Uuid;

use crate::domain::lifecycle::SessionKey;
use crate::log::watermark::{PodNumber, SILENT_AFTER};
use crate::platform::database::Database;
use crate::sessions::table::SessionTable;

/// When the next comparison is due.
pub(super) struct Reconciliation {
    pod: PodNumber,
    interval: Duration,
    due_at: Instant,
}

impl Reconciliation {
    pub(super) fn new(pod: PodNumber, interval: Duration) -> Reconciliation {
        Reconciliation { pod, interval, due_at: Instant::now() + interval }
    }

    /// A write may have gone through without an answer.
    pub(super) fn demand(&mut self) {
        self.due_at = Instant::now();
    }

    /// Whether a comparison is due, `since` after the last flush.
    pub(super) fn is_due(&self, since: Option<Duration>) -> bool {
        let was_silent = since.is_some_and(|since| since >= SILENT_AFTER);
        was_silent || Instant::now() >= self.due_at
    }

    /// Reads the rows and corrects what differs.
    pub(super) async fn run(
        &mut self,
        database: &Database,
        sessions: &SessionTable,
    ) -> anyhow::Result<()> {
        // Stays due until this has succeeded.
        self.demand();
        // Only the task that runs this changes what the rows of these sessions say, so no write is under way.
        let vouched = sessions.vouched();
        let read = async |client: &mut Object| {
            let statement = client.prepare_cached(ROWS).await?;
            client.query(&statement, &[&self.pod]).await
        };
        let rows = database.run(read).await?;
        let (mut confirmed, mut doubtful, mut orphans) =
            (HashSet::with_capacity(vouched.len()), Vec::new(), Vec::new());
        for row in rows {
            let key = SessionKey {
                satellite: row.try_get("satellite_id")?,
                session: row.try_get("session")?,
            };
            match (row.try_get("vouched")?, vouched.contains(&key)) {
                (true, true) => {
                    confirmed.insert(key);
                }
                (true, false) if sessions.holds(key) => doubtful.push(key),
                (true, false) => orphans.push(key),
                (false, _) => {}
            }
        }
        if !orphans.is_empty() {
            self.release_orphans(database, &orphans).await?;
        }
        doubtful.extend(vouched.difference(&confirmed));
        sessions.doubt(doubtful.into_iter());
        self.due_at = Instant::now() + self.interval;
        Ok(())
    }

    /// Stops vouching for sessions that this pod does not hold. They were heard within the window before now
    /// at the latest: they left less than an interval ago.
    async fn release_orphans(
        &self,
        database: &Database,
        orphans: &[SessionKey],
    ) -> anyhow::Result<()> {
        let ids: Vec<Uuid> = orphans.iter().map(|key| key.satellite.0).collect();
        let numbers: Vec<i64> = orphans.iter().map(|key| key.session.0).collect();
        let release_orphans =
            async |client: &mut Object| client.execute(LET_GO, &[&self.pod, &ids, &numbers]).await;
        let sessions = database.run(release_orphans).await?;
        if sessions > 0 {
            warn!(
                sessions,
                "sessions that this pod does not hold were vouched for, and no longer are"
            );
        }
        Ok(())
    }
}

const ROWS: &str = "
    select satellite_id, session, vouched from satellite_connections
     where pod = $1 and last_event = 'connected'";

/// Waits for no row: a locked row has an edge on its way, or is looked at again.
const LET_GO: &str = "
    with orphans as (
        select c.satellite_id
          from satellite_connections c join unnest($2::uuid[], $3::bigint[]) u (satellite_id, session)
               using (satellite_id, session)
         where c.pod = $1 and c.vouched
         order by c.satellite_id
           for no key update of c skip locked
    )
    update satellite_connections c
       set vouched = false,
           last_heartbeat_at = proven_heard_at(c.last_heartbeat_at, true, p.seen_at, p.vouch_window)
      from orphans, pods p
     where c.satellite_id = orphans.satellite_id and p.number = $1";
