//! What an editor of automations is told of the triggers.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::harness::{CALM, Fleet, Satellite, subscriber::body};

#[tokio::test]
async fn the_catalogue_has_what_an_editor_needs_of_each_trigger() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let answer = pod.call("GET", "/v1/triggers", Some(&fleet.read_token), None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let catalogue = answer.json();
    let triggers = catalogue["triggers"].as_array().expect("triggers");
    let ids: Vec<&str> = triggers.iter().filter_map(|trigger| trigger["id"].as_str()).collect();
    let all = ["satellite.connected", "satellite.disconnected", "satellite.heartbeat_lost"];
    assert_eq!(ids, all);
    for trigger in triggers {
        let id = trigger["id"].as_str().expect("an id");
        assert_eq!(format!("satellite.{}", trigger["event"].as_str().expect("an event")), id);
        assert_eq!(trigger["category"], "Satellites");
        assert_eq!(trigger["contextKey"], "satelliteId");
        for field in ["displayName", "description", "icon"] {
            assert!(!trigger[field].as_str().expect(field).is_empty(), "{field} of {id}");
        }
        assert!(trigger["payloadSchema"]["properties"]["satelliteId"].is_object(), "{trigger}");
    }
    assert_eq!(pod.call("GET", "/v1/triggers", None, None).await.status, 401);
}

#[tokio::test]
async fn a_message_is_as_the_schema_of_its_trigger_says() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    pod.expect_nats().await;
    let catalogue = pod.get("/v1/triggers").await.json();
    let schemas: BTreeMap<&str, &Value> = catalogue["triggers"]
        .as_array()
        .expect("triggers")
        .iter()
        .map(|trigger| (trigger["id"].as_str().expect("an id"), &trigger["payloadSchema"]))
        .collect();
    let mut subscriber = fleet.subscribe().await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    for subject in ["satellite.connected", "satellite.disconnected"] {
        let message = subscriber.expect(subject, credentials.id).await;
        let validator = jsonschema::draft7::new(schemas[subject]).expect("a schema");
        assert!(validator.is_valid(&body(&message)), "{message:?}");
        // Every field that is sent is described.
        let fields = schemas[subject]["properties"].as_object().expect("fields");
        let sent = body(&message);
        let mut sent: Vec<&String> = sent.as_object().expect("an object").keys().collect();
        let mut fields: Vec<&String> = fields.keys().collect();
        sent.sort();
        fields.sort();
        assert_eq!(sent, fields);
    }
    fleet.check().await;
}
