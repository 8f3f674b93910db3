//! docs/agents.md and `schema/agents/` describe the satellites' messages as the types have them. Every satellite of
//! every test checks that pods send nothing else (`harness::satellite`).

use std::path::Path;

use groundstation::gateway::message_schemas;
use groundstation::gateway::protocol::FromSatellite;
use serde_json::{Value, json};

use crate::harness::schemas::validator;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_files_of_schema_agents_are_those_of_the_types() {
    let folder = root().join("schema/agents");
    assert_eq!(std::fs::read_dir(&folder).expect("schema/agents").count(), 2);
    for (name, text) in message_schemas::files() {
        let found = std::fs::read_to_string(folder.join(name)).expect(name);
        assert!(found == text, "schema/agents/{name} is stale: run `make schemas` and commit it");
    }
}

/// Each example in docs/agents.md of a message from a satellite.
fn examples() -> Vec<Value> {
    let page = std::fs::read_to_string(root().join("docs/agents.md")).expect("docs/agents.md");
    let examples = page.lines().filter(|line| line.starts_with("{\"type\": "));
    examples
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn kinds(schema: &Value) -> Vec<&str> {
    let variants = schema["oneOf"].as_array().expect("variants");
    let variants = variants.iter();
    let kind = variants.map(|variant| variant["properties"]["type"]["const"].as_str());
    kind.map(|kind| kind.expect("a type")).collect()
}

#[test]
fn every_message_is_documented_with_an_example_that_is_one() {
    let (said, told) = (message_schemas::from_satellite(), message_schemas::to_satellite());
    let (valid_said, valid_told) = (validator(&said), validator(&told));
    let mut examples = examples();
    for kind in kinds(&said) {
        let example = examples.iter().position(|example| example["type"] == kind);
        let example = examples.remove(example.unwrap_or_else(|| panic!("no example of {kind}")));
        assert!(FromSatellite::parse(&example.to_string()).is_ok(), "{example}");
        let fault = valid_said.validate(&example).err().map(|fault| fault.to_string());
        assert_eq!(fault, None, "{example}");
    }
    for kind in kinds(&told) {
        let example = examples.iter().position(|example| example["type"] == kind);
        let example = examples.remove(example.unwrap_or_else(|| panic!("no example of {kind}")));
        let fault = valid_told.validate(&example).err().map(|fault| fault.to_string());
        assert_eq!(fault, None, "{example}");
    }
    // The others are alike.
    for example in examples {
        assert!(valid_said.is_valid(&example) || valid_told.is_valid(&example), "{example}");
    }
}

#[test]
fn what_is_no_message_breaks_the_schema_too() {
    let said = validator(&message_schemas::from_satellite());
    for message in [
        json!({}),
        json!({"type": "reboot"}),
        json!({"type": "authenticate", "clientId": "x"}),
        json!({"type": "strategy_error", "strategyId": 5, "message": ""}),
        json!({"type": "result", "configId": "c", "systemId": "s", "status": "fine",
               "executedAt": "x"}),
        json!({"type": "result", "configId": "c", "systemId": "s", "status": "healthy",
               "executedAt": "x", "result": []}),
    ] {
        assert!(FromSatellite::parse(&message.to_string()).is_err(), "{message}");
        assert!(!said.is_valid(&message), "{message}");
    }
    // A malformed field that a pod ignores is still nothing that an agent may send.
    let odd = json!({"type": "heartbeat", "version": 5});
    assert!(FromSatellite::parse(&odd.to_string()).is_ok() && !said.is_valid(&odd));
}
