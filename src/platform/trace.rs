//! Traces: they follow a change from an HTTP request through the log to its message on the stream.
//!
//! A `traceparent` (W3C Trace Context) is passed on whether or not spans are exported. Spans have
//! the target [`TARGET`], which no log line has and no log shows; without [`export`] they are never
//! built. They may carry method, route, status, ids and positions. They never carry a header, a
//! body or a name.

use std::fmt;

use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Context, trace};
use tracing::{Instrument, Span, field, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use uuid::Uuid;

use crate::domain::lifecycle::{Position, SatelliteId};

pub(crate) mod export;

/// The target of every span, and of nothing else.
pub const TARGET: &str = "groundstation::spans";

/// The header, in HTTP and on NATS.
pub const HEADER: &str = "traceparent";

tokio::task_local! {
    static CURRENT: Option<Traceparent>;
}

/// A checked `traceparent`. Text from outside is never stored or sent on as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traceparent {
    trace: TraceId,
    span: SpanId,
    flags: TraceFlags,
}

impl Traceparent {
    /// Reads `00-<32 digits>-<16 digits>-<2 digits>`, lower case; of a later version the parts that
    /// this one knows. `None` for anything else: an invalid header means no trace.
    pub fn parse(text: &str) -> Option<Traceparent> {
        let mut parts = text.split('-');
        let version = hexadecimal(parts.next()?, 2)?;
        let trace = trace::TraceId::from_hex(hexadecimal(parts.next()?, 32)?).ok()?;
        let span = trace::SpanId::from_hex(hexadecimal(parts.next()?, 16)?).ok()?;
        let flags = u8::from_str_radix(hexadecimal(parts.next()?, 2)?, 16).ok()?;
        let is_known = version != "ff" && (version != "00" || parts.next().is_none());
        let is_valid = trace != TraceId::INVALID && span != SpanId::INVALID;
        let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
        (is_known && is_valid).then_some(Traceparent { trace, span, flags })
    }

    /// The innermost trace of the current work; none outside of [`within`].
    pub fn current() -> Option<Traceparent> {
        CURRENT.try_with(|current| *current).ok().flatten()
    }

    /// The `traceparent` of a span that is recorded for export.
    fn of(span: &Span) -> Option<Traceparent> {
        if span.is_disabled() {
            return None;
        }
        let context = span.context();
        let context = context.span().span_context().clone();
        context.is_valid().then(|| Traceparent {
            trace: context.trace_id(),
            span: context.span_id(),
            flags: context.trace_flags(),
        })
    }

    fn context(self) -> Context {
        let Traceparent { trace, span, flags } = self;
        let remote = SpanContext::new(trace, span, flags, true, TraceState::default());
        Context::new().with_remote_span_context(remote)
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags.to_u8())
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<&str> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(is_digit)).then_some(text)
}

/// The span of a request that changes something.
pub fn request(method: &str, route: &str) -> Span {
    info_span!(
        target: TARGET,
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = field::Empty,
    )
}

/// Does `work` in `span`, as a part of the trace `parent` if there is one.
pub async fn within<T>(
    span: Span,
    parent: Option<Traceparent>,
    work: impl Future<Output = T>,
) -> T {
    adopt(&span, parent);
    let current = Traceparent::of(&span).or(parent);
    CURRENT.scope(current, work).instrument(span).await
}

/// The span of an append that belongs to a trace, and the `traceparent` that its transition keeps.
pub fn append(satellite: SatelliteId) -> (Span, Option<Traceparent>) {
    let Some(current) = Traceparent::current() else {
        return (Span::none(), None);
    };
    let span = info_span!(target: TARGET, "append", satellite.id = %satellite);
    let kept = Traceparent::of(&span).unwrap_or(current);
    (span, Some(kept))
}

/// The span of a publish, from the send to the acknowledgement, of a transition that belongs to the
/// trace `traceparent`.
pub fn publish(
    traceparent: Option<&str>,
    (change, position): (Uuid, Position),
    subject: &'static str,
) -> Span {
    let Some(parent) = traceparent.and_then(Traceparent::parse) else {
        return Span::none();
    };
    let span = info_span!(
        target: TARGET,
        "publish",
        otel.name = format!("publish {subject}"),
        otel.kind = "producer",
        messaging.system = "nats",
        messaging.destination.name = subject,
        messaging.message.id = %change,
        groundstation.position = position.0,
    );
    adopt(&span, Some(parent));
    span
}

fn adopt(span: &Span, parent: Option<Traceparent>) {
    let Some(parent) = parent.filter(|_| !span.is_disabled()) else { return };
    if let Err(error) = span.set_parent(parent.context()) {
        tracing::debug!(%error, "cannot set a span's parent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_written_as_it_was_read() {
        assert_eq!(Traceparent::parse(GOOD).expect("good").to_string(), GOOD);
        let unsampled = GOOD.replace("-01", "-00");
        assert_eq!(Traceparent::parse(&unsampled).expect("good").to_string(), unsampled);
    }

    #[test]
    fn of_a_later_version_is_taken_what_is_known() {
        let later = format!("{}-more", GOOD.replacen("00", "01", 1));
        assert_eq!(Traceparent::parse(&later).expect("good").to_string(), GOOD);
        let flags = GOOD.replace("-01", "-ff");
        assert_eq!(Traceparent::parse(&flags).expect("good").to_string(), GOOD);
    }

    #[test]
    fn anything_else_is_no_trace() {
        let cases = [
            String::new(),
            "00".to_owned(),
            GOOD.to_uppercase(),
            format!("{GOOD}-more"),
            format!(" {GOOD}"),
            GOOD.replacen("00", "ff", 1),
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            GOOD.replace("b7ad6b7169203331", &"0".repeat(16)),
            GOOD.replace("b7ad6b7169203331", "+7ad6b7169203331"),
            GOOD.replace("-01", "-1"),
            GOOD.replace("b7ad6b7169203331-01", "b7ad6b7169203331"),
            "é".repeat(40),
        ];
        for case in cases {
            assert_eq!(Traceparent::parse(&case), None, "{case}");
        }
    }

    #[tokio::test]
    async fn a_trace_is_passed_on_where_no_spans_are_exported() {
        assert_eq!(Traceparent::current(), None);
        let satellite = SatelliteId(uuid::Uuid::nil());
        assert_eq!(append(satellite).1, None);
        let parent = Traceparent::parse(GOOD);
        let kept = within(request("DELETE", "/x"), parent, async { append(satellite).1 }).await;
        assert_eq!(kept, parent);
    }
}
