//! Programs that talk to a pod: an agent, a fleet of them, the administration API.

pub mod agent;
pub(crate) mod client;
pub mod simulate;
pub(crate) mod watch;
