//! A pod's appender and relay in this process: edges without sockets.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use groundstation::domain::flapping;
use groundstation::domain::lifecycle::Position;
use groundstation::domain::liveness::DEFAULT_OFFLINE_THRESHOLD;
use groundstation::log::append::{Log, appender};
use groundstation::log::transaction::Rules;
use groundstation::log::watermark::PodNumber;
use groundstation::platform::database::Database;
use groundstation::platform::health::Health;
use groundstation::platform::metrics::Metrics;
use groundstation::platform::replicas::{Replicas, Replication};
use groundstation::stream::relay::Relay;
use groundstation::stream::tail;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// See the module.
pub struct Engine {
    pub log: Log,
    pub metrics: Metrics,
    pub health: Arc<Health>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Engine {
    /// Starts both as the pod of this name and number.
    pub fn start(
        database: &Database,
        nats: &async_nats::Client,
        name: &str,
        pod: PodNumber,
    ) -> Engine {
        let (metrics, health) = (Metrics::new(), Arc::new(Health::default()));
        let (log, head_watch, mut tasks) = append(database, pod, &health, &metrics);
        let relay = Relay {
            pod: name.to_owned(),
            database: database.clone(),
            nats: nats.clone(),
            head: head_watch,
            health: health.clone(),
            replication: Replication::of(tail::NAME, Replicas::AsManyAsThereAre),
            cell: None,
            metrics: metrics.clone(),
        };
        let stop = CancellationToken::new();
        tasks.push(tokio::spawn(relay.run(stop.clone())));
        Engine { log, metrics, health, stop, tasks }
    }

    /// Ends both. The relay gives its lease back.
    pub async fn end(self) {
        self.stop.cancel();
        drop(self.log);
        for task in self.tasks {
            task.await.expect("a task");
        }
    }
}

/// A pod's appender alone: the way to it, the head of the log it tells, and its tasks, which end once nobody has
/// the way to it any more.
pub fn append(
    database: &Database,
    pod: PodNumber,
    health: &Arc<Health>,
    metrics: &Metrics,
) -> (Log, watch::Receiver<Position>, Vec<JoinHandle<()>>) {
    let (head, head_watch) = watch::channel(Position::ZERO);
    let (announce, mut announcements) = mpsc::channel(16);
    let rules = Rules {
        default_threshold: DEFAULT_OFFLINE_THRESHOLD,
        flapping: flapping::Rules::default(),
        pod,
    };
    let (log, appender) =
        appender(database.clone(), rules, head, announce, health.clone(), metrics.clone());
    let tasks = vec![
        tokio::spawn(appender.run()),
        tokio::spawn(async move { while announcements.recv().await.is_some() {} }),
    ];
    (log, head_watch, tasks)
}

/// Messages on the stream.
pub async fn messages(jetstream: &jetstream::Context) -> usize {
    match jetstream.get_stream(tail::NAME).await {
        Ok(stream) => stream.cached_info().state.messages as usize,
        Err(_) => 0,
    }
}

/// Waits until the stream has this many messages.
pub async fn reached(jetstream: &jetstream::Context, count: usize) {
    while messages(jetstream).await < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until there is a stream.
pub async fn stream_there(jetstream: &jetstream::Context) {
    while jetstream.get_stream(tail::NAME).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
