//! The stream of transitions on NATS: relay, audit, repair and replay.

pub(crate) mod audit;
pub(crate) mod checkpoint;
mod density;
pub(crate) mod message;
#[cfg(test)]
mod model;
mod patience;
pub mod relay;
pub(crate) mod replay;
pub mod tail;
