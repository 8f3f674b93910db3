//! Which satellites flap: they connect and leave so often that an operator should look. Pure.
//!
//! A satellite is *flapping* from the edge with which its edges within a window exceed a bound,
//! until they have become few enough again. In between it keeps its mark (hysteresis), so that the
//! mark itself does not flap. No edge is held back for it. Removals do not count: they are no edges
//! of a connection.

use std::time::Duration;

use time::OffsetDateTime;

/// The highest bound: this many moments are kept for each satellite.
pub const MAX_EDGES: usize = 100;

/// When a satellite counts as flapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// The time in which edges are counted.
    pub window: Duration,
    /// More edges than this mark a satellite; at most [`MAX_EDGES`].
    pub edges: usize,
    /// A marked satellite stays marked while it has more edges than this; less than `edges`.
    pub calm: usize,
}

impl Default for Rules {
    /// More than ten edges in five minutes; until there are five or fewer.
    fn default() -> Rules {
        Rules { window: Duration::from_secs(300), edges: 10, calm: 5 }
    }
}

/// Whether a satellite that is marked until then, if no edge comes, is marked at `now`: the same for the present and
/// the past. `is_flapping`, in `schema/`, is this rule in SQL.
pub fn is_marked(until: Option<OffsetDateTime>, now: OffsetDateTime) -> bool {
    until.is_some_and(|until| now < until)
}

/// What is stored of a satellite.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flapping {
    /// Its newest edges within the window, oldest first, no more than the mark needs.
    pub recent: Vec<OffsetDateTime>,
    /// Until when it is marked, if it has no more edges.
    pub until: Option<OffsetDateTime>,
}

impl Flapping {
    /// Until when it is marked, if it is at `now`.
    pub fn mark(&self, now: OffsetDateTime) -> Option<OffsetDateTime> {
        self.until.filter(|_| is_marked(self.until, now))
    }

    /// Records an edge at `at`.
    pub fn edge(&mut self, at: OffsetDateTime, rules: &Rules) {
        let was_marked = is_marked(self.until, at);
        self.recent.push(at);
        self.recent.sort_unstable();
        self.recent.retain(|edge| *edge + rules.window > at);
        let surplus = self.recent.len().saturating_sub(rules.edges + 1);
        self.recent.drain(..surplus);

        let count = self.recent.len();
        let marked = count > rules.edges || (was_marked && count > rules.calm);
        // It is calm again when the oldest of the `calm + 1` newest edges leaves the window.
        let last_to_leave = count.checked_sub(rules.calm + 1).and_then(|n| self.recent.get(n));
        self.until = last_to_leave.filter(|_| marked).map(|edge| *edge + rules.window);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use time::macros::datetime;

    const START: OffsetDateTime = datetime!(2026-03-01 12:00:00 UTC);
    const RULES: Rules = Rules { window: Duration::from_secs(60), edges: 4, calm: 2 };

    fn second(n: i64) -> OffsetDateTime {
        START + time::Duration::seconds(n)
    }

    fn after(edges: &[i64]) -> Flapping {
        let mut flapping = Flapping::default();
        for edge in edges {
            flapping.edge(second(*edge), &RULES);
        }
        flapping
    }

    #[test]
    fn the_mark_comes_with_one_edge_too_many_and_goes_when_it_is_calm() {
        let cases: [(&str, &[i64], Option<i64>); 7] = [
            ("none", &[], None),
            ("as many as are fine", &[0, 1, 2, 3], None),
            ("one too many; calm when that at 2 leaves the window", &[0, 1, 2, 3, 4], Some(62)),
            ("spread out", &[0, 20, 40, 60, 80, 100], None),
            ("still marked, with few edges", &[0, 1, 2, 3, 4, 61], Some(63)),
            ("calm meanwhile, and not marked anew by a few", &[0, 1, 2, 3, 4, 63, 64, 65], None),
            ("a storm", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], Some(67)),
        ];
        for (name, edges, until) in cases {
            assert_eq!(after(edges).until, until.map(second), "{name}");
        }
    }

    #[test]
    fn the_mark_is_over_at_its_moment() {
        let flapping = after(&[0, 1, 2, 3, 4]);
        assert!(is_marked(flapping.until, second(61)));
        assert!(!is_marked(flapping.until, second(62)));
    }

    proptest! {
        #[test]
        fn it_is_marked_exactly_as_counting_all_edges_says(gaps in prop::collection::vec(0..30i64, 0..60)) {
            let mut flapping = Flapping::default();
            let (mut all, mut now, mut marked) = (Vec::new(), 0, false);
            let count = |all: &[i64], at: i64| all.iter().filter(|e| **e + 60 > at).count();
            for gap in gaps {
                // The mark second by second until the next edge.
                for at in now..now + gap {
                    marked = marked && count(&all, at) > RULES.calm;
                    prop_assert_eq!(is_marked(flapping.until, second(at)), marked);
                }
                now += gap;
                marked = marked && count(&all, now) > RULES.calm;
                all.push(now);
                marked = count(&all, now) > RULES.edges || (marked && count(&all, now) > RULES.calm);
                flapping.edge(second(now), &RULES);
                prop_assert_eq!(is_marked(flapping.until, second(now)), marked);
                prop_assert!(flapping.recent.len() <= RULES.edges + 1);
            }
        }
    }
}
