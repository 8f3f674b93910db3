//! What outsiders rely on: the JSON of states, transitions and messages, the triggers, the schemas of events.

pub mod event_schemas;
pub mod fleet;
pub mod triggers;
pub mod wire;
pub mod word;
