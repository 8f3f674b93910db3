//! The headers in which authenticating proxies name the people whom they signed in.

use anyhow::{Context, bail};
use axum::http::HeaderName;
use axum::http::header;
use clap::Args;

use crate::api::trusted_headers::TrustedHeaders;
use crate::ingress::proxies::Proxies;
use crate::pod::config::given;

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

/// The arguments of the headers.
#[derive(Args, Clone)]
#[command(next_help_heading = "Single sign-on")]
pub(super) struct ProxyArgs {
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

impl ProxyArgs {
    /// The headers, where they count.
    pub(super) fn check(&self, proxies: &Proxies) -> anyhow::Result<Option<TrustedHeaders>> {
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
}

fn header_name(setting: &str, name: &str) -> anyhow::Result<HeaderName> {
    let parsed = name.trim().parse::<HeaderName>();
    let parsed = parsed.ok().filter(|name| !TAKEN.contains(name) && !name.as_str().contains('_'));
    parsed.with_context(|| {
        format!("{setting} is {name:?}, not the name of a header of its own, such as X-Forwarded-User, without _")
    })
}
