//! Requests to the log, and their outcomes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::oneshot;

use super::ChangeId;
use super::audit::Author;
use crate::domain::lifecycle::{Event, Position, SatelliteId, Session, Signal, Unchanged};
use crate::platform::database_clock::Moment;
use crate::platform::trace::Traceparent;

/// An edge on its way into the log.
pub(super) struct Request {
    pub satellite: SatelliteId,
    pub signal: Signal,
    pub change: ChangeId,
    pub author: Author,
    /// When it happened, by this pod's monotonic clock: no pod's wall clock decides anything.
    pub happened: Moment,
    /// The trace it belongs to, if any.
    pub traceparent: Option<Traceparent>,
    /// Whether an earlier try may have reached the log.
    pub tried: bool,
    /// Set once the request is withdrawn, see [`Connecting::withdraw`].
    pub(super) withdrawn: Option<Arc<AtomicBool>>,
    reply: oneshot::Sender<Outcome>,
}

impl Request {
    pub(super) fn new(
        satellite: SatelliteId,
        signal: Signal,
        author: impl Into<Author>,
        happened: Moment,
        traceparent: Option<Traceparent>,
    ) -> (Request, oneshot::Receiver<Outcome>) {
        let (reply, outcome) = oneshot::channel();
        let request = Request {
            satellite,
            signal,
            change: ChangeId::new(),
            author: author.into(),
            happened,
            traceparent,
            tried: false,
            withdrawn: None,
            reply,
        };
        (request, outcome)
    }

    /// Whether it was withdrawn. If an earlier try may have reached the log, the log has to be searched for it first.
    pub(super) fn is_withdrawn(&self) -> bool {
        self.withdrawn.as_ref().is_some_and(|withdrawn| withdrawn.load(Ordering::Relaxed))
    }

    /// The caller may have gone; the decision stands all the same.
    pub(super) fn answer(self, outcome: Outcome) {
        if self.reply.send(outcome).is_err() {
            tracing::debug!(satellite = %self.satellite, "no caller waits for this outcome");
        }
    }
}

/// A connect on its way into the log.
pub struct Connecting {
    pub(super) outcome: oneshot::Receiver<Outcome>,
    pub(super) withdrawn: Arc<AtomicBool>,
}

impl Connecting {
    /// Waits for the outcome. May be dropped and called again.
    pub async fn outcome(&mut self) -> Result<Outcome, Closed> {
        (&mut self.outcome).await.map_err(|_| Closed)
    }

    /// Withdraws the connect: a session whose socket is gone must not take over another. If the connect is in the log
    /// already, or on its way there, that stays its outcome. Otherwise it never gets there.
    pub fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// What became of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the log, durably.
    Appended {
        /// Its position.
        position: Position,
        /// Its session; for a connect, the session it was given.
        session: Session,
        /// The event that came of it.
        event: Event,
    },
    /// It changed nothing.
    Nothing(Unchanged),
    /// There is no such satellite, or no longer.
    UnknownSatellite,
    /// It could not happen; the appender has logged why.
    Refused,
    /// Another transaction has the satellite's row locked, and this edge does not wait for it: a loss is found again,
    /// and only so many connects of a satellite wait.
    Locked,
}

/// The pod is shutting down: the edge was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log takes no more edges: the pod is shutting down")]
pub struct Closed;

/// What others are told of a committed batch, so that they look sooner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Appended {
    /// The newest position of the batch.
    pub position: Position,
    /// Satellites whose older session, on any pod, has ended: taken over or removed.
    pub superseded: Vec<SatelliteId>,
}
