use super::*;
use crate::ingress::settings::tests::check;

/// One thread runs the door and the test in turn. So the test sees how many connections were accepted while it
/// had to wait.
#[tokio::test]
async fn who_is_ready_runs_between_two_accepted_connections() {
    const WAITING: usize = 50;
    let metrics = Metrics::new();
    let settings = check(&[]).expect("defaults");
    let door = Door::new(settings, metrics.clone()).expect("a door");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    // The system completes them before anybody accepts them.
    let connect = |_| std::net::TcpStream::connect(address).expect("a connection");
    let clients: Vec<_> = (0..WAITING).map(connect).collect();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(door.serve(listener, Router::new(), stop.clone()));
    let (mut before, mut most) = (0, 0);
    while before < WAITING as i64 {
        tokio::task::yield_now().await;
        let accepted = metrics.connections.get();
        most = most.max(accepted - before);
        before = accepted;
    }
    // One, and perhaps another that the runtime had begun already.
    assert!(most <= 2, "{most} connections were accepted at once");
    drop(clients);
    stop.cancel();
    serving.await.expect("an end");
}
