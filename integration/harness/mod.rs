//! The base of every test: real stores, real pods, real sockets, and checks that look at the outcome from
//! outside.

pub mod agents;
pub mod asked;
pub mod backup;
pub mod browser;
pub mod cells;
pub mod clock;
pub mod cluster;
pub mod exposition;
pub mod faults;
pub mod fleet;
pub mod foreign;
pub mod heartbeats;
pub mod imported;
pub mod invariants;
pub mod kubectl;
mod lines;
pub mod log_and_stream;
pub mod onlooker;
pub mod pgbouncer;
pub mod pod;
pub mod program;
pub mod promtool;
pub mod proxy;
pub mod raw;
pub mod reader;
pub mod refusal;
pub mod relaying;
pub mod running;
pub mod satellite;
pub mod schemas;
pub mod stores;
pub mod subscriber;
pub mod traffic;
pub mod wait;
pub mod written;
pub mod written_log;

pub use agents::Agents;
pub use clock::Clock;
pub use fleet::{BRISK, CALM, Fleet, SWEPT_OFTEN, steady};
pub use onlooker::Onlooker;
pub use pgbouncer::PgBouncer;
pub use pod::Pod;
pub use proxy::Proxy;
pub use satellite::{Credentials, Heard, Satellite};
pub use wait::{eventually, within};
