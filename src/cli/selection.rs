//! Which satellites a command is about: the words of the HTTP API.

use clap::Args;

use super::paged::given;

/// What clap names each of those that go with the present only.
const OF_THE_PRESENT: [&str; 2] = ["agent_version", "never_connected"];

#[derive(Args, Default, PartialEq, Eq)]
pub struct SelectionArgs {
    /// online or offline
    #[arg(long)]
    status: Option<String>,
    /// Only this region
    #[arg(long)]
    region: Option<String>,
    /// Only with this tag; may be given several times, for those with all of them
    #[arg(long = "tag", value_name = "NAME:VALUE")]
    tags: Vec<String>,
    /// Only names that contain this
    #[arg(long, value_name = "TEXT")]
    q: Option<String>,
    /// Only whose last edge is this: connected, disconnected or heartbeat_lost
    #[arg(long, value_name = "EVENT")]
    last_event: Option<String>,
    /// Only those that come and go too often [=false: only the others]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    flapping: Option<bool>,
    /// Only whose agent is of this version
    #[arg(long, value_name = "VERSION")]
    agent_version: Option<String>,
    /// Only those that have never connected [=false: only the others]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    never_connected: Option<bool>,
    /// Only those that have been offline and unheard of for so long, such as 30d
    #[arg(long, value_name = "DURATION")]
    inactive_for: Option<String>,
    /// As it was at this moment, such as 2026-03-01T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with_all = OF_THE_PRESENT)]
    at: Option<String>,
    /// As it was right after this position of the log
    #[arg(long, value_name = "N", conflicts_with_all = ["at", OF_THE_PRESENT[0], OF_THE_PRESENT[1]])]
    position: Option<u64>,
}

impl SelectionArgs {
    /// The parameters of the API.
    pub fn parameters(self) -> Vec<(&'static str, String)> {
        let once = [
            ("status", self.status),
            ("region", self.region),
            ("q", self.q),
            ("lastEvent", self.last_event),
            ("flapping", self.flapping.map(|flapping| flapping.to_string())),
            ("version", self.agent_version),
            ("neverConnected", self.never_connected.map(|never| never.to_string())),
            ("inactiveFor", self.inactive_for),
            ("at", self.at),
            ("position", self.position.map(|position| position.to_string())),
        ];
        given(once).chain(self.tags.into_iter().map(|tag| ("tag", tag))).collect()
    }
}
