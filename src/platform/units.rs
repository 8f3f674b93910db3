//! Durations as people write them in settings and options: `15s`, `90d`.

use std::time::Duration;

use anyhow::{Context, bail};

/// The shortest and longest durations any setting takes: tests use short ones; a longer one is a
/// mistake.
const DURATIONS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(24 * 60 * 60);

/// The shortest and longest spans of the log that retention keeps. A pod that lost the answer to an
/// append looks it up in the log, so dropped rows must be older than that.
const SPANS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60 * 60)..=Duration::from_secs(100 * 366 * 24 * 60 * 60);

/// Parses a duration such as `15s` or `250ms` for the named setting.
pub fn duration(name: &str, text: &str) -> anyhow::Result<Duration> {
    let duration = humantime::parse_duration(text)
        .with_context(|| format!("{name} is {text:?}, not a duration such as 15s or 500ms"))?;
    if !DURATIONS.contains(&duration) {
        bail!("{name} is {text:?}: it must be from 10ms to 24h");
    }
    Ok(duration)
}

/// Parses how much of the log is to be kept, such as `90d`, for the named setting.
pub fn span(name: &str, text: &str) -> anyhow::Result<Duration> {
    let span = humantime::parse_duration(text)
        .with_context(|| format!("{name} is {text:?}, not a span such as 90d or 2years"))?;
    if !SPANS.contains(&span) {
        bail!("{name} is {text:?}: it must be from 1h to 100years");
    }
    Ok(span)
}
