//! Who went silent, and up to when that can be told.

pub mod flusher;
mod left_behind;
#[cfg(test)]
mod model;
pub mod monitor;
pub mod probe;
mod reconciliation;
