//! The header with which a proxy names the client of a connection (HAProxy's PROXY protocol, version 2). It
//! is read only from configured proxies, and these must send it.

use std::io::{self, ErrorKind};
use std::net::IpAddr;

use clap::ValueEnum;
use ppp::v2::{Addresses, Command, Header};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Whether the configured proxies send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProxyProtocol {
    /// No header.
    Off,
    /// A header of version 2, on each connection.
    V2,
}

/// The part of a header whose length is fixed.
const FIXED_BYTES: usize = 16;

/// The most that may follow: addresses, and a few fields of the proxy's own.
const MAX_BYTES: usize = 2_048;

/// Reads a header and no byte more. Returns the client, or none for the proxy's own connection.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<IpAddr>> {
    let mut header = vec![0; FIXED_BYTES];
    stream.read_exact(&mut header).await?;
    if !header.starts_with(ppp::v2::PROTOCOL_PREFIX) {
        return Err(ErrorKind::InvalidData.into());
    }
    let more = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if more > MAX_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    header.resize(FIXED_BYTES + more, 0);
    stream.read_exact(&mut header[FIXED_BYTES..]).await?;
    let header = Header::try_from(header.as_slice());
    let header = header.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    Ok(match (header.command, header.addresses) {
        (Command::Local, _) | (_, Addresses::Unspecified | Addresses::Unix(_)) => None,
        (Command::Proxy, Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (Command::Proxy, Addresses::IPv6(addresses)) => {
            Some(IpAddr::from(addresses.source_address).to_canonical())
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    async fn read_of(bytes: &[u8]) -> (Result<Option<IpAddr>, ErrorKind>, usize) {
        let mut rest = bytes;
        let read = read(&mut rest).await.map_err(|error| error.kind());
        (read, rest.len())
    }

    #[tokio::test]
    async fn a_header_is_read_to_its_end_and_no_further() {
        let v4 = [&[0x21, 0x11, 0, 12], &[198, 51, 100, 7, 10, 0, 0, 1, 4, 1, 1, 187][..]].concat();
        let with_more = [&[0x21, 0x11, 0, 16], &v4[4..], &[4, 0, 1, 9]].concat();
        let local = [&[0x20, 0x00, 0, 0][..]].concat();
        let client = Some("198.51.100.7".parse().expect("an address"));
        for (header, expected) in [(v4, client), (with_more, client), (local, None)] {
            let bytes = [SIGNATURE, &header, b"GET /"].concat();
            assert_eq!(read_of(&bytes).await, (Ok(expected), 5));
        }
    }

    #[tokio::test]
    async fn anything_else_is_no_header() {
        let endless = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
        assert_eq!(read_of(&endless).await.0, Err(ErrorKind::InvalidData));
        let version_3 = [SIGNATURE, &[0x31, 0x11, 0, 0]].concat();
        assert_eq!(read_of(&version_3).await.0, Err(ErrorKind::InvalidData));
        let request = b"GET /livez HTTP/1.1\r\n\r\n";
        assert_eq!(read_of(request).await.0, Err(ErrorKind::InvalidData));
        assert_eq!(read_of(SIGNATURE).await.0, Err(ErrorKind::UnexpectedEof));
    }
}
