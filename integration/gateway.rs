//! What satellites and pods say to each other.

mod authentication;
mod bad_frames;
mod foreign_agent;
mod held_back;
mod large_messages;
mod message_schemas;
mod newer_agents;
mod question_queue;
mod results;
mod results_share;
mod run_secrets;
mod script_packages;
#[cfg(feature = "failpoints")]
mod session_panics;
mod slow_reader;
