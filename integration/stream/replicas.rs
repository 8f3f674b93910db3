//! The streams that pods make are on as many servers as the cluster has.

use async_nats::jetstream::{self, stream::Config};

use crate::harness::cluster::{Cluster, LONG, Version};
use crate::harness::relaying::{STREAM, expect_relay};
use crate::harness::{CALM, Fleet, Pod, Satellite, eventually, within};

const RESULTS: &str = "SATELLITE_RESULTS";
const TOLD: &str = "is on fewer servers than it should be";

async fn replicas(fleet: &Fleet, stream: &str) -> usize {
    let jetstream = jetstream::new(fleet.nats().await);
    within(LONG, &format!("the stream {stream}"), async || {
        let stream = jetstream.get_stream(stream).await.map_err(|error| error.to_string())?;
        Ok(stream.cached_info().config.num_replicas)
    })
    .await
}

async fn expect_counted(pod: &Pod, stream: &str, replicas: usize) {
    let metric = format!("groundstation_stream_replicas{{stream=\"{stream}\"}}");
    pod.expect_metric(&metric, replicas as f64).await;
    assert_eq!(pod.metric(&metric).await, replicas as f64);
}

#[tokio::test]
async fn a_pod_makes_its_streams_on_three_servers_and_leaves_an_operators_as_it_is() {
    let cluster = Cluster::start(Version::Newest).await;
    let fleet = cluster.fleet(CALM).await;
    let jetstream = jetstream::new(fleet.nats().await);
    let of_an_operator = Config {
        name: RESULTS.to_owned(),
        subjects: vec!["satellite.result".to_owned()],
        ..Config::default()
    };
    within(LONG, "the cluster to make a stream", async || {
        let made = jetstream.create_stream(of_an_operator.clone()).await;
        made.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let pod = fleet.pod("a").await;
    assert_eq!(replicas(&fleet, STREAM).await, 3);
    expect_counted(&pod, STREAM, 3).await;
    let told = pod.expect_log(TOLD).await;
    assert_eq!(told["level"], "WARN", "{told}");
    assert!(told["message"].as_str().is_some_and(|told| told.contains(RESULTS)), "{told}");
    expect_counted(&pod, RESULTS, 1).await;
    assert_eq!(replicas(&fleet, RESULTS).await, 1);
    assert_eq!(pod.told(TOLD), 1, "{}", pod.log());
    let credentials = pod.register("edge", "eu").await;
    let _satellite = Satellite::connect(pod.address, &credentials).await;
    fleet.check().await;
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn in_a_cluster_that_lacks_a_server_the_stream_is_made_on_the_others_and_this_is_told() {
    let cluster = Cluster::start_without_one(Version::V2_10).await;
    let fleet = cluster.fleet(CALM).await;
    let pod = fleet.pod("a").await;
    within(LONG, "the relay to lead", async || {
        let counted = format!("groundstation_stream_replicas{{stream=\"{STREAM}\"}}");
        if pod.metric(&counted).await == 2.0 { Ok(()) } else { Err(pod.log()) }
    })
    .await;
    assert_eq!(replicas(&fleet, STREAM).await, 2);
    pod.expect_log(TOLD).await;
    let credentials = pod.register("edge", "eu").await;
    let _satellite = Satellite::connect(pod.address, &credentials).await;
    fleet.check().await;
}

#[tokio::test]
async fn a_server_alone_keeps_its_streams_alone_unless_more_are_demanded() {
    let fleet = Fleet::with_own_nats(CALM).await;
    let demanding = fleet.plan("a").with("GROUNDSTATION_STREAM_REPLICAS", "3").start().await;
    let refused = "cannot create the stream SATELLITE_TRANSITIONS on 3 servers";
    eventually("the pod to say so", async || {
        if demanding.told(refused) > 0 { Ok(()) } else { Err(demanding.log()) }
    })
    .await;
    drop(demanding);
    let pod = fleet.pod("b").await;
    expect_relay(&pod, "leading").await;
    expect_counted(&pod, STREAM, 1).await;
    assert_eq!(pod.told(TOLD), 0, "{}", pod.log());
    drop(pod);
    let demanding = fleet.plan("c").with("GROUNDSTATION_STREAM_REPLICAS", "3").start().await;
    demanding.expect_log(TOLD).await;
    expect_counted(&demanding, STREAM, 1).await;
}
