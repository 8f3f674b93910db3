//! The catalogue of triggers, as an editor of automations needs it.

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::Value;
use strum::IntoEnumIterator;

use crate::contract::event_schemas;
use crate::domain::lifecycle::{Event, Trigger};

/// Where an editor files them all.
const CATEGORY: &str = "Satellites";

/// The field of a payload by which runs of an automation belong together.
const CONTEXT_KEY: &str = "satelliteId";

/// All triggers.
#[derive(Debug, Serialize)]
pub struct Catalogue {
    /// One for each of [`Trigger`].
    pub triggers: Vec<TriggerJson>,
}

/// One of them.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerJson {
    /// What to subscribe to: the subject on NATS.
    pub id: &'static str,
    /// The edge that fires it.
    pub event: &'static str,
    /// For people.
    pub display_name: &'static str,
    /// For people, in a sentence.
    pub description: &'static str,
    /// Where an editor files it.
    pub category: &'static str,
    /// The name of an icon of the Lucide set.
    pub icon: &'static str,
    /// The JSON Schema (draft 7) of a message's body.
    pub payload_schema: Value,
    /// The field of the payload by which runs belong together.
    pub context_key: &'static str,
}

/// The catalogue; it never changes while a program runs.
pub static CATALOGUE: LazyLock<Catalogue> =
    LazyLock::new(|| Catalogue { triggers: Trigger::iter().map(describe).collect() });

fn describe(trigger: Trigger) -> TriggerJson {
    let (event, display_name, icon) = match trigger {
        Trigger::Connected => (Event::Connected, "Satellite connected", "plug-zap"),
        Trigger::Disconnected => (Event::Disconnected, "Satellite disconnected", "unplug"),
        Trigger::HeartbeatLost => (Event::HeartbeatLost, "Satellite heartbeat lost", "heart-off"),
    };
    TriggerJson {
        id: trigger.id(),
        event: event.as_str(),
        display_name,
        description: event_schemas::description(event),
        category: CATEGORY,
        icon,
        payload_schema: event_schemas::payload(event),
        context_key: CONTEXT_KEY,
    }
}
