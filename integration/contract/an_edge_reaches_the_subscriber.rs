//! An edge travels from a satellite's socket to whoever subscribes, to the letter of the contract.

use async_nats::Message;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use crate::harness::subscriber::body;
use crate::harness::{CALM, Credentials, Fleet, Satellite};

/// The value of a header that must come exactly once.
fn header(message: &Message, name: &str) -> String {
    let headers = message.headers.as_ref().expect("headers");
    let values: Vec<_> = headers.get_all(name).collect();
    assert_eq!(values.len(), 1, "{name} of {headers:?}");
    values[0].to_string()
}

/// A time as the contract writes it: RFC 3339, UTC, milliseconds.
fn moment(text: &str) -> OffsetDateTime {
    assert_eq!(text.len(), "2026-03-01T12:00:00.000Z".len(), "{text}");
    assert!(text.ends_with('Z'), "{text}");
    OffsetDateTime::parse(text, &Rfc3339).expect("a time")
}

/// What the contract says of the headers, for one transition.
struct Expected<'a> {
    subject: &'a str,
    satellite: Uuid,
    position: u64,
    revision: u64,
    session: u64,
    reason: &'a str,
}

fn check_headers(message: &Message, expected: &Expected<'_>) {
    let change = header(message, "Nats-Msg-Id");
    let change_id = Uuid::parse_str(&change).expect("a UUID");
    assert_eq!(change_id.get_version_num(), 7);
    assert_eq!(message.subject.as_str(), expected.subject);
    let constant = [
        ("Groundstation-Position", expected.position.to_string()),
        ("Groundstation-Revision", expected.revision.to_string()),
        ("Groundstation-Session", expected.session.to_string()),
        ("Groundstation-Reason", expected.reason.to_owned()),
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", change),
        ("ce-type", expected.subject.to_owned()),
        ("ce-subject", expected.satellite.to_string()),
        ("ce-sequence", format!("{:020}", expected.position)),
        ("ce-datacontenttype", "application/json".to_owned()),
    ];
    for (name, value) in constant {
        assert_eq!(header(message, name), value, "{name}");
    }
    assert!(!header(message, "ce-source").is_empty());
    let age = OffsetDateTime::now_utc() - moment(&header(message, "ce-time"));
    assert!(age.whole_seconds().abs() < 60, "ce-time is {age} old");
}

#[tokio::test]
async fn a_connect_on_either_of_two_pods_is_published_with_the_exact_body_and_headers() {
    let fleet = Fleet::new(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let mut subscriber = fleet.subscribe().await;
    let mut satellites = Vec::new();
    for (pod, position) in [(&a, 1), (&b, 2)] {
        let name = format!("edge-{}", pod.name);
        let credentials = a.register(&name, "eu").await;
        satellites.push(Satellite::connect(pod.address, &credentials).await);
        let message = subscriber.expect("satellite.connected", credentials.id).await;
        let expected = Expected {
            subject: "satellite.connected",
            satellite: credentials.id,
            position,
            revision: 1,
            session: 1,
            reason: "connect",
        };
        check_headers(&message, &expected);
        let body = body(&message);
        let last_seen_at = body["lastSeenAt"].as_str().expect("a time").to_owned();
        assert_eq!(last_seen_at, header(&message, "ce-time"), "the heartbeat is set to now");
        moment(&last_seen_at);
        assert_eq!(
            body,
            json!({"satelliteId": credentials.id, "name": name, "region": "eu",
                   "status": "online", "lastSeenAt": last_seen_at})
        );
    }
    fleet.check().await;
}

/// A satellite that has connected, the subscriber that knows it, and the pod.
async fn connected(fleet: &Fleet) -> (crate::harness::Pod, Credentials, Satellite) {
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    (pod, credentials, satellite)
}

fn end_of(satellite: Uuid) -> Value {
    json!({"satelliteId": satellite, "name": "edge", "region": "eu",
           "status": "offline", "lastSeenAt": null})
}

#[tokio::test]
async fn a_clean_close_is_published_as_client_close_and_nobody_was_seen_last() {
    let fleet = Fleet::new(CALM).await;
    let mut subscriber = fleet.subscribe().await;
    let (pod, credentials, satellite) = connected(&fleet).await;
    satellite.close().await;
    let message = subscriber.expect("satellite.disconnected", credentials.id).await;
    let expected = Expected {
        subject: "satellite.disconnected",
        satellite: credentials.id,
        position: 2,
        revision: 2,
        session: 1,
        reason: "client_close",
    };
    check_headers(&message, &expected);
    assert_eq!(body(&message), end_of(credentials.id));
    let shown = pod.show(credentials.id).await;
    assert_eq!(shown["status"], "offline");
    assert_eq!(shown["lastSeenAt"], Value::Null);
    assert_eq!(shown["lastEvent"], "disconnected");
    fleet.check().await;
}

#[tokio::test]
async fn a_broken_connection_is_published_as_connection_dropped() {
    let fleet = Fleet::new(CALM).await;
    let mut subscriber = fleet.subscribe().await;
    let (_pod, credentials, satellite) = connected(&fleet).await;
    satellite.vanish();
    let message = subscriber.expect("satellite.disconnected", credentials.id).await;
    assert_eq!(header(&message, "Groundstation-Reason"), "connection_dropped");
    assert_eq!(body(&message), end_of(credentials.id));
    fleet.check().await;
}

#[tokio::test]
async fn a_removal_is_published_with_nothing_but_the_id() {
    let fleet = Fleet::new(CALM).await;
    let mut subscriber = fleet.subscribe().await;
    let (pod, credentials, _satellite) = connected(&fleet).await;
    assert_eq!(pod.remove(credentials.id).await.status, 204);
    let message = subscriber.expect("satellite.removed", credentials.id).await;
    let expected = Expected {
        subject: "satellite.removed",
        satellite: credentials.id,
        position: 2,
        revision: 2,
        session: 1,
        reason: "removed",
    };
    check_headers(&message, &expected);
    assert_eq!(body(&message), json!({"satelliteId": credentials.id}));
    fleet.check().await;
}

#[tokio::test]
async fn the_transitions_of_a_life_are_shown_to_the_letter() {
    let fleet = Fleet::new(CALM).await;
    let (pod, credentials, satellite) = connected(&fleet).await;
    let id = credentials.id;
    drop(satellite);
    let mut subscriber = fleet.subscribe().await;
    let _again = {
        let path = format!("/v1/satellites/{id}/transitions");
        crate::harness::eventually("the end of the session", async || {
            let page = pod.get(&path).await.json();
            let count = page["transitions"].as_array().expect("a list").len();
            if count == 2 { Ok(()) } else { Err(page.to_string()) }
        })
        .await;
        Satellite::connect(pod.address, &credentials).await
    };
    subscriber.expect("satellite.connected", id).await;
    assert_eq!(pod.remove(id).await.status, 204);
    let page = pod.get(&format!("/v1/satellites/{id}/transitions")).await.json();
    let shown = page["transitions"].as_array().expect("a list");
    assert_eq!(shown.len(), 4, "{page}");
    let state = |status: &str, seen: Value, event: &str| {
        json!({
        "status": status, "name": "edge", "region": "eu", "lastSeenAt": seen, "lastEvent": event})
    };
    for (index, transition) in shown.iter().enumerate() {
        assert_eq!(transition["position"], index + 1);
        assert_eq!(transition["revision"], index + 1);
        assert_eq!(transition["kind"], "satellite-connection");
        assert_eq!(transition["id"], json!(id));
        let keys: Vec<&String> = transition.as_object().expect("an object").keys().collect();
        assert_eq!(keys.len(), 15, "{keys:?}");
        for time in ["occurredAt", "recordedAt"] {
            moment(transition[time].as_str().expect("a time"));
        }
    }
    let [first, ended, again, removed] = [0, 1, 2, 3].map(|n| &shown[n]);
    let seen = |transition: &Value| transition["occurredAt"].clone();
    let system = json!({"type": "system", "id": "system"});

    assert_eq!(first["prev"], Value::Null);
    assert_eq!(first["next"], state("online", seen(first), "connected"));
    assert_eq!(first["delta"], first["next"], "everything is new");
    assert_eq!((&first["reason"], &first["actor"]), (&json!("connect"), &system));

    assert_eq!(ended["event"], "disconnected");
    assert_eq!(ended["reason"], "connection_dropped");
    assert_eq!(ended["prev"]["status"], "online");
    assert_eq!(ended["next"], state("offline", Value::Null, "disconnected"));

    assert_eq!((&again["session"], &again["reason"]), (&json!(2), &json!("connect")));
    assert_eq!(again["prev"], ended["next"]);
    let delta = json!({"status": "online", "lastSeenAt": seen(again), "lastEvent": "connected"});
    assert_eq!(again["delta"], delta);
    assert_eq!(again["changedFields"], json!(["status", "lastSeenAt", "lastEvent"]));

    assert_eq!((&removed["event"], &removed["reason"]), (&json!("removed"), &json!("removed")));
    assert_eq!((&removed["next"], &removed["delta"]), (&Value::Null, &json!({})));
    assert_eq!(removed["changedFields"], json!([]));
    assert_ne!(removed["actor"], system);
    fleet.check().await;
}
