//! Durations.

use std::time::Instant;

/// The shortest of several runs, in seconds.
pub fn best(times: usize, mut run: impl FnMut()) -> f64 {
    (0..times).fold(f64::MAX, |best, _| {
        let began = Instant::now();
        run();
        best.min(began.elapsed().as_secs_f64())
    })
}
