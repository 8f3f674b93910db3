//! The trace a change over HTTP belongs to.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;

use crate::platform::trace::{self, Traceparent};

/// Carries the `traceparent` of a request that may change something to what it changes. Runs only after the token was
/// checked: strangers cannot create spans.
pub async fn follow(request: Request, next: Next) -> Response {
    if request.method().is_safe() {
        return next.run(request).await;
    }
    let route = request.extensions().get::<MatchedPath>();
    let span = trace::request(request.method().as_str(), route.map_or("", |route| route.as_str()));
    let parent = request.headers().get(trace::HEADER).and_then(|value| value.to_str().ok());
    let parent = parent.and_then(Traceparent::parse);
    let answered = async {
        let response = next.run(request).await;
        tracing::Span::current().record("http.response.status_code", response.status().as_u16());
        response
    };
    trace::within(span, parent, answered).await
}
