//! Who is here, who went silent, and who could not be heard.

mod blind_time;
mod brown_out;
mod census;
#[cfg(target_os = "linux")]
mod clocks;
mod completeness;
mod going_silent;
mod heartbeats;
mod late_heartbeats;
#[cfg(feature = "failpoints")]
mod many_due;
#[cfg(target_os = "linux")]
mod suspended_machine;
mod thresholds;
mod vouching;
