//! The trace of a request goes with what it changed to the stream; spans are exported where the
//! environment asks for it, and nowhere else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use async_nats::Message;

use crate::harness::wait::{blocking, eventually};
use crate::harness::{CALM, Credentials, Fleet, Pod, program};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Removes a satellite with this `traceparent`.
async fn remove(fleet: &Fleet, pod: &Pod, credentials: &Credentials, traceparent: &str) {
    let request = ureq::delete(format!("http://{}/v1/satellites/{}", pod.address, credentials.id))
        .header("Authorization", format!("Bearer {}", fleet.admin_token))
        .header("traceparent", traceparent);
    let answer = blocking(move || request.call()).await.expect("an answer");
    assert_eq!(answer.status(), 204);
}

fn traceparent(message: &Message) -> Option<String> {
    message.headers.as_ref()?.get("traceparent").map(|value| value.as_str().to_owned())
}

/// Removes a new satellite with this `traceparent`; the one its message carries.
async fn carried(fleet: &Fleet, pod: &Pod, given: &str) -> Option<String> {
    let mut subscriber = fleet.subscribe().await;
    let credentials = pod.register("traced", "eu").await;
    remove(fleet, pod, &credentials, given).await;
    traceparent(&subscriber.expect("satellite.removed", credentials.id).await)
}

#[tokio::test]
async fn a_removal_is_on_the_stream_with_the_trace_of_its_request() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    let given = format!("00-{TRACE}-{PARENT}-01");
    assert_eq!(carried(&fleet, &pod, &given).await, Some(given));
    fleet.check().await;
}

#[tokio::test]
async fn a_traceparent_that_is_none_goes_nowhere() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    assert_eq!(carried(&fleet, &pod, "Bearer of nonsense").await, None);
    assert_eq!(carried(&fleet, &pod, &format!("00-{TRACE}-{}-01", "0".repeat(16))).await, None);
    fleet.check().await;
}

/// What stands in for a collector: takes what is posted and says 200.
struct Collector {
    address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
}

struct Post {
    head: String,
    body: Vec<u8>,
}

impl Collector {
    fn start() -> Collector {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let posts = Arc::new(Mutex::new(Vec::new()));
        let taken = posts.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let taken = taken.clone();
                std::thread::spawn(move || take(socket, &taken));
            }
        });
        Collector { address, posts }
    }

    /// All that was posted so far, heads and bodies.
    fn taken(&self) -> Vec<u8> {
        let posts = self.posts.lock().expect("posts");
        posts.iter().flat_map(|post| [post.head.as_bytes(), &post.body].concat()).collect()
    }

    fn has(&self, what: &[u8]) -> bool {
        self.taken().windows(what.len()).any(|window| window == what)
    }
}

fn take(socket: TcpStream, taken: &Mutex<Vec<Post>>) {
    let mut writer = socket.try_clone().expect("a socket");
    let mut reader = BufReader::new(socket);
    loop {
        let mut head = String::new();
        loop {
            match reader.read_line(&mut head) {
                Ok(0) | Err(_) => return,
                Ok(_) if head.ends_with("\r\n\r\n") => break,
                Ok(_) => {}
            }
        }
        let length = head.to_lowercase();
        let length = length.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.expect("a length").trim().parse().expect("a number")];
        reader.read_exact(&mut body).expect("a body");
        taken.lock().expect("posts").push(Post { head, body });
        const OK: &[u8] =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if writer.write_all(OK).is_err() {
            return;
        }
    }
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let pairs = hexadecimal.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
        .collect()
}

#[tokio::test]
async fn a_collector_gets_the_spans_from_the_request_to_the_message_and_no_secret() {
    let fleet = Fleet::new(CALM).await;
    let collector = Collector::start();
    let pod = fleet.plan("a");
    let pod = pod
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{}", collector.address))
        .with("OTEL_BSP_SCHEDULE_DELAY", "50")
        .with("RUST_LOG", "trace");
    let pod = pod.start().await;
    let mut subscriber = fleet.subscribe().await;
    let credentials = pod.register("traced", "eu").await;
    remove(&fleet, &pod, &credentials, &format!("00-{TRACE}-{PARENT}-01")).await;
    let removed = subscriber.expect("satellite.removed", credentials.id).await;
    let carried = traceparent(&removed).expect("a traceparent");
    let parts: Vec<&str> = carried.split('-').collect();
    assert_eq!((parts[0], parts[1], parts[3]), ("00", TRACE, "01"), "{carried}");
    assert_ne!(parts[2], PARENT, "the append has a span of its own");

    let spans = ["POST /v1/satellites", "DELETE /v1/satellites/{id}", "append"];
    for span in spans.into_iter().chain(["publish satellite.removed", "groundstation"]) {
        eventually(&format!("the span {span}"), async || {
            if collector.has(span.as_bytes()) { Ok(()) } else { Err("not there".to_owned()) }
        })
        .await;
    }
    for id in [TRACE, PARENT, parts[2]] {
        assert!(collector.has(&bytes(id)), "{id}");
    }
    assert!(collector.has(b"POST /v1/traces HTTP/1.1"));
    let digest = groundstation::platform::token::Digest::of(&credentials.token).to_stored();
    for secret in [&fleet.admin_token, &credentials.token, &digest] {
        assert!(!collector.has(secret.as_bytes()), "a secret was exported");
    }
    let log = pod.log();
    assert!(
        !log.contains("groundstation::spans") && !log.contains("\"spans\""),
        "no log line has them"
    );
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_pod_that_is_not_asked_exports_nothing() {
    let fleet = Fleet::new(CALM).await;
    let collector = Collector::start();
    let endpoint = format!("http://{}", collector.address);
    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")] {
        let pod = fleet.plan(name).with("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint).with(name, value);
        let mut pod = pod.start().await;
        let given = format!("00-{TRACE}-{PARENT}-01");
        assert_eq!(carried(&fleet, &pod, &given).await, Some(given));
        // Whatever waited to be sent has been sent when the process has ended.
        pod.terminate();
        assert!(pod.exit().await.success());
        assert!(pod.logged("spans are exported").is_none());
    }
    assert_eq!(collector.taken(), b"");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_a_log_line_and_nothing_else() {
    let fleet = Fleet::new(CALM).await;
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("address");
    let pod = fleet.plan("a").with("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{closed}"));
    let pod = pod.with("OTEL_BSP_SCHEDULE_DELAY", "50").start().await;
    let carried = carried(&fleet, &pod, &format!("00-{TRACE}-{PARENT}-01")).await;
    assert!(carried.expect("a traceparent").contains(TRACE));
    pod.expect_log("spans cannot be exported").await;
    fleet.check().await;
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_is_refused_by_name() {
    let fleet = Fleet::new(CALM).await;
    let environment = fleet.plan("a").with("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317");
    let environment = environment.with("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").environment();
    let output = blocking(move || program::run(&["serve"], &environment)).await;
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && said.contains("http/protobuf"),
        "{said}"
    );
}
