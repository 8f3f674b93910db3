//! How late a satellite that falls silent is on NATS as lost, by how much beyond its threshold: while its pod lives and
//! where that dies with it, each with a pod that vouches and with one that writes every heartbeat.
//!
//! Real pods, real sockets, the agent of `groundstation simulate`; all four pods share one database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use groundstation::clients::agent::{self, Happening, Identity, Order};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout_at};
use uuid::Uuid;

use crate::Scale;
use crate::pod::{Pod, percentile};
use crate::stores::{Stores, TOKEN};
use crate::table::{self, compared, note, seconds};

/// Whether a pod vouches, and whether it dies.
const PODS: [(bool, bool); 4] = [(true, false), (false, false), (true, true), (false, true)];

/// Settings of the pods.
struct Times {
    interval: Duration,
    threshold: Duration,
    sweep: Duration,
}

/// When each satellite was heard last, until `is_over`: what is sent to a dead pod is not heard.
#[derive(Default)]
struct Heard {
    last: HashMap<Uuid, Instant>,
    is_over: bool,
}

pub fn measure(scale: Scale) {
    let times = scale.choose(
        Times {
            interval: Duration::from_secs(15),
            threshold: Duration::from_secs(45),
            sweep: Duration::from_secs(1),
        },
        Times {
            interval: Duration::from_millis(300),
            threshold: Duration::from_secs(1),
            sweep: Duration::from_millis(200),
        },
    );
    let each = scale.choose(1_000, 10);
    let stores = Stores::start();
    let mut pods: Vec<Option<Pod>> = Vec::new();
    for (vouches, dies) in PODS {
        let name = format!("{vouches}-{dies}");
        pods.push(Some(start(&stores, &name, vouches, &times)));
    }
    let ids = stores.register(PODS.len() * each);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let late = runtime.block_on(losses(&stores, &mut pods, &ids, each, &times));

    let (window, sweep) = (times.interval * 4 / 3, times.sweep);
    table::section(&format!(
        "{each} silent satellites, from their threshold to NATS; bare: a pod that writes every heartbeat"
    ));
    let [mut alive, mut alive_bare, mut dead, mut dead_bare] = late;
    let slack = Duration::from_millis(200);
    let aim = |aim: Duration| format!("{aim:?}");
    for (what, ours, bare, aim) in [
        ("their pod lives", &mut alive, &mut alive_bare, aim(sweep + slack)),
        ("their pod died", &mut dead, &mut dead_bare, aim(window + sweep + slack)),
    ] {
        for (name, part, aim) in [("p50", 0.5, ""), ("p99", 0.99, aim.as_str())] {
            let (ours, bare) = (percentile(ours, part), percentile(bare, part));
            compared(&format!("{what}, {name}"), seconds(ours), seconds(bare), ours / bare, aim);
        }
    }
    let found = [alive.len(), alive_bare.len(), dead.len(), dead_bare.len()];
    note(&format!("losses that came: {found:?}; a sweep each {sweep:?}, a window of {window:?}"));
}

/// No loss is held back: here all of a pod's satellites go silent together.
fn start(stores: &Stores, name: &str, vouches: bool, times: &Times) -> Pod {
    let [interval, threshold, sweep] =
        [times.interval, times.threshold, times.sweep].map(|time| format!("{time:?}"));
    let mut settings = vec![
        ("GROUNDSTATION_HEARTBEAT_INTERVAL", interval.as_str()),
        ("GROUNDSTATION_OFFLINE_THRESHOLD", threshold.as_str()),
        ("GROUNDSTATION_SWEEP_INTERVAL", sweep.as_str()),
        ("GROUNDSTATION_BROWN_OUT_FLOOR", "1000000"),
    ];
    if !vouches {
        settings.push(("GROUNDSTATION_VOUCH_WINDOW", "0"));
    }
    Pod::start_with(stores, name, &settings).0
}

/// By how many seconds each loss came later than its satellite's threshold, by pod.
async fn losses(
    stores: &Stores,
    pods: &mut [Option<Pod>],
    ids: &[Uuid],
    each: usize,
    times: &Times,
) -> [Vec<f64>; 4] {
    let heard: Vec<Arc<Mutex<Heard>>> = PODS.iter().map(|_| Arc::default()).collect();
    let mut orders = Vec::new();
    // Their heartbeats are spread over an interval, as in the field.
    let pause = times.interval / each as u32;
    for n in 0..each {
        for (pod, ids) in ids.chunks(each).enumerate() {
            let address = pods[pod].as_ref().expect("a pod").address;
            let url = format!("ws://{address}/api/ws/satellite");
            let (order, told) = mpsc::channel(1);
            tokio::spawn(satellite(url, ids[n], times.interval, told, heard[pod].clone()));
            orders.push((pod, order));
        }
        sleep(pause).await;
    }
    // Each has sent two heartbeats by then, and where its pod vouches, it does for this one.
    sleep(times.interval * 5 / 2).await;
    let nats = stores.nats().await;
    let mut lost = nats.subscribe("satellite.heartbeat_lost").await.expect("subscribed");
    nats.flush().await.expect("flushed");
    for (_, order) in orders.iter().filter(|(pod, _)| !PODS[*pod].1) {
        order.send(Order::FallSilent(Duration::from_secs(3_600))).await.expect("an order");
    }
    for (pod, _) in PODS.iter().enumerate().filter(|(_, (_, dies))| *dies) {
        heard[pod].lock().expect("lock").is_over = true;
        pods[pod] = None;
    }
    // A window, and a minute for a machine that has other things to do.
    let until = tokio::time::Instant::now() + times.threshold + times.interval * 2;
    let until = until + Duration::from_secs(60);
    let mut late = [const { Vec::new() }; PODS.len()];
    while late.iter().any(|late: &Vec<f64>| late.len() < each)
        && let Ok(message) = timeout_at(until, lost.next()).await
    {
        let at = Instant::now();
        let body: Value =
            serde_json::from_slice(&message.expect("a message").payload).expect("JSON");
        let id: Uuid = body["satelliteId"].as_str().expect("an id").parse().expect("a UUID");
        for (late, heard) in late.iter_mut().zip(&heard) {
            if let Some(last) = heard.lock().expect("lock").last.remove(&id) {
                let silence = at.saturating_duration_since(last);
                late.push(silence.as_secs_f64() - times.threshold.as_secs_f64());
            }
        }
    }
    late
}

async fn satellite(
    url: String,
    id: Uuid,
    heartbeat_interval: Duration,
    orders: mpsc::Receiver<Order>,
    heard: Arc<Mutex<Heard>>,
) {
    let identity = Identity {
        url,
        id,
        token: TOKEN.to_owned().into(),
        heartbeat_interval,
        longest_pause: agent::LONGEST_PAUSE,
        capabilities: Vec::new(),
        from: None,
    };
    let tell = |happening| {
        let mut heard = heard.lock().expect("lock");
        if happening == Happening::Heartbeat && !heard.is_over {
            heard.last.insert(id, Instant::now());
        }
    };
    agent::run(identity, orders, tell).await;
}
