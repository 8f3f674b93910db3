//! The speed of the two stores without Groundstation.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, context::PublishAckFuture, message::PublishMessage};
use futures_util::StreamExt;
use groundstation::stream::tail;

use crate::cpu;
use crate::stores::Stores;

/// Rows in one bare INSERT: the most that an append takes.
const BATCH: usize = 1_000;
/// Bare publishes in flight: as many as the relay has.
const IN_FLIGHT: usize = 1_000;

/// The speed and the cost of a store alone.
pub struct Bare {
    /// Operations a second.
    pub rate: f64,
    /// Seconds of CPU for each operation, of all processes.
    pub cpu: f64,
}

/// Rows a second when the log's newest `rows` are appended to a table like it, a thousand a commit,
/// by pgbench with one connection.
pub fn appends(stores: &Stores, rows: usize) -> Bare {
    let mut sql = stores.sql();
    sql.batch_execute(
        "drop table if exists bare; create table bare (like entity_transitions including all);
         drop sequence if exists bare_batches; create sequence bare_batches minvalue 0",
    )
    .expect("a table");
    let head: i64 =
        sql.query_one("select max(position) from entity_transitions", &[]).unwrap().get(0);
    let before = head - rows as i64;
    let batch = BATCH.min(rows);
    let script = format!(
        "with batch as materialized (select {before} + {batch} * nextval('bare_batches') as start)
         insert into bare select t.* from batch, entity_transitions t
          where t.position > batch.start and t.position <= batch.start + {batch};\n"
    );
    let batches = rows / batch;
    let before = cpu::seconds();
    let tps = pgbench(stores, &script, &["-t", &batches.to_string()]);
    let used = cpu::seconds() - before;
    let inserted: i64 = sql.query_one("select count(*) from bare", &[]).unwrap().get(0);
    assert_eq!(inserted as usize, batches * batch);
    Bare { rate: tps * batch as f64, cpu: used / inserted as f64 }
}

/// Transactions a second.
fn pgbench(stores: &Stores, script: &str, arguments: &[&str]) -> f64 {
    let file = stores.folder.join("script.sql");
    std::fs::write(&file, script).expect("a script");
    let output = Command::new(find_pgbench(stores))
        .args(["-n", "-M", "prepared", "-c", "1", "-f"])
        .arg(&file)
        .args(arguments)
        .arg(stores.url())
        .output()
        .expect("pgbench");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let line = text.lines().rev().find_map(|line| line.strip_prefix("tps = ")).expect("tps");
    line.split_whitespace().next().expect("a number").parse().expect("a number")
}

/// Beside the server, after its links are followed, or on PATH.
fn find_pgbench(stores: &Stores) -> PathBuf {
    let named = stores.tools.postgres_bin.join("postgres");
    let beside = named.canonicalize().expect("a server").with_file_name("pgbench");
    [stores.tools.postgres_bin.join("pgbench"), beside]
        .into_iter()
        .find(|path| path.is_file())
        .unwrap_or_else(|| "pgbench".into())
}

/// Messages a second when the stream's newest `count` are published to another stream, pipelined
/// and without expectations.
pub async fn publishes(nats: &async_nats::Client, count: usize) -> Bare {
    let context = jetstream::context::ContextBuilder::new()
        .max_ack_inflight(IN_FLIGHT + 1)
        .build(nats.clone());
    let messages = newest(&context, count).await;
    let config = jetstream::stream::Config {
        name: "BARE".to_owned(),
        subjects: vec!["bare".to_owned()],
        ..Default::default()
    };
    context.delete_stream("BARE").await.ok();
    context.create_stream(config).await.expect("stream");
    let mut in_flight: VecDeque<PublishAckFuture> = VecDeque::new();
    let (before, began) = (cpu::seconds(), Instant::now());
    for (headers, body) in messages {
        if in_flight.len() == IN_FLIGHT {
            in_flight.pop_front().expect("one").await.expect("ack");
        }
        let message = PublishMessage::build().headers(headers).payload(body);
        in_flight.push_back(context.send_publish("bare", message).await.expect("publish"));
    }
    for ack in in_flight {
        ack.await.expect("ack");
    }
    let took = began.elapsed().as_secs_f64();
    Bare { rate: count as f64 / took, cpu: (cpu::seconds() - before) / count as f64 }
}

async fn newest(context: &jetstream::Context, count: usize) -> Vec<(HeaderMap, bytes::Bytes)> {
    let stream = context.get_stream(tail::NAME).await.expect("the stream");
    let last = stream.cached_info().state.last_sequence;
    let start_sequence = last - count as u64 + 1;
    let consumer = stream
        .create_consumer(jetstream::consumer::pull::OrderedConfig {
            deliver_policy: jetstream::consumer::DeliverPolicy::ByStartSequence { start_sequence },
            ..Default::default()
        })
        .await
        .expect("a consumer");
    let messages = consumer.messages().await.expect("messages").take(count);
    messages
        .map(|message| {
            let message = message.expect("a message");
            // All headers but the relay's expectations.
            let is_expected = |name: &str| name.starts_with("Nats-Expected-");
            let headers = message.headers.iter().flat_map(|headers| headers.iter());
            let mut kept = HeaderMap::new();
            for (name, values) in headers.filter(|(name, _)| !is_expected(name.as_ref())) {
                for value in values {
                    kept.append(name.clone(), value.clone());
                }
            }
            (kept, message.payload.clone())
        })
        .collect()
        .await
}
