//! The signals that end a program.

use anyhow::Context;

/// Resolves on SIGINT (Ctrl-C) or SIGTERM.
pub fn signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal as listen};
    let mut interrupt = listen(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = listen(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
