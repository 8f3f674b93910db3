//! A pod's settings from its environment, turned into typed values and checked once.
//!
//! A missing or wrong value gives one line that names the variable. Secrets are kept in types that
//! cannot be printed.

use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use secrecy::SecretString;

use crate::api::access;
use crate::api::enrolment;
use crate::api::live;
use crate::console::code::Code;
use crate::domain::access::Role;
use crate::domain::brown_out;
use crate::domain::cell::Cell;
use crate::domain::flapping;
use crate::gateway::backends::secrets;
use crate::ingress::settings::{DoorArgs, Settings};
use crate::log::partitions;
use crate::platform::database::{Address, Reads};
use crate::platform::nats;
use crate::platform::replicas::Replicas;
use crate::platform::units::{duration, span};

mod audit;
mod cell;
mod drain;
mod enrolments;
mod guards;
pub(crate) mod plain_text;
mod reads;
mod replicas;
mod sign_on;
mod stores;
mod streams;
mod tokens;

pub use cell::CellArgs;
pub use drain::Drain;
pub use replicas::ReplicasArgs;
pub use sign_on::SignOn;
pub use stores::{DatabaseArgs, MigrateArgs, NatsArgs};
pub use tokens::{TokenFile, digests, split_tokens};

/// The options of `groundstation serve`; every setting is also a variable of the environment.
#[derive(Args, Clone)]
pub struct ServeArgs {
    #[command(flatten)]
    database: DatabaseArgs,

    #[command(flatten)]
    nats: NatsArgs,

    /// Address and port for HTTP and the satellites' WebSocket; port 0 takes a free one
    #[arg(
        long,
        env = "GROUNDSTATION_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "ADDRESS"
    )]
    listen: String,

    /// Address and port for /livez, /readyz, /metrics, /openapi.json and /asyncapi.json, in plain
    /// text; the other address then no longer answers these [default: none, it answers them]
    #[arg(long, env = "GROUNDSTATION_OPS_LISTEN", value_name = "ADDRESS")]
    ops_listen: Option<String>,

    /// The bearer token that may do everything under /v1; 128 bits at least; several with commas or line breaks, for
    /// rotation. Without one /v1 answers 401
    #[arg(long, env = "GROUNDSTATION_ADMIN_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    admin_token: Option<SecretString>,

    /// A file that holds the admin token, or several
    #[arg(long, env = "GROUNDSTATION_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,

    /// The bearer token that may only read; 128 bits at least; several with commas or line breaks, for rotation
    #[arg(long, env = "GROUNDSTATION_READ_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    read_token: Option<SecretString>,

    /// A file that holds the read token, or several
    #[arg(long, env = "GROUNDSTATION_READ_TOKEN_FILE", value_name = "FILE")]
    read_token_file: Option<PathBuf>,

    /// This pod's name, unique among pods [default: host name and process id]
    #[arg(long, env = "GROUNDSTATION_POD", value_name = "NAME")]
    pod: Option<String>,

    #[command(flatten)]
    cell: CellArgs,

    /// How often satellites send a heartbeat
    #[arg(
        long,
        env = "GROUNDSTATION_HEARTBEAT_INTERVAL",
        default_value = "15s",
        value_name = "DURATION"
    )]
    heartbeat_interval: String,

    /// For how long this pod vouches for a satellite that it heard: a heartbeat within it need not be written. 0 writes
    /// every heartbeat [default: the heartbeat interval and a third, 20s]
    #[arg(long, env = "GROUNDSTATION_VOUCH_WINDOW", value_name = "DURATION")]
    vouch_window: Option<String>,

    /// How old the last heartbeat may be before a satellite is offline, unless it has its own
    #[arg(
        long,
        env = "GROUNDSTATION_OFFLINE_THRESHOLD",
        default_value = "45s",
        value_name = "DURATION"
    )]
    offline_threshold: String,

    /// How often this pod looks for satellites that went silent
    #[arg(
        long,
        env = "GROUNDSTATION_SWEEP_INTERVAL",
        default_value = "1s",
        value_name = "DURATION"
    )]
    sweep_interval: String,

    /// How often the pod that relays counts the fleet for the metrics; less often where a count takes long
    #[arg(
        long,
        env = "GROUNDSTATION_CENSUS_INTERVAL",
        default_value = "15s",
        value_name = "DURATION"
    )]
    census_interval: String,

    /// How often the log is sealed against tampering, unless a thousand transitions come sooner
    #[arg(
        long,
        env = "GROUNDSTATION_SEAL_INTERVAL",
        default_value = "60s",
        value_name = "DURATION"
    )]
    seal_interval: String,

    /// Drop whole partitions of the log once all of it is older than this, such as 90d, and on the
    /// stream [default: keep everything]
    #[arg(long, env = "GROUNDSTATION_RETENTION", value_name = "SPAN")]
    retention: Option<String>,

    /// The folder into which partitions are archived before they are dropped; it must outlive the
    /// pods and be the same for all of them [default: none, dropped partitions are gone]
    #[arg(long, env = "GROUNDSTATION_ARCHIVE_DIR", value_name = "DIR")]
    archive_dir: Option<PathBuf>,

    /// A folder with one file for each secret, as Kubernetes mounts them [default: none, secrets
    /// are requested on the NATS subject secrets.resolve]
    #[arg(long, env = "GROUNDSTATION_SECRETS_DIR", value_name = "DIR")]
    secrets_dir: Option<PathBuf>,

    /// The largest script package for satellites, in base64; four of the largest are held at once.
    /// Agents take messages of at least 64 MiB
    #[arg(long, env = "GROUNDSTATION_MAX_BLOB_BYTES", default_value_t = 64 * 1024 * 1024,
          value_parser = clap::value_parser!(u32).range(65_536..=1_073_741_824), value_name = "BYTES")]
    max_blob_bytes: u32,

    /// Transitions in one new partition of the log; no more than
    /// `retention_floor.widest_partition`, which only the owner changes (at first 1,000,000)
    #[arg(long, env = "GROUNDSTATION_PARTITION_WIDTH", default_value_t = partitions::DEFAULT_WIDTH,
          value_parser = clap::value_parser!(i64).range(partitions::WIDTHS), value_name = "COUNT")]
    partition_width: i64,

    #[command(flatten)]
    guards: guards::GuardArgs,

    #[command(flatten)]
    drain: drain::DrainArgs,

    #[command(flatten)]
    reads: reads::ReadArgs,

    #[command(flatten)]
    streams: streams::StreamArgs,

    #[command(flatten)]
    enrolments: enrolments::EnrolmentArgs,

    #[command(flatten)]
    audit: audit::AuditArgs,

    #[command(flatten)]
    replicas: ReplicasArgs,

    #[command(flatten)]
    door: DoorArgs,

    #[command(flatten)]
    sign_on: sign_on::SignOnArgs,
}

/// A pod's settings, checked.
#[derive(Clone)]
pub struct Config {
    /// The pod's name.
    pub pod: String,
    /// The cell it belongs to, where there are several.
    pub cell: Option<Cell>,
    /// Its public address.
    pub listen: SocketAddr,
    /// The address of probes and metrics, if that is another.
    pub ops_listen: Option<SocketAddr>,
    /// Its database.
    pub database: Address,
    /// Its NATS.
    pub nats: nats::Address,
    /// The tokens of the settings.
    pub access: access::Settings,
    /// The files from which they are, which are followed.
    pub token_files: Vec<TokenFile>,
    /// How often satellites send a heartbeat.
    pub heartbeat_interval: Duration,
    /// How long a pod vouches for a session that it heard; none if it writes every heartbeat.
    pub vouch_window: Option<Duration>,
    /// The default offline threshold.
    pub offline_threshold: Duration,
    /// How often the monitor sweeps.
    pub sweep_interval: Duration,
    /// How often the fleet is counted for the metrics.
    pub census_interval: Duration,
    /// How often the log is sealed.
    pub seal_interval: Duration,
    /// The span of the log that is kept; all of it by default.
    pub retention: Option<Duration>,
    /// Where dropped partitions are archived.
    pub archive: Option<PathBuf>,
    /// The folder of secrets, one file each.
    pub secrets_dir: Option<PathBuf>,
    /// The largest script package, in base64.
    pub max_blob_bytes: usize,
    /// Positions in a new partition.
    pub partition_width: i64,
    /// When losses are held.
    pub brown_out: brown_out::Rules,
    /// Which satellites flap.
    pub flapping: flapping::Rules,
    /// How the pod shuts down.
    pub drain: Drain,
    /// The bounds of reads.
    pub reads: Reads,
    /// The bounds of live streams.
    pub streams: live::Limits,
    /// The bounds of enrolments.
    pub enrolments: enrolment::Limits,
    /// The span of the audit that is kept; none where all of it is.
    pub audit_retention: Option<Duration>,
    /// On how many servers the pod makes its streams.
    pub replicas: Replicas,
    /// The door's limits.
    pub door: Settings,
    /// How people sign in without a token.
    pub sign_on: SignOn,
    /// Signs in at the page once; only `groundstation dev` makes one.
    pub sign_in: Option<Code>,
}

impl ServeArgs {
    /// Checks everything; the error names the missing or wrong setting.
    pub fn check(self) -> anyhow::Result<Config> {
        let database = self.database.address()?;
        let nats = self.nats.address()?;
        let (database, nats) = match (database, nats) {
            (Some(database), Some(nats)) => (database, nats),
            (database, nats) => {
                let missing: Vec<&str> = [
                    database.is_none().then_some("DATABASE_URL (postgres://…)"),
                    nats.is_none().then_some("NATS_URL (nats://…)"),
                ]
                .into_iter()
                .flatten()
                .collect();
                bail!("missing: {}", missing.join(" and "));
            }
        };
        let listen = socket_address("GROUNDSTATION_LISTEN", &self.listen)?;
        let ops_listen = given(&self.ops_listen)
            .map(|text| socket_address("GROUNDSTATION_OPS_LISTEN", text))
            .transpose()?;
        let heartbeat_interval =
            duration("GROUNDSTATION_HEARTBEAT_INTERVAL", &self.heartbeat_interval)?;
        let offline_threshold =
            duration("GROUNDSTATION_OFFLINE_THRESHOLD", &self.offline_threshold)?;
        if offline_threshold <= heartbeat_interval {
            bail!(
                "GROUNDSTATION_OFFLINE_THRESHOLD ({}) must be longer than GROUNDSTATION_HEARTBEAT_INTERVAL ({})",
                self.offline_threshold,
                self.heartbeat_interval
            );
        }
        let pod = self.pod.unwrap_or_else(default_pod_name);
        if pod.is_empty() || pod.len() > 200 || !pod.chars().all(|c| c.is_ascii_graphic()) {
            bail!("GROUNDSTATION_POD must have 1 to 200 printable ASCII characters and no space");
        }
        let (brown_out, flapping) = self.guards.check()?;
        let secrets_dir = self.secrets_dir.filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = &secrets_dir {
            secrets::check_folder("GROUNDSTATION_SECRETS_DIR", folder)?;
        }
        let door = self.door.check()?;
        let (admin, admin_file) = tokens::of(Role::Admin, self.admin_token, self.admin_token_file)?;
        let (read, read_file) = tokens::of(Role::Read, self.read_token, self.read_token_file)?;
        Ok(Config {
            pod,
            cell: self.cell.cell()?,
            listen,
            ops_listen,
            database,
            nats,
            access: access::Settings { admin, read },
            token_files: admin_file.into_iter().chain(read_file).collect(),
            heartbeat_interval,
            vouch_window: vouch_window(given(&self.vouch_window), heartbeat_interval)?,
            offline_threshold,
            sweep_interval: duration("GROUNDSTATION_SWEEP_INTERVAL", &self.sweep_interval)?,
            census_interval: duration("GROUNDSTATION_CENSUS_INTERVAL", &self.census_interval)?,
            seal_interval: duration("GROUNDSTATION_SEAL_INTERVAL", &self.seal_interval)?,
            retention: given(&self.retention)
                .map(|text| span("GROUNDSTATION_RETENTION", text))
                .transpose()?,
            archive: self.archive_dir.filter(|folder| !folder.as_os_str().is_empty()),
            secrets_dir,
            max_blob_bytes: self.max_blob_bytes as usize,
            partition_width: self.partition_width,
            brown_out,
            flapping,
            drain: self.drain.check()?,
            reads: self.reads.check()?,
            streams: self.streams.check(door.socket.write_timeout)?,
            enrolments: self.enrolments.check(door.bounds.connections)?,
            audit_retention: self.audit.check()?,
            replicas: self.replicas.replicas()?,
            sign_on: self.sign_on.check(&door.proxies)?,
            door,
            sign_in: None,
        })
    }
}

/// Parses an address and port for the named setting.
pub fn socket_address(name: &str, text: &str) -> anyhow::Result<SocketAddr> {
    text.parse().with_context(|| {
        format!("{name} is {text:?}, not an address and port such as 0.0.0.0:8080")
    })
}

/// An empty variable counts as none.
fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

/// A window shorter than the heartbeat interval makes every session an exception: that costs more
/// than no window.
fn vouch_window(
    text: Option<&str>,
    heartbeat_interval: Duration,
) -> anyhow::Result<Option<Duration>> {
    match text {
        None => Ok(Some(heartbeat_interval * 4 / 3)),
        Some("0" | "0s" | "0ms") => Ok(None),
        Some(text) => {
            let window = duration("GROUNDSTATION_VOUCH_WINDOW", text)?;
            if window <= heartbeat_interval {
                tracing::warn!(
                    ?window,
                    ?heartbeat_interval,
                    "GROUNDSTATION_VOUCH_WINDOW is not longer than the heartbeat interval: this writes \
                     more than no window would"
                );
            }
            Ok(Some(window))
        }
    }
}

fn default_pod_name() -> String {
    let host = gethostname::gethostname().to_string_lossy().into_owned();
    format!("{host}-{}", std::process::id())
}

/// The largest file of tokens, in bytes.
const MAX_TOKEN_FILE: u64 = 64 * 1024;

pub(crate) fn read_secret(name: &str, file: &std::path::Path) -> anyhow::Result<SecretString> {
    let shown = || format!("cannot read {name} {}", file.display());
    let mut text = String::new();
    let opened = std::fs::File::open(file).with_context(shown)?;
    opened.take(MAX_TOKEN_FILE + 1).read_to_string(&mut text).with_context(shown)?;
    if text.len() as u64 > MAX_TOKEN_FILE {
        bail!("{name} {} must have at most {MAX_TOKEN_FILE} bytes", file.display());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        serve: ServeArgs,
    }

    fn check(args: &[&str]) -> Result<Config, String> {
        let stores = ["--database-url", "postgres://h/d", "--nats-url", "nats://h"];
        let args = ["serve"].iter().chain(&stores).chain(args);
        let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        cli.serve.check().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let config = check(&[]).expect("defaults");
        assert_eq!(config.listen, "127.0.0.1:8080".parse().expect("address"));
        assert_eq!(config.heartbeat_interval, Duration::from_secs(15));
        assert_eq!(config.offline_threshold, Duration::from_secs(45));
        assert_eq!(config.sweep_interval, Duration::from_secs(1));
        assert_eq!(config.seal_interval, Duration::from_secs(60));
        assert!(config.access.admin.is_empty() && config.access.read.is_empty());
        assert!(config.retention.is_none() && config.archive.is_none());
        assert_eq!(config.audit_retention, Some(Duration::from_secs(400 * 24 * 60 * 60)));
        assert_eq!(config.cell, None);
        assert_eq!(config.partition_width, 1_000_000);
        assert_eq!(config.brown_out, brown_out::Rules::default());
        assert_eq!(config.flapping, flapping::Rules::default());
        assert_eq!(config.drain.deadline, Duration::from_secs(25));
    }

    #[test]
    fn several_tokens_are_taken_each_by_itself_and_not_too_many() {
        let token = |word: &str| format!("{word}-0123456789abcdefghijklmnopqrstuvwxyz");
        let (new, old, older) = (token("new"), token("old"), token("older"));
        let config =
            check(&["--admin-token", &format!("{new}, {old}\n{older},,")]).expect("tokens");
        for (token, opens) in [
            (new.as_str(), true),
            (&old, true),
            (&older, true),
            (&format!("{new}, {old}"), false),
            ("", false),
        ] {
            assert_eq!(config.access.admin.matches(token), opens, "{token:?}");
            assert!(!config.access.read.matches(token));
        }
        let many = ["x"; 17].join(",");
        let error = check(&["--read-token", &many]).err().expect("an error");
        assert!(error.contains("GROUNDSTATION_READ_TOKEN has 17 tokens"), "{error}");
    }

    #[test]
    fn a_token_that_could_be_guessed_is_refused_with_how_to_make_one() {
        for weak in ["secret", "correct-horse-battery", &"ab".repeat(60)] {
            let error = check(&["--admin-token", weak]).err().expect("an error");
            for word in ["GROUNDSTATION_ADMIN_TOKEN", "at least 128", "openssl rand -hex 32"] {
                assert!(error.contains(word), "{weak}: {error}");
            }
            assert!(!error.contains(weak), "{error}");
        }
        let strong = "8c6a1b0fd2e94c7fa35b6e1d09f7c284";
        let error = check(&["--read-token", &format!("{strong},weak")]).err().expect("an error");
        assert!(error.contains("GROUNDSTATION_READ_TOKEN has a token (number 2)"), "{error}");
        assert!(check(&["--read-token", strong]).is_ok());
    }

    #[test]
    fn what_is_missing_is_named_all_at_once() {
        let cli = Cli::try_parse_from(["serve", "--database-url=", "--nats-url="]).expect("args");
        let error = cli.serve.check().err().expect("an error").to_string();
        assert!(error.contains("DATABASE_URL") && error.contains("NATS_URL"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_limit() {
        let cases: [(&[&str], &str); 20] = [
            (&["--listen", "8080"], "GROUNDSTATION_LISTEN"),
            (&["--ops-listen", "8081"], "GROUNDSTATION_OPS_LISTEN"),
            (&["--heartbeat-interval", "soon"], "GROUNDSTATION_HEARTBEAT_INTERVAL"),
            (&["--sweep-interval", "0s"], "from 10ms to 24h"),
            (&["--offline-threshold", "15s"], "must be longer than"),
            (&["--pod", "a b"], "GROUNDSTATION_POD"),
            (&["--cell", "a b"], "GROUNDSTATION_CELL is \"a b\": it must have 1 to 64 characters"),
            (&["--cell", &"x".repeat(65)], "GROUNDSTATION_CELL"),
            (&["--retention", "59m"], "GROUNDSTATION_RETENTION is \"59m\": it must be from 1h"),
            (&["--retention", "old"], "not a span such as 90d"),
            (&["--audit-retention", "29d"], "it must be 30d at least, or forever"),
            (&["--brown-out-share", "101"], "101 is not in 1..=100"),
            (&["--flapping-edges", "101"], "GROUNDSTATION_FLAPPING_EDGES must be from 1 to 100"),
            (&["--flapping-calm", "10"], "must be less than GROUNDSTATION_FLAPPING_EDGES"),
            (&["--drain-delay", "now"], "GROUNDSTATION_DRAIN_DELAY"),
            (&["--drain-spread", "20s"], "must leave 5s after"),
            (&["--partition-width", "999"], "1000..=100000000"),
            (&["--secrets-dir", "/does/not/exist"], "GROUNDSTATION_SECRETS_DIR"),
            (&["--secrets-dir", "/dev/null"], "is not a folder"),
            (&["--admin-token-file", "/does/not/exist"], "GROUNDSTATION_ADMIN_TOKEN_FILE"),
        ];
        for (args, expected) in cases {
            let error = check(args).err().expect("an error");
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }
}
