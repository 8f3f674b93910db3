//! Waiting on what can be observed, never on the clock alone.

use std::time::{Duration, Instant};

/// How long something may take that takes milliseconds on an idle machine. Not a promise: tests of
/// promised times measure them.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until it finds what the test waits for; gives up after [`PATIENCE`] with what it saw last.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look).await
}

/// The same with another patience.
pub async fn within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) if begun.elapsed() > patience => {
                panic!("waited {patience:?} for {what}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Like [`eventually`] for work that blocks: its own thread, so that the test's own tasks go on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("blocking work panicked")
}
