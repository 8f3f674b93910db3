//! The settings of the flapping mark and of the brown-out guard.

use anyhow::bail;
use clap::Args;

use super::duration;
use crate::domain::brown_out;
use crate::domain::flapping;

/// The settings of the brown-out guard and of the mark of flapping.
#[derive(Args, Clone)]
pub struct GuardArgs {
    /// Hold losses when more than this per cent of the fleet, or of one pod's sessions, goes silent
    /// together
    #[arg(long, env = "GROUNDSTATION_BROWN_OUT_SHARE", default_value_t = 55,
          value_parser = clap::value_parser!(u8).range(1..=100), value_name = "PERCENT")]
    brown_out_share: u8,

    /// … and more satellites than this
    #[arg(
        long,
        env = "GROUNDSTATION_BROWN_OUT_FLOOR",
        default_value_t = 20,
        value_name = "SATELLITES"
    )]
    brown_out_floor: u64,

    /// … for this long at most; then they are declared
    #[arg(
        long,
        env = "GROUNDSTATION_BROWN_OUT_HOLD",
        default_value = "60s",
        value_name = "DURATION"
    )]
    brown_out_hold: String,

    /// The time in which a satellite's edges are counted
    #[arg(
        long,
        env = "GROUNDSTATION_FLAPPING_WINDOW",
        default_value = "5m",
        value_name = "DURATION"
    )]
    flapping_window: String,

    /// Mark a satellite as flapping when it has more edges than this within the window, up to 100
    #[arg(long, env = "GROUNDSTATION_FLAPPING_EDGES", default_value_t = 10, value_name = "EDGES")]
    flapping_edges: usize,

    /// Remove the mark when the satellite has no more edges than this
    #[arg(long, env = "GROUNDSTATION_FLAPPING_CALM", default_value_t = 5, value_name = "EDGES")]
    flapping_calm: usize,
}

impl GuardArgs {
    pub(super) fn check(&self) -> anyhow::Result<(brown_out::Rules, flapping::Rules)> {
        let brown_out = brown_out::Rules {
            share: self.brown_out_share,
            floor: self.brown_out_floor,
            hold: duration("GROUNDSTATION_BROWN_OUT_HOLD", &self.brown_out_hold)?,
        };
        let flapping = flapping::Rules {
            window: duration("GROUNDSTATION_FLAPPING_WINDOW", &self.flapping_window)?,
            edges: self.flapping_edges,
            calm: self.flapping_calm,
        };
        if !(1..=flapping::MAX_EDGES).contains(&flapping.edges) {
            bail!("GROUNDSTATION_FLAPPING_EDGES must be from 1 to {}", flapping::MAX_EDGES);
        }
        if flapping.calm >= flapping.edges {
            bail!("GROUNDSTATION_FLAPPING_CALM must be less than GROUNDSTATION_FLAPPING_EDGES");
        }
        Ok((brown_out, flapping))
    }
}
