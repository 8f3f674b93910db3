//! Who is here: the sessions of this pod, their heartbeats, what they are told from outside.

pub mod budgets;
pub mod changes;
pub mod heartbeats;
pub mod peers;
pub mod table;
pub mod vouching;
