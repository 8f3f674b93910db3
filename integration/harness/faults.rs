//! How much of each fault a run injects, and the source of its randomness.
//!
//! `GROUNDSTATION_FAULTS=full` (`make test-faults`) injects every fault in full; other runs a little.
//! `GROUNDSTATION_SEED` repeats the choices of an earlier run; each is printed with the test's output.

use std::sync::OnceLock;

/// Whether this is a full run.
pub fn full() -> bool {
    std::env::var("GROUNDSTATION_FAULTS").is_ok_and(|scale| scale == "full")
}

/// The count for this run, out of one for a plain and one for a full run.
pub fn repetitions(few: u32, many: u32) -> u32 {
    if full() { many } else { few }
}

/// The seed of all randomness of this run.
pub fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| match std::env::var("GROUNDSTATION_SEED") {
        Ok(seed) => seed.parse().expect("GROUNDSTATION_SEED is a number"),
        Err(_) => u64::from(fastrand::u32(..)),
    })
}

/// Randomness for one test: the same for the same seed, whatever other tests do.
pub fn chance(test: &str) -> fastrand::Rng {
    let seed = seed();
    println!("GROUNDSTATION_SEED={seed} ({test})");
    let mixed = test.bytes().fold(seed, |mixed, byte| {
        (mixed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
    });
    fastrand::Rng::with_seed(mixed)
}
