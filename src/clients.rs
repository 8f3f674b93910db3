//! Programs that talk to a pod: an agent, a fleet of agents, a client of the API.

pub mod agent;
pub(crate) mod client;
pub(crate) mod printable;
pub mod simulate;
pub(crate) mod watch;
