//! Moments that the command line names by how long they are away.

use std::time::Duration;

use anyhow::anyhow;
use time::OffsetDateTime;

use super::exit::wrong_usage;
use crate::contract::wire::Timestamp;

/// The moment this span, such as `12h`, after another; `option` is what named it.
pub fn after(begin: OffsetDateTime, option: &str, span: &str) -> anyhow::Result<Timestamp> {
    let end = humantime::parse_duration(span)
        .ok()
        .and_then(|span: Duration| begin.checked_add(span.try_into().ok()?));
    let end = end.filter(|end| end.year() <= 9999).map(Timestamp::new);
    end.ok_or_else(|| wrong_usage(anyhow!("{option} is {span:?}, not a span such as 12h or 90d")))
}
