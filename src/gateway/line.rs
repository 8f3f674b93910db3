//! A socket that reads while it writes.
//!
//! A satellite that is slow to read is still heard: what is said to it is written piece by piece
//! between what it says. One message at a time is under way; whoever has the next one waits for
//! [`Line::is_free`], so nothing piles up. A satellite that waits to be let in is listened to as well, to
//! know whether it is still there ([`Line::over`]).

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::protocol::ToSatellite;
use super::socket::{Broken, Message, Socket, Utf8Bytes};

/// Messages kept of a satellite that talks before it is let in: more than the heartbeats of so short a
/// time. Beyond them it is not read, and heard once it is in.
const MAX_EARLY: usize = 16;

/// How long a package may take to be read: a megabyte a second is much on some lines, and agents wait
/// for a package for a minute.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// What happened on a line.
#[derive(Debug)]
pub enum Happened {
    /// The satellite said this.
    Heard(Message),
    /// What was said to it is written: the line is free.
    Written,
    /// The connection broke, or a rule.
    Broken(Broken),
    /// The connection is over.
    Ended,
}

/// See the module.
pub struct Line {
    socket: Socket,
    next: Option<Message>,
    /// Until when what is under way must be written.
    deadline: Option<Instant>,
    /// What it said before it was let in.
    early: VecDeque<Message>,
}

impl Line {
    /// Over this socket.
    pub fn new(socket: Socket) -> Line {
        Line { socket, next: None, deadline: None, early: VecDeque::new() }
    }

    /// Whether something may be said.
    pub fn is_free(&self) -> bool {
        self.deadline.is_none()
    }

    /// Until when the satellite must have read what is being said.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Says something; only while the line is free.
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

    /// Waits for whatever happens first. May be dropped and called again at any time.
    pub async fn next(&mut self) -> Happened {
        poll_fn(|cx| self.poll(cx)).await
    }

    /// Waits until the connection is over, by the satellite's goodbye or without one, and keeps what is
    /// said meanwhile for [`Line::next`]. May be dropped and called again at any time.
    pub async fn over(&mut self) -> Result<(), Broken> {
        poll_fn(|cx| self.poll_over(cx)).await
    }

    /// The socket, with whatever of a message is written.
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
        if let Some(message) = self.early.pop_front() {
            return Poll::Ready(Happened::Heard(message));
        }
        self.socket.poll_recv(cx).map(|heard| match heard {
            Some(Ok(message)) => Happened::Heard(message),
            Some(Err(broken)) => Happened::Broken(broken),
            None => Happened::Ended,
        })
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while self.early.len() < MAX_EARLY {
            match ready!(self.socket.poll_recv(cx)) {
                Some(Ok(Message::Close(_))) => return Poll::Ready(Ok(())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => self.early.push_back(message),
                Some(Err(broken)) => return Poll::Ready(Err(broken)),
                None => return Poll::Ready(Err(Broken::Gone)),
            }
        }
        Poll::Pending
    }
}
