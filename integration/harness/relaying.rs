//! Pods as relays: who leads, who waits, and edges for them to publish.

use std::time::Duration;

use async_nats::jetstream::{self, stream::Config};
use serde_json::Value;

use super::fleet::Fleet;
use super::pod::Pod;
use super::satellite::{Credentials, Satellite};
use super::wait::eventually;

/// The stream's name.
pub const STREAM: &str = "SATELLITE_TRANSITIONS";

/// What a pod's relay says of itself.
pub async fn relay_state(pod: &Pod) -> Value {
    pod.get("/readyz").await.json()["relay"].clone()
}

/// Waits until a pod's relay is in this state.
pub async fn expect_relay(pod: &Pod, state: &str) -> Value {
    eventually(&format!("the relay of {} to be {state}", pod.name), async || {
        let relay = relay_state(pod).await;
        if relay["state"] == state { Ok(relay) } else { Err(relay.to_string()) }
    })
    .await
}

/// A pod that relays, and then one that does not.
pub async fn leader_and_standby(fleet: &Fleet) -> (Pod, Pod) {
    let leader = fleet.pod("leader").await;
    expect_relay(&leader, "leading").await;
    (leader, fleet.pod("standby").await)
}

/// The satellite comes and goes: two transitions.
pub async fn come_and_go(pod: &Pod, credentials: &Credentials) {
    Satellite::connect(pod.address, credentials).await.close().await;
}

/// How long [`forgetful_stream`] remembers a message id.
pub const SHORT_MEMORY: Duration = Duration::from_millis(100);

/// A stream that forgets message ids at once: what keeps it free of doubles is the expected
/// sequence alone.
pub async fn forgetful_stream(fleet: &Fleet) {
    let subjects = ["connected", "disconnected", "heartbeat_lost", "removed"];
    let config = Config {
        name: STREAM.to_owned(),
        subjects: subjects.map(|subject| format!("satellite.{subject}")).to_vec(),
        duplicate_window: SHORT_MEMORY,
        ..Config::default()
    };
    let jetstream = jetstream::new(fleet.nats().await);
    jetstream.create_stream(config).await.expect("a stream");
}
