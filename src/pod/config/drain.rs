//! How a pod ends.

use std::time::Duration;

use anyhow::bail;
use clap::Args;

/// The settings of a pod's end.
#[derive(Args, Clone)]
pub struct DrainArgs {
    /// How long a pod that was told to end goes on unready, letting nobody in, before it closes
    /// anything, so that whoever sends it satellites learns of it
    #[arg(long, env = "GROUNDSTATION_DRAIN_DELAY", default_value = "2s", value_name = "DURATION")]
    drain_delay: String,

    /// Over how long it closes its sockets
    #[arg(long, env = "GROUNDSTATION_DRAIN_SPREAD", default_value = "5s", value_name = "DURATION")]
    drain_spread: String,

    /// By when it has ended
    #[arg(
        long,
        env = "GROUNDSTATION_DRAIN_DEADLINE",
        default_value = "25s",
        value_name = "DURATION"
    )]
    drain_deadline: String,
}

/// How a pod ends, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Unready before anything is closed.
    pub delay: Duration,
    /// Sockets are closed over this long.
    pub spread: Duration,
    /// Everything is over by then.
    pub deadline: Duration,
}

/// What is left of the deadline, at least, when the last socket is closed: for the edges, the
/// heartbeats and the lease.
const RESERVE: Duration = Duration::from_secs(5);

impl DrainArgs {
    pub(super) fn check(&self) -> anyhow::Result<Drain> {
        // Both may be nothing at all, which other durations may not.
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
