//! The probe of a pod. It proves that the database is writable, by writing this pod's row in `pods`, and
//! makes partitions of the log ahead of time. It reports to [`Health`].

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::log::partitions;
use crate::log::read::{self, Beyond};
use crate::log::watermark::{self, PodNumber};
use crate::platform::database::{Database, Failed, Usage};
use crate::platform::health::Health;
use crate::platform::metrics::Metrics;
use crate::stream::checkpoint;

/// How often the database is proved writable.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long a probe may take before the database counts as not writable.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The task that probes.
pub struct Probe {
    /// Where it reports.
    pub health: Arc<Health>,
    /// This pod's name.
    pub name: String,
    /// This pod's number.
    pub pod: PodNumber,
    /// How long the pod vouches, if it does.
    pub vouch_window: Option<Duration>,
    /// The database that it probes.
    pub database: Database,
    /// The pool for reads, whose use it reports too.
    pub reads: Database,
    /// Positions in each new partition.
    pub partition_width: i64,
    /// The connection whose state it reports.
    pub nats: async_nats::Client,
    /// The pod's metrics.
    pub metrics: Metrics,
}

impl Probe {
    /// Probes until told to stop, then says in the pod's row that it has left.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => self.probe().await,
                () = stop.cancelled() => break,
            }
        }
        if let Err(error) = self.within_time(self.sign_off()).await {
            tracing::debug!(%error, "cannot note in the pod's row that it has left");
        }
    }

    async fn probe(&self) {
        let connected = self.nats.connection_state() == async_nats::connection::State::Connected;
        self.health.nats(connected);
        self.metrics.nats_up.set(connected.into());

        let written = self.within_time(self.write()).await;
        self.metrics.database_up.set(written.is_ok().into());
        for Usage { pool, in_use, max } in [self.database.usage(), self.reads.usage()] {
            self.metrics.connections(pool, in_use, max);
        }
        let news = self.health.database(written.is_ok());
        match written {
            Ok(()) if news => info!("the database can be written"),
            Err(error) if news => error!(%error, "the database cannot be written: not ready"),
            _ => {}
        }
    }

    async fn within_time(
        &self,
        work: impl Future<Output = Result<(), Failed>>,
    ) -> Result<(), String> {
        match tokio::time::timeout(PROBE_TIMEOUT, work).await {
            Ok(done) => done.map_err(|failed| failed.to_string()),
            Err(_) => Err(format!("no answer within {PROBE_TIMEOUT:?}")),
        }
    }

    async fn write(&self) -> Result<(), Failed> {
        let write = async |client: &mut Object| {
            watermark::prove(client, self.pod, &self.name, self.vouch_window).await?;
            let made = partitions::make_room(client, self.partition_width).await?;
            Ok::<_, tokio_postgres::Error>((made, self.relay_lag(client).await?))
        };
        let (made, lag) = self.database.run(write).await?;
        self.metrics.relay_lag.set(lag.transitions);
        self.metrics.relay_lag_seconds.set(lag.seconds);
        if made > 0 {
            info!(partitions = made, "made room in the log");
        }
        Ok(())
    }

    /// How far the stream is behind the log, whether or not any pod relays.
    async fn relay_lag(&self, client: &Object) -> Result<Beyond, tokio_postgres::Error> {
        let checkpoint = checkpoint::read(client).await?;
        read::beyond(client, checkpoint.tail.position).await
    }

    async fn sign_off(&self) -> Result<(), Failed> {
        self.database.run(async |client| watermark::sign_off(client, self.pod).await).await
    }
}
