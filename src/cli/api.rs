//! Which pod a command talks to, and with which token.
//!
//! What the command line says goes before the context that it or `GROUNDSTATION_CONTEXT` names, that before the other
//! variables, and those before the file's own choice of a context. A context's token goes to the context's address: where
//! the address comes from elsewhere, no context is chosen but by its name.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::context::{self, Context};
use super::exit::wrong_usage;
use super::token_file;
use crate::clients::client::Client;
use crate::platform::client_tls::is_this_machine;
use crate::platform::token;

const URL: &str = "GROUNDSTATION_URL";
const TOKEN: &str = "GROUNDSTATION_ADMIN_TOKEN";
const TOKEN_FILE: &str = "GROUNDSTATION_ADMIN_TOKEN_FILE";
const CONTEXT: &str = "GROUNDSTATION_CONTEXT";
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// The options that name a pod and a token.
#[derive(Args)]
pub struct ApiArgs {
    /// A pod's address [env: GROUNDSTATION_URL] [default: the context's, or http://127.0.0.1:8080]
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,

    /// The token: one of the settings, or a named one; one that may only read is enough to look [env: GROUNDSTATION_ADMIN_TOKEN]
    #[arg(long, global = true, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<SecretString>,

    /// A file that holds the token [env: GROUNDSTATION_ADMIN_TOKEN_FILE]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Address and token of this name in ~/.config/groundstation/config.toml [env: GROUNDSTATION_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
}

/// A pod's address, and the token for it if there is one.
pub struct Target {
    url: String,
    token: Option<SecretString>,
}

impl ApiArgs {
    /// The pod and the token that count.
    pub fn target(&self) -> anyhow::Result<Target> {
        self.resolve().map_err(wrong_usage)
    }

    /// A client for this pod.
    pub fn client(&self) -> anyhow::Result<Client> {
        self.target()?.client()
    }

    fn resolve(&self) -> anyhow::Result<Target> {
        let context = self.context.clone().or_else(|| variable(CONTEXT));
        let url = self.url.clone().or_else(|| variable(URL));
        let context = match (context, &url) {
            (Some(name), _) => Some(context::named(&name)?),
            (None, Some(_)) => None,
            (None, None) => context::default()?,
        };
        let (of_context, token) = match context {
            Some(Context { url, token }) => (Some(url), token),
            None => (None, None),
        };
        let url = self.url.clone().or(of_context).or(url).unwrap_or(DEFAULT_URL.to_owned());
        checked(&url)?;
        let token = match (&self.token, &self.token_file, token) {
            (Some(token), ..) => Some(token.clone()),
            (None, Some(file), _) => Some(token_file::read(file)?),
            (None, None, Some(token)) => Some(token),
            (None, None, None) => of_environment()?,
        };
        Ok(Target { url, token })
    }
}

/// The token of the environment, which may be a pod's own, of several for rotation.
fn of_environment() -> anyhow::Result<Option<SecretString>> {
    match (variable(TOKEN), variable(TOKEN_FILE)) {
        (Some(text), _) => Ok(token_file::newest(&text)),
        (None, Some(file)) => token_file::read(file.as_ref()).map(Some),
        (None, None) => Ok(None),
    }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

impl Target {
    /// A client for this pod.
    pub fn client(&self) -> anyhow::Result<Client> {
        let token = self.token.clone();
        let token = token.context(
            "no token: set GROUNDSTATION_ADMIN_TOKEN, or pass --token-file, --token or --context",
        );
        client(&self.url, token.map_err(wrong_usage)?)
    }

    /// The pod's address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether there is a token at all.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The satellites' WebSocket address of the same pod.
    pub fn websocket(&self) -> String {
        // http becomes ws, and https wss.
        let rest = self.url.trim_end_matches('/').strip_prefix("http").unwrap_or_default();
        format!("ws{rest}/api/ws/satellite")
    }
}

/// A client for the pod at this address, if the token can be one.
pub(super) fn client(url: &str, token: SecretString) -> anyhow::Result<Client> {
    let text = token.expose_secret();
    if token::is_named(text) && !token::is_whole(text) {
        let mistyped = "the token is mistyped or cut off: its checksum does not fit";
        return Err(wrong_usage(anyhow!(mistyped)));
    }
    if let Some(host) = in_plain_text(url) {
        eprintln!("groundstation: the token goes to {host} in plain text: use https://");
    }
    Ok(Client::new(url, token))
}

/// The host that is spoken to without TLS though it is another machine.
fn in_plain_text(url: &str) -> Option<&str> {
    let authority = url.strip_prefix("http://")?.split('/').next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next()?,
    };
    (!is_this_machine(host)).then_some(host)
}

/// A pod's address, if it can be one.
pub(super) fn checked(url: &str) -> anyhow::Result<&str> {
    match url.split_once("://") {
        Some(("http" | "https", rest)) if !rest.is_empty() => Ok(url),
        _ => Err(wrong_usage(anyhow!(
            "the pod's address is {url:?}, it must begin with http:// or https://"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_in_plain_text_is_fine_on_this_machine_only() {
        let cases = [
            ("http://127.0.0.1:8080", None),
            ("http://localhost/", None),
            ("http://[::1]:8080/x", None),
            ("https://pod.example", None),
            ("http://pod.example:8080/x", Some("pod.example")),
            ("http://[2001:db8::1]:8080", Some("2001:db8::1")),
            ("http://localhost@evil.example", Some("evil.example")),
        ];
        for (url, host) in cases {
            assert_eq!(in_plain_text(url), host, "{url}");
        }
    }

    #[test]
    fn the_websocket_is_beside_the_api() {
        for (url, websocket) in [
            ("http://pod:8080/", "ws://pod:8080/api/ws/satellite"),
            ("https://pod/base", "wss://pod/base/api/ws/satellite"),
        ] {
            let target = Target { url: url.to_owned(), token: None };
            assert_eq!(target.websocket(), websocket);
        }
    }
}
