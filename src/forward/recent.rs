//! The changes that were done last. A nats-server that is killed may have forgotten the newest acknowledgements, although
//! it confirmed them: what they were of comes again, perhaps after newer ones.

use std::collections::{HashSet, VecDeque};

/// How many are remembered.
const MOST: usize = 10_000;

/// See the module.
#[derive(Default)]
pub struct Recent {
    order: VecDeque<String>,
    known: HashSet<String>,
}

impl Recent {
    /// Remembers a change.
    pub fn remember(&mut self, change: &str) {
        if !self.known.insert(change.to_owned()) {
            return;
        }
        self.order.push_back(change.to_owned());
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }

    /// Whether it is remembered.
    pub fn has(&self, change: &str) -> bool {
        self.known.contains(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut recent = Recent::default();
        for n in 0..=MOST {
            recent.remember(&n.to_string());
            recent.remember(&n.to_string());
        }
        assert!(!recent.has("0") && recent.has("1") && recent.has(&MOST.to_string()));
        assert_eq!((recent.order.len(), recent.known.len()), (MOST, MOST));
    }
}
