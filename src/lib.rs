//! Groundstation knows which of a fleet of remote agents ("satellites") are connected, which left
//! and which went silent, and can prove it.
//!
//! ```text
//! satellites → gateway ──┐                        ┌→ satellite_connections → reads (HTTP, NATS)
//!                        ├→ log + projection ─────┤
//! time       → monitor ──┘  (one Postgres commit) └→ relay → JetStream → automation engine
//! ```
//!
//! The left side writes, the right side reads; they meet only in the table. No request publishes
//! anything itself. Edges flow one way. [`pod`] puts the parts together; [`domain::lifecycle`] and
//! [`domain::liveness`] hold every rule and touch nothing.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

pub mod api;
pub mod cli;
pub mod clients;
pub mod console;
pub mod contract;
pub mod dev;
pub mod domain;
pub mod forward;
pub mod gateway;
pub mod ingress;
pub mod log;
pub mod platform;
pub mod pod;
pub mod presence;
pub mod registry;
pub mod sessions;
pub mod stream;
