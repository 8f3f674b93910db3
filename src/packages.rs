//! Script packages: they belong to another backend, which is asked over NATS.
//!
//! Nobody waits for it for ever, and nobody is told of its absence but by the contract's answers:
//! no entries, no data, no hash.

use std::sync::Arc;
use std::time::Duration;

use async_nats::RequestErrorKind;
use async_nats::connection::State;
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::Metrics;

const MANIFEST: &str = "script-packages.manifest";
const BLOB: &str = "script-packages.blob";
const LOCKFILE_HASH: &str = "script-packages.lockfile-hash";
const CHANGED: &str = "script-packages.changed";

/// How long a manifest or a blob may take; agents wait longer than this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the desired hash may take: a satellite waits for it to be let in.
const HASH_TIMEOUT: Duration = Duration::from_secs(1);

/// For how long one answer about the desired hash is good: many satellites come at once.
const HASH_AGE: Duration = Duration::from_secs(1);

/// The most bytes of an answer that is passed on.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// The most characters of a lockfile hash.
const MAX_HASH: usize = 200;

/// One package of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The hash of its content.
    pub integrity: String,
}

/// The hash of the packages there should be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Desired {
    /// Nobody says.
    #[default]
    Unknown,
    /// This one, or none.
    Hash(Option<String>),
}

/// The way to the backend.
pub struct Packages {
    nats: async_nats::Client,
    metrics: Metrics,
    /// The last answer and when it came. Whoever asks meanwhile waits for the same one.
    desired: Mutex<Option<(Instant, Desired)>>,
    changed: watch::Sender<Option<Arc<str>>>,
}

impl Packages {
    /// Over this connection.
    pub fn new(nats: async_nats::Client, metrics: Metrics) -> Packages {
        Packages { nats, metrics, desired: Mutex::new(None), changed: watch::Sender::new(None) }
    }

    /// What is in the packages of this hash; nothing where nobody answers.
    pub async fn manifest(&self, lockfile_hash: &str) -> Vec<Package> {
        #[derive(Deserialize)]
        struct Manifest {
            entries: Vec<Package>,
        }
        let question = json!({"lockfileHash": lockfile_hash});
        let answer: Option<Manifest> = self.ask(MANIFEST, &question, ANSWER_TIMEOUT).await;
        answer.map(|manifest| manifest.entries).unwrap_or_default()
    }

    /// A package in base64; `None` where it is not found or nobody answers.
    pub async fn blob(&self, integrity: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Blob {
            data: Option<String>,
        }
        let question = json!({"integrity": integrity});
        self.ask::<Blob>(BLOB, &question, ANSWER_TIMEOUT).await?.data
    }

    /// The hash there should be, at most [`HASH_AGE`] old.
    pub async fn desired(&self) -> Desired {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Answer {
            lockfile_hash: Option<String>,
        }
        let mut known = self.desired.lock().await;
        if let Some((at, desired)) = &*known
            && at.elapsed() < HASH_AGE
        {
            return desired.clone();
        }
        let answer: Option<Answer> = self.ask(LOCKFILE_HASH, &json!({}), HASH_TIMEOUT).await;
        let fits = |hash: &String| hash.len() <= MAX_HASH;
        let desired = match answer {
            Some(answer) if answer.lockfile_hash.as_ref().is_none_or(fits) => {
                Desired::Hash(answer.lockfile_hash)
            }
            _ => Desired::Unknown,
        };
        *known = Some((Instant::now(), desired.clone()));
        desired
    }

    /// Tells of each new hash. Subscribe before asking for the desired one.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.changed.subscribe()
    }

    /// Listens for new hashes until told to stop.
    pub async fn listen(self: Arc<Self>, stop: CancellationToken) {
        let mut heard = match self.nats.subscribe(CHANGED).await {
            Ok(subscription) => subscription.boxed(),
            Err(error) => {
                warn!(%error, "cannot listen for new script packages");
                futures_util::stream::pending().boxed()
            }
        };
        loop {
            tokio::select! {
                Some(message) = heard.next() => self.hear(&message.payload).await,
                () = stop.cancelled() => return,
            }
        }
    }

    async fn hear(&self, body: &[u8]) {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Changed {
            lockfile_hash: String,
        }
        match serde_json::from_slice::<Changed>(body) {
            Ok(changed) if changed.lockfile_hash.len() <= MAX_HASH => {
                // Whatever was known is older.
                *self.desired.lock().await = None;
                self.changed.send_replace(Some(changed.lockfile_hash.into()));
            }
            _ => warn!("a message on {CHANGED} without a lockfileHash was dropped"),
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
        let message = match tokio::time::timeout(limit, request).await {
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
        if message.payload.len() > MAX_ANSWER_BYTES {
            warn!(%subject, bytes = message.payload.len(), "an answer is too large to be passed on");
            return (None, "too_large");
        }
        match serde_json::from_slice(&message.payload) {
            Ok(answer) => (Some(answer), "answered"),
            Err(error) => {
                warn!(%subject, %error, "an answer is not what it should be");
                (None, "malformed")
            }
        }
    }
}
