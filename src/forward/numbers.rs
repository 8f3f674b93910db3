//! A forwarder's metrics. No label names a satellite.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::platform::metrics::exposition::Form;

type Labels = [(&'static str, &'static str); 1];

/// What is counted; clones share the same numbers.
#[derive(Clone)]
pub struct Numbers {
    registry: Arc<Registry>,
    attempts: Family<Labels, Counter>,
    /// Seconds of one attempt.
    pub attempt_seconds: Histogram,
    /// Messages that were skipped, as they were delivered before or are somebody else's.
    pub skipped: Counter,
    /// Messages that were given up.
    pub given_up: Counter,
    /// Dead letters there are.
    pub dead_letters: Gauge,
    /// Messages in hand.
    pub pending: Gauge,
    /// How many may be in hand.
    pub pending_max: Gauge,
    /// Satellites with messages in hand.
    pub satellites: Gauge,
    /// Attempts that run.
    pub in_flight: Gauge,
    /// How long the oldest message in hand has been on the stream.
    pub oldest_seconds: Gauge<f64, AtomicU64>,
    /// Messages on the stream that are not in hand yet.
    pub lag: Gauge,
    /// 1 while this process is the one that forwards.
    pub active: Gauge,
    /// Times it began anew, because NATS or the consumer was in doubt.
    pub restarts: Counter,
}

impl Numbers {
    /// All at zero.
    pub fn new() -> Numbers {
        let mut registry = Registry::with_prefix("groundstation_forward");
        let r = &mut registry;
        let attempts = Family::default();
        r.register("attempts", "Attempts to deliver, by outcome", attempts.clone());
        let attempt_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 15));
        let help = "Time of one attempt";
        r.register_with_unit("attempt", help, Unit::Seconds, attempt_seconds.clone());
        let skipped = Counter::default();
        let help = "Messages skipped, as they were delivered before or are somebody else's";
        r.register("skipped", help, skipped.clone());
        let given_up = Counter::default();
        r.register("given_up", "Messages that became dead letters", given_up.clone());
        let mut gauge = |name: &str, help: &str| {
            let gauge: Gauge = Gauge::default();
            r.register(name, help, gauge.clone());
            gauge
        };
        let dead_letters = gauge("dead_letters", "Dead letters there are");
        let pending = gauge("pending", "Messages in hand");
        let pending_max = gauge("pending_max", "Messages that may be in hand");
        let satellites = gauge("satellites", "Satellites with messages in hand");
        let in_flight = gauge("in_flight", "Attempts that run");
        let lag = gauge("lag", "Messages on the stream that are not in hand yet");
        let active = gauge("active", "1 while this process is the one that forwards");
        let oldest_seconds = Gauge::default();
        let help = "How long the oldest message in hand has been on the stream";
        r.register_with_unit("oldest", help, Unit::Seconds, oldest_seconds.clone());
        let restarts = Counter::default();
        let help = "Times it began anew, as NATS or the consumer was in doubt";
        r.register("restarts", help, restarts.clone());
        let numbers = Numbers {
            registry: Arc::new(registry),
            attempts,
            attempt_seconds,
            skipped,
            given_up,
            dead_letters,
            pending,
            pending_max,
            satellites,
            in_flight,
            oldest_seconds,
            lag,
            active,
            restarts,
        };
        // These exist from the start: an alert on an increase would miss the first one.
        for outcome in ["delivered", "answered", "timed_out", "unreachable", "forbidden", "gone"] {
            numbers.attempts.get_or_create(&[("outcome", outcome)]).inc_by(0);
        }
        numbers
    }

    /// One attempt ended.
    pub fn attempted(&self, outcome: &'static str) {
        self.attempts.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// The text of `/metrics`.
    pub fn encode(&self, form: Form) -> Result<String, std::fmt::Error> {
        let mut openmetrics = String::new();
        text::encode(&mut openmetrics, &self.registry)?;
        Ok(form.of(openmetrics))
    }
}
