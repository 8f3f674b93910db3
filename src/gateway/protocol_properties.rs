//! Properties of the parser that hold for any input.

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::protocol::{FromSatellite, Malformed, Said, items_of};

/// Any JSON, a few levels deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map("[a-zA-Z]{0,12}", inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// An object whose `type` may be known and whose fields may belong to a message.
fn nearly_a_message() -> impl Strategy<Value = Value> {
    let kinds = prop::sample::select(vec![
        "authenticate",
        "heartbeat",
        "result",
        "strategy_error",
        "script_package_sync_state",
        "request_script_package_manifest",
        "request_script_package_blob",
        "request_run_secrets",
        "request_config_secrets",
        "capability_secret_request",
        "telemetry_batch",
        "capability_status",
        "reboot",
        "",
    ]);
    let fields = prop::sample::select(vec![
        "clientId",
        "token",
        "capabilities",
        "version",
        "uptimeSeconds",
        "configId",
        "systemId",
        "status",
        "latencyMs",
        "result",
        "executedAt",
        "lockfileHash",
        "requestId",
        "batchId",
        "kind",
        "payload",
        "runId",
        "other",
    ]);
    (kinds, proptest::collection::btree_map(fields, any_json(), 0..8)).prop_map(|(kind, fields)| {
        let mut object: serde_json::Map<String, Value> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        object.insert("type".to_owned(), kind.into());
        Value::Object(object)
    })
}

proptest! {
    #[test]
    fn any_text_is_a_message_or_one_of_the_malformed(text in "(?s).{0,400}") {
        let json = serde_json::from_str::<&RawValue>(&text).is_ok();
        match FromSatellite::parse(&text) {
            Ok(_) => prop_assert!(json),
            Err(malformed) => prop_assert_eq!(malformed == Malformed::Json, !json),
        }
    }

    #[test]
    fn whatever_is_nearly_a_message_is_told_from_what_is_none(message in nearly_a_message()) {
        let kind = message["type"].as_str().unwrap_or_default().to_owned();
        match FromSatellite::parse(&message.to_string()) {
            Ok(_) => prop_assert!(!["reboot", ""].contains(&kind.as_str())),
            Err(Malformed::UnknownType) => prop_assert!(["reboot", ""].contains(&kind.as_str())),
            Err(other) => prop_assert_eq!(other, Malformed::Fields),
        }
    }

    #[test]
    fn fields_that_are_not_known_change_nothing(more in any_json()) {
        let message = json!({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 1, "zz": more});
        let understood = matches!(
            FromSatellite::parse(&message.to_string()),
            Ok(FromSatellite::Heartbeat { version: Some(Said::Understood(version)), .. }) if version == "0.5.0"
        );
        prop_assert!(understood);
    }

    #[test]
    fn whatever_a_batch_holds_it_is_a_batch_and_is_counted(payload in any_json()) {
        let message = json!({"type": "telemetry_batch", "batchId": "7", "kind": "k", "payload": payload});
        let understood = matches!(
            FromSatellite::parse(&message.to_string()),
            Ok(FromSatellite::TelemetryBatch { batch_id, .. }) if batch_id == "7"
        );
        prop_assert!(understood);
        let items = payload.as_array().map_or(1, |items| items.len() as u64);
        prop_assert_eq!(items_of(&message.to_string()), items);
    }

    #[test]
    fn whatever_a_check_found_is_no_more_than_an_object(found in any_json()) {
        let message = json!({"type": "result", "configId": "c", "systemId": "s", "status": "healthy",
                             "executedAt": "x", "result": found});
        let outcome = FromSatellite::parse(&message.to_string());
        let understood = matches!(outcome, Ok(FromSatellite::Result { .. }));
        prop_assert_eq!(understood, found.is_object() || found.is_null());
        prop_assert!(understood || outcome.err() == Some(Malformed::Fields));
    }

    #[test]
    fn a_message_cut_off_anywhere_is_no_json(cut in 0usize..200) {
        let message = json!({"type": "authenticate", "clientId": "x", "token": "csat_secret"}).to_string();
        let cut = cut % message.len();
        prop_assert_eq!(FromSatellite::parse(&message[..cut]).err(), Some(Malformed::Json));
    }

    #[test]
    fn a_token_is_never_shown(token in "[!-~]{12,60}") {
        let message = json!({"type": "authenticate", "clientId": "x", "token": token}).to_string();
        let shown = format!("{:?}", FromSatellite::parse(&message));
        prop_assert!(!shown.contains(&token), "{}", shown);
    }
}

#[test]
fn depth_is_bounded_and_costs_no_stack() {
    for deep in ["[".repeat(65_000), r#"{"type":"#.repeat(8_000)] {
        assert_eq!(FromSatellite::parse(&deep).err(), Some(Malformed::Json));
    }
}
