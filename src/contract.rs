//! The contract with outsiders: the JSON of states, transitions and messages, the triggers, the
//! schemas of events.

pub mod assignments;
pub(crate) mod audit;
pub mod event_schemas;
pub(crate) mod fleet;
pub(crate) mod maintenance;
pub(crate) mod tokens;
pub(crate) mod triggers;
pub(crate) mod what_if;
pub mod wire;
pub mod word;
