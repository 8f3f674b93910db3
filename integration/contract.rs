//! What outsiders are told of the events, and that the events are that.

mod an_edge_reaches_the_subscriber;
mod asyncapi;
mod event_schemas;
mod triggers;
