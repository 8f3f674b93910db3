//! A socket that reads while it writes.
//!
//! A satellite that reads slowly is still heard: a message to it is written piece by piece, between the
//! messages it sends. Only one message is written at a time. The sender of the next one waits for
//! [`DuplexSocket::is_free`], so nothing piles up. A satellite that waits to be let in is read as well: only
//! so is it known whether it is still connected ([`DuplexSocket::over`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::intake::SMALL_BYTES;
use super::protocol::ToSatellite;
use super::socket::{Broken, Message, Socket, Utf8Bytes};

/// Messages kept of a satellite before it is let in: more than the heartbeats of so short a time. Once there
/// are more, or once they have more bytes than a small message, the socket is not read until the satellite is
/// let in.
const MAX_EARLY: usize = 16;
const MAX_EARLY_BYTES: usize = SMALL_BYTES;

/// How long a satellite may take to read a package: a megabyte a second is much on some lines, and agents
/// wait a minute for a package.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// What happened on a socket.
#[derive(Debug)]
pub enum Happened {
    /// The satellite sent this.
    Heard(Message),
    /// The message to it is written: the socket is free.
    Written,
    /// A large message begins to arrive; [`DuplexSocket::is_coming`] tells how it goes on.
    Coming,
    /// The connection broke, or the satellite broke a rule.
    Broken(Broken),
    /// The connection is over.
    Ended,
}

pub struct DuplexSocket {
    socket: Socket,
    next: Option<Message>,
    /// When the message under way must be written.
    deadline: Option<Instant>,
    /// What the satellite sent before it was let in.
    early: VecDeque<Message>,
    early_bytes: usize,
    /// Whether [`Happened::Coming`] was reported for the message that is arriving.
    told: bool,
    /// Runs while the satellite is left unread.
    rest: Option<Pin<Box<Sleep>>>,
}

impl DuplexSocket {
    /// Wraps a socket.
    pub fn new(socket: Socket) -> DuplexSocket {
        DuplexSocket {
            socket,
            next: None,
            deadline: None,
            early: VecDeque::new(),
            early_bytes: 0,
            told: false,
            rest: None,
        }
    }

    /// Whether a message can be sent.
    pub fn is_free(&self) -> bool {
        self.deadline.is_none()
    }

    /// Whether some of a large message was sent since the last call. None if no large message is arriving.
    pub fn is_coming(&mut self) -> Option<bool> {
        self.socket.is_coming()
    }

    /// Whether the satellite is not read because its large message waits for room.
    pub fn waits_for_room(&self) -> bool {
        self.socket.waits_for_room()
    }

    /// Whether the satellite is read more slowly than it sends.
    pub fn is_slowed_down(&self) -> bool {
        self.socket.is_slowed_down()
    }

    /// Raises the satellite's message rate with the number of its assignments.
    pub fn has_assignments(&mut self, count: usize) {
        self.socket.has_assignments(count);
    }

    /// When the satellite must have read the message under way.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Sends a message; only while the socket is free.
    pub fn say(&mut self, message: &ToSatellite) -> Result<(), serde_json::Error> {
        debug_assert!(self.is_free());
        let (text, patience) = match message {
            ToSatellite::Ready(text) => {
                let text = Utf8Bytes::try_from(text.clone()).map_err(serde::ser::Error::custom)?;
                (text, READY_TIMEOUT.max(self.socket.write_timeout()))
            }
            message => (message.to_text()?.into(), self.socket.write_timeout()),
        };
        self.next = Some(Message::Text(text));
        self.deadline = Some(Instant::now() + patience);
        Ok(())
    }

    /// Leaves the satellite unread for this long. Messages to it are still written.
    pub fn rest(&mut self, pause: Duration) {
        self.socket.done();
        self.rest = Some(Box::pin(sleep(pause)));
    }

    /// Waits for what happens first. Cancel-safe.
    pub async fn next(&mut self) -> Happened {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Waits until the connection is over, with or without a close frame. Keeps messages that arrive
    /// meanwhile for [`DuplexSocket::next`]. Cancel-safe.
    pub async fn over(&mut self) -> Result<(), Broken> {
        poll_fn(|cx| self.poll_over(cx)).await
    }

    /// Closes the connection. Whatever the satellite sent before it answers is heard, however fast it was.
    pub async fn close(&mut self, code: u16, reason: &'static str, mut hear: impl FnMut(Message)) {
        self.early.drain(..).for_each(&mut hear);
        self.socket.close_and_hear(code, reason, hear).await;
    }

    /// The socket. A message under way may be written only in part.
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Happened> {
        if self.deadline.is_some()
            && let Poll::Ready(written) = self.socket.poll_write(cx, &mut self.next)
        {
            self.deadline = None;
            return Poll::Ready(written.map_or_else(Happened::Broken, |()| Happened::Written));
        }
        if let Some(rest) = &mut self.rest {
            ready!(rest.as_mut().poll(cx));
            self.rest = None;
        }
        if let Some(message) = self.early.pop_front() {
            return Poll::Ready(Happened::Heard(message));
        }
        let heard = match self.socket.poll_recv(cx) {
            Poll::Ready(heard) => {
                self.told = false;
                heard
            }
            Poll::Pending => {
                let told = std::mem::replace(&mut self.told, self.socket.has_large_one_coming());
                return if self.told && !told {
                    Poll::Ready(Happened::Coming)
                } else {
                    Poll::Pending
                };
            }
        };
        Poll::Ready(match heard {
            Some(Ok(message)) => Happened::Heard(message),
            Some(Err(broken)) => Happened::Broken(broken),
            None => Happened::Ended,
        })
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while self.early.len() < MAX_EARLY && self.early_bytes < MAX_EARLY_BYTES {
            match ready!(self.socket.poll_recv(cx)) {
                Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => {
                    self.early_bytes += message.len();
                    self.early.push_back(message);
                }
                Some(Err(broken)) => return Poll::Ready(Err(broken)),
                None => return Poll::Ready(Err(Broken::Gone)),
            }
        }
        Poll::Pending
    }
}
