//! The WebSocket as the gateway uses it: bounded in what comes in, how often, and how long what goes
//! out may take. No extension is ever negotiated, so nothing is compressed.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite;
use tracing::debug;

use crate::door::bucket::Bucket;
use crate::door::refusal::Refusal;
use crate::door::settings::SocketLimits;
use crate::metrics::Metrics;

/// Allocated for every socket (axum's default is 128 KiB); a heartbeat has a hundred bytes, and a
/// larger message is read in pieces of this.
const READ_BUFFER_BYTES: usize = 1024;

/// How long a goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Close codes (RFC 6455, 7.4).
const PROTOCOL_ERROR: u16 = 1002;
const INVALID_DATA: u16 = 1007;
const POLICY_VIOLATION: u16 = 1008;
const TOO_BIG: u16 = 1009;

/// A bounded WebSocket. See the module.
pub struct Socket {
    /// Boxed, because futures keep what they are given more than once.
    inner: Box<WebSocket>,
    limits: SocketLimits,
    messages: Bucket,
    metrics: Metrics,
}

/// Why nothing more can be heard or said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The other side broke a rule: it is to be closed with this code.
    Violation(u16),
    /// The connection is gone, or as good as gone.
    Gone,
}

/// Answers an upgrade, and runs `session` with the socket.
pub fn upgrade<F>(
    upgrade: WebSocketUpgrade,
    limits: SocketLimits,
    metrics: Metrics,
    session: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    upgrade
        .max_message_size(limits.max_message_bytes)
        .max_frame_size(limits.max_frame_bytes)
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_write_buffer_size(limits.max_write_buffer_bytes)
        .on_failed_upgrade(|error| debug!(%error, "upgrade failed"))
        .on_upgrade(move |inner| {
            let messages = Bucket::full(limits.messages, Instant::now());
            session(Socket { inner: Box::new(inner), limits, messages, metrics })
        })
}

impl Socket {
    /// The next frame, of whatever kind, if it is not one too many; `None` when none will come.
    pub async fn recv(&mut self) -> Option<Result<Message, Broken>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The same, for whoever waits for other things too.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Broken>>> {
        self.inner.poll_next_unpin(cx).map(|message| self.admit(message?))
    }

    /// Writes `next`, or what is left of what was written before. Takes it when it is under way; ready
    /// when all of it is written. How long that may take is for the caller to see to.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        next: &mut Option<Message>,
    ) -> Poll<Result<(), Broken>> {
        let written = self.try_write(cx, next);
        written.map(|written| written.map_err(|error| self.broken(error)))
    }

    fn try_write(
        &mut self,
        cx: &mut Context<'_>,
        next: &mut Option<Message>,
    ) -> Poll<Result<(), axum::Error>> {
        if next.is_some() {
            ready!(self.inner.poll_ready_unpin(cx))?;
            if let Some(message) = next.take() {
                self.inner.start_send_unpin(message)?;
            }
        }
        self.inner.poll_flush_unpin(cx)
    }

    /// How long a message may take to be read.
    pub fn write_timeout(&self) -> Duration {
        self.limits.write_timeout
    }

    fn admit(&mut self, message: Result<Message, axum::Error>) -> Option<Result<Message, Broken>> {
        let message = match message {
            Ok(message) => message,
            Err(error) => return Some(Err(self.broken(error))),
        };
        if !self.messages.take(self.limits.messages, Instant::now()) {
            self.metrics.refused(Refusal::MessageRate);
            return Some(Err(Broken::Violation(POLICY_VIOLATION)));
        }
        Some(Ok(message))
    }

    /// Sends a text. Whoever does not read it in time, or lets too much wait, is gone.
    pub async fn send(&mut self, text: String) -> Result<(), Broken> {
        self.write(Message::Text(text.into())).await
    }

    /// Sends a message just as it came.
    pub async fn write(&mut self, message: Message) -> Result<(), Broken> {
        match timeout(self.limits.write_timeout, self.inner.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken(error)),
            Err(_) => {
                self.metrics.refused(Refusal::WriteTimeout);
                Err(Broken::Gone)
            }
        }
    }

    /// Sends a close frame and gives the other side a moment to answer it.
    pub async fn close(mut self, code: u16, reason: &'static str) {
        let farewell = async {
            let frame = CloseFrame { code, reason: reason.into() };
            self.inner.send(Message::Close(Some(frame))).await?;
            while let Some(Ok(_)) = self.inner.recv().await {}
            Ok::<_, axum::Error>(())
        };
        match timeout(CLOSE_TIMEOUT, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the socket was gone before its goodbye"),
            Err(_) => debug!("the other side did not answer the goodbye"),
        }
    }

    /// After a close frame has been heard: the answer waits in the socket, and reading on sends it.
    /// Nothing else may be sent.
    pub async fn answer_close(mut self) {
        let farewell = async { while let Some(Ok(_)) = self.inner.recv().await {} };
        if timeout(CLOSE_TIMEOUT, farewell).await.is_err() {
            debug!("the other side did not end the connection after its goodbye");
        }
    }

    /// What an error of the WebSocket layer means, counted where a limit was met.
    fn broken(&self, error: axum::Error) -> Broken {
        use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        let error = error.into_inner();
        let (refusal, broken) = match error.downcast_ref::<tungstenite::Error>() {
            Some(tungstenite::Error::Capacity(_)) => {
                (Refusal::MessageSize, Broken::Violation(TOO_BIG))
            }
            Some(tungstenite::Error::Utf8(_)) => {
                (Refusal::Protocol, Broken::Violation(INVALID_DATA))
            }
            Some(tungstenite::Error::WriteBufferFull(_)) => (Refusal::WriteBuffer, Broken::Gone),
            Some(tungstenite::Error::Protocol(ResetWithoutClosingHandshake)) | None => {
                return Broken::Gone;
            }
            Some(tungstenite::Error::Protocol(_)) => {
                (Refusal::Protocol, Broken::Violation(PROTOCOL_ERROR))
            }
            Some(_) => return Broken::Gone,
        };
        self.metrics.refused(refusal);
        broken
    }
}
