//! How a pod shuts down.

use std::time::Duration;

use anyhow::bail;
use clap::Args;

/// The settings of the shutdown.
#[derive(Args, Clone)]
pub struct DrainArgs {
    /// How long a pod that was told to end stays up, unready and accepting no connection, before it
    /// closes anything, so that a load balancer learns of it
    #[arg(long, env = "GROUNDSTATION_DRAIN_DELAY", default_value = "2s", value_name = "DURATION")]
    drain_delay: String,

    /// The time over which it closes its sockets
    #[arg(long, env = "GROUNDSTATION_DRAIN_SPREAD", default_value = "5s", value_name = "DURATION")]
    drain_spread: String,

    /// The time by which it has ended
    #[arg(
        long,
        env = "GROUNDSTATION_DRAIN_DEADLINE",
        default_value = "25s",
        value_name = "DURATION"
    )]
    drain_deadline: String,
}

/// The checked settings of the shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// How long the pod is unready before it closes anything.
    pub delay: Duration,
    /// The time over which sockets are closed.
    pub spread: Duration,
    /// The time by which everything has ended.
    pub deadline: Duration,
}

/// The least that is left of the deadline when the last socket is closed: for the edges, the
/// heartbeats and the lease.
const RESERVE: Duration = Duration::from_secs(5);

impl DrainArgs {
    pub(super) fn check(&self) -> anyhow::Result<Drain> {
        // Both may be zero, which other durations may not.
        let span = |name: &str, text: &str| match humantime::parse_duration(text) {
            Ok(span) if span <= Duration::from_secs(3600) => Ok(span),
            Ok(_) => bail!("{name} is {text:?}: it must be at most 1h"),
            Err(_) => bail!("{name} is {text:?}, not a duration such as 5s or 0s"),
        };
        let drain = Drain {
            delay: span("GROUNDSTATION_DRAIN_DELAY", &self.drain_delay)?,
            spread: span("GROUNDSTATION_DRAIN_SPREAD", &self.drain_spread)?,
            deadline: span("GROUNDSTATION_DRAIN_DEADLINE", &self.drain_deadline)?,
        };
        if drain.delay + drain.spread + RESERVE > drain.deadline {
            bail!(
                "GROUNDSTATION_DRAIN_DEADLINE ({}) must leave {}s after GROUNDSTATION_DRAIN_DELAY ({}) and GROUNDSTATION_DRAIN_SPREAD ({})",
                self.drain_deadline,
                RESERVE.as_secs(),
                self.drain_delay,
                self.drain_spread
            );
        }
        Ok(drain)
    }
}
