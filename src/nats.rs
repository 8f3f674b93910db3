//! The way to NATS: addresses, credentials, reconnecting for ever.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use async_nats::{ConnectOptions, Event, ServerAddr};
use tracing::{error, info, warn};

use crate::metrics::Metrics;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often the connection is proved alive; two unanswered pings are a dead connection.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// A checked address. Holds credentials: it has no `Debug`.
#[derive(Clone)]
pub struct Address {
    servers: Vec<ServerAddr>,
    credentials: Option<String>,
}

impl Address {
    /// Parses `nats://host:port`, several separated by commas, and reads the credentials file.
    pub fn parse(text: &str, credentials: Option<&Path>) -> anyhow::Result<Address> {
        let servers = text
            .split(',')
            .map(|server| server.trim().parse::<ServerAddr>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| anyhow::anyhow!("NATS_URL is not a NATS address: {error}"))?;
        let credentials = match credentials {
            Some(file) => Some(
                std::fs::read_to_string(file)
                    .with_context(|| format!("cannot read NATS_CREDS {}", file.display()))?,
            ),
            None => None,
        };
        Ok(Address { servers, credentials })
    }

    /// Hosts and ports, for messages; never user or password.
    pub fn display(&self) -> String {
        let each = |server: &ServerAddr| format!("{}:{}", server.host(), server.port());
        self.servers.iter().map(each).collect::<Vec<_>>().join(",")
    }

    /// Connects, or fails within a few seconds: for commands that are of no use without NATS.
    pub async fn connect(&self, name: &str) -> anyhow::Result<async_nats::Client> {
        self.connect_with(name, |_| {}).await
    }

    /// The same, for a command that has to hear what the server says unasked.
    pub async fn connect_with(
        &self,
        name: &str,
        hear: impl Fn(Event) + Send + Sync + 'static,
    ) -> anyhow::Result<async_nats::Client> {
        let callback = move |event| {
            hear(event);
            std::future::ready(())
        };
        let options = self.options(name)?.event_callback(callback);
        options.connect(&self.servers).await.map_err(|error| {
            anyhow::anyhow!("cannot connect to NATS at {}: {error}", self.display())
        })
    }

    /// A pod's client. It need not reach NATS now: edges wait in the log until it does, and
    /// `nats_up` tells.
    pub async fn connect_in_background(
        &self,
        name: &str,
        metrics: Metrics,
    ) -> anyhow::Result<async_nats::Client> {
        let address = self.display();
        let callback = move |event| {
            let (metrics, address) = (metrics.clone(), address.clone());
            async move { note(&event, &metrics, &address) }
        };
        self.options(name)?
            .event_callback(callback)
            .retry_on_initial_connect()
            .connect(&self.servers)
            .await
            .map_err(|error| anyhow::anyhow!("cannot use NATS at {}: {error}", self.display()))
    }

    /// The client takes user and password, or a token, by option only and ignores those of a URL.
    fn url_credentials(&self) -> ConnectOptions {
        let named = self.servers.iter().find_map(|server| Some((server.username()?, server)));
        match named.map(|(user, server)| (decoded(user), server.password().map(decoded))) {
            Some((user, Some(password))) => ConnectOptions::with_user_and_password(user, password),
            Some((token, None)) => ConnectOptions::with_token(token),
            None => ConnectOptions::new(),
        }
    }

    fn options(&self, name: &str) -> anyhow::Result<ConnectOptions> {
        let options = match &self.credentials {
            Some(text) => ConnectOptions::with_credentials(text).map_err(|error| {
                anyhow::anyhow!("NATS_CREDS is not a credentials file: {error}")
            })?,
            None => self.url_credentials(),
        };
        Ok(options
            .name(name)
            .connection_timeout(CONNECT_TIMEOUT)
            .ping_interval(PING_INTERVAL)
            .reconnect_delay_callback(|attempts| {
                let doubled = 50 * (1u64 << attempts.min(6));
                Duration::from_millis(doubled).min(LONGEST_PAUSE)
            }))
    }
}

fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn note(event: &Event, metrics: &Metrics, address: &str) {
    match event {
        Event::Connected => {
            metrics.nats_up.set(1);
            info!(%address, "connected to NATS");
        }
        Event::Disconnected | Event::Closed => {
            metrics.nats_up.set(0);
            warn!(%address, "NATS is away: edges wait in the log");
        }
        Event::ServerError(error) => error!(%address, %error, "NATS reports an error"),
        Event::ClientError(error) => warn!(%address, %error, "cannot reach NATS"),
        event => info!(%address, %event, "NATS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_user_and_password() {
        let address = Address::parse("nats://me:secret@a.example:4333,b.example", None);
        assert_eq!(address.expect("an address").display(), "a.example:4333,b.example:4222");
    }

    #[test]
    fn credentials_in_a_url_are_percent_decoded() {
        let cases =
            [("plain", "plain"), ("p%40ss%2Fword", "p@ss/word"), ("100%", "100%"), ("", "")];
        for (encoded, expected) in cases {
            assert_eq!(decoded(encoded), expected);
        }
    }

    #[test]
    fn a_bad_address_is_refused() {
        assert!(Address::parse("http://a.example", None).is_err());
        assert!(Address::parse("nats://a", Some(Path::new("/does/not/exist"))).is_err());
    }
}
