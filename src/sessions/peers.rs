//! How pods tell each other to look now.
//!
//! After a commit a pod publishes its newest position, and the satellites whose older session is over, on
//! core NATS. Nothing relies on that: the relay polls, and a socket whose session is over is found by its
//! next heartbeat. The announcement only makes both sooner. Its content is never trusted, only looked up.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::domain::lifecycle::{Event, Position, SatelliteId, Session, SessionKey};
use crate::log::request::Appended;
use crate::platform::database::Database;
use crate::sessions::table::{Command, SessionTable};

/// The subject between pods.
const SUBJECT: &str = "groundstation.pods.appended";

/// Satellites named in one message, so that it stays far below NATS' limit of 1 MiB.
const MAX_NAMED: usize = 1_000;

/// Announcements that wait; further ones are dropped.
pub const QUEUE: usize = 256;

/// A socket whose session began while the announcement of a newer one was under way is not yet in the table.
/// So each announcement is looked up once more after this time.
const SECOND_LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize, Deserialize)]
struct Announcement {
    position: i64,
    superseded: Vec<Uuid>,
}

/// The task that tells and listens.
pub struct Peers {
    /// The connection to the other pods.
    pub nats: async_nats::Client,
    /// Announcements of this pod's appender.
    pub announcements: mpsc::Receiver<Appended>,
    /// Wakes the relay; the value is only a hint.
    pub head: watch::Sender<Position>,
    /// The sessions of this pod.
    pub sessions: Arc<SessionTable>,
    /// Where announcements are looked up.
    pub database: Database,
}

impl Peers {
    /// Announces and listens until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut heard = match self.nats.subscribe(SUBJECT).await {
            Ok(subscription) => subscription.boxed(),
            Err(error) => {
                warn!(%error, "cannot listen to the other pods: sockets end a little later");
                futures_util::stream::pending().boxed()
            }
        };
        let (again, mut due_again) = mpsc::channel::<Vec<SatelliteId>>(QUEUE);
        loop {
            let superseded = tokio::select! {
                Some(appended) = self.announcements.recv() => {
                    self.tell(&appended).await;
                    appended.superseded
                }
                Some(message) = heard.next() => self.hear(&message.payload),
                Some(again) = due_again.recv() => {
                    self.look_up(&again).await;
                    continue;
                }
                () = stop.cancelled() => return,
                else => return,
            };
            if superseded.is_empty() {
                continue;
            }
            self.look_up(&superseded).await;
            let again = again.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SECOND_LOOK).await;
                if again.try_send(superseded).is_err() {
                    debug!("second look skipped");
                }
            });
        }
    }

    async fn tell(&self, appended: &Appended) {
        // While NATS is away the client would queue announcements, and they would be stale when sent.
        if self.nats.connection_state() != async_nats::connection::State::Connected {
            return;
        }
        let position = appended.position.0;
        let mut named: Vec<Vec<Uuid>> = appended
            .superseded
            .chunks(MAX_NAMED)
            .map(|ids| ids.iter().map(|id| id.0).collect())
            .collect();
        if named.is_empty() {
            named.push(Vec::new());
        }
        for superseded in named {
            let announcement = Announcement { position, superseded };
            match serde_json::to_vec(&announcement) {
                Ok(body) => {
                    if let Err(error) = self.nats.publish(SUBJECT, body.into()).await {
                        debug!(%error, "announcement not sent");
                    }
                }
                Err(error) => warn!(%error, "announcement cannot be written"),
            }
        }
    }

    fn hear(&self, body: &[u8]) -> Vec<SatelliteId> {
        let Ok(announcement) = serde_json::from_slice::<Announcement>(body) else {
            debug!("an invalid announcement was dropped");
            return Vec::new();
        };
        self.head.send_replace(Position(announcement.position));
        announcement.superseded.into_iter().take(MAX_NAMED).map(SatelliteId).collect()
    }

    /// Ends the local sockets whose session is over, according to the database.
    async fn look_up(&self, satellites: &[SatelliteId]) {
        let held = self.sessions.held(satellites.iter().copied());
        if held.is_empty() {
            return;
        }
        let current = match self.current(&held).await {
            Ok(current) => current,
            Err(error) => {
                debug!(error = %format!("{error:#}"), "cannot look up sessions: heartbeats find ended ones");
                return;
            }
        };
        let held: HashMap<SatelliteId, SessionKey> =
            held.into_iter().map(|key| (key.satellite, key)).collect();
        for (newest, removed) in current {
            match held.get(&newest.satellite) {
                Some(key) if removed => self.sessions.end(*key, Command::Removed),
                Some(key) if newest.session > key.session => {
                    self.sessions.end(*key, Command::Superseded);
                }
                _ => {}
            }
        }
    }

    /// The newest session of each, and whether the satellite was removed.
    async fn current(&self, held: &[SessionKey]) -> anyhow::Result<Vec<(SessionKey, bool)>> {
        let ids: Vec<Uuid> = held.iter().map(|key| key.satellite.0).collect();
        let look = async |client: &mut Object| {
            let statement = client.prepare_cached(CURRENT).await?;
            client.query(&statement, &[&ids]).await
        };
        let rows = self.database.run(look).await?;
        rows.iter()
            .map(|row| {
                let removed =
                    Event::from_str(row.try_get("last_event")?).ok() == Some(Event::Removed);
                let satellite: SatelliteId = row.try_get("satellite_id")?;
                let session: Session = row.try_get("session")?;
                Ok((SessionKey { satellite, session }, removed))
            })
            .collect()
    }
}

const CURRENT: &str = "
    select satellite_id, session, last_event from satellite_connections where satellite_id = any($1)";
