//! Entity tags: which version an answer shows, and which one a writer expects to replace.
//!
//! A tag stands for what administrators wrote, not for the state of a satellite: heartbeats change the answer without
//! changing the tag. So a GET is never answered 304, and If-Match tells writers what matters to them: whether another
//! writer came in between.

use axum::http::{HeaderMap, HeaderName, header};

use super::problem::Problem;
use crate::registry::precondition::{self, Precondition};
use crate::registry::satellites::Invalid;
use crate::registry::satellites::idempotency::Key;

/// The header `ETag` of an answer.
pub type Tag = [(HeaderName, String); 1];

/// The tag of this version.
pub fn tag(version: i64) -> Tag {
    [(header::ETAG, precondition::tag(version))]
}

/// What If-Match expects; `None` if nothing is expected.
pub fn precondition(headers: &HeaderMap) -> Result<Option<Precondition>, Problem> {
    let Some(header) = one(headers, &header::IF_MATCH)? else { return Ok(None) };
    Ok(Precondition::parse(&String::from_utf8_lossy(header)))
}

/// The idempotency key of a request, if it has one.
pub fn key(headers: &HeaderMap) -> Result<Option<Key>, Problem> {
    let name = HeaderName::from_static("idempotency-key");
    Ok(one(headers, &name)?.map(Key::parse).transpose()?)
}

/// The value of a header that may be there once at most.
pub fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        let rule = "must be there once";
        return Err(Invalid { field: name.to_string(), rule: rule.to_owned() }.into());
    }
    Ok(first.map(|value| value.as_bytes()))
}
