//! The settings of the door: every limit with its unit and its default. docs/settings.md lists them all.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, FromArgMatches as _, ValueEnum};
use ipnet::IpNet;

use super::access_log::AccessLog;
use super::admission::Bounds;
use super::proxies::{ForwardedHeader, Proxies};
use super::proxy_protocol::ProxyProtocol;
use super::tls::Files;
use crate::platform::bucket::Rate;
use crate::platform::units::duration;

/// A place without a word can be taken after one part in this many of the authentication time-out. That is
/// longer than a round trip, so an agent that has just connected is spared.
const PATIENCE_SHARE: u32 = 5;

/// The door's arguments of `serve`.
#[derive(Args, Clone)]
#[command(next_help_heading = "The door")]
pub struct DoorArgs {
    /// From the acceptance of a connection to checked credentials; one that takes longer is closed. Also how
    /// long a connection may wait for a request's headers
    #[arg(
        long,
        env = "GROUNDSTATION_AUTHENTICATION_TIMEOUT",
        default_value = "5s",
        value_name = "DURATION"
    )]
    authentication_timeout: String,

    /// How long a client may read nothing of what is written to it before its connection is closed
    #[arg(
        long,
        env = "GROUNDSTATION_WRITE_TIMEOUT",
        default_value = "10s",
        value_name = "DURATION"
    )]
    write_timeout: String,

    /// The headers of one request; more are answered 431
    #[arg(long, env = "GROUNDSTATION_MAX_HEADER_BYTES", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1_024..=262_144), value_name = "BYTES")]
    max_header_bytes: u32,

    /// One frame of a satellite (before it is authenticated 64 KiB at most); a larger one closes its
    /// socket with 1009
    #[arg(long, env = "GROUNDSTATION_MAX_FRAME_BYTES", default_value_t = 16_777_216,
          value_parser = clap::value_parser!(u32).range(1_024..=16_777_216), value_name = "BYTES")]
    max_frame_bytes: u32,

    /// One message of a satellite, of however many frames (before it is authenticated 64 KiB at most);
    /// a larger one closes with 1009
    #[arg(long, env = "GROUNDSTATION_MAX_MESSAGE_BYTES", default_value_t = 16_777_216,
          value_parser = clap::value_parser!(u32).range(1_024..=16_777_216), value_name = "BYTES")]
    max_message_bytes: u32,

    /// The memory that this pod uses for all messages over 64 KiB together; a message that finds no room
    /// waits unread for its turn. At least one message of the largest size
    #[arg(long, env = "GROUNDSTATION_LARGE_MESSAGE_BYTES", default_value_t = 67_108_864,
          value_parser = clap::value_parser!(u32).range(65_536..), value_name = "BYTES")]
    large_message_bytes: u32,

    /// How long such a message may take to arrive while others wait for room; one that arrives more slowly is
    /// closed with 1008
    #[arg(
        long,
        env = "GROUNDSTATION_LARGE_MESSAGE_TIMEOUT",
        default_value = "30s",
        value_name = "DURATION"
    )]
    large_message_timeout: String,

    /// What may wait to be written to one satellite; beyond it the satellite's connection is closed
    #[arg(long, env = "GROUNDSTATION_MAX_WRITE_BUFFER_BYTES", default_value_t = 2_097_152,
          value_parser = clap::value_parser!(u32).range(65_536..=67_108_864), value_name = "BYTES")]
    max_write_buffer_bytes: u32,

    /// Messages (and pings) of one connection per second, and two more for each assignment; a connection that
    /// sends more is read more slowly
    #[arg(long, env = "GROUNDSTATION_MESSAGE_RATE", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "PER_SECOND")]
    message_rate: u32,

    /// Messages at once, and four more for each assignment, before their rate counts: an agent that
    /// reconnects sends what it has kept
    #[arg(long, env = "GROUNDSTATION_MESSAGE_BURST", default_value_t = 400,
          value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "COUNT")]
    message_burst: u32,

    /// How much longer a connection may be slowed down than it is idle; then it is closed with 1008
    #[arg(
        long,
        env = "GROUNDSTATION_MESSAGE_PATIENCE",
        default_value = "60s",
        value_name = "DURATION"
    )]
    message_patience: String,

    /// Connections of this pod that are not WebSockets (yet); a further one takes the place of a silent one,
    /// or is closed at once
    #[arg(long, env = "GROUNDSTATION_MAX_CONNECTIONS", default_value_t = 4_096,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "COUNT")]
    max_connections: u32,

    /// The same of one address, and one more for each satellite that has authenticated from it lately, up to
    /// half of all
    #[arg(long, env = "GROUNDSTATION_MAX_CONNECTIONS_PER_ADDRESS", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "COUNT")]
    max_connections_per_address: u32,

    /// Satellites' sockets of this pod that are not authenticated yet; a further one takes the place of a
    /// silent one, or is answered 503
    #[arg(long, env = "GROUNDSTATION_MAX_HANDSHAKES", default_value_t = 512,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "COUNT")]
    max_handshakes: u32,

    /// The same of one address, and one more for each satellite that has authenticated from it lately, up to
    /// half of all; more are answered 429
    #[arg(long, env = "GROUNDSTATION_MAX_HANDSHAKES_PER_ADDRESS", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "COUNT")]
    max_handshakes_per_address: u32,

    /// Authentications that may fail at this pod; beyond it, new sockets of addresses with failures are
    /// answered 503
    #[arg(long, env = "GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS", default_value_t = 30_000,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000), value_name = "PER_MINUTE")]
    max_failed_authentications: u32,

    /// The same of one address; beyond it, its new sockets are answered 429. Eight times as many if
    /// satellites have authenticated from it lately
    #[arg(long, env = "GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS_PER_ADDRESS", default_value_t = 120,
          value_parser = clap::value_parser!(u32).range(1..=10_000_000), value_name = "PER_MINUTE")]
    max_failed_authentications_per_address: u32,

    /// Addresses (IPv6 by networks of 64 bits) and networks remembered for these limits
    #[arg(long, env = "GROUNDSTATION_MAX_TRACKED_ADDRESSES", default_value_t = 65_536,
          value_parser = clap::value_parser!(u32).range(16..=10_000_000), value_name = "COUNT")]
    max_tracked_addresses: u32,

    /// Connects of one satellite, at all pods together; more are closed with 1013 before anything is written
    #[arg(long, env = "GROUNDSTATION_CONNECT_RATE", default_value_t = 6,
          value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "PER_MINUTE")]
    connect_rate: u32,

    /// Its connects at once, before their rate counts: a deploy may move it once for each pod
    #[arg(long, env = "GROUNDSTATION_CONNECT_BURST", default_value_t = 30,
          value_parser = clap::value_parser!(u32).range(1..=1_000_000), value_name = "COUNT")]
    connect_burst: u32,

    /// Results of one satellite at this pod, and a 32nd more for each assignment; what is cut off of a result
    /// counts an eighth; a satellite that sends more is not read for a while, and then its results are
    /// dropped
    #[arg(long, env = "GROUNDSTATION_RESULT_RATE", default_value_t = 524_288,
          value_parser = clap::value_parser!(u32).range(1_024..=1_073_741_824), value_name = "BYTES_PER_SECOND")]
    result_rate: u32,

    /// Its results at once, and a 32nd more for each assignment, before their rate counts
    #[arg(long, env = "GROUNDSTATION_RESULT_BURST", default_value_t = 33_554_432,
          value_parser = clap::value_parser!(u32).range(65_536..=1_073_741_824), value_name = "BYTES")]
    result_burst: u32,

    /// Networks of the proxies whose forwarded addresses are believed, such as 10.0.0.0/8, with commas
    /// [default: none, the peer is the client]
    #[arg(long, env = "GROUNDSTATION_TRUSTED_PROXIES", value_name = "NETWORKS")]
    trusted_proxies: Option<String>,

    /// The header in which those proxies write addresses
    #[arg(
        long,
        env = "GROUNDSTATION_FORWARDED_HEADER",
        default_value = "x-forwarded-for",
        value_name = "HEADER"
    )]
    forwarded_header: ForwardedHeader,

    /// Whether those proxies name the client in front of each connection, by the PROXY protocol
    #[arg(
        long,
        env = "GROUNDSTATION_PROXY_PROTOCOL",
        default_value = "off",
        value_name = "VERSION"
    )]
    proxy_protocol: ProxyProtocol,

    /// A line in the log for each request, without its query and its headers
    #[arg(long, env = "GROUNDSTATION_ACCESS_LOG", default_value = "off", value_name = "SWITCH")]
    access_log: AccessLog,

    /// Browsers' origins that may open the satellites' WebSocket, such as https://ops.example, with
    /// commas [default: none; agents send no origin]
    #[arg(long, env = "GROUNDSTATION_ALLOWED_ORIGINS", value_name = "ORIGINS")]
    allowed_origins: Option<String>,

    /// Serve TLS with this certificate chain, PEM [default: none, plain text]
    #[arg(long, env = "GROUNDSTATION_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<String>,

    /// The certificate's private key, PEM
    #[arg(long, env = "GROUNDSTATION_TLS_KEY", value_name = "FILE")]
    tls_key: Option<String>,

    /// Ask clients for a certificate and verify it against these, PEM: a satellite that shows one is let in only under
    /// the id or the name that stands in it (subject or alternative names). Its token is checked all the same [default:
    /// none is asked for]
    #[arg(long, env = "GROUNDSTATION_TLS_CLIENT_CA", value_name = "FILE")]
    tls_client_ca: Option<String>,

    /// Whether a satellite has to show such a certificate; without one it is then answered 403
    #[arg(
        long,
        env = "GROUNDSTATION_SATELLITE_CERTIFICATES",
        value_enum,
        default_value = "optional",
        value_name = "WHETHER"
    )]
    satellite_certificates: Certificates,

    /// How often these files are checked for changes
    #[arg(
        long,
        env = "GROUNDSTATION_TLS_RELOAD_INTERVAL",
        default_value = "10s",
        value_name = "DURATION"
    )]
    tls_reload_interval: String,
}

/// Whether satellites show certificates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Certificates {
    /// Who shows none is known by its token alone.
    Optional,
    /// Who shows none is refused.
    Required,
}

/// The door's settings, checked.
#[derive(Debug, Clone)]
pub struct Settings {
    /// From accept to checked credentials.
    pub authentication_timeout: Duration,
    /// The headers of one request, in bytes.
    pub max_header_bytes: usize,
    /// The limits of one socket.
    pub socket: SocketLimits,
    /// All large messages of the pod together, in bytes.
    pub large_message_bytes: u32,
    /// The largest message.
    pub max_message_bytes: u32,
    /// How long a large message may take to arrive while others wait.
    pub large_message_timeout: Duration,
    /// The bounds of admission.
    pub bounds: Bounds,
    /// How often one satellite may connect.
    pub connects: Rate,
    /// How many bytes of results one satellite may report.
    pub results: Rate,
    /// The proxies whose forwarded addresses are believed.
    pub proxies: Proxies,
    /// Whether those proxies name the client in front of each connection.
    pub proxy_protocol: ProxyProtocol,
    /// Whether each request is logged.
    pub access_log: AccessLog,
    /// The browsers' origins that are allowed.
    pub allowed_origins: Vec<String>,
    /// Certificate and key, where TLS is served.
    pub tls: Option<Files>,
    /// Whether a satellite has to show a certificate.
    pub certificates: Certificates,
    /// How often those files are checked.
    pub tls_reload_interval: Duration,
}

/// The limits of one WebSocket.
#[derive(Debug, Clone, Copy)]
pub struct SocketLimits {
    /// One frame, in bytes.
    pub max_frame_bytes: usize,
    /// One message, in bytes.
    pub max_message_bytes: usize,
    /// What may wait to be written, in bytes.
    pub max_write_buffer_bytes: usize,
    /// How long the other side may take to read a message.
    pub write_timeout: Duration,
    /// Messages and pings of a client without assignments.
    pub messages: Rate,
    /// How long a client that sends more is slowed down, without a pause, before it is closed.
    pub message_patience: Duration,
}

impl Settings {
    /// The settings of a door for a command that has no arguments for it: those of the environment, or their defaults.
    pub fn from_environment() -> anyhow::Result<Settings> {
        let command = DoorArgs::augment_args(clap::Command::new("door"));
        let matches = command.try_get_matches_from(["door"])?;
        DoorArgs::from_arg_matches(&matches)?.check()
    }
}

impl DoorArgs {
    /// Checks everything; the error names what is wrong.
    pub fn check(self) -> anyhow::Result<Settings> {
        let client_ca = present(self.tls_client_ca);
        if client_ca.is_none() && self.satellite_certificates == Certificates::Required {
            bail!(
                "GROUNDSTATION_SATELLITE_CERTIFICATES is required: it needs GROUNDSTATION_TLS_CLIENT_CA, which verifies them"
            );
        }
        let tls = match (present(self.tls_cert), present(self.tls_key)) {
            (Some(certificate), Some(key)) => Some(Files { certificate, key, client_ca }),
            (None, None) if client_ca.is_some() => bail!(
                "GROUNDSTATION_TLS_CLIENT_CA needs GROUNDSTATION_TLS_CERT and GROUNDSTATION_TLS_KEY: where a proxy speaks \
                 TLS, the pod sees no certificate of a client"
            ),
            (None, None) => None,
            _ => bail!("GROUNDSTATION_TLS_CERT and GROUNDSTATION_TLS_KEY go together: set both"),
        };
        if self.large_message_bytes < self.max_message_bytes {
            bail!(
                "GROUNDSTATION_LARGE_MESSAGE_BYTES is less than GROUNDSTATION_MAX_MESSAGE_BYTES, {}: \
                 a message of that size would never find room",
                self.max_message_bytes
            );
        }
        let socket = SocketLimits {
            max_frame_bytes: self.max_frame_bytes as usize,
            max_message_bytes: self.max_message_bytes as usize,
            max_write_buffer_bytes: self.max_write_buffer_bytes as usize,
            write_timeout: duration("GROUNDSTATION_WRITE_TIMEOUT", &self.write_timeout)?,
            messages: Rate {
                burst: self.message_burst as f32,
                per_second: self.message_rate as f32,
            },
            message_patience: duration("GROUNDSTATION_MESSAGE_PATIENCE", &self.message_patience)?,
        };
        let authentication_timeout =
            duration("GROUNDSTATION_AUTHENTICATION_TIMEOUT", &self.authentication_timeout)?;
        let networks = networks(self.trusted_proxies.as_deref())?;
        if self.proxy_protocol != ProxyProtocol::Off && networks.is_empty() {
            bail!(
                "GROUNDSTATION_PROXY_PROTOCOL needs GROUNDSTATION_TRUSTED_PROXIES: only those are heard"
            );
        }
        let per_address = self.max_failed_authentications_per_address;
        let bounds = Bounds {
            connections: self.max_connections,
            connections_per_address: self.max_connections_per_address,
            handshakes: self.max_handshakes,
            handshakes_per_address: self.max_handshakes_per_address,
            failures: Rate::per_minute(self.max_failed_authentications),
            failures_per_address: Rate::per_minute(per_address),
            patience: authentication_timeout / PATIENCE_SHARE,
            addresses: self.max_tracked_addresses as usize,
        };
        Ok(Settings {
            authentication_timeout,
            max_header_bytes: self.max_header_bytes as usize,
            socket,
            large_message_bytes: self.large_message_bytes,
            max_message_bytes: self.max_message_bytes,
            large_message_timeout: duration(
                "GROUNDSTATION_LARGE_MESSAGE_TIMEOUT",
                &self.large_message_timeout,
            )?,
            bounds,
            connects: Rate {
                burst: self.connect_burst as f32,
                per_second: self.connect_rate as f32 / 60.0,
            },
            results: Rate { burst: self.result_burst as f32, per_second: self.result_rate as f32 },
            proxies: Proxies { networks, header: self.forwarded_header },
            proxy_protocol: self.proxy_protocol,
            access_log: self.access_log,
            allowed_origins: origins(self.allowed_origins.as_deref())?,
            tls,
            certificates: self.satellite_certificates,
            tls_reload_interval: duration(
                "GROUNDSTATION_TLS_RELOAD_INTERVAL",
                &self.tls_reload_interval,
            )?,
        })
    }
}

/// An empty variable counts as unset.
fn present(path: Option<String>) -> Option<PathBuf> {
    path.filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn words(text: Option<&str>) -> impl Iterator<Item = &str> {
    text.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn networks(text: Option<&str>) -> anyhow::Result<Vec<IpNet>> {
    let network = |word: &str| {
        let address = word.parse::<std::net::IpAddr>().map(IpNet::from);
        address.or_else(|_| word.parse::<IpNet>()).with_context(|| {
            format!("GROUNDSTATION_TRUSTED_PROXIES has {word:?}, not a network such as 10.0.0.0/8")
        })
    };
    words(text).map(network).collect()
}

fn origins(text: Option<&str>) -> anyhow::Result<Vec<String>> {
    let origin = |word: &str| {
        let bare = word.split_once("://").filter(|(scheme, host)| {
            ["http", "https"].contains(scheme) && !host.is_empty() && !host.contains('/')
        });
        if bare.is_none() {
            bail!(
                "GROUNDSTATION_ALLOWED_ORIGINS has {word:?}, not an origin such as https://ops.example"
            );
        }
        Ok(word.to_ascii_lowercase())
    };
    words(text).map(origin).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        door: DoorArgs,
    }

    /// The settings that these arguments of `serve` make.
    pub(in crate::ingress) fn check(args: &[&str]) -> Result<Settings, String> {
        let cli = Cli::try_parse_from(["serve"].iter().chain(args)).map_err(|e| e.to_string())?;
        cli.door.check().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn without_settings_nobody_is_trusted_and_text_is_plain() {
        let settings = check(&[]).expect("defaults");
        assert!(settings.proxies.networks.is_empty() && settings.allowed_origins.is_empty());
        assert!(settings.tls.is_none());
        assert_eq!(settings.authentication_timeout, Duration::from_secs(5));
        assert_eq!(settings.socket.write_timeout, Duration::from_secs(10));
        assert!(check(&["--tls-cert=", "--tls-key=", "--trusted-proxies="]).is_ok());
    }

    #[test]
    fn lists_are_read() {
        let lists = [
            "--trusted-proxies=10.0.0.0/8, 192.0.2.1,2001:db8::/32",
            "--allowed-origins=https://ops.example,http://localhost:3000",
        ];
        let settings = check(&lists).expect("lists");
        assert_eq!(settings.proxies.networks.len(), 3);
        assert!(settings.proxies.trust("192.0.2.1".parse().expect("address")));
        assert!(!settings.proxies.trust("192.0.2.2".parse().expect("address")));
        assert_eq!(settings.allowed_origins, ["https://ops.example", "http://localhost:3000"]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_limit() {
        let cases: [(&[&str], &str); 11] = [
            (&["--proxy-protocol", "v2"], "needs GROUNDSTATION_TRUSTED_PROXIES"),
            (&["--tls-cert", "a.pem"], "GROUNDSTATION_TLS_KEY"),
            (&["--tls-client-ca", "ca.pem"], "needs GROUNDSTATION_TLS_CERT"),
            (&["--satellite-certificates", "required"], "needs GROUNDSTATION_TLS_CLIENT_CA"),
            (&["--trusted-proxies", "proxy"], "GROUNDSTATION_TRUSTED_PROXIES has \"proxy\""),
            (&["--allowed-origins", "*"], "GROUNDSTATION_ALLOWED_ORIGINS has \"*\""),
            (&["--allowed-origins", "https://a/b"], "not an origin"),
            (&["--write-timeout", "0s"], "GROUNDSTATION_WRITE_TIMEOUT is \"0s\": it must be from"),
            (&["--message-rate", "0"], "1..=100000"),
            (&["--large-message-bytes", "70000"], "would never find room"),
            (&["--max-header-bytes", "10"], "1024..=262144"),
        ];
        for (args, expected) in cases {
            let error = check(args).expect_err("an error");
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }
}
