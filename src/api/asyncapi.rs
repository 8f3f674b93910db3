//! `/asyncapi.json`: the stream as an AsyncAPI 3 document.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use crate::contract::event_schemas;
use crate::domain::cell;
use crate::domain::lifecycle::{Event, Reason};
use crate::stream::message;
use crate::stream::tail::NAME;

/// How a payload's schema is written.
const SCHEMA_FORMAT: &str = "application/schema+json;version=draft-07";

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());

/// The AsyncAPI description of the stream on NATS
#[utoipa::path(get, operation_id = "asyncapi", path = "/asyncapi.json", tag = "pod", security(()), responses(
    (status = 200, description = "AsyncAPI 3", body = Value),
))]
pub async fn get() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone())
}

/// The document.
pub fn document() -> Value {
    let of_each = |part: fn(Event) -> Value| -> Map<String, Value> {
        Event::iter().map(|event| (event.as_str().to_owned(), part(event))).collect()
    };
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Groundstation",
            "version": env!("CARGO_PKG_VERSION"),
            "description": format!(
                "The JetStream stream {NAME}: one message for one transition of the log, in its \
                 order, each once within an epoch."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": of_each(channel),
        "operations": of_each(operation),
        "components": {"messages": of_each(a_message), "schemas": {"headers": headers()}},
    })
}

fn channel(event: Event) -> Value {
    let name = event.as_str();
    json!({
        "address": event_schemas::subject(event),
        "description": event_schemas::description(event),
        "messages": {name: {"$ref": format!("#/components/messages/{name}")}},
    })
}

fn operation(event: Event) -> Value {
    let name = event.as_str();
    json!({
        "action": "send",
        "summary": event_schemas::description(event),
        "channel": {"$ref": format!("#/channels/{name}")},
        "messages": [{"$ref": format!("#/channels/{name}/messages/{name}")}],
    })
}

fn a_message(event: Event) -> Value {
    json!({
        "name": event_schemas::subject(event),
        "title": event_schemas::subject(event),
        "summary": event_schemas::description(event),
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {"schemaFormat": SCHEMA_FORMAT, "schema": event_schemas::payload(event)},
    })
}

/// The headers of every message. On the wire a header is text.
fn headers() -> Value {
    let text = |description: &str| json!({"type": "string", "description": description});
    let like = |pattern: &str, description: &str| json!({"type": "string", "pattern": pattern, "description": description});
    let one_of = |words: Vec<&str>, description: &str| json!({"type": "string", "enum": words, "description": description});
    let uuid =
        |description: &str| json!({"type": "string", "format": "uuid", "description": description});
    const NUMBER: &str = "^[1-9][0-9]*$";
    let subjects = Event::iter().map(event_schemas::subject).collect::<Vec<_>>();
    let reasons = Reason::iter().map(Reason::as_str).collect::<Vec<_>>();
    let properties = [
        (message::CHANGE, uuid("The change's id.")),
        (
            message::POSITION,
            like(NUMBER, "The transition's place in the log: 1, 2, 3 … without a gap."),
        ),
        (message::REVISION, like(NUMBER, "Its place among those of its satellite.")),
        (message::SESSION, like("^[0-9]+$", "The session it belongs to; 0 for none.")),
        (message::REASON, one_of(reasons, "Why it happened.")),
        (
            message::FLAPPING,
            one_of(vec!["true"], "There, while the satellite comes and goes too often."),
        ),
        (message::OUTAGE, uuid("There, where the edge is part of an outage: which.")),
        (
            message::MAINTENANCE,
            uuid("There, where the satellite was in a maintenance window: which."),
        ),
        (
            message::EPOCH,
            like(
                "^([2-9]|[1-9][0-9]+)$",
                "There, and higher, once the stream was built anew from the log; positions up to the last one handled come again.",
            ),
        ),
        (
            cell::HEADER,
            like(
                "^[A-Za-z0-9_.-]{1,64}$",
                "There, where several Groundstations are merged: the cell whose log has the position.",
            ),
        ),
        (
            message::EXPECTED,
            like(
                "^[0-9]+$",
                "Between the relay and the server: the stream's sequence before this message.",
            ),
        ),
        (
            message::EXPECTED_CHANGE,
            uuid("Likewise: the change before this one, where it was still on its way."),
        ),
        ("ce-specversion", one_of(vec!["1.0"], "CloudEvents, binary mode.")),
        ("ce-id", uuid("The change's id.")),
        ("ce-type", one_of(subjects, "The subject.")),
        (
            "ce-source",
            like(
                "^/groundstation(/[A-Za-z0-9_.-]{1,64})?$",
                "Where it comes from: /groundstation, and the cell behind a slash where there is one.",
            ),
        ),
        ("ce-subject", uuid("The satellite.")),
        (
            "ce-time",
            json!({"type": "string", "format": "date-time", "description": "When it happened."}),
        ),
        ("ce-sequence", like("^[0-9]{20}$", "The position, padded to 20 digits.")),
        ("ce-datacontenttype", one_of(vec!["application/json"], "How the body is written.")),
        ("traceparent", text("W3C trace context, where there is one.")),
    ];
    const NOT_ALWAYS: [&str; 8] = [
        message::FLAPPING,
        message::OUTAGE,
        message::MAINTENANCE,
        message::EPOCH,
        cell::HEADER,
        message::EXPECTED,
        message::EXPECTED_CHANGE,
        "traceparent",
    ];
    let required: Vec<&str> = properties
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !NOT_ALWAYS.contains(name))
        .collect();
    let properties: Map<String, Value> =
        properties.into_iter().map(|(name, schema)| (name.to_owned(), schema)).collect();
    json!({"type": "object", "required": required, "properties": properties})
}
