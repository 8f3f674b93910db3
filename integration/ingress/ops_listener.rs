//! Probes and metrics can have a listener of their own, which answers whatever happens at the other one.

use std::net::SocketAddr;

use crate::harness::pod::try_call;
use crate::harness::raw::Raw;
use crate::harness::wait::PATIENCE;
use crate::harness::wait::{blocking, eventually};
use crate::harness::{CALM, Fleet, program};

const OPS: [&str; 5] = ["/livez", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json"];

async fn status(address: SocketAddr, path: &str, token: Option<&str>) -> u16 {
    let answer = try_call(address, "GET", path, token, None, PATIENCE).await;
    answer.unwrap_or_else(|error| panic!("{path}: {error}")).status
}

#[tokio::test]
async fn probes_and_metrics_answer_on_a_listener_of_their_own_and_nowhere_else() {
    let fleet = Fleet::new(CALM).await;
    let plan = fleet.plan("a").with("GROUNDSTATION_OPS_LISTEN", "127.0.0.1:0");
    // Some more than the requests below: a closed connection may hold its place for a moment.
    let plan = plan.with("GROUNDSTATION_MAX_CONNECTIONS", "10");
    let mut pod = crate::harness::Pod::launch("a", &plan.environment(), &fleet.admin_token);
    pod.address = eventually("the pod to listen", async || pod.listening()).await;
    let line = pod.expect_log("probes and metrics are here").await;
    let ops: SocketAddr = line["address"].as_str().expect("an address").parse().expect("one");
    eventually("the pod to be ready", async || match status(ops, "/readyz", None).await {
        200 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    let token = Some(fleet.admin_token.as_str());
    for path in OPS {
        assert_eq!(status(ops, path, None).await, 200, "{path}");
        assert_eq!(status(pod.address, path, token).await, 404, "{path}");
    }
    assert_eq!(status(pod.address, "/v1/triggers", token).await, 200);
    assert_eq!(status(ops, "/v1/triggers", token).await, 404);
    assert_eq!(status(ops, "/api/ws/satellite", None).await, 404);

    // The public listener is full, and no connection has lost the place it got in its first second.
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(Raw::connect(pod.address).await);
    }
    for path in OPS {
        assert_eq!(status(ops, path, None).await, 200, "{path}");
    }
    // The command reads the pod's variable.
    let environment = [("GROUNDSTATION_OPS_LISTEN".to_owned(), ops.to_string())];
    let output = blocking(move || program::run(&["health"], &environment)).await;
    assert!(output.status.success(), "{output:?}");
}
