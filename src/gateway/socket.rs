//! The WebSocket as the gateway uses it, with bounds on the size and the rate of what comes in and on the
//! time of what goes out. No extension is negotiated, so nothing is compressed.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
pub use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use tracing::debug;

use super::intake::{Intake, Refused, SMALL_BYTES, Sizes};
use super::room::Room;
use crate::domain::lifecycle::SatelliteId;
use crate::ingress::problem::ProblemJson;
use crate::ingress::refusal::Refusal;
use crate::ingress::settings::SocketLimits;
use crate::platform::bucket::{Bucket, Rate};
use crate::platform::metrics::Metrics;

/// Allocated for every socket (the default is 128 KiB), beside what [`Intake`] reads at once. A heartbeat has
/// a hundred bytes.
const READ_BUFFER_BYTES: usize = 256;

/// A client that was cut off has sent everything once nothing came for this long.
const QUIET: Duration = Duration::from_millis(200);

/// The shortest pause for a client that exceeds its rate: what comes meanwhile is read in one go.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// Messages a second that each assignment adds to a satellite's rate: a result and a question for secrets.
/// The burst grows by twice as many: a round may arrive while the last one is still on its way.
const RATE_OF_ASSIGNMENT: f32 = 2.0;
const BURST_OF_ASSIGNMENT: f32 = 4.0;

/// The most bytes of a text in one frame. The layer below copies a frame before it writes it, and keeps a
/// buffer as large as the largest frame for as long as the connection lasts.
const FRAGMENT_BYTES: usize = 64 * 1024;

/// How long the closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Close codes (RFC 6455, 7.4).
const PROTOCOL_ERROR: u16 = 1002;
const INVALID_DATA: u16 = 1007;
const POLICY_VIOLATION: u16 = 1008;
const TOO_BIG: u16 = 1009;

/// A bounded WebSocket.
pub struct Socket {
    /// Boxed, because futures keep what they are given more than once.
    inner: Box<WebSocketStream<Intake<TokioIo<Upgraded>>>>,
    /// The frames of a fragmented message that are still to be written.
    rest: Option<Rest>,
    limits: SocketLimits,
    /// The message rate, and what is left of it.
    rate: Rate,
    messages: Bucket,
    /// Runs while the client is not read because it exceeds its rate.
    pause: Option<Pin<Box<Sleep>>>,
    /// How long the client was slowed down, less the time in which it sent nothing.
    slowed: Duration,
    /// Since when there is nothing to read.
    idle_since: Option<Instant>,
    /// Whether it was closed in the middle of a message.
    cut_off: bool,
    metrics: Metrics,
}

/// The rest of a long text. The text is shared with its other receivers.
struct Rest {
    text: Bytes,
    opcode: OpCode,
}

impl Rest {
    fn of(text: Utf8Bytes) -> Rest {
        Rest { text: text.into(), opcode: OpCode::Data(Data::Text) }
    }

    /// The next frame and what remains after it.
    fn next(mut self) -> (Frame, Option<Rest>) {
        let part = self.text.split_to(self.text.len().min(FRAGMENT_BYTES));
        let is_last = self.text.is_empty();
        let frame = Frame::message(part, self.opcode, is_last);
        self.opcode = OpCode::Data(Data::Continue);
        (frame, (!is_last).then_some(self))
    }
}

/// A request whose upgrade to a WebSocket can be granted.
pub struct Upgrade {
    key: HeaderValue,
    on_upgrade: OnUpgrade,
}

impl<S: Send + Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Upgrade, Response> {
        let on_upgrade = parts.extensions.get::<OnUpgrade>().cloned();
        // Checks the request only: axum's own socket exposes neither its stream nor its limits.
        let asked = WebSocketUpgrade::from_request_parts(parts, state).await;
        drop(asked.map_err(|why| no_upgrade(&why))?);
        let key = parts.headers.get(header::SEC_WEBSOCKET_KEY).cloned();
        match on_upgrade.zip(key) {
            Some((on_upgrade, key)) => Ok(Upgrade { key, on_upgrade }),
            // The request does not come over HTTP/1.1.
            None => Err(upgrade_required("The connection cannot be upgraded: come over HTTP/1.1.")),
        }
    }
}

/// The answer to a request that is not for a WebSocket as it is spoken here.
fn no_upgrade(why: &WebSocketUpgradeRejection) -> Response {
    match why {
        WebSocketUpgradeRejection::WebSocketKeyHeaderMissing(_) => {
            let (status, kind) = (StatusCode::BAD_REQUEST, "no-websocket-key");
            let detail = "The header Sec-WebSocket-Key must be there.";
            ProblemJson::new(status, kind, "No WebSocket key", detail).into_response()
        }
        why => upgrade_required(format!("This route speaks WebSocket only. {}.", why.body_text())),
    }
}

/// 426, with what to upgrade to (RFC 9110, 15.5.22, and RFC 6455, 4.4).
fn upgrade_required(detail: impl Into<String>) -> Response {
    let (status, kind) = (StatusCode::UPGRADE_REQUIRED, "websocket-only");
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_VERSION, "13"),
    ];
    (headers, ProblemJson::new(status, kind, "WebSocket only", detail)).into_response()
}

/// Why the socket can be neither read nor written any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The other side broke a rule: the socket is to be closed with this code.
    Violation(u16),
    /// The connection is lost, or does not get on.
    Gone,
}

/// Answers an upgrade, and runs `session` with the socket.
pub fn upgrade<F>(
    upgrade: Upgrade,
    limits: SocketLimits,
    room: Arc<Room>,
    metrics: Metrics,
    session: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response
where
    F: Future<Output = ()> + Send + 'static,
{
    let Upgrade { key, on_upgrade } = upgrade;
    tokio::spawn(async move {
        match on_upgrade.await {
            Ok(upgraded) => session(Socket::over(upgraded, limits, room, metrics).await).await,
            Err(error) => debug!(%error, "upgrade failed"),
        }
    });
    let headers = [
        (header::CONNECTION, "upgrade".to_owned()),
        (header::UPGRADE, "websocket".to_owned()),
        (header::SEC_WEBSOCKET_ACCEPT, derive_accept_key(key.as_bytes())),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

impl Socket {
    async fn over(
        upgraded: Upgraded,
        limits: SocketLimits,
        room: Arc<Room>,
        metrics: Metrics,
    ) -> Socket {
        let sizes = Sizes { frame: limits.max_frame_bytes, message: limits.max_message_bytes };
        let config = WebSocketConfig::default()
            .max_message_size(Some(limits.max_message_bytes))
            .max_frame_size(Some(SMALL_BYTES))
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(limits.max_write_buffer_bytes);
        let intake = Intake::new(TokioIo::new(upgraded), sizes, room);
        let inner = WebSocketStream::from_raw_socket(intake, Role::Server, Some(config)).await;
        let messages = Bucket::full(limits.messages, Instant::now());
        Socket {
            inner: Box::new(inner),
            rest: None,
            limits,
            rate: limits.messages,
            messages,
            pause: None,
            slowed: Duration::ZERO,
            idle_since: None,
            cut_off: false,
            metrics,
        }
    }

    /// Notes that the sender is authenticated: it may send large messages.
    pub fn is_known(&mut self, satellite: Option<SatelliteId>) {
        self.inner.get_mut().is_known(satellite);
    }

    /// Raises the message rate with the number of assignments.
    pub fn has_assignments(&mut self, count: usize) {
        let (base, count) = (self.limits.messages, count as f32);
        let rate = Rate {
            burst: base.burst + BURST_OF_ASSIGNMENT * count,
            per_second: base.per_second + RATE_OF_ASSIGNMENT * count,
        };
        self.messages.change(self.rate, rate, Instant::now());
        self.rate = rate;
    }

    async fn discard(&mut self) -> bool {
        let discarded = poll_fn(|cx| self.inner.get_mut().poll_discard(cx)).await;
        discarded.unwrap_or(false)
    }

    /// Whether it is read more slowly than it sends: its heartbeats are among what is not read yet.
    pub fn is_slowed_down(&self) -> bool {
        !self.slowed.is_zero()
    }

    /// Whether a large message has begun and is not complete.
    pub fn has_large_one_coming(&self) -> bool {
        self.inner.get_ref().has_large_one_coming()
    }

    /// The same, with whether some of it was sent since the last call. None while the message waits for room:
    /// the socket is not read then.
    pub fn is_coming(&mut self) -> Option<bool> {
        let came = self.inner.get_mut().came_nearer();
        self.has_large_one_coming().then_some(came)
    }

    /// Notes that the caller needs the last frame no more.
    pub fn done(&mut self) {
        self.inner.get_mut().done();
    }

    /// Whether a large message waits for room.
    pub fn waits_for_room(&self) -> bool {
        self.inner.get_ref().waits_for_room()
    }

    /// The next frame of any kind; `None` when none will come.
    pub async fn recv(&mut self) -> Option<Result<Message, Broken>> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// The same, for a caller that polls other things too. A call means that the frame before is no longer
    /// needed.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Broken>>> {
        self.done();
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
            if self.inner.get_ref().is_behind() {
                self.metrics.refused(Refusal::LargeMessage);
                self.cut_off = true;
                return Poll::Ready(Some(Err(Broken::Violation(POLICY_VIOLATION))));
            }
        }
        match self.inner.poll_next_unpin(cx) {
            Poll::Ready(message) => {
                if let Some(since) = self.idle_since.take() {
                    self.slowed = self.slowed.saturating_sub(since.elapsed());
                }
                Poll::Ready(message.map(|message| self.admit(message)))
            }
            Poll::Pending => {
                // A short moment without data proves little: the system receives a message in pieces.
                if !self.waits_for_room() {
                    self.idle_since.get_or_insert_with(Instant::now);
                }
                Poll::Pending
            }
        }
    }

    /// Writes `next`, or continues the message under way. Takes `next` once its writing begins; ready when
    /// all of it is written. The caller bounds the time.
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
    ) -> Poll<Result<(), tungstenite::Error>> {
        while self.rest.is_some() || next.is_some() {
            ready!(self.inner.poll_ready_unpin(cx))?;
            let rest = self.rest.take().map(Ok).or_else(|| Some(in_fragments(next.take()?)));
            let message = match rest {
                Some(Ok(rest)) => {
                    let (frame, rest) = rest.next();
                    self.rest = rest;
                    Message::Frame(frame)
                }
                Some(Err(short)) => short,
                None => break,
            };
            self.inner.start_send_unpin(message)?;
            // Each frame is flushed before the next one is built.
            ready!(self.inner.poll_flush_unpin(cx))?;
        }
        self.inner.poll_flush_unpin(cx)
    }

    /// How long a message may take to be read.
    pub fn write_timeout(&self) -> Duration {
        self.limits.write_timeout
    }

    /// Takes a message that has come. A client above its rate is read again once it has paid for the message.
    /// It is closed where that does not help: where it was slowed down for longer than it was idle, by more
    /// than the pod's patience.
    fn admit(&mut self, message: Result<Message, tungstenite::Error>) -> Result<Message, Broken> {
        let message = message.map_err(|error| self.broken(error))?;
        let now = Instant::now();
        let owed = self.messages.owe(self.rate, now);
        if owed.is_zero() {
            return Ok(message);
        }
        if self.slowed.is_zero() {
            self.metrics.held_back("rate");
        }
        if self.slowed > self.limits.message_patience {
            self.metrics.refused(Refusal::MessageRate);
            return Err(Broken::Violation(POLICY_VIOLATION));
        }
        let pause = owed.max(SHORTEST_PAUSE);
        self.slowed += pause;
        self.pause = Some(Box::pin(sleep(pause)));
        Ok(message)
    }

    /// Sends a text. A client that does not read it in time, or that lets too much wait, counts as gone.
    pub async fn send(&mut self, text: String) -> Result<(), Broken> {
        self.write(Message::Text(text.into())).await
    }

    /// Sends a message as it came.
    pub async fn write(&mut self, message: Message) -> Result<(), Broken> {
        let (mut next, patience) = (Some(message), self.limits.write_timeout);
        let written = poll_fn(|cx| self.poll_write(cx, &mut next));
        match timeout(patience, written).await {
            Ok(written) => written,
            Err(_) => {
                self.metrics.refused(Refusal::WriteTimeout);
                Err(Broken::Gone)
            }
        }
    }

    /// Sends a close frame and waits a moment for the answer.
    pub async fn close(mut self, code: u16, reason: &'static str) {
        self.close_and_hear(code, reason, drop).await;
    }

    /// The same, for a caller that wants what the other side sends before its answer. It is read at once,
    /// whatever its rate.
    pub async fn close_and_hear(
        &mut self,
        code: u16,
        reason: &'static str,
        hear: impl FnMut(Message),
    ) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let farewell = async {
            self.say_and_hear(Message::Close(Some(frame)), hear).await;
            // A client that was cut off while it sends receives the goodbye only if its data is read: the
            // system resets a connection that is closed with unread data.
            while self.cut_off && timeout(QUIET, self.discard()).await.is_ok_and(|more| more) {}
        };
        if timeout(CLOSE_TIMEOUT, farewell).await.is_err() {
            debug!("the other side did not answer the goodbye");
        }
    }

    /// Writes the last message while it reads all that comes: a client that does not read is heard too.
    async fn say_and_hear(&mut self, goodbye: Message, mut hear: impl FnMut(Message)) {
        // The protocol allows a close frame in the middle of a message.
        self.rest = None;
        let mut goodbye = Some(goodbye);
        let (mut written, mut ended) = (false, false);
        poll_fn(|cx| {
            if !written && let Poll::Ready(result) = self.try_write(cx, &mut goodbye) {
                written = true;
                if let Err(error) = result {
                    debug!(%error, "the socket was gone before its goodbye");
                }
            }
            while !ended {
                self.done();
                match ready!(self.inner.poll_next_unpin(cx)) {
                    Some(Ok(message)) => hear(message),
                    Some(Err(_)) | None => ended = true,
                }
            }
            if written { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// After a close frame was received: the answer is queued in the socket, and reading on sends it. Nothing
    /// else may be sent.
    pub async fn answer_close(mut self) {
        let farewell = async { while let Some(Ok(_)) = self.inner.next().await {} };
        if timeout(CLOSE_TIMEOUT, farewell).await.is_err() {
            debug!("the other side did not end the connection after its goodbye");
        }
    }

    /// Maps an error of the WebSocket layer. Counts it if a limit was exceeded.
    fn broken(&mut self, error: tungstenite::Error) -> Broken {
        use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
        let (refusal, broken) = match &error {
            tungstenite::Error::Capacity(_) => (Refusal::MessageSize, Broken::Violation(TOO_BIG)),
            tungstenite::Error::Io(error) => match refused(error) {
                Some(Refused::TooBig) => (Refusal::MessageSize, Broken::Violation(TOO_BIG)),
                Some(Refused::Unfinished) => {
                    (Refusal::LargeMessage, Broken::Violation(POLICY_VIOLATION))
                }
                None => return Broken::Gone,
            },
            tungstenite::Error::Utf8(_) => (Refusal::Protocol, Broken::Violation(INVALID_DATA)),
            tungstenite::Error::WriteBufferFull(_) => (Refusal::WriteBuffer, Broken::Gone),
            tungstenite::Error::Protocol(ResetWithoutClosingHandshake) => return Broken::Gone,
            tungstenite::Error::Protocol(_) => {
                (Refusal::Protocol, Broken::Violation(PROTOCOL_ERROR))
            }
            _ => return Broken::Gone,
        };
        self.cut_off = true;
        self.metrics.refused(refusal);
        broken
    }
}

fn refused(error: &std::io::Error) -> Option<Refused> {
    error.get_ref()?.downcast_ref().copied()
}

/// Splits a long text into fragments; any other message is returned as it is.
fn in_fragments(message: Message) -> Result<Rest, Message> {
    match message {
        Message::Text(text) if text.len() > FRAGMENT_BYTES => Ok(Rest::of(text)),
        short => Err(short),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_one_message_in_several_frames_and_a_short_one_stays_as_it_is() {
        let short = Message::text("x".repeat(FRAGMENT_BYTES));
        assert_eq!(in_fragments(short.clone()).map(drop), Err(short));
        for (length, frames) in [(FRAGMENT_BYTES + 1, 2), (3 * FRAGMENT_BYTES, 3)] {
            let text: String = (0..length).map(|n| char::from(b'a' + (n % 23) as u8)).collect();
            let mut rest = in_fragments(Message::text(text.clone())).ok();
            let (mut written, mut heads) = (Vec::new(), Vec::new());
            while let Some(left) = rest {
                let (frame, next) = left.next();
                written.extend_from_slice(frame.payload());
                heads.push((frame.header().opcode, frame.header().is_final));
                rest = next;
            }
            assert_eq!(written, text.as_bytes());
            assert_eq!(heads.len(), frames);
            let (first, others) = heads.split_first().expect("a frame");
            assert_eq!(*first, (OpCode::Data(Data::Text), false));
            let (last, between) = others.split_last().expect("a second one");
            assert_eq!(*last, (OpCode::Data(Data::Continue), true));
            assert!(between.iter().all(|head| *head == (OpCode::Data(Data::Continue), false)));
        }
    }
}
