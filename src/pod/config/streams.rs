//! The bounds of a pod's live streams.

use std::time::Duration;

use clap::Args;

use super::duration;
use crate::api::live::Limits;

/// The settings of live streams.
#[derive(Args, Clone)]
pub struct StreamArgs {
    /// Readers of /v1/transitions/stream and /v1/audit/stream at this pod; more are answered 503
    #[arg(long, env = "GROUNDSTATION_MAX_STREAMS", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=4_096), value_name = "COUNT")]
    max_streams: u32,

    /// How long one of them lasts; its reader reconnects where it was, to any pod, with a token
    /// that is valid then
    #[arg(
        long,
        env = "GROUNDSTATION_STREAM_LIFETIME",
        default_value = "1h",
        value_name = "DURATION"
    )]
    stream_lifetime: String,
}

impl StreamArgs {
    pub(super) fn check(&self, write_timeout: Duration) -> anyhow::Result<Limits> {
        Ok(Limits {
            streams: self.max_streams as usize,
            lifetime: duration("GROUNDSTATION_STREAM_LIFETIME", &self.stream_lifetime)?,
            write_timeout,
        })
    }
}
