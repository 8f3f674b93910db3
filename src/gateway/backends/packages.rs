//! Script packages: they belong to another backend, which is asked over NATS.
//!
//! Nobody waits for it for ever. What it does not say is not said for it: an empty manifest would be
//! taken for the truth, so a satellite that asks in vain gets no answer.

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

/// How long a manifest or a part of a package may take; agents wait longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long all of a package may take, with what it waits for room. Agents wait for a minute.
const BLOB_TIMEOUT: Duration = Duration::from_secs(30);

/// How long the desired hash may take: a satellite waits for it to be let in.
const HASH_TIMEOUT: Duration = Duration::from_secs(1);

/// For how long one answer about the desired hash is good: many satellites come at once.
const HASH_AGE: Duration = Duration::from_secs(1);

/// How often it is looked whether NATS was away, in which time nothing was heard.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The longest pause before a backend that does not say the hash is asked again; the first is
/// [`LOOK_INTERVAL`], and each is twice the one before.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The most characters of a lockfile hash.
const MAX_HASH: usize = 200;

/// One package of a manifest, as far as it is looked at: what the backend says of it besides is the
/// agent's.
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

/// Which packages there should be, as the backend answers and announces it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Said {
    /// Null for none. An answer without it says nothing.
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

/// The hash of the packages there should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Desired {
    /// Nobody says.
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

/// What a pod knows of the packages there should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Known {
    /// Their hash.
    pub desired: Desired,
    /// How often it was announced: whoever was told of one is told again, because an agent that has
    /// failed tries again then.
    pub announced: u64,
}

/// The way to the backend.
pub struct Packages {
    nats: async_nats::Client,
    /// What is told of questions that cannot be answered.
    complaints: Arc<LogGate>,
    metrics: Metrics,
    /// When the backend was asked for the hash. Whoever asks meanwhile waits for the same answer.
    asked_at: Mutex<Option<Instant>>,
    /// What was last answered or announced. As long as NATS is there every announcement is heard, so
    /// it stays true; while NATS is away it is unknown.
    known: watch::Sender<Known>,
    blobs: Blobs,
}

impl Packages {
    /// Over this connection; packages of at most so many bytes, in base64.
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

    /// What is in the packages of this hash; `None` where nobody says.
    pub async fn manifest(&self, lockfile_hash: &str) -> Option<Box<RawValue>> {
        #[derive(Deserialize)]
        struct Manifest {
            entries: Entries,
        }
        let question = json!({"lockfileHash": lockfile_hash});
        let answer: Option<Manifest> = self.ask(MANIFEST, &question, ANSWER_TIMEOUT).await;
        answer.map(|manifest| manifest.entries.0)
    }

    /// A package, fetched once for all who ask for it at the same time; `None` where nobody says.
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

    /// What does not fit into one message of NATS comes in parts, each asked for by where it begins.
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

    /// Each change of what is known of the hash there should be.
    pub fn subscribe(&self) -> watch::Receiver<Known> {
        self.known.subscribe()
    }

    /// What is known of the hash there should be; it is asked for, unless somebody has within
    /// [`HASH_AGE`].
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

    /// Nobody is told of it: there is nothing to say.
    fn forget(&self) {
        self.known.send_if_modified(|known| {
            known.desired = Desired::Unknown;
            false
        });
    }

    /// Listens for new hashes until told to stop. One that was announced while NATS was away is asked
    /// for, until somebody says it.
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
                        // Whatever was answered before may be older than what was not heard. Before
                        // the first connection nothing was.
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
                // An answer that is under way is older.
                let _asking = self.asked_at.lock().await;
                self.known.send_modify(|known| {
                    known.desired = said.desired();
                    known.announced += 1;
                });
            }
            Err(error) => {
                if let Some(left_out) = self.complaints.pass(Instant::now()) {
                    warn!(%error, left_out, "a message on {CHANGED} is not what it should be");
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
        // While NATS is away the client would queue the question and nobody wait for the answer.
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
                    warn!(%subject, %error, left_out, "an answer is not what it should be");
                }
                (None, "malformed")
            }
        }
    }
}
