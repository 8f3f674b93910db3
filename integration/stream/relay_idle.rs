//! The stream loses messages while nothing happens: the relay notices by itself and mends it, also when an edge
//! follows right after the loss.

use std::fs;

use async_nats::jetstream;

use crate::harness::relaying::{
    copy_kept, expect_checkpoint, expect_relay, older_copy_back, with_nats_stopped,
};
use crate::harness::{CALM, Credentials, Fleet, Pod};
use crate::stream::audit::{STREAM, audit, connect_times};

/// A pod that relays, and a satellite that has connected this often, all of it on the stream and in
/// the checkpoint.
async fn relayed(fleet: &Fleet, times: i64) -> (Pod, Credentials) {
    let pod = fleet.pod("a").await;
    expect_relay(&pod, "leading").await;
    let credentials = pod.register("edge", "eu").await;
    connect_times(&pod, &credentials, times as usize).await;
    fleet.check().await;
    expect_checkpoint(fleet, times).await;
    (pod, credentials)
}

#[tokio::test]
async fn an_older_copy_of_the_store_gets_what_it_lacks_without_an_edge() {
    let fleet = Fleet::with_own_nats(CALM).await;
    let (pod, credentials) = relayed(&fleet, 4).await;
    let fleet = copy_kept(fleet).await;
    connect_times(&pod, &credentials, 4).await;
    fleet.check().await;
    let fleet = older_copy_back(fleet).await;
    fleet.check().await;
    assert_eq!(fleet.log_length().await, 8);
}

#[tokio::test]
async fn an_empty_store_gets_the_whole_log_without_an_edge() {
    let fleet = Fleet::with_own_nats(CALM).await;
    let (_pod, _) = relayed(&fleet, 6).await;
    let fleet = with_nats_stopped(fleet, |streams| fs::remove_dir_all(streams).unwrap()).await;
    fleet.check().await;
    assert_eq!(fleet.log_length().await, 6);
}

#[tokio::test]
async fn a_stream_that_was_purged_gets_the_whole_log_again_without_an_edge() {
    let fleet = Fleet::new(CALM).await;
    let (pod, credentials) = relayed(&fleet, 6).await;
    let stream = jetstream::new(fleet.nats().await).get_stream(STREAM).await.expect("the stream");
    stream.purge().await.expect("purged");
    fleet.check().await;
    expect_checkpoint(&fleet, 6).await;
    stream.purge().await.expect("purged");
    connect_times(&pod, &credentials, 1).await;
    fleet.check().await;
    assert_eq!(fleet.log_length().await, 7);
}

#[tokio::test]
async fn a_stream_that_was_deleted_is_made_again_without_an_edge() {
    let fleet = Fleet::new(CALM).await;
    let (_pod, _) = relayed(&fleet, 6).await;
    jetstream::new(fleet.nats().await).delete_stream(STREAM).await.expect("deleted");
    fleet.check().await;
    assert_eq!(fleet.log_length().await, 6);
}

async fn delete_newest(fleet: &Fleet, count: u64) {
    let stream = jetstream::new(fleet.nats().await).get_stream(STREAM).await.expect("the stream");
    let last = stream.get_info().await.expect("its state").state.last_sequence;
    for sequence in last - count + 1..=last {
        stream.delete_message(sequence).await.expect("deleted");
    }
}

#[tokio::test]
async fn the_newest_messages_deleted_are_published_again_without_an_edge() {
    let fleet = Fleet::new(CALM).await;
    let (pod, _) = relayed(&fleet, 8).await;
    delete_newest(&fleet, 5).await;
    fleet.check().await;
    assert_eq!(pod.metric("groundstation_stream_disagreements_total{kind=\"behind\"}").await, 1.0);
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok, "{ended:?}");
}

#[tokio::test]
async fn the_newest_messages_deleted_are_published_again_before_the_next_edge() {
    let fleet = Fleet::new(CALM).await;
    let (pod, credentials) = relayed(&fleet, 8).await;
    delete_newest(&fleet, 5).await;
    connect_times(&pod, &credentials, 1).await;
    fleet.check().await;
    assert_eq!(fleet.log_length().await, 9);
}
