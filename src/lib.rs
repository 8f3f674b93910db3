//! Groundstation knows, for a fleet of remote agents ("satellites"), who is connected, who left and
//! who went silent, and can prove it.
//!
//! ```text
//! satellites → gateway ──┐                        ┌→ satellite_connections → reads (HTTP, NATS)
//!                        ├→ log + projection ─────┤
//! time       → monitor ──┘  (one Postgres commit) └→ relay → JetStream → automation engine
//! ```
//!
//! The left side writes, the right side reads; they meet only in the table. Nobody publishes from
//! the request path. Edges flow one way. [`pod`] puts the parts together; [`lifecycle`] and
//! [`liveness`] hold every rule and touch nothing.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub mod agent;
pub mod api;
pub mod assignments;
pub mod audit;
pub mod body;
pub mod budgets;
pub mod changes;
pub mod cli;
pub mod client;
pub mod client_tls;
pub mod config;
pub mod credentials;
pub mod database;
pub mod database_clock;
pub mod dev;
pub mod door;
pub mod event_schemas;
pub mod expected;
mod failpoint;
pub mod flapping;
pub mod flusher;
pub mod gateway;
pub mod health;
pub mod heartbeats;
pub mod history;
pub mod import;
pub mod lifecycle;
pub mod liveness;
pub mod locked_rows;
pub mod log;
pub mod logging;
pub mod lookup;
pub mod message_schemas;
pub mod metrics;
pub mod monitor;
pub mod nats;
pub mod observation;
pub mod packages;
pub mod peers;
pub mod plain_text;
pub mod pod;
pub mod probe;
pub mod progress;
pub mod projector;
pub mod relay;
pub mod replay;
pub mod results;
pub mod retention;
pub mod rights;
pub mod run_secrets;
pub mod sandbox;
pub mod satellites;
pub mod schema;
pub mod seal;
pub mod secrets;
pub mod shutdown;
pub mod simulate;
pub mod standing;
pub mod token;
pub mod trace;
pub mod triggers;
pub mod units;
pub mod wanted;
pub mod watch;
pub mod wire;
