//! Retention: drops whole partitions of the log once they are old, oldest first, and archives them before.
//!
//! Owns the order of steps: look, archive, check the archive, drop. Promises that nothing is dropped that is not in
//! its archive (where one is asked for), that it can be stopped anywhere and run again, and that any number of pods
//! may run it at once. The database alone decides what may be dropped (see [`partitions`]): nothing young, nothing
//! younger than its own floor, nothing that the relay has not published, never the newest.
//!
//! Must not touch: rows, the stream, the projection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use deadpool_postgres::Object;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::domain::lifecycle::Position;
use crate::log::partitions::{self, Partition};
use crate::log::{self, read};
use crate::platform::database::{self, Database, Failed};
use crate::platform::metrics::Metrics;
use archive::Draft;

pub(crate) mod archive;

/// How often a pod looks. Partitions live for days, so nothing waits for this.
const LOOK_INTERVAL: Duration = Duration::from_secs(600);

/// Tries to get the log's lock for the moment of a drop. In the pause between them, the appends that waited behind
/// the last try get through.
const DROP_TRIES: u32 = 5;
const DROP_PAUSE: Duration = Duration::from_secs(1);

/// How long giving the lead back may take. Closing the session does the same a little later.
const STEP_DOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Partitions that one dry run lists.
const MAX_LISTED: i64 = 1_000;

/// What is to be kept, and where the rest goes.
pub struct Retention {
    /// The database that holds the log.
    pub database: Database,
    /// A partition goes when its newest transition is older than this.
    pub older_than: Duration,
    /// The folder of the archives. Without one, what is dropped is gone.
    pub archive: Option<PathBuf>,
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This partition is in its archive up to a position.
    Archiving {
        /// The partition.
        partition: Partition,
        /// The position.
        through: Position,
    },
    /// This partition is gone.
    Dropped {
        /// The partition.
        partition: Partition,
        /// The archive that holds it now.
        archive: Option<PathBuf>,
    },
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Run {
    /// Everything that may go is gone; the oldest partition that stays says why.
    Done {
        /// How many were dropped.
        dropped: usize,
        /// The oldest that stays.
        oldest: Option<Partition>,
    },
    /// Another pod leads.
    SomebodyElse,
}

impl Retention {
    /// What a run would drop now, and behind it the first partition that stays.
    pub async fn outlook(&self) -> anyhow::Result<Vec<Partition>> {
        let mut partitions = self.kept(MAX_LISTED).await?;
        let stays = partitions.iter().position(|partition| partition.obstacle.is_some());
        partitions.truncate(stays.map_or(partitions.len(), |first| first + 1));
        Ok(partitions)
    }

    /// Archives and drops everything that may go.
    pub async fn run(&self, mut tell: impl FnMut(Step)) -> anyhow::Result<Run> {
        // The lead belongs to the session, so the session is taken out of the pool: both end with this run.
        let leader = Object::take(self.database.get().await?);
        let lead = timeout(database::REPLY_TIMEOUT, partitions::take_the_lead(&leader)).await;
        if !lead.context("no answer from the database")?.map_err(Failed::from)? {
            return Ok(Run::SomebodyElse);
        }
        let done = self.drop_expired(&mut tell).await;
        // The next leader then need not wait until the database has noticed that the session is over.
        if !matches!(timeout(STEP_DOWN_TIMEOUT, partitions::step_down(&leader)).await, Ok(Ok(()))) {
            debug!("the lead ends with its session");
        }
        done
    }

    async fn kept(&self, limit: i64) -> Result<Vec<Partition>, Failed> {
        let kept =
            async |client: &mut Object| partitions::kept(client, self.older_than, limit).await;
        self.database.run(kept).await
    }

    async fn drop_expired(&self, tell: &mut impl FnMut(Step)) -> anyhow::Result<Run> {
        let mut dropped = 0;
        loop {
            let oldest = self.kept(1).await?.pop();
            let partition = match oldest {
                Some(partition) if partition.obstacle.is_none() => partition,
                oldest => return Ok(Run::Done { dropped, oldest }),
            };
            let archive = match &self.archive {
                Some(folder) => {
                    Some(self.archive(folder, &partition, tell).await.with_context(|| {
                        format!("cannot archive positions {}", range(&partition))
                    })?)
                }
                None => None,
            };
            self.drop_partition(&partition)
                .await
                .with_context(|| format!("cannot drop positions {}", range(&partition)))?;
            dropped += 1;
            tell(Step::Dropped { partition, archive });
        }
    }

    /// Writes the partition's file, page by page.
    async fn archive(
        &self,
        folder: &Path,
        partition: &Partition,
        tell: &mut impl FnMut(Step),
    ) -> anyhow::Result<PathBuf> {
        let (folder, first, last) = (folder.to_owned(), partition.first, partition.last);
        let mut draft = spawn_blocking(move || Draft::begin(&folder, first, last)).await??;
        let mut through = Position(first.0 - 1);
        while through < last {
            let page = async |client: &mut Object| {
                read::within(client, through, last, read::MAX_LIMIT, None, None).await
            };
            let entries = self.database.run(page).await?;
            let Some(newest) = entries.last() else {
                bail!(
                    "the log has nothing behind position {}: was it dropped meanwhile?",
                    through.0
                );
            };
            through = newest.position;
            draft = spawn_blocking(move || draft.add(&entries).map(|()| draft)).await??;
            tell(Step::Archiving { partition: partition.clone(), through });
        }
        spawn_blocking(move || draft.finish()).await?
    }

    async fn drop_partition(&self, partition: &Partition) -> anyhow::Result<()> {
        for tries_left in (0..DROP_TRIES).rev() {
            let drop = async |client: &mut Object| {
                partitions::drop_oldest(client, partition.first, self.older_than).await
            };
            match self.database.run_within(partitions::DROP_TIMEOUT, drop).await {
                Ok(()) => return Ok(()),
                Err(Failed::Server(error)) if partitions::is_busy(&error) => match tries_left {
                    0 => bail!("the log is in use and cannot be locked right now"),
                    _ => tokio::time::sleep(DROP_PAUSE).await,
                },
                Err(failed) => bail!(failed),
            }
        }
        Ok(())
    }
}

/// The positions of a partition, in words.
pub fn range(partition: &Partition) -> String {
    format!("{} to {}", partition.first.0, partition.last.0)
}

/// The task of a pod that keeps the log within a span.
pub struct Keeper {
    /// What it does.
    pub retention: Retention,
    /// What it counts.
    pub metrics: Metrics,
}

impl Keeper {
    /// Looks every [`LOOK_INTERVAL`] until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        if let Err(error) = self.compare_with_the_floor().await {
            // The first look reports what follows from this.
            warn!(error = %format!("{error:#}"), "cannot read the retention floor");
        }
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stop.cancelled() => return,
            }
            // It is safe to stop anywhere in between.
            let looked = tokio::select! {
                looked = self.look() => looked,
                () = stop.cancelled() => return,
            };
            if let Err(error) = looked {
                self.metrics.retention_failures.inc();
                warn!(error = %format!("{error:#}"), "cannot drop what is old");
            }
        }
    }

    async fn compare_with_the_floor(&self) -> anyhow::Result<()> {
        let floor = async |client: &mut Object| partitions::floor(client).await;
        let floor = self.retention.database.run(floor).await?;
        if self.retention.older_than < floor {
            warn!(
                ?floor,
                "the database keeps more than GROUNDSTATION_RETENTION: its retention floor"
            );
        }
        Ok(())
    }

    async fn look(&self) -> anyhow::Result<()> {
        self.retention
            .run(|step| {
                if let Step::Dropped { partition, archive } = step {
                    let archive = archive.map(|file| file.display().to_string());
                    info!(
                        first = partition.first.0,
                        last = partition.last.0,
                        archive = archive.as_deref().unwrap_or("none"),
                        "dropped an old partition of the log"
                    );
                }
            })
            .await?;
        let horizon = async |client: &mut Object| log::horizon(client).await;
        self.metrics.log_horizon.set(self.retention.database.run(horizon).await?.0);
        Ok(())
    }
}
