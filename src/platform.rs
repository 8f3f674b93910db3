//! What the program stands on, and knows nothing of satellites: the ways to Postgres and NATS, migrations,
//! metrics, traces, logging, health, tokens, units.

pub mod batch_loader;
pub mod client_tls;
pub mod database;
pub mod database_clock;
pub(crate) mod failpoint;
pub mod health;
pub mod logging;
pub mod metrics;
pub mod migrations;
pub mod nats;
pub mod progress;
pub mod shutdown;
pub mod token;
pub mod trace;
pub mod units;
