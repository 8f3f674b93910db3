//! Which pod a command talks to, and with which token.

use anyhow::{Context, anyhow};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::exit::wrong_usage;
use crate::clients::client::Client;
use crate::platform::token;
use crate::pod::config;

/// The options that name a pod and a token.
#[derive(Args)]
pub struct ApiArgs {
    /// A pod's address
    #[arg(long, env = "GROUNDSTATION_URL", default_value = "http://127.0.0.1:8080", global = true)]
    url: String,

    /// A token: of the settings, or a named one (one that may only read is enough to look)
    #[arg(
        long,
        env = "GROUNDSTATION_ADMIN_TOKEN",
        hide_env_values = true,
        global = true,
        value_name = "TOKEN"
    )]
    token: Option<SecretString>,
}

impl ApiArgs {
    /// A client for this pod.
    pub fn client(&self) -> anyhow::Result<Client> {
        // The pod's own variable may hold several tokens for rotation; the first is the newest.
        let token = self.token.as_ref().map(ExposeSecret::expose_secret);
        let token = token.and_then(|text| config::split_tokens(text).next());
        let token = token.context("no token: set GROUNDSTATION_ADMIN_TOKEN or pass --token");
        let token = token.map_err(wrong_usage)?;
        if token::is_named(token) && !token::is_whole(token) {
            let mistyped = "the token is mistyped or cut off: its checksum does not fit";
            return Err(wrong_usage(anyhow!(mistyped)));
        }
        Ok(Client::new(self.url()?, token.into()))
    }

    /// The pod's address.
    pub fn url(&self) -> anyhow::Result<&str> {
        checked(&self.url)
    }

    /// Whether there is a token at all.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The satellites' WebSocket address of the same pod.
    pub fn websocket(&self) -> anyhow::Result<String> {
        let base = self.url.trim_end_matches('/');
        let base = match base.split_once("://") {
            Some(("http", rest)) => format!("ws://{rest}"),
            Some(("https", rest)) => format!("wss://{rest}"),
            _ => return Err(no_address(base)),
        };
        Ok(format!("{base}/api/ws/satellite"))
    }
}

/// A pod's address, if it can be one.
pub(super) fn checked(url: &str) -> anyhow::Result<&str> {
    match url.split_once("://") {
        Some(("http" | "https", rest)) if !rest.is_empty() => Ok(url),
        _ => Err(no_address(url)),
    }
}

fn no_address(url: &str) -> anyhow::Error {
    wrong_usage(anyhow!("--url is {url:?}, it must begin with http:// or https://"))
}
