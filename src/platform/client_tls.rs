//! TLS to the stores, as a client: trusted roots and the client's own certificate.
//!
//! The same for Postgres and for NATS. Files are read once, at the start. An error names the
//! setting.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Whether a host is this machine.
pub fn is_this_machine(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The trusted roots for a server's certificate.
pub struct Roots(rustls::RootCertStore);

impl Roots {
    /// The certificates of a file that a setting names; without one, those of the system.
    pub fn of(setting: &str, file: Option<&Path>) -> anyhow::Result<Roots> {
        let mut roots = rustls::RootCertStore::empty();
        let trusted = trusted(setting, file)?;
        match file {
            Some(file) => {
                for certificate in trusted {
                    roots
                        .add(certificate)
                        .with_context(|| format!("{setting} {}", file.display()))?;
                }
            }
            None => {
                roots.add_parsable_certificates(trusted);
            }
        }
        Ok(Roots(roots))
    }

    /// A client without a certificate of its own.
    pub fn client(self) -> anyhow::Result<rustls::ClientConfig> {
        Ok(self.builder()?.with_no_client_auth())
    }

    /// A client with a certificate of its own; the certificate is in one file and its key in
    /// another.
    pub fn client_with(
        self,
        (setting, certificate): (&str, &Path),
        (key_setting, key): (&str, &Path),
    ) -> anyhow::Result<rustls::ClientConfig> {
        let shown = certificates(setting, certificate)?;
        let secret = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| anyhow!("cannot read {key_setting} {}: {error}", key.display()))?;
        self.builder()?
            .with_client_auth_cert(shown, secret)
            .with_context(|| format!("{setting} and {key_setting} do not belong together"))
    }

    fn builder(
        self,
    ) -> anyhow::Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>>
    {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider);
        Ok(builder
            .with_safe_default_protocol_versions()
            .context("TLS")?
            .with_root_certificates(self.0))
    }
}

/// The certificates of a file that a setting names; without one, those of the system. A host without
/// a certificate store can still use plain text. A TLS handshake there fails and names the server's
/// certificate as the cause.
pub fn trusted(setting: &str, file: Option<&Path>) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    match file {
        Some(file) => certificates(setting, file),
        None => Ok(rustls_native_certs::load_native_certs().certs),
    }
}

fn certificates(setting: &str, file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let shown = || format!("cannot read {setting} {}", file.display());
    let all = CertificateDer::pem_file_iter(file).with_context(shown)?;
    let all = all.collect::<Result<Vec<_>, _>>();
    let all = all.with_context(|| format!("{setting} {} is not PEM", file.display()))?;
    if all.is_empty() {
        return Err(anyhow!("{setting} {} has no certificate in it", file.display()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::is_this_machine;

    #[test]
    fn names_and_addresses_of_the_loopback_are_this_machine() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1", "[::1]"] {
            assert!(is_this_machine(host), "{host}");
        }
        for host in ["db", "10.0.0.1", "localhost.example", "::2", "0.0.0.0"] {
            assert!(!is_this_machine(host), "{host}");
        }
    }
}
