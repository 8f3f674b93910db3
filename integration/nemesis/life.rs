//! What a satellite really did: every try to connect, every sign of life, every end. Pure.

use std::time::{Duration, Instant};

use serde_json::Value;

/// How a connection ended, or why there was none.
#[derive(Debug, Clone, PartialEq)]
pub enum End {
    Goodbye,
    /// The satellite broke it without a word.
    Vanished,
    /// The pod said `shutdown`, with this reason.
    Shutdown(String),
    /// The pod closed it with this code.
    Closed(u16),
    /// The connection broke.
    Dropped,
    /// `auth_failed`.
    Refused,
    /// The connection could not be opened, or the pod said nothing for too long.
    Unanswered(String),
}

/// One connection, or the try to make one.
#[derive(Debug, Clone)]
pub struct Attempt {
    pub pod: usize,
    pub began: Instant,
    pub welcomed: Option<Instant>,
    pub beats: Vec<Instant>,
    pub over: Option<(Instant, End)>,
}

#[derive(Debug)]
pub struct Life {
    pub attempts: Vec<Attempt>,
    /// The satellite's own threshold from this moment on, when the change began; `None` is the default.
    thresholds: Vec<(Instant, Option<Duration>)>,
    /// The newest assignments the satellite was told.
    pub told: Option<Value>,
}

impl Life {
    pub fn new(threshold: Option<Duration>) -> Life {
        Life { attempts: Vec::new(), thresholds: vec![(Instant::now(), threshold)], told: None }
    }

    /// Begins a try; returns its number.
    pub fn tries(&mut self, pod: usize) -> usize {
        let (began, beats) = (Instant::now(), Vec::new());
        self.attempts.push(Attempt { pod, began, welcomed: None, beats, over: None });
        self.attempts.len() - 1
    }

    pub fn change_threshold(&mut self, threshold: Option<Duration>) {
        self.thresholds.push((Instant::now(), threshold));
    }

    /// The least and the greatest threshold that may have been in force between. A change counts from its
    /// begin, and the one before it for a while longer.
    pub fn thresholds(&self, from: Instant, default: Duration) -> (Duration, Duration) {
        const OVERLAP: Duration = Duration::from_secs(30);
        let ends = self.thresholds[1..].iter().map(|(at, _)| Some(*at + OVERLAP)).chain([None]);
        let all = self.thresholds.iter().zip(ends);
        let in_force = all.filter(|(_, end)| end.is_none_or(|end| end >= from));
        let lengths: Vec<Duration> = in_force.map(|((_, own), _)| own.unwrap_or(default)).collect();
        let (least, greatest) = (lengths.iter().min(), lengths.iter().max());
        (*least.expect("a threshold"), *greatest.expect("a threshold"))
    }

    /// Whether the satellite has a connection.
    pub fn is_connected(&self) -> bool {
        let is_open = |attempt: &Attempt| attempt.welcomed.is_some() && attempt.over.is_none();
        self.attempts.iter().rev().any(is_open)
    }

    /// The connection that lasted all the time between, with no later try that might have replaced it.
    pub fn held(&self, from: Instant, to: Instant) -> Option<&Attempt> {
        let attempt = self.attempts.iter().rev().find(|attempt| attempt.began <= to)?;
        let was_there = attempt.welcomed.is_some_and(|at| at <= from)
            && attempt.over.as_ref().is_none_or(|(at, _)| *at > to);
        was_there.then_some(attempt)
    }

    /// The last moment at which a pod can have heard the satellite; `None` while a try is under way.
    pub fn last_sign(&self) -> Option<Instant> {
        let last = self.attempts.last()?;
        if last.welcomed.is_none() && last.over.is_none() {
            return None;
        }
        let of = |attempt: &Attempt| {
            let open = attempt.welcomed.unwrap_or(attempt.began);
            let over = attempt.over.as_ref().map_or(open, |(at, _)| *at);
            attempt.beats.last().copied().unwrap_or(open).max(over)
        };
        self.attempts.iter().map(of).max()
    }
}

impl Attempt {
    /// The longest time without a sign of life that includes a moment between. The first sign is the try to
    /// connect, however long its edge took to be in the log.
    pub fn longest_silence(&self, from: Instant, to: Instant) -> Duration {
        let signs = self.beats.iter().chain([&self.began]).copied();
        let before = signs.clone().filter(|sign| *sign <= from).max();
        let between = signs.filter(|sign| *sign > from && *sign <= to);
        let mut signs: Vec<Instant> = before.into_iter().chain(between).chain([to]).collect();
        signs.sort();
        let gaps = signs.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or(Duration::MAX)
    }
}

mod tests {
    use super::*;

    fn life(base: Instant) -> Life {
        let at = |seconds| base + Duration::from_secs(seconds);
        let mut life = Life::new(None);
        life.attempts = vec![
            Attempt {
                pod: 0,
                began: at(0),
                welcomed: Some(at(1)),
                beats: vec![at(2), at(3), at(7)],
                over: Some((at(10), End::Dropped)),
            },
            Attempt { pod: 1, began: at(12), welcomed: None, beats: Vec::new(), over: None },
        ];
        life
    }

    #[test]
    fn a_connection_is_held_while_it_is_open_and_nothing_newer_was_tried() {
        let base = Instant::now();
        let (life, at) = (life(base), |seconds| base + Duration::from_secs(seconds));
        assert!(life.held(at(0), at(5)).is_none());
        assert_eq!(life.held(at(2), at(9)).expect("held").pod, 0);
        assert!(life.held(at(2), at(10)).is_none());
        assert!(life.held(at(13), at(14)).is_none());
    }

    #[test]
    fn the_longest_silence_counts_up_to_the_end() {
        let base = Instant::now();
        let (life, at) = (life(base), |seconds| base + Duration::from_secs(seconds));
        let attempt = &life.attempts[0];
        assert_eq!(attempt.longest_silence(at(2), at(3)), Duration::from_secs(1));
        assert_eq!(attempt.longest_silence(at(3), at(8)), Duration::from_secs(4));
        assert_eq!(attempt.longest_silence(at(4), at(5)), Duration::from_secs(2));
    }

    #[test]
    fn nothing_is_said_of_the_last_sign_while_a_try_is_under_way() {
        let mut life = life(Instant::now());
        assert_eq!(life.last_sign(), None);
        life.attempts.pop();
        assert!(life.last_sign().is_some());
    }

    #[test]
    fn a_changed_threshold_and_the_one_before_it_both_count_for_a_while() {
        let (mut life, default) = (Life::new(None), Duration::from_secs(6));
        life.change_threshold(Some(Duration::from_secs(30)));
        let (least, greatest) = life.thresholds(Instant::now(), default);
        assert_eq!((least, greatest), (default, Duration::from_secs(30)));
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(life.thresholds(later, default).0, Duration::from_secs(30));
    }
}
