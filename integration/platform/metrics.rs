//! `/metrics` follows Prometheus' rules in both of its forms, tells what an operator has to know, and
//! names no satellite.

use serde_json::json;

use crate::harness::exposition::{OPENMETRICS, TEXT, names, scrape};
use crate::harness::promtool::promtool;
use crate::harness::relaying::expect_relay;
use crate::harness::wait::{blocking, eventually};
use crate::harness::{CALM, Credentials, Fleet, Pod, Satellite};

/// A pod on which most of what is counted has happened, and a satellite it was about.
async fn busy(fleet: &Fleet) -> (Pod, Credentials) {
    let pod = fleet.pod("a").await;
    let credentials = pod.register("named-edge", "named-region").await;
    let satellite = Satellite::connect(pod.address, &credentials).await;
    satellite.send(&json!({"type": "nonsense"}));
    satellite.beat();
    pod.expect_metric("groundstation_dropped_messages_total{reason=\"unknown_type\"}", 1.0).await;
    satellite.close().await;
    pod.expect_metric("groundstation_relay_published_messages_total", 2.0).await;
    (pod, credentials)
}

#[tokio::test]
async fn promtool_finds_nothing_to_say_about_the_metrics_of_a_busy_pod() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _) = busy(&fleet).await;
    let (kind, text) = scrape(&pod, "text/plain;version=0.0.4").await;
    assert_eq!(kind, TEXT);
    let said = blocking(move || promtool(&["check", "metrics"], &text)).await;
    assert_eq!(said, Ok(String::new()));
}

#[tokio::test]
async fn what_an_operator_has_to_know_is_among_them() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _) = busy(&fleet).await;
    let (_, text) = scrape(&pod, TEXT).await;
    let there = names(&text);
    for what in [
        "sessions",
        "handshakes",
        "authentications_total",
        "edges_total",
        "append_batch_edges",
        "append_seconds",
        "heartbeats_received_total",
        "heartbeats_flushed_total",
        "sweep_seconds",
        "detection_delay_seconds",
        "relay_lag_positions",
        "relay_lag_seconds",
        "relay_leader",
        "stream_disagreements_total",
        "blind_seconds_total",
        "brown_out",
        "door_refusals_total",
        "dropped_messages_total",
        "database_connections_in_use",
        "database_connections_waiting",
        "database_connections_max",
        "nats_up",
        "database_up",
        "streams",
    ] {
        assert!(there.contains(&format!("groundstation_{what}")), "{what}");
    }
    let counted = "groundstation_edges_total{event=\"connected\",reason=\"connect\"} 1";
    assert!(text.contains(counted), "{text}");
}

#[tokio::test]
async fn openmetrics_says_the_same_to_whoever_accepts_it() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _) = busy(&fleet).await;
    let accept = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5";
    let (kind, open) = scrape(&pod, accept).await;
    assert_eq!(kind, OPENMETRICS);
    assert!(open.ends_with("\n# EOF\n") && open.matches("# EOF").count() == 1, "{open}");
    assert!(open.contains("# TYPE groundstation_edges counter\n"), "{open}");
    let (_, text) = scrape(&pod, "*/*").await;
    let samples = |text: &str| {
        let text: String =
            text.lines().filter(|line| !line.starts_with('#')).map(|l| format!("{l}\n")).collect();
        names(&text)
    };
    assert_eq!(samples(&open), samples(&text));
}

#[tokio::test]
async fn no_label_names_a_satellite() {
    let fleet = Fleet::new(CALM).await;
    let (pod, credentials) = busy(&fleet).await;
    let (_, text) = scrape(&pod, OPENMETRICS).await;
    for private in [credentials.id.to_string(), "named-edge".to_owned(), "named-region".to_owned()]
    {
        assert!(!text.contains(&private), "{private}: {text}");
    }
}

#[tokio::test]
async fn what_waits_for_the_stream_is_told_by_every_pod_in_positions_and_seconds() {
    let mut fleet = Fleet::with_own_nats(CALM).await;
    let (a, b) = (fleet.pod("a").await, fleet.pod("b").await);
    let credentials = a.register("edge", "eu").await;
    fleet.own_nats().stop();
    Satellite::connect(a.address, &credentials).await.close().await;
    for pod in [&a, &b] {
        pod.expect_metric("groundstation_relay_lag_positions", 2.0).await;
        pod.expect_metric("groundstation_relay_lag_seconds", 1.0).await;
        assert_eq!(pod.metric("groundstation_relay_lag_positions").await, 2.0);
        eventually("NATS to be away", async || match pod.metric("groundstation_nats_up").await {
            0.0 => Ok(()),
            up => Err(up.to_string()),
        })
        .await;
    }
    fleet.own_nats().restart().expect("NATS comes back");
    for pod in [&a, &b] {
        for lag in ["groundstation_relay_lag_positions", "groundstation_relay_lag_seconds"] {
            eventually("the stream to catch up", async || match pod.metric(lag).await {
                0.0 => Ok(()),
                lag => Err(lag.to_string()),
            })
            .await;
        }
    }
}

#[tokio::test]
async fn somebody_elses_message_is_counted_as_a_disagreement() {
    let fleet = Fleet::new(CALM).await;
    let pod = fleet.pod("a").await;
    expect_relay(&pod, "leading").await;
    const FOREIGN: &str = "groundstation_stream_disagreements_total{kind=\"foreign\"}";
    assert_eq!(pod.metric(FOREIGN).await, 0.0);
    let nats = fleet.nats().await;
    nats.publish("satellite.connected", "not ours".into()).await.expect("published");
    nats.flush().await.expect("NATS answers");
    let credentials = pod.register("edge", "eu").await;
    let _satellite = Satellite::connect(pod.address, &credentials).await;
    pod.expect_metric(FOREIGN, 1.0).await;
}

#[tokio::test]
async fn the_pools_size_and_waits_are_told() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _) = busy(&fleet).await;
    for (pool, connections) in [("writes", 8.0), ("reads", 6.0)] {
        let of_pool = |what: &str| format!("groundstation_database_{what}{{pool=\"{pool}\"}}");
        let max = of_pool("connections_max");
        pod.expect_metric(&max, connections).await;
        assert_eq!(pod.metric(&max).await, connections);
        pod.get("/v1/satellites").await;
        pod.expect_metric(&of_pool("connection_wait_seconds_count"), 1.0).await;
        let (_, text) = scrape(&pod, "*/*").await;
        assert!(text.contains(&format!("{} 0", of_pool("connection_failures_total"))), "{text}");
    }
}
