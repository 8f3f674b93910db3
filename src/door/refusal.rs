//! Why somebody was turned away at the door: each limit has its word, in the metric
//! `groundstation_door_refusals_total{reason}` and in docs/settings.md.

use std::time::Duration;

/// A limit that was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The pod has as many connections as it takes.
    Connections,
    /// The address has as many connections as it may.
    ConnectionsPerAddress,
    /// The pod has as many sockets that are not authenticated as it takes.
    Handshakes,
    /// The address has as many of those as it may.
    HandshakesPerAddress,
    /// Too many authentications failed at this pod lately.
    FailedAuthentications,
    /// Too many authentications from the address failed lately.
    FailedAuthenticationsPerAddress,
    /// A browser's origin that is not allowed.
    Origin,
    /// Not authenticated in time.
    AuthenticationTimeout,
    /// The TLS handshake failed.
    Tls,
    /// The request's headers are too large or too many.
    Headers,
    /// A frame or a message is too large.
    MessageSize,
    /// Too many messages a second, and slowing it down did not help.
    MessageRate,
    /// A large message did not come to an end, and others waited for its room.
    LargeMessage,
    /// It did not read what it was sent.
    WriteTimeout,
    /// It did not read, and more is to be sent than may wait.
    WriteBuffer,
    /// The framing or its text is broken.
    Protocol,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 16] = [
        Refusal::Connections,
        Refusal::ConnectionsPerAddress,
        Refusal::Handshakes,
        Refusal::HandshakesPerAddress,
        Refusal::FailedAuthentications,
        Refusal::FailedAuthenticationsPerAddress,
        Refusal::Origin,
        Refusal::AuthenticationTimeout,
        Refusal::Tls,
        Refusal::Headers,
        Refusal::MessageSize,
        Refusal::MessageRate,
        Refusal::LargeMessage,
        Refusal::WriteTimeout,
        Refusal::WriteBuffer,
        Refusal::Protocol,
    ];

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Refusal::Connections => "connections",
            Refusal::ConnectionsPerAddress => "connections_per_address",
            Refusal::Handshakes => "handshakes",
            Refusal::HandshakesPerAddress => "handshakes_per_address",
            Refusal::FailedAuthentications => "failed_authentications",
            Refusal::FailedAuthenticationsPerAddress => "failed_authentications_per_address",
            Refusal::Origin => "origin",
            Refusal::AuthenticationTimeout => "authentication_timeout",
            Refusal::Tls => "tls",
            Refusal::Headers => "headers",
            Refusal::MessageSize => "message_size",
            Refusal::MessageRate => "message_rate",
            Refusal::LargeMessage => "large_message",
            Refusal::WriteTimeout => "write_timeout",
            Refusal::WriteBuffer => "write_buffer",
            Refusal::Protocol => "protocol",
        }
    }

    /// When it is worth trying again: soon where others only have to finish, later where too much
    /// has gone wrong already.
    pub fn retry_after(self) -> Duration {
        match self {
            Refusal::FailedAuthentications | Refusal::FailedAuthenticationsPerAddress => {
                Duration::from_secs(30)
            }
            _ => Duration::from_secs(1),
        }
    }
}
