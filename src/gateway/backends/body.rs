//! Bodies of satellites' messages as they are passed on: the text as received, with the real source, cut to
//! what the bus carries.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

/// The largest field that a truncated body keeps, other than the result: names, numbers and times, but no
/// long text.
const MAX_KEPT_BYTES: usize = 1024;

/// The field with a check's findings, of any length.
const RESULT: &str = "result";

/// The source of a message.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The satellite.
    pub id: Uuid,
    /// Its name for people.
    pub label: &'a str,
}

/// A body that can be published.
#[derive(Debug, PartialEq, Eq)]
pub struct Body {
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether something was cut off.
    pub truncated: bool,
}

type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// The body of a message as received, with its source. A source that the message itself names is replaced.
/// Numbers and texts keep their notation.
pub fn with_source(text: &str, source: Source<'_>) -> Result<Bytes, serde_json::Error> {
    let written = Written::of(source)?;
    let fields = written.put_into(serde_json::from_str(text)?);
    to_bytes(&fields, text.len())
}

/// The same for a result, in at most `limit` bytes: its findings may be cut off, its status and time are
/// kept.
pub fn of_result(text: &str, source: Source<'_>, limit: usize) -> Result<Body, serde_json::Error> {
    let written = Written::of(source)?;
    let fields = written.put_into(serde_json::from_str(text)?);
    if text.len() <= limit {
        let bytes = to_bytes(&fields, text.len())?;
        if bytes.len() <= limit {
            return Ok(Body { bytes, truncated: false });
        }
    }
    Ok(Body { bytes: without_result(fields)?, truncated: true })
}

/// Truncates a body that was built whole and turned out to be too large.
pub fn truncated(body: &[u8]) -> Result<Bytes, serde_json::Error> {
    without_result(serde_json::from_slice(body)?)
}

/// A source, serialized.
struct Written {
    id: Box<RawValue>,
    label: Box<RawValue>,
}

impl Written {
    fn of(source: Source<'_>) -> Result<Written, serde_json::Error> {
        Ok(Written { id: to_raw_value(&source.id)?, label: to_raw_value(source.label)? })
    }

    fn put_into<'a>(&'a self, mut fields: Fields<'a>) -> Fields<'a> {
        fields.insert("sourceId".into(), &self.id);
        fields.insert("sourceLabel".into(), &self.label);
        fields
    }
}

fn to_bytes(fields: &Fields<'_>, about: usize) -> Result<Bytes, serde_json::Error> {
    // Reserves space for the source, so that a large body is not moved for a few more bytes.
    let mut bytes = Vec::with_capacity(about + MAX_KEPT_BYTES);
    serde_json::to_writer(&mut bytes, fields)?;
    Ok(bytes.into())
}

fn without_result(mut fields: Fields<'_>) -> Result<Bytes, serde_json::Error> {
    let mut left_out = 0;
    fields.retain(|name, value| {
        let kept = name != RESULT && name.len() + value.get().len() <= MAX_KEPT_BYTES;
        if !kept {
            left_out += value.get().len();
        }
        kept
    });
    let instead = to_raw_value(&json!({"truncated": true, "bytes": left_out}))?;
    let mut fields: Fields<'_> = fields;
    fields.insert(RESULT.into(), &instead);
    to_bytes(&fields, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: Source<'_> = Source { id: Uuid::nil(), label: "edge \"1\" (eu)" };

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).expect("text")
    }

    #[test]
    fn what_is_passed_on_is_what_was_said_and_who_really_said_it() {
        let said = r#"{"type":"result","latencyMs":1.50,"big":123456789012345678901234567890,
                       "sourceId":"somebody else","sourceLabel":"x","a":"\u00e4"}"#;
        let expected = r#"{"a":"\u00e4","big":123456789012345678901234567890,"latencyMs":1.50,"sourceId":"00000000-0000-0000-0000-000000000000","sourceLabel":"edge \"1\" (eu)","type":"result"}"#;
        assert_eq!(text(&with_source(said, SOURCE).expect("json")), expected);
        let body = of_result(said, SOURCE, 10_000).expect("json");
        assert_eq!((text(&body.bytes), body.truncated), (expected, false));
    }

    #[test]
    fn of_what_is_too_large_the_result_gives_way_and_says_how_large_it_was() {
        let page = format!(r#"{{"page":"{}"}}"#, "x".repeat(5_000));
        let said = format!(
            r#"{{"type":"result","status":"degraded","latencyMs":1.50,"result":{page},"note":"n"}}"#
        );
        let expected = format!(
            r#"{{"latencyMs":1.50,"note":"n","result":{{"bytes":{},"truncated":true}},"sourceId":"00000000-0000-0000-0000-000000000000","sourceLabel":"edge \"1\" (eu)","status":"degraded","type":"result"}}"#,
            page.len()
        );
        let body = of_result(&said, SOURCE, 4_000).expect("json");
        assert_eq!((text(&body.bytes), body.truncated), (expected.as_str(), true));
        // Truncated later, the body is the same.
        let whole = of_result(&said, SOURCE, 10_000).expect("json");
        assert!(!whole.truncated);
        assert_eq!(text(&truncated(&whole.bytes).expect("json")), expected);
    }

    #[test]
    fn it_is_held_to_the_bytes_with_the_source_and_not_without() {
        let said = format!(r#"{{"type":"result","result":{{"page":"{}"}}}}"#, "x".repeat(2_000));
        let whole = with_source(&said, SOURCE).expect("json").len();
        for (limit, truncated) in [(whole, false), (whole - 1, true), (said.len() - 1, true)] {
            let body = of_result(&said, SOURCE, limit).expect("json");
            assert_eq!(body.truncated, truncated, "{limit}");
            assert!(body.bytes.len() <= limit);
        }
    }

    #[test]
    fn another_field_that_is_too_large_gives_way_as_well() {
        let said = format!(r#"{{"type":"result","other":"{}"}}"#, "x".repeat(2_998));
        let body = of_result(&said, SOURCE, 2_000).expect("json");
        let body: serde_json::Value = serde_json::from_slice(&body.bytes).expect("json");
        assert_eq!(body["result"], json!({"truncated": true, "bytes": 3_000}));
        assert_eq!(body.get("other"), None);
    }
}
