//! Which of several selectors can select the same satellite, and what they weigh together then.
//!
//! A selector names one value for each thing that it names. So some that agree two by two agree all together: there can
//! be a satellite that all of them select.

use super::access::Selector;

/// The most selectors that are looked at together: each is a bit.
pub const MAX: usize = 128;

/// The most combinations that are looked at. Sets by region and a few tags need some hundred.
const MAX_STEPS: usize = 20_000;

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Heaviest {
    /// No combination weighs more than the limit.
    Within,
    /// Some that do, by their places: a satellite may be selected by all of these.
    Beyond(Vec<usize>),
    /// There are too many combinations to say.
    Unknown,
}

/// Whether the first selector and some of the others can select one satellite and weigh more than the limit together. At
/// most [`MAX`] are looked at.
pub fn heaviest(all: &[(&Selector, usize)], limit: usize) -> Heaviest {
    if all.len() > MAX {
        return Heaviest::Unknown;
    }
    let agreeing = |selector: &Selector| {
        let agree = all.iter().enumerate().filter(|(_, (other, _))| selector.agrees(other));
        agree.fold(0, |mask, (n, _)| mask | bit(n))
    };
    let search = Search {
        weights: all.iter().map(|(_, weight)| *weight).collect(),
        agreeing: all.iter().map(|(selector, _)| agreeing(selector)).collect(),
        limit,
    };
    let Some(first) = search.agreeing.first() else { return Heaviest::Within };
    match search.beyond(*first, &mut 0) {
        Ok(None) => Heaviest::Within,
        Ok(Some(mask)) => Heaviest::Beyond(bits(mask).collect()),
        Err(TooMany) => Heaviest::Unknown,
    }
}

/// What the first selector and some of the others can weigh together at most, as far as it can be told; never more than
/// `limit`, which nothing exceeds.
pub fn most(all: &[(&Selector, usize)], limit: usize) -> usize {
    let (mut least, mut most) = (0, limit);
    while least < most {
        let middle = least.midpoint(most);
        match heaviest(all, middle) {
            Heaviest::Within => most = middle,
            Heaviest::Beyond(_) | Heaviest::Unknown => least = middle + 1,
        }
    }
    most
}

struct TooMany;

struct Search {
    weights: Vec<usize>,
    /// With which others each agrees, itself among them.
    agreeing: Vec<u128>,
    limit: usize,
}

impl Search {
    /// Some of these that agree and weigh more than the limit.
    fn beyond(&self, mut left: u128, steps: &mut usize) -> Result<Option<u128>, TooMany> {
        loop {
            *steps += 1;
            if *steps > MAX_STEPS {
                return Err(TooMany);
            }
            let weight: usize = bits(left).filter_map(|n| self.weights.get(n)).sum();
            if weight <= self.limit {
                return Ok(None);
            }
            let differs = bits(left).find_map(|n| {
                self.agreeing.get(n).filter(|mask| left & !**mask != 0).map(|m| (n, m))
            });
            let Some((n, agreeing)) = differs else { return Ok(Some(left)) };
            if let Some(found) = self.beyond(left & agreeing, steps)? {
                return Ok(Some(found));
            }
            left &= !bit(n);
        }
    }
}

fn bit(n: usize) -> u128 {
    1 << n
}

fn bits(mask: u128) -> impl Iterator<Item = usize> {
    (0..MAX).filter(move |n| mask & bit(*n) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(region: &str, tags: &[(&str, &str)]) -> Selector {
        let own = |text: &str| text.to_owned();
        let region = (!region.is_empty()).then(|| own(region));
        Selector { region, tags: tags.iter().map(|(n, v)| (own(n), own(v))).collect() }
    }

    fn found(sets: &[(Selector, usize)], limit: usize) -> Heaviest {
        let sets: Vec<_> = sets.iter().map(|(selector, weight)| (selector, *weight)).collect();
        heaviest(&sets, limit)
    }

    #[test]
    fn sets_of_different_regions_do_not_add_up_and_one_for_all_adds_to_each() {
        let mut sets = vec![(selector("", &[]), 100)];
        sets.extend((0..99).map(|n| (selector(&format!("r{n}"), &[]), 400)));
        assert_eq!(found(&sets, 500), Heaviest::Within);
        sets[98].1 = 401;
        assert_eq!(found(&sets, 500), Heaviest::Beyond(vec![0, 98]));
        assert_eq!(found(&[], 500), Heaviest::Within);
    }

    #[test]
    fn regions_and_tags_that_can_be_of_one_satellite_add_up() {
        let sets = [
            (selector("eu", &[]), 200),
            (selector("", &[("tier", "gold")]), 200),
            (selector("", &[("tier", "iron")]), 300),
            (selector("us", &[]), 500),
        ];
        assert_eq!(found(&sets, 500), Heaviest::Within);
        assert_eq!(found(&sets, 499), Heaviest::Beyond(vec![0, 2]));
        // Only what goes with the first is looked at: the others were let in before.
        assert_eq!(found(&sets, 450), Heaviest::Beyond(vec![0, 2]));
        let sets: Vec<_> = sets.iter().map(|(selector, weight)| (selector, *weight)).collect();
        assert_eq!(most(&sets, 1_000), 500);
        assert_eq!(most(&sets[..2], 1_000), 400);
        assert_eq!(most(&[], 1_000), 0);
    }

    #[test]
    fn what_has_too_many_combinations_is_not_called_small() {
        let mut sets = vec![(selector("", &[]), 1)];
        for key in 0..40 {
            for value in ["a", "b", "c"] {
                sets.push((selector("", &[(&format!("k{key}"), value)]), 2));
            }
        }
        assert_eq!(found(&sets, 81), Heaviest::Unknown);
        assert_eq!(found(&sets, 241), Heaviest::Within);
        assert!(matches!(found(&sets, 80), Heaviest::Beyond(_)));
    }
}
