//! A TCP connection on which a test writes any bytes.

use std::net::{IpAddr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::wait::PATIENCE;

/// The request for the satellites' WebSocket, without the empty line at its end.
pub const UPGRADE: &str = "GET /api/ws/satellite HTTP/1.1\r\nHost: pod\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Raw {
    /// Connects and says nothing.
    pub async fn connect(address: SocketAddr) -> Raw {
        let stream = TcpStream::connect(address).await.expect("a connection");
        Raw { stream, read: Vec::new() }
    }

    /// Connects from this address of this machine, and says nothing.
    pub async fn connect_from(address: SocketAddr, from: IpAddr) -> std::io::Result<Raw> {
        let stream = timeout(PATIENCE, stream_from(address, from)).await;
        Ok(Raw { stream: stream.expect("an answer in time")?, read: Vec::new() })
    }

    /// Connects with a receive buffer so small that the other side can soon write no more.
    pub async fn connect_narrow(address: SocketAddr, from: IpAddr) -> std::io::Result<Raw> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(1)?;
        socket.bind(SocketAddr::new(from, 0))?;
        Ok(Raw { stream: socket.connect(address).await?, read: Vec::new() })
    }

    /// Writes as many bytes as there is room for; returns false if the other side is gone.
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        match self.stream.try_write(bytes) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }

    /// Writes these bytes; returns false if the other side is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    /// Reads until these bytes have come; returns everything up to there.
    pub async fn read_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return self.read.drain(..at + end.len()).collect();
            }
            assert!(self.read_some().await, "the connection ended after {:?}", self.read);
        }
    }

    /// Reads the head of an HTTP answer.
    pub async fn head(&mut self) -> String {
        let head = self.read_until(b"\r\n\r\n").await;
        String::from_utf8(head).expect("an answer in text")
    }

    /// Reads until the other side ends the connection; returns what it said before.
    pub async fn ended(&mut self) -> Vec<u8> {
        while self.read_some().await {}
        std::mem::take(&mut self.read)
    }

    /// Closes the writing side and reads to the end; returns what the other side said.
    pub async fn finish(&mut self) -> Vec<u8> {
        // This fails only if the connection has ended.
        self.stream.shutdown().await.ok();
        self.ended().await
    }

    /// Whether these bytes came before the other side ended the connection.
    pub async fn ended_after(&mut self, said: &[u8]) -> bool {
        let heard = self.ended().await;
        heard.windows(said.len()).any(|window| window == said)
    }

    /// Reads until these bytes have come or the other side has ended the connection.
    pub async fn ended_or_said(&mut self, said: &[u8]) {
        while !self.read.windows(said.len()).any(|window| window == said) {
            if !self.read_some().await {
                return;
            }
        }
    }

    async fn read_some(&mut self) -> bool {
        let mut bytes = [0; 4096];
        let read = timeout(PATIENCE, self.stream.read(&mut bytes)).await;
        // A reset is an end too.
        let count = read.expect("the other side says or ends something in time").unwrap_or(0);
        self.read.extend_from_slice(&bytes[..count]);
        count > 0
    }
}

/// A connection from this address of this machine.
pub async fn stream_from(address: SocketAddr, from: IpAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(address).await
}

/// A frame of a client, masked with zeros: `head` is its first byte.
pub fn frame(head: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![head];
    match payload.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        middle @ ..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// The header that a proxy puts in front of a connection from this address.
pub fn introduction(from: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([0x21, 0x11, 0, 12]);
    header.extend(from);
    header.extend([10, 0, 0, 1]);
    header.extend([0x12, 0x34, 0x01, 0xbb]);
    header
}
