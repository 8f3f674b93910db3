//! A pod's metrics, named by Prometheus' rules. No label ever names a satellite.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use crate::domain::lifecycle::{Event, Reason, Unchanged};

pub mod census;
pub mod exposition;

use census::Census;
use exposition::Form;
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Counters<const N: usize> = Family<Labels<N>, Counter>;
type Gauges<const N: usize> = Family<Labels<N>, Gauge>;

/// A pod's metrics; clones share the same numbers.
#[derive(Clone)]
pub struct Metrics(Arc<Numbers>);

/// The numbers themselves.
pub struct Numbers {
    registry: Registry,
    /// Authenticated sessions this pod holds.
    pub sessions: Gauge,
    /// Sockets that are not authenticated yet.
    pub handshakes: Gauge,
    /// Connections that are not WebSockets (yet).
    pub connections: Gauge,
    /// Live streams that are open.
    pub streams: Gauge,
    /// The limit of live streams.
    pub streams_max: Gauge,
    /// Enrolments that wait for their turn.
    pub enrolments_waiting: Gauge,
    /// How many run at once.
    pub enrolments_max: Gauge,
    enrolments: Counters<1>,
    edges: Counters<2>,
    unchanged: Counters<1>,
    locked_satellites: Gauges<1>,
    authentications: Counters<1>,
    dropped: Counters<1>,
    refusals: Counters<1>,
    tls_reloads: Counters<1>,
    sign_ons: Counters<1>,
    results: Counters<1>,
    /// Results that wait for JetStream.
    pub results_waiting: Gauge,
    /// Results of which only the status was passed on, as they are larger than NATS carries.
    pub results_truncated: Counter,
    /// Bytes that large messages take of the room for them.
    pub large_message_bytes: Gauge,
    /// The size of that room.
    pub large_message_bytes_max: Gauge,
    /// Satellites that wait for a part of it.
    pub large_messages_waiting: Gauge,
    held_back: Counters<1>,
    /// Satellites' questions that wait for their turn.
    pub questions_waiting: Gauge,
    asked: Counters<2>,
    passed_on: Counters<2>,
    /// Edges in one append.
    pub append_batch: Histogram,
    /// Seconds one append took, from its first statement to its commit.
    pub append_seconds: Histogram,
    /// Appends that failed and were tried again.
    pub append_failures: Counter,
    /// Heartbeats received from satellites.
    pub heartbeats_received: Counter,
    /// Wrong administrators' tokens.
    pub wrong_tokens: Counter,
    /// Heartbeats written, after coalescing.
    pub heartbeats_flushed: Counter,
    /// Sessions that this pod vouches for.
    pub vouched_sessions: Gauge,
    /// Sessions that it no longer vouches for, as they missed a heartbeat.
    pub vouch_exceptions: Counter,
    /// Heartbeats of sessions that were no longer current.
    pub heartbeats_stale: Counter,
    /// Flushes that failed and were tried again.
    pub heartbeat_failures: Counter,
    /// Seconds one sweep took.
    pub sweep_seconds: Histogram,
    /// Sweeps that failed.
    pub sweep_failures: Counter,
    /// Losses left to the next sweep, because the satellite's row is locked.
    pub losses_locked: Counter,
    /// Transitions in the log beyond the relay's checkpoint, as this pod last saw it.
    pub relay_lag: Gauge,
    /// How long the oldest of them has been in the log.
    pub relay_lag_seconds: Gauge<f64, AtomicU64>,
    disagreements: Counters<1>,
    /// 1 while this pod relays.
    pub relay_leader: Gauge,
    /// 1 while the relay has stopped because stream and log contradict each other.
    pub relay_halted: Gauge,
    /// The stream's duplicate window, while this pod relays.
    pub relay_duplicate_window: Gauge<f64, AtomicU64>,
    stream_replicas: Gauges<1>,
    /// The whole fleet, counted while this pod relays.
    pub census: Census,
    /// Messages this pod put on the stream.
    pub relay_published: Counter,
    /// Publishes that the stream did not take as expected; the tail was read again after each.
    pub relay_rejected: Counter,
    /// Foreign messages on our subjects.
    pub relay_foreign: Counter,
    /// The newest sealed position, as this pod last saw it.
    pub sealed_position: Gauge,
    /// Entries of the audit that retention dropped.
    pub audit_dropped: Counter,
    /// Sign-ins and refusals that have no entry in the audit.
    pub audit_left_out: Counter,
    /// Writes of sign-ins and refusals that failed.
    pub audit_failures: Counter,
    /// Attempts to seal that failed.
    pub seal_failures: Counter,
    /// The newest position that retention dropped, as this pod last saw it.
    pub log_horizon: Gauge,
    /// Failed searches for old partitions.
    pub retention_failures: Counter,
    /// 1 while the database can be written.
    pub database_up: Gauge,
    database_connections: Gauges<1>,
    database_connections_max: Gauges<1>,
    database_waiting: Gauges<1>,
    database_wait_seconds: Family<Labels<1>, Histogram, fn() -> Histogram>,
    database_wait_failures: Counters<1>,
    /// Statements that were cancelled because their caller had gone.
    pub database_cancelled: Counter,
    /// 1 while connected to NATS.
    pub nats_up: Gauge,
    /// From the end of a satellite's threshold to the moment its loss was found.
    pub detection_seconds: Histogram,
    /// Seconds in which no pod observed, for those blind spans that this pod ended.
    pub blind_seconds: Counter<f64, AtomicU64>,
    /// 1 while losses are held.
    pub brown_out: Gauge,
    /// Losses held by the last sweep.
    pub brown_out_held: Gauge,
    /// Seconds since the process started, whole.
    pub started: Gauge<f64, AtomicU64>,
}

impl Deref for Metrics {
    type Target = Numbers;

    fn deref(&self) -> &Numbers {
        &self.0
    }
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Metrics {
        let mut numbers = Numbers {
            registry: Registry::with_prefix("groundstation"),
            sessions: Gauge::default(),
            handshakes: Gauge::default(),
            connections: Gauge::default(),
            streams: Gauge::default(),
            streams_max: Gauge::default(),
            enrolments_waiting: Gauge::default(),
            enrolments_max: Gauge::default(),
            enrolments: Family::default(),
            edges: Family::default(),
            unchanged: Family::default(),
            locked_satellites: Family::default(),
            authentications: Family::default(),
            dropped: Family::default(),
            refusals: Family::default(),
            tls_reloads: Family::default(),
            sign_ons: Family::default(),
            results: Family::default(),
            results_waiting: Gauge::default(),
            results_truncated: Counter::default(),
            large_message_bytes: Gauge::default(),
            large_message_bytes_max: Gauge::default(),
            large_messages_waiting: Gauge::default(),
            held_back: Family::default(),
            questions_waiting: Gauge::default(),
            asked: Family::default(),
            passed_on: Family::default(),
            append_batch: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            append_seconds: seconds(),
            append_failures: Counter::default(),
            heartbeats_received: Counter::default(),
            wrong_tokens: Counter::default(),
            heartbeats_flushed: Counter::default(),
            vouched_sessions: Gauge::default(),
            vouch_exceptions: Counter::default(),
            heartbeats_stale: Counter::default(),
            heartbeat_failures: Counter::default(),
            sweep_seconds: seconds(),
            sweep_failures: Counter::default(),
            losses_locked: Counter::default(),
            relay_lag: Gauge::default(),
            relay_lag_seconds: Gauge::default(),
            disagreements: Family::default(),
            relay_leader: Gauge::default(),
            relay_halted: Gauge::default(),
            relay_duplicate_window: Gauge::default(),
            stream_replicas: Family::default(),
            census: Census::default(),
            relay_published: Counter::default(),
            relay_rejected: Counter::default(),
            relay_foreign: Counter::default(),
            sealed_position: Gauge::default(),
            audit_dropped: Counter::default(),
            audit_left_out: Counter::default(),
            audit_failures: Counter::default(),
            seal_failures: Counter::default(),
            log_horizon: Gauge::default(),
            retention_failures: Counter::default(),
            database_up: Gauge::default(),
            database_connections: Family::default(),
            database_connections_max: Family::default(),
            database_waiting: Family::default(),
            database_wait_seconds: Family::new_with_constructor(seconds),
            database_wait_failures: Family::default(),
            database_cancelled: Counter::default(),
            nats_up: Gauge::default(),
            detection_seconds: seconds(),
            blind_seconds: Counter::default(),
            brown_out: Gauge::default(),
            brown_out_held: Gauge::default(),
            started: Gauge::default(),
        };
        numbers.register();
        // These exist from the start: an alert on an increase would miss the first one.
        for kind in Disagreement::iter() {
            numbers.disagreements.get_or_create(&[("kind", kind.as_str())]).inc_by(0);
        }
        for outcome in ["delivered", "not_assigned", "revoked", "overflowed", "too_large"] {
            numbers.results.get_or_create(&[("outcome", outcome)]).inc_by(0);
        }
        for outcome in EnrolmentOutcome::iter() {
            numbers.enrolments.get_or_create(&[("outcome", outcome.into())]).inc_by(0);
        }
        for by in ["rate", "room"] {
            numbers.held_back.get_or_create(&[("by", by)]).inc_by(0);
        }
        for outcome in ["ok", "failed"] {
            numbers.tls_reloads.get_or_create(&[("outcome", outcome)]).inc_by(0);
        }
        for pool in ["writes", "reads"] {
            numbers.database_wait_failures.get_or_create(&[("pool", pool)]).inc_by(0);
        }
        Metrics(Arc::new(numbers))
    }
}

fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.000_5, 2.0, 15))
}

impl Numbers {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("sessions", "Authenticated sessions this pod holds", self.sessions.clone());
        r.register(
            "connections",
            "Connections that are not WebSockets (yet)",
            self.connections.clone(),
        );
        r.register("handshakes", "Sockets not authenticated yet", self.handshakes.clone());
        r.register("streams", "Live streams that are open", self.streams.clone());
        r.register("streams_max", "Live streams a pod may have", self.streams_max.clone());
        r.register("enrolments", "Enrolments by outcome", self.enrolments.clone());
        r.register(
            "enrolments_waiting",
            "Enrolments that wait for their turn",
            self.enrolments_waiting.clone(),
        );
        r.register(
            "enrolments_max",
            "Enrolments that a pod makes at once",
            self.enrolments_max.clone(),
        );
        r.register("edges", "Transitions appended by this pod", self.edges.clone());
        r.register("unchanged_edges", "Edges that changed nothing", self.unchanged.clone());
        r.register(
            "locked_satellites",
            "Satellites whose rows have been locked for long, by what waits for them",
            self.locked_satellites.clone(),
        );
        r.register("authentications", "First messages by result", self.authentications.clone());
        r.register(
            "dropped_messages",
            "Messages or fields dropped, by reason",
            self.dropped.clone(),
        );
        r.register(
            "door_refusals",
            "Connections refused at the door, by limit",
            self.refusals.clone(),
        );
        r.register("tls_reloads", "New certificates by outcome", self.tls_reloads.clone());
        r.register(
            "sign_ons",
            "Single sign-ons that ended here, by outcome",
            self.sign_ons.clone(),
        );
        r.register("results", "Results by outcome", self.results.clone());
        r.register(
            "results_waiting",
            "Results that wait for JetStream",
            self.results_waiting.clone(),
        );
        r.register(
            "results_truncated",
            "Results passed on with their status only, as they are too large for NATS",
            self.results_truncated.clone(),
        );
        r.register(
            "large_message_bytes",
            "Bytes that satellites' large messages take of the room for them",
            self.large_message_bytes.clone(),
        );
        r.register(
            "large_message_bytes_max",
            "The room for large messages",
            self.large_message_bytes_max.clone(),
        );
        r.register(
            "large_messages_waiting",
            "Satellites that are not read until there is room for their large message",
            self.large_messages_waiting.clone(),
        );
        r.register(
            "held_back",
            "Times a satellite was not read for a while, by cause",
            self.held_back.clone(),
        );
        r.register(
            "questions_waiting",
            "Satellites' questions that wait for their turn",
            self.questions_waiting.clone(),
        );
        r.register("backend_requests", "Questions to other backends", self.asked.clone());
        r.register(
            "passed_on_messages",
            "Messages for others on core NATS",
            self.passed_on.clone(),
        );
        r.register("append_batch_edges", "Edges in one append", self.append_batch.clone());
        r.register_with_unit(
            "append",
            "Time of one append",
            Unit::Seconds,
            self.append_seconds.clone(),
        );
        r.register("append_failures", "Appends tried again", self.append_failures.clone());
        r.register(
            "wrong_tokens",
            "Tokens sent to /v1 that are not valid",
            self.wrong_tokens.clone(),
        );
        r.register("heartbeats_received", "Heartbeats received", self.heartbeats_received.clone());
        r.register("heartbeats_flushed", "Heartbeats written", self.heartbeats_flushed.clone());
        r.register(
            "vouched_sessions",
            "Sessions whose heartbeats need not be written: this pod vouches for them",
            self.vouched_sessions.clone(),
        );
        r.register(
            "vouch_exceptions",
            "Sessions not heard within the vouch window, so that their exact heartbeat was written",
            self.vouch_exceptions.clone(),
        );
        r.register(
            "heartbeats_stale",
            "Heartbeats of sessions no longer current",
            self.heartbeats_stale.clone(),
        );
        r.register(
            "heartbeat_flush_failures",
            "Flushes tried again",
            self.heartbeat_failures.clone(),
        );
        r.register_with_unit(
            "sweep",
            "Time of one sweep",
            Unit::Seconds,
            self.sweep_seconds.clone(),
        );
        r.register("sweep_failures", "Sweeps that failed", self.sweep_failures.clone());
        r.register(
            "losses_locked",
            "Losses left to the next sweep, as the row is locked",
            self.losses_locked.clone(),
        );
        r.register(
            "relay_lag_positions",
            "Transitions not known to be on the stream yet, by the relay's checkpoint",
            self.relay_lag.clone(),
        );
        r.register_with_unit(
            "relay_lag",
            "For how long the oldest of them has been in the log",
            Unit::Seconds,
            self.relay_lag_seconds.clone(),
        );
        r.register(
            "stream_disagreements",
            "Times stream and log were found to differ, by kind",
            self.disagreements.clone(),
        );
        r.register_with_unit(
            "detection_delay",
            "From the end of a satellite's threshold to the moment its loss was found",
            Unit::Seconds,
            self.detection_seconds.clone(),
        );
        r.register_with_unit(
            "blind",
            "Time in which no pod observed the satellites, counted by the pod that ended it",
            Unit::Seconds,
            self.blind_seconds.clone(),
        );
        r.register(
            "brown_out",
            "1 while losses are held because a large part went silent together",
            self.brown_out.clone(),
        );
        r.register("brown_out_held_edges", "Losses held", self.brown_out_held.clone());
        r.register("relay_leader", "1 while this pod relays", self.relay_leader.clone());
        r.register(
            "relay_halted",
            "1 while stream and log contradict each other",
            self.relay_halted.clone(),
        );
        r.register_with_unit(
            "relay_duplicate_window",
            "The stream's duplicate window, as the pod that relays sees it",
            Unit::Seconds,
            self.relay_duplicate_window.clone(),
        );
        r.register(
            "stream_replicas",
            "Servers that a stream is kept on, as this pod last saw it",
            self.stream_replicas.clone(),
        );
        r.register_collector(Box::new(self.census.clone()));
        r.register(
            "relay_published_messages",
            "Messages put on the stream",
            self.relay_published.clone(),
        );
        r.register(
            "relay_rejected_publishes",
            "Publishes the stream did not take as expected",
            self.relay_rejected.clone(),
        );
        r.register(
            "relay_foreign_messages",
            "Foreign messages on our subjects",
            self.relay_foreign.clone(),
        );
        r.register(
            "sealed_position",
            "The newest sealed position of the log",
            self.sealed_position.clone(),
        );
        r.register(
            "audit_entries_dropped",
            "Entries of the audit that retention dropped",
            self.audit_dropped.clone(),
        );
        r.register(
            "audit_left_out",
            "Sign-ins and refusals without an entry in the audit, because too many different ones came",
            self.audit_left_out.clone(),
        );
        r.register(
            "audit_write_failures",
            "Writes of sign-ins and refusals into the audit that failed",
            self.audit_failures.clone(),
        );
        r.register("seal_failures", "Attempts to seal that failed", self.seal_failures.clone());
        r.register(
            "log_horizon_position",
            "The newest position dropped by retention",
            self.log_horizon.clone(),
        );
        r.register(
            "retention_failures",
            "Failed searches for old partitions",
            self.retention_failures.clone(),
        );
        r.register("database_up", "1 while the database can be written", self.database_up.clone());
        r.register(
            "database_connections_in_use",
            "Database connections in use",
            self.database_connections.clone(),
        );
        r.register(
            "database_connections_max",
            "Database connections a pod may have",
            self.database_connections_max.clone(),
        );
        r.register(
            "database_connections_waiting",
            "Callers that wait for a database connection",
            self.database_waiting.clone(),
        );
        r.register_with_unit(
            "database_connection_wait",
            "Time until a caller had a database connection",
            Unit::Seconds,
            self.database_wait_seconds.clone(),
        );
        r.register(
            "database_connection_failures",
            "Callers that got no database connection",
            self.database_wait_failures.clone(),
        );
        r.register(
            "database_cancellations",
            "Statements cancelled because their caller had gone",
            self.database_cancelled.clone(),
        );
        r.register("nats_up", "1 while connected to NATS", self.nats_up.clone());
        r.register_with_unit(
            "process_start_time",
            "When the pod started, in Unix time",
            Unit::Seconds,
            self.started.clone(),
        );
    }

    /// Counts an appended transition.
    pub fn edge(&self, event: Event, reason: Reason) {
        let labels = [("event", event.as_str()), ("reason", reason.as_str())];
        self.edges.get_or_create(&labels).inc();
    }

    /// Counts an enrolment.
    pub fn enrolment(&self, outcome: EnrolmentOutcome) {
        self.enrolments.get_or_create(&[("outcome", outcome.into())]).inc();
    }

    /// Counts an edge that changed nothing.
    pub fn unchanged(&self, why: Unchanged) {
        self.unchanged.get_or_create(&[("reason", why.as_str())]).inc();
    }

    /// Sets the number of satellites for which `edges` or `heartbeats` wait because the row is
    /// locked.
    pub fn locked_satellites(&self, what: &'static str, count: i64) {
        self.locked_satellites.get_or_create(&[("what", what)]).set(count);
    }

    /// Counts a first message: `ok`, `refused`, `certificate`, `disabled`, `not_authenticate`, `timeout`, `too_often`, `shed`,
    /// `unavailable`.
    pub fn authentication(&self, result: &'static str) {
        self.authentications.get_or_create(&[("result", result)]).inc();
    }

    /// Counts a message that was dropped, or one that lost a field.
    pub fn dropped(&self, reason: &'static str) {
        self.dropped.get_or_create(&[("reason", reason)]).inc();
    }

    /// Shows these limits of the door before one of them is reached.
    pub fn show_limits(&self, limits: impl Iterator<Item = &'static str>) {
        for limit in limits {
            self.refusals.get_or_create(&[("reason", limit)]).inc_by(0);
        }
    }

    /// Counts a connection that was refused at the door.
    pub fn refused(&self, limit: impl Into<&'static str>) {
        self.refusals.get_or_create(&[("reason", limit.into())]).inc();
    }

    /// Counts a changed certificate: `ok`, or `failed` if the one before stays in use.
    pub fn tls_reload(&self, outcome: &'static str) {
        self.tls_reloads.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a single sign-on: `signed-in`, or the word that the page tells whoever was refused.
    pub fn sign_on(&self, outcome: &'static str) {
        self.sign_ons.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a result: `delivered`, `not_assigned`, `revoked`, `overflowed`, `over_budget`, `too_large`.
    pub fn result(&self, outcome: &'static str) {
        self.results.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a difference between stream and log.
    pub fn disagreement(&self, kind: Disagreement, times: u64) {
        self.disagreements.get_or_create(&[("kind", kind.as_str())]).inc_by(times);
    }

    /// Sets how many connections of a pool are in use, and how many there may be.
    pub fn connections(&self, pool: &'static str, in_use: usize, max: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.database_connections.get_or_create(&[("pool", pool)]).set(number(in_use));
        self.database_connections_max.get_or_create(&[("pool", pool)]).set(number(max));
    }

    /// Sets how many servers a stream is kept on.
    pub fn stream_replicas(&self, stream: &'static str, replicas: usize) {
        let number = i64::try_from(replicas).unwrap_or(i64::MAX);
        self.stream_replicas.get_or_create(&[("stream", stream)]).set(number);
    }

    /// Counts a caller that waits for a connection of a pool, until dropped.
    pub fn waiting(&self, pool: &'static str) -> Counted {
        Counted::on(&self.database_waiting.get_or_create(&[("pool", pool)]))
    }

    /// Counts how long a caller waited for a connection of a pool, and whether it got one.
    pub fn waited(&self, pool: &'static str, wait: Duration, has_one: bool) {
        let labels = [("pool", pool)];
        self.database_wait_seconds.get_or_create(&labels).observe(wait.as_secs_f64());
        if !has_one {
            self.database_wait_failures.get_or_create(&labels).inc();
        }
    }

    /// Counts a satellite that is not read for a while: `rate` for what it has sent, `room` for
    /// what it is sending.
    pub fn held_back(&self, by: &'static str) {
        self.held_back.get_or_create(&[("by", by)]).inc();
    }

    /// Counts a question to another backend.
    pub fn asked(&self, subject: &'static str, outcome: &'static str) {
        self.asked.get_or_create(&[("subject", subject), ("outcome", outcome)]).inc();
    }

    /// Counts a message for others on core NATS.
    pub fn passed_on(&self, subject: &'static str, outcome: &'static str) {
        self.passed_on.get_or_create(&[("subject", subject), ("outcome", outcome)]).inc();
    }

    /// The text of `GET /metrics`.
    pub fn encode(&self, form: Form) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(form.of(text))
    }
}

/// Counts one thing for as long as this exists: a panic ends the count too.
pub struct Counted(Gauge);

impl Counted {
    /// Counts one more.
    pub fn on(gauge: &Gauge) -> Counted {
        gauge.inc();
        Counted(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// What an enrolment can come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum EnrolmentOutcome {
    /// A new satellite.
    Enrolled,
    /// The answer of before, once more.
    Repeated,
    /// The token, or the key, is good for nothing any more.
    Refused,
    /// Its turn did not come.
    TurnedAway,
}

/// How stream and log can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Disagreement {
    /// The stream lost messages it had acknowledged; they were published again.
    Behind,
    /// The stream has what the log does not; the relay halted.
    Contradiction,
    /// A foreign message on our subjects.
    Foreign,
}

impl Disagreement {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
