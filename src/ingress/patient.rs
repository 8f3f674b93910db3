//! A connection whose other side has to read: what is written gets further within a limit, or it breaks.
//!
//! Any answer is held to that, whoever writes it: the limit is on the bytes that the system takes. Meanwhile its
//! place at the door counts as one where nothing happens.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::admission::Place;
use super::refusal::Refusal;
use crate::platform::metrics::Metrics;

pub struct Patient<S> {
    inner: S,
    limit: Duration,
    /// Runs while there is something to write and no room for it. Boxed: hardly any connection has one.
    stuck: Option<Pin<Box<Sleep>>>,
    /// Gone where it has become a WebSocket.
    place: Weak<Place>,
    metrics: Metrics,
}

impl<S> Patient<S> {
    /// Waits for its reader for so long.
    pub fn new(inner: S, limit: Duration, place: Weak<Place>, metrics: Metrics) -> Patient<S> {
        Patient { inner, limit, stuck: None, place, metrics }
    }

    fn tell(&self, is_stuck: bool) {
        if let Some(place) = self.place.upgrade() {
            place.is_stuck(is_stuck);
        }
    }

    fn judge<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stuck.take().is_some() {
                self.tell(false);
            }
            return written;
        }
        if self.stuck.is_none() {
            self.tell(true);
        }
        let limit = self.limit;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(sleep(limit)));
        stuck.as_mut().poll(cx).map(|()| {
            self.metrics.refused(Refusal::WriteTimeout);
            Err(io::Error::new(io::ErrorKind::TimedOut, "the other side does not read"))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.judge(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut_down = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.judge(cx, shut_down)
    }
}
