//! Satellites that come and go, so that edges flow.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::fleet::Fleet;
use super::pod::Pod;
use super::satellite::{Credentials, Satellite};

/// Satellites that come and go until they are told to end.
pub struct Traffic {
    satellites: JoinSet<()>,
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

    /// Ends it.
    pub async fn end(mut self) {
        self.end.cancel();
        while let Some(ended) = self.satellites.join_next().await {
            ended.expect("a satellite");
        }
    }
}

async fn come_and_go(
    pod: SocketAddr,
    credentials: Credentials,
    every: Duration,
    end: CancellationToken,
) {
    let mut ticks = interval(every);
    while !end.is_cancelled() {
        ticks.tick().await;
        Satellite::connect(pod, &credentials).await.close().await;
    }
}
