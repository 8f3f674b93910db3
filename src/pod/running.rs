//! A running pod: what ends it, and how it drains.

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
use crate::platform::database::SharedSession;
use crate::platform::health::Health;
use crate::platform::migrations::Outgrown;

/// How much of the drain's deadline is left for the last edges, and before that for the other
/// parts.
const APPEND_RESERVE: Duration = Duration::from_secs(2);

/// The signals that end the parts of a pod, in this order.
#[derive(Default)]
pub struct Signals {
    /// Sockets are closed.
    pub drain: CancellationToken,
    /// No more requests are accepted.
    pub stop_http: CancellationToken,
    /// Everything else ends.
    pub stop: CancellationToken,
}

/// The tasks of a pod.
pub struct Running {
    /// The signals that end them.
    pub signals: Signals,
    /// The pod's own state.
    pub health: Arc<Health>,
    /// The satellites' sockets.
    pub sockets: TaskTracker,
    /// The requests at its doors.
    pub requests: JoinSet<()>,
    /// The tasks that run as long as the pod does.
    pub parts: JoinSet<()>,
    /// The appender. It ends when no task can send it an edge any more.
    pub appender: JoinHandle<()>,
    /// The check whether the database went back.
    pub past: JoinHandle<Option<WentBack>>,
    /// The check whether the schema still allows this pod.
    pub schema: JoinHandle<Option<Outgrown>>,
    /// The check whether connections share sessions of the database.
    pub shared: JoinHandle<Option<SharedSession>>,
}

impl Running {
    /// Waits until the pod is told to end, or the schema tells it; an error if one of its parts ends by itself.
    pub async fn until(
        &mut self,
        shutdown: impl Future<Output = ()>,
    ) -> anyhow::Result<Option<Outgrown>> {
        tokio::select! {
            () = shutdown => Ok(None),
            Ok(Some(outgrown)) = &mut self.schema => {
                error!(%outgrown, "the schema has changed into one that this pod may not run on: it drains and ends");
                Ok(Some(outgrown))
            }
            Ok(Some(went_back)) = &mut self.past => {
                error!(
                    %went_back,
                    "this pod knows transitions that the database no longer has, and ends to start afresh"
                );
                Err(went_back.into())
            }
            Ok(Some(shared)) = &mut self.shared => {
                error!(%shared, "connections of this pod share sessions with others: it ends");
                Err(shared.into())
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

    /// Drains the pod, from the outside in: a part ends after those that need it.
    pub async fn drain(mut self, drain: Drain) -> anyhow::Result<()> {
        info!("draining");
        let by = Instant::now() + drain.deadline;
        // The pod is unready and accepts no connection. It keeps its sockets until no traffic is
        // sent here.
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

    /// No sender into the log is left: the appender ends when it has appended what it took.
    async fn append_the_rest(self, by: Instant) -> anyhow::Result<()> {
        if timeout_at(by, self.appender).await.is_err() {
            bail!(
                "the last edges of this pod are not in the log: the database does not answer, or \
                 another session keeps a satellite's row locked"
            );
        }
        Ok(())
    }
}

async fn ended(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}
