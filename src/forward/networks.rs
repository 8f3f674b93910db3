//! Which addresses a webhook may be sent to.
//!
//! Whoever names a receiver makes this program open a connection, from inside a network that others cannot reach. So an
//! address is looked at after its name was resolved, and the connection goes to the address that was looked at. Without
//! settings only public addresses are permitted. What is private, local, or a cloud's metadata is permitted only where a
//! network that was named contains it; so is plain text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// IPv4 networks that are not public: the special-purpose registry of IANA (RFC 6890), multicast, and the address at
/// which Azure serves its machines' metadata.
const SPECIAL_V4: [(Ipv4Addr, u8); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Of IPv6 only this is public …
const GLOBAL_V6: (Ipv6Addr, u8) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// … and in it not these: protocols' own (Teredo among them), examples, and 6to4, which leads to an IPv4 address.
const SPECIAL_V6: [(Ipv6Addr, u8); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// The networks that a setting names beside the public addresses.
#[derive(Debug, Clone, Default)]
pub struct Networks {
    named: Vec<IpNet>,
}

impl Networks {
    /// Public addresses, and these networks.
    pub fn new(named: Vec<IpNet>) -> Networks {
        Networks { named }
    }

    /// Whether a connection to this address is permitted: a secure one if it is public, any if its network is named.
    pub fn permit(&self, address: IpAddr, is_secure: bool) -> bool {
        self.name(address) || (is_secure && is_public(address))
    }

    /// An IPv4 address written as one of IPv6 is also named by the IPv4 network that it is in.
    fn name(&self, address: IpAddr) -> bool {
        let plain = address.to_canonical();
        self.named.iter().any(|network| network.contains(&address) || network.contains(&plain))
    }
}

/// Whether an address is one of the public internet. No IPv4 address written as one of IPv6 is.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|network| is_in_v4(address, *network)),
        IpAddr::V6(address) => {
            is_in_v6(address, GLOBAL_V6)
                && !SPECIAL_V6.iter().any(|network| is_in_v6(address, *network))
        }
    }
}

fn is_in_v4(address: Ipv4Addr, (network, bits): (Ipv4Addr, u8)) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (32 - u32::from(bits)) == 0
}

fn is_in_v6(address: Ipv6Addr, (network, bits): (Ipv6Addr, u8)) -> bool {
    (address.to_bits() ^ network.to_bits()) >> (128 - u32::from(bits)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn networks(named: &[&str]) -> Networks {
        Networks::new(named.iter().map(|text| text.parse().expect(text)).collect())
    }

    #[test]
    fn without_settings_only_public_addresses_are_permitted() {
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450:4001::1",
        ];
        for text in public {
            assert!(networks(&[]).permit(address(text), true), "{text}");
            assert!(!networks(&[]).permit(address(text), false), "{text} in plain text");
        }
    }

    #[test]
    fn what_is_private_local_reserved_or_a_clouds_metadata_is_refused() {
        let refused = [
            // Unspecified, loopback, private, shared, link-local.
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "169.254.0.1",
            // Metadata: AWS, Google and Azure; Azure's wire server; Alibaba; Oracle; AWS by IPv6.
            "169.254.169.254",
            "168.63.129.16",
            "100.100.100.200",
            "192.0.0.192",
            "fd00:ec2::254",
            // Examples, benchmarks, relays, multicast, reserved, broadcast.
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "198.18.0.1",
            "198.19.255.255",
            "192.88.99.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            // IPv6: unspecified, loopback, unique local, link-local, site-local, multicast, discard, example.
            "::",
            "::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "2001:db8::1",
            "3fff::1",
            // IPv4 inside IPv6: mapped (also of a public address), compatible, translated, 6to4, Teredo.
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "2002:7f00:1::",
            "2001:0:7f00:1::",
        ];
        for text in refused {
            assert!(!networks(&[]).permit(address(text), true), "{text}");
        }
    }

    #[test]
    fn a_named_network_is_permitted_and_nothing_beside_it() {
        let named = networks(&["10.1.0.0/16", "127.0.0.1/32", "fd00::/8"]);
        for text in ["10.1.2.3", "127.0.0.1", "::ffff:10.1.2.3", "fd12::1"] {
            assert!(named.permit(address(text), true), "{text}");
            assert!(named.permit(address(text), false), "{text} in plain text");
        }
        for text in ["10.2.0.1", "127.0.0.2", "::1", "fe80::1", "169.254.169.254"] {
            assert!(!named.permit(address(text), true), "{text}");
        }
        assert!(named.permit(address("8.8.8.8"), true), "public ones stay permitted");
        assert!(networks(&["::ffff:0:0/96"]).permit(address("::ffff:8.8.8.8"), true));
    }
}
