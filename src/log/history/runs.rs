//! How one satellite was within a window, from its transitions: the rule of stats, of intervals and of the
//! timeline. Pure.
//!
//! An edge counts from when it happened; where that is before the edge that precedes it, from that one on. Time in a
//! maintenance window is maintenance, whatever else. Time in which nobody could observe is unknown, whatever the edges
//! say, and so is the time before the first of them and after a removal. A loss that nobody has declared yet is known by now: from when it was due the satellite was down.

use time::OffsetDateTime;

use crate::contract::fleet::RunState;
use crate::contract::wire::{StateJson, Timestamp};
use crate::domain::liveness::Status;
use crate::log::Entry;

/// What is known of a satellite within a window.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// When it begins.
    pub from: OffsetDateTime,
    /// When it ends, by now at the latest.
    pub to: OffsetDateTime,
    /// The last transition before it.
    pub before: Option<&'a Entry>,
    /// Those that were recorded since, in the order of the log.
    pub within: &'a [Entry],
    /// Since when it has been offline although its last edge is `connected`, if so.
    pub lapsed: Option<OffsetDateTime>,
    /// When it was in maintenance, the oldest first, one after another.
    pub maintenance: &'a [(OffsetDateTime, OffsetDateTime)],
    /// When nobody observed, the oldest first.
    pub blind: &'a [(OffsetDateTime, OffsetDateTime)],
}

/// A while in which it was in one state.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// When it begins.
    pub from: OffsetDateTime,
    /// When the next begins.
    pub to: OffsetDateTime,
    /// How it was.
    pub state: RunState,
    /// The transition that follows from, if it follows from one.
    pub by: Option<&'a Entry>,
}

/// Its states one after another, each as long as it can be: they cover the window without a gap.
pub fn runs<'a>(window: &Window<'a>) -> Vec<Run<'a>> {
    let mut cut = Cut { over: over(window), runs: Vec::new() };
    let (from, to) = (cut_to_ms(window.from), cut_to_ms(window.to));
    let (mut by, mut reached) = (window.before, from);
    for entry in window.within {
        let at = cut_to_ms(entry.occurred_at).clamp(reached, to);
        cut.add(by, state(by), reached, at);
        (by, reached) = (Some(entry), at);
    }
    let lapsed = window.lapsed.map_or(to, |lapsed| cut_to_ms(lapsed).clamp(reached, to));
    cut.add(by, state(by), reached, lapsed);
    cut.add(None, RunState::Down, lapsed, to);
    cut.runs
}

fn state(by: Option<&Entry>) -> RunState {
    fn status(state: &StateJson) -> RunState {
        if state.status == Status::Online { RunState::Up } else { RunState::Down }
    }
    by.and_then(|entry| entry.next.as_ref()).map_or(RunState::Unknown, status)
}

/// Milliseconds are what everything is told in: what is cut to them adds up.
fn cut_to_ms(at: OffsetDateTime) -> OffsetDateTime {
    Timestamp::new(at).moment()
}

/// What counts whatever the edges say: when, and as what.
type Over = (OffsetDateTime, OffsetDateTime, RunState);

/// All of it in the order of time, one after another: of blind time what is left beside maintenance.
fn over(window: &Window<'_>) -> Vec<Over> {
    let cut = |spans: &[(OffsetDateTime, OffsetDateTime)]| -> Vec<_> {
        spans.iter().map(|(begin, end)| (cut_to_ms(*begin), cut_to_ms(*end))).collect()
    };
    let planned = cut(window.maintenance);
    let mut over: Vec<Over> =
        planned.iter().map(|(begin, end)| (*begin, *end, RunState::Maintenance)).collect();
    for (begin, end) in cut(window.blind) {
        let mut reached = begin;
        for (from, until) in &planned {
            over.push((reached, (*from).min(end), RunState::Unknown));
            reached = reached.max(*until);
        }
        over.push((reached, end, RunState::Unknown));
    }
    over.retain(|(begin, end, _)| begin < end);
    over.sort_unstable_by_key(|(begin, ..)| *begin);
    over
}

/// Runs as they come, with what counts whatever the edges say cut out of them.
struct Cut<'a> {
    over: Vec<Over>,
    runs: Vec<Run<'a>>,
}

impl<'a> Cut<'a> {
    fn add(
        &mut self,
        by: Option<&'a Entry>,
        state: RunState,
        from: OffsetDateTime,
        to: OffsetDateTime,
    ) {
        let mut reached = from;
        for (begin, end, instead) in self.over.clone() {
            let (begin, end) = (begin.clamp(reached, to), end.clamp(reached, to));
            if begin < end {
                self.push(Run { from: reached, to: begin, state, by });
                self.push(Run { from: begin, to: end, state: instead, by: None });
                reached = end;
            }
        }
        self.push(Run { from: reached, to, state, by });
    }

    fn push(&mut self, run: Run<'a>) {
        if run.from >= run.to {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.state == run.state => last.to = run.to,
            _ => self.runs.push(run),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::contract::wire::Actor;
    use crate::contract::word::Word;
    use crate::domain::lifecycle::{Event, Position, Reason, Revision, SatelliteId, Session};
    use crate::domain::marks::Marks;
    use crate::log::ChangeId;
    use proptest::prelude::*;
    use time::macros::datetime;
    use uuid::Uuid;

    pub const BEGIN: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);

    pub fn second(n: i64) -> OffsetDateTime {
        BEGIN + time::Duration::seconds(n)
    }

    /// The satellite's transition to `event`, which happened at this second.
    pub fn entry(satellite: u128, at: i64, prev: Option<Event>, event: Event) -> Entry {
        let state = |event: Event| StateJson {
            status: match event {
                Event::Connected => Status::Online.into(),
                _ => Status::Offline.into(),
            },
            name: "edge".to_owned(),
            region: "eu".to_owned(),
            last_seen_at: None,
            last_event: Some(event.into()),
            flapping: false,
            flapping_until: None,
        };
        Entry {
            position: Position(1),
            revision: Revision(1),
            change: ChangeId(Uuid::nil()),
            satellite: SatelliteId(Uuid::from_u128(satellite)),
            event: event.into(),
            reason: Word::Known(Reason::Connect),
            session: Session(1),
            prev: prev.filter(|event| *event != Event::Removed).map(state),
            next: (event != Event::Removed).then(|| state(event)),
            actor: Actor::system(),
            traceparent: None,
            marks: Marks::default(),
            occurred_at: second(at),
            recorded_at: second(at),
        }
    }

    /// A life: each transition follows from the one before.
    pub fn life(satellite: u128, events: &[(i64, Event)]) -> Vec<Entry> {
        let mut prev = None;
        let mut next = |(at, event): &(i64, Event)| {
            let entry = entry(satellite, *at, prev, *event);
            prev = Some(*event);
            entry
        };
        events.iter().map(&mut next).collect()
    }

    fn told(window: &Window<'_>) -> Vec<(i64, i64, &'static str, Option<String>)> {
        let seconds = |at: OffsetDateTime| (at - BEGIN).whole_seconds();
        let told = |run: &Run<'_>| {
            let by = run.by.map(|entry| entry.event.to_string());
            (seconds(run.from), seconds(run.to), run.state.into(), by)
        };
        runs(window).iter().map(told).collect()
    }

    #[test]
    fn states_run_together_and_cover_the_window() {
        use Event::{Connected, Disconnected, HeartbeatLost, Removed};
        let lived = life(
            1,
            // Taken over at 30; lost at 50, which was found out after it had come back at 45.
            &[
                (10, Connected),
                (30, Connected),
                (40, Disconnected),
                (60, Connected),
                (50, HeartbeatLost),
                (80, Removed),
            ],
        );
        let window = Window {
            from: second(0),
            to: second(100),
            before: None,
            within: &lived,
            lapsed: None,
            maintenance: &[],
            blind: &[(second(-5), second(5)), (second(15), second(20))],
        };
        let by = |event: Event| Some(event.as_str().to_owned());
        let expected = [
            (0, 10, "unknown", None),
            (10, 15, "up", by(Connected)),
            (15, 20, "unknown", None),
            (20, 40, "up", by(Connected)),
            // Between them it was up for no time at all; the first says why it was down.
            (40, 80, "down", by(Disconnected)),
            (80, 100, "unknown", by(Removed)),
        ];
        assert_eq!(told(&window), expected);

        let here = entry(1, -50, None, Connected);
        let lapsed = Window {
            before: Some(&here),
            within: &[],
            lapsed: Some(second(70)),
            blind: &[],
            ..window
        };
        assert_eq!(told(&lapsed), [(0, 70, "up", by(Connected)), (70, 100, "down", None)]);

        let planned = Window {
            maintenance: &[(second(-3), second(10)), (second(60), second(75))],
            blind: &[(second(5), second(15)), (second(50), second(80))],
            ..lapsed
        };
        let expected = [
            (0, 10, "maintenance", None),
            (10, 15, "unknown", None),
            (15, 50, "up", by(Connected)),
            (50, 60, "unknown", None),
            (60, 75, "maintenance", None),
            (75, 80, "unknown", None),
            (80, 100, "down", None),
        ];
        assert_eq!(told(&planned), expected);
    }

    /// Lives, with moments that do not always go on, and blind time.
    pub fn lives(most: usize) -> impl Strategy<Value = Vec<(i64, Event)>> {
        let event = prop_oneof![
            4 => Just(Event::Connected),
            3 => Just(Event::Disconnected),
            2 => Just(Event::HeartbeatLost),
            1 => Just(Event::Removed),
        ];
        prop::collection::vec((-20_i64..120, event), 0..most)
    }

    /// Spans in which nobody observed, one after another.
    pub fn blind_spans() -> impl Strategy<Value = Vec<(OffsetDateTime, OffsetDateTime)>> {
        prop::collection::vec((-20_i64..120, 1_i64..30), 0..4).prop_map(|mut spans| {
            spans.sort_unstable();
            spans.iter().map(|(at, length)| (second(*at), second(at + length))).collect()
        })
    }

    fn merged(
        spans: Vec<(OffsetDateTime, OffsetDateTime)>,
    ) -> Vec<(OffsetDateTime, OffsetDateTime)> {
        let mut merged: Vec<(OffsetDateTime, OffsetDateTime)> = Vec::new();
        for (begin, end) in spans {
            match merged.last_mut() {
                Some((_, last)) if begin <= *last => *last = end.max(*last),
                _ => merged.push((begin, end)),
            }
        }
        merged
    }

    proptest! {
        #[test]
        fn no_two_states_that_are_alike_follow_on_each_other_and_no_moment_is_left_out(
            lived in lives(12), blind in blind_spans(), planned in blind_spans(),
            lapsed in prop::option::of(-20_i64..120),
        ) {
            let lived = life(1, &lived);
            let window = Window {
                from: second(0), to: second(100), before: None, within: &lived,
                lapsed: lapsed.map(second), maintenance: &merged(planned), blind: &blind,
            };
            let runs = runs(&window);
            let mut reached = second(0);
            for run in &runs {
                prop_assert_eq!(run.from, reached);
                prop_assert!(run.from < run.to);
                reached = run.to;
                let is_blind = |at| blind.iter().any(|(begin, end)| *begin <= at && at < *end);
                let is_over = [RunState::Unknown, RunState::Maintenance].contains(&run.state);
                prop_assert!(is_over || !is_blind(run.from));
            }
            prop_assert_eq!(reached, second(100));
            for pair in runs.windows(2) {
                prop_assert_ne!(pair[0].state, pair[1].state);
            }
        }
    }
}
