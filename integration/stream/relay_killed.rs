//! A relay dies at each point at which it can. Every transition is on the stream once and in order, whether the same
//! pod relays next, restarted, or another one, and whether the stream still remembers the published ids or not.

use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::harness::faults::{chance, full, repetitions};
use crate::harness::relaying::{SHORT_MEMORY, come_and_go, stream_that_knows_for};
use crate::harness::{CALM, Fleet, Pod, Proxy};

/// The exit status of `abort`.
const SIGABRT: i32 = 6;

/// Longer than the whole test takes.
const LONG_MEMORY: Duration = Duration::from_secs(600);

/// After one in so many deaths another pod takes over, which has to wait for the lease to expire.
const TAKEOVER_ONE_IN: u32 = 6;

/// Satellites that come and go on a pod that cannot relay: it has no NATS.
struct Flow {
    stop: CancellationToken,
    satellites: JoinSet<()>,
    _nats: Proxy,
}

impl Flow {
    async fn start(fleet: &Fleet) -> Flow {
        let (nats, nats_url) = Proxy::before(&fleet.nats_url).await;
        nats.refuse();
        let pod = Arc::new(fleet.plan("appends").with("NATS_URL", &nats_url).start().await);
        let stop = CancellationToken::new();
        let mut satellites = JoinSet::new();
        for n in 0..3 {
            let credentials = pod.register(&format!("edge-{n}"), "eu").await;
            let (pod, stop) = (pod.clone(), stop.clone());
            satellites.spawn(async move {
                while !stop.is_cancelled() {
                    come_and_go(&pod, &credentials).await;
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
            });
        }
        Flow { stop, satellites, _nats: nats }
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.satellites.join_next().await {
            ended.expect("the flow");
        }
    }
}

/// A pod that relays and dies at this point, when it passes it for the n-th time after the first.
fn doomed(fleet: &Fleet, name: &str, point: &str, n: u32) -> Pod {
    fleet.plan(name).with("FAILPOINTS", &format!("{point}={n}*off->return")).launch()
}

async fn expect_death(pod: &mut Pod) {
    let status = pod.exit().await;
    assert_eq!(status.signal(), Some(SIGABRT), "{} ended otherwise: {status}", pod.name);
}

async fn dies(point: &str, latest: u32, forgetful: bool) {
    let mut chance = chance(&format!("{point}, forgetful: {forgetful}"));
    let fleet = Fleet::new(CALM).await;
    stream_that_knows_for(&fleet, if forgetful { SHORT_MEMORY } else { LONG_MEMORY }).await;
    let flow = Flow::start(&fleet).await;
    let mut names = ["first", "second"];
    for _ in 0..repetitions(3, 50) {
        let mut pod = doomed(&fleet, names[0], point, chance.u32(..=latest));
        if chance.u32(..TAKEOVER_ONE_IN) == 0 {
            let mut other = doomed(&fleet, names[1], point, chance.u32(..=latest));
            expect_death(&mut pod).await;
            expect_death(&mut other).await;
            names.swap(0, 1);
        } else {
            expect_death(&mut pod).await;
        }
        if forgetful {
            tokio::time::sleep(SHORT_MEMORY).await;
        }
    }
    flow.end().await;
    let _survivor = fleet.pod(names[0]).await;
    fleet.check().await;
}

/// Once with a stream that remembers message ids for longer than the test takes, and once with one that has forgotten
/// them when the next pod relays. A short run takes one of them.
async fn dies_again_and_again(point: &str, latest: u32) {
    let forgets = chance(point).bool();
    for forgetful in [true, false] {
        if full() || forgetful == forgets {
            dies(point, latest, forgetful).await;
        }
    }
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_relay_killed_after_reading_loses_and_doubles_nothing() {
    dies_again_and_again("relay::after_read", 10).await;
}

#[tokio::test]
async fn a_relay_killed_in_the_middle_of_a_batch_loses_and_doubles_nothing() {
    dies_again_and_again("relay::mid_batch", 60).await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_relay_killed_between_publish_and_acknowledgement_loses_and_doubles_nothing() {
    dies_again_and_again("relay::published", 10).await;
}

#[tokio::test]
async fn a_relay_killed_between_acknowledgement_and_checkpoint_loses_and_doubles_nothing() {
    dies_again_and_again("relay::acknowledged", 10).await;
}
