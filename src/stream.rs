//! The stream of transitions on NATS: bringing the log there, comparing both, playing it again.

pub(crate) mod audit;
pub(crate) mod checkpoint;
mod density;
pub(crate) mod message;
#[cfg(test)]
mod model;
pub mod relay;
pub(crate) mod replay;
pub mod tail;
