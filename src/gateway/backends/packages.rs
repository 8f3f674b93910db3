//! Script packages. They belong to another backend, which is asked over NATS.
//!
//! Every question has a time limit. No answer is made up for the backend: an agent would take an empty
//! manifest for the truth, so a satellite gets no answer if the backend gives none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::RequestErrorKind;
use async_nats::connection::State;
use futures_util::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use blobs::{Blob, Blobs, Part};

use crate::platform::log_gate::LogGate;
use crate::platform::metrics::Metrics;

pub(crate) mod blobs;

const MANIFEST: &str = "script-packages.manifest";
const BLOB: &str = "script-packages.blob";
const LOCKFILE_HASH: &str = "script-packages.lockfile-hash";
const CHANGED: &str = "script-packages.changed";

/// How long the backend may take for a manifest or a part of a package; agents wait longer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a whole package may take, including its wait for room. Agents wait a minute.
const BLOB_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the backend may take for the desired hash: satellites wait for it before they are let in.
const HASH_TIMEOUT: Duration = Duration::from_secs(1);

/// How long one answer about the desired hash is reused: many satellites connect at once.
const HASH_AGE: Duration = Duration::from_secs(1);

/// How often to check whether NATS was away. Announcements of that time were missed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The longest pause before a backend that does not answer is asked for the hash again. The first pause is
/// [`LOOK_INTERVAL`]; each is twice the one before.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The most characters of a lockfile hash.
const MAX_HASH: usize = 200;

/// One package of a manifest, as far as a pod checks it. Other fields from the backend are passed on to the
/// agent.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "a shape: entries are passed on as they came")]
pub struct Package {
    /// Its name.
    name: String,
    /// Its version.
    version: String,
    /// The hash of its content.
    integrity: String,
}

/// The packages of a manifest, as they came.
#[derive(Deserialize)]
#[serde(try_from = "Box<RawValue>")]
struct Entries(Box<RawValue>);

impl TryFrom<Box<RawValue>> for Entries {
    type Error = serde_json::Error;

    fn try_from(entries: Box<RawValue>) -> Result<Entries, serde_json::Error> {
        serde_json::from_str::<Vec<Package>>(entries.get())?;
        Ok(Entries(entries))
    }
}

/// The desired hash, as the backend answers and announces it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    /// Null for none. An answer without this field is not valid.
    #[serde(deserialize_with = "Option::deserialize")]
    lockfile_hash: Option<LockfileHash>,
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
struct LockfileHash(Arc<str>);

impl TryFrom<String> for LockfileHash {
    type Error = String;

    fn try_from(hash: String) -> Result<LockfileHash, String> {
        match hash.len() <= MAX_HASH {
            true => Ok(LockfileHash(hash.into())),
            false => Err(format!("a lockfileHash has at most {MAX_HASH} characters")),
        }
    }
}

/// The hash of the packages that satellites are to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Desired {
    /// No backend has said.
    #[default]
    Unknown,
    /// This one, or none.
    Hash(Option<Arc<str>>),
}

impl Said {
    fn desired(self) -> Desired {
        Desired::Hash(self.lockfile_hash.map(|hash| hash.0))
    }
}

/// What a pod knows of the packages that satellites are to have.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Their hash.
    pub desired: Desired,
    /// How often it was announced. A satellite is told again after each announcement, because an agent that
    /// has failed tries again then.
    pub announced: u64,
}

/// The client of the packages' backend.
pub struct Packages {
    nats: async_nats::Client,
    /// Bounds the log lines about questions that cannot be answered.
    complaints: Arc<LogGate>,
    metrics: Metrics,
    /// When the backend was last asked for the hash. Other callers wait for the same answer.
    asked_at: Mutex<Option<Instant>>,
    /// The last answer or announcement. While NATS is there every announcement is heard, so the value stays
    /// true; while NATS is away it is unknown.
    known: watch::Sender<Known>,
    blobs: Blobs,
}

impl Packages {
    /// Uses this connection. `largest` is the most bytes of a package in base64.
    pub fn new(
        nats: async_nats::Client,
        largest: usize,
        complaints: Arc<LogGate>,
        metrics: Metrics,
    ) -> Packages {
        Packages {
            nats,
            complaints,
            metrics,
            asked_at: Mutex::new(None),
            known: watch::Sender::default(),
            blobs: Blobs::new(largest),
        }
    }

    /// The manifest of the packages of this hash; `None` if the backend does not answer.
    pub async fn manifest(&self, lockfile_hash: &str) -> Option<Box<RawValue>> {
        #[derive(Deserialize)]
        struct Manifest {
            entries: Entries,
        }
        let question = json!({"lockfileHash": lockfile_hash});
        let answer: Option<Manifest> = self.ask(MANIFEST, &question, ANSWER_TIMEOUT).await;
        answer.map(|manifest| manifest.entries.0)
    }

    /// A package, fetched once for all that ask for it at the same time; `None` if the backend does not
    /// answer.
    pub async fn blob(self: &Arc<Self>, integrity: &str) -> Option<Blob> {
        let fetch = || {
            let (packages, integrity) = (self.clone(), integrity.to_owned());
            let fetch = async move {
                let fetched = timeout(BLOB_TIMEOUT, packages.fetch(&integrity)).await;
                fetched.unwrap_or_else(|_| {
                    if let Some(left_out) = packages.complaints.pass(Instant::now()) {
                        warn!(
                            ?integrity,
                            left_out, "a script package took more than {BLOB_TIMEOUT:?}"
                        );
                    }
                    None
                })
            };
            Box::pin(fetch) as blobs::Fetching
        };
        self.blobs.share(integrity, fetch).await
    }

    /// A package that exceeds one NATS message is fetched in parts, each by its offset.
    async fn fetch(&self, integrity: &str) -> Option<Blob> {
        let first = self.part(integrity, 0).await?;
        let Some(data) = first.data else { return Some(Blob::Missing) };
        let total = first.total.unwrap_or(data.len());
        let Some(mut message) = self.blobs.begin(integrity, total).await else {
            if let Some(left_out) = self.complaints.pass(Instant::now()) {
                warn!(
                    ?integrity,
                    bytes = total,
                    left_out,
                    "a script package is larger than GROUNDSTATION_MAX_BLOB_BYTES"
                );
            }
            return None;
        };
        let mut part = data;
        while let Ok(()) = message.add(&part) {
            let Some(offset) = message.offset() else { return Some(Blob::Message(message.end())) };
            part = self.part(integrity, offset).await?.data.unwrap_or_default();
        }
        if let Some(left_out) = self.complaints.pass(Instant::now()) {
            warn!(?integrity, left_out, "the parts of a script package do not go together");
        }
        None
    }

    async fn part(&self, integrity: &str, offset: usize) -> Option<Part> {
        let question = json!({"integrity": integrity, "offset": offset});
        self.ask(BLOB, &question, ANSWER_TIMEOUT).await
    }

    /// A receiver of each change of what is known of the desired hash.
    pub fn subscribe(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// What is known of the desired hash. The backend is asked, unless it was within [`HASH_AGE`].
    pub async fn look(&self) -> Known {
        let mut asked_at = self.asked_at.lock().await;
        if asked_at.is_some_and(|at| at.elapsed() < HASH_AGE) {
            return self.known.borrow().clone();
        }
        if self.nats.connection_state() != State::Connected {
            self.forget();
        }
        let answer: Option<Said> = self.ask(LOCKFILE_HASH, &json!({}), HASH_TIMEOUT).await;
        *asked_at = Some(Instant::now());
        if let Some(desired) = answer.map(Said::desired) {
            self.known.send_if_modified(|known| {
                let news = known.desired != desired;
                known.desired = desired;
                news
            });
        }
        self.known.borrow().clone()
    }

    /// Subscribers are not notified: there is nothing to tell satellites.
    fn forget(&self) {
        self.known.send_if_modified(|known| {
            known.desired = Desired::Unknown;
            false
        });
    }

    /// Listens for new hashes until told to stop. After NATS was away it asks for the hash until the backend
    /// answers, because an announcement may have been missed.
    pub async fn listen(self: Arc<Self>, stop: CancellationToken) {
        let mut heard = match self.nats.subscribe(CHANGED).await {
            Ok(subscription) => subscription.boxed(),
            Err(error) => {
                warn!(%error, "cannot listen for new script packages");
                futures_util::stream::pending().boxed()
            }
        };
        let mut looks = interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut connects, mut pause, mut ask_at) = (0, LOOK_INTERVAL, Instant::now());
        loop {
            tokio::select! {
                Some(message) = heard.next() => self.hear(&message.payload).await,
                _ = looks.tick() => {
                    let now_connects = self.nats.statistics().connects.load(Ordering::Relaxed);
                    if now_connects != connects {
                        // The last answer may be older than an announcement that was missed. Before the first
                        // connection there was no answer.
                        if now_connects > 1 {
                            let mut asked_at = self.asked_at.lock().await;
                            *asked_at = None;
                            self.forget();
                        }
                        (connects, pause, ask_at) = (now_connects, LOOK_INTERVAL, Instant::now());
                    }
                    let is_known = self.known.borrow().desired != Desired::Unknown;
                    let is_up = self.nats.connection_state() == State::Connected;
                    if is_up && !is_known && Instant::now() >= ask_at {
                        self.look().await;
                        ask_at = Instant::now() + pause;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
                () = stop.cancelled() => return,
            }
        }
    }

    async fn hear(&self, body: &[u8]) {
        match serde_json::from_slice::<Said>(body) {
            Ok(said) => {
                // Waits for an answer under way: it is older than this announcement.
                let _asking = self.asked_at.lock().await;
                self.known.send_modify(|known| {
                    known.desired = said.desired();
                    known.announced += 1;
                });
            }
            Err(error) => {
                if let Some(left_out) = self.complaints.pass(Instant::now()) {
                    warn!(%error, left_out, "a message on {CHANGED} is not valid");
                }
            }
        }
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        subject: &'static str,
        question: &serde_json::Value,
        limit: Duration,
    ) -> Option<A> {
        let (answer, outcome) = self.try_ask(subject, question, limit).await;
        self.metrics.asked(subject, outcome);
        answer
    }

    async fn try_ask<A: DeserializeOwned>(
        &self,
        subject: &'static str,
        question: &serde_json::Value,
        limit: Duration,
    ) -> (Option<A>, &'static str) {
        // While NATS is away the client would queue the question, and nothing would wait for the answer.
        if self.nats.connection_state() != State::Connected {
            return (None, "nats_away");
        }
        let request = self.nats.request(subject, question.to_string().into());
        let message = match timeout(limit, request).await {
            Ok(Ok(message)) => message,
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                return (None, "no_responders");
            }
            Ok(Err(error)) => {
                debug!(%subject, %error, "no answer");
                return (None, "failed");
            }
            Err(_) => return (None, "timeout"),
        };
        match serde_json::from_slice(&message.payload) {
            Ok(answer) => (Some(answer), "answered"),
            Err(error) => {
                if let Some(left_out) = self.complaints.pass(Instant::now()) {
                    warn!(%subject, %error, left_out, "an answer is not valid");
                }
                (None, "malformed")
            }
        }
    }
}
