//! The door: every connection of this pod, from its acceptance to its requests.
//!
//! It owns the accept loop, TLS, and the limits that hold before authentication. [`Arrival`] tells the routes
//! behind it where a request comes from and when it must be authenticated. A request that has arrived is
//! never cut short here. The door knows nothing of satellites.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use strum::IntoEnumIterator;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::access_log::Access;
use super::admission::{Addresses, Place};
use super::arrival::{Arrival, ClientCertificate, ConnectionAbort};
use super::patient::Patient;
use super::problem::ProblemJson;
use super::proxy_protocol::{self, ProxyProtocol};
use super::refusal::Refusal;
use super::settings::Settings;
use super::tls::Tls;
use crate::platform::bucket::Rate;
use crate::platform::metrics::{Counted, Metrics};

/// Connections that the system completes before they are accepted. Beyond them a client gets no answer and
/// tries again after a second, then after two and four. A fleet that connects at once all reaches the door,
/// which answers those that are too many. The system may have a smaller bound of its own (Linux:
/// `net.core.somaxconn`, 4,096).
const BACKLOG: u32 = 4_096;

/// The pause in accepting when the system has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// What of a request is read at once, beyond its headers. hyper needs at least 8 KiB.
const READ_AHEAD_BYTES: usize = 8 * 1024;

/// Rate of log lines about refused connections: a burst, then one every six seconds.
pub const REFUSALS_TOLD: Rate = Rate { burst: 20.0, per_second: 1.0 / 6.0 };

/// The answer to a request without a single host.
const NO_HOST: &str = "The header Host must be there once.";

/// How long a browser that was here once uses only TLS with this host: two years.
const STRICT_TRANSPORT: &str = "max-age=63072000";

/// Accepts connections and gives each its place.
pub struct Door {
    settings: Settings,
    addresses: Arc<Addresses>,
    tls: Option<Arc<Tls>>,
    metrics: Metrics,
}

impl Door {
    /// The door for probes and metrics, with the same bounds of its own: whatever happens at the other door,
    /// this one answers. It speaks plain text and believes no proxy.
    pub fn for_operators(settings: &Settings, metrics: Metrics) -> anyhow::Result<Arc<Door>> {
        Door::new(
            Settings { tls: None, proxy_protocol: ProxyProtocol::Off, ..settings.clone() },
            metrics,
        )
    }

    /// A door with these settings. Reads the certificate and key, if there are any.
    pub fn new(settings: Settings, metrics: Metrics) -> anyhow::Result<Arc<Door>> {
        let tls = settings.tls.clone().map(Tls::load).transpose().context("TLS")?;
        let addresses = Arc::new(Addresses::new(settings.bounds));
        metrics.show_limits(Refusal::iter().map(Refusal::as_str));
        Ok(Arc::new(Door { settings, addresses, tls: tls.map(Arc::new), metrics }))
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The certificate in use, if TLS is served.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Checks the origin of a browser's request. A request without `Origin` does not come from a browser.
    pub fn check_origin(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let allowed = origins.all(|origin| {
            self.settings
                .allowed_origins
                .iter()
                .any(|allowed| origin.as_bytes().eq_ignore_ascii_case(allowed.as_bytes()))
        });
        if allowed { Ok(()) } else { Err(Refusal::Origin) }
    }

    /// A place for a socket that is not authenticated yet.
    pub fn handshake(&self, client: IpAddr) -> Result<Place, Refusal> {
        let (place, somebody_left) = self.addresses.handshake(client, Instant::now())?;
        if somebody_left {
            self.metrics.refused(Refusal::HandshakeShed);
        }
        Ok(place)
    }

    /// Remembers that a satellite authenticated from there.
    pub fn succeeded(&self, client: IpAddr) {
        self.addresses.succeeded(client, Instant::now());
    }

    /// Remembers a wrong administrator's token from there; false if there were too many lately.
    pub fn wrong_token(&self, client: IpAddr) -> bool {
        self.addresses.wrong_token(client, Instant::now())
    }

    /// What is charged for failures of this client, and whether an authentication from there failed lately and
    /// none succeeded.
    pub fn suspicion(&self, client: IpAddr) -> (IpNet, bool) {
        self.addresses.suspicion(client, Instant::now())
    }

    /// Remembers that an authentication from there failed.
    pub fn failed(&self, client: IpAddr) {
        self.addresses.failed(client, Instant::now());
    }

    /// Remembers that a connection from there had a place and sent nothing, or nothing that is an attempt to
    /// authenticate.
    pub fn silent(&self, client: IpAddr) {
        self.addresses.silent(client, Instant::now());
    }

    /// Accepts and serves connections until `stop`, then until the last request has ended.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        routes: Router,
        stop: CancellationToken,
    ) {
        let connections = TaskTracker::new();
        loop {
            let (stream, peer) = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
                    Err(error) => {
                        rest(&error).await;
                        continue;
                    }
                },
                () = stop.cancelled() => break,
            };
            let now = Instant::now();
            // All connections through a proxy have the proxy's address.
            let counted = (!self.settings.proxies.trust(peer)).then_some(peer);
            match self.addresses.connection(counted, now) {
                Ok((place, somebody_left)) => {
                    if somebody_left {
                        self.metrics.refused(Refusal::ConnectionShed);
                    }
                    let deadline = now + self.settings.authentication_timeout;
                    let is_https = self.tls.is_some();
                    let arrival = Arrival { peer, client: peer, is_https, deadline };
                    let (door, routes) = (self.clone(), routes.clone());
                    connections.spawn(door.connection(
                        stream,
                        arrival,
                        place,
                        routes,
                        stop.clone(),
                    ));
                }
                Err(refusal) => self.metrics.refused(refusal),
            }
            // Whoever is let in already goes first: all that is ready runs before the next connection is
            // accepted. So a pod with too much to do accepts less, and the system keeps the others waiting.
            tokio::task::yield_now().await;
        }
        drop(listener);
        connections.close();
        connections.wait().await;
    }

    /// One connection, until it ends or becomes a WebSocket.
    async fn connection(
        self: Arc<Self>,
        mut stream: TcpStream,
        mut arrival: Arrival,
        mut place: Place,
        routes: Router,
        stop: CancellationToken,
    ) {
        let _counted = Counted::on(&self.metrics.connections);
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        if self.settings.proxy_protocol == ProxyProtocol::V2
            && self.settings.proxies.trust(arrival.peer)
        {
            match self.introduced(&mut stream, &arrival).await {
                Ok(Some((client, of_client))) => {
                    (arrival.peer, arrival.client) = (client, client);
                    if let Some(of_client) = of_client {
                        place = of_client;
                    }
                }
                Ok(None) => {}
                Err(refusal) => return self.metrics.refused(refusal),
            }
        }
        let limit = self.settings.socket.write_timeout;
        let place = Arc::new(place);
        let stream = Patient::new(stream, limit, Arc::downgrade(&place), self.metrics.clone());
        let Some(tls) = &self.tls else {
            let nobody = ClientCertificate::default();
            return self.speak(stream, nobody, arrival, place, routes, stop).await;
        };
        let accepted = tokio::select! {
            accepted = timeout_at(arrival.deadline, tls.accept(stream)) => accepted,
            () = place.shed() => return,
        };
        match accepted {
            Ok(Ok((stream, certificate))) => {
                self.speak(stream, certificate, arrival, place, routes, stop).await;
            }
            Ok(Err(error)) => {
                debug!(%error, "TLS handshake failed");
                self.metrics.refused(Refusal::Tls);
            }
            Err(_) => self.said_nothing(&arrival),
        }
    }

    /// Reads the proxy's header: the client, with a place for it. None if the proxy connects for itself, as
    /// it does to check whether this pod is there.
    async fn introduced(
        &self,
        stream: &mut TcpStream,
        arrival: &Arrival,
    ) -> Result<Option<(IpAddr, Option<Place>)>, Refusal> {
        let read = timeout_at(arrival.deadline, proxy_protocol::read(stream)).await;
        let read = read.map_err(|_| Refusal::ProxyHeader)?;
        let client = read.map_err(|error| {
            debug!(%error, "a proxy's header cannot be read");
            Refusal::ProxyHeader
        })?;
        let Some(client) = client else { return Ok(None) };
        if self.settings.proxies.trust(client) {
            return Ok(Some((client, None)));
        }
        let (place, somebody_left) = self.addresses.connection(Some(client), Instant::now())?;
        if somebody_left {
            self.metrics.refused(Refusal::ConnectionShed);
        }
        Ok(Some((client, Some(place))))
    }

    /// Nothing was sent in time: that is charged to the client's address. A proxy's own connection is charged
    /// to none.
    fn said_nothing(&self, arrival: &Arrival) {
        self.metrics.refused(Refusal::AuthenticationTimeout);
        if !self.settings.proxies.trust(arrival.peer) {
            self.silent(arrival.peer);
        }
    }

    async fn speak(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        certificate: ClientCertificate,
        arrival: Arrival,
        place: Arc<Place>,
        routes: Router,
        stop: CancellationToken,
    ) {
        let limit = self.settings.authentication_timeout;
        let asked = AtomicBool::new(false);
        let abort = ConnectionAbort::default();
        let routes = TowerToHyperService::new(routes);
        let service = service_fn(|mut request: Request<Incoming>| {
            let mut arrival = arrival;
            let mut certificate = certificate.clone();
            if asked.swap(true, Ordering::Relaxed) {
                arrival.deadline = Instant::now() + limit;
                // It was verified in the handshake, and may have run out since.
                certificate = ClientCertificate::default();
            }
            let proxies = &self.settings.proxies;
            arrival.client = proxies.client(arrival.peer, request.headers());
            arrival.is_https |= proxies.say_https(arrival.peer, request.headers());
            let access =
                self.settings.access_log.is_on().then(|| Access::begin(&request, &arrival));
            request.extensions_mut().insert(arrival);
            request.extensions_mut().insert(certificate);
            request.extensions_mut().insert(abort.clone());
            let is_for_a_host = has_its_host(&request);
            let busy = Busy::new(place.clone());
            let request = request.map(|body| Asked::new(body, &place));
            let answer = routes.call(request);
            let is_tls = self.tls.is_some();
            async move {
                let mut answer: Response = match is_for_a_host {
                    true => answer.await?,
                    false => no_host().into_response(),
                };
                let headers = answer.headers_mut();
                headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
                if is_tls {
                    let always = HeaderValue::from_static(STRICT_TRANSPORT);
                    headers.insert(header::STRICT_TRANSPORT_SECURITY, always);
                }
                if let Some(access) = access {
                    access.answered(answer.status());
                }
                Ok::<_, Infallible>(answer.map(|body| Answer { body, _busy: busy }))
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limit);
        http.max_header_size(self.settings.max_header_bytes);
        http.max_buf_size(self.settings.max_header_bytes + READ_AHEAD_BYTES);
        let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let (mut waiting, mut stopping) = (true, false);
        loop {
            tokio::select! {
                ended = connection.as_mut() => return self.tell(ended, &asked, &arrival),
                () = abort.0.cancelled() => return,
                () = place.shed() => return,
                () = sleep_until(arrival.deadline), if waiting => {
                    waiting = false;
                    if !asked.load(Ordering::Relaxed) {
                        return self.said_nothing(&arrival);
                    }
                    // A request that has arrived gets its answer, however long that takes.
                }
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    fn tell(&self, ended: hyper::Result<()>, asked: &AtomicBool, arrival: &Arrival) {
        let Err(error) = ended else { return };
        debug!(%error, "a connection ended early");
        if error.is_parse_too_large() {
            self.metrics.refused(Refusal::Headers);
        } else if error.is_timeout() && !asked.load(Ordering::Relaxed) {
            self.said_nothing(arrival);
        }
    }
}

/// Whether a request names its host exactly once, as it must from HTTP/1.1 on (RFC 9112, 3.2).
fn has_its_host<B>(request: &Request<B>) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    hosts == 1 || (hosts == 0 && request.version() < Version::HTTP_11)
}

fn no_host() -> ProblemJson {
    ProblemJson::new(StatusCode::BAD_REQUEST, "no-host", "No host", NO_HOST)
}

/// While this exists, a request of the place's connection is served, or awaited in full ([`Asked`]).
struct Busy(Arc<Place>);

impl Busy {
    fn new(place: Arc<Place>) -> Busy {
        place.is_busy();
        Busy(place)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_silent();
    }
}

/// The body of a request. As long as it is not there it is the client's turn to send: the place can be taken, or slow
/// bodies would hold all of them for as long as their senders like.
struct Asked {
    body: Incoming,
    /// The place, until the body is there.
    awaited_at: Option<Arc<Place>>,
}

impl Asked {
    fn new(body: Incoming, place: &Arc<Place>) -> Asked {
        let is_awaited = !body.is_end_stream();
        if is_awaited {
            place.is_silent();
        }
        Asked { body, awaited_at: is_awaited.then(|| place.clone()) }
    }
}

impl HttpBody for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let is_there = matches!(polled, Poll::Ready(None)) || self.body.is_end_stream();
        if is_there && let Some(place) = self.awaited_at.take() {
            place.is_busy();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer, until all of it is written or given up.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The socket to accept connections from. A pod that just ended may have left the address in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if cfg!(unix) {
        socket.set_reuseaddr(true)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Pauses after a failed accept. A connection that broke before it was accepted is no reason to; other
/// errors, such as no file descriptor left, pass with time.
async fn rest(error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    if ![ConnectionAborted, ConnectionRefused, ConnectionReset].contains(&error.kind()) {
        warn!(%error, "cannot accept connections");
        sleep(ACCEPT_PAUSE).await;
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
