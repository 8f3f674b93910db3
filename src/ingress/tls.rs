//! TLS with a certificate that is read again when its files change.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::platform::metrics::Metrics;

/// The files of certificate and key.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate and its chain, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

pub struct Tls {
    files: Files,
    current: RwLock<Arc<ServerConfig>>,
    /// The content of both files when they were first read.
    first: Fingerprint,
}

type Fingerprint = [u8; 32];

impl Tls {
    /// Reads the files for the first time. Blocking.
    pub fn load(files: Files) -> anyhow::Result<Tls> {
        let read = |path: &PathBuf| {
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
        };
        let (certificate, key) = (read(&files.certificate)?, read(&files.key)?);
        let config = configure(&files, &certificate, &key)?;
        let first = fingerprint(&certificate, &key);
        Ok(Tls { files, current: RwLock::new(config), first })
    }

    /// The server's side of a handshake.
    pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> std::io::Result<TlsStream<S>> {
        let config = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        TlsAcceptor::from(config).accept(stream).await
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

    /// Reads the files again and returns whether they changed. Unreadable files count as a change once.
    async fn reload(&self, seen: &mut Fingerprint) -> anyhow::Result<bool> {
        const UNREADABLE: Fingerprint = [0; 32];
        let read = tokio::try_join!(
            tokio::fs::read(&self.files.certificate),
            tokio::fs::read(&self.files.key)
        );
        let now =
            read.as_ref().map_or(UNREADABLE, |(certificate, key)| fingerprint(certificate, key));
        if now == *seen {
            return Ok(false);
        }
        *seen = now;
        let (certificate, key) = read.context("cannot read the TLS certificate or its key")?;
        let config = configure(&self.files, &certificate, &key)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(true)
    }
}

fn fingerprint(certificate: &[u8], key: &[u8]) -> Fingerprint {
    let mut both = Sha256::new();
    both.update((certificate.len() as u64).to_be_bytes());
    both.update(certificate);
    both.update(key);
    both.finalize().into()
}

fn configure(files: &Files, certificate: &[u8], key: &[u8]) -> anyhow::Result<Arc<ServerConfig>> {
    let (certificate_path, key_path) = (files.certificate.display(), files.key.display());
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .with_context(|| format!("{certificate_path} is not PEM"))?;
    anyhow::ensure!(!chain.is_empty(), "{certificate_path} holds no certificate");
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| anyhow::anyhow!("{key_path} holds no private key"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .context("TLS")?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .with_context(|| format!("{certificate_path} and {key_path} do not go together"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
