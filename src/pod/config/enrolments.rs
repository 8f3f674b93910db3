//! The bounds of a pod's enrolments.

use clap::Args;

use super::duration;
use crate::api::enrolment::Limits;

/// Those that wait are connections at the door, of which satellites need the most.
const WAITING_SHARE: u32 = 4;

/// The settings of enrolments.
#[derive(Args, Clone)]
pub struct EnrolmentArgs {
    /// Satellites that this pod enrols at once (POST /v1/enrol), each by a connection of the 8 of its own work. Others
    /// wait for their turn, but no more than a quarter of GROUNDSTATION_MAX_CONNECTIONS
    #[arg(long, env = "GROUNDSTATION_MAX_ENROLMENTS", default_value_t = 2,
          value_parser = clap::value_parser!(u16).range(1..=4), value_name = "COUNT")]
    max_enrolments: u16,

    /// How long one of them waits before it is answered 503
    #[arg(
        long,
        env = "GROUNDSTATION_ENROLMENT_WAIT",
        default_value = "5s",
        value_name = "DURATION"
    )]
    enrolment_wait: String,
}

impl EnrolmentArgs {
    pub(super) fn check(&self, connections: u32) -> anyhow::Result<Limits> {
        Ok(Limits {
            at_once: usize::from(self.max_enrolments),
            waiting: (connections / WAITING_SHARE) as usize,
            wait: duration("GROUNDSTATION_ENROLMENT_WAIT", &self.enrolment_wait)?,
        })
    }
}
