//! Messages of satellites that are passed on only if a JetStream stream keeps them. Mostly there is no such
//! stream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::context::GetStreamByNameErrorKind;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

/// The state of satellites' capabilities.
pub const CAPABILITY_STATUS: &str = "satellite.capability_status";

/// What satellites collect from other sources.
pub const TELEMETRY_BATCH: &str = "satellite.telemetry_batch";

/// How often streams are looked for: they are rarely made.
const INTERVAL: Duration = Duration::from_secs(10);

/// The same while NATS is away.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// The same if NATS cannot tell: it has no JetStream, or the pod lacks the permission.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// How long NATS may take to answer.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Which of these subjects have a stream, as far as is known.
#[derive(Debug, Default)]
pub struct Wanted {
    capability_status: AtomicBool,
    telemetry_batch: AtomicBool,
}

impl Wanted {
    /// Whether a stream keeps this subject.
    pub fn is(&self, subject: &str) -> bool {
        self.of(subject).is_some_and(|wanted| wanted.load(Ordering::Relaxed))
    }

    /// Looks for streams at intervals, until told to stop.
    pub async fn watch(&self, nats: &async_nats::Client, stop: CancellationToken) {
        loop {
            let pause = self.look(nats).await;
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Looks once and returns the time until the next look.
    async fn look(&self, nats: &async_nats::Client) -> Duration {
        let jetstream = jetstream::new(nats.clone());
        for subject in [CAPABILITY_STATUS, TELEMETRY_BATCH] {
            if nats.connection_state() != State::Connected {
                return LOOK_AGAIN;
            }
            let wanted = match timeout(TIMEOUT, jetstream.stream_by_subject(subject)).await {
                Ok(Ok(_)) => true,
                Ok(Err(error)) if error.kind() == GetStreamByNameErrorKind::NotFound => false,
                Ok(Err(error)) => {
                    debug!(%error, "cannot see whether there is a stream for {subject}");
                    return LONG_PAUSE;
                }
                Err(_) => return LONG_PAUSE,
            };
            let before = self.of(subject).is_some_and(|w| w.swap(wanted, Ordering::Relaxed));
            if before != wanted {
                info!(subject, wanted, "a stream for this subject was made or removed");
            }
        }
        INTERVAL
    }

    fn of(&self, subject: &str) -> Option<&AtomicBool> {
        match subject {
            CAPABILITY_STATUS => Some(&self.capability_status),
            TELEMETRY_BATCH => Some(&self.telemetry_batch),
            _ => None,
        }
    }
}
