//! Waiting for observations, never for the clock alone.

use std::time::{Duration, Instant};

/// How long work of milliseconds on an idle machine may take. This is no promise: tests of promised times
/// measure them.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until it finds what the test waits for; gives up after [`PATIENCE`] and shows what it saw last.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look).await
}

/// The same with another patience.
pub async fn within<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    waiting(patience, what, async || look().await.map_err(|seen| (0, seen))).await
}

/// Like [`eventually`] for work whose time grows with its amount: goes on as long as it makes progress. A
/// look that fails says how far it is.
pub async fn as_long_as_it_gets_further<T>(
    what: &str,
    look: impl AsyncFnMut() -> Result<T, (usize, String)>,
) -> T {
    waiting(PATIENCE, what, look).await
}

async fn waiting<T>(
    patience: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, (usize, String)>,
) -> T {
    let (mut since, mut reached) = (Instant::now(), 0);
    loop {
        let looked = Instant::now();
        match look().await {
            Ok(found) => return found,
            Err((far, _)) if far != reached => (since, reached) = (Instant::now(), far),
            Err((_, seen)) if since.elapsed() > patience => {
                panic!("waited {patience:?} for {what}; last seen: {seen}")
            }
            Err(_) => {}
        }
        // After a long look, the thing looked at gets as much time.
        tokio::time::sleep(PAUSE.max(looked.elapsed())).await;
    }
}

/// Like [`eventually`] for work that blocks. It runs on a thread of its own, so that the test's tasks go on.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("blocking work panicked")
}
