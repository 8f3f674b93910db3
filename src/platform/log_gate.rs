//! Bounds log lines that outsiders can cause: a burst of them, then a few a minute, each with the number that
//! was left out.

use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::bucket::{Bucket, Rate};

pub struct LogGate {
    rate: Rate,
    state: Mutex<(Bucket, u64)>,
}

impl LogGate {
    /// A gate for lines at this rate.
    pub fn new(rate: Rate) -> LogGate {
        LogGate { rate, state: Mutex::new((Bucket::full(rate, Instant::now()), 0)) }
    }

    /// Whether this line may be written; if so, how many were left out since the last one.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        self.pass_if(now, true)
    }

    /// The same for a source with a share of its own, so that the noisiest source does not hide the others.
    pub fn pass_within(&self, share: &mut Share, now: Instant) -> Option<u64> {
        self.pass_if(now, share.bucket.take(share.rate, now))
    }

    fn pass_if(&self, now: Instant, may: bool) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (bucket, left_out) = &mut *state;
        if may && bucket.take(self.rate, now) {
            return Some(std::mem::take(left_out));
        }
        *left_out += 1;
        None
    }
}

/// The part of a gate's rate that one source may take.
pub struct Share {
    rate: Rate,
    bucket: Bucket,
}

impl Share {
    /// A share of this rate.
    pub fn new(rate: Rate) -> Share {
        Share { rate, bucket: Bucket::full(rate, Instant::now()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_passes_and_then_a_few_that_say_how_many_did_not() {
        let gate = LogGate::new(Rate { burst: 2.0, per_second: 1.0 });
        let start = Instant::now();
        assert_eq!((gate.pass(start), gate.pass(start)), (Some(0), Some(0)));
        assert_eq!((gate.pass(start), gate.pass(start)), (None, None));
        assert_eq!(gate.pass(start + Duration::from_millis(1_100)), Some(2));
    }

    #[test]
    fn one_that_is_over_its_share_takes_nothing_of_what_is_there_for_others() {
        let gate = LogGate::new(Rate { burst: 4.0, per_second: 0.0 });
        let share = || Share::new(Rate { burst: 2.0, per_second: 0.0 });
        let (mut noisy, mut other, now) = (share(), share(), Instant::now());
        let told = (0..100).filter(|_| gate.pass_within(&mut noisy, now).is_some()).count();
        assert_eq!(told, 2);
        assert_eq!(gate.pass_within(&mut other, now), Some(98));
        assert_eq!(gate.pass(now), Some(0));
        assert_eq!(gate.pass_within(&mut other, now), None);
    }
}
