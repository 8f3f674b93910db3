//! The receiver: one address over HTTP, and what it said to a message.
//!
//! The connection goes to an address that was looked at after its name was resolved (see [`super::networks`]). Redirects
//! are not followed, proxies of the environment are not used, and of the answer only its status and `Retry-After` are
//! read. The address may hold a secret (those of Slack do): it is never shown, only its host is.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustls::pki_types::CertificateDer;
use secrecy::{ExposeSecret, SecretString};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use ureq::config::Config;
use ureq::http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::event::Event;
use super::networks::Networks;
use super::signature::Secrets;

/// The headers of an answer; more is a failure.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The body of an answer; of a longer one the rest is not read.
const MAX_BODY_BYTES: u64 = 64 * 1024;

/// Where messages are sent to.
#[derive(Clone)]
pub struct Target {
    uri: SecretString,
    host: String,
}

impl Target {
    /// Checks an address. Errors name the setting and do not repeat the address.
    pub fn parse(setting: &str, text: &str) -> anyhow::Result<Target> {
        let uri: Uri = text.parse().ok().with_context(|| format!("{setting} is not a URL"))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        if !["http", "https"].contains(&scheme) {
            bail!("{setting} must begin with https:// (or http:// in a network that is named)");
        }
        let Some(authority) = uri.authority().filter(|authority| !authority.host().is_empty())
        else {
            bail!("{setting} has no host");
        };
        if authority.as_str().contains('@') {
            bail!(
                "{setting} has a user or a password: a receiver knows messages by their signature"
            );
        }
        Ok(Target { uri: text.into(), host: authority.host().to_owned() })
    }

    /// Its host.
    pub fn host(&self) -> &str {
        &self.host
    }
}

/// What a receiver needs to be reached.
pub struct Settings {
    /// Where it is.
    pub target: Target,
    /// Which addresses are permitted.
    pub networks: Networks,
    /// The certificates that vouch for it.
    pub trusted: Vec<CertificateDer<'static>>,
    /// How long one attempt may take, from the name's resolution to the answer.
    pub timeout: Duration,
    /// How many attempts there may be at the same time.
    pub concurrency: usize,
}

/// Why a message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The receiver wants no more messages, ever.
    #[error("answered 410 Gone")]
    Gone,
    /// It answered something else than 2xx.
    #[error("answered {status}")]
    Answered {
        /// The status.
        status: u16,
        /// How long it wants to be left alone.
        wish: Option<Duration>,
    },
    /// It did not answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// There was no connection, or it ended.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// None of the addresses of its name is permitted.
    #[error("{0}")]
    Forbidden(String),
}

impl Failure {
    /// A word for a metric.
    pub fn word(&self) -> &'static str {
        match self {
            Failure::Gone => "gone",
            Failure::Answered { .. } => "answered",
            Failure::TimedOut => "timed_out",
            Failure::Unreachable(_) => "unreachable",
            Failure::Forbidden(_) => "forbidden",
        }
    }

    /// How long the receiver wants to be left alone.
    pub fn wish(&self) -> Option<Duration> {
        match self {
            Failure::Answered { wish, .. } => *wish,
            _ => None,
        }
    }

    /// Whether it asks that of everybody: it is overloaded, or limits how much it takes.
    pub fn is_of_all(&self) -> bool {
        matches!(self, Failure::Answered { status: 429 | 503, wish: Some(_) })
    }
}

/// A receiver. Its methods block.
pub struct Receiver {
    agent: ureq::Agent,
    target: Target,
}

impl Receiver {
    /// Prepares; nothing is connected yet.
    pub fn new(settings: &Settings) -> Receiver {
        let roots: Vec<Certificate<'static>> =
            settings.trusted.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
        let tls = TlsConfig::builder().root_certs(RootCerts::new_with_certs(&roots)).build();
        let config = Config::builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls)
            .timeout_global(Some(settings.timeout))
            .max_response_header_size(MAX_HEADER_BYTES)
            .max_idle_connections(settings.concurrency)
            .max_idle_connections_per_host(settings.concurrency)
            .user_agent(concat!("groundstation/", env!("CARGO_PKG_VERSION")))
            .accept("*/*")
            .build();
        let resolver =
            Checked { networks: settings.networks.clone(), resolver: DefaultResolver::default() };
        let agent = ureq::Agent::with_parts(config, DefaultConnector::default(), resolver);
        Receiver { agent, target: settings.target.clone() }
    }

    /// Its host.
    pub fn host(&self) -> &str {
        self.target.host()
    }

    /// Sends a message, signed with the time it is sent at. Blocking.
    pub fn send(&self, event: &Event, secrets: &Secrets) -> Result<(), Failure> {
        let now = OffsetDateTime::now_utc();
        let request = self.request(event, secrets, now.unix_timestamp());
        let request = request.map_err(|error| Failure::Unreachable(format!("{error:#}")))?;
        let (answer, mut body) = self.agent.run(request).map_err(failure)?.into_parts();
        // Nobody reads it, and a connection whose answer was read to its end serves again.
        body.with_config().limit(MAX_BODY_BYTES).read_to_vec().ok();
        match answer.status.as_u16() {
            200..=299 => Ok(()),
            410 => Err(Failure::Gone),
            status => Err(Failure::Answered { status, wish: wish(&answer.headers, now) }),
        }
    }

    fn request(
        &self,
        event: &Event,
        secrets: &Secrets,
        timestamp: i64,
    ) -> anyhow::Result<Request<Vec<u8>>> {
        let signature = secrets.sign(&event.change, timestamp, &event.body);
        let own = [
            ("content-type", "application/json".to_owned()),
            ("webhook-id", event.change.clone()),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", signature),
        ];
        let mut request = Request::post(self.target.uri.expose_secret());
        let theirs = event.headers.iter().map(|(name, value)| (name.as_str(), value));
        for (name, value) in theirs.chain(own.iter().map(|(name, value)| (*name, value))) {
            let name = HeaderName::from_bytes(name.as_bytes()).context("a header's name")?;
            request = request.header(name, HeaderValue::from_str(value).context("a header")?);
        }
        request.body(event.body.to_vec()).context("the request")
    }
}

/// What an error of the client means. Its words have no address in them.
fn failure(error: ureq::Error) -> Failure {
    match error {
        ureq::Error::Timeout(_) => Failure::TimedOut,
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::TimedOut => Failure::TimedOut,
        ureq::Error::BadUri(_) => Failure::Unreachable("its address is not understood".to_owned()),
        ureq::Error::Other(error) => match error.downcast::<Refused>() {
            Ok(refused) => Failure::Forbidden(refused.to_string()),
            Err(error) => Failure::Unreachable(error.to_string()),
        },
        error => Failure::Unreachable(error.to_string()),
    }
}

/// The header `Retry-After`: seconds, or a date.
fn wish(headers: &HeaderMap, now: OffsetDateTime) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    Some((date - now).try_into().unwrap_or_default())
}

/// Resolves names, and lets only permitted addresses through: the client connects to those that it is given.
#[derive(Debug)]
struct Checked {
    networks: Networks,
    resolver: DefaultResolver,
}

impl Resolver for Checked {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let resolved = self.resolver.resolve(uri, config, timeout)?;
        let is_secure = uri.scheme_str() == Some("https");
        let mut permitted = self.empty();
        for address in resolved.iter().filter(|a| self.networks.permit(a.ip(), is_secure)) {
            permitted.push(*address);
        }
        if permitted.is_empty() {
            let first = resolved.iter().next().map(|address| address.ip());
            let refused = Refused { first, is_secure };
            return Err(ureq::Error::Other(Box::new(refused)));
        }
        Ok(permitted)
    }
}

/// No address of a name is permitted.
#[derive(Debug)]
struct Refused {
    first: Option<IpAddr>,
    is_secure: bool,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.first.map(|address| format!("{address} ")).unwrap_or_default();
        let why =
            if self.is_secure { "is no public address" } else { "would be reached without TLS" };
        write!(
            f,
            "its address {first}{why}: name its network with --allow-network if it may be used"
        )
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_never_repeated() {
        let cases = [
            ("https://hooks.example/services/T0/B0/x", Ok("hooks.example")),
            ("http://10.0.0.1:8080/", Ok("10.0.0.1")),
            ("https://[2001:db8::1]/x", Ok("[2001:db8::1]")),
            ("ftp://hooks.example/", Err("must begin with https://")),
            ("hooks.example/services", Err("TO ")),
            ("https://me:secret@hooks.example/", Err("a user or a password")),
            ("https:///services", Err("TO ")),
            ("not a url", Err("is not a URL")),
        ];
        for (text, expected) in cases {
            let parsed = Target::parse("TO", text).map(|target| target.host().to_owned());
            match (parsed.map_err(|error| format!("{error:#}")), expected) {
                (Ok(host), Ok(expected)) => assert_eq!(host, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.contains(expected) && !error.contains("services"), "{error}");
                }
                (parsed, _) => panic!("{text}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = OffsetDateTime::from_unix_timestamp(1_767_225_600).expect("a time");
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", HeaderValue::from_static(text));
            wish(&headers, now)
        };
        assert_eq!(of("120"), Some(Duration::from_secs(120)));
        assert_eq!(of("Thu, 01 Jan 2026 00:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(of("Wed, 31 Dec 2025 00:00:00 GMT"), Some(Duration::ZERO), "it is over");
        for wrong in ["", "soon", "-5", "1.5"] {
            assert_eq!(of(wrong), None, "{wrong}");
        }
        assert_eq!(wish(&HeaderMap::new(), now), None);
    }

    #[test]
    fn only_an_overload_is_of_all() {
        let answered = |status, wish| Failure::Answered { status, wish };
        assert!(answered(429, Some(Duration::ZERO)).is_of_all());
        assert!(answered(503, Some(Duration::ZERO)).is_of_all());
        for failure in [answered(503, None), answered(500, Some(Duration::ZERO)), Failure::TimedOut]
        {
            assert!(!failure.is_of_all(), "{failure}");
        }
    }
}
