//! Addresses of databases: what they may say, TLS, and how one is shown.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{CONNECT_TIMEOUT, REPLY_TIMEOUT, describe};
use crate::platform::client_tls::{Roots, is_this_machine};
use crate::platform::unreachable::Unreachable;

/// A parsed and checked database address. Holds the password: it has no `Debug`.
#[derive(Clone)]
pub struct Address {
    pub(super) config: tokio_postgres::Config,
    pub(super) tls: MakeRustlsConnect,
}

impl Address {
    /// Parses `postgres://…` (or `key=value` words). Supports `sslmode=verify-full`,
    /// `sslmode=verify-ca` and `sslrootcert=FILE` of a URL, which tokio-postgres does not: with
    /// TLS, a server's certificate is always verified here.
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
            Some(Host::Tcp(host)) => host.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().unwrap_or_default();
        format!("{host}:{port}/{database}")
    }

    /// A host that could be reached without TLS, if the server or an attacker on the way wants it
    /// so.
    pub fn in_plain_text(&self) -> Option<&str> {
        let is_far = |host: &&Host| matches!(host, Host::Tcp(name) if !is_this_machine(name));
        match (self.config.get_ssl_mode(), self.config.get_hosts().iter().find(is_far)?) {
            (SslMode::Require, _) => None,
            (_, Host::Tcp(name)) => Some(name),
            #[cfg(unix)]
            (_, Host::Unix(_)) => None,
        }
    }

    /// A blocking connection as the role of the address: for migrations and other one-shot commands
    /// that run before any runtime.
    pub fn connect_blocking(&self) -> anyhow::Result<postgres::Client> {
        let mut config = postgres::Config::from(self.config.clone());
        config.application_name("groundstation migrate");
        config.connect(self.tls.clone()).map_err(|error| unreachable_server(self, &error))
    }

    /// The same, but only for sessions that may write. A session begun while the server was
    /// read-only can stay read-only for ever, and of several hosts only one takes writes.
    pub fn for_writing(mut self) -> Address {
        self.config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        self
    }
}

/// Says that a server could not be connected to, and why.
pub(super) fn unreachable_server(
    address: &Address,
    error: &tokio_postgres::Error,
) -> anyhow::Error {
    let text = format!("cannot connect to Postgres at {}: {}", address.display(), describe(error));
    match error.as_db_error() {
        // It was reached, and let nobody in.
        Some(_) => anyhow::anyhow!(text),
        None => Unreachable(text).into(),
    }
}

/// Takes words that tokio-postgres refuses out of a URL's query.
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
    let roots = Roots::of("sslrootcert", root_certificate.map(Path::new))?;
    Ok(MakeRustlsConnect::new(roots.client()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_another_host_that_need_not_speak_tls_is_spoken_to_in_plain_text() {
        let cases = [
            ("postgres://u@127.0.0.1/d", None),
            ("postgres://u@localhost/d", None),
            ("postgres:///d?host=/run/postgresql", None),
            ("postgres://u@db.example/d", Some("db.example")),
            ("postgres://u@db.example/d?sslmode=prefer", Some("db.example")),
            ("postgres://u@db.example/d?sslmode=require", None),
            ("postgres://u@db.example/d?sslmode=verify-full", None),
        ];
        for (url, host) in cases {
            assert_eq!(
                Address::parse("DATABASE_URL", url).expect(url).in_plain_text(),
                host,
                "{url}"
            );
        }
    }

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
}
