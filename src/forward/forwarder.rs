//! What a forwarder is made of.

use std::sync::Arc;
use std::time::Duration;

use super::consumer::Wanted;
use super::numbers::Numbers;
use super::receiver::Receiver;
use super::retry::Retry;
use super::signing::Signing;
use crate::platform::replicas::Replicas;

/// The settings of a forwarder.
pub struct Settings {
    /// Its consumer.
    pub wanted: Wanted,
    /// When it tries again.
    pub retry: Retry,
    /// Attempts at the same time.
    pub concurrency: usize,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Dead letters that may be kept.
    pub max_dead_letters: u32,
    /// On how many servers its streams are made.
    pub replicas: Replicas,
}

impl Settings {
    /// After how long without a sign of life another forwarder of the same name takes over.
    pub fn takeover(&self) -> Duration {
        self.wanted.ack_wait
    }
}

/// A forwarder.
pub struct Forwarder {
    /// Its settings.
    pub settings: Settings,
    /// Where the stream is.
    pub nats: async_nats::Client,
    /// Who receives.
    pub receiver: Arc<Receiver>,
    /// With what it is signed.
    pub signing: Arc<Signing>,
    /// Its metrics.
    pub numbers: Numbers,
}
