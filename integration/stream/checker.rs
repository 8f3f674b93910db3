//! The comparison of log and stream that ends every test fails when it should: on a real stream with a deleted
//! message, with a doubled one, and with two swapped.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, stream::Stream};
use bytes::Bytes;

use crate::harness::log_and_stream::{differences, read_log, read_stream};
use crate::harness::relaying::{STREAM, come_and_go, forgetful_stream};
use crate::harness::wait::eventually;
use crate::harness::{CALM, Fleet};

/// A message as it is on the stream.
type Stored = (String, HeaderMap, Bytes);

/// A fleet whose pod has ended, with three connects and disconnects on its stream.
async fn quiet_fleet() -> (Fleet, Stream) {
    let fleet = Fleet::new(CALM).await;
    forgetful_stream(&fleet).await;
    let mut pod = fleet.pod("a").await;
    let credentials = pod.register("edge", "eu").await;
    for _ in 0..3 {
        come_and_go(&pod, &credentials).await;
    }
    eventually("six transitions", async || match fleet.log_length().await {
        6 => Ok(()),
        length => Err(length.to_string()),
    })
    .await;
    fleet.check().await;
    pod.kill();
    let stream = jetstream::new(fleet.nats().await).get_stream(STREAM).await.expect("a stream");
    (fleet, stream)
}

async fn found(fleet: &Fleet) -> Vec<String> {
    differences(&read_log(&fleet.sql().await).await, &read_stream(&fleet.nats().await).await)
}

/// Publishes messages again, unchanged except for what they expect of the stream.
async fn publish(fleet: &Fleet, messages: &[Stored]) {
    let jetstream = jetstream::new(fleet.nats().await);
    for (subject, headers, payload) in messages {
        let mut stored = HeaderMap::new();
        for (name, values) in headers.iter() {
            if !name.to_string().starts_with("Nats-Expected-") {
                stored.insert(name.clone(), values[0].clone());
            }
        }
        eventually("the stream to have forgotten the message id", async || {
            let sent = (subject.clone(), stored.clone(), payload.clone());
            let ack = jetstream.publish_with_headers(sent.0, sent.1, sent.2).await;
            let ack = ack.expect("published").await.expect("stored");
            if ack.duplicate { Err(format!("{ack:?}")) } else { Ok(()) }
        })
        .await;
    }
}

async fn stored(stream: &Stream, sequence: u64) -> Stored {
    let message = stream.get_raw_message(sequence).await.expect("a message");
    (message.subject.to_string(), message.headers, message.payload)
}

#[tokio::test]
async fn a_message_dropped_from_the_stream_is_found() {
    let (fleet, stream) = quiet_fleet().await;
    stream.delete_message(3).await.expect("deleted");
    let found = found(&fleet).await;
    assert!(found.iter().any(|line| line.starts_with("position 3:")), "{found:?}");
    assert!(found.contains(&"position 6: not on the stream".to_owned()), "{found:?}");
}

#[tokio::test]
async fn a_message_that_is_on_the_stream_twice_is_found() {
    let (fleet, stream) = quiet_fleet().await;
    publish(&fleet, &[stored(&stream, 6).await]).await;
    let found = found(&fleet).await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("beyond the log:"), "{found:?}");
}

#[tokio::test]
async fn two_messages_swapped_on_the_stream_are_found() {
    let (fleet, stream) = quiet_fleet().await;
    let (fifth, sixth) = (stored(&stream, 5).await, stored(&stream, 6).await);
    for sequence in [5, 6] {
        stream.delete_message(sequence).await.expect("deleted");
    }
    publish(&fleet, &[sixth.clone(), fifth.clone()]).await;
    let found = found(&fleet).await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("position 5:") && found[1].starts_with("position 6:"));
    // Back in order, the check passes: it was the order that was found.
    for sequence in [7, 8] {
        stream.delete_message(sequence).await.expect("deleted");
    }
    publish(&fleet, &[fifth, sixth]).await;
    assert_eq!(self::found(&fleet).await, Vec::<String>::new());
}
