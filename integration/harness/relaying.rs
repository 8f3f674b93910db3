//! Pods as relays: which one leads, which waits, and edges for them to publish.

use std::fs;
use std::path::Path;
use std::time::Duration;

use async_nats::jetstream::{self, stream::Config};
use serde_json::Value;

use super::fleet::Fleet;
use super::pod::Pod;
use super::satellite::{Credentials, Satellite};
use super::wait::{blocking, eventually};

/// The stream's name.
pub const STREAM: &str = "SATELLITE_TRANSITIONS";

/// The state that a pod's relay reports.
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

/// Starts two pods; returns the one that relays first.
pub async fn leader_and_standby(fleet: &Fleet) -> (Pod, Pod) {
    let leader = fleet.pod("leader").await;
    expect_relay(&leader, "leading").await;
    (leader, fleet.pod("standby").await)
}

/// Lets the satellite come and go, which makes two transitions.
pub async fn come_and_go(pod: &Pod, credentials: &Credentials) {
    Satellite::connect(pod.address, credentials).await.close().await;
}

/// How long [`forgetful_stream`] remembers a message id.
pub const SHORT_MEMORY: Duration = Duration::from_millis(100);

/// The stream's subjects.
pub fn subjects() -> Vec<String> {
    let events = ["connected", "disconnected", "heartbeat_lost", "removed"];
    events.map(|event| format!("satellite.{event}")).to_vec()
}

/// Makes a stream that forgets message ids at once: only the expected sequence keeps doubles out.
pub async fn forgetful_stream(fleet: &Fleet) {
    stream_that_knows_for(fleet, SHORT_MEMORY).await;
}

/// Makes a stream that remembers a message id for this long.
pub async fn stream_that_knows_for(fleet: &Fleet, duplicate_window: Duration) {
    let config = Config {
        name: STREAM.to_owned(),
        subjects: subjects(),
        duplicate_window,
        ..Config::default()
    };
    let jetstream = jetstream::new(fleet.nats().await);
    jetstream.create_stream(config).await.expect("a stream");
}

/// Waits until the relay's checkpoint is this.
pub async fn expect_checkpoint(fleet: &Fleet, position: i64) {
    let sql = fleet.sql().await;
    eventually("the relay to remember where it is", async || {
        let row = sql.query_one("select position from relay", &[]).await.expect("the relay's row");
        let at: i64 = row.get(0);
        if at == position { Ok(()) } else { Err(at.to_string()) }
    })
    .await;
}

/// Stops NATS, applies a change to its folder of streams, and starts it again.
pub async fn with_nats_stopped(
    mut fleet: Fleet,
    change: impl FnOnce(&Path) + Send + 'static,
) -> Fleet {
    blocking(move || {
        fleet.own_nats().stop();
        change(&fleet.own_nats().streams());
        fleet.own_nats().restart().expect("NATS restarts");
        fleet
    })
    .await
}

/// Keeps a copy of the streams as they are now, for [`older_copy_back`].
pub async fn copy_kept(fleet: Fleet) -> Fleet {
    with_nats_stopped(fleet, |streams| copy(streams, &streams.with_extension("old"))).await
}

/// Puts the copy in the place of the streams.
pub async fn older_copy_back(fleet: Fleet) -> Fleet {
    with_nats_stopped(fleet, |streams| {
        fs::remove_dir_all(streams).expect("the streams are gone");
        fs::rename(streams.with_extension("old"), streams).expect("the copy is there");
    })
    .await
}

/// Copies a folder.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in from.read_dir().expect("a folder").flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("copied")),
        }
    }
}
