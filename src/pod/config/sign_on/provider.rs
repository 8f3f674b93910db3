//! The identity provider where people sign in, and their sessions by it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::{MAX_TEXT, text, words};
use crate::console::oidc::settings::{CALLBACK, Settings};
use crate::platform::fetch::is_trustworthy;
use crate::platform::token::{self, Digest, Digests};
use crate::platform::units::duration;
use crate::pod::config::stores::{named, secret};
use crate::pod::config::{digests, given};

/// The arguments of the provider.
#[derive(Args, Clone)]
#[command(next_help_heading = "Single sign-on")]
pub(super) struct ProviderArgs {
    /// The OpenID Connect provider where people sign in, as its tokens name it, such as https://id.example/realms/ops
    /// [default: none, people sign in with tokens]
    #[arg(long, env = "GROUNDSTATION_OIDC_ISSUER", value_name = "URL")]
    oidc_issuer: Option<String>,

    /// As what the provider knows this service
    #[arg(long, env = "GROUNDSTATION_OIDC_CLIENT_ID", value_name = "ID")]
    oidc_client_id: Option<String>,

    /// The client's secret; none for a public client
    #[arg(
        long,
        env = "GROUNDSTATION_OIDC_CLIENT_SECRET",
        hide_env_values = true,
        value_name = "SECRET"
    )]
    oidc_client_secret: Option<SecretString>,

    /// A file that holds the client's secret
    #[arg(long, env = "GROUNDSTATION_OIDC_CLIENT_SECRET_FILE", value_name = "FILE")]
    oidc_client_secret_file: Option<PathBuf>,

    /// Where the provider sends people back to: the page's address with /console/session/oidc/callback at its end
    #[arg(long, env = "GROUNDSTATION_OIDC_REDIRECT_URL", value_name = "URL")]
    oidc_redirect_url: Option<String>,

    /// What the provider is asked for, with commas; `openid` is always among it
    #[arg(
        long,
        env = "GROUNDSTATION_OIDC_SCOPES",
        default_value = "openid,profile,email",
        value_name = "SCOPES"
    )]
    oidc_scopes: String,

    /// The claim that has a person's groups; dots lead into others, as in realm_access.roles
    #[arg(
        long,
        env = "GROUNDSTATION_OIDC_GROUPS_CLAIM",
        default_value = "groups",
        value_name = "CLAIM"
    )]
    oidc_groups_claim: String,

    /// The claim by which the records name a person; without it the e-mail address, or else the subject
    #[arg(
        long,
        env = "GROUNDSTATION_OIDC_NAME_CLAIM",
        default_value = "preferred_username",
        value_name = "CLAIM"
    )]
    oidc_name_claim: String,

    /// What the page calls the provider [default: its host]
    #[arg(long, env = "GROUNDSTATION_OIDC_PROVIDER_NAME", value_name = "NAME")]
    oidc_provider_name: Option<String>,

    /// The certificates that vouch for the provider, PEM [default: those of the system]
    #[arg(long, env = "GROUNDSTATION_OIDC_CA", value_name = "FILE")]
    oidc_ca: Option<PathBuf>,

    /// How long a person's session lasts: 1s to 24h
    #[arg(
        long,
        env = "GROUNDSTATION_OIDC_SESSION_LIFETIME",
        default_value = "8h",
        value_name = "DURATION"
    )]
    oidc_session_lifetime: String,

    /// The key of people's sessions, the same for all pods; 128 bits at least; several with commas or line breaks, for
    /// rotation [default: it follows from the client's secret]
    #[arg(
        long,
        env = "GROUNDSTATION_OIDC_SESSION_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    oidc_session_key: Option<SecretString>,

    /// A file that holds the key, or several
    #[arg(long, env = "GROUNDSTATION_OIDC_SESSION_KEY_FILE", value_name = "FILE")]
    oidc_session_key_file: Option<PathBuf>,
}

impl ProviderArgs {
    /// How long a person's session lasts.
    pub(super) fn lifetime(&self) -> anyhow::Result<Duration> {
        let lifetime =
            duration("GROUNDSTATION_OIDC_SESSION_LIFETIME", &self.oidc_session_lifetime)?;
        ensure!(
            lifetime >= Duration::from_secs(1),
            "GROUNDSTATION_OIDC_SESSION_LIFETIME is {:?}: it must be from 1s to 24h",
            self.oidc_session_lifetime
        );
        Ok(lifetime)
    }

    /// The provider, where one is named.
    pub(super) fn check(&self) -> anyhow::Result<Option<Settings>> {
        let Some(issuer) = given(&self.oidc_issuer) else { return Ok(None) };
        let issuer = text("GROUNDSTATION_OIDC_ISSUER", issuer)?;
        if !is_trustworthy(&issuer) || issuer.contains(['?', '#']) {
            bail!(
                "GROUNDSTATION_OIDC_ISSUER is {issuer:?}: it must be https://… (http:// on this machine only), \
                 without ? and #"
            );
        }
        let client = given(&self.oidc_client_id).context(
            "GROUNDSTATION_OIDC_CLIENT_ID is missing: the provider gives one to each service",
        )?;
        let name = "GROUNDSTATION_OIDC_CLIENT_SECRET";
        let secret = secret(name, &self.oidc_client_secret, &self.oidc_client_secret_file)?;
        let mut scopes: Vec<String> = words(&self.oidc_scopes).map(str::to_owned).collect();
        let is_scope = |scope: &String| scope.bytes().all(|byte| byte.is_ascii_graphic());
        ensure!(
            scopes.len() <= 32 && scopes.iter().all(is_scope) && self.oidc_scopes.len() <= MAX_TEXT,
            "GROUNDSTATION_OIDC_SCOPES must be at most 32 words of printable ASCII, with commas, {MAX_TEXT} in all"
        );
        if !scopes.iter().any(|scope| scope == "openid") {
            scopes.insert(0, "openid".to_owned());
        }
        let host = issuer.split("://").nth(1).and_then(|rest| rest.split('/').next());
        let provider_name = given(&self.oidc_provider_name).or(host).unwrap_or_default();
        Ok(Some(Settings {
            keys: self.keys(secret.as_ref())?,
            client: text("GROUNDSTATION_OIDC_CLIENT_ID", client)?,
            secret,
            redirect_url: redirect_url(given(&self.oidc_redirect_url))?,
            scopes,
            groups_claim: text("GROUNDSTATION_OIDC_GROUPS_CLAIM", &self.oidc_groups_claim)?,
            name_claim: text("GROUNDSTATION_OIDC_NAME_CLAIM", &self.oidc_name_claim)?,
            name: text("GROUNDSTATION_OIDC_PROVIDER_NAME", provider_name)?,
            roots: named(&self.oidc_ca).map(PathBuf::from),
            issuer,
        }))
    }

    /// The keys of sessions: whoever could guess one could make a session of anybody.
    fn keys(&self, client_secret: Option<&SecretString>) -> anyhow::Result<Digests> {
        let name = "GROUNDSTATION_OIDC_SESSION_KEY";
        match (secret(name, &self.oidc_session_key, &self.oidc_session_key_file)?, client_secret) {
            (Some(keys), _) => digests(name, keys.expose_secret()),
            (None, Some(secret)) => {
                let secret = secret.expose_secret();
                ensure!(
                    token::bits_at_most(secret) >= token::LEAST_BITS,
                    "GROUNDSTATION_OIDC_CLIENT_SECRET has fewer than {} bits, judged by its length and its kinds of \
                     characters, so no key can follow from it: set {name} too, to what `openssl rand -hex 32` makes, \
                     the same for all pods",
                    token::LEAST_BITS
                );
                Ok(Digests::new(vec![Digest::of(secret)]))
            }
            (None, None) => bail!(
                "{name} is missing: without GROUNDSTATION_OIDC_CLIENT_SECRET set it to what `openssl rand -hex 32` \
                 makes, the same for all pods"
            ),
        }
    }
}

fn redirect_url(url: Option<&str>) -> anyhow::Result<String> {
    let name = "GROUNDSTATION_OIDC_REDIRECT_URL";
    let url = url.with_context(|| {
        format!("{name} is missing: set it to https://<the page's address>{CALLBACK}")
    })?;
    let origin = url.strip_suffix(CALLBACK).and_then(|origin| origin.split_once("://"));
    let is_it = origin.is_some_and(|(scheme, host)| {
        ["http", "https"].contains(&scheme)
            && !host.is_empty()
            && !host.contains(['/', '?', '#', '@'])
    });
    if !is_it {
        bail!("{name} is {url:?}: it must be https://<the page's address>{CALLBACK}");
    }
    text(name, url)
}
