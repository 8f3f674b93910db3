//! The page's files, as `build.rs` found them, and how browsers keep them.
//!
//! A file below `assets/` has a hash in its name and never changes; `index.html` is asked for each time and answered
//! 304 while it is the same. A path without an extension is a place within the page, and gets `index.html`.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{LazyLock, OnceLock};

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::api::problem::Problem;

/// The page, as it was when the program was built: paths and contents.
const EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/console.rs"));

/// The first file.
const INDEX: &str = "index.html";

/// What is answered in place of the page by a program that was built without it.
const NO_PAGE: &str = "This groundstation was built without its page; everything else works.\n\n\
    To get the page: run `make console` and build again (`make run` does both), or take the released image.\n\
    The API is at /v1, described by /openapi.json.\n";

/// A file with a hash in its name is kept for a year; the rest is asked for each time.
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const REVALIDATED: &str = "no-cache";

/// The files of a page.
pub struct Files(HashMap<&'static str, File>);

struct File {
    plain: Bytes,
    /// The same, compressed when it is first asked for; none if that saves nothing.
    zipped: OnceLock<Option<Bytes>>,
    /// The hash of its content.
    hash: String,
    kind: &'static str,
    kept: &'static str,
}

impl Files {
    /// Those that are in this program.
    pub fn embedded() -> &'static Files {
        static FILES: LazyLock<Files> = LazyLock::new(|| Files::of(EMBEDDED));
        &FILES
    }

    fn of(files: &[(&'static str, &'static [u8])]) -> Files {
        Files(files.iter().map(|&(path, bytes)| (path, File::new(path, bytes))).collect())
    }

    /// Whether the program was built with the page.
    pub fn is_built(&self) -> bool {
        self.0.contains_key(INDEX)
    }

    /// The answer for a path below `/console/`.
    pub(super) fn answer(&self, path: &str, asked: &HeaderMap) -> Response {
        let is_place = !path.rsplit('/').next().unwrap_or(path).contains('.');
        if is_place && !self.is_built() {
            return ([(header::CACHE_CONTROL, "no-store")], NO_PAGE).into_response();
        }
        let path = if is_place { INDEX } else { path };
        match self.0.get(path) {
            Some(file) => file.answer(asked),
            None => ([(header::CACHE_CONTROL, "no-store")], Problem::no_route()).into_response(),
        }
    }
}

impl File {
    fn new(path: &str, bytes: &'static [u8]) -> File {
        let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(bytes)[..16]);
        let kept = if path.starts_with("assets/") { IMMUTABLE } else { REVALIDATED };
        let (plain, kind) = (Bytes::from_static(bytes), kind(path));
        File { plain, zipped: OnceLock::new(), hash, kind, kept }
    }

    fn answer(&self, asked: &HeaderMap) -> Response {
        let zipped = takes_gzip(asked).then(|| self.zipped()).flatten();
        // Two forms are two things to a cache.
        let tag = format!("\"{}{}\"", self.hash, if zipped.is_some() { "-gz" } else { "" });
        let known =
            asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|tags| tags.to_str().ok());
        let is_known = known
            .flat_map(|tags| tags.split(','))
            .map(str::trim)
            .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag);
        let mut response = if is_known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            zipped.unwrap_or(&self.plain).clone().into_response()
        };
        let headers = response.headers_mut();
        if !is_known {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
            if zipped.is_some() {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(self.kept));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        // Letters of base64 and quotes are always a value.
        headers.extend(HeaderValue::try_from(tag).ok().map(|tag| (header::ETAG, tag)));
        response
    }

    fn zipped(&self) -> Option<&Bytes> {
        let zipped = self.zipped.get_or_init(|| {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
            gzip.write_all(&self.plain).ok()?;
            let bytes = gzip.finish().ok()?;
            (bytes.len() < self.plain.len() / 10 * 9).then(|| bytes.into())
        });
        zipped.as_ref()
    }
}

fn kind(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" => "application/json",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "woff2" => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// Whether the client takes gzip (RFC 9110, 12.5.3).
fn takes_gzip(asked: &HeaderMap) -> bool {
    let weight_of = |wanted: &str| {
        let lines = asked.get_all(header::ACCEPT_ENCODING).iter();
        let lines = lines.filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).find_map(|coding| {
            let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
            let weight = weight.trim().strip_prefix("q=").unwrap_or("0").parse::<f32>();
            name.trim().eq_ignore_ascii_case(wanted).then(|| weight.unwrap_or(0.0))
        })
    };
    weight_of("gzip").or_else(|| weight_of("*")).is_some_and(|weight| weight > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;
    use std::io::Read;

    const SCRIPT: &[u8] = &[b'x'; 4_000];
    const PAGE: &[(&str, &[u8])] = &[(INDEX, b"<!doctype html>"), ("assets/app-1a2b.js", SCRIPT)];

    async fn ask(
        files: &Files,
        path: &str,
        asked: &[(header::HeaderName, &str)],
    ) -> (u16, HeaderMap, Vec<u8>) {
        let asked = asked
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a value")));
        let (parts, body) = files.answer(path, &asked.collect()).into_parts();
        let body = to_bytes(body, usize::MAX).await.expect("a body");
        (parts.status.as_u16(), parts.headers, body.into())
    }

    #[tokio::test]
    async fn without_the_page_every_place_says_how_to_get_it() {
        let files = Files::of(&[]);
        for place in ["", "satellites/7", "sign-in"] {
            let (status, headers, body) = ask(&files, place, &[]).await;
            let text = String::from_utf8(body).expect("text");
            assert_eq!((status, text.as_str()), (200, NO_PAGE));
            assert_eq!(headers[header::CONTENT_TYPE], "text/plain; charset=utf-8");
        }
        assert_eq!(ask(&files, "assets/app-1a2b.js", &[]).await.0, 404);
        assert!(!files.is_built());
    }

    #[tokio::test]
    async fn places_get_the_page_and_files_only_themselves() {
        let files = Files::of(PAGE);
        for place in ["", "satellites/7", "assets", "a/../b", "%2e%2e/etc/passwd"] {
            let (status, headers, body) = ask(&files, place, &[]).await;
            assert_eq!((status, body.as_slice()), (200, PAGE[0].1), "{place}");
            assert_eq!(headers[header::CACHE_CONTROL], "no-cache");
        }
        for missing in
            ["assets/other.js", "../Cargo.toml", "..", "assets/../index.html", "a/index.html"]
        {
            let (status, headers, _) = ask(&files, missing, &[]).await;
            assert_eq!(status, 404, "{missing}");
            assert_eq!(headers[header::CACHE_CONTROL], "no-store");
        }
    }

    #[tokio::test]
    async fn a_file_is_compressed_for_those_that_take_it_and_sent_once() {
        let (files, path) = (Files::of(PAGE), "assets/app-1a2b.js");
        let gzip = (header::ACCEPT_ENCODING, "br, gzip;q=0.8");
        let (_, plain, body) = ask(&files, path, &[]).await;
        assert_eq!(
            (body.as_slice(), &plain[header::CACHE_CONTROL]),
            (SCRIPT, &IMMUTABLE.parse().expect("a value"))
        );
        let (_, zipped, body) = ask(&files, path, std::slice::from_ref(&gzip)).await;
        assert_eq!(zipped[header::CONTENT_ENCODING], "gzip");
        assert_eq!(zipped[header::VARY], "accept-encoding");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(body.as_slice()).read_to_end(&mut text).expect("gzip");
        assert_eq!(text, SCRIPT);
        assert_ne!(plain[header::ETAG], zipped[header::ETAG]);
        let tag = zipped[header::ETAG].to_str().expect("text").to_owned();
        for (known, expected) in
            [(tag.as_str(), 304), (&format!("\"a\", W/{tag}"), 304), ("\"a\"", 200)]
        {
            let asked = [gzip.clone(), (header::IF_NONE_MATCH, known)];
            let (status, headers, body) = ask(&files, path, &asked).await;
            assert_eq!((status, body.is_empty()), (expected, expected == 304), "{known}");
            assert_eq!(headers[header::ETAG], tag.as_str());
        }
        // A page this short is sent as it is.
        assert!(!ask(&files, "", &[gzip]).await.1.contains_key(header::CONTENT_ENCODING));
    }

    #[test]
    fn gzip_is_sent_only_to_those_that_take_it() {
        let cases = [
            ("gzip", true),
            ("GZIP;q=0.1", true),
            ("*", true),
            ("*;q=1, gzip;q=0", false),
            ("gzip; q=0", false),
            ("gzip;q=none", false),
            ("br, zstd", false),
            ("", false),
        ];
        for (line, expected) in cases {
            let line = HeaderValue::from_str(line).expect("a value");
            assert_eq!(
                takes_gzip(&[(header::ACCEPT_ENCODING, line.clone())].into_iter().collect()),
                expected,
                "{line:?}"
            );
        }
    }
}
