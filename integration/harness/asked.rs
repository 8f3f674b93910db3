//! A request written out, as a browser or somebody worse writes it, and the whole answer.

use std::collections::HashMap;
use std::fmt::Write;
use std::net::IpAddr;

use serde_json::Value;

use super::pod::Pod;
use super::raw::Raw;

/// An answer as it came.
#[derive(Debug)]
pub struct Asked {
    pub status: u16,
    pub headers: HashMap<String, String>,
    /// Each `Set-Cookie`.
    pub cookies: Vec<String>,
    pub body: Vec<u8>,
}

/// Asks with these headers; those of the connection are added, and `Host` where it is missing.
pub async fn ask(
    pod: &Pod,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Asked {
    let raw = Raw::connect(pod.address).await;
    ask_on(raw, pod, method, path, headers, body).await
}

/// The same from another address of this machine.
pub async fn ask_from(from: IpAddr, pod: &Pod, path: &str, headers: &[(&str, &str)]) -> Asked {
    let raw = Raw::connect_from(pod.address, from).await.expect("a connection");
    ask_on(raw, pod, "GET", path, headers, "").await
}

/// The same on a connection that is there.
pub async fn ask_on(
    mut raw: Raw,
    pod: &Pod,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Asked {
    raw.send(written(pod, method, path, headers, body)).await;
    let heard = raw.ended().await;
    let end = heard.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer") + 4;
    let head = std::str::from_utf8(&heard[..end]).expect("a head in text");
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status");
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let (cookies, _): (Vec<_>, Vec<_>) =
        headers.clone().partition(|(name, _)| name == "set-cookie");
    Asked {
        status: status.parse().expect("a number"),
        headers: headers.collect(),
        cookies: cookies.into_iter().map(|(_, value)| value).collect(),
        body: heard[end..].to_vec(),
    }
}

/// The same request as bytes.
pub fn written(
    pod: &Pod,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> String {
    let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
    let own = [("Host", pod.address.to_string()), ("Content-Length", body.len().to_string())];
    let own = own.iter().map(|(name, value)| (*name, value.as_str()));
    let is_given = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    for (name, value) in headers.iter().copied().chain(own.filter(|(name, _)| !is_given(name))) {
        write!(request, "{name}: {value}\r\n").expect("text");
    }
    format!("{request}\r\n{body}")
}

impl Asked {
    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    /// The last part of a problem's type.
    pub fn problem(&self) -> String {
        let kind = self.json()["type"].as_str().expect("a type").to_owned();
        kind.rsplit(':').next().expect("a part").to_owned()
    }

    /// The cookie it sets: name and value, as a browser sends it back.
    pub fn cookie(&self) -> String {
        let set = self.headers.get("set-cookie").unwrap_or_else(|| panic!("no cookie: {self:?}"));
        set.split(';').next().expect("a pair").to_owned()
    }
}
