//! What every request carries: how it arrived, and a way to end its connection.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a request arrived; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The other end of the connection: a client, or a proxy.
    pub peer: IpAddr,
    /// The client: the peer, or the address that its proxies name.
    pub client: IpAddr,
    /// Whether the client spoke TLS, with this door or with its proxies. A proxy that says nothing counts as none.
    pub is_https: bool,
    /// When a client that stays must have authenticated. It counts from the connection's acceptance for the
    /// first request, and from the request's own beginning for a later one.
    pub deadline: Instant,
}

/// The names in the certificate that the client showed, which was verified: the common names of its subject, its DNS
/// names and its URIs. None where it showed none. An extension of every request.
#[derive(Debug, Clone, Default)]
pub struct ClientCertificate(pub Option<Arc<[String]>>);

/// Lets a route end its connection at once, whatever is still to be written; an extension of every request.
/// Dropping an answer is not enough if the client does not read it.
#[derive(Debug, Clone, Default)]
pub struct ConnectionAbort(pub(super) CancellationToken);

impl ConnectionAbort {
    /// Ends the connection.
    pub fn now(&self) {
        self.0.cancel();
    }
}
