//! Tells the sessions of this pod what administrators changed.
//!
//! Twice a second each pod asks the database which satellites have changed since it last asked, and reads
//! again those it holds. That alone keeps the promise. Announcements on core NATS, and from this pod's own
//! API, only make it read at once. Their content is never trusted.
//!
//! A set of assignments can be for all satellites of the pod. So after a change of any set they are looked through in
//! portions, and between two of them whatever else has changed is followed: a token that is void does not wait for a
//! fleet to be told its lists.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::domain::lifecycle::SatelliteId;
use crate::platform::database::{Database, Failed};
use crate::registry::assignment_sets::ALL_SETS;
use crate::registry::{desired, in_force, rotation};
use crate::sessions::table::SessionTable;

/// The subject between pods.
pub(crate) const SUBJECT: &str = "groundstation.pods.changed";

/// How often the database is asked: half of the promised second.
const INTERVAL: Duration = Duration::from_millis(500);

/// Changes read in one statement, and satellites read in one: assignment lists can be long.
const MAX_CHANGES: i64 = 10_000;
const MAX_LOOK: usize = 50;

/// Satellites that are looked through in one portion after a change of a set.
const PORTION: usize = 500;

/// A version that no list has.
const NO_VERSION: i64 = -1;

/// Announces that something was changed.
#[derive(Clone, Default)]
pub struct Changed(Arc<Notify>);

impl Changed {
    /// Makes this pod and the others read at once.
    pub fn tell(&self) {
        self.0.notify_one();
    }
}

/// The task that follows changes.
pub struct Changes {
    database: Database,
    nats: async_nats::Client,
    sessions: Arc<SessionTable>,
    changed: Changed,
    /// Everything up to this change has been read, but for what is in `outdated`.
    last: i64,
    /// Satellites of this pod whose lists a set may have changed, with the versions that they know.
    outdated: Vec<(SatelliteId, i64)>,
}

impl Changes {
    /// Begins at the newest change. It must begin before the first session enters: the session reads its own
    /// state, and this task finds what changes after that.
    pub async fn begin(
        database: Database,
        nats: async_nats::Client,
        sessions: Arc<SessionTable>,
        changed: Changed,
    ) -> anyhow::Result<Changes> {
        let last = database.run(async |client| desired::newest_change(client).await).await?;
        Ok(Changes { database, nats, sessions, changed, last, outdated: Vec::new() })
    }

    /// Follows the changes until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut heard = match self.nats.subscribe(SUBJECT).await {
            Ok(subscription) => subscription.boxed(),
            Err(error) => {
                warn!(%error, "cannot listen to the other pods: changes are found a little later");
                futures_util::stream::pending().boxed()
            }
        };
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut failing, mut failing_to_end) = (false, false);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.changed.0.notified() => self.announce().await,
                Some(_) = heard.next() => {}
                () = std::future::ready(()), if !self.outdated.is_empty() && !failing => {}
                () = stop.cancelled() => return,
            }
            self.end_previous_tokens(&mut failing_to_end).await;
            let looked = match self.look().await {
                Ok(()) => self.look_through().await,
                failed => failed,
            };
            match looked {
                Ok(()) if std::mem::take(&mut failing) => info!("changes are followed again"),
                Ok(()) => {}
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    warn!(%error, "cannot ask for changes, trying again");
                }
                Err(_) => {}
            }
        }
    }

    async fn announce(&self) {
        // While NATS is away the client would queue announcements, and they would be stale when sent.
        if self.nats.connection_state() != async_nats::connection::State::Connected {
            return;
        }
        if let Err(error) = self.nats.publish(SUBJECT, "".into()).await {
            debug!(%error, "announcement not sent");
        }
    }

    /// If this fails, the changes are followed all the same, and any other pod may do it.
    async fn end_previous_tokens(&self, failing: &mut bool) {
        match self.database.run(async |client| rotation::end_previous(client).await).await {
            Ok(ended) => {
                *failing = false;
                if ended > 0 {
                    info!(ended, "the time of previous tokens is over");
                    self.announce().await;
                }
            }
            Err(error) if !std::mem::replace(failing, true) => {
                warn!(%error, "cannot end previous tokens, trying again");
            }
            Err(_) => {}
        }
    }

    async fn look(&mut self) -> Result<(), Failed> {
        let Changes { sessions, last, outdated, .. } = self;
        let look = async |client: &mut Object| {
            loop {
                let changes = desired::changed_after(client, *last, MAX_CHANGES).await?;
                let held = sessions.held(changes.iter().map(|(satellite, _)| *satellite));
                let held: Vec<SatelliteId> = held.into_iter().map(|key| key.satellite).collect();
                tell(client, sessions, &held).await?;
                if changes.iter().any(|(satellite, _)| *satellite == ALL_SETS) {
                    let all = sessions.assigned().into_iter();
                    *outdated =
                        all.map(|(id, version)| (id, version.unwrap_or(NO_VERSION))).collect();
                }
                // Only after success, so that a failed read is repeated.
                *last = changes.last().map_or(*last, |(_, change)| *change);
                if (changes.len() as i64) < MAX_CHANGES {
                    return Ok::<_, tokio_postgres::Error>(());
                }
            }
        };
        self.database.run(look).await
    }

    /// Looks through a portion of the satellites whose lists a set may have changed.
    async fn look_through(&mut self) -> Result<(), Failed> {
        let rest = self.outdated.len().saturating_sub(PORTION);
        let Some(portion) = self.outdated.get(rest..).filter(|portion| !portion.is_empty()) else {
            return Ok(());
        };
        let sessions = &self.sessions;
        let look = async |client: &mut Object| {
            let outdated = in_force::outdated(client, portion).await?;
            tell(client, sessions, &outdated).await
        };
        self.database.run(look).await?;
        // Only after success, so that a failed read is repeated.
        self.outdated.truncate(rest);
        Ok(())
    }
}

/// Tells the sessions of these satellites their desired states.
async fn tell(
    client: &Object,
    sessions: &SessionTable,
    satellites: &[SatelliteId],
) -> Result<(), tokio_postgres::Error> {
    for some in satellites.chunks(MAX_LOOK) {
        for (satellite, desired_state) in desired::read(client, some).await? {
            sessions.tell(satellite, desired_state);
        }
    }
    Ok(())
}
