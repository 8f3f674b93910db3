//! The ground the program stands on, without knowledge of satellites: connections to Postgres and
//! NATS, migrations, metrics, traces, logging, health, tokens, units.

pub mod batch_loader;
pub(crate) mod bucket;
pub(crate) mod client_tls;
pub mod database;
pub mod database_clock;
pub(crate) mod engines;
pub(crate) mod envelope;
pub(crate) mod failpoint;
pub(crate) mod fetch;
pub mod health;
pub(crate) mod log_gate;
pub(crate) mod logging;
pub mod metrics;
pub mod migrations;
pub mod nats;
pub(crate) mod pooler;
pub(crate) mod progress;
pub mod replicas;
pub(crate) mod session;
pub(crate) mod shutdown;
pub mod token;
pub(crate) mod trace;
pub(crate) mod turns;
pub mod units;
pub mod unreachable;
