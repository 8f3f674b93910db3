//! A connection whose other side must read: if a write makes no progress within a limit, the connection
//! breaks.
//!
//! This holds for every answer, from any route: the limit is on the bytes that the system takes. While a
//! write waits, the connection's place at the door counts as idle.

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
    /// Runs while a write waits for space. Boxed, because hardly any connection has one.
    stuck: Option<Pin<Box<Sleep>>>,
    /// Gone once the connection is a WebSocket.
    place: Weak<Place>,
    metrics: Metrics,
}

impl<S> Patient<S> {
    /// Lets each write wait for `limit`.
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
