//! A stream with transitions, a receiver, and forwarders between them.

use std::collections::HashMap;
use std::path::PathBuf;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, Context};
use serde_json::json;
use uuid::Uuid;

use crate::harness::hooks::{Hook, Hooks};
use crate::harness::relaying::{STREAM, forgetful_stream};
use crate::harness::running::Running;
use crate::harness::{CALM, Fleet, eventually, program};

/// A secret of tests.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Where no pod is needed the test publishes what a pod would.
pub struct World {
    pub fleet: Fleet,
    pub hooks: Hooks,
    pub jetstream: Context,
    revisions: HashMap<Uuid, i64>,
    position: i64,
    epoch: i64,
}

impl World {
    pub async fn new() -> World {
        let fleet = Fleet::new(CALM).await;
        forgetful_stream(&fleet).await;
        World::of(fleet).await
    }

    /// With a fleet whose pods make the stream.
    pub async fn of(fleet: Fleet) -> World {
        let jetstream = jetstream::new(fleet.nats().await);
        let hooks = Hooks::new().await;
        World { fleet, hooks, jetstream, revisions: HashMap::new(), position: 0, epoch: 1 }
    }

    /// Publishes the next transition, of this satellite; returns its position.
    pub async fn publish(&mut self, satellite: Uuid) -> i64 {
        let revision = *self.revisions.entry(satellite).and_modify(|n| *n += 1).or_insert(1);
        self.position += 1;
        self.publish_again(self.position, satellite, revision).await;
        self.position
    }

    /// Publishes that this satellite, of this name, went silent.
    pub async fn publish_lost(&mut self, satellite: Uuid, name: &str) {
        self.position += 1;
        let told = ("heartbeat_lost", "heartbeat_timeout", name);
        self.publish_event(self.position, satellite, 1, told).await;
    }

    /// Publishes a transition as a repair does, of this position.
    pub async fn publish_again(&self, position: i64, satellite: Uuid, revision: i64) {
        let event = if revision % 2 == 1 { "connected" } else { "disconnected" };
        self.publish_event(position, satellite, revision, (event, "connect", "edge")).await;
    }

    async fn publish_event(
        &self,
        position: i64,
        satellite: Uuid,
        revision: i64,
        (event, reason, name): (&str, &str, &str),
    ) {
        let subject = format!("satellite.{event}");
        let change = change(position).to_string();
        let at = format!("2026-03-01T12:{:02}:{:02}.000Z", position / 60 % 60, position % 60);
        let mut headers = HeaderMap::new();
        let pairs = [
            ("Nats-Msg-Id", change.clone()),
            ("Groundstation-Position", position.to_string()),
            ("Groundstation-Revision", revision.to_string()),
            ("Groundstation-Session", "1".to_owned()),
            ("Groundstation-Reason", reason.to_owned()),
            ("ce-specversion", "1.0".to_owned()),
            ("ce-id", change),
            ("ce-type", subject.clone()),
            ("ce-source", "/groundstation".to_owned()),
            ("ce-subject", satellite.to_string()),
            ("ce-time", at),
            ("ce-sequence", format!("{position:020}")),
            ("ce-datacontenttype", "application/json".to_owned()),
        ];
        for (header, value) in pairs {
            headers.insert(header, value);
        }
        if self.epoch > 1 {
            headers.insert("Groundstation-Epoch", self.epoch.to_string());
        }
        let body = json!({"satelliteId": satellite, "name": name, "region": "eu", "status": "online", "lastSeenAt": null});
        let published =
            self.jetstream.publish_with_headers(subject, headers, body.to_string().into());
        published.await.expect("published").await.expect("stored");
    }

    /// Empties the stream and begins another epoch, as a repair does.
    pub async fn begin_epoch(&mut self) {
        let stream = self.jetstream.get_stream(STREAM).await.expect("the stream");
        stream.purge().await.expect("purged");
        self.epoch += 1;
    }

    /// The settings of a forwarder to this receiver, with a brisk pace.
    pub fn settings(&self) -> Vec<(String, String)> {
        let to = format!("http://{}/hook", self.hooks.address);
        [
            ("NATS_URL", self.fleet.nats_url.as_str()),
            ("GROUNDSTATION_FORWARD_TO", to.as_str()),
            ("GROUNDSTATION_FORWARD_SECRET", SECRET),
            ("GROUNDSTATION_FORWARD_ALLOW_NETWORKS", "127.0.0.0/8"),
            ("GROUNDSTATION_FORWARD_START", "first"),
            ("GROUNDSTATION_FORWARD_FIRST_PAUSE", "20ms"),
            ("GROUNDSTATION_FORWARD_LONGEST_PAUSE", "200ms"),
            ("GROUNDSTATION_FORWARD_TAKEOVER", "2s"),
            ("GROUNDSTATION_FORWARD_TIMEOUT", "5s"),
            ("NO_COLOR", "1"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    /// Starts a forwarder with these settings beside the usual ones.
    pub fn forward(&self, more: &[(&str, &str)]) -> Running {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        Running::start(&["forward"], &self.with(more), &folder)
    }

    /// The settings with these beside them, or in their place.
    pub fn with(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut settings = self.settings();
        settings.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        settings
    }

    /// Waits until the forwarder has kept this as its place.
    pub async fn expect_place(&self, position: i64) {
        let stream = self.jetstream.get_stream("FORWARD_LEASES").await.expect("the stream");
        let subject = "groundstation.forward.leases.webhooks";
        eventually(&format!("the place to be {position}"), async || {
            let kept = stream.get_last_raw_message_by_subject(subject).await.expect("a lease");
            let kept: serde_json::Value = serde_json::from_slice(&kept.payload).expect("JSON");
            if kept["floor"]["position"] == position { Ok(()) } else { Err(kept.to_string()) }
        })
        .await;
    }

    /// Runs a command on dead letters; returns its output.
    pub async fn dead_letters(&self, arguments: &[&str]) -> (bool, String, String) {
        let arguments = [&["forward", "dead-letters"], arguments].concat();
        program::ran(&arguments, &self.settings()).await
    }
}

/// The change id of a position.
pub fn change(position: i64) -> Uuid {
    Uuid::from_u128(0x0191_0000_0000_7000_8000_0000_0000_0000 + position as u128)
}

/// Some satellites.
pub fn satellites(count: usize) -> Vec<Uuid> {
    (0..count).map(|_| Uuid::new_v4()).collect()
}

/// Fails unless what was taken of each satellite came in order; only the last one may come again.
pub fn expect_order(hooks: &[Hook]) {
    let mut of: HashMap<&str, Vec<i64>> = HashMap::new();
    for hook in hooks.iter().filter(|hook| hook.is_taken()) {
        of.entry(hook.satellite()).or_default().push(hook.position());
    }
    for (satellite, positions) in of {
        assert!(positions.is_sorted(), "{satellite}: {positions:?}");
    }
    // Nothing is tried before what is before it was taken.
    let mut newest: HashMap<&str, (i64, bool)> = HashMap::new();
    for hook in hooks {
        let now = (hook.position(), hook.is_taken());
        if let Some((position, was_taken)) = newest.insert(hook.satellite(), now) {
            let is_next = was_taken && hook.position() > position;
            assert!(is_next || hook.position() == position, "{} after {position}", hook.position());
        }
    }
}
