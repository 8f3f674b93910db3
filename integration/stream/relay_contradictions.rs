//! Stream and log disagree: the relay mends what it can without doubling anything, and halts where going on would
//! make it worse.

use std::fs;

use async_nats::HeaderMap;
use async_nats::jetstream;

use crate::harness::log_and_stream::{StreamMessage, read_stream};
use crate::harness::relaying::{
    copy_kept, expect_checkpoint, older_copy_back, relay_state, with_nats_stopped,
};
use crate::harness::{CALM, Credentials, Fleet, Pod, eventually};
use crate::stream::audit::{STREAM, audit, connect_times, forgetful_stream, store};

/// A pod and a satellite that has connected this often, all of it on the stream.
async fn published(fleet: &Fleet, times: usize) -> (Pod, Credentials) {
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    connect_times(&pod, &credentials, times).await;
    fleet.check().await;
    (pod, credentials)
}

#[tokio::test]
async fn a_wiped_store_gets_the_whole_log_again() {
    let fleet = Fleet::with_own_nats(CALM).await;
    let (pod, credentials) = published(&fleet, 6).await;
    let fleet = with_nats_stopped(fleet, |streams| fs::remove_dir_all(streams).unwrap()).await;
    connect_times(&pod, &credentials, 2).await;
    assert_eq!(fleet.log_length().await, 8);
    fleet.check().await;
}

#[tokio::test]
async fn an_older_copy_of_the_store_gets_what_it_lacks() {
    let fleet = Fleet::with_own_nats(CALM).await;
    let (pod, credentials) = published(&fleet, 4).await;
    let fleet = copy_kept(fleet).await;
    connect_times(&pod, &credentials, 4).await;
    fleet.check().await;
    let fleet = older_copy_back(fleet).await;
    connect_times(&pod, &credentials, 1).await;
    assert_eq!(fleet.log_length().await, 9);
    fleet.check().await;
}

/// There are more foreign messages than there were of ours: the sequence that the relay remembers exists again, and
/// is not ours.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_new_stream_that_somebody_else_filled_first_gets_the_whole_log() {
    let fleet = Fleet::new(CALM).await;
    let (mut pod, credentials) = published(&fleet, 3).await;
    pod.terminate();
    pod.exit().await;
    let jetstream = jetstream::new(fleet.nats().await);
    jetstream.delete_stream(STREAM).await.expect("the stream goes");
    forgetful_stream(&fleet, -1).await;
    for _ in 0..10 {
        store(&jetstream, "satellite.connected", &HeaderMap::new(), b"{}").await;
    }
    let pod = fleet.pod("b").await;
    connect_times(&pod, &credentials, 1).await;
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok && ended.out.contains("agree on 4 transitions"), "{ended:?}");
}

#[tokio::test]
async fn a_message_deleted_from_the_middle_is_named_and_the_rest_flows_on() {
    let fleet = Fleet::new(CALM).await;
    let (mut pod, credentials) = published(&fleet, 6).await;
    // After the checkpoint it would be a hole.
    expect_checkpoint(&fleet, 6).await;
    let jetstream = jetstream::new(fleet.nats().await);
    let stream = jetstream.get_stream(STREAM).await.expect("the stream");
    stream.delete_message(2).await.expect("deleted");
    connect_times(&pod, &credentials, 2).await;
    let ended = audit(&fleet, &[]).await;
    assert_eq!(ended.faults(), ["missing    position 2"], "{ended:?}");
    pod.kill();
    let pod = fleet.pod("b").await;
    connect_times(&pod, &credentials, 1).await;
    let ended = audit(&fleet, &[]).await;
    assert_eq!(ended.faults(), ["missing    position 2"], "{ended:?}");
}

/// The checkpoint of a pod that died lags.
async fn set_checkpoint(fleet: &Fleet, position: i64) {
    const SET: &str = "update relay set position = $1, stream_sequence = $1";
    fleet.sql().await.execute(SET, &[&position]).await.expect("the relay's row");
}

#[tokio::test]
async fn a_position_missing_between_the_checkpoint_and_the_tail_halts_the_relay_until_a_repair() {
    let fleet = Fleet::new(CALM).await;
    let (mut pod, credentials) = published(&fleet, 6).await;
    pod.terminate();
    pod.exit().await;
    set_checkpoint(&fleet, 2).await;
    let jetstream = jetstream::new(fleet.nats().await);
    let stream = jetstream.get_stream(STREAM).await.expect("the stream");
    for sequence in [4, 5] {
        stream.delete_message(sequence).await.expect("deleted");
    }
    let pod = fleet.pod("b").await;
    let reason = expect_halted(&pod).await;
    assert!(reason.contains("lacks positions 4 to 5"), "{reason}");
    assert!(reason.contains("groundstation audit --repair"), "{reason}");
    assert_eq!(pod.metric("groundstation_relay_halted").await, 1.0);
    assert_eq!(pod.expect_log("the relay has halted").await["level"], "ERROR");
    connect_times(&pod, &credentials, 1).await;
    assert_eq!(read_stream(&fleet.nats().await).await.len(), 4, "nothing was touched");
    let ended = audit(&fleet, &["--wait", "10ms", "--repair", "--yes"]).await;
    assert!(ended.is_ok, "{ended:?}");
    connect_times(&pod, &credentials, 1).await;
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok && ended.out.contains("agree on 8 transitions"), "{ended:?}");
}

/// Limits removed messages that the checkpoint does not know: nothing is missing that was not removed.
#[tokio::test]
async fn what_limits_removed_behind_the_checkpoint_is_no_hole() {
    let fleet = Fleet::new(CALM).await;
    forgetful_stream(&fleet, 3).await;
    let pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    connect_times(&pod, &credentials, 8).await;
    expect_checkpoint(&fleet, 8).await;
    drop(pod);
    set_checkpoint(&fleet, 2).await;
    let pod = fleet.pod("b").await;
    connect_times(&pod, &credentials, 1).await;
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok && ended.out.contains("agree on 3 transitions"), "{ended:?}");
}

/// It is unknown whether the messages that the limits removed were ours. What comes after the checkpoint is
/// published, perhaps twice, rather than lost.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_limited_stream_that_was_emptied_gets_what_is_behind_a_lagging_checkpoint() {
    let fleet = Fleet::new(CALM).await;
    let stream = forgetful_stream(&fleet, 100).await;
    let (mut pod, credentials) = published(&fleet, 6).await;
    pod.terminate();
    pod.exit().await;
    set_checkpoint(&fleet, 4).await;
    stream.purge().await.expect("emptied");
    let pod = fleet.pod("b").await;
    connect_times(&pod, &credentials, 1).await;
    let nats = fleet.nats().await;
    let positions = eventually("three messages", async || {
        let position = |message: &StreamMessage| message.headers["Groundstation-Position"].clone();
        let found: Vec<String> = read_stream(&nats).await.iter().map(position).collect();
        if found.len() == 3 { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await;
    assert_eq!(positions, ["5", "6", "7"]);
}

#[tokio::test]
async fn the_newest_messages_deleted_are_published_again_in_order() {
    let fleet = Fleet::new(CALM).await;
    let stream = forgetful_stream(&fleet, -1).await;
    let (mut pod, credentials) = published(&fleet, 6).await;
    pod.terminate();
    pod.exit().await;
    for sequence in [5, 6] {
        stream.delete_message(sequence).await.expect("deleted");
    }
    let pod = fleet.pod("b").await;
    connect_times(&pod, &credentials, 1).await;
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok && ended.out.contains("agree on 7 transitions"), "{ended:?}");
}

/// A mirror or a faulty replay: our own message again, headers included.
#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_copy_of_an_old_message_of_ours_does_not_make_the_relay_go_back() {
    let fleet = Fleet::new(CALM).await;
    let stream = forgetful_stream(&fleet, -1).await;
    let (mut pod, credentials) = published(&fleet, 6).await;
    let jetstream = jetstream::new(fleet.nats().await);
    let old = stream.get_raw_message(2).await.expect("a message");
    let mut headers = HeaderMap::new();
    for name in ["Nats-Msg-Id", "Groundstation-Position"] {
        headers.insert(name, old.headers.get(name).expect("ours").clone());
    }
    store(&jetstream, &old.subject, &headers, &old.payload).await;
    connect_times(&pod, &credentials, 1).await;
    pod.expect_metric("groundstation_relay_foreign_messages_total", 1.0).await;
    let twice = "extra      position 2 at sequence 7: a second time";
    let ended = audit(&fleet, &[]).await;
    assert_eq!(ended.faults(), [twice], "{ended:?}");
    // The same for a relay that starts with the copy at the stream's end.
    pod.terminate();
    pod.exit().await;
    store(&jetstream, &old.subject, &headers, &old.payload).await;
    let pod = fleet.pod("b").await;
    connect_times(&pod, &credentials, 1).await;
    let ended = audit(&fleet, &[]).await;
    assert_eq!(ended.faults(), [twice, &twice.replace('7', "9")], "{ended:?}");
}

/// A copy of the database as it is now, to restore later.
struct Backup {
    postgres: tokio_postgres::Client,
    name: String,
}

impl Backup {
    async fn take(fleet: &Fleet) -> Backup {
        let (server, name) = fleet.database_url.rsplit_once('/').expect("a database");
        let url = format!("{server}/postgres");
        let (postgres, connection) =
            tokio_postgres::connect(&url, tokio_postgres::NoTls).await.expect("Postgres");
        tokio::spawn(connection);
        // A database can be copied only while nothing is connected to it, and pods reconnect at once.
        let change = async |change: String| {
            postgres
                .batch_execute(&change)
                .await
                .unwrap_or_else(|error| panic!("{change}: {error}"));
        };
        const SEVER: &str =
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1";
        change(format!("alter database {name} allow_connections false")).await;
        postgres.execute(SEVER, &[&name]).await.expect("connections end");
        change(format!("create database {name}_copy template {name}")).await;
        change(format!("alter database {name} allow_connections true")).await;
        Backup { name: name.to_owned(), postgres }
    }

    async fn restore(&self) {
        let name = &self.name;
        let drop = format!("drop database {name} with (force)");
        self.postgres.batch_execute(&drop).await.expect("dropped");
        let rename = format!("alter database {name}_copy rename to {name}");
        self.postgres.batch_execute(&rename).await.expect("renamed");
    }
}

async fn expect_halted(pod: &Pod) -> String {
    eventually("the relay to halt", async || {
        let relay = relay_state(pod).await;
        match relay["state"].as_str() {
            Some("halted") => Ok(relay["reason"].as_str().expect("a reason").to_owned()),
            _ => Err(relay.to_string()),
        }
    })
    .await
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_database_restored_under_a_running_pod_ends_it_and_halts_the_next_until_a_repair() {
    let fleet = Fleet::new(CALM).await;
    let (mut pod, credentials) = published(&fleet, 4).await;
    let backup = Backup::take(&fleet).await;
    connect_times(&pod, &credentials, 4).await;
    let nats = fleet.nats().await;
    eventually("eight messages", async || match read_stream(&nats).await.len() {
        8 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    // The relay cannot miss what it never saw: it looks twice a second.
    pod.sweeps(12).await;
    let stream_before = read_stream(&nats).await;
    backup.restore().await;
    // The pod remembers what is no longer there, and ends instead of going on.
    let status = pod.exit().await;
    assert_ne!(status.code(), Some(0), "{}", pod.log());
    assert!(pod.log().contains("the database went back to an earlier point"), "{}", pod.log());
    let pod = fleet.pod("b").await;
    // As many new edges as were lost, and one more: a relay that noticed nothing would publish that one.
    let new = pod.register("new", "eu").await;
    connect_times(&pod, &new, 5).await;
    let reason = expect_halted(&pod).await;
    assert!(reason.contains("restored"), "{reason}");
    assert_eq!(pod.metric("groundstation_relay_halted").await, 1.0);
    assert_eq!(pod.get("/readyz").await.status, 200, "ready without its relay");
    assert_eq!(pod.expect_log("the relay has halted").await["level"], "ERROR");
    assert_eq!(read_stream(&nats).await, stream_before, "nothing was touched");

    let ended = audit(&fleet, &["--wait", "10ms"]).await;
    assert!(!ended.is_ok, "{ended:?}");
    let ended = audit(&fleet, &["--wait", "10ms", "--repair", "--yes"]).await;
    assert!(ended.is_ok && ended.out.contains("restored to an earlier point"), "{ended:?}");
    let new = pod.register("after", "eu").await;
    connect_times(&pod, &new, 1).await;
    let ended = audit(&fleet, &[]).await;
    assert!(ended.is_ok && ended.out.contains("agree on 10 transitions"), "{ended:?}");
    eventually("the pod to relay again", async || {
        let relay = relay_state(&pod).await;
        if relay["state"] == "leading" { Ok(()) } else { Err(relay.to_string()) }
    })
    .await;
    assert_eq!(pod.metric("groundstation_relay_halted").await, 0.0);
}

#[tokio::test]
#[ignore = "long: `make test-faults` runs it"]
async fn a_database_from_before_a_repair_halts_the_relay() {
    let fleet = Fleet::new(CALM).await;
    let (mut pod, credentials) = published(&fleet, 4).await;
    // The positions that the repair publishes again are not new to the copy.
    expect_checkpoint(&fleet, 4).await;
    let backup = Backup::take(&fleet).await;
    let jetstream = jetstream::new(fleet.nats().await);
    let stream = jetstream.get_stream(STREAM).await.expect("the stream");
    stream.delete_message(2).await.expect("deleted");
    let ended = audit(&fleet, &["--repair", "--yes"]).await;
    assert!(ended.is_ok, "{ended:?}");
    pod.kill();
    backup.restore().await;
    let pod = fleet.pod("b").await;
    let reason = expect_halted(&pod).await;
    assert!(reason.contains("is of epoch 2, the database knows only 1"), "{reason}");
    let ended = audit(&fleet, &["--wait", "10ms", "--repair", "--yes"]).await;
    assert!(ended.is_ok && ended.out.contains("Groundstation-Epoch: 3"), "{ended:?}");
    connect_times(&pod, &credentials, 1).await;
    assert!(audit(&fleet, &[]).await.is_ok);
}
