//! A forwarder connects only to addresses that it may connect to.

use super::world::{World, satellites};
use crate::harness::program;
use tokio::net::TcpListener;

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
    use crate::harness::hooks::{Answer, Hooks};
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
