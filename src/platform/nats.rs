//! Connections to NATS: addresses, credentials, reconnecting for ever.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::{ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::platform::bucket::Rate;
use crate::platform::client_tls::{Roots, is_this_machine};
use crate::platform::log_gate::LogGate;
use crate::platform::metrics::Metrics;
use crate::platform::turns::Turns;
use crate::platform::unreachable::Unreachable;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest pause between attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often the connection is checked. After two pings without an answer it is dead.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// Lines about what the server complains of, and as many about what else happens: so many at once, then one every
/// six seconds. A question on NATS whose answer may not be published causes one each time.
const COMPLAINTS_TOLD: Rate = Rate { burst: 20.0, per_second: 1.0 / 6.0 };

/// A client's credentials, beside those in the address.
#[derive(Clone)]
pub enum Identity {
    /// The text of a credentials file.
    Credentials(SecretString),
    /// The seed of an nkey.
    Nkey(SecretString),
}

impl Identity {
    /// A credentials file of this text.
    pub fn credentials(text: &SecretString) -> Identity {
        Identity::Credentials(text.clone())
    }

    /// An nkey. Its seed is the first line of this text that is no comment.
    pub fn nkey(text: &SecretString) -> anyhow::Result<Identity> {
        let mut lines = text.expose_secret().lines().map(str::trim);
        let seed = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
        // The library's own message may repeat the seed.
        let seed = seed.filter(|seed| nkeys::KeyPair::from_seed(seed).is_ok());
        let seed = seed.context("NATS_NKEY holds no seed of an nkey (it begins with SU)")?;
        Ok(Identity::Nkey(seed.into()))
    }
}

/// A checked address. Holds credentials: it has no `Debug`.
#[derive(Clone)]
pub struct Address {
    servers: Vec<ServerAddr>,
    identity: Option<Identity>,
    inbox_prefix: Option<String>,
    /// Set if TLS is mandatory.
    tls: Option<rustls::ClientConfig>,
}

impl Address {
    /// Parses `nats://host:port` or `tls://host:port`, several separated by commas.
    pub fn parse(text: &str) -> anyhow::Result<Address> {
        let servers = text
            .split(',')
            .map(|server| server.trim().parse::<ServerAddr>())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| anyhow::anyhow!("NATS_URL is not a NATS address: {error}"))?;
        let mut address = Address { servers, identity: None, inbox_prefix: None, tls: None };
        if address.servers.iter().any(ServerAddr::tls_required) {
            address.demands_tls(Roots::of("NATS_CA", None)?, None)?;
        }
        Ok(address)
    }

    /// Sets the client's credentials.
    pub fn identifies_by(&mut self, identity: Identity) {
        self.identity = Some(identity);
    }

    /// Sets the prefix of the subjects on which the client gets its answers.
    pub fn answers_at(&mut self, prefix: &str) -> anyhow::Result<()> {
        let is_token = |token: &str| {
            !token.is_empty()
                && token.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '*' | '>'))
        };
        if prefix.len() > 100 || !prefix.split('.').all(is_token) {
            bail!("NATS_INBOX_PREFIX is {prefix:?}, not a subject of at most 100 characters");
        }
        self.inbox_prefix = Some(prefix.to_owned());
        Ok(())
    }

    /// Makes TLS mandatory, with these roots for the server's certificate. The client's own
    /// certificate is in the first file, its key in the second.
    pub fn demands_tls(
        &mut self,
        roots: Roots,
        certificate: Option<(&Path, &Path)>,
    ) -> anyhow::Result<()> {
        self.tls = Some(match certificate {
            Some((certificate, key)) => {
                roots.client_with(("NATS_CERT", certificate), ("NATS_KEY", key))?
            }
            None => roots.client()?,
        });
        Ok(())
    }

    /// A host that could be reached without TLS, if the server or an attacker on the way wants it
    /// so.
    pub fn in_plain_text(&self) -> Option<&str> {
        if self.tls.is_some() {
            return None;
        }
        let is_far = |host: &&str| !is_this_machine(host);
        self.servers.iter().map(ServerAddr::host).find(is_far)
    }

    /// Hosts and ports, for messages; never user or password.
    pub fn display(&self) -> String {
        let each = |server: &ServerAddr| format!("{}:{}", server.host(), server.port());
        self.servers.iter().map(each).collect::<Vec<_>>().join(",")
    }

    /// Connects, or fails within a few seconds: for commands that need NATS.
    pub async fn connect(&self, name: &str) -> anyhow::Result<async_nats::Client> {
        self.connect_with(name, |_| {}).await
    }

    /// The same, for a command that also needs the server's unrequested messages.
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
            let text = format!("cannot connect to NATS at {}: {error}", self.display());
            match error.kind() {
                // It was reached, and let nobody in.
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    anyhow::anyhow!(text)
                }
                _ => Unreachable(text).into(),
            }
        })
    }

    /// A pod's client. NATS need not be reachable now: edges wait in the log until it is. `nats_up`
    /// shows it.
    pub async fn connect_in_background(
        &self,
        name: &str,
        metrics: Metrics,
    ) -> anyhow::Result<async_nats::Client> {
        let notes = Notes::new(metrics, self.display());
        let callback = move |event| {
            notes.note(&event);
            std::future::ready(())
        };
        let turns = Turns::default();
        self.options(name)?
            .event_callback(callback)
            .reconnect_to_server_callback(move |servers, _| {
                std::future::ready(turns.next(&servers))
            })
            .retry_on_initial_connect()
            .connect(&self.servers)
            .await
            .map_err(|error| anyhow::anyhow!("cannot use NATS at {}: {error}", self.display()))
    }

    /// The client takes user and password, or a token, only as options and ignores those of a URL.
    fn url_credentials(&self) -> ConnectOptions {
        let named = self.servers.iter().find_map(|server| Some((server.username()?, server)));
        match named.map(|(user, server)| (decoded(user), server.password().map(decoded))) {
            Some((user, Some(password))) => ConnectOptions::with_user_and_password(user, password),
            Some((token, None)) => ConnectOptions::with_token(token),
            None => ConnectOptions::new(),
        }
    }

    fn options(&self, name: &str) -> anyhow::Result<ConnectOptions> {
        let mut options = match &self.identity {
            Some(Identity::Credentials(text)) => {
                ConnectOptions::with_credentials(text.expose_secret()).map_err(|error| {
                    anyhow::anyhow!("NATS_CREDS is not a credentials file: {error}")
                })?
            }
            Some(Identity::Nkey(seed)) => {
                ConnectOptions::with_nkey(seed.expose_secret().to_owned())
            }
            None => self.url_credentials(),
        };
        if let Some(prefix) = &self.inbox_prefix {
            options = options.custom_inbox_prefix(prefix);
        }
        if let Some(tls) = &self.tls {
            options = options.require_tls(true).tls_client_config(tls.clone());
        }
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

/// Connects a pod's client to another server, where it knows several, and waits for that. What is on
/// its way to the old one may be lost: callers ask again.
pub async fn change_server(client: &async_nats::Client) {
    let connects = || client.statistics().connects.load(Ordering::Relaxed);
    let before = connects();
    if client.force_reconnect().await.is_err() {
        return;
    }
    let connected = async {
        while connects() == before {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Where none is found in time, the client goes on looking.
    tokio::time::timeout(CONNECT_TIMEOUT, connected).await.ok();
}

fn decoded(part: &str) -> String {
    percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned()
}

/// What a pod notes of its connection.
struct Notes {
    metrics: Metrics,
    address: String,
    errors: LogGate,
    others: LogGate,
}

impl Notes {
    fn new(metrics: Metrics, address: String) -> Notes {
        let (errors, others) = (LogGate::new(COMPLAINTS_TOLD), LogGate::new(COMPLAINTS_TOLD));
        Notes { metrics, address, errors, others }
    }

    fn note(&self, event: &Event) {
        let address = &self.address;
        match event {
            Event::Connected => {
                self.metrics.nats_up.set(1);
                info!(%address, "connected to NATS");
            }
            Event::Disconnected | Event::Closed => {
                self.metrics.nats_up.set(0);
                warn!(%address, "NATS is away: edges wait in the log");
            }
            Event::ServerError(error) => {
                if let Some(left_out) = self.errors.pass(Instant::now()) {
                    error!(%address, %error, left_out, "NATS reports an error");
                }
            }
            Event::ClientError(error) => warn!(%address, %error, "cannot reach NATS"),
            event => {
                if let Some(left_out) = self.others.pass(Instant::now()) {
                    info!(%address, %event, left_out, "NATS");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_nats::ServerError;

    use super::*;

    #[test]
    fn an_address_is_shown_without_user_and_password() {
        let address = Address::parse("nats://me:secret@a.example:4333,b.example");
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
        assert!(Address::parse("http://a.example").is_err());
    }

    #[test]
    fn only_another_host_without_tls_is_spoken_to_in_plain_text() {
        let cases = [
            ("nats://127.0.0.1:4222", None),
            ("localhost", None),
            ("nats://127.0.0.1,nats://b.example", Some("b.example")),
            ("tls://b.example", None),
        ];
        for (servers, host) in cases {
            assert_eq!(Address::parse(servers).expect(servers).in_plain_text(), host, "{servers}");
        }
    }

    #[test]
    fn an_nkey_is_the_first_line_that_is_no_comment_and_is_never_repeated_in_an_error() {
        let seed = nkeys::KeyPair::new_user().seed().expect("a seed");
        assert!(Identity::nkey(&format!("# mine\n\n {seed} \n").into()).is_ok());
        for text in ["", "# nothing", "SUANOTASEED", &seed[1..]] {
            let refused = Identity::nkey(&text.into()).err().expect("refused").to_string();
            assert!(refused.starts_with("NATS_NKEY holds no seed"), "{refused}");
        }
    }

    /// What is logged, line by line.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
            self.0.lock().expect("not poisoned")
        }

        fn take(&self) -> Vec<String> {
            let text = String::from_utf8(std::mem::take(&mut *self.lock())).expect("text");
            text.lines().map(str::to_owned).collect()
        }
    }

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_complains_of_is_logged_a_few_times_and_hides_nothing_else() {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let _logged = tracing::subscriber::set_default(log.finish());
        let notes = Notes::new(Metrics::new(), "nats.example:4222".to_owned());
        let refused = || ServerError::Other("Permissions Violation for Publish".to_owned());
        for _ in 0..10_000 {
            notes.note(&Event::ServerError(refused()));
            notes.note(&Event::SlowConsumer(7));
        }
        let told = lines.take();
        let are = |what: &str| told.iter().filter(|line| line.contains(what)).count();
        assert_eq!((are("NATS reports an error"), are("slow consumers")), (20, 20), "{}", told[0]);
        notes.note(&Event::Disconnected);
        notes.note(&Event::Connected);
        assert_eq!(lines.take().len(), 2);
        tokio::time::advance(Duration::from_secs(7)).await;
        for _ in 0..100 {
            notes.note(&Event::ServerError(refused()));
        }
        let told = lines.take();
        assert_eq!(told.len(), 1);
        assert!(told[0].contains("left_out=9980"), "{}", told[0]);
    }
}
