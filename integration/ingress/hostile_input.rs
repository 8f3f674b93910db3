//! Whatever is sent to a pod: it goes on, does not grow, writes nothing, and the honest satellites beside it notice
//! nothing.

use std::net::SocketAddr;

use fastrand::Rng;
use serde_json::json;
use tokio::task::JoinSet;

use crate::harness::faults::{chance, repetitions};
use crate::harness::raw::{Raw, UPGRADE, frame};
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite};

/// Number of frames, in a plain run and in a full one.
const FRAMES: (u32, u32) = (6_000, 100_000);
const ATTACKERS: u32 = 8;
/// Frames on one connection before it is abandoned.
const PER_CONNECTION: usize = 12;
/// How much a pod may grow under attack, once it has been attacked for a while.
const GROWTH_BYTES: u64 = 24 * 1024 * 1024;

const FINAL: u8 = 0x80;
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

/// Messages as agents send them, to be corrupted.
fn honest_message(rng: &mut Rng) -> String {
    let message = match rng.u8(0..11) {
        0 => json!({"type": "authenticate", "clientId": uuid::Uuid::from_u128(rng.u128(..)),
                    "token": "csat_void", "capabilities": ["http", "scrape"]}),
        1 => json!({"type": "result", "configId": "c", "systemId": "s", "status": "healthy",
                    "latencyMs": 12.5, "result": {"a": [1, {"b": null}]},
                    "executedAt": "2026-01-01T00:00:00Z"}),
        2 => json!({"type": "strategy_error", "strategyId": "s", "message": "failed"}),
        3 => json!({"type": "script_package_sync_state", "lockfileHash": null, "status": "ready"}),
        4 => json!({"type": "request_script_package_manifest", "lockfileHash": "h"}),
        5 => json!({"type": "request_script_package_blob", "integrity": "sha512-x"}),
        6 => json!({"type": "request_run_secrets", "requestId": "r", "configId": "c",
                    "collectorId": "l", "runId": "u"}),
        7 => {
            json!({"type": "request_config_secrets", "requestId": "r", "configId": "c", "runId": "u"})
        }
        8 => json!({"type": "capability_secret_request", "requestId": "r", "kind": "k",
                    "payload": {"a": 1}}),
        9 => json!({"type": "telemetry_batch", "batchId": "0", "kind": "k", "payload": [{"a": 1}],
                    "droppedByGroup": {"a": 1}}),
        _ => json!({"type": "heartbeat", "version": "0.5.0", "uptimeSeconds": 1}),
    };
    message.to_string()
}

fn mutated(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = honest_message(rng).into_bytes();
    for _ in 0..rng.usize(1..6) {
        let at = rng.usize(..bytes.len());
        match rng.u8(0..3) {
            0 => bytes[at] = rng.u8(..0x80),
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, rng.choice(*b"{}[]\",:\\0e-").unwrap_or(b'x')),
        }
    }
    bytes
}

fn odd_values(rng: &mut Rng) -> String {
    let odd = [
        "1e999",
        "-0",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "[]",
        "{}",
        "true",
        "null",
        "123456789012345678901234567890",
        "\"'; drop table satellites; --\"",
        "{\"$ref\":\"#\"}",
    ];
    let value = rng.choice(odd).unwrap_or("0");
    let field =
        rng.choice(["type", "clientId", "token", "capabilities", "version", "uptimeSeconds"]);
    let field = field.unwrap_or("type");
    let known = rng.choice(["authenticate", "heartbeat", "result"]).unwrap_or("result");
    format!("{{\"type\":\"{known}\",\"{field}\":{value},\"{field}\":{value}}}")
}

/// Bytes of one frame, or of several that belong together.
fn hostile(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(0..16) {
        0..3 => frame(FINAL | TEXT, &mutated(rng)),
        3 => {
            let whole = honest_message(rng);
            frame(FINAL | TEXT, &whole.as_bytes()[..rng.usize(..whole.len())])
        }
        4 => frame(FINAL | TEXT, odd_values(rng).as_bytes()),
        5 => frame(FINAL | TEXT, &vec![b'['; rng.usize(100..65_000)]),
        6 => frame(FINAL | TEXT, r#"{"type":"#.repeat(rng.usize(10..8_000)).as_bytes()),
        7 => {
            let mut bytes = honest_message(rng).into_bytes();
            let at = rng.usize(..bytes.len());
            bytes.insert(at, rng.u8(0x80..));
            frame(FINAL | TEXT, &bytes)
        }
        8 => frame(FINAL | TEXT, &vec![b'x'; rng.usize(65_537..150_000)]),
        9 => frame(FINAL | BINARY, honest_message(rng).as_bytes()),
        // Fragments that nothing began, that are interrupted, or that are too many.
        10 => match rng.u8(0..3) {
            0 => frame(FINAL | CONTINUATION, b"{}"),
            1 => [frame(TEXT, b"{"), frame(FINAL | TEXT, b"}")].concat(),
            _ => [frame(TEXT, b"{"), frame(CONTINUATION, &[b' '; 40_000]).repeat(3)].concat(),
        },
        // Control frames that are too long, in fragments, or nonsense.
        11 => match rng.u8(0..4) {
            0 => frame(FINAL | PING, &[b'x'; 126]),
            1 => frame(PING, b"x"),
            2 => frame(FINAL | CLOSE, &[3]),
            _ => frame(FINAL | CLOSE, &rng.u16(..).to_be_bytes()),
        },
        // No mask, reserved bits, lengths that never come, noise.
        12 => match rng.u8(0..4) {
            0 => vec![FINAL | TEXT, 2, b'{', b'}'],
            1 => frame(FINAL | rng.u8(0x10..0x80), b"{}"),
            2 => {
                vec![FINAL | TEXT, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]
            }
            _ => (0..rng.usize(1..200)).map(|_| rng.u8(..)).collect(),
        },
        // Large ones, most of which never come or are no message: millions of values, of fields, of levels.
        13 => {
            let mut announced = vec![FINAL | TEXT, 0xff];
            announced.extend(rng.u64(60_000..17_000_000).to_be_bytes());
            announced.extend([0; 4]);
            announced.extend(vec![b'['; rng.usize(1..2_000)]);
            announced
        }
        14 => {
            let values = match rng.u8(0..4) {
                0 => format!(r#"{{"type":"result","result":{{"a":[{}0]}}}}"#, "0,".repeat(100_000)),
                1 => format!(r#"{{"type":"result","executedAt":[{}0]}}"#, "0,".repeat(100_000)),
                2 => {
                    let fields: String = (0..20_000).map(|n| format!(r#","{n}":0"#)).collect();
                    format!(r#"{{"type":"telemetry_batch"{fields}}}"#)
                }
                _ => format!(r#"{{"type":"heartbeat","x":{}"#, "[".repeat(200_000)),
            };
            frame(FINAL | TEXT, values.as_bytes())
        }
        // Half a frame.
        _ => {
            let whole = frame(FINAL | TEXT, honest_message(rng).as_bytes());
            whole[..rng.usize(1..whole.len())].to_vec()
        }
    }
}

/// Sends `frames` of them, on as many connections as that needs.
async fn attack(pod: SocketAddr, mut rng: Rng, frames: u32, credentials: Option<Credentials>) {
    let mut left = frames as usize;
    while left > 0 {
        let mut raw = Raw::connect(pod).await;
        raw.send(format!("{UPGRADE}\r\n")).await;
        assert!(raw.head().await.starts_with("HTTP/1.1 101"), "the door is shut");
        if let Some(Credentials { id, token }) = &credentials {
            let authenticate = json!({"type": "authenticate", "clientId": id, "token": token});
            raw.send(frame(FINAL | TEXT, authenticate.to_string().as_bytes())).await;
            raw.read_until(b"\"authenticated\"").await;
        }
        for _ in 0..left.min(rng.usize(1..=PER_CONNECTION)) {
            left -= 1;
            if !raw.send(hostile(&mut rng)).await {
                break;
            }
        }
        raw.finish().await;
    }
}

/// The pod's resident memory, if the system tells it.
fn resident_bytes(pod: &Pod) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pod.pid())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Half of the attackers are strangers; the others have credentials and misbehave all the same.
async fn wave(pod: &Pod, rng: &mut Rng, frames: u32, insiders: &[Credentials]) {
    let mut attackers = JoinSet::new();
    for n in 0..ATTACKERS {
        let credentials = insiders.get(n as usize).cloned();
        attackers.spawn(attack(pod.address, rng.fork(), frames / ATTACKERS, credentials));
    }
    attackers.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_under_hostile_input_goes_on_grows_by_nothing_and_serves_the_honest() {
    let mut rng = chance("hostile_input");
    let fleet = Fleet::new(CALM).await;
    // The pod's limits would end the attack too soon, and its log lines would fill this test's memory.
    let pod = fleet
        .plan("a")
        .with("RUST_LOG", "warn,groundstation::pod=info")
        .with("GROUNDSTATION_MESSAGE_RATE", "100000")
        .with("GROUNDSTATION_MESSAGE_BURST", "100000")
        .with("GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS", "10000000")
        .with("GROUNDSTATION_MAX_FAILED_AUTHENTICATIONS_PER_ADDRESS", "10000000")
        .start()
        .await;
    let mut honest = Vec::new();
    for n in 0..5 {
        let credentials = pod.register(&format!("honest-{n}"), "eu").await;
        let satellite = Satellite::connect(pod.address, &credentials).await;
        satellite.beat_every(fleet.timing.heartbeat);
        honest.push((credentials.id, satellite));
    }
    let mut insiders = Vec::new();
    for n in 0..ATTACKERS / 2 {
        insiders.push(pod.register(&format!("insider-{n}"), "eu").await);
    }

    let frames = repetitions(FRAMES.0, FRAMES.1);
    wave(&pod, &mut rng, frames / 4, &insiders).await;
    let before = resident_bytes(&pod);
    wave(&pod, &mut rng, frames - frames / 4, &insiders).await;
    if let (Some(before), Some(after)) = (before, resident_bytes(&pod)) {
        println!("resident: {} KiB, then {} KiB", before / 1024, after / 1024);
        assert!(after < before + GROWTH_BYTES, "{before} grew to {after} bytes");
    }

    for (id, satellite) in honest {
        assert_eq!(fleet.history(id).await, ["1 connected connect"]);
        assert_eq!(pod.show(id).await["status"], "online");
        satellite.close().await;
    }
    let log = pod.log();
    assert!(!log.contains("panicked"), "{log}");
    let sql = fleet.sql().await;
    let registered = sql.query_one("select count(*) from satellites", &[]).await.expect("rows");
    assert_eq!(registered.get::<_, i64>(0), 5 + i64::from(ATTACKERS / 2));
    const STRANGERS: &str = "select count(*) from entity_transitions
                              where entity_id not in (select id from satellites)";
    let strangers = sql.query_one(STRANGERS, &[]).await.expect("rows");
    assert_eq!(strangers.get::<_, i64>(0), 0, "somebody who never authenticated left a row");
    const EDGES: &str = "select count(*) from entity_transitions
                          where event not in ('connected', 'disconnected')";
    let other = sql.query_one(EDGES, &[]).await.expect("rows");
    assert_eq!(other.get::<_, i64>(0), 0);
    fleet.check().await;
}
