//! What another offline threshold would have done, as far as the log can tell. Pure.
//!
//! The log has no heartbeats. It knows of a silence from the edges at its ends: a loss names the last heartbeat before
//! it, the edge after it says when the satellite was heard again. So of a longer threshold it knows everything: a loss
//! is spared if the satellite was heard again within it. Of a shorter one it knows the silences only that ended with an
//! edge and were no loss: a takeover, or a connection that broke. Others ended with a heartbeat, which nobody wrote
//! down. So what a shorter threshold would have added is at least the number that is told.

use std::collections::HashMap;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::lifecycle::{Event, Reason};

/// What a transition says of a silence.
#[derive(Debug, Clone)]
pub struct Told {
    /// Whose it is.
    pub satellite: Uuid,
    /// What happened.
    pub event: Event,
    /// Why; none if this version does not know the word.
    pub reason: Option<Reason>,
    /// When.
    pub at: OffsetDateTime,
    /// The last heartbeat before it; a lower bound where a pod vouched for it.
    pub heard: Option<OffsetDateTime>,
    /// How the satellite was called, and where it was.
    pub name: String,
    /// See `name`.
    pub region: String,
}

/// What became of a silence under the other threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A loss that would not have been declared.
    Spared,
    /// A loss that would have been declared all the same, so much later; earlier if it is negative.
    Kept(Duration),
    /// A loss of which the log does not know yet: the satellite was silent, and not for long enough.
    Undecided,
    /// No loss, and it would have been one.
    Added,
}

/// A silence that another threshold decides otherwise, or might have.
#[derive(Debug, Clone)]
pub struct Silence {
    /// Whose it is.
    pub satellite: Uuid,
    /// How the satellite was called.
    pub name: String,
    /// Where it was.
    pub region: String,
    /// What would have become of it.
    pub outcome: Outcome,
}

/// A loss of which nothing more is known yet.
struct Open {
    told: Told,
    heard: OffsetDateTime,
}

/// Goes along the log and decides each silence anew.
pub struct WhatIf {
    threshold: Duration,
    /// How much younger a last heartbeat may be than the log says.
    vouched: Duration,
    from: OffsetDateTime,
    to: OffsetDateTime,
    open: HashMap<Uuid, Open>,
    silences: Vec<Silence>,
}

impl WhatIf {
    /// For the losses that were due from `from` to `to`. A last heartbeat may be younger by `vouched` than it is told
    /// for a satellite that was online.
    pub fn new(
        threshold: std::time::Duration,
        vouched: std::time::Duration,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) -> WhatIf {
        let signed = |duration| Duration::try_from(duration).unwrap_or(Duration::MAX);
        let (open, silences) = (HashMap::new(), Vec::new());
        WhatIf { threshold: signed(threshold), vouched: signed(vouched), from, to, open, silences }
    }

    /// The next transition of the log.
    pub fn transition(&mut self, told: Told) {
        if let Some(open) = self.open.remove(&told.satellite) {
            let heard_again = (told.event == Event::Connected).then_some(told.at);
            self.close(open, heard_again);
        }
        if told.at < self.from || told.at >= self.to {
            return;
        }
        let Some(heard) = told.heard else { return };
        match (told.event, told.reason) {
            (Event::HeartbeatLost, _) => {
                self.open.insert(told.satellite, Open { told, heard });
            }
            (Event::Connected, Some(Reason::Takeover))
            | (Event::Disconnected, Some(Reason::ConnectionDropped))
                if told.at - heard - self.vouched > self.threshold =>
            {
                self.silences.push(silence(told, Outcome::Added));
            }
            _ => {}
        }
    }

    /// All silences, where the log is known up to this moment.
    pub fn known_until(mut self, until: OffsetDateTime) -> Vec<Silence> {
        for (_, open) in std::mem::take(&mut self.open) {
            match until - open.heard > self.threshold {
                true => self.close(open, None),
                false => self.silences.push(silence(open.told, Outcome::Undecided)),
            }
        }
        self.silences
    }

    fn close(&mut self, open: Open, heard_again: Option<OffsetDateTime>) {
        let Open { told, heard } = open;
        let is_spared = heard_again.is_some_and(|again| again - heard <= self.threshold);
        let outcome = match is_spared {
            true => Outcome::Spared,
            false => Outcome::Kept(heard + self.threshold - told.at),
        };
        self.silences.push(silence(told, outcome));
    }
}

fn silence(told: Told, outcome: Outcome) -> Silence {
    let Told { satellite, name, region, .. } = told;
    Silence { satellite, name, region, outcome }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    const BEGIN: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    fn second(n: i64) -> OffsetDateTime {
        BEGIN + Duration::seconds(n)
    }

    fn told(event: Event, reason: Reason, at: i64, heard: Option<i64>) -> Told {
        Told {
            satellite: Uuid::nil(),
            event,
            reason: Some(reason),
            at: second(at),
            heard: heard.map(second),
            name: "edge".to_owned(),
            region: "eu".to_owned(),
        }
    }

    fn outcomes(threshold: u64, log: Vec<Told>, until: i64) -> Vec<Outcome> {
        let seconds = std::time::Duration::from_secs;
        let mut what_if =
            WhatIf::new(seconds(threshold), seconds(0), BEGIN, second(i64::MAX >> 32));
        log.into_iter().for_each(|told| what_if.transition(told));
        what_if.known_until(second(until)).into_iter().map(|silence| silence.outcome).collect()
    }

    /// What the log says of a satellite that beats at these moments, and of a threshold: its one session is lost
    /// and recovers.
    fn log_of(beats: &[i64], threshold: i64, until: i64) -> Vec<Told> {
        let mut log = vec![told(Event::Connected, Reason::Connect, beats[0], None)];
        for (n, &beat) in beats.iter().enumerate() {
            let next = beats.get(n + 1).copied();
            if next.unwrap_or(until) - beat > threshold {
                let due = beat + threshold;
                log.push(told(Event::HeartbeatLost, Reason::HeartbeatTimeout, due, Some(beat)));
                log.extend(
                    next.map(|at| told(Event::Connected, Reason::Recovered, at, Some(beat))),
                );
            }
        }
        log
    }

    #[test]
    fn a_loss_is_spared_if_the_satellite_was_heard_again_within_the_threshold() {
        let lost = told(Event::HeartbeatLost, Reason::HeartbeatTimeout, 45, Some(0));
        let back = told(Event::Connected, Reason::Recovered, 60, Some(0));
        let removed = told(Event::Removed, Reason::Removed, 60, Some(0));
        let later = |seconds| Outcome::Kept(Duration::seconds(seconds));
        let cases = [
            (60, vec![lost.clone(), back.clone()], Outcome::Spared),
            (59, vec![lost.clone(), back.clone()], later(14)),
            (30, vec![lost.clone(), back], later(-15)),
            (90, vec![lost.clone(), removed], later(45)),
            (90, vec![lost.clone()], later(45)),
            (120, vec![lost], Outcome::Undecided),
        ];
        for (threshold, log, expected) in cases {
            assert_eq!(outcomes(threshold, log.clone(), 100), [expected], "{threshold} {log:?}");
        }
    }

    #[test]
    fn a_shorter_threshold_adds_the_silences_that_ended_with_an_edge() {
        let log = vec![
            told(Event::Connected, Reason::Takeover, 40, Some(0)),
            told(Event::Disconnected, Reason::ConnectionDropped, 100, Some(70)),
            told(Event::Disconnected, Reason::ClientClose, 200, Some(150)),
        ];
        assert_eq!(outcomes(35, log.clone(), 300), [Outcome::Added]);
        assert_eq!(outcomes(20, log.clone(), 300), [Outcome::Added, Outcome::Added]);
        let vouched = std::time::Duration::from_secs(20);
        let mut what_if =
            WhatIf::new(std::time::Duration::from_secs(25), vouched, BEGIN, second(300));
        log.into_iter().for_each(|told| what_if.transition(told));
        assert_eq!(what_if.known_until(second(300)).len(), 0);
    }

    proptest! {
        /// Of a longer threshold the log knows everything; of a shorter one it knows no more than is true.
        #[test]
        fn what_is_told_is_what_happens_where_the_truth_is_known(
            gaps in prop::collection::vec(1_i64..120, 1..20),
            (old, new) in (10_i64..90, 10_i64..90),
            rest in 200_i64..300,
        ) {
            let beats: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let until = beats[beats.len() - 1] + rest;
            let losses = |threshold| {
                let log = log_of(&beats, threshold, until);
                log.iter().filter(|told| told.event == Event::HeartbeatLost).count()
            };
            let outcomes = outcomes(new as u64, log_of(&beats, old, until), until);
            let spared = outcomes.iter().filter(|outcome| **outcome == Outcome::Spared).count();
            prop_assert_eq!(outcomes.len(), losses(old));
            prop_assert!(!outcomes.contains(&Outcome::Undecided));
            if new >= old {
                prop_assert_eq!(losses(old) - spared, losses(new));
            } else {
                prop_assert_eq!(spared, 0);
                prop_assert!(losses(new) >= losses(old));
            }
            for outcome in outcomes {
                if let Outcome::Kept(delay) = outcome {
                    prop_assert_eq!(delay, Duration::seconds(new - old));
                }
            }
        }
    }
}
