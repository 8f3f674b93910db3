//! When a relay leaves its nats-server for another of the cluster.
//!
//! A server that is cut off from the others still has its clients. It takes their messages and
//! cannot store them, and they would wait for it as long as it is cut off. The relay does not wait:
//! see `integration/stream/cluster_faults.rs`.

use std::time::{Duration, Instant};

use crate::platform::database::Failed;

/// How long a stream may fail before the relay asks another server for it.
const LONGEST: Duration = Duration::from_secs(5);

/// The longest pause between two changes, each of which is twice as long as the one before: where no
/// server has the stream, a change helps nobody, and costs the pod's other questions their answers.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// NATS did not say whether it stored a message.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unanswered(pub String);

/// How long the stream has failed, and when the relay may leave the server for that.
#[derive(Default)]
pub(super) struct Patience {
    since: Option<Instant>,
    next: Option<(Instant, Duration)>,
}

impl Patience {
    /// The stream took messages, or said itself why it does not.
    pub fn renew(&mut self) {
        *self = Patience::default();
    }

    /// Whether to leave the server because of this failure.
    pub fn is_over(&mut self, failure: &anyhow::Error, now: Instant) -> bool {
        if failure.downcast_ref::<Failed>().is_some() {
            return false;
        }
        let since = *self.since.get_or_insert(now);
        // Such a failure alone took as long.
        let is_long = failure.is::<Unanswered>() || now.duration_since(since) >= LONGEST;
        let (next, pause) = self.next.unwrap_or((now, LONGEST));
        if !is_long || now < next {
            return false;
        }
        self.next = Some((now + pause, (pause * 2).min(LONGEST_PAUSE)));
        true
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    /// At which of these seconds a relay leaves its server.
    fn left_at(
        failure: impl Fn() -> anyhow::Error,
        seconds: impl Iterator<Item = u64>,
    ) -> Vec<u64> {
        let (mut patience, begun) = (Patience::default(), Instant::now());
        let is_over =
            |second: &u64| patience.is_over(&failure(), begun + Duration::from_secs(*second));
        seconds.filter(is_over).collect()
    }

    #[test]
    fn a_server_that_does_not_answer_is_left_at_once_and_then_less_and_less_often() {
        let unanswered = || anyhow!(Unanswered("position 7 was not taken".to_owned()));
        assert_eq!(left_at(unanswered, 0..240), [0, 5, 15, 35, 75, 135, 195]);
    }

    #[test]
    fn a_server_that_refuses_is_left_when_it_has_for_long() {
        let refused = || anyhow!("no leader").context("cannot look at the stream");
        assert_eq!(left_at(refused, 0..20), [5, 10]);
    }

    #[test]
    fn the_database_is_no_reason_to_leave_a_server() {
        let failed = || anyhow!(Failed::NoAnswer(LONGEST)).context("cannot read the log");
        assert_eq!(left_at(failed, 0..240), [0; 0]);
    }

    #[test]
    fn after_a_message_was_taken_patience_is_as_at_the_beginning() {
        let (mut patience, begun) = (Patience::default(), Instant::now());
        let later = |seconds| begun + Duration::from_secs(seconds);
        let refused = anyhow!("no leader");
        assert!(!patience.is_over(&refused, later(0)));
        patience.renew();
        assert!(!patience.is_over(&refused, later(6)));
        assert!(patience.is_over(&refused, later(11)));
    }
}
