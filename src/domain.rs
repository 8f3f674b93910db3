//! The rules, pure: what an edge changes, who is online, who flaps, when losses are held.
//!
//! Nothing here waits, reads or writes; time comes in as an argument.

pub mod brown_out;
pub mod flapping;
pub mod lifecycle;
pub mod liveness;
pub mod selection;
