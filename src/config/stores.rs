//! Where the two stores are: the settings of Postgres and of NATS, for every command that talks to them.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::span;
use crate::database::Address;
use crate::nats;

/// The database's address, for every command that talks to it.
#[derive(Args, Clone)]
pub struct DatabaseArgs {
    /// Postgres 15 or newer, e.g. postgres://user:password@host:5432/groundstation
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<SecretString>,
}

impl DatabaseArgs {
    /// The address, or an error that names what is missing.
    pub fn required(&self) -> anyhow::Result<Address> {
        self.address()?.context(
            "DATABASE_URL is missing: set it to postgres://user:password@host:5432/groundstation",
        )
    }

    /// The checked address, if there is one.
    pub(super) fn address(&self) -> anyhow::Result<Option<Address>> {
        let url = self.database_url.as_ref().filter(|url| !url.expose_secret().is_empty());
        url.map(|url| Address::parse("DATABASE_URL", url.expose_secret())).transpose()
    }
}

/// What `groundstation migrate` takes.
#[derive(Args, Clone)]
pub struct MigrateArgs {
    /// Where the schema is to be; the role must be allowed to create tables
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Used instead of DATABASE_URL where that leads through a pooler or to a lesser role
    #[arg(long, env = "DATABASE_DIRECT_URL", hide_env_values = true, value_name = "URL")]
    pub database_direct_url: Option<SecretString>,

    /// What pods may never drop of the log, whatever GROUNDSTATION_RETENTION they are given, such as 90d
    /// [default: as it is; at first 1 day]
    #[arg(long, env = "GROUNDSTATION_RETENTION_FLOOR", value_name = "SPAN")]
    pub retention_floor: Option<String>,
}

impl MigrateArgs {
    /// What pods may never drop, where that is to be changed.
    pub fn retention_floor(&self) -> anyhow::Result<Option<Duration>> {
        let floor = self.retention_floor.as_deref().filter(|text| !text.is_empty());
        floor.map(|text| span("GROUNDSTATION_RETENTION_FLOOR", text)).transpose()
    }

    /// The address to migrate.
    pub fn address(&self) -> anyhow::Result<Address> {
        let direct =
            self.database_direct_url.as_ref().filter(|url| !url.expose_secret().is_empty());
        if let Some(url) = direct {
            return Address::parse("DATABASE_DIRECT_URL", url.expose_secret());
        }
        self.database.required()
    }
}

/// NATS, for every command that talks to it.
#[derive(Args, Clone)]
pub struct NatsArgs {
    /// nats-server 2.10 or newer with JetStream, e.g. nats://host:4222; several with commas
    #[arg(long, env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    pub nats_url: Option<SecretString>,

    /// A NATS credentials file
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,
}

impl NatsArgs {
    /// The checked address, if there is one.
    pub fn address(&self) -> anyhow::Result<Option<nats::Address>> {
        let url = self.nats_url.as_ref().filter(|url| !url.expose_secret().is_empty());
        url.map(|url| nats::Address::parse(url.expose_secret(), self.nats_creds.as_deref()))
            .transpose()
    }

    /// The address, for a command that is of no use without it.
    pub fn required(&self) -> anyhow::Result<nats::Address> {
        self.address()?.context("NATS_URL is missing: set it to nats://host:4222")
    }
}
