//! A reader of the live stream that shares no line with the program. It speaks HTTP/1.0, so that the answer
//! is the events and nothing else, and applies the rules of server-sent events by hand.

use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};

const TRANSITIONS: &str = "/v1/transitions/stream";

/// An open stream.
pub struct Reader {
    lines: BufReader<TcpStream>,
    /// The Last-Event-ID of the next request.
    pub last: Option<String>,
    /// Comments read so far.
    pub comments: u32,
}

/// How an opening was answered.
pub enum Opened {
    Stream(Reader),
    /// Status and body.
    Refused(u16, String),
}

impl Reader {
    /// Opens a stream; `query` begins with `?` or is empty.
    pub async fn try_open(
        address: SocketAddr,
        token: &str,
        query: &str,
        last: Option<&str>,
    ) -> std::io::Result<Opened> {
        Reader::try_open_at(address, &format!("{TRANSITIONS}{query}"), token, last).await
    }

    /// The same at another route, with its query.
    pub async fn try_open_at(
        address: SocketAddr,
        route: &str,
        token: &str,
        last: Option<&str>,
    ) -> std::io::Result<Opened> {
        Reader::over(TcpStream::connect(address).await?, route, token, last).await
    }

    /// Opens a stream with small buffers, so that a reader that does not read soon stops the pod.
    pub async fn open_narrow(address: SocketAddr, token: &str, query: &str) -> Reader {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(16 * 1024).expect("a small buffer");
        let stream = socket.connect(address).await.expect("a connection");
        let route = format!("{TRANSITIONS}{query}");
        match Reader::over(stream, &route, token, None).await.expect("an answer") {
            Opened::Stream(reader) => reader,
            Opened::Refused(status, body) => panic!("{status}: {body}"),
        }
    }

    async fn over(
        mut stream: TcpStream,
        route: &str,
        token: &str,
        last: Option<&str>,
    ) -> std::io::Result<Opened> {
        let last_header = last.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        let request =
            format!("GET {route} HTTP/1.0\r\nAuthorization: Bearer {token}\r\n{last_header}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        if status == 200 {
            assert!(head.to_lowercase().contains("content-type: text/event-stream"), "{head}");
            let last = last.map(str::to_owned);
            return Ok(Opened::Stream(Reader { lines, last, comments: 0 }));
        }
        let mut body = String::new();
        lines.read_to_string(&mut body).await?;
        Ok(Opened::Refused(status, body))
    }

    /// Opens a stream that must not be refused.
    pub async fn open(address: SocketAddr, token: &str, query: &str, last: Option<&str>) -> Reader {
        match Reader::try_open(address, token, query, last).await.expect("an answer") {
            Opened::Stream(reader) => reader,
            Opened::Refused(status, body) => panic!("{status}: {body}"),
        }
    }

    /// The next event that has data; `None` at the end, however the stream ended.
    pub async fn next(&mut self) -> Option<Value> {
        let mut data = String::new();
        loop {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).await.unwrap_or(0);
            // A block that is cut off does not count.
            if read == 0 || !line.ends_with('\n') {
                return None;
            }
            match line.trim_end_matches(['\r', '\n']).split_once(':') {
                None if data.is_empty() => {}
                None => return Some(serde_json::from_str(&data).expect("JSON")),
                Some(("", _)) => self.comments += 1,
                Some(("id", id)) => self.last = Some(id.trim_start().to_owned()),
                Some(("data", more)) => data.push_str(more.trim_start()),
                Some(_) => {}
            }
        }
    }

    /// Reads up to the first comment.
    pub async fn comment(&mut self) {
        let before = self.comments;
        while self.comments == before {
            let mut line = String::new();
            let read = self.lines.read_line(&mut line).await.expect("a line");
            assert!(read > 0, "the stream ended");
            self.comments += u32::from(line.starts_with(':'));
            if let Some(id) = line.strip_prefix("id:") {
                self.last = Some(id.trim().to_owned());
            }
        }
    }

    /// Reads the event without data with which every stream begins.
    pub async fn begun(&mut self) {
        self.last = None;
        self.mark().await;
    }

    /// Reads on to the end of an event that says a position, with or without data.
    pub async fn mark(&mut self) {
        let (mut line, before) = (String::from("…"), self.last.clone());
        while line.trim_end() != "" || self.last == before {
            line.clear();
            assert!(self.lines.read_line(&mut line).await.expect("a line") > 0);
            if let Some(id) = line.strip_prefix("id:") {
                self.last = Some(id.trim().to_owned());
            }
        }
    }
}
