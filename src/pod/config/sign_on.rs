//! How people sign in without a token: at an identity provider, or by an authenticating proxy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use axum::http::HeaderName;
use axum::http::header;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::stores::{named, secret};
use super::{digests, given};
use crate::api::people::People;
use crate::api::person::PersonSessions;
use crate::api::trusted_headers::TrustedHeaders;
use crate::console::oidc::settings::{CALLBACK, Settings};
use crate::domain::access::Selector;
use crate::domain::groups::Groups;
use crate::ingress::proxies::Proxies;
use crate::platform::fetch::is_trustworthy;
use crate::platform::token::{self, Digest, Digests};
use crate::platform::units::duration;
use crate::registry::satellites::Invalid;
use crate::registry::selector;

/// The longest of the short texts here.
const MAX_TEXT: usize = 512;

/// The most groups of one role.
const MAX_GROUPS: usize = 200;

/// The arguments of single sign-on.
#[derive(Args, Clone)]
#[command(next_help_heading = "Single sign-on")]
pub struct SignOnArgs {
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

    /// The groups whose people may do everything; with commas, or with semicolons where a name has a comma
    #[arg(long, env = "GROUNDSTATION_OIDC_ADMIN_GROUPS", value_name = "GROUPS")]
    oidc_admin_groups: Option<String>,

    /// The groups whose people may change satellites
    #[arg(long, env = "GROUNDSTATION_OIDC_OPERATOR_GROUPS", value_name = "GROUPS")]
    oidc_operator_groups: Option<String>,

    /// The groups whose people may look
    #[arg(long, env = "GROUNDSTATION_OIDC_READ_GROUPS", value_name = "GROUPS")]
    oidc_read_groups: Option<String>,

    /// The part of the fleet that the people of a group reach, as JSON by group:
    /// {"ops-eu": {"region": "eu", "tags": {"tier": "gold"}}} [default: none, all reach the whole fleet]
    #[arg(long, env = "GROUNDSTATION_OIDC_GROUP_SELECTORS", value_name = "JSON")]
    oidc_group_selectors: Option<String>,

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

    /// The header in which the trusted proxies name the person that they have signed in, such as X-Forwarded-User; they
    /// must take it from all that clients send [default: none, no header signs anybody in]
    #[arg(long, env = "GROUNDSTATION_PROXY_USER_HEADER", value_name = "HEADER")]
    proxy_user_header: Option<String>,

    /// The header in which they name the person's groups, with commas
    #[arg(
        long,
        env = "GROUNDSTATION_PROXY_GROUPS_HEADER",
        default_value = "x-forwarded-groups",
        value_name = "HEADER"
    )]
    proxy_groups_header: String,
}

/// How people sign in without a token, checked.
#[derive(Clone)]
pub struct SignOn {
    /// The groups that let people in.
    pub groups: Groups,
    /// The identity provider, where there is one.
    pub provider: Option<Settings>,
    /// How long a session by it lasts.
    pub lifetime: Duration,
    /// The headers of authenticating proxies, where they count.
    pub headers: Option<TrustedHeaders>,
}

impl SignOn {
    /// What the API needs to know of it.
    pub fn people(&self) -> anyhow::Result<People> {
        let sessions = self.provider.as_ref().map(|provider| {
            let Settings { issuer, client, keys, .. } = provider;
            PersonSessions::new(issuer, client, self.lifetime, keys)
        });
        let (groups, headers) = (self.groups.clone(), self.headers.clone());
        Ok(People { groups, sessions: sessions.transpose()?, headers })
    }
}

impl SignOnArgs {
    /// Checks everything; the error names what is wrong.
    pub fn check(self, proxies: &Proxies) -> anyhow::Result<SignOn> {
        let groups = Groups {
            admin: groups("GROUNDSTATION_OIDC_ADMIN_GROUPS", given(&self.oidc_admin_groups))?,
            operator: groups(
                "GROUNDSTATION_OIDC_OPERATOR_GROUPS",
                given(&self.oidc_operator_groups),
            )?,
            read: groups("GROUNDSTATION_OIDC_READ_GROUPS", given(&self.oidc_read_groups))?,
            selectors: selectors(given(&self.oidc_group_selectors))?,
        };
        if let Some(other) =
            groups.selectors.keys().find(|group| !groups.named().any(|named| named == *group))
        {
            bail!(
                "GROUNDSTATION_OIDC_GROUP_SELECTORS names the group {other:?}, which none of \
                 GROUNDSTATION_OIDC_ADMIN_GROUPS, GROUNDSTATION_OIDC_OPERATOR_GROUPS and \
                 GROUNDSTATION_OIDC_READ_GROUPS lets in"
            );
        }
        let lifetime =
            duration("GROUNDSTATION_OIDC_SESSION_LIFETIME", &self.oidc_session_lifetime)?;
        ensure!(
            lifetime >= Duration::from_secs(1),
            "GROUNDSTATION_OIDC_SESSION_LIFETIME is {:?}: it must be from 1s to 24h",
            self.oidc_session_lifetime
        );
        let headers = self.headers(proxies)?;
        let provider = self.provider()?;
        if groups.is_empty() && (headers.is_some() || provider.is_some()) {
            bail!(
                "nobody could sign in: name groups in GROUNDSTATION_OIDC_ADMIN_GROUPS, \
                 GROUNDSTATION_OIDC_OPERATOR_GROUPS or GROUNDSTATION_OIDC_READ_GROUPS"
            );
        }
        Ok(SignOn { groups, provider, lifetime, headers })
    }

    fn headers(&self, proxies: &Proxies) -> anyhow::Result<Option<TrustedHeaders>> {
        let Some(user) = given(&self.proxy_user_header) else { return Ok(None) };
        let user = header_name("GROUNDSTATION_PROXY_USER_HEADER", user)?;
        let groups = header_name("GROUNDSTATION_PROXY_GROUPS_HEADER", &self.proxy_groups_header)?;
        if user == groups {
            bail!(
                "GROUNDSTATION_PROXY_USER_HEADER and GROUNDSTATION_PROXY_GROUPS_HEADER must be two headers"
            );
        }
        if proxies.networks.is_empty() {
            bail!(
                "GROUNDSTATION_PROXY_USER_HEADER needs GROUNDSTATION_TRUSTED_PROXIES: only those are believed"
            );
        }
        Ok(Some(TrustedHeaders { user, groups }))
    }

    fn provider(&self) -> anyhow::Result<Option<Settings>> {
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

fn words(list: &str) -> impl Iterator<Item = &str> {
    let separator = if list.contains(';') { ';' } else { ',' };
    list.split(separator).map(str::trim).filter(|word| !word.is_empty())
}

fn groups(name: &str, list: Option<&str>) -> anyhow::Result<BTreeSet<String>> {
    let groups: BTreeSet<String> = words(list.unwrap_or_default())
        .map(|group| text(name, group))
        .collect::<anyhow::Result<_>>()?;
    ensure!(
        groups.len() <= MAX_GROUPS,
        "{name} has {} groups, it must be at most {MAX_GROUPS}",
        groups.len()
    );
    Ok(groups)
}

fn selectors(json: Option<&str>) -> anyhow::Result<BTreeMap<String, Selector>> {
    let name = "GROUNDSTATION_OIDC_GROUP_SELECTORS";
    let Some(json) = json else { return Ok(BTreeMap::new()) };
    let named: BTreeMap<String, Map<String, Value>> =
        serde_json::from_str(json).with_context(|| {
            format!("{name} must be JSON, such as {{\"ops-eu\": {{\"region\": \"eu\"}}}}")
        })?;
    let checked = named.into_iter().map(|(group, named)| {
        let selector = selector::check(Some(named));
        let selector = selector.map_err(|Invalid { field, rule }| {
            anyhow::anyhow!("{name}: of the group {group:?} the {field} {rule}")
        })?;
        Ok((group, selector))
    });
    checked.collect()
}

fn text(name: &str, text: &str) -> anyhow::Result<String> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_TEXT || text.contains(char::is_control) {
        bail!("{name} must have 1 to {MAX_TEXT} bytes and no control characters");
    }
    Ok(text.to_owned())
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

/// Headers that mean something else.
const TAKEN: [HeaderName; 8] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::HOST,
    header::ORIGIN,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-host"),
];

fn header_name(setting: &str, name: &str) -> anyhow::Result<HeaderName> {
    let parsed = name.trim().parse::<HeaderName>();
    let parsed = parsed.ok().filter(|name| !TAKEN.contains(name) && !name.as_str().contains('_'));
    parsed.with_context(|| {
        format!("{setting} is {name:?}, not the name of a header of its own, such as X-Forwarded-User, without _")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingress::proxies::ForwardedHeader;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        sign_on: SignOnArgs,
    }

    /// A provider and a group, with these settings in the place of others; an empty one is left out.
    fn check(others: &[(&str, &str)]) -> Result<SignOn, String> {
        let secret = "0123456789abcdef0123456789abcdef";
        let usual = [
            ("oidc-issuer", "https://id.example/realms/ops"),
            ("oidc-client-id", "page"),
            ("oidc-client-secret", secret),
            ("oidc-redirect-url", "https://ops.example/console/session/oidc/callback"),
            ("oidc-admin-groups", "root"),
        ];
        let is_other = |name: &str| others.iter().any(|(other, _)| *other == name);
        let usual = usual.into_iter().filter(|(name, _)| !is_other(name));
        let all = usual.chain(others.iter().copied()).filter(|(_, value)| !value.is_empty());
        let words = all.map(|(name, value)| format!("--{name}={value}"));
        let line = Line::try_parse_from(std::iter::once("serve".to_owned()).chain(words));
        let networks = vec!["10.0.0.1/32".parse().expect("a network")];
        let proxies = Proxies { networks, header: ForwardedHeader::XForwardedFor };
        let checked = line.map_err(|error| error.to_string())?.sign_on.check(&proxies);
        checked.map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn without_settings_nobody_signs_in_without_a_token() {
        let line = Line::try_parse_from(["serve"]).expect("no settings");
        let none = Proxies { networks: Vec::new(), header: ForwardedHeader::XForwardedFor };
        let sign_on = line.sign_on.check(&none).expect("nothing is wrong");
        assert!(sign_on.provider.is_none() && sign_on.headers.is_none());
        assert!(sign_on.groups.is_empty());
    }

    #[test]
    fn a_provider_needs_little_and_the_rest_follows() {
        let sign_on = check(&[]).expect("settings");
        let provider = sign_on.provider.expect("a provider");
        assert_eq!((provider.name.as_str(), provider.keys.iter().count()), ("id.example", 1));
        assert_eq!(provider.scopes, ["openid", "profile", "email"]);
        assert_eq!(sign_on.lifetime, Duration::from_secs(8 * 3_600));
        let selectors = r#"{"CN=eu,DC=example": {"region": "eu", "tags": {"tier": "gold"}}}"#;
        let groups = "CN=eu,DC=example; CN=us,DC=example";
        let others = [
            ("oidc-scopes", "groups"),
            ("oidc-read-groups", groups),
            ("oidc-group-selectors", selectors),
        ];
        let sign_on = check(&others).expect("settings");
        assert_eq!(sign_on.provider.expect("a provider").scopes, ["openid", "groups"]);
        assert_eq!(sign_on.groups.read.len(), 2);
        let reach = &sign_on.groups.selectors["CN=eu,DC=example"];
        assert_eq!((reach.region.as_deref(), reach.tags.len()), (Some("eu"), 1));
    }

    #[test]
    fn what_would_be_unsafe_or_of_no_use_is_refused_and_told() {
        let ends = "https://ops.example/console/session/oidc/callback";
        let key = "0123456789abcdef0123456789abcdef";
        let proxied = ("proxy-user-header", "X-Forwarded-User");
        for (others, told) in [
            (vec![("oidc-issuer", "http://id.example")], "OIDC_ISSUER is \"http://id.example\""),
            (vec![("oidc-issuer", "https://id.example/?a")], "without ? and #"),
            (vec![("oidc-client-id", "")], "OIDC_CLIENT_ID is missing"),
            (vec![("oidc-redirect-url", "")], "OIDC_REDIRECT_URL is missing"),
            (vec![("oidc-redirect-url", "https://ops.example/")], "it must be https://"),
            (vec![("oidc-redirect-url", &ends.replace("https", "ftp"))], "it must be https://"),
            (vec![("oidc-admin-groups", "")], "nobody could sign in"),
            (vec![("oidc-client-secret", "short")], "has fewer than 128 bits"),
            (vec![("oidc-client-secret", "")], "OIDC_SESSION_KEY is missing"),
            (vec![("oidc-session-key", "short")], "OIDC_SESSION_KEY has a token"),
            (vec![("oidc-session-lifetime", "25h")], "OIDC_SESSION_LIFETIME"),
            (vec![("oidc-session-lifetime", "10ms")], "it must be from 1s to 24h"),
            (vec![("oidc-provider-name", "a\nb")], "OIDC_PROVIDER_NAME must have"),
            (vec![("oidc-group-selectors", "ops")], "OIDC_GROUP_SELECTORS must be JSON"),
            (vec![("oidc-group-selectors", r#"{"x": {"region": "eu"}}"#)], "names the group \"x\""),
            (vec![("oidc-group-selectors", r#"{"root": {}}"#)], "must name a region or tags"),
            (vec![("oidc-group-selectors", r#"{"root": {"id": "7"}}"#)], "the selector.id must be"),
            (vec![("oidc-group-selectors", r#"{"root": {"region": ""}}"#)], "selector.region"),
            (vec![("oidc-issuer", ""), ("oidc-admin-groups", ""), proxied], "nobody could sign in"),
            (vec![proxied, ("proxy-groups-header", "X-Forwarded-User")], "must be two headers"),
            (vec![("proxy-user-header", "Cookie")], "not the name of a header of its own"),
            (vec![("proxy-user-header", "X_Forwarded_User")], "without _"),
        ] {
            let error = check(&others).err().unwrap_or_else(|| panic!("{others:?} is taken"));
            assert!(error.contains(told), "{others:?}: {error}");
            assert!(!error.contains("0123456789abcdef"), "a secret is in {error}");
        }
        let others = [("oidc-client-secret", ""), ("oidc-session-key", key)];
        let public = check(&others).expect("a public client with a key");
        assert!(public.provider.is_some_and(|provider| provider.secret.is_none()));
        let line =
            Line::try_parse_from(["serve", "--proxy-user-header=X-User", "--oidc-read-groups=a"]);
        let none = Proxies { networks: Vec::new(), header: ForwardedHeader::XForwardedFor };
        let error = line.expect("a line").sign_on.check(&none).err().expect("no proxies");
        assert!(error.to_string().contains("needs GROUNDSTATION_TRUSTED_PROXIES"), "{error}");
    }
}
