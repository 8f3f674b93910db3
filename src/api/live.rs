//! What all live streams have in common: server-sent events to readers, within bounds.
//!
//! Streams are bounded in number, in what waits for a slow reader, in how long that may take to be read, and in their life.
//! One ends within a second when its token is taken away, revoked or over. What is sent is for [`super::stream`] and
//! [`super::audit`] to say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use super::Api;
use super::access::Access;
use super::caller::Caller;
use super::conditions::one;
use super::problem::Problem;
use crate::domain::lifecycle::Position;
use crate::ingress::arrival::ConnectionAbort;
use crate::ingress::refusal::Refusal;
use crate::log::history::NoAnswer;
use crate::platform::database::Database;
use crate::platform::metrics::Metrics;

/// Events that wait for a reader; what is in the sockets' buffers comes on top.
const QUEUE: usize = 64;

/// Streams that read at once: they share the connections for reads with whoever else asks.
const READERS: usize = 3;

/// How often it is looked whether a stream's token is still valid.
const TOKEN_LOOK: Duration = Duration::from_millis(250);

/// How often a silent stream sends a comment, so that nobody in between takes it for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How often at most a reader is told how far a stream has looked.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// After how long a reader is to come back; it may have been told to wait longer by an answer.
const RETRY: Duration = Duration::from_secs(1);

/// The live streams of a pod.
pub struct Streams {
    places: Arc<Semaphore>,
    lifetime: Duration,
    write_timeout: Duration,
    /// Changes when the log grows.
    pub head: watch::Receiver<Position>,
    stop: CancellationToken,
    /// For reads of streams.
    pub database: Database,
    metrics: Metrics,
}

/// What bounds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many there may be.
    pub streams: usize,
    /// How long one lasts.
    pub lifetime: Duration,
    /// How long a reader may take to read.
    pub write_timeout: Duration,
}

impl Streams {
    /// Woken by `head`, ended by `stop`.
    pub fn new(
        limits: Limits,
        reads: &Database,
        head: watch::Receiver<Position>,
        stop: CancellationToken,
        metrics: Metrics,
    ) -> Streams {
        metrics.streams_max.set(limits.streams as i64);
        Streams {
            places: Arc::new(Semaphore::new(limits.streams)),
            lifetime: limits.lifetime,
            write_timeout: limits.write_timeout,
            head,
            stop,
            database: reads.lane(READERS),
            metrics,
        }
    }

    /// A place for one more, if there is one.
    pub fn open(&self) -> Result<Open, Problem> {
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| Problem::too_many_streams())?;
        self.metrics.streams.inc();
        Ok(Open { _place: place, metrics: self.metrics.clone() })
    }
}

/// The place of an open stream, and its count; both are given back when it ends, however it does.
pub struct Open {
    _place: OwnedSemaphorePermit,
    metrics: Metrics,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.streams.dec();
    }
}

/// Why a stream ends: in any case its reader may come back.
pub enum End {
    /// The reader has gone, its time or its token is over, or the pod drains.
    Over,
    /// The reader does not read.
    Slow,
}

/// Behind which position a stream begins that is `asked` for. Behind 0 is all there is; behind anything else that is below
/// the horizon a gap would go unseen.
pub fn begin(
    asked: Option<i64>,
    head: i64,
    horizon: i64,
    ahead: fn(i64, i64) -> Problem,
) -> Result<i64, Problem> {
    match asked {
        None => Ok(head.max(horizon)),
        Some(0) => Ok(horizon),
        Some(after) if after < horizon => Err(NoAnswer::Dropped(horizon + 1).into()),
        Some(after) if after > head.max(horizon) => Err(ahead(after, head)),
        Some(after) => Ok(after),
    }
}

/// Whoever reads a stream, and how far it knows that it is.
pub struct Reader {
    events: mpsc::Sender<Event>,
    write_timeout: Duration,
    told: i64,
    told_at: Instant,
}

impl Reader {
    /// Tells where the stream begins. Each of these is an end where nobody reads it.
    pub async fn begin(&mut self, position: i64) -> Result<(), End> {
        self.send(Event::default().id(position.to_string()).retry(RETRY)).await?;
        (self.told, self.told_at) = (position, Instant::now());
        Ok(())
    }

    /// Tells what is at this position.
    pub async fn tell(&mut self, position: i64, what: impl Serialize) -> Result<(), End> {
        let event = Event::default().id(position.to_string()).json_data(what);
        let event = event.map_err(|error| {
            error!(%error, position, "what a live stream tells is no JSON");
            End::Over
        })?;
        self.send(event).await?;
        (self.told, self.told_at) = (position, Instant::now());
        Ok(())
    }

    /// Moves a reader past what it does not want, once a second at most, so that it comes back from here and not from what it
    /// saw last: that may be long ago, and dropped by then.
    pub async fn tell_how_far(&mut self, position: i64) -> Result<(), End> {
        if self.told == position || self.told_at.elapsed() < TELL_INTERVAL {
            return Ok(());
        }
        self.send(Event::default().id(position.to_string())).await?;
        (self.told, self.told_at) = (position, Instant::now());
        Ok(())
    }

    async fn send(&self, event: Event) -> Result<(), End> {
        match timeout(self.write_timeout, self.events.send(event)).await {
            Ok(sent) => sent.map_err(|_| End::Over),
            Err(_) => Err(End::Slow),
        }
    }
}

impl Open {
    /// The answer: what `follow` sends, for as long as it does, and the caller's token, the stream's time and the pod last.
    pub fn serve<F: Future<Output = End> + Send + 'static>(
        self,
        api: &Api,
        caller: Caller,
        abort: ConnectionAbort,
        follow: impl FnOnce(Reader) -> F,
    ) -> Response {
        let (streams, access) = (api.streams.clone(), api.access.clone());
        let (events, waiting) = mpsc::channel(QUEUE);
        let gone = events.clone();
        let (write_timeout, told_at) = (streams.write_timeout, Instant::now());
        let follow = follow(Reader { events, write_timeout, told: 0, told_at });
        let over = sleep_until(Instant::now() + streams.lifetime);
        tokio::spawn(async move {
            let open = self;
            let end = tokio::select! {
                end = follow => end,
                () = over => End::Over,
                () = until_void(access, caller) => End::Over,
                () = streams.stop.cancelled() => End::Over,
                () = gone.closed() => End::Over,
            };
            if matches!(end, End::Slow) {
                debug!("a live stream's reader does not read: ended");
                open.metrics.refused(Refusal::WriteTimeout);
                abort.now();
            }
        });
        let events = stream::unfold(waiting, |mut waiting: mpsc::Receiver<Event>| async move {
            let event = waiting.recv().await?;
            Some((Ok::<_, Infallible>(event), waiting))
        });
        // Proxies that collect answers are told not to.
        let unbuffered = [(HeaderName::from_static("x-accel-buffering"), "no")];
        let events = Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
        (unbuffered, events).into_response()
    }
}

/// Returns when the caller's token is not valid any more.
async fn until_void(access: Arc<Access>, caller: Caller) {
    while access.is_still(&caller) {
        sleep(TOKEN_LOOK).await;
    }
}

/// The position a reader names, where it does.
pub fn after(headers: &HeaderMap, parameter: Option<i64>) -> Result<Option<i64>, Problem> {
    let last = one(headers, &HeaderName::from_static("last-event-id"))?.filter(|id| !id.is_empty());
    let named = match last {
        None => parameter,
        Some(id) => {
            let position = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
            let rule = "Last-Event-ID must be the id of an earlier event, a position.";
            Some(position.ok_or_else(|| Problem::invalid(rule))?)
        }
    };
    match named {
        Some(position) if position < 0 => {
            Err(Problem::invalid("after must be a position, 0 or more."))
        }
        named => Ok(named),
    }
}
