//! A pod with a certificate speaks TLS, and takes a new certificate without a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::Connector;

use crate::harness::raw::Raw;
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Pod, Satellite, eventually, program, stores};

/// A certificate for `localhost` and its key, both in files.
struct Certificate {
    der: CertificateDer<'static>,
    folder: PathBuf,
}

impl Certificate {
    fn files(folder: &Path) -> (PathBuf, PathBuf) {
        (folder.join("tls.crt"), folder.join("tls.key"))
    }

    /// Makes a certificate and writes it over the present one.
    fn write(folder: &Path) -> Certificate {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let (certificate, key) = Certificate::files(folder);
        std::fs::write(certificate, made.cert.pem()).expect("written");
        std::fs::write(key, made.signing_key.serialize_pem()).expect("written");
        Certificate { der: made.cert.der().clone(), folder: folder.to_owned() }
    }

    /// Makes a certificate in a folder of its own.
    fn new() -> Certificate {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", stores::random()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Certificate::write(&folder)
    }

    /// The configuration of a client that trusts only this certificate.
    fn client(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.der.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        // Already gone if another certificate was written over it.
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

/// A pod that speaks TLS. The harness' own calls are plain and do not reach it.
async fn pod(fleet: &Fleet, folder: &Path) -> Pod {
    let (certificate, key) = Certificate::files(folder);
    let text = |path: &Path| path.to_str().expect("a path").to_owned();
    let environment = fleet
        .plan("tls")
        .with("GROUNDSTATION_TLS_CERT", &text(&certificate))
        .with("GROUNDSTATION_TLS_KEY", &text(&key))
        .with("GROUNDSTATION_TLS_RELOAD_INTERVAL", "50ms")
        .with("GROUNDSTATION_AUTHENTICATION_TIMEOUT", "3s")
        .environment();
    let mut pod = Pod::launch("tls", &environment, &fleet.admin_token);
    let listening = pod.expect_log("listening").await;
    assert_eq!(listening["tls"], true);
    pod.address = listening["address"].as_str().expect("an address").parse().expect("an address");
    pod
}

/// Whether the pod shows a certificate that this client trusts.
async fn trusts(pod: &Pod, client: Arc<rustls::ClientConfig>) -> Result<(), String> {
    let stream = TcpStream::connect(pod.address).await.expect("a connection");
    let name = ServerName::try_from("localhost").expect("a name");
    let handshake = TlsConnector::from(client).connect(name, stream).await;
    handshake.map(drop).map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_satellite_connects_over_tls_and_plain_text_is_not_answered() {
    let (fleet, certificate) = (Fleet::new(CALM).await, Certificate::new());
    let plain = fleet.pod("plain").await;
    let credentials = plain.register("edge", "eu").await;
    let pod = pod(&fleet, &certificate.folder).await;
    let url = format!("wss://localhost:{}/api/ws/satellite", pod.address.port());
    let stream = TcpStream::connect(pod.address).await.expect("a connection");
    let connector = Connector::Rustls(certificate.client());
    let connected =
        tokio_tungstenite::client_async_tls_with_config(url, stream, None, Some(connector)).await;
    let (socket, answer) = connected.expect("a socket over TLS");
    assert!(answer.headers()["strict-transport-security"].to_str().is_ok());
    let mut satellite = Satellite::over(socket);
    satellite.authenticate(&credentials);
    satellite.expect("authenticated").await;
    fleet.expect_history(credentials.id, &["1 connected connect"]).await;
    satellite.close().await;

    let mut raw = Raw::connect(pod.address).await;
    raw.send("GET /livez HTTP/1.1\r\nHost: pod\r\n\r\n").await;
    let said = raw.ended().await;
    assert!(!said.starts_with(b"HTTP"), "{said:?}");
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_come_is_ended_at_the_deadline() {
    let (fleet, certificate) = (Fleet::new(CALM).await, Certificate::new());
    let pod = pod(&fleet, &certificate.folder).await;
    let begun = Instant::now();
    let mut silent = Raw::connect(pod.address).await;
    assert_eq!(silent.ended().await, b"");
    assert!(begun.elapsed() > Duration::from_millis(2_900), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not() {
    let (fleet, first) = (Fleet::new(CALM).await, Certificate::new());
    let pod = pod(&fleet, &first.folder).await;
    trusts(&pod, first.client()).await.expect("the first");

    let (certificate_file, key_file) = Certificate::files(&first.folder);
    let good_key = std::fs::read(&key_file).expect("the key");
    std::fs::write(&key_file, "-----BEGIN PRIVATE KEY-----\nsecret-rubbish\n").expect("written");
    let complaint = pod.expect_log("the previous TLS certificate stays").await;
    let said = complaint["error"].as_str().expect("an error");
    assert!(said.contains("tls.key holds no private key"), "{said}");
    assert!(!pod.log().contains("secret-rubbish"));
    trusts(&pod, first.client()).await.expect("the first one stays");

    // A valid key that does not belong to this certificate.
    let other = Certificate::new();
    std::fs::copy(Certificate::files(&other.folder).1, &key_file).expect("copied");
    eventually("a second complaint", async || {
        let log = pod.log();
        if log.contains("do not go together") { Ok(()) } else { Err(log) }
    })
    .await;
    trusts(&pod, first.client()).await.expect("the first one stays");
    std::fs::remove_file(&certificate_file).expect("removed");
    eventually("a third complaint", async || {
        let log = pod.log();
        if log.contains("cannot read the TLS certificate") { Ok(()) } else { Err(log) }
    })
    .await;
    trusts(&pod, first.client()).await.expect("the first one stays");
    std::fs::write(&key_file, good_key).expect("written");

    let second = Certificate::write(&first.folder);
    eventually("the second certificate", async || trusts(&pod, second.client()).await).await;
    assert!(trusts(&pod, first.client()).await.is_err(), "the first is over");
    let complaints = pod.log().matches("the previous TLS certificate stays").count();
    assert!((3..=6).contains(&complaints), "{complaints} complaints: one for each new content");
}

#[tokio::test]
async fn a_pod_without_its_certificate_does_not_start_and_says_why() {
    let fleet = Fleet::new(CALM).await;
    let environment = fleet
        .plan("tls")
        .with("GROUNDSTATION_TLS_CERT", "/nowhere/tls.crt")
        .with("GROUNDSTATION_TLS_KEY", "/nowhere/tls.key")
        .environment();
    let output = blocking(move || program::run(&["serve"], &environment)).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("/nowhere/tls.crt"), "{said}");
}
