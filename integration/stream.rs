//! The stream is the log, whatever becomes of either.

pub mod audit;
mod cells;
mod checker;
mod cluster_faults;
mod nats_away;
mod relay;
pub mod relay_among_others;
mod relay_cluster;
mod relay_contradictions;
mod relay_idle;
#[cfg(feature = "failpoints")]
mod relay_killed;
mod replay;
mod replicas;
mod restore_drill;
#[cfg(feature = "failpoints")]
mod stale_relay;
