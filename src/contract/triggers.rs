//! The catalogue of triggers, for an editor of automations.

use std::sync::LazyLock;

use serde::Serialize;
use serde_json::Value;
use strum::IntoEnumIterator;

use crate::contract::event_schemas;
use crate::domain::lifecycle::{Event, Trigger};

/// The editor's category for all of them.
const CATEGORY: &str = "Satellites";

/// The field of a payload that groups runs of an automation.
const CONTEXT_KEY: &str = "satelliteId";

/// All triggers.
#[derive(Debug, Serialize)]
pub struct Catalogue {
    /// One for each [`Trigger`].
    pub triggers: Vec<TriggerJson>,
}

/// A trigger.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerJson {
    /// The subject on NATS to subscribe to.
    pub id: &'static str,
    /// The edge that fires it.
    pub event: &'static str,
    /// The name for people.
    pub display_name: &'static str,
    /// The description for people, in a sentence.
    pub description: &'static str,
    /// The editor's category.
    pub category: &'static str,
    /// The name of an icon of the Lucide set.
    pub icon: &'static str,
    /// The JSON Schema (draft 7) of a message's body.
    pub payload_schema: Value,
    /// The field of the payload that groups runs.
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
