//! The verdicts so far: how often each promise was judged, and what broke it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use super::timeline::Timeline;

/// This many breaches of each promise are printed; the rest are counted.
const TOLD: u64 = 10;

/// The promises. The words are those of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    LogIsDense,
    StreamSkipsNothing,
    LiveStreamSkipsNothing,
    FeedDoesNotWait,
    TakenComesBack,
    NobodyHeardIsLost,
    NobodyHeardIsShownOffline,
    NobodyHeardIsCutOff,
    NobodyDeadStays,
    NobodyDeadIsShownOnline,
    NobodyDeadComesBack,
    NoEdgeWaitsForOthers,
    NothingOlderTakesOver,
    PodsGoOn,
    RelayHaltsForAReason,
    EverybodyComesBack,
    StreamIsTheLog,
    RowsAreTheFold,
    SealsHold,
    AssignmentsAreTold,
}

pub struct Verdicts {
    timeline: Arc<Timeline>,
    /// Cancelled by the first broken promise, unless the run goes on to find all.
    stop: Option<CancellationToken>,
    judged: Mutex<BTreeMap<Promise, (u64, u64)>>,
}

impl Verdicts {
    pub fn new(timeline: Arc<Timeline>, stop: Option<CancellationToken>) -> Verdicts {
        Verdicts { timeline, stop, judged: Mutex::default() }
    }

    /// Counts a promise as kept.
    pub fn kept(&self, promise: Promise) {
        self.judged.lock().expect("verdicts").entry(promise).or_default().0 += 1;
    }

    /// Reports a promise as broken, in these words.
    pub fn broken(&self, promise: Promise, how: &str) {
        let times = {
            let mut judged = self.judged.lock().expect("verdicts");
            let (_, broken) = judged.entry(promise).or_default();
            *broken += 1;
            *broken
        };
        if times <= TOLD {
            self.timeline.say(&format!("BROKEN {promise:?}: {how}"));
        }
        if let Some(stop) = &self.stop {
            stop.cancel();
        }
    }

    pub fn judge(&self, promise: Promise, fault: Option<String>) {
        match fault {
            None => self.kept(promise),
            Some(how) => self.broken(promise, &how),
        }
    }

    /// Prints one line for each promise that was judged; returns whether none is broken.
    pub fn report(&self) -> (bool, String) {
        let judged = self.judged.lock().expect("verdicts");
        let lines = judged.iter().map(|(promise, (kept, broken))| {
            format!("  {promise:?}: {kept} times kept, {broken} times broken")
        });
        let is_well = judged.values().all(|(_, broken)| *broken == 0);
        (is_well, lines.collect::<Vec<_>>().join("\n"))
    }
}
