//! The plan: which fault begins when. It is drawn from a seed, and from nothing else.
//!
//! A run is a row of phases. Each has a few topics and draws its faults from these only: the effect of two
//! faults on each other shows more clearly than when all are drawn all the time. Every other phase leaves
//! pods, stores and links alone and draws faults that should affect no one else, so bounds in time can be
//! judged there. Topics are dealt from shuffled decks, so each comes up before any comes up again.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;

use super::fault::{Fault, MEMBERS, PODS, Resource};

/// A fault of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// The time since the plan's begin.
    pub at: Duration,
    pub lasts: Duration,
    pub fault: Fault,
}

/// What a phase is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    Pods,
    DatabaseLinks,
    NatsLinks,
    Lines,
    Postgres,
    Nats,
    Subjects,
    Rows,
    Lease,
    Tail,
    Clocks,
    Readers,
    Administrators,
}

impl Topic {
    /// The inverse of a topic's name in this file.
    pub fn parse(name: &str) -> Option<Topic> {
        HARD.into_iter().chain(SOFT).find(|topic| format!("{topic:?}") == name)
    }
}

/// Topics that break pods, stores and links. A topic that finds more is there more than once.
const HARD: [Topic; 9] = [
    Topic::Pods,
    Topic::Pods,
    Topic::DatabaseLinks,
    Topic::DatabaseLinks,
    Topic::NatsLinks,
    Topic::Lines,
    Topic::Postgres,
    Topic::Nats,
    Topic::Lease,
];

/// Topics that leave pods, stores and links alone.
const SOFT: [Topic; 9] = [
    Topic::Subjects,
    Topic::Subjects,
    Topic::Rows,
    Topic::Rows,
    Topic::Tail,
    Topic::Tail,
    Topic::Clocks,
    Topic::Readers,
    Topic::Administrators,
];

/// The length of a hard phase, in which pods, stores or links break, in milliseconds.
const HARD_PHASE: Range<u64> = 10_000..18_000;

/// The length of a soft phase.
const SOFT_PHASE: Range<u64> = 16_000..30_000;

/// Pause between the beginnings of two faults, in milliseconds.
const GAP: Range<u64> = 200..2_200;

/// One in this many draws is a burst of edges, in any phase, because a quiet log shows nothing.
const BURSTS: u32 = 4;

/// Satellites that come and go by themselves.
const LIVELY: Range<usize> = MEMBERS * 2 / 5..MEMBERS;

/// A deck and what is left of it.
struct Deck {
    cards: Vec<Topic>,
    left: Vec<Topic>,
}

impl Deck {
    fn of(cards: &[Topic], only: &[Topic]) -> Deck {
        let wanted = |topic: &&Topic| only.is_empty() || only.contains(topic);
        Deck { cards: cards.iter().filter(wanted).copied().collect(), left: Vec::new() }
    }

    /// Deals this many topics; fewer only if there are none left.
    fn deal(&mut self, rng: &mut Rng, number: usize) -> Vec<Topic> {
        let mut topics = Vec::with_capacity(number);
        while topics.len() < number && !self.cards.is_empty() {
            if self.left.is_empty() {
                self.left.extend(&self.cards);
                rng.shuffle(&mut self.left);
            }
            topics.extend(self.left.pop());
        }
        topics
    }
}

/// The plan of a seed, with these topics only if any are named. A longer plan of the same seed begins
/// like a shorter one.
pub fn draw(seed: u64, length: Duration, only: &[Topic]) -> Vec<Planned> {
    let mut rng = Rng::with_seed(seed);
    let (mut hard, mut soft) = (Deck::of(&HARD, only), Deck::of(&SOFT, only));
    let mut plan = Vec::new();
    let mut busy: HashMap<Resource, Duration> = HashMap::new();
    let (mut at, mut is_hard) = (Duration::ZERO, rng.bool());
    while at < length {
        let (hards, softs) =
            if is_hard { (rng.usize(1..3), rng.usize(..3)) } else { (0, rng.usize(2..4)) };
        let mut topics = hard.deal(&mut rng, hards);
        topics.extend(soft.deal(&mut rng, softs));
        let end = at + milliseconds(&mut rng, if is_hard { HARD_PHASE } else { SOFT_PHASE });
        is_hard = !is_hard;
        while at < end {
            let topic = rng.choice(&topics).filter(|_| rng.u32(..BURSTS) > 0).copied();
            let (fault, lasts) = match topic {
                Some(topic) => fault(&mut rng, topic),
                None => (Fault::Burst, milliseconds(&mut rng, 500..4_000)),
            };
            let until = busy.entry(fault.resource()).or_default();
            if *until <= at {
                *until = at + lasts;
                plan.push(Planned { at, lasts, fault });
            }
            at += milliseconds(&mut rng, GAP);
        }
    }
    plan.retain(|planned| planned.at < length);
    plan
}

fn milliseconds(rng: &mut Rng, range: Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

/// A fault of a topic, and how long it lasts.
fn fault(rng: &mut Rng, topic: Topic) -> (Fault, Duration) {
    let (pod, member) = (rng.usize(..PODS), rng.usize(..MEMBERS));
    let choice = rng.usize(..12);
    let (fault, lasts) = match topic {
        Topic::Pods => match choice % 4 {
            0 | 1 => (Fault::KillPod(pod), 100..6_000),
            2 => (Fault::StopPod(pod), 500..12_000),
            _ => (Fault::EndPod(pod), 100..2_000),
        },
        Topic::DatabaseLinks => match choice % 3 {
            0 => (Fault::CutDatabase(pod), 300..14_000),
            1 => (Fault::StallDatabase(pod), 300..14_000),
            _ => (Fault::LoseCommits(pod), 1_000..4_000),
        },
        Topic::NatsLinks => match choice % 2 {
            0 => (Fault::CutNats(pod), 300..9_000),
            _ => (Fault::StallNats(pod), 300..12_000),
        },
        Topic::Lines => match choice % 2 {
            0 => (Fault::CutLine(pod), 200..4_000),
            _ => (Fault::StallLine(pod), 300..5_000),
        },
        Topic::Postgres => match choice % 3 {
            0 => (Fault::KillPostgres, 100..4_000),
            1 => (Fault::RestartPostgres, 100..3_000),
            _ => (Fault::StopPostgres, 300..8_000),
        },
        Topic::Nats => match choice % 4 {
            0 => (Fault::KillNats, 100..5_000),
            1 => (Fault::RestartNats, 100..3_000),
            2 => (Fault::StopNats, 300..8_000),
            _ => (Fault::RestoreNats, 500..4_000),
        },
        Topic::Subjects => match choice % 4 {
            0 => (Fault::Copies, 100..1_000),
            _ => (Fault::Foreign, 500..5_000),
        },
        Topic::Rows => match choice % 2 {
            // Only a satellite's edges need the row, so this is one that makes some.
            0 => (Fault::LockSatellite(rng.usize(LIVELY)), 6_000..16_000),
            _ => (Fault::LockConnection(member), 6_000..16_000),
        },
        Topic::Lease => (Fault::StealLease, 2_000..9_000),
        Topic::Tail => match choice {
            0 => (Fault::Purge, 1..2),
            _ => (Fault::LoseTail(rng.u64(1..6)), 1..2),
        },
        Topic::Clocks => {
            (Fault::Clock(pod, [-86_400, -300, -7, 7, 300, 86_400][choice % 6]), 500..9_000)
        }
        Topic::Readers => (Fault::SlowReaders(pod), 2_000..9_000),
        Topic::Administrators => match choice {
            0..4 => (Fault::RotateToken(member), 1..2),
            4..6 => (Fault::Remove(member), 1..2),
            6..9 => {
                let threshold = [None, Some(4_000), Some(30_000)][rng.usize(..3)];
                (Fault::Threshold(member, threshold), 1..2)
            }
            _ => (Fault::Assign(member), 1..2),
        },
    };
    (fault, milliseconds(rng, lasts))
}

mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1_800);

    #[test]
    fn a_plan_follows_from_its_seed() {
        assert_eq!(draw(7, LONG, &[]), draw(7, LONG, &[]));
        assert_ne!(draw(7, LONG, &[]), draw(8, LONG, &[]));
    }

    #[test]
    fn a_longer_plan_begins_like_a_shorter_one() {
        let (short, long) = (draw(7, Duration::from_secs(20), &[]), draw(7, LONG, &[]));
        assert!(!short.is_empty() && short.len() < long.len());
        assert_eq!(short, long[..short.len()]);
    }

    #[test]
    fn faults_come_in_order_and_overlap_but_not_on_the_same_thing() {
        let plan = draw(7, LONG, &[]);
        let mut overlaps = 0;
        for (n, one) in plan.iter().enumerate() {
            for other in &plan[n + 1..] {
                assert!(one.at <= other.at);
                if other.at < one.at + one.lasts {
                    assert_ne!(one.fault.resource(), other.fault.resource(), "{one:?} {other:?}");
                    overlaps += 1;
                }
            }
        }
        assert!(overlaps > plan.len(), "{overlaps} overlaps of {} faults", plan.len());
    }

    #[test]
    fn named_topics_are_the_only_ones() {
        let only = [Topic::parse("Nats").expect("a topic"), Topic::Lease];
        let plan = draw(7, LONG, &only);
        let is_one = |planned: &Planned| {
            let resource = planned.fault.resource();
            matches!(resource, Resource::NatsServer | Resource::Lease | Resource::Crowd)
        };
        assert!(plan.len() > 100 && plan.iter().all(is_one));
    }

    #[test]
    fn every_topic_comes_up_within_three_minutes() {
        for seed in 0..20 {
            let plan = draw(seed, Duration::from_secs(180), &[]);
            let has = |wanted: fn(&Fault) -> bool| plan.iter().any(|p| wanted(&p.fault));
            assert!(has(|fault| matches!(fault, Fault::Foreign)), "{seed}");
            assert!(has(|fault| matches!(fault, Fault::LoseTail(_))), "{seed}");
            assert!(
                has(|fault| matches!(fault, Fault::LockSatellite(_) | Fault::LockConnection(_))),
                "{seed}"
            );
        }
    }
}
