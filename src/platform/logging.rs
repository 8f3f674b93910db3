//! Log lines and their format. They go to standard error, so that standard output stays clean.

use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;

use anstream::{AutoStream, ColorChoice};
use anyhow::{Context, bail};
use tracing::Metadata;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::layer::{Filter, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::platform::trace::export::Exporter;

/// Sets logging up from `RUST_LOG` (default `info`) and `GROUNDSTATION_LOG_FORMAT` (`text` or
/// `json`). `default` replaces `info` for commands whose output matters more than the log.
pub fn start(default: &str) -> anyhow::Result<()> {
    start_with(default, None)
}

/// The same for a pod. Its spans go to a collector if the environment names one. The exporter sends
/// the last spans when it is dropped.
pub fn start_pod() -> anyhow::Result<Option<Exporter>> {
    let exporter = Exporter::from_environment()?;
    start_with("info", exporter.as_ref())?;
    if exporter.is_some() {
        tracing::info!("spans are exported");
    }
    Ok(exporter)
}

fn start_with(default: &str, exporter: Option<&Exporter>) -> anyhow::Result<()> {
    let lines = fmt::layer().with_writer(std::io::stderr);
    let is_coloured = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
    let format = std::env::var("GROUNDSTATION_LOG_FORMAT").unwrap_or_default();
    let lines = match format.as_str() {
        "" | "text" => lines.with_ansi(is_coloured).with_target(false).boxed(),
        "json" => lines.json().flatten_event(true).boxed(),
        other => bail!("GROUNDSTATION_LOG_FORMAT is {other:?}: it must be text or json"),
    };
    let spans = exporter.map(Exporter::layer);
    let all = tracing_subscriber::registry().with(lines.with_filter(filter(default)?)).with(spans);
    all.try_init().map_err(|error| anyhow::anyhow!("cannot set logging up: {error}"))?;
    tracing::trace!("everything is logged that may be");
    Ok(())
}

/// Sets logging up to append to a file, for a command whose terminal shows something else.
pub fn start_file(path: &Path) -> anyhow::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path);
    let file = file.with_context(|| format!("cannot write {}", path.display()))?;
    let lines = fmt::layer().with_writer(Arc::new(file)).with_ansi(false).with_target(false);
    let started =
        tracing_subscriber::registry().with(lines.with_filter(filter("info")?)).try_init();
    started.map_err(|error| anyhow::anyhow!("cannot set logging up: {error}"))
}

/// These print whole frames, messages and all parameters of statements: tokens, their digests, secrets. So no line of
/// theirs below these levels is ever logged, however exactly `RUST_LOG` names one of their modules. At `info`
/// async-nats logs each connection twice; `nats.rs` logs what matters of it.
const INDISCREET: [(&str, LevelFilter); 7] = [
    ("tungstenite", LevelFilter::INFO),
    ("tokio_tungstenite", LevelFilter::INFO),
    ("tokio_postgres", LevelFilter::INFO),
    ("async_nats", LevelFilter::WARN),
    ("ureq", LevelFilter::INFO),
    ("ureq_proto", LevelFilter::INFO),
    // Spans are for a collector.
    ("groundstation::spans", LevelFilter::OFF),
];

fn is_discreet(line: &Metadata<'_>) -> bool {
    let is_of = |module: &str| {
        let rest = line.target().strip_prefix(module);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    };
    let bound = INDISCREET.iter().find(|(module, _)| is_of(module));
    bound.is_none_or(|(_, level)| line.level() <= level)
}

fn filter(default: &str) -> anyhow::Result<impl Filter<Registry> + use<>> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).with_context(|| {
            format!("RUST_LOG is {text:?}, not a filter such as info or groundstation=debug")
        })?,
        _ => EnvFilter::new(default),
    };
    // Without a hint of its own it would hide that of the other, and every line below it would be made first.
    Ok(filter.and(filter_fn(is_discreet).with_max_level_hint(LevelFilter::TRACE)))
}
