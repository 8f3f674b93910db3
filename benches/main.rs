//! Speed and cost, each figure beside a baseline that is measured in the same run: machines differ
//! and are noisy, ratios less so.
//!
//! `make bench` runs all of it in some minutes; `make bench SECTIONS="edges latency"` a part. It
//! uses a private Postgres (fsync on) and nats-server, real pods and real sockets. The load comes
//! from `groundstation simulate` on the same cores, whose own cost is shown beside.
//!
//! Under `cargo test` the same code runs in its smoke form, with a hundredth of everything and some
//! sections at once, to show that it works: its figures mean nothing and none is asserted.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bare;
mod cpu;
mod day;
mod death;
mod edges;
mod engine;
mod fleet;
mod growth;
mod history;
mod hundred;
mod idle;
mod latency;
mod load;
mod pod;
mod rest;
mod silence;
mod size;
mod stores;
mod sweep;
mod table;
mod timing;

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A section's name and the function that measures it.
type Section = (&'static str, fn(Scale));

const SECTIONS: [Section; 13] = [
    ("edges", edges::measure),
    ("load", load::measure),
    ("rest", rest::measure),
    ("hundred", hundred::measure),
    ("latency", latency::measure),
    ("silence", silence::measure),
    ("idle", idle::measure),
    ("sweep", sweep::measure),
    ("death", death::measure),
    ("history", history::measure),
    ("day", day::measure),
    ("growth", growth::measure),
    ("size", size::measure),
];

/// The size of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// As large as the aims say.
    Full,
    /// As small as shows that it works.
    Smoke,
}

impl Scale {
    /// One value or the other.
    pub fn choose<T>(self, full: T, smoke: T) -> T {
        if self == Scale::Full { full } else { smoke }
    }
}

/// Sections of a smoke run that run at once: most of their time they wait.
const AT_ONCE: usize = 4;

fn main() {
    // `cargo bench` passes `--bench`, `cargo test` does not.
    let full = std::env::args().any(|argument| argument == "--bench");
    let scale = if full { Scale::Full } else { Scale::Smoke };
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if scale == Scale::Smoke && wanted.is_empty() {
        table::head(scale);
        smoke();
        return;
    }
    if scale == Scale::Full {
        table::head(scale);
    }
    for (name, measure) in SECTIONS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            measure(scale);
        }
    }
}

/// Runs each section in a process of its own, so that what they print stays together.
fn smoke() {
    let this = std::env::current_exe().expect("this program");
    let next = AtomicUsize::new(0);
    let run = || {
        while let Some((name, _)) = SECTIONS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let ran = Command::new(&this).arg(name).output().expect("this program runs");
            let (told, complaints) = (ran.stdout, String::from_utf8_lossy(&ran.stderr));
            std::io::stdout().lock().write_all(&told).expect("somebody reads");
            assert!(ran.status.success(), "the section {name} failed: {complaints}");
        }
    };
    std::thread::scope(|scope| (0..AT_ONCE).for_each(|_| drop(scope.spawn(run))));
}
