//! Which forwarder, and who receives what it sends: for all commands of `groundstation forward`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use ipnet::IpNet;
use secrecy::{ExposeSecret, SecretString};

use super::exit::wrong_usage;
use crate::forward::name::Name;
use crate::forward::networks::Networks;
use crate::forward::receiver::{self, Target};
use crate::forward::signature::Secrets;
use crate::forward::signing::Signing;
use crate::platform::{client_tls, units};
use crate::pod::config::{NatsArgs, read_secret};

/// Which forwarder, and where its stream is.
#[derive(Args)]
pub struct OwnArgs {
    #[command(flatten)]
    nats: NatsArgs,

    /// The forwarder's name: of its consumer, its place and its dead letters
    #[arg(
        long,
        env = "GROUNDSTATION_FORWARD_NAME",
        default_value = "webhooks",
        value_name = "NAME"
    )]
    name: String,
}

impl OwnArgs {
    /// The checked name.
    pub fn name(&self) -> anyhow::Result<Name> {
        let name = self.name.parse();
        name.map_err(|wrong| anyhow!("GROUNDSTATION_FORWARD_NAME is {:?}: {wrong}", self.name))
    }

    /// A connection.
    pub async fn connect(&self) -> anyhow::Result<async_nats::Client> {
        let address = self.nats.required().map_err(wrong_usage)?;
        address.connect("groundstation forward").await
    }
}

/// Who receives.
#[derive(Args)]
pub struct ReceiverArgs {
    /// The receiver: https://…, or http://… in a network that --allow-network names
    #[arg(long, env = "GROUNDSTATION_FORWARD_TO", hide_env_values = true, value_name = "URL")]
    to: Option<SecretString>,

    /// A file that holds its address, where that is a secret
    #[arg(long, env = "GROUNDSTATION_FORWARD_TO_FILE", value_name = "FILE")]
    to_file: Option<PathBuf>,

    /// The secret that signs, whsec_ and base64; while it is rotated several, with commas: each signs
    #[arg(
        long,
        env = "GROUNDSTATION_FORWARD_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    secret: Option<SecretString>,

    /// A file that holds the secret, or several, one a line; another content counts without a restart
    #[arg(long, env = "GROUNDSTATION_FORWARD_SECRET_FILE", value_name = "FILE")]
    secret_file: Option<PathBuf>,

    /// A network that may be connected to although it is not public, such as 10.0.0.0/8; several with commas
    #[arg(
        long = "allow-network",
        env = "GROUNDSTATION_FORWARD_ALLOW_NETWORKS",
        value_name = "NETWORKS",
        value_delimiter = ','
    )]
    allow_networks: Vec<String>,

    /// The certificates that vouch for the receiver [default: those of the system]
    #[arg(long, env = "GROUNDSTATION_FORWARD_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// How long one attempt may take
    #[arg(
        long,
        env = "GROUNDSTATION_FORWARD_TIMEOUT",
        default_value = "15s",
        value_name = "DURATION"
    )]
    timeout: String,
}

impl ReceiverArgs {
    /// What is needed to reach it.
    pub fn settings(&self, concurrency: usize) -> anyhow::Result<receiver::Settings> {
        let ca = self.ca.as_deref().filter(|file| !file.as_os_str().is_empty());
        Ok(receiver::Settings {
            target: self.target()?,
            networks: self.networks()?,
            trusted: client_tls::trusted("GROUNDSTATION_FORWARD_CA", ca)?,
            timeout: self.timeout()?,
            concurrency,
        })
    }

    /// How long one attempt may take.
    pub fn timeout(&self) -> anyhow::Result<Duration> {
        units::duration("GROUNDSTATION_FORWARD_TIMEOUT", &self.timeout)
    }

    fn target(&self) -> anyhow::Result<Target> {
        match (present(&self.to), file(&self.to_file)) {
            (Some(_), Some(_)) => {
                bail!(
                    "GROUNDSTATION_FORWARD_TO and GROUNDSTATION_FORWARD_TO_FILE are both set: set one of them"
                )
            }
            (Some(to), None) => Target::parse("GROUNDSTATION_FORWARD_TO", to.expose_secret()),
            (None, Some(file)) => {
                let setting = "GROUNDSTATION_FORWARD_TO_FILE";
                let text = read_secret(setting, file)?;
                Target::parse(setting, text.expose_secret().trim())
            }
            (None, None) => bail!(
                "--to is missing: the address that receives, such as https://hooks.example/groundstation"
            ),
        }
    }

    /// The secrets that sign.
    pub fn signing(&self) -> anyhow::Result<Signing> {
        match (present(&self.secret), file(&self.secret_file)) {
            (Some(_), Some(_)) => bail!(
                "GROUNDSTATION_FORWARD_SECRET and GROUNDSTATION_FORWARD_SECRET_FILE are both set: set one of them"
            ),
            (Some(secret), None) => {
                Ok(Signing::fixed(Secrets::parse("GROUNDSTATION_FORWARD_SECRET", secret)?))
            }
            (None, Some(file)) => {
                let (setting, file) = ("GROUNDSTATION_FORWARD_SECRET_FILE", file.to_owned());
                Signing::followed(Box::new(move || {
                    Secrets::parse(setting, &read_secret(setting, &file)?)
                }))
            }
            (None, None) => bail!(
                "GROUNDSTATION_FORWARD_SECRET is missing: the receiver knows by it who sends; make one with \
                 `echo whsec_$(openssl rand -base64 32)`"
            ),
        }
    }

    fn networks(&self) -> anyhow::Result<Networks> {
        let words =
            self.allow_networks.iter().map(|word| word.trim()).filter(|word| !word.is_empty());
        let network = |word: &str| {
            let address = word.parse::<std::net::IpAddr>().map(IpNet::from);
            address.or_else(|_| word.parse::<IpNet>()).with_context(|| {
                format!("GROUNDSTATION_FORWARD_ALLOW_NETWORKS has {word:?}, not a network such as 10.0.0.0/8")
            })
        };
        Ok(Networks::new(words.map(network).collect::<anyhow::Result<_>>()?))
    }
}

fn present(value: &Option<SecretString>) -> Option<&SecretString> {
    value.as_ref().filter(|value| !value.expose_secret().is_empty())
}

fn file(path: &Option<PathBuf>) -> Option<&PathBuf> {
    path.as_ref().filter(|path| !path.as_os_str().is_empty())
}
