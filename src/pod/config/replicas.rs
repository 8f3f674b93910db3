//! On how many servers JetStream keeps a stream, for every command that may make one.

use anyhow::anyhow;
use clap::Args;

use crate::platform::replicas::Replicas;

/// The setting of a stream's replicas.
#[derive(Args, Clone)]
pub struct ReplicasArgs {
    /// On how many servers of its cluster JetStream keeps a stream that this program makes: 1 to 5, or auto for as
    /// many as the cluster has, 3 at most. A stream that is there stays as it is
    #[arg(
        long,
        env = "GROUNDSTATION_STREAM_REPLICAS",
        default_value = "auto",
        value_name = "COUNT"
    )]
    stream_replicas: String,
}

impl ReplicasArgs {
    /// The checked setting.
    pub fn replicas(&self) -> anyhow::Result<Replicas> {
        let text = &self.stream_replicas;
        text.parse().map_err(|wrong| anyhow!("GROUNDSTATION_STREAM_REPLICAS is {text:?}: {wrong}"))
    }
}
