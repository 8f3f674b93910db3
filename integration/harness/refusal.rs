//! A database that takes no writes for a while, for any reason: what satellites and callers are told
//! meanwhile, and what becomes of it afterwards.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fleet::Fleet;
use super::pod::Pod;
use super::satellite::{Credentials, Heard, Satellite};
use super::wait::eventually;

/// A little longer than the pauses between two tries and between two looks.
const SOON: Duration = Duration::from_secs(10);

/// Waits until `/readyz` answers with this status.
pub async fn expect_readiness(pod: &Pod, status: u16) {
    eventually(&format!("/readyz to be {status}"), async || {
        let answer = pod.get("/readyz").await;
        if answer.status == status { Ok(()) } else { Err(answer.text) }
    })
    .await
}

/// Four satellites for the time in which nothing can be written: one stays, one leaves, one comes and one
/// is removed.
pub struct Refused<'a> {
    fleet: &'a Fleet,
    pod: &'a Pod,
    stays: (Credentials, Satellite),
    leaves: (Credentials, Option<Satellite>),
    comes: (Credentials, Option<Satellite>),
    goes: Credentials,
    was_registered: bool,
}

impl<'a> Refused<'a> {
    /// Registers all four and connects some of them.
    pub async fn prepare(fleet: &'a Fleet, pod: &'a Pod) -> Refused<'a> {
        let stays = pod.register("stays", "eu").await;
        let leaves = pod.register("leaves", "eu").await;
        let staying = Satellite::connect(pod.address, &stays).await;
        staying.beat_every(fleet.timing.heartbeat);
        let leaving = Satellite::connect(pod.address, &leaves).await;
        Refused {
            fleet,
            pod,
            stays: (stays, staying),
            leaves: (leaves, Some(leaving)),
            comes: (pod.register("comes", "eu").await, None),
            goes: pod.register("goes", "eu").await,
            was_registered: false,
        }
    }

    /// Called when nothing can be written: checks that the pod says so and acknowledges nothing.
    pub async fn nothing_is_acknowledged(&mut self) {
        self.leaves.1.take().expect("it is connected").close().await;
        let coming = Satellite::open(self.pod.address).await;
        coming.authenticate(&self.comes.0);
        expect_readiness(self.pod, 503).await;
        // The removal is answered when the pod gives up; everything else has failed by then.
        let description = json!({"name": "too late", "region": "eu"});
        let (removed, registered) = tokio::join!(
            self.pod.remove(self.goes.id),
            self.pod.post("/v1/satellites", &description)
        );
        assert_eq!(removed.status, 503, "{removed:?}");
        // There may be room for a name where there is none for an edge.
        assert!([503, 201].contains(&registered.status), "{registered:?}");
        self.was_registered = registered.status == 201;
        for absent in [&self.comes.0, &self.goes] {
            assert_eq!(self.fleet.history(absent.id).await, Vec::<String>::new());
        }
        assert_eq!(self.fleet.history(self.leaves.0.id).await, ["1 connected connect"]);
        self.comes.1 = Some(coming);
    }

    /// Called when the database takes writes again: checks that everything taken meanwhile is made up for and
    /// that nothing fails any more.
    pub async fn everything_is_made_up_for(self) {
        let begun = Instant::now();
        expect_readiness(self.pod, 200).await;
        assert!(begun.elapsed() < SOON, "ready only after {:?}", begun.elapsed());
        // Tries that had begun before are over by now.
        self.pod.sweeps(3).await;
        let (pod, failures) = (self.pod, failures(self.pod).await);
        let (credentials, coming) = self.comes;
        let mut coming = coming.expect("it came");
        match coming.hear().await {
            Heard::Message(message) if message["type"] == "authenticated" => {}
            Heard::Closed(1013) => {
                assert_eq!(self.fleet.history(credentials.id).await, Vec::<String>::new());
                coming = Satellite::connect(pod.address, &credentials).await;
            }
            other => panic!("the one that came heard {other:?}"),
        }
        assert_eq!(self.fleet.history(credentials.id).await, ["1 connected connect"]);
        drop(coming);
        self.fleet.expect_history(self.goes.id, &["0 removed removed"]).await;
        let left = ["1 connected connect", "1 disconnected client_close"];
        self.fleet.expect_history(self.leaves.0.id, &left).await;
        let (credentials, staying) = self.stays;
        assert_eq!(self.fleet.history(credentials.id).await, ["1 connected connect"]);
        staying.close().await;
        self.fleet.expect_history(credentials.id, &left).await;
        pod.sweeps(20).await;
        assert_eq!(self::failures(pod).await, failures, "it goes on failing");
        let all = pod.get("/v1/satellites").await.json().to_string();
        assert_eq!(all.contains("too late"), self.was_registered, "{all}");
        self.fleet.check().await;
    }
}

/// How often the pod could not look for silent satellites, or write heartbeats.
async fn failures(pod: &Pod) -> (f64, f64) {
    let sweeps = pod.metric("groundstation_sweep_failures_total").await;
    (sweeps, pod.metric("groundstation_heartbeat_flush_failures_total").await)
}
