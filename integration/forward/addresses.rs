//! A forwarder connects only to addresses that it may connect to.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::world::{World, satellites};
use crate::harness::hooks::{Answer, Hooks};
use crate::harness::{program, stores};

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_not_connected_to() {
    let mut world = World::new().await;
    world.publish(satellites(1)[0]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    for scheme in ["https", "http"] {
        let to = format!("{scheme}://localhost:{port}/");
        let forwarder = world.forward(&[
            ("GROUNDSTATION_FORWARD_TO", &to),
            ("GROUNDSTATION_FORWARD_ALLOW_NETWORKS", "10.0.0.0/8"),
        ]);
        let line = forwarder.says("--allow-network").await;
        assert!(line.contains("127.0.0.1") || line.contains("::1"), "{line}");
    }
    let connected = tokio::time::timeout(std::time::Duration::from_millis(100), listener.accept());
    assert!(connected.await.is_err(), "there was a connection");
    // The same name, with its networks named.
    let port = world.hooks.address.port();
    let to = format!("http://localhost:{port}/");
    let _forwarder = world.forward(&[("GROUNDSTATION_FORWARD_TO", &to)]);
    world.hooks.expect_taken(1).await;
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut world = World::new().await;
    let elsewhere = Hooks::new().await;
    let location = format!("http://{}/", elsewhere.address);
    world.hooks.say(move |_, before| match before {
        0..2 => Answer::With(307, "location", location.clone()),
        _ => Answer::Status(204),
    });
    world.publish(satellites(1)[0]).await;
    let forwarder = world.forward(&[]);
    forwarder.says("answered 307").await;
    world.hooks.expect_taken(1).await;
    assert!(elsewhere.all().is_empty());
}

#[tokio::test]
async fn an_address_or_a_secret_is_never_shown() {
    let mut world = World::new().await;
    world.publish(satellites(1)[0]).await;
    world.hooks.say_always(500);
    let to = format!("http://{}/services/T0SECRET/B0", world.hooks.address);
    let forwarder = world.forward(&[("GROUNDSTATION_FORWARD_TO", &to), ("RUST_LOG", "trace")]);
    forwarder.says("answered 500").await;
    let said = forwarder.everything();
    for secret in ["T0SECRET", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"] {
        assert!(!said.contains(secret), "{said}");
    }
    let wrong = [
        ("GROUNDSTATION_FORWARD_TO", "ftp://x.example/T0SECRET"),
        ("GROUNDSTATION_FORWARD_SECRET", "whsec_T0SECRET"),
        ("GROUNDSTATION_FORWARD_TO", "https://me:T0SECRET@x.example/"),
    ];
    for (name, value) in wrong {
        let (is_ok, _, err) = program::ran(&["forward"], &world.with(&[(name, value)])).await;
        assert!(!is_ok && err.contains(name) && !err.contains("T0SECRET"), "{err}");
    }
}

/// A receiver with a certificate of its own for `localhost`, in a file; it takes everything. Returns its port.
async fn receiver_with_tls(certificate: &Path) -> u16 {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    std::fs::write(certificate, made.cert.pem()).expect("written");
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.expect("a key"))
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust it ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut read = Vec::new();
            while !read.ends_with(b"}") && stream.read_buf(&mut read).await.is_ok_and(|n| n > 0) {}
            let answer = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
            stream.write_all(answer).await.expect("it reads the answer");
        }
    });
    port
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_not_believed() {
    let mut world = World::new().await;
    world.publish(satellites(1)[0]).await;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ca-{}.pem", stores::random()));
    let to = format!("https://localhost:{}/", receiver_with_tls(&file).await);
    let to = ("GROUNDSTATION_FORWARD_TO", to.as_str());
    let forwarder = world.forward(&[to]);
    forwarder.says("UnknownIssuer").await;
    drop(forwarder);
    let ca = ("GROUNDSTATION_FORWARD_CA", file.to_str().expect("text"));
    let _forwarder = world.forward(&[to, ca]);
    super::delivery::expect_acknowledged(&world, "forward-webhooks").await;
    std::fs::remove_file(&file).expect("the file is there");
}
