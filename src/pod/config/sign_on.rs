//! How people sign in without a token: at an identity provider, or by an authenticating proxy.

use std::time::Duration;

use anyhow::bail;
use clap::Args;

use crate::api::people::People;
use crate::api::person::PersonSessions;
use crate::api::trusted_headers::TrustedHeaders;
use crate::console::oidc::settings::Settings;
use crate::domain::groups::Groups;
use crate::ingress::proxies::Proxies;

mod groups;
mod provider;
mod proxy;

/// The longest of the short texts here.
const MAX_TEXT: usize = 512;

/// The arguments of single sign-on.
#[derive(Args, Clone)]
pub struct SignOnArgs {
    #[command(flatten)]
    provider: provider::ProviderArgs,
    #[command(flatten)]
    groups: groups::GroupArgs,
    #[command(flatten)]
    proxy: proxy::ProxyArgs,
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
        let groups = self.groups.check()?;
        let lifetime = self.provider.lifetime()?;
        let headers = self.proxy.check(proxies)?;
        let provider = self.provider.check()?;
        if groups.is_empty() && (headers.is_some() || provider.is_some()) {
            bail!(
                "nobody could sign in: name groups in GROUNDSTATION_OIDC_ADMIN_GROUPS, \
                 GROUNDSTATION_OIDC_OPERATOR_GROUPS or GROUNDSTATION_OIDC_READ_GROUPS"
            );
        }
        Ok(SignOn { groups, provider, lifetime, headers })
    }
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    let separator = if list.contains(';') { ';' } else { ',' };
    list.split(separator).map(str::trim).filter(|word| !word.is_empty())
}

fn text(name: &str, text: &str) -> anyhow::Result<String> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_TEXT || text.contains(char::is_control) {
        bail!("{name} must have 1 to {MAX_TEXT} bytes and no control characters");
    }
    Ok(text.to_owned())
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
