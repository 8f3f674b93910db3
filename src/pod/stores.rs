//! A pod's database, checked before anything begins.

use anyhow::Context;
use deadpool_postgres::Object;

use super::config::Config;
use crate::log::rights;
use crate::log::watermark::{self, PodNumber};
use crate::platform::database::Database;
use crate::platform::metrics::Metrics;
use crate::platform::migrations;

/// The database with two pools: readers do not wait for writers.
pub struct Stores {
    /// For all writers.
    pub database: Database,
    /// For reads from outside.
    pub reads: Database,
    /// The number of this pod's life.
    pub number: PodNumber,
    /// The rights that the database gives it beyond what a pod needs.
    pub rights: Vec<String>,
}

impl Stores {
    /// Checks that the database fits this version, and signs on.
    pub async fn open(config: &Config, metrics: &Metrics) -> anyhow::Result<Stores> {
        let database = config.database.clone().for_writing().pool(&config.pod)?;
        let database = database.counted(metrics.clone());
        let reads = config.database.clone().for_writing().reads(&config.pod, &config.reads)?;
        let reads = reads.counted(metrics.clone());
        migrations::check(&database, &config.database).await?;
        // This checks the sessions of the second pool, and leaves one open for the first reader.
        reads.check_session(&config.database).await?;
        let look = async |client: &mut Object| rights::beyond_the_service(client).await;
        let rights = database.run(look).await.context("cannot look at the rights")?;
        let sign_on = async |client: &mut Object| {
            watermark::sign_on(client, &config.pod, config.vouch_window).await
        };
        let number = database.run(sign_on).await.context("cannot sign on")?;
        Ok(Stores { database, reads, number, rights })
    }
}
