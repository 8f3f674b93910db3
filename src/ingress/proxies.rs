//! PURE: the client address of a request.
//!
//! Anyone can write `X-Forwarded-For`. Its entries count only as far as configured proxies wrote them: the
//! list is read from its end, and the first address that is not a configured proxy is the client.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use clap::ValueEnum;
use ipnet::IpNet;

/// Which header the proxies write. Only that one is read: a proxy passes the other on as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ForwardedHeader {
    /// The addresses, separated by commas.
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

/// The proxies in front of this pod.
#[derive(Debug, Clone)]
pub struct Proxies {
    /// Their networks.
    pub networks: Vec<IpNet>,
    /// The header they write.
    pub header: ForwardedHeader,
}

impl Proxies {
    /// Whether a configured proxy has this address.
    pub fn trust(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The client of a request that `peer` sent with these headers.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        if !self.trust(client) {
            return client;
        }
        let name = match self.header {
            ForwardedHeader::XForwardedFor => "x-forwarded-for",
            ForwardedHeader::Forwarded => "forwarded",
        };
        let lines: Vec<&str> =
            headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
        for hop in lines.iter().rev().flat_map(|line| line.rsplit(',')) {
            let address = match self.header {
                ForwardedHeader::XForwardedFor => parse_address(hop),
                ForwardedHeader::Forwarded => forwarded_for(hop),
            };
            // An unreadable entry ends the chain: the last known hop counts as the client.
            let Some(address) = address else { break };
            client = address.to_canonical();
            if !self.trust(client) {
                break;
            }
        }
        client
    }

    /// Whether one of the proxies says that the client spoke TLS with it. What a client wrote itself only makes its
    /// own answers stricter.
    pub fn say_https(&self, peer: IpAddr, headers: &HeaderMap) -> bool {
        let is_https = |text: &str| text.trim().trim_matches('"').eq_ignore_ascii_case("https");
        let of = |name| headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
        self.trust(peer)
            && match self.header {
                ForwardedHeader::XForwardedFor => {
                    of("x-forwarded-proto").flat_map(|line| line.split(',')).any(is_https)
                }
                ForwardedHeader::Forwarded => of("forwarded")
                    .flat_map(|line| line.split([',', ';']))
                    .filter_map(|pair| pair.split_once('='))
                    .any(|(name, value)| {
                        name.trim().eq_ignore_ascii_case("proto") && is_https(value)
                    }),
            }
    }
}

/// The node of `for=` in one element of `Forwarded`.
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let pairs = element.split(';').filter_map(|pair| pair.split_once('='));
    let mut nodes = pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for"));
    parse_address(nodes.next()?.1.trim().trim_matches('"'))
}

/// An address as proxies write it: with or without brackets, with or without a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    fn proxies(header: ForwardedHeader) -> Proxies {
        let networks = ["10.0.0.0/8", "2001:db8:aa::/48"].map(|net| net.parse().expect("network"));
        Proxies { networks: networks.to_vec(), header }
    }

    fn headers(name: &'static str, lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(name, HeaderValue::from_str(line).expect("a value"));
        }
        headers
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn forwarded_addresses_count_as_far_as_proxies_wrote_them() {
        let cases: [(&str, &[&str], &str); 13] = [
            ("192.0.2.9", &[], "192.0.2.9"),
            ("192.0.2.9", &["198.51.100.1"], "192.0.2.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.2.3.4"], "198.51.100.1"),
            ("10.0.0.1", &["198.51.100.1:4711"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("2001:db8:aa::1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["198.51.100.1, nonsense, 10.2.3.4"], "10.2.3.4"),
        ];
        for (peer, lines, expected) in cases {
            let headers = headers("x-forwarded-for", lines);
            let client = proxies(ForwardedHeader::XForwardedFor).client(ip(peer), &headers);
            assert_eq!(client, ip(expected), "{peer} {lines:?}");
        }
    }

    #[test]
    fn the_standard_header_is_read_where_it_is_the_one_configured() {
        let cases = [
            ("for=198.51.100.1", "198.51.100.1"),
            ("by=203.0.113.43;For=\"198.51.100.1:47011\"; proto=https", "198.51.100.1"),
            ("for=1.1.1.1, for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=198.51.100.1, for=10.1.1.1", "198.51.100.1"),
            ("for=_hidden", "10.0.0.1"),
            ("proto=https", "10.0.0.1"),
        ];
        for (line, expected) in cases {
            let headers = headers("forwarded", &[line]);
            let client = proxies(ForwardedHeader::Forwarded).client(ip("10.0.0.1"), &headers);
            assert_eq!(client, ip(expected), "{line}");
            let other = proxies(ForwardedHeader::XForwardedFor).client(ip("10.0.0.1"), &headers);
            assert_eq!(other, ip("10.0.0.1"), "{line}");
        }
    }

    #[test]
    fn only_proxies_say_that_a_client_spoke_tls() {
        use ForwardedHeader::{Forwarded, XForwardedFor};
        let cases = [
            (XForwardedFor, "10.0.0.1", "x-forwarded-proto", "https", true),
            (XForwardedFor, "10.0.0.1", "x-forwarded-proto", "HTTPS, http", true),
            (XForwardedFor, "10.0.0.1", "x-forwarded-proto", "http", false),
            (XForwardedFor, "192.0.2.9", "x-forwarded-proto", "https", false),
            (XForwardedFor, "10.0.0.1", "forwarded", "proto=https", false),
            (Forwarded, "10.0.0.1", "forwarded", "for=192.0.2.9; Proto=\"https\"", true),
            (Forwarded, "10.0.0.1", "forwarded", "for=192.0.2.9;proto=http", false),
            (Forwarded, "10.0.0.1", "x-forwarded-proto", "https", false),
        ];
        for (header, peer, name, line, expected) in cases {
            let said = proxies(header).say_https(ip(peer), &headers(name, &[line]));
            assert_eq!(said, expected, "{peer} {name}: {line}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_stranger_writes_he_is_who_he_is(line in "[ -~]{0,80}") {
            for (name, header) in [
                ("x-forwarded-for", ForwardedHeader::XForwardedFor),
                ("forwarded", ForwardedHeader::Forwarded),
            ] {
                let headers = headers(name, &[&line]);
                let client = proxies(header).client(ip("192.0.2.9"), &headers);
                prop_assert_eq!(client, ip("192.0.2.9"));
            }
        }

        #[test]
        fn whatever_stands_before_what_the_proxy_wrote_does_not_matter(line in "[ -~]{0,80}") {
            let headers = headers("x-forwarded-for", &[&line, "198.51.100.1"]);
            let client = proxies(ForwardedHeader::XForwardedFor).client(ip("10.0.0.1"), &headers);
            prop_assert_eq!(client, ip("198.51.100.1"));
        }
    }
}
