//! A satellite that shows a client certificate is let in only under the id or the name that stands in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair,
    SanType,
};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::TcpStream;
use tokio_tungstenite::Connector;
use tokio_tungstenite::tungstenite::Error;

use crate::harness::raw::UPGRADE;
use crate::harness::satellite::{Credentials, Heard};
use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Pod, Satellite, eventually, program, stores};

/// An authority, and the certificate of a pod from it, in files.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: PathBuf,
}

/// A certificate with its key.
struct Shown(Certificate, KeyPair);

impl Authority {
    fn new() -> Authority {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("clients-{}", stores::random()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let authority = Authority { issuer, folder };
        let Shown(certificate, key) = authority.certificate(|params| {
            let localhost = "localhost".try_into().expect("a name");
            params.subject_alt_names.push(SanType::DnsName(localhost));
        });
        authority.write("tls.crt", &certificate.pem());
        authority.write("tls.key", &key.serialize_pem());
        authority.write("clients.pem", &authority.issuer.pem());
        authority
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.join(name), text).expect("written");
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn certificate(&self, name: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        name(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Shown(certificate, key)
    }

    fn of_common_name(&self, name: &str) -> Shown {
        self.certificate(|params| params.distinguished_name.push(DnType::CommonName, name))
    }

    fn of_dns_name(&self, name: &str) -> Shown {
        let name = SanType::DnsName(name.try_into().expect("a name"));
        self.certificate(|params| params.subject_alt_names.push(name))
    }

    fn of_uri(&self, uri: &str) -> Shown {
        let uri = SanType::URI(uri.try_into().expect("a URI"));
        self.certificate(|params| params.subject_alt_names.push(uri))
    }

    /// A client that trusts the pod and shows this.
    fn client(&self, shown: Option<&Shown>) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        Arc::new(match shown {
            None => builder.with_no_client_auth(),
            Some(Shown(certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
                builder
                    .with_client_auth_cert(vec![certificate.der().clone()], key)
                    .expect("a client")
            }
        })
    }

    async fn pod(&self, fleet: &Fleet, certificates: &str) -> Pod {
        let environment = fleet
            .plan("tls")
            .with("GROUNDSTATION_TLS_CERT", &self.path("tls.crt"))
            .with("GROUNDSTATION_TLS_KEY", &self.path("tls.key"))
            .with("GROUNDSTATION_TLS_CLIENT_CA", &self.path("clients.pem"))
            .with("GROUNDSTATION_SATELLITE_CERTIFICATES", certificates)
            .with("GROUNDSTATION_TLS_RELOAD_INTERVAL", "50ms")
            .environment();
        let mut pod = Pod::launch("tls", &environment, &fleet.admin_token);
        let listening = pod.expect_log("listening").await;
        pod.address = listening["address"].as_str().expect("an address").parse().expect("one");
        pod
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

async fn open(pod: &Pod, client: Arc<rustls::ClientConfig>) -> Result<Satellite, Error> {
    let url = format!("wss://localhost:{}/api/ws/satellite", pod.address.port());
    let stream = TcpStream::connect(pod.address).await.expect("a connection");
    let connector = Some(Connector::Rustls(client));
    let opened =
        tokio_tungstenite::client_async_tls_with_config(url, stream, None, connector).await;
    opened.map(|(socket, _)| Satellite::over(socket))
}

/// What a satellite hears that says who it is.
async fn heard(pod: &Pod, client: Arc<rustls::ClientConfig>, who: &Credentials) -> Heard {
    let mut satellite = open(pod, client).await.expect("a socket");
    satellite.authenticate(who);
    let heard = satellite.hear().await;
    satellite.close().await;
    heard
}

fn welcome(who: &Credentials) -> Heard {
    let welcome = json!({"type": "authenticated", "satelliteId": who.id, "assignments": []});
    Heard::Message(welcome)
}

fn refusal() -> Heard {
    Heard::Message(json!({"type": "auth_failed", "reason": "Invalid client ID or token"}))
}

#[tokio::test]
async fn a_certificate_lets_in_only_whom_it_names_and_none_is_needed() {
    let (fleet, authority) = (Fleet::new(CALM).await, Authority::new());
    let plain = fleet.pod("plain").await;
    let edge = plain.register("edge", "eu").await;
    let other = plain.register("other", "eu").await;
    let pod = authority.pod(&fleet, "optional").await;
    assert_eq!(heard(&pod, authority.client(None), &edge).await, welcome(&edge));

    let id = edge.id.to_string();
    let its_own = [
        authority.of_common_name("edge"),
        authority.of_common_name(&id),
        authority.of_dns_name("edge"),
        authority.of_dns_name(&id),
        authority.of_uri(&format!("urn:uuid:{id}")),
    ];
    for (n, shown) in its_own.iter().enumerate() {
        let client = authority.client(Some(shown));
        assert_eq!(heard(&pod, client, &edge).await, welcome(&edge), "certificate {n}");
        // The other's token is right, and is not enough.
        let client = authority.client(Some(shown));
        assert_eq!(heard(&pod, client, &other).await, refusal(), "certificate {n}");
    }
    let nameless = authority.certificate(|_| {});
    assert_eq!(heard(&pod, authority.client(Some(&nameless)), &edge).await, refusal());
    let told = pod.expect_log("its certificate does not name it").await;
    assert_eq!(told["satellite"], other.id.to_string());
    // The certificate alone is not enough either.
    let stranger = Credentials { id: edge.id, token: other.token.clone() };
    let client = authority.client(Some(&its_own[0]));
    assert_eq!(heard(&pod, client, &stranger).await, refusal());
    assert_eq!(fleet.history(other.id).await, [""; 0]);
}

#[tokio::test]
async fn a_certificate_that_another_authority_signed_ends_the_handshake() {
    let (fleet, authority) = (Fleet::new(CALM).await, Authority::new());
    let pod = authority.pod(&fleet, "optional").await;
    let forged = Authority::new().of_common_name("edge");
    let forged = authority.client(Some(&forged));
    assert!(open(&pod, forged).await.is_err());
    let run_out = authority.certificate(|params| {
        params.distinguished_name.push(DnType::CommonName, "edge");
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    });
    assert!(open(&pod, authority.client(Some(&run_out))).await.is_err());
    assert!(open(&pod, authority.client(None)).await.is_ok());
}

#[tokio::test]
async fn where_certificates_are_required_a_satellite_without_one_is_answered_403_and_the_api_needs_none()
 {
    let (fleet, authority) = (Fleet::new(CALM).await, Authority::new());
    let plain = fleet.pod("plain").await;
    let edge = plain.register("edge", "eu").await;
    let pod = authority.pod(&fleet, "required").await;
    match open(&pod, authority.client(None)).await.err() {
        Some(Error::Http(answer)) => {
            assert_eq!(answer.status(), 403);
            let body = String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default());
            assert!(body.contains("no-certificate"), "{body}");
        }
        other => panic!("{other:?}"),
    }
    let client = authority.client(Some(&authority.of_common_name("edge")));
    assert_eq!(heard(&pod, client, &edge).await, welcome(&edge));
    let metrics = get(&pod, &authority, "/metrics").await;
    assert!(metrics.contains(r#"groundstation_door_refusals_total{reason="no_certificate"} 1"#));
}

/// What a route says to who shows no certificate.
async fn get(pod: &Pod, authority: &Authority, path: &str) -> String {
    ask(pod, authority.client(None), path, "Connection: close\r\n").await
}

/// What a route says before the pod ends the connection.
async fn ask(pod: &Pod, client: Arc<rustls::ClientConfig>, path: &str, headers: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let stream = TcpStream::connect(pod.address).await.expect("a connection");
    let name = "localhost".try_into().expect("a name");
    let connector = tokio_rustls::TlsConnector::from(client);
    let mut stream = connector.connect(name, stream).await.expect("TLS");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.ok();
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn a_certificate_that_was_verified_opens_nothing_later_on_its_connection() {
    let (fleet, authority) = (Fleet::new(CALM).await, Authority::new());
    let pod = authority.pod(&fleet, "required").await;
    let shown = authority.client(Some(&authority.of_common_name("edge")));
    // Two requests: the first one has used the certificate up.
    let upgrade = format!("\r\n{UPGRADE}Connection: close\r\n");
    let said = ask(&pod, shown.clone(), "/livez", &upgrade).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.contains("no-certificate"), "{said}");
    assert!(open(&pod, shown).await.is_ok());
}

#[tokio::test]
async fn another_authority_counts_without_a_restart() {
    let (fleet, authority) = (Fleet::new(CALM).await, Authority::new());
    let pod = authority.pod(&fleet, "optional").await;
    let next = Authority::new();
    let shown = next.of_common_name("edge");
    assert!(open(&pod, authority.client(Some(&shown))).await.is_err());
    let both = format!("{}{}", authority.issuer.pem(), next.issuer.pem());
    authority.write("clients.pem", &both);
    eventually("the second authority", async || {
        let opened = open(&pod, authority.client(Some(&shown))).await;
        opened.map(drop).map_err(|error| error.to_string())
    })
    .await;
    authority.write("clients.pem", "rubbish");
    let told = pod.expect_log("the previous TLS certificate stays").await;
    assert!(told["error"].as_str().expect("an error").contains("clients.pem"), "{told}");
    assert!(open(&pod, authority.client(Some(&shown))).await.is_ok());
}

#[tokio::test]
async fn a_pod_that_cannot_see_certificates_does_not_start_and_says_why() {
    let fleet = Fleet::new(CALM).await;
    let start = async |settings: &[(&str, &str)]| {
        let mut plan = fleet.plan("tls");
        for (name, value) in settings {
            plan = plan.with(name, value);
        }
        let environment = plan.environment();
        let output = blocking(move || program::run(&["serve"], &environment)).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, said) = start(&[("GROUNDSTATION_TLS_CLIENT_CA", "/nowhere/ca.pem")]).await;
    assert!(said.contains("needs GROUNDSTATION_TLS_CERT"), "{status:?} {said}");
    let (status, said) = start(&[("GROUNDSTATION_SATELLITE_CERTIFICATES", "required")]).await;
    assert!(said.contains("needs GROUNDSTATION_TLS_CLIENT_CA"), "{status:?} {said}");
}
