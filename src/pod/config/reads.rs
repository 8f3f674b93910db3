//! The bounds of a pod's reads.

use clap::Args;

use super::duration;
use crate::platform::database::Reads;

/// The settings of reads.
#[derive(Args, Clone)]
pub struct ReadArgs {
    /// Connections of this pod to the database for reads (HTTP, NATS, live streams), beside the 8
    /// of its own work: as many reads run at once, and half as many that look at many rows
    #[arg(long, env = "GROUNDSTATION_READ_CONNECTIONS", default_value_t = 6,
          value_parser = clap::value_parser!(u16).range(2..=100), value_name = "COUNT")]
    read_connections: u16,

    /// How long a read may take before the database ends it
    #[arg(long, env = "GROUNDSTATION_READ_TIMEOUT", default_value = "5s", value_name = "DURATION")]
    read_timeout: String,

    /// How long a read waits for its turn before it is answered 503
    #[arg(long, env = "GROUNDSTATION_READ_WAIT", default_value = "3s", value_name = "DURATION")]
    read_wait: String,
}

impl ReadArgs {
    pub(super) fn check(&self) -> anyhow::Result<Reads> {
        Ok(Reads {
            connections: usize::from(self.read_connections),
            timeout: duration("GROUNDSTATION_READ_TIMEOUT", &self.read_timeout)?,
            wait: duration("GROUNDSTATION_READ_WAIT", &self.read_wait)?,
        })
    }
}
