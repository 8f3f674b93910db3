//! Satellites that come and go, so that edges flow.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::pod::Pod;
use super::satellite::{Credentials, Satellite};

/// Satellites that come and go until they are told to end.
pub struct Traffic {
    satellites: JoinSet<Duration>,
    end: CancellationToken,
}

impl Traffic {
    /// Lets so many satellites come and go, each once in this time: two edges each.
    pub async fn begin(fleet: &Fleet, pod: &Pod, satellites: usize, every: Duration) -> Traffic {
        let (mut all, end) = (JoinSet::new(), CancellationToken::new());
        for credentials in fleet.register_many("edge", satellites).await {
            all.spawn(come_and_go(pod.address, credentials, every, end.clone()));
        }
        Traffic { satellites: all, end }
    }

    /// Ends it. Returns the longest time that a satellite waited until it was told that it is connected, which is
    /// after its edge's commit.
    pub async fn end(mut self) -> Duration {
        self.end.cancel();
        let mut longest = Duration::ZERO;
        while let Some(ended) = self.satellites.join_next().await {
            longest = longest.max(ended.expect("a satellite"));
        }
        longest
    }
}

async fn come_and_go(
    pod: SocketAddr,
    credentials: Credentials,
    every: Duration,
    end: CancellationToken,
) -> Duration {
    let (mut ticks, mut longest) = (interval(every), Duration::ZERO);
    while !end.is_cancelled() {
        ticks.tick().await;
        let begun = Instant::now();
        let satellite = Satellite::connect(pod, &credentials).await;
        longest = longest.max(begun.elapsed());
        satellite.close().await;
    }
    longest
}
