//! A pod says nothing to NATS without TLS where it is told so, shows a certificate and signs with an nkey;
//! and it says at its start what would travel in plain text.

use std::path::{Path, PathBuf};

use groundstation::dev::stores::Nats;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::harness::wait::blocking;
use crate::harness::{CALM, Fleet, Satellite, stores};

/// An authority, a certificate of the server's and one of the pods', and an nkey, all in files.
struct Files {
    folder: PathBuf,
    nkey: nkeys::KeyPair,
}

impl Files {
    fn new() -> Files {
        let folder =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("tls-{}", stores::random()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let files = Files { folder, nkey: nkeys::KeyPair::new_user() };
        let key = || KeyPair::generate().expect("a key");
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, key()).expect("an authority");
        files.write("ca.pem", &authority.pem());
        for (name, hosts) in
            [("server", vec!["localhost".to_owned()]), ("pod", vec!["pod".to_owned()])]
        {
            let key = key();
            let params = CertificateParams::new(hosts).expect("names");
            let certificate = params.signed_by(&key, &authority).expect("a certificate");
            files.write(&format!("{name}.pem"), &certificate.pem());
            files.write(&format!("{name}.key"), &key.serialize_pem());
        }
        let seed = files.nkey.seed().expect("a seed");
        files.write("nkey", &format!("# made by a test\n{seed}\n"));
        files
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.folder.join(name), text).expect("written");
        self.path(name)
    }

    /// A server that takes nobody but over TLS, with a certificate of the authority and with the nkey.
    async fn server(&self) -> Nats {
        let configuration = format!(
            "tls {{ cert_file: '{}', key_file: '{}', ca_file: '{}', verify: true }}
             authorization {{ users: [ {{ nkey: {} }} ] }}",
            self.path("server.pem"),
            self.path("server.key"),
            self.path("ca.pem"),
            self.nkey.public_key(),
        );
        blocking(move || stores::own_nats_with(&configuration)).await
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

#[tokio::test]
async fn a_pod_speaks_tls_with_a_certificate_and_an_nkey_and_takes_both_urls_from_files() {
    let files = Files::new();
    let server = files.server().await;
    let fleet = Fleet::new(CALM).await;
    let nats_url = files.write("nats-url", &format!("tls://localhost:{}\n", server.port()));
    let database_url = files.write("database-url", &format!("{}\n", fleet.database_url));
    let plan = fleet
        .plan("a")
        .without("NATS_URL")
        .without("DATABASE_URL")
        .with("NATS_URL_FILE", &nats_url)
        .with("DATABASE_URL_FILE", &database_url)
        .with("NATS_CA", &files.path("ca.pem"))
        .with("NATS_CERT", &files.path("pod.pem"))
        .with("NATS_KEY", &files.path("pod.key"))
        .with("NATS_NKEY", &files.path("nkey"));
    let pod = plan.start().await;
    pod.expect_nats().await;
    let credentials = pod.register("edge", "eu").await;
    Satellite::connect(pod.address, &credentials).await.close().await;
    pod.expect_metric("groundstation_relay_published_messages_total", 2.0).await;
    assert!(!pod.log().contains(&files.nkey.seed().expect("a seed")), "{}", pod.log());
}

/// With `nats://` too: whoever gives an authority wants TLS.
#[tokio::test]
async fn a_server_that_nobody_vouches_for_or_that_has_no_tls_is_told_nothing() {
    let (files, others) = (Files::new(), Files::new());
    let server = files.server().await;
    let fleet = Fleet::new(CALM).await;
    let strange = fleet
        .plan("strange")
        .with("NATS_URL", &format!("nats://localhost:{}", server.port()))
        .with("NATS_CA", &others.path("ca.pem"))
        .with("NATS_NKEY", &files.path("nkey"));
    let plain = fleet
        .plan("plain")
        .with("NATS_URL", &fleet.nats_url.replace("nats://", "tls://"))
        .with("NATS_CA", &files.path("ca.pem"));
    for (n, plan) in [strange, plain].into_iter().enumerate() {
        let pod = plan.start().await;
        pod.expect_log("cannot reach NATS").await;
        assert_eq!(pod.metric("groundstation_nats_up").await, 0.0);
        // It is ready without: edges wait in the log.
        let credentials = pod.register("edge", "eu").await;
        Satellite::connect(pod.address, &credentials).await.close().await;
        fleet.expect_log_length(2 * (n as i64 + 1)).await;
    }
}

#[tokio::test]
async fn what_would_travel_in_plain_text_is_said_at_the_start() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("here").await;
    assert!(!pod.log().contains("plain text"), "{}", pod.log());
    let open = fleet.plan("open").with("GROUNDSTATION_LISTEN", "0.0.0.0:0").start().await;
    assert!(
        open.log().contains("GROUNDSTATION_LISTEN: tokens and secrets travel in plain text"),
        "{}",
        open.log()
    );
}
