use std::convert::Infallible;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

/// What happened to a satellite.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// Its place in the log: 1, 2, 3 … without a gap.
    pub position: i64,
    /// Its identity, the same wherever it is read.
    pub change: Uuid,
    /// Its place among those of its satellite.
    pub revision: i64,
    /// The satellite; of an event of another kind, what it is about.
    pub satellite: Uuid,
    /// What happened.
    pub event: Event,
    /// Why, such as `connect` or `heartbeat_timeout`. A later version may know more reasons.
    pub reason: String,
    /// In which of the satellite's sessions.
    pub session: i64,
    /// When it happened.
    #[serde(with = "time::serde::rfc3339")]
    pub occurred_at: OffsetDateTime,
    /// How the satellite is since then; none once it is removed.
    pub state: Option<State>,
    /// Whether the satellite comes and goes too often.
    pub flapping: bool,
    /// The outage that it is part of.
    pub outage: Option<Uuid>,
    /// The maintenance window that its satellite was in.
    pub maintenance: Option<Uuid>,
}

/// The kind of a transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A satellite is here.
    Connected,
    /// It left, or its connection broke.
    Disconnected,
    /// It went silent.
    HeartbeatLost,
    /// It was removed from the fleet.
    Removed,
    /// A later version's.
    #[serde(untagged)]
    Other(String),
}

impl FromStr for Event {
    type Err = Infallible;

    fn from_str(word: &str) -> Result<Event, Infallible> {
        Ok(match word {
            "connected" => Event::Connected,
            "disconnected" => Event::Disconnected,
            "heartbeat_lost" => Event::HeartbeatLost,
            "removed" => Event::Removed,
            other => Event::Other(other.to_owned()),
        })
    }
}

/// How a satellite is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Online or offline.
    pub status: Status,
    /// Its last heartbeat; none after it left.
    #[serde(with = "time::serde::rfc3339::option")]
    pub last_seen_at: Option<OffsetDateTime>,
}

/// Whether a satellite is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is heard.
    Online,
    /// It is not.
    #[serde(other)]
    Offline,
}
