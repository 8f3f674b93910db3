//! TLS with a certificate that is read again when its files change, and the certificates that clients may show.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::arrival::ClientCertificate;
use crate::platform::metrics::Metrics;

/// The files that TLS needs.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
    /// What verifies the certificates of clients, PEM; without it no client is asked for one.
    pub client_ca: Option<PathBuf>,
}

pub struct Tls {
    files: Files,
    current: RwLock<Arc<ServerConfig>>,
    /// The content of the files when they were first read.
    first: Fingerprint,
}

type Fingerprint = [u8; 32];

impl Tls {
    /// Reads the files for the first time. Blocking.
    pub fn load(files: Files) -> anyhow::Result<Tls> {
        let read = |path: &PathBuf| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let contents = Contents {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_ref().map(read).transpose()?,
        };
        let config = configure(&files, &contents)?;
        Ok(Tls { files, current: RwLock::new(config), first: contents.fingerprint() })
    }

    /// The server's side of a handshake, and the certificate that the client showed.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<(TlsStream<S>, ClientCertificate)> {
        let config = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let names = shown.map(names).transpose()?;
        Ok((stream, ClientCertificate(names)))
    }

    /// Checks the files at intervals until `stop`. An invalid certificate is not used: the one before stays,
    /// and each invalid content is logged once.
    pub async fn follow(
        self: Arc<Self>,
        every: Duration,
        metrics: Metrics,
        stop: CancellationToken,
    ) {
        let mut seen = self.first;
        loop {
            tokio::select! {
                () = sleep(every) => {}
                () = stop.cancelled() => return,
            }
            match self.reload(&mut seen).await {
                Ok(false) => {}
                Ok(true) => {
                    metrics.tls_reload("ok");
                    info!("a new TLS certificate is served");
                }
                Err(error) => {
                    metrics.tls_reload("failed");
                    warn!(error = %format!("{error:#}"), "the previous TLS certificate stays");
                }
            }
        }
    }

    async fn read(&self) -> io::Result<Contents> {
        let client_ca = async {
            match &self.files.client_ca {
                Some(path) => tokio::fs::read(path).await.map(Some),
                None => Ok(None),
            }
        };
        let Files { certificate, key, .. } = &self.files;
        let (certificate, key, client_ca) =
            tokio::try_join!(tokio::fs::read(certificate), tokio::fs::read(key), client_ca)?;
        Ok(Contents { certificate, key, client_ca })
    }

    /// Reads the files again and returns whether they changed. Unreadable files count as a change once.
    async fn reload(&self, seen: &mut Fingerprint) -> anyhow::Result<bool> {
        const UNREADABLE: Fingerprint = [0; 32];
        let read = self.read().await;
        let now = read.as_ref().map_or(UNREADABLE, Contents::fingerprint);
        if now == *seen {
            return Ok(false);
        }
        *seen = now;
        let contents =
            read.context("cannot read the TLS certificate, its key, or the clients' authority")?;
        let config = configure(&self.files, &contents)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(true)
    }
}

/// What the files hold.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Contents {
    fn fingerprint(&self) -> Fingerprint {
        let mut all = Sha256::new();
        for part in [&self.certificate, &self.key].into_iter().chain(&self.client_ca) {
            all.update((part.len() as u64).to_be_bytes());
            all.update(part);
        }
        all.finalize().into()
    }
}

fn configure(files: &Files, contents: &Contents) -> anyhow::Result<Arc<ServerConfig>> {
    let Contents { certificate, key, client_ca } = contents;
    let (certificate_path, key_path) = (files.certificate.display(), files.key.display());
    let chain = certificates(&files.certificate, certificate)?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| anyhow::anyhow!("{key_path} holds no private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .context("TLS")?;
    let builder = match files.client_ca.as_deref().zip(client_ca.as_deref()) {
        Some((path, client_ca)) => {
            let verifier = verifier(path, client_ca, provider)?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .with_context(|| format!("{certificate_path} and {key_path} do not go together"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    if client_ca.is_some() {
        // A resumed session is not verified again: its certificate may have run out since.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    Ok(Arc::new(config))
}

/// Verifies the certificates of clients that show one; others are let through to the routes.
fn verifier(
    path: &Path,
    client_ca: &[u8],
    provider: Arc<CryptoProvider>,
) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, client_ca)? {
        roots.add(certificate).with_context(|| format!("{} cannot be used", path.display()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()
        .with_context(|| format!("{} cannot verify clients", path.display()))
}

fn certificates(path: &Path, pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let path = path.display();
    let all = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{path} is not PEM"))?;
    anyhow::ensure!(!all.is_empty(), "{path} holds no certificate");
    Ok(all)
}

/// The names in a verified certificate: the common names of its subject, its DNS names and its URIs.
fn names(certificate: &CertificateDer<'_>) -> io::Result<Arc<[String]>> {
    let unreadable = |error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the client's certificate: {error}"))
    };
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|e| unreadable(&e))?;
    let common = certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let alternative = certificate.subject_alternative_name().map_err(|e| unreadable(&e))?;
    let alternative = alternative.map(|extension| extension.value.general_names.as_slice());
    let alternative = alternative.unwrap_or_default().iter().filter_map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => Some(*name),
        _ => None,
    });
    Ok(common.chain(alternative).map(str::to_owned).collect())
}
