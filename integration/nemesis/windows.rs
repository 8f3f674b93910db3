//! The windows of the faults, as they really began and ended: what could be expected when. Pure but for the
//! lock.
//!
//! A fault's window begins before anything is done and ends after everything is undone, so that it is
//! never shorter than its effect. The caller adds the time the world takes to settle afterwards.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// What a fault hampers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hampered {
    /// The pod does not run, or not freely.
    Pod(usize),
    /// The pod's way to the database.
    Database(usize),
    /// The pod's way to NATS.
    Nats(usize),
    /// The satellites' way to the pod.
    Line(usize),
    Postgres,
    NatsServer,
    Lease,
    /// A fault holds the satellite's rows, or changes its identity.
    Satellite(usize),
    /// This machine is too busy to be judged.
    Machine,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    what: Hampered,
    from: Instant,
    /// `None` while it lasts.
    to: Option<Instant>,
}

#[derive(Default)]
pub struct Windows(Mutex<Vec<Window>>);

/// A window that is open.
pub struct Open(usize);

impl Windows {
    pub fn begin(&self, what: Hampered) -> Open {
        let mut windows = self.0.lock().expect("windows");
        windows.push(Window { what, from: Instant::now(), to: None });
        Open(windows.len() - 1)
    }

    pub fn end(&self, open: Open) {
        self.0.lock().expect("windows")[open.0].to = Some(Instant::now());
    }

    /// Adds a window that was found afterwards.
    pub fn note(&self, what: Hampered, from: Instant, to: Instant) {
        self.0.lock().expect("windows").push(Window { what, from, to: Some(to) });
    }

    /// Whether none of these was hampered at any moment between.
    pub fn clear(&self, among: impl Fn(Hampered) -> bool, from: Instant, to: Instant) -> bool {
        let windows = self.0.lock().expect("windows");
        let overlaps = |w: &Window| w.from <= to && w.to.is_none_or(|end| end >= from);
        !windows.iter().any(|window| among(window.what) && overlaps(window))
    }

    /// Since when none of these is hampered: `None` while one is.
    pub fn clear_since(&self, among: impl Fn(Hampered) -> bool, start: Instant) -> Option<Instant> {
        let windows = self.0.lock().expect("windows");
        let mut those = windows.iter().filter(|window| among(window.what));
        those.try_fold(start, |since, window| Some(since.max(window.to?)))
    }

    /// Since when each of these is as it is now, hampered or not.
    pub fn unchanged_since(&self, among: impl Fn(Hampered) -> bool, start: Instant) -> Instant {
        let windows = self.0.lock().expect("windows");
        let those = windows.iter().filter(|window| among(window.what));
        those.fold(start, |since, window| since.max(window.to.unwrap_or(window.from)))
    }

    /// When the last of these that is over by `now` ended, if not before `start`; and since when one is
    /// hampered that is not over.
    pub fn last_end(
        &self,
        among: impl Fn(Hampered) -> bool,
        start: Instant,
        now: Instant,
    ) -> (Instant, Option<Instant>) {
        let windows = self.0.lock().expect("windows");
        let those = windows.iter().filter(|window| among(window.what) && window.from <= now);
        those.fold((start, None), |(end, open), window| match window.to {
            Some(to) if to <= now => (end.max(to), open),
            _ => (end, open.max(Some(window.from))),
        })
    }

    /// The moment so long before `to` that `length` of the time between was free of this.
    pub fn back(&self, what: Hampered, to: Instant, length: Duration) -> Instant {
        let windows = self.0.lock().expect("windows");
        let mut spans: Vec<(Instant, Instant)> = windows
            .iter()
            .filter(|window| window.what == what && window.from < to)
            .map(|window| (window.from, window.to.unwrap_or(to).min(to)))
            .collect();
        spans.sort();
        let (mut until, mut left) = (to, length);
        while let Some((from, end)) = spans.pop() {
            let free = until.saturating_duration_since(end);
            if free >= left {
                break;
            }
            left -= free;
            until = until.min(from);
        }
        until.checked_sub(left).unwrap_or(until)
    }
}

mod tests {
    use super::*;

    fn seconds(base: Instant, seconds: u64) -> Instant {
        base + Duration::from_secs(seconds)
    }

    fn windows(base: Instant) -> Windows {
        let windows = Windows::default();
        windows.note(Hampered::Postgres, seconds(base, 10), seconds(base, 20));
        windows.note(Hampered::Pod(1), seconds(base, 30), seconds(base, 40));
        windows
    }

    #[test]
    fn time_is_clear_where_nothing_asked_for_overlaps() {
        let base = Instant::now();
        let windows = windows(base);
        let postgres = |what| what == Hampered::Postgres;
        assert!(windows.clear(postgres, base, seconds(base, 9)));
        assert!(!windows.clear(postgres, base, seconds(base, 11)));
        assert!(!windows.clear(postgres, seconds(base, 12), seconds(base, 13)));
        assert!(windows.clear(postgres, seconds(base, 21), seconds(base, 50)));
        assert_eq!(windows.clear_since(|_| true, base), Some(seconds(base, 40)));
        let last_end =
            |start, now| windows.last_end(|_| true, seconds(base, start), seconds(base, now));
        assert_eq!(last_end(0, 25), (seconds(base, 20), None));
        assert_eq!(last_end(21, 25), (seconds(base, 21), None));
        assert_eq!(last_end(0, 35), (seconds(base, 20), Some(seconds(base, 30))));
        windows.begin(Hampered::Lease);
        assert_eq!(windows.clear_since(|_| true, base), None);
        assert_eq!(windows.clear_since(postgres, base), Some(seconds(base, 20)));
    }

    #[test]
    fn going_back_passes_over_what_was_hampered() {
        let base = Instant::now();
        let windows = windows(base);
        let back = |to, length| {
            windows.back(Hampered::Postgres, seconds(base, to), Duration::from_secs(length))
        };
        assert_eq!(back(30, 5), seconds(base, 25));
        assert_eq!(back(30, 12), seconds(base, 8));
        assert_eq!(back(15, 3), seconds(base, 7));
        assert_eq!(back(9, 3), seconds(base, 6));
    }
}
