//! Forwards until it is told to end. Whenever the consumer or the lease is in doubt, it begins anew.

use std::time::Duration;

use async_nats::jetstream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::consumer;
use super::dead_letters::DeadLetters;
use super::forwarder::Forwarder;
use super::lease::{Floor, Lease};
use super::recent::Recent;
use super::session::{End, Session};

/// The pause before it begins anew.
const PAUSE: Duration = Duration::from_secs(1);

/// How long NATS may take to answer a question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The receiver answered 410.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} answered 410 Gone: it wants no more webhooks. Nothing was lost, the next run of this forwarder goes on \
     with the same message"
)]
pub struct Gone {
    host: String,
}

impl Forwarder {
    /// Forwards until told to stop.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        self.numbers.pending_max.set(self.settings.wanted.max_pending.into());
        let mut recent = Recent::default();
        loop {
            let ended = self.once(&mut recent, &stop).await;
            self.numbers.active.set(0);
            match ended {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::Gone) => {
                    return Err(Gone { host: self.receiver.host().to_owned() }.into());
                }
                Ok(End::Doubt(why)) => warn!(why, "beginning anew"),
                Err(error) => {
                    let error = format!("{error:#}");
                    warn!(error, "beginning anew");
                }
            }
            self.numbers.restarts.inc();
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    async fn once(&self, recent: &mut Recent, stop: &CancellationToken) -> anyhow::Result<End> {
        let prepared = tokio::select! {
            prepared = self.prepare(recent) => prepared?,
            () = stop.cancelled() => return Ok(End::Stopped),
        };
        prepared.run(stop).await
    }

    /// Everything that a session needs, and the lease first of all.
    async fn prepare<'a>(&'a self, recent: &'a mut Recent) -> anyhow::Result<Session<'a>> {
        let (settings, wanted) = (&self.settings, &self.settings.wanted);
        let mut jetstream = jetstream::new(self.nats.clone());
        jetstream.set_timeout(ANSWER_TIMEOUT);
        let mut told = false;
        let stream = loop {
            match consumer::stream(&jetstream).await? {
                Some(stream) => break stream,
                None if !std::mem::replace(&mut told, true) => {
                    info!("waiting for a pod to make the stream {}", crate::stream::tail::NAME);
                }
                None => {}
            }
            tokio::time::sleep(PAUSE).await;
        };
        let name = &wanted.name;
        let waits = || info!(%name, "another forwarder of this name runs: waiting until it ends");
        let mut lease =
            Lease::acquire(&jetstream, name, settings.takeover(), settings.replicas, waits).await?;
        let found = wanted.ensure(&stream, lease.floor).await?;
        if let Some(begins) = found.floor {
            lease.floor = Some(Floor::raised(lease.floor, begins));
        }
        let most = settings.max_dead_letters;
        let dead_letters = DeadLetters::of(&jetstream, name, most, settings.replicas).await?;
        let messages = wanted.messages(&found.consumer).await?;
        let host = self.receiver.host();
        let position = lease.floor.map_or(0, |floor| floor.position);
        info!(%name, host, position, "forwarding");
        self.numbers.active.set(1);
        Ok(Session::new(self, recent, lease, found.consumer, messages, dead_letters))
    }
}
