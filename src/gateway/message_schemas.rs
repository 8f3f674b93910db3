//! The JSON Schemas of the messages between satellites and pods, generated from the types that are parsed and
//! sent.
//!
//! `schema/agents/` holds them as files, one for each direction. A test fails when they are stale; `make
//! schemas` writes them. Both sides ignore unknown fields, so no schema forbids additional ones.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::gateway::protocol::{FromSatellite, ToSatellite};

/// What a satellite may send.
pub fn from_satellite() -> Value {
    let generator = SchemaSettings::draft07().for_deserialize().into_generator();
    titled(generator.into_root_schema_for::<FromSatellite>(), "What a satellite says")
}

/// What a satellite may be sent.
pub fn to_satellite() -> Value {
    let generator = SchemaSettings::draft07().for_serialize().into_generator();
    titled(generator.into_root_schema_for::<ToSatellite>(), "What a satellite is told")
}

fn titled(mut schema: schemars::Schema, title: &str) -> Value {
    schema.insert("title".to_owned(), json!(title));
    schema.to_value()
}

/// The files of `schema/agents/`: name and text of each.
pub fn files() -> [(&'static str, String); 2] {
    // The alternate form of a `Value` is indented.
    let text = |schema: Value| format!("{schema:#}\n");
    [("from-satellite.json", text(from_satellite())), ("to-satellite.json", text(to_satellite()))]
}
