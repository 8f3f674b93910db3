//! Where replayed transitions go: lines on a writer, or messages under a prefix.

use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, Event, Subscriber};
use futures_util::StreamExt;

use super::prefix::Prefix;
use crate::domain::cell::Cell;
use crate::log::Entry;
use crate::platform::nats::Address;
use crate::stream::message::{Content, Epoch};
use crate::stream::tail::NAME;

/// How long the server may take to receive everything it was sent.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(15);

/// The header that marks a replayed message.
pub const REPLAY_HEADER: &str = "Groundstation-Replay";

pub enum Sink {
    /// JSON lines.
    Lines(Lines),
    /// Messages.
    Messages(Box<Messages>),
}

impl Sink {
    /// Lines on this writer.
    pub fn lines(to: impl Write + Send + 'static) -> Sink {
        Sink::Lines(Lines { to: Box::new(to), waiting: Vec::new() })
    }

    /// Takes one transition. It has arrived after the next [`Sink::settle`].
    pub async fn put(&mut self, entry: &Entry) -> anyhow::Result<()> {
        match self {
            Sink::Lines(lines) => lines.put(entry),
            Sink::Messages(messages) => messages.put(entry).await,
        }
    }

    /// Waits until everything has arrived.
    pub async fn settle(&mut self) -> anyhow::Result<()> {
        match self {
            Sink::Lines(lines) => lines.settle(),
            Sink::Messages(messages) => messages.settle().await,
        }
    }

    /// Ends, after the last [`Sink::settle`].
    pub async fn finish(&mut self) -> anyhow::Result<()> {
        match self {
            Sink::Lines(_) => Ok(()),
            // The server reports a refusal before it answers, but the client passes the report on
            // beside the answers. One more answer makes sure that the report is here.
            Sink::Messages(messages) => messages.settle().await,
        }
    }
}

/// Whether the reader of the lines closed them, as in `replay | head`.
pub fn is_closed(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// JSON lines in the form of the API.
pub struct Lines {
    to: Box<dyn Write + Send>,
    /// At most a page.
    waiting: Vec<u8>,
}

impl Lines {
    fn put(&mut self, entry: &Entry) -> anyhow::Result<()> {
        serde_json::to_writer(&mut self.waiting, &entry.to_json())?;
        self.waiting.push(b'\n');
        Ok(())
    }

    /// Blocks while the other end does not read: there is nothing else to do meanwhile.
    fn settle(&mut self) -> anyhow::Result<()> {
        let written = self.to.write_all(&self.waiting).and_then(|()| self.to.flush());
        self.waiting.clear();
        written.context("cannot write")
    }
}

/// Messages as they were on the stream, under a prefix.
///
/// They carry their original headers, including the message id: if another stream takes the prefix,
/// a replay that runs again within that stream's duplicate window is stored once. They do not carry
/// the sequence to follow, which is the live stream's.
pub struct Messages {
    client: Client,
    prefix: Prefix,
    /// The cell that the messages name.
    cell: Option<Cell>,
    /// Messages to this subject come back, after all that were sent before them.
    echo: String,
    echoes: Subscriber,
    sent: u64,
    /// How often the client connected. A new connection means that messages on the old one may be
    /// lost.
    connects: u64,
    refused: Refusal,
}

/// The server's last complaint about our messages.
type Refusal = Arc<Mutex<Option<String>>>;

impl Messages {
    /// Connects, and makes sure that the live stream takes none of these messages.
    pub async fn connect(
        address: &Address,
        prefix: Prefix,
        cell: Option<Cell>,
    ) -> anyhow::Result<Messages> {
        let refused = Refusal::default();
        let note = refused.clone();
        let client = address
            .connect_with("groundstation replay", move |event| {
                if let Event::ServerError(error) = event {
                    *note.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                }
            })
            .await?;
        refuse_live(&client, &prefix).await?;
        let echo = client.new_inbox();
        let echoes = client.subscribe(echo.clone()).await.context("cannot subscribe")?;
        let connects = client.statistics().connects.load(Ordering::Relaxed);
        Ok(Messages { client, prefix, cell, echo, echoes, sent: 0, connects, refused })
    }

    async fn put(&mut self, entry: &Entry) -> anyhow::Result<()> {
        // A replay belongs to no epoch of the stream: its messages carry the headers of the first.
        let content = Content::of(entry, Epoch::FIRST, self.cell.as_ref()).with_context(|| {
            format!("position {} announces nothing this version knows", entry.position.0)
        })?;
        let Content { subject, mut headers, body } = content;
        headers.insert(REPLAY_HEADER, "true");
        let subject = self.prefix.subject(subject);
        let sent = self.client.publish_with_headers(subject, headers, body.into()).await;
        sent.context("cannot publish")
    }

    /// The server takes a connection's messages in order: when the last one comes back, the server
    /// has all. That holds for one connection, so a reconnect is a failure.
    async fn settle(&mut self) -> anyhow::Result<()> {
        self.sent += 1;
        let number = self.sent.to_string();
        let send = self.client.publish(self.echo.clone(), number.clone().into());
        send.await.context("cannot publish")?;
        let wait = async {
            while let Some(message) = self.echoes.next().await {
                if message.payload.as_ref() == number.as_bytes() {
                    return Ok(());
                }
            }
            bail!("the connection to NATS is closed")
        };
        match tokio::time::timeout(SETTLE_TIMEOUT, wait).await {
            Ok(back) => back?,
            Err(_) => bail!("no answer from NATS within {SETTLE_TIMEOUT:?}"),
        }
        if self.client.statistics().connects.load(Ordering::Relaxed) != self.connects {
            bail!("the connection to NATS was lost, and messages perhaps with it");
        }
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        refused.map_or(Ok(()), |error| bail!("NATS refuses: {error}"))
    }
}

/// An operator may have given the stream more subjects than it needs.
async fn refuse_live(client: &Client, prefix: &Prefix) -> anyhow::Result<()> {
    let stream = match jetstream::new(client.clone()).get_stream(NAME).await {
        Ok(stream) => stream,
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(error) if has_no_stream(error.error_code()) => {
                return Ok(());
            }
            _ => bail!("cannot make sure that the stream {NAME} does not take them: {error}"),
        },
    };
    match prefix.taken_by(&stream.cached_info().config.subjects) {
        Some(subject) => {
            bail!(
                "--prefix would make {subject}, which the live stream {NAME} takes: choose another"
            )
        }
        None => Ok(()),
    }
}

fn has_no_stream(code: ErrorCode) -> bool {
    [
        ErrorCode::STREAM_NOT_FOUND,
        ErrorCode::JETSTREAM_NOT_ENABLED,
        ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT,
    ]
    .contains(&code)
}
