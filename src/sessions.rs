//! The sessions of this pod, their heartbeats, and what they are told from outside.

pub(crate) mod budgets;
pub(crate) mod changes;
pub mod heartbeats;
pub(crate) mod peers;
pub mod table;
pub mod vouching;
