//! One satellite's results take no other's place: not in a pod's buffer while NATS is away, and not by reconnecting.

use serde_json::{Value, json};

use crate::harness::wait::{blocking, within};
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite, eventually};

fn assignment() -> Value {
    json!({"configId": "c", "systemId": "s", "strategyId": "http", "config": {}, "intervalSeconds": 60})
}

fn result(n: usize, bytes: usize) -> Value {
    json!({"type": "result", "configId": "c", "systemId": "s", "status": "healthy", "latencyMs": n,
           "result": {"body": "x".repeat(bytes)}, "executedAt": "2026-03-01T12:00:00Z"})
}

async fn assigned(pod: &Pod, name: &str) -> Credentials {
    let who = pod.register(name, "eu").await;
    pod.assign(who.id, &json!([assignment()])).await;
    who
}

/// How many results a pod has counted with this outcome.
async fn count(pod: &Pod, outcome: &str) -> f64 {
    pod.metric(&format!("groundstation_results_total{{outcome=\"{outcome}\"}}")).await
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn while_nats_is_away_one_satellite_pushes_nobody_elses_results_out() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let pod = fleet.pod("a").await;
    let (small, greedy) = (assigned(&pod, "small").await, assigned(&pod, "greedy").await);
    fleet.own_nats().kill();
    pod.expect_log("NATS").await;
    let (quiet, _) = Satellite::welcomed(pod.address, &small).await;
    for n in 0..20 {
        quiet.send(&result(n, 100));
    }
    within(crate::harness::wait::PATIENCE, "the small ones to wait", async || {
        let waiting = pod.metric("groundstation_results_waiting").await;
        if waiting >= 20.0 { Ok(()) } else { Err(waiting.to_string()) }
    })
    .await;
    // 90 MiB over new connections, each within what a socket may send at once.
    let mut held = Vec::new();
    for _ in 0..4 {
        let (loud, _) = Satellite::welcomed(pod.address, &greedy).await;
        for n in 0..390 {
            loud.send(&result(n, 60_000));
        }
        loud.expect_sent().await;
        held.push(loud);
    }
    let greedy_dropped =
        async || count(&pod, "overflowed").await + count(&pod, "over_budget").await;
    within(std::time::Duration::from_secs(90), "the greedy ones to be dropped", async || {
        let dropped = greedy_dropped().await;
        if dropped > 0.0 || pod.metric("groundstation_results_waiting").await > 450.0 {
            Ok(())
        } else {
            Err(dropped.to_string())
        }
    })
    .await;
    let fleet = blocking(move || {
        fleet.own_nats().restart().expect("NATS restarts");
        fleet
    })
    .await;
    let jetstream = async_nats::jetstream::new(fleet.nats().await);
    within(std::time::Duration::from_secs(60), "all of the small ones on the stream", async || {
        let stream = jetstream.get_stream("SATELLITE_RESULTS").await.map_err(|e| e.to_string())?;
        let state = stream.cached_info().state.clone();
        let mut found = 0;
        for sequence in state.first_sequence..=state.last_sequence {
            let message = stream.get_raw_message(sequence).await.map_err(|e| e.to_string())?;
            let body: Value = serde_json::from_slice(&message.payload).expect("JSON");
            found += u32::from(body["sourceId"] == small.id.to_string());
        }
        if found == 20 { Ok(()) } else { Err(format!("{found} of 20")) }
    })
    .await;
}

#[tokio::test]
async fn what_a_satellite_may_report_is_not_refilled_by_coming_back() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.plan("a").with("GROUNDSTATION_RESULT_BURST", "1000000");
    let pod = pod.with("GROUNDSTATION_RESULT_RATE", "10000").start().await;
    let who = assigned(&pod, "greedy").await;
    let begun = std::time::Instant::now();
    let mut delivered = 0.0;
    for nth in 0..6 {
        let (satellite, _) = Satellite::welcomed(pod.address, &who).await;
        for n in 0..40 {
            satellite.send(&result(n, 50_000));
        }
        satellite.expect_sent().await;
        if nth == 0 {
            eventually("its share to be delivered", async || {
                match count(&pod, "delivered").await {
                    15.0.. => Ok(()),
                    delivered => Err(delivered.to_string()),
                }
            })
            .await;
        }
        // Long enough to deliver more than its share, if more were accepted.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        delivered = count(&pod, "delivered").await;
        satellite.vanish();
    }
    // A megabyte at once, ten kilobytes a second, and what one connection may be ahead.
    let allowed = (1_000_000.0 + 10_000.0 * begun.elapsed().as_secs_f64()) / 50_000.0 + 6.0;
    assert!(delivered <= allowed, "{delivered} results of {allowed}");
}
