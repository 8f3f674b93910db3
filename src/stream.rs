//! The stream of transitions on NATS: bringing the log there, comparing both, playing it again.

pub mod audit;
pub mod checkpoint;
mod density;
pub mod message;
#[cfg(test)]
mod model;
pub mod relay;
pub mod replay;
pub mod tail;
