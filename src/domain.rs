//! The rules, pure: what a signal changes, which satellites are online, which flap, when losses are
//! held, what a cell may be called, whom a certificate names, which selectors meet.
//!
//! Nothing here waits, reads or writes; time comes in as an argument.

pub mod access;
pub mod brown_out;
pub mod cell;
pub mod certificate;
pub mod flapping;
pub mod groups;
pub mod lifecycle;
pub mod liveness;
pub mod marks;
pub mod selection;
pub mod together;
pub mod what_if;
