//! Programs that talk to a pod: an agent, a fleet of them, the administration API.

pub mod agent;
pub mod client;
pub mod simulate;
pub mod watch;
