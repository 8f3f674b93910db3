//! The bounds of admission, and what an origin or a network may have of them.

use std::time::Duration;

use ipnet::IpNet;

use super::origin::{V4_NETWORKS, V6_NETWORKS};
use super::room::Kind;
use crate::platform::bucket::Rate;

/// The bounds of admission.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections of one pod, before they become WebSockets.
    pub connections: u32,
    /// The same of one origin.
    pub connections_per_address: u32,
    /// Sockets of one pod that are not authenticated yet.
    pub handshakes: u32,
    /// The same of one origin.
    pub handshakes_per_address: u32,
    /// Failed authentications of one pod.
    pub failures: Rate,
    /// The same of one origin.
    pub failures_per_address: Rate,
    /// How long a place may be kept in silence before a newcomer may take it.
    pub patience: Duration,
    /// The most origins and networks to remember.
    pub addresses: usize,
}

impl Bounds {
    /// The most places that an origin may have.
    pub(super) fn share(&self, kind: Kind, proven: f32) -> u32 {
        let (all, per_address) = self.of(kind);
        // No more than half of the room, however many satellites have authenticated.
        per_address.saturating_add(proven as u32).min((all / 2).max(per_address))
    }

    pub(super) fn of(&self, kind: Kind) -> (u32, u32) {
        match kind {
            Kind::Connection => (self.connections, self.connections_per_address),
            Kind::Handshake => (self.handshakes, self.handshakes_per_address),
        }
    }

    /// The failures that an origin or a network may have.
    pub(super) fn failures_of(&self, network: IpNet) -> Rate {
        let networks: &[_] =
            if matches!(network, IpNet::V4(_)) { &V4_NETWORKS } else { &V6_NETWORKS };
        let wider = networks.iter().find(|(length, ..)| *length == network.prefix_len());
        self.failures_per_address.times(wider.map_or(1.0, |(.., failures)| *failures))
    }
}
