//! Which satellites went silent, and up to when that can be judged.

pub(crate) mod census;
pub mod flusher;
mod left_behind;
#[cfg(test)]
mod model;
pub mod monitor;
pub(crate) mod probe;
mod reconciliation;
