//! The JSON Schemas of the bodies on the stream, generated from the types that are sent.
//!
//! `schema/events/` holds them as files, one a subject. A test fails when a file is stale;
//! `make schemas` writes them. They are of draft 7, which AsyncAPI takes as it is. Fields may be
//! added one day, so no schema forbids further ones.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};
use strum::IntoEnumIterator;

use crate::contract::wire::{EdgeJson, RemovedJson};
use crate::domain::lifecycle::{Event, REMOVED_SUBJECT, Trigger};

/// The subject of an event's messages.
pub fn subject(event: Event) -> &'static str {
    match event {
        Event::Connected => Trigger::Connected.id(),
        Event::Disconnected => Trigger::Disconnected.id(),
        Event::HeartbeatLost => Trigger::HeartbeatLost.id(),
        Event::Removed => REMOVED_SUBJECT,
    }
}

/// The meaning of an event, in a sentence.
pub fn description(event: Event) -> &'static str {
    match event {
        Event::Connected => {
            "A satellite has come: it connected, took its session over, or was heard again after it was lost."
        }
        Event::Disconnected => "A satellite's connection has ended.",
        Event::HeartbeatLost => "A satellite went silent: no heartbeat within its threshold.",
        Event::Removed => "A satellite was deleted: forget what is kept of it.",
    }
}

/// The schema of an event's body.
pub fn payload(event: Event) -> Value {
    let generator = SchemaSettings::draft07().for_serialize().into_generator();
    let mut schema = match event {
        Event::Connected | Event::Disconnected | Event::HeartbeatLost => {
            generator.into_root_schema_for::<EdgeJson>()
        }
        Event::Removed => generator.into_root_schema_for::<RemovedJson>(),
    };
    schema.insert("title".to_owned(), json!(subject(event)));
    schema.insert("description".to_owned(), json!(description(event)));
    schema.to_value()
}

/// The files of `schema/events/`: each one's name and text.
pub fn files() -> impl Iterator<Item = (String, String)> {
    Event::iter().map(|event| {
        // The alternate format of a `Value` is indented.
        (format!("{}.json", subject(event)), format!("{:#}\n", payload(event)))
    })
}
