//! A pod that runs: what it waits for, and how it ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::config::Drain;
use crate::log::continuity::WentBack;
use crate::platform::health::Health;

/// What is left of the drain's deadline for the last edges, and before that for the other parts.
const APPEND_RESERVE: Duration = Duration::from_secs(2);

/// What the parts of a pod are told of its end, in this order.
#[derive(Default)]
pub struct Signals {
    /// Sockets say goodbye.
    pub drain: CancellationToken,
    /// No more requests are taken.
    pub stop_http: CancellationToken,
    /// Everything else ends.
    pub stop: CancellationToken,
}

/// The tasks of a pod.
pub struct Running {
    /// What is told of its end.
    pub signals: Signals,
    /// What it says of itself.
    pub health: Arc<Health>,
    /// The satellites' sockets.
    pub sockets: TaskTracker,
    /// Its doors.
    pub requests: JoinSet<()>,
    /// What runs as long as the pod does.
    pub parts: JoinSet<()>,
    /// What brings edges into the log: it ends when nobody has an edge for it any more.
    pub appender: JoinHandle<()>,
    /// What looks whether the database went back.
    pub past: JoinHandle<Option<WentBack>>,
}

impl Running {
    /// Waits until the pod is told to end; an error where a part of it ends by itself.
    pub async fn until(&mut self, shutdown: impl Future<Output = ()>) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown => Ok(()),
            Ok(Some(went_back)) = &mut self.past => {
                error!(%went_back, "this pod knows what is no longer there, and ends to begin anew");
                Err(went_back.into())
            }
            ended = &mut self.appender => {
                error!(?ended, "the appender ended by itself");
                bail!("the appender ended by itself: {ended:?}");
            }
            ended = self.parts.join_next() => {
                error!(?ended, "a part of the pod ended by itself");
                bail!("a part of the pod ended by itself: {ended:?}");
            }
        }
    }

    /// Ends it, from the outside in: whoever still needs something finds it running.
    pub async fn drain(mut self, drain: Drain) -> anyhow::Result<()> {
        info!("draining");
        let by = Instant::now() + drain.deadline;
        // Unready and closed to whoever comes, with the sockets it has until nobody is sent here any more.
        self.health.drain();
        tokio::time::sleep(drain.delay).await;
        self.close_sockets(by - APPEND_RESERVE * 2).await;
        self.end_requests(by - APPEND_RESERVE * 2).await;
        self.end_parts(by - APPEND_RESERVE).await;
        self.append_the_rest(by).await?;
        info!("drained");
        Ok(())
    }

    async fn close_sockets(&self, by: Instant) {
        self.signals.drain.cancel();
        self.sockets.close();
        if timeout_at(by, self.sockets.wait()).await.is_err() {
            warn!(sockets = self.sockets.len(), "sockets did not close in time");
        }
    }

    async fn end_requests(&mut self, by: Instant) {
        self.signals.stop_http.cancel();
        if timeout_at(by, ended(&mut self.requests)).await.is_err() {
            warn!("requests did not end in time");
        }
    }

    async fn end_parts(&mut self, by: Instant) {
        self.signals.stop.cancel();
        if timeout_at(by, ended(&mut self.parts)).await.is_err() {
            warn!("parts of the pod did not end in time");
            self.parts.shutdown().await;
        }
    }

    /// Every way into the log is gone now: the appender ends when it has appended what it took.
    async fn append_the_rest(self, by: Instant) -> anyhow::Result<()> {
        if timeout_at(by, self.appender).await.is_err() {
            bail!(
                "the last edges of this pod are not in the log: the database does not answer, or somebody \
                 keeps a satellite's row locked"
            );
        }
        Ok(())
    }
}

async fn ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}
