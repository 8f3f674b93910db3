//! Why the door refused a connection. Each limit has its word, in the metric
//! `groundstation_door_refusals_total{reason}` and in docs/settings.md.

use std::time::Duration;

use strum::{EnumIter, IntoStaticStr};

/// A limit that was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Refusal {
    /// The pod has reached its limit of connections.
    Connections,
    /// The address has reached its limit of connections.
    ConnectionsPerAddress,
    /// The networks around the address have reached their limit of connections.
    ConnectionsPerNetwork,
    /// It was silent, and its place was given to another connection.
    ConnectionShed,
    /// The pod has reached its limit of sockets that are not authenticated.
    Handshakes,
    /// The address has reached its limit of those.
    HandshakesPerAddress,
    /// The networks around the address have reached their limit of those.
    HandshakesPerNetwork,
    /// It did not authenticate, and its place was given to another socket.
    HandshakeShed,
    /// Too many authentications failed at this pod lately, some of them from the address.
    FailedAuthentications,
    /// Too many authentications from the address failed lately.
    FailedAuthenticationsPerAddress,
    /// Too many authentications from the networks around the address failed lately.
    FailedAuthenticationsPerNetwork,
    /// A browser's origin that is not allowed.
    Origin,
    /// A satellite without a client certificate, where each is to show one.
    NoCertificate,
    /// Not authenticated in time.
    AuthenticationTimeout,
    /// The TLS handshake failed.
    Tls,
    /// A proxy did not name the client of its connection.
    ProxyHeader,
    /// The request's headers are too large or too many.
    Headers,
    /// The satellite connects too often.
    ConnectRate,
    /// A frame or a message is too large.
    MessageSize,
    /// Too many messages a second, and slowing it down did not help.
    MessageRate,
    /// A large message did not complete, and others waited for its room.
    LargeMessage,
    /// The client did not read what it was sent.
    WriteTimeout,
    /// The client did not read, and more was to be sent than may wait.
    WriteBuffer,
    /// The framing or its text is invalid.
    Protocol,
}

impl Refusal {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// When another attempt is worth it: soon if others only have to finish, later if too much has gone wrong
    /// already.
    pub fn retry_after(self) -> Duration {
        match self {
            Refusal::FailedAuthentications
            | Refusal::FailedAuthenticationsPerAddress
            | Refusal::FailedAuthenticationsPerNetwork => Duration::from_secs(30),
            _ => Duration::from_secs(1),
        }
    }
}
