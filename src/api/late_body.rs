//! A body that comes after its request was let in, maybe much later: whoever sends it must still be let in then.
//!
//! A request is let in by its head, so that nobody without a token makes the pod hold a body. A token may be revoked, or
//! end, while the body is on the way; the handler has not begun until all of it is there. So the caller is asked for once
//! more at the body's end. If it is not let in any more, the body fails and the answer is that of a token that has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use hyper::body::{Frame, SizeHint};

use super::access::Access;
use super::caller::Caller;

/// Whether the caller's token ended before the body did.
#[derive(Clone, Default)]
pub struct Ended(Arc<AtomicBool>);

impl Ended {
    /// It did: nothing was done.
    pub fn is_void(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Has the caller asked for again at the end of the request's body, if it has one.
pub fn watch(request: Request, access: Arc<Access>, caller: Caller) -> (Request, Ended) {
    let ended = Ended::default();
    if request.body().is_end_stream() {
        return (request, ended);
    }
    let told = ended.clone();
    let request = request.map(|body| Body::new(Late { body, access, caller, ended: told }));
    (request, ended)
}

struct Late {
    body: Body,
    access: Arc<Access>,
    caller: Caller,
    ended: Ended,
}

/// The body fails with it, and nobody is told: the answer is another.
#[derive(Debug, thiserror::Error)]
#[error("the token ended while the body was on the way")]
struct TokenEnded;

impl HttpBody for Late {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() && !self.access.is_still(&self.caller) {
            self.ended.0.store(true, Ordering::Relaxed);
            return Poll::Ready(Some(Err(axum::Error::new(TokenEnded))));
        }
        Poll::Ready(frame)
    }

    // `is_end_stream` stays false: so whoever reads the body asks for its end.

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
