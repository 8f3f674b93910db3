//! The database, NATS, metrics and traces, as a pod uses them.

mod lookups;
mod metrics;
mod migrations;
mod nats_tls;
mod poolers;
mod postgres_versions;
mod traces;
mod upgrades;
