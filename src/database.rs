//! The way to Postgres: addresses, TLS, time-outs, the pool.
//!
//! Every pooled session runs as the role `groundstation_service`, which cannot change the log, and
//! under server-side time-outs, so that a pod which stops in the middle of a transaction holds
//! nobody up for longer than those. Nothing here knows a table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, QueueMode, RecyclingMethod, Runtime,
};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::metrics::Metrics;

/// The role a pod's sessions take.
pub const SERVICE_ROLE: &str = "groundstation_service";

/// The oldest server this runs on: `MERGE`-free SQL, but public schemas that are not writable by
/// everybody.
pub const OLDEST_SERVER: i32 = 15;

/// How long a connection may take to open, and how long a caller waits for one from the pool.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a statement waits for a lock before it gives up and is tried again.
const LOCK_TIMEOUT: Duration = Duration::from_secs(4);

/// How long one statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long a transaction may wait for its own pod: a stopped pod holds its locks no longer.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a client waits for any answer before it gives the connection up. Longer than every
/// server-side time-out, so that it only matters when the network says nothing at all.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Connections of one pod: the appender, the relay, the monitor, heartbeats, the health probe and
/// the readers.
const POOL_SIZE: usize = 12;

/// A parsed and checked database address. Holds the password: it has no `Debug`.
#[derive(Clone)]
pub struct Address {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
}

impl Address {
    /// Parses `postgres://…` (or `key=value` words). Understands `sslmode=verify-full`,
    /// `sslmode=verify-ca` and `sslrootcert=FILE` of a URL, which tokio-postgres does not: a
    /// server's certificate is always verified here when TLS is used at all.
    pub fn parse(variable: &str, text: &str) -> anyhow::Result<Address> {
        let (text, root_certificate) = map_ssl_words(text);
        let mut config: tokio_postgres::Config = text
            .parse()
            .map_err(|error| anyhow::anyhow!("{variable} is not a Postgres address: {error}"))?;
        if config.get_hosts().is_empty() {
            bail!("{variable} names no host, for example postgres://user@localhost/groundstation");
        }
        config
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(REPLY_TIMEOUT)
            .keepalives_idle(Duration::from_secs(15));
        Ok(Address {
            config,
            tls: tls(root_certificate.as_deref()).with_context(|| variable.to_owned())?,
        })
    }

    /// Host and database, for messages; never the user or the password.
    pub fn display(&self) -> String {
        let host = match self.config.get_hosts().first() {
            Some(tokio_postgres::config::Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(tokio_postgres::config::Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().unwrap_or_default();
        format!("{host}:{port}/{database}")
    }

    /// A blocking connection as the role the address names: for migrations and other one-shot
    /// commands that run before any runtime.
    pub fn connect_blocking(&self) -> anyhow::Result<postgres::Client> {
        let mut config = postgres::Config::from(self.config.clone());
        config.application_name("groundstation migrate");
        config.connect(self.tls.clone()).map_err(|error| unreachable_server(self, &error))
    }

    /// The same, but only for sessions that may write. A session begun while the server was
    /// read-only can stay so for ever, and of several hosts only one takes writes.
    pub fn for_writing(mut self) -> Address {
        self.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        self
    }

    /// The pool of a pod. Opens no connection yet.
    pub fn pool(&self, pod: &str) -> anyhow::Result<Database> {
        let mut config = self.config.clone();
        config.application_name(format!("groundstation {pod}"));
        config.options(format!(
            "-c role={SERVICE_ROLE} -c jit=off -c lock_timeout={} -c statement_timeout={} \
             -c idle_in_transaction_session_timeout={}",
            LOCK_TIMEOUT.as_millis(),
            STATEMENT_TIMEOUT.as_millis(),
            IDLE_IN_TRANSACTION_TIMEOUT.as_millis(),
        ));
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config, self.tls.clone(), recycling);
        let pool = Pool::builder(manager)
            .max_size(POOL_SIZE)
            // The connection used last has its statements and the server's caches warm.
            .queue_mode(QueueMode::Lifo)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .context("cannot build the connection pool")?;
        Ok(Database { pool, metrics: None })
    }
}

/// A pod's connections to the database.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    /// A pod counts; a one-shot command does not.
    metrics: Option<Metrics>,
}

impl Database {
    /// The same connections, with their use counted.
    pub fn counted(self, metrics: Metrics) -> Database {
        Database { metrics: Some(metrics), ..self }
    }

    /// A connection, within [`CONNECT_TIMEOUT`].
    pub async fn get(&self) -> anyhow::Result<Object> {
        let asked = Instant::now();
        let got = self.pool.get().await;
        if let Some(metrics) = &self.metrics {
            metrics.database_wait_seconds.observe(asked.elapsed().as_secs_f64());
            if got.is_err() {
                metrics.database_wait_failures.inc();
            }
        }
        got.map_err(|error| match error {
            deadpool_postgres::PoolError::Backend(error) => {
                anyhow::anyhow!("cannot connect to the database: {}", describe(&error))
            }
            error => anyhow::anyhow!("cannot get a database connection: {error}"),
        })
    }

    /// Who has connections and who waits for one.
    pub fn usage(&self) -> Usage {
        let status = self.pool.status();
        Usage {
            in_use: status.size.saturating_sub(status.available),
            max: status.max_size,
            waiting: status.waiting,
        }
    }

    /// Checks that this is a server and a schema the binary can work with; each problem is one
    /// clear line.
    pub async fn check(&self, address: &Address) -> anyhow::Result<()> {
        let client = match self.pool.get().await {
            Ok(client) => client,
            Err(deadpool_postgres::PoolError::Backend(error)) => {
                if error.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_OBJECT)
                    || error.to_string().contains(SERVICE_ROLE)
                    || error.as_db_error().is_some_and(|db| db.message().contains(SERVICE_ROLE))
                {
                    bail!(
                        "the database at {} has no schema yet: run `groundstation migrate`",
                        address.display()
                    );
                }
                return Err(unreachable_server(address, &error));
            }
            Err(error) => bail!("cannot connect to Postgres at {}: {error}", address.display()),
        };
        let version: i32 = client
            .query_one("select current_setting('server_version_num')::int / 10000", &[])
            .await
            .context("cannot ask Postgres for its version")?
            .get(0);
        check_server(version)
    }
}

/// The pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Connections somebody has.
    pub in_use: usize,
    /// Connections there may be.
    pub max: usize,
    /// Callers that wait for one.
    pub waiting: usize,
}

/// Closes a connection instead of giving it back to the pool: its transaction, if any, ends with
/// it. For a connection whose state is not known.
pub fn abandon(client: Object) {
    drop(Object::take(client));
}

/// Refuses a server that is too old.
pub fn check_server(version: i32) -> anyhow::Result<()> {
    if version < OLDEST_SERVER {
        bail!("PostgreSQL {version} is too old: {OLDEST_SERVER} or newer is needed");
    }
    Ok(())
}

/// One line for what a server or the driver said: the server's own words where there are any.
pub fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} ({})", db.message(), db.code().code()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

fn unreachable_server(address: &Address, error: &tokio_postgres::Error) -> anyhow::Error {
    anyhow::anyhow!("cannot connect to Postgres at {}: {}", address.display(), describe(error))
}

/// Takes the words tokio-postgres refuses out of a URL's query.
fn map_ssl_words(text: &str) -> (String, Option<String>) {
    let Some((base, query)) = text.split_once('?') else {
        return (text.to_owned(), None);
    };
    let (mut kept, mut root_certificate) = (Vec::new(), None);
    for word in query.split('&') {
        match word.split_once('=') {
            Some(("sslrootcert", path)) => root_certificate = Some(path.replace("%2F", "/")),
            Some(("sslmode", "verify-full" | "verify-ca")) => kept.push("sslmode=require"),
            _ => kept.push(word),
        }
    }
    (format!("{base}?{}", kept.join("&")), root_certificate)
}

fn tls(root_certificate: Option<&str>) -> anyhow::Result<MakeRustlsConnect> {
    let mut roots = rustls::RootCertStore::empty();
    match root_certificate {
        Some(path) => {
            let certificates = CertificateDer::pem_file_iter(path)
                .with_context(|| format!("cannot read sslrootcert {path}"))?;
            for certificate in certificates {
                let certificate =
                    certificate.with_context(|| format!("sslrootcert {path} is not PEM"))?;
                roots.add(certificate).with_context(|| format!("sslrootcert {path}"))?;
            }
        }
        // A host without a certificate store can still speak plain text; a TLS handshake there
        // then fails with the server's certificate named as the cause.
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ssl_words_of_libpq_are_understood() {
        let cases = [
            ("postgres://h/d", "postgres://h/d", None),
            ("postgres://h/d?sslmode=disable", "postgres://h/d?sslmode=disable", None),
            (
                "postgres://h/d?sslmode=verify-full&sslrootcert=%2Fca.pem&connect_timeout=3",
                "postgres://h/d?sslmode=require&connect_timeout=3",
                Some("/ca.pem"),
            ),
        ];
        for (text, mapped, root) in cases {
            assert_eq!(map_ssl_words(text), (mapped.to_owned(), root.map(str::to_owned)));
        }
    }

    #[test]
    fn an_address_is_shown_without_user_and_password() {
        let address = Address::parse("DATABASE_URL", "postgres://me:secret@db.example:5433/fleet")
            .expect("an address");
        assert_eq!(address.display(), "db.example:5433/fleet");
    }

    #[test]
    fn a_bad_address_names_the_variable_and_not_the_password() {
        for text in ["postgres://me:secret@host:notaport/x", "nonsense", "postgres:///x"] {
            let Err(error) = Address::parse("DATABASE_URL", text) else {
                panic!("{text} was taken");
            };
            let error = format!("{error:#}");
            assert!(error.contains("DATABASE_URL"), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_server_too_old_is_refused() {
        assert!(check_server(14).is_err());
        assert!(check_server(15).is_ok());
    }
}
