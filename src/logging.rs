//! Where log lines go and how they look: to standard error, so that standard output stays clean.

use std::io::IsTerminal;

use anyhow::{Context, bail};
use tracing_subscriber::EnvFilter;

/// Sets logging up from `RUST_LOG` (default `info`) and `GROUNDSTATION_LOG_FORMAT` (`text` or
/// `json`). `default` replaces `info` for commands whose own output is what people came for.
pub fn start(default: &str) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).with_context(|| {
            format!("RUST_LOG is {text:?}, not a filter such as info or groundstation=debug")
        })?,
        _ => EnvFilter::new(default),
    };
    let format = std::env::var("GROUNDSTATION_LOG_FORMAT").unwrap_or_default();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format.as_str() {
        "" | "text" => {
            lines.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init()
        }
        "json" => lines.json().flatten_event(true).try_init(),
        other => bail!("GROUNDSTATION_LOG_FORMAT is {other:?}: it must be text or json"),
    };
    started.map_err(|error| anyhow::anyhow!("cannot set logging up: {error}"))
}
