//! The settings of Postgres and NATS, for every command that connects to them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::{read_secret, span};
use crate::platform::client_tls;
use crate::platform::database::Address;
use crate::platform::nats;

/// The database's address, for every command that connects to it.
#[derive(Args, Clone)]
pub struct DatabaseArgs {
    /// Postgres 15 or newer, e.g. postgres://user:password@host:5432/groundstation
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<SecretString>,

    /// A file that holds DATABASE_URL
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
}

impl DatabaseArgs {
    /// The address, or an error that names the missing setting.
    pub fn required(&self) -> anyhow::Result<Address> {
        self.address()?.context(
            "DATABASE_URL is missing: set it to postgres://user:password@host:5432/groundstation",
        )
    }

    /// The checked address, if there is one.
    pub(super) fn address(&self) -> anyhow::Result<Option<Address>> {
        let url = secret("DATABASE_URL", &self.database_url, &self.database_url_file)?;
        url.map(|url| Address::parse("DATABASE_URL", url.expose_secret())).transpose()
    }
}

/// The options of `groundstation migrate`.
#[derive(Args, Clone)]
pub struct MigrateArgs {
    /// The database of the schema; the role must be allowed to create tables
    #[command(flatten)]
    pub database: DatabaseArgs,

    /// Used instead of DATABASE_URL if that goes through a pooler or names a lesser role
    #[arg(long, env = "DATABASE_DIRECT_URL", hide_env_values = true, value_name = "URL")]
    pub database_direct_url: Option<SecretString>,

    /// The span of the log that pods may never drop, whatever GROUNDSTATION_RETENTION says, such as
    /// 90d [default: as it is; at first 1 day]
    #[arg(long, env = "GROUNDSTATION_RETENTION_FLOOR", value_name = "SPAN")]
    pub retention_floor: Option<String>,
}

impl MigrateArgs {
    /// The span that pods may never drop, if it is to be changed.
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

/// The NATS settings, for every command that connects to it.
#[derive(Args, Clone)]
pub struct NatsArgs {
    /// nats-server 2.10 or newer with JetStream, e.g. tls://host:4222; several with commas
    #[arg(long, env = "NATS_URL", hide_env_values = true, value_name = "URL")]
    pub nats_url: Option<SecretString>,

    /// A file that holds NATS_URL
    #[arg(long, env = "NATS_URL_FILE", value_name = "FILE")]
    pub nats_url_file: Option<PathBuf>,

    /// A NATS credentials file
    #[arg(long, env = "NATS_CREDS", value_name = "FILE")]
    pub nats_creds: Option<PathBuf>,

    /// A file that holds the seed of an nkey, instead of NATS_CREDS
    #[arg(long, env = "NATS_NKEY", value_name = "FILE")]
    pub nats_nkey: Option<PathBuf>,

    /// The certificates that vouch for the servers; with them, or with tls://, TLS is mandatory
    /// [default: those of the system]
    #[arg(long, env = "NATS_CA", value_name = "FILE")]
    pub nats_ca: Option<PathBuf>,

    /// A certificate for the servers that ask for one
    #[arg(long, env = "NATS_CERT", value_name = "FILE")]
    pub nats_cert: Option<PathBuf>,

    /// The certificate's key
    #[arg(long, env = "NATS_KEY", value_name = "FILE")]
    pub nats_key: Option<PathBuf>,

    /// The prefix of the subjects of answers; a user with rights of its own has its own prefix
    #[arg(long, env = "NATS_INBOX_PREFIX", default_value = "_INBOX", value_name = "PREFIX")]
    pub nats_inbox_prefix: String,
}

impl NatsArgs {
    /// The checked address, if there is one.
    pub fn address(&self) -> anyhow::Result<Option<nats::Address>> {
        let Some(url) = secret("NATS_URL", &self.nats_url, &self.nats_url_file)? else {
            return Ok(None);
        };
        let (creds, nkey) = (named(&self.nats_creds), named(&self.nats_nkey));
        let certificate = match (named(&self.nats_cert), named(&self.nats_key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => bail!("NATS_CERT is set without NATS_KEY"),
            (None, Some(_)) => bail!("NATS_KEY is set without NATS_CERT"),
        };
        let identity = match (creds, nkey) {
            (Some(_), Some(_)) => bail!("NATS_CREDS and NATS_NKEY are both set: set one of them"),
            (Some(file), None) => {
                Some(nats::Identity::credentials(&read_secret("NATS_CREDS", file)?))
            }
            (None, Some(file)) => Some(nats::Identity::nkey(&read_secret("NATS_NKEY", file)?)?),
            (None, None) => None,
        };
        let mut address = nats::Address::parse(url.expose_secret())?;
        address.answers_at(&self.nats_inbox_prefix)?;
        if let Some(identity) = identity {
            address.identifies_by(identity);
        }
        if named(&self.nats_ca).is_some() || certificate.is_some() {
            let roots = client_tls::Roots::of("NATS_CA", named(&self.nats_ca))?;
            address.demands_tls(roots, certificate)?;
        }
        Ok(Some(address))
    }

    /// The address, for a command that needs it.
    pub fn required(&self) -> anyhow::Result<nats::Address> {
        self.address()?.context("NATS_URL is missing: set it to nats://host:4222")
    }
}

/// An empty variable counts as none.
pub(super) fn named(file: &Option<PathBuf>) -> Option<&Path> {
    file.as_deref().filter(|file| !file.as_os_str().is_empty())
}

/// A secret given directly or by file; an empty one counts as none.
pub(super) fn secret(
    name: &str,
    value: &Option<SecretString>,
    file: &Option<PathBuf>,
) -> anyhow::Result<Option<SecretString>> {
    let value = value.as_ref().filter(|value| !value.expose_secret().is_empty());
    match (value, named(file)) {
        (Some(_), Some(_)) => bail!("{name} and {name}_FILE are both set: set one of them"),
        (Some(value), None) => Ok(Some(value.clone())),
        (None, Some(file)) => {
            let text = read_secret(&format!("{name}_FILE"), file)?;
            match text.expose_secret().trim() {
                "" => bail!("{name}_FILE {} is empty", file.display()),
                text => Ok(Some(text.into())),
            }
        }
        (None, None) => Ok(None),
    }
}
