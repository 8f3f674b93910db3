//! Who went silent, and up to when that can be told.

pub mod flusher;
#[cfg(test)]
mod model;
pub mod monitor;
pub mod probe;
