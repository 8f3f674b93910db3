//! Backups of both stores by the steps of docs/operations.md, and stores made from them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use async_nats::jetstream;
use bytes::Bytes;
use futures_util::StreamExt;
use groundstation::dev::stores::Postgres;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_postgres::Client;

use super::relaying::STREAM;
use super::stores;
use super::wait::{PATIENCE, eventually};

/// The stream with its consumers, through the API that `nats stream backup` and `restore` use.
pub struct StreamBackup {
    config: Value,
    state: Value,
    chunks: Vec<Bytes>,
}

impl StreamBackup {
    /// Takes the backup while everything goes on.
    pub async fn take(nats: &async_nats::Client) -> StreamBackup {
        let inbox = nats.new_inbox();
        let mut told = nats.subscribe(inbox.clone()).await.expect("a subscription");
        let asked = json!({"deliver_subject": inbox, "chunk_size": 64 * 1024});
        let begun = ask(nats, format!("$JS.API.STREAM.SNAPSHOT.{STREAM}"), &asked).await;
        let (config, state) = (begun["config"].clone(), begun["state"].clone());
        let mut chunks = Vec::new();
        loop {
            let chunk = timeout(PATIENCE, told.next()).await.expect("a chunk in time");
            let chunk = chunk.expect("the subscription goes on");
            // The end of the backup.
            if chunk.payload.is_empty() {
                return StreamBackup { config, state, chunks };
            }
            if let Some(reply) = chunk.reply {
                nats.publish(reply, Bytes::new()).await.expect("acknowledged");
            }
            chunks.push(chunk.payload);
        }
    }

    /// The newest sequence that the backup holds.
    pub fn last_sequence(&self) -> u64 {
        self.state["last_seq"].as_u64().expect("a sequence")
    }

    /// Restores the stream in a server that has none.
    pub async fn restore(&self, nats: &async_nats::Client) {
        let asked = json!({"config": self.config, "state": self.state});
        let begun = ask(nats, format!("$JS.API.STREAM.RESTORE.{STREAM}"), &asked).await;
        let to = begun["deliver_subject"].as_str().expect("where the chunks go").to_owned();
        for chunk in &self.chunks {
            nats.request(to.clone(), chunk.clone()).await.expect("a chunk is taken");
        }
        let ended = nats.request(to, Bytes::new()).await.expect("the end is taken");
        let ended: Value = serde_json::from_slice(&ended.payload).expect("JSON");
        assert!(ended["error"].is_null(), "{ended}");
        let stream = jetstream::new(nats.clone()).get_stream(STREAM).await.expect("the stream");
        assert_eq!(stream.cached_info().state.last_sequence, self.last_sequence());
    }
}

async fn ask(nats: &async_nats::Client, subject: String, body: &Value) -> Value {
    let answer = nats.request(subject, body.to_string().into()).await.expect("JetStream answers");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
    assert!(answer["error"].is_null(), "{answer}");
    answer
}

/// A base backup of a Postgres and the WAL written after it.
pub struct PostgresBackup {
    folder: PathBuf,
    /// The URL of the database that was backed up.
    url: String,
    /// `pg_receivewal`, until it is told to end.
    receiver: Option<Child>,
}

impl PostgresBackup {
    /// Takes a base backup while everything goes on; receives the WAL from then on.
    pub async fn begin(url: &str) -> PostgresBackup {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(stores::random());
        let (wal, base) = (folder.join("wal"), folder.join("base"));
        fs::create_dir_all(&wal).expect("a folder");
        let receiver = stores::postgres_program("pg_receivewal")
            .args(["--dbname", url, "--synchronous", "--no-loop", "--directory"])
            .arg(&wal)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let receiver = Some(receiver.expect("pg_receivewal runs"));
        let backup = PostgresBackup { folder, url: url.to_owned(), receiver };
        backup.receives("what the base backup needs").await;
        let mut command = stores::postgres_program("pg_basebackup");
        command
            .args(["--dbname", url, "--checkpoint", "fast", "--wal-method", "stream", "--pgdata"])
            .arg(base);
        let taken = super::wait::blocking(move || command.output()).await;
        let taken = taken.expect("pg_basebackup runs");
        assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
        backup
    }

    /// Waits until everything that is committed now is received.
    pub async fn receives(&self, what: &str) {
        const RECEIVED: &str = "
            select coalesce(bool_or(flush_lsn >= $1::text::pg_lsn), false)
              from pg_stat_replication where application_name = 'pg_receivewal'";
        let sql = self.sql().await;
        let written = sql.query_one("select pg_current_wal_flush_lsn()::text", &[]).await;
        let written: String = written.expect("Postgres answers").get(0);
        eventually(&format!("{what} to be received"), async || {
            let received = sql.query_one(RECEIVED, &[&written]).await;
            if received.expect("Postgres answers").get(0) { Ok(()) } else { Err(written.clone()) }
        })
        .await;
    }

    /// Ends the receiver: WAL from now on is not in the backup.
    pub fn end(&mut self) {
        if let Some(mut receiver) = self.receiver.take() {
            receiver.kill().and_then(|()| receiver.wait()).expect("pg_receivewal ends");
        }
    }

    /// A fresh Postgres from the backup, and the URL of the database in it. Blocking.
    pub fn restore(&self) -> (Postgres, String) {
        stores::postgres_of(&self.folder.join("base"), &self.folder.join("wal"), &self.url)
    }

    async fn sql(&self) -> Client {
        let connected = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await;
        let (client, connection) = connected.expect("a connection to Postgres");
        tokio::spawn(connection);
        client
    }
}

impl Drop for PostgresBackup {
    fn drop(&mut self) {
        self.end();
        fs::remove_dir_all(&self.folder).ok();
    }
}
