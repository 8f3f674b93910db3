//! To whom a connection is charged.

use std::net::IpAddr;

use ipnet::IpNet;

/// A wider network, by the length of its prefix: how many times an origin's share of a room it has, and how
/// many times its failures.
pub(super) const V4_NETWORKS: [(u8, u32, f32); 1] = [(24, 4, 8.0)];
pub(super) const V6_NETWORKS: [(u8, u32, f32); 2] = [(56, 4, 8.0), (48, 8, 64.0)];

/// The origin of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) own: IpNet,
    address: IpAddr,
}

impl From<IpAddr> for Origin {
    fn from(address: IpAddr) -> Origin {
        let address = address.to_canonical();
        Origin { own: network(address, if address.is_ipv4() { 32 } else { 64 }), address }
    }
}

impl Origin {
    /// The networks around it, each with how many times an origin's share and how many times its failures it
    /// has.
    pub(super) fn networks(self) -> impl Iterator<Item = (IpNet, u32, f32)> {
        let networks: &[_] = if self.address.is_ipv4() { &V4_NETWORKS } else { &V6_NETWORKS };
        networks.iter().map(move |(length, share, failures)| {
            (network(self.address, *length), *share, *failures)
        })
    }

    pub(super) fn and_its_networks(self) -> impl Iterator<Item = IpNet> {
        std::iter::once(self.own).chain(self.networks().map(|(network, ..)| network))
    }
}

/// Every length above is valid for its address family.
fn network(address: IpAddr, length: u8) -> IpNet {
    IpNet::new(address, length).unwrap_or_else(|_| IpNet::from(address)).trunc()
}
