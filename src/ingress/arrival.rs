//! What every request carries with it: how it came in, and the way to end its connection.

use std::net::IpAddr;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a request came in; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The other end of the connection: a client, or a proxy.
    pub peer: IpAddr,
    /// The client: the peer, or whom its proxies name.
    pub client: IpAddr,
    /// Until when whoever wants to stay must be authenticated: counted from the acceptance of the
    /// connection for its first request, from its own beginning for a later one.
    pub deadline: Instant,
}

/// The way for a route to end its connection at once, whatever is still to be written; an extension
/// of every request. Dropping an answer is not enough where the other side does not read it.
#[derive(Debug, Clone, Default)]
pub struct ConnectionAbort(pub(super) CancellationToken);

impl ConnectionAbort {
    /// Ends the connection.
    pub fn now(&self) {
        self.0.cancel();
    }
}
