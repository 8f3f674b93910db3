//! Holds messages against what is published of them: the schemas of `schema/events/` and the headers of
//! `/asyncapi.json`.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};
use uuid::Uuid;

static BODIES: LazyLock<HashMap<&str, Validator>> = LazyLock::new(|| {
    let files = [
        ("satellite.connected", include_str!("../../schema/events/satellite.connected.json")),
        ("satellite.disconnected", include_str!("../../schema/events/satellite.disconnected.json")),
        (
            "satellite.heartbeat_lost",
            include_str!("../../schema/events/satellite.heartbeat_lost.json"),
        ),
        ("satellite.removed", include_str!("../../schema/events/satellite.removed.json")),
    ];
    let of = |(subject, text): (&'static str, &str)| {
        (subject, validator(&serde_json::from_str(text).expect("a schema of JSON")))
    };
    files.into_iter().map(of).collect()
});

static HEADERS: LazyLock<(Value, Validator)> = LazyLock::new(|| {
    let document = groundstation::api::asyncapi::document();
    let schema = document["components"]["schemas"]["headers"].clone();
    let validator = validator(&schema);
    (schema, validator)
});

/// The validator of a schema of draft 7.
pub fn validator(schema: &Value) -> Validator {
    // Draft 7 does not know the format `uuid`; later drafts do.
    let is_uuid = |text: &str| text.len() == 36 && Uuid::try_parse(text).is_ok();
    let options = jsonschema::draft7::options();
    let options = options.should_validate_formats(true).with_format("uuid", is_uuid);
    options.build(schema).expect("a schema")
}

static TOLD: LazyLock<Validator> =
    LazyLock::new(|| validator(&groundstation::gateway::message_schemas::to_satellite()));

/// The faults of a pod's message to a satellite, by its schema.
pub fn fault_of_told(message: &Value) -> Option<String> {
    let error = TOLD.validate(message).err()?;
    Some(format!("{} is not in schema/agents: {error}", message["type"]))
}

/// The faults of a message, by its schemas.
pub fn fault(subject: &str, headers: &BTreeMap<String, String>, body: &Value) -> Option<String> {
    let Some(schema) = BODIES.get(subject) else {
        return Some(format!("{subject} has no schema"));
    };
    if let Err(error) = schema.validate(body) {
        return Some(format!("the body of {subject}: {error}"));
    }
    let (known, schema) = &*HEADERS;
    if let Some(name) = headers.keys().find(|name| known["properties"].get(name).is_none()) {
        return Some(format!("{subject}: the header {name} is not in /asyncapi.json"));
    }
    let headers = json!(headers);
    let error = schema.validate(&headers).err()?;
    Some(format!("the headers of {subject}: {error}"))
}

mod tests {
    use super::*;

    fn headers() -> BTreeMap<String, String> {
        let id = "0191d6a0-0000-7000-8000-000000000001";
        let pairs = [
            ("Nats-Msg-Id", id),
            ("Groundstation-Position", "7"),
            ("Groundstation-Revision", "1"),
            ("Groundstation-Session", "1"),
            ("Groundstation-Reason", "connect"),
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-type", "satellite.connected"),
            ("ce-source", "/groundstation"),
            ("ce-subject", id),
            ("ce-time", "2026-03-01T12:00:00.000Z"),
            ("ce-sequence", "00000000000000000007"),
            ("ce-datacontenttype", "application/json"),
        ];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    fn body() -> Value {
        json!({"satelliteId": "0191d6a0-0000-7000-8000-000000000001", "name": "a",
               "region": "eu", "status": "online", "lastSeenAt": null})
    }

    #[test]
    fn a_message_as_it_should_be_has_no_fault() {
        assert_eq!(fault("satellite.connected", &headers(), &body()), None);
        let removed = json!({"satelliteId": body()["satelliteId"]});
        assert_eq!(fault("satellite.removed", &headers(), &removed), None);
    }

    #[test]
    fn a_body_or_a_header_that_breaks_its_schema_is_found() {
        let spoilt: [fn(&mut Value); 5] = [
            |body| body["status"] = json!("away"),
            |body| body["lastSeenAt"] = json!("yesterday"),
            |body| body["satelliteId"] = json!("7"),
            |body| drop(body.as_object_mut().expect("an object").remove("lastSeenAt")),
            |body| body["name"] = json!(null),
        ];
        for spoil in spoilt {
            let mut body = body();
            spoil(&mut body);
            assert!(fault("satellite.connected", &headers(), &body).is_some(), "{body}");
        }
        let wrong = [
            ("Groundstation-Position", "0"),
            ("Groundstation-Reason", "boredom"),
            ("Groundstation-Epoch", "1"),
            ("ce-sequence", "7"),
            ("Extra", "1"),
        ];
        for (name, value) in wrong {
            let mut headers = headers();
            headers.insert(name.to_owned(), value.to_owned());
            assert!(fault("satellite.connected", &headers, &body()).is_some(), "{name}: {value}");
        }
        assert!(fault("satellite.renamed", &headers(), &body()).is_some());
    }
}
