//! What a satellite asks and the answers it gets. Each question is a future of its own, so no socket waits
//! for a backend. A question ends with an answer or without one: an answer on script packages is never made
//! up for a backend that does not respond.
//!
//! Questions wait in turn. A session has a few open at once, and one place in the pod's queue for the next of
//! those that wait. So a satellite with one question waits behind at most one question of each other
//! satellite, however many they ask. An agent waits half a minute. A question that cannot be answered by then
//! is refused, if the contract has words for that.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tracing::warn;

use super::backends::Backends;
use super::protocol::{Environment, ToSatellite};
use crate::domain::lifecycle::SessionKey;
use crate::gateway::backends::packages::blobs::Blob;
use crate::gateway::backends::run_secrets::{self, Denied};
use crate::platform::metrics::Counted;
use crate::registry::assignments;
use crate::registry::in_force::MAX_ASSIGNMENTS;

/// Questions that one session may have open at once. As many may wait, however many others wait.
const MAX_OPEN: usize = 8;

/// Questions of one session that wait, and their bytes: each check of the longest list may ask for secrets
/// and one other thing, four times over.
const MAX_WAITING: usize = 4 * MAX_ASSIGNMENTS;
const MAX_WAITING_BYTES: usize = 1024 * 1024;

/// What a question counts beside its own words.
const BYTES_OF_ONE: usize = 256;

/// The time limit of a question, from when it was received. The agent waits 30 s from when it sent it.
const ANSWER_WITHIN: Duration = Duration::from_secs(25);

/// The time limit of a package, from when the backend is asked: agents wait 60 s for one.
const PACKAGE_WITHIN: Duration = Duration::from_secs(30);

/// A question of a satellite.
#[derive(Debug)]
pub enum Question {
    /// The manifest of the packages of this hash.
    Manifest {
        /// The hash.
        lockfile_hash: String,
    },
    /// One package.
    Blob {
        /// Its hash.
        integrity: String,
    },
    /// The secrets of a run.
    RunSecrets {
        /// The id that the answer must name.
        request_id: String,
        /// The assignment whose collector runs.
        config_id: String,
        /// The collector.
        collector_id: String,
    },
}

/// The answer to a question; none if the contract has no answer for the case.
pub type Answer = Option<ToSatellite>;

type UnderWay = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A question that waits.
struct Waiting {
    question: Question,
    until: Instant,
    bytes: usize,
    /// Its part of the pod's memory for waiting questions.
    _room: Option<OwnedSemaphorePermit>,
    _counted: Counted,
}

/// The questions of one session.
pub struct Questions {
    backends: Arc<Backends>,
    of: SessionKey,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Its place in the pod's queue, while something waits.
    turn: Option<Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>>,
    open: FuturesUnordered<UnderWay>,
    /// Answers that need no backend.
    answers: VecDeque<ToSatellite>,
    /// When the first waiting question exceeds its time limit.
    late_at: Option<Pin<Box<Sleep>>>,
}

/// There is no memory for a question; it is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Questions {
    /// The questions of this session, to these backends.
    pub fn new(backends: Arc<Backends>, of: SessionKey) -> Questions {
        Questions {
            backends,
            of,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            turn: None,
            open: FuturesUnordered::new(),
            answers: VecDeque::new(),
            late_at: None,
        }
    }

    /// Asks for the sandbox policy, for which agents do not ask. All sessions share one answer, so this takes
    /// none of the pod's places.
    pub fn look_for_policy(&mut self) {
        let backends = self.backends.clone();
        self.open.push(Box::pin(async move {
            let policy = backends.sandbox.policy().await?;
            Some(ToSatellite::SandboxPolicy { policy })
        }));
    }

    /// Whether no answer is pending.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty() && self.answers.is_empty()
    }

    /// Queues a question until it is its turn.
    pub fn put(&mut self, question: Question) -> Result<(), TooMany> {
        let bytes = question.bytes();
        let fits =
            self.waiting.len() < MAX_WAITING && self.waiting_bytes + bytes <= MAX_WAITING_BYTES;
        let few = self.waiting.len() < MAX_OPEN;
        let room = if fits && !few { self.backends.room_to_wait(bytes) } else { None };
        if !fits || (!few && room.is_none()) {
            return match question.turned_away(Denied::Busy) {
                Some(answer) => self.answer(answer),
                None => Err(TooMany),
            };
        }
        let until = Instant::now() + ANSWER_WITHIN;
        if self.late_at.is_none() {
            self.late_at = Some(Box::pin(sleep_until(until)));
        }
        let _counted = self.backends.question_waits();
        self.waiting_bytes += bytes;
        self.waiting.push_back(Waiting { question, until, bytes, _room: room, _counted });
        Ok(())
    }

    /// Queues an answer that is known already.
    pub fn answer(&mut self, answer: ToSatellite) -> Result<(), TooMany> {
        if self.answers.len() >= MAX_WAITING {
            return Err(TooMany);
        }
        self.answers.push_back(answer);
        Ok(())
    }

    /// The next answer. Cancel-safe.
    pub async fn next(&mut self) -> ToSatellite {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<ToSatellite> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Poll::Ready(answer);
            }
            if let Poll::Ready(late) = self.poll_late(cx) {
                self.backends.question_was_late();
                if let Some(answer) = late.turned_away(Denied::Late) {
                    return Poll::Ready(answer);
                }
                continue;
            }
            self.poll_turn(cx);
            match self.open.poll_next_unpin(cx) {
                Poll::Ready(Some(Some(answer))) => return Poll::Ready(answer),
                // A question without an answer has made room for the next.
                Poll::Ready(Some(None)) => {}
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The first question that has exceeded its time limit.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<Question> {
        // All have the same limit, so they expire in the order in which they came.
        while let Some(until) = self.waiting.front().map(|first| first.until) {
            let Some(late_at) = &mut self.late_at else { return Poll::Pending };
            ready!(late_at.as_mut().poll(cx));
            if until > Instant::now() {
                late_at.as_mut().reset(until);
            } else if let Some(late) = self.take_first() {
                return Poll::Ready(late.question);
            }
        }
        self.late_at = None;
        Poll::Pending
    }

    /// Asks the questions whose turn it is.
    fn poll_turn(&mut self, cx: &mut Context<'_>) {
        while !self.waiting.is_empty() && self.open.len() < MAX_OPEN {
            let places = &self.backends.questions;
            let turn = self.turn.get_or_insert_with(|| {
                let places = places.clone();
                Box::pin(async move { places.acquire_owned().await.ok() })
            });
            let Poll::Ready(place) = turn.as_mut().poll(cx) else { return };
            self.turn = None;
            // The semaphore is never closed.
            if let Some(place) = place
                && let Some(Waiting { question, until, .. }) = self.take_first()
            {
                self.open.push(self.ask(question, until, place));
            }
        }
        if self.waiting.is_empty() {
            self.turn = None;
        }
    }

    fn take_first(&mut self) -> Option<Waiting> {
        let first = self.waiting.pop_front()?;
        self.waiting_bytes -= first.bytes;
        if self.waiting.is_empty() {
            // Frees the memory: for most of a session's life nothing is asked.
            (self.waiting, self.late_at) = (VecDeque::new(), None);
        }
        Some(first)
    }

    /// Asks a backend. Holds one of the pod's places until the answer.
    fn ask(&self, question: Question, until: Instant, place: OwnedSemaphorePermit) -> UnderWay {
        let (backends, of) = (self.backends.clone(), self.of);
        let until = match question {
            Question::Blob { .. } => until.max(Instant::now() + PACKAGE_WITHIN),
            Question::Manifest { .. } | Question::RunSecrets { .. } => until,
        };
        Box::pin(async move {
            let _place = place;
            match timeout_at(until, question.ask(&backends, of)).await {
                Ok(answer) => answer,
                Err(_) => {
                    backends.question_was_late();
                    question.turned_away(Denied::Late)
                }
            }
        })
    }
}

impl Question {
    fn bytes(&self) -> usize {
        let words = match self {
            Question::Manifest { lockfile_hash } => lockfile_hash.len(),
            Question::Blob { integrity } => integrity.len(),
            Question::RunSecrets { request_id, config_id, collector_id } => {
                request_id.len() + config_id.len() + collector_id.len()
            }
        };
        BYTES_OF_ONE + words
    }

    /// The answer if no backend could be asked. Manifests and packages get none: an agent takes an empty
    /// list, or a package that is not found, for the truth.
    fn turned_away(self, why: Denied) -> Answer {
        match self {
            Question::RunSecrets { request_id, .. } => {
                Some(run_secrets_answer(request_id, Err(why)))
            }
            Question::Manifest { .. } | Question::Blob { .. } => None,
        }
    }

    async fn ask(&self, backends: &Backends, of: SessionKey) -> Answer {
        match self {
            Question::Manifest { lockfile_hash } => {
                let entries = backends.packages.manifest(lockfile_hash).await?;
                let lockfile_hash = lockfile_hash.clone();
                Some(ToSatellite::ScriptPackageManifest { lockfile_hash, entries })
            }
            Question::Blob { integrity } => {
                let integrity = integrity.clone();
                Some(match backends.packages.blob(&integrity).await? {
                    Blob::Missing => ToSatellite::ScriptPackageBlob { integrity, data: None },
                    Blob::Message(message) => ToSatellite::Ready(message),
                })
            }
            Question::RunSecrets { request_id, config_id, collector_id } => {
                let environment = resolve(backends, of, config_id, collector_id).await;
                Some(run_secrets_answer(request_id.clone(), environment))
            }
        }
    }
}
fn run_secrets_answer(
    request_id: String,
    environment: Result<run_secrets::Environment, Denied>,
) -> ToSatellite {
    let (env, error) = match environment {
        Ok(environment) => (Some(Environment(environment)), None),
        Err(denied) => (None, Some(denied.to_string())),
    };
    ToSatellite::RunSecrets { request_id, env, error }
}

/// Reads the stored assignments, not those in memory: a revoked secret must not be served a moment longer.
async fn resolve(
    backends: &Backends,
    of: SessionKey,
    config_id: &str,
    collector_id: &str,
) -> Result<run_secrets::Environment, Denied> {
    let read =
        async |client: &mut deadpool_postgres::Object| assignments::of_session(client, of).await;
    let stored = match backends.database.run(read).await {
        Ok(stored) => stored,
        Err(error) => {
            if let Some(left_out) = backends.complaints.pass(Instant::now()) {
                warn!(satellite = %of.satellite, %error, left_out, "cannot read assignments");
            }
            return Err(Denied::Unavailable);
        }
    };
    let stored = stored.ok_or_else(|| Denied::NoAssignment(config_id.to_owned()))?;
    let declared = run_secrets::declared(&stored, config_id, collector_id)?;
    let values = backends.secrets.resolve(declared.names()).await.inspect_err(|unresolved| {
        if let Some(why) = unresolved.why()
            && let Some(left_out) = backends.complaints.pass(Instant::now())
        {
            warn!(satellite = %of.satellite, error = %unresolved, why, left_out, "no secrets for a run");
        }
    })?;
    declared.fill(&values)
}
