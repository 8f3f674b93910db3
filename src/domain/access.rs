//! What a token of the administration API allows: by its role, and within which part of the fleet.

use std::collections::BTreeMap;

use strum::{EnumIter, EnumString, IntoStaticStr};

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Satellites and what they are to do.
    Operator,
    /// Only to look.
    Read,
    /// Only to register satellites by themselves.
    Enrol,
}

impl Role {
    /// The word used on the wire and in logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Which part of the fleet a token reaches: all that is named has to hold. By default all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    /// Only this region.
    pub region: Option<String>,
    /// Only with all of these tags.
    pub tags: BTreeMap<String, String>,
}

impl Selector {
    /// Whether it names anything.
    pub fn is_bounded(&self) -> bool {
        self.region.is_some() || !self.tags.is_empty()
    }

    /// What of this description is outside; none where it is inside.
    pub fn outside(
        &self,
        region: Option<&str>,
        tags: Option<&BTreeMap<String, String>>,
    ) -> Option<Outside<'_>> {
        if let (Some(own), Some(region)) = (&self.region, region)
            && own != region
        {
            return Some(Outside::Region(own));
        }
        let missing = |(name, value): &(&String, &String)| {
            tags.is_some_and(|tags| tags.get(*name) != Some(*value))
        };
        let (name, value) = self.tags.iter().find(missing)?;
        Some(Outside::Tag(name, value))
    }

    /// Whether all satellites inside the other one are inside this one.
    pub fn covers(&self, other: &Selector) -> bool {
        let region = self.region.is_none() || self.region == other.region;
        region && self.tags.iter().all(|(name, value)| other.tags.get(name) == Some(value))
    }

    /// Whether a satellite can be inside both.
    pub fn agrees(&self, other: &Selector) -> bool {
        let region = match (&self.region, &other.region) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        let same = |(name, value)| other.tags.get(name).is_none_or(|other| other == value);
        region && self.tags.iter().all(same)
    }

    /// The region that is left where somebody asks for one. Where that is another than the token's it is the one
    /// without a name, in which there is no satellite.
    pub fn narrow(&self, asked: Option<String>) -> Option<String> {
        match (&self.region, asked) {
            (Some(own), Some(asked)) if *own != asked => Some(String::new()),
            (own, asked) => asked.or_else(|| own.clone()),
        }
    }
}

/// What a satellite would need to be inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside<'a> {
    /// To be in this region.
    Region(&'a str),
    /// To have this tag with this value.
    Tag(&'a str, &'a str),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tags: &[(&str, &str)]) -> BTreeMap<String, String> {
        tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn all_that_a_selector_names_has_to_hold_and_what_is_not_said_stays() {
        let all = Selector::default();
        assert!(!all.is_bounded());
        assert_eq!(all.outside(Some("eu"), Some(&tags(&[]))), None);
        let some = Selector { region: Some("eu".to_owned()), tags: tags(&[("tier", "gold")]) };
        assert!(some.is_bounded());
        let gold = tags(&[("rack", "7"), ("tier", "gold")]);
        for (region, tags, outside) in [
            (Some("eu"), Some(gold.clone()), None),
            (None, None, None),
            (None, Some(gold.clone()), None),
            (Some("eu"), None, None),
            (Some("us"), Some(gold.clone()), Some(Outside::Region("eu"))),
            (Some("eu"), Some(tags(&[("tier", "iron")])), Some(Outside::Tag("tier", "gold"))),
            (None, Some(tags(&[])), Some(Outside::Tag("tier", "gold"))),
        ] {
            assert_eq!(some.outside(region, tags.as_ref()), outside, "{region:?} {tags:?}");
        }
    }

    #[test]
    fn one_selector_covers_another_that_names_all_of_it_and_agrees_with_what_names_nothing_else() {
        let some = |region: Option<&str>, list: &[(&str, &str)]| Selector {
            region: region.map(str::to_owned),
            tags: tags(list),
        };
        let gold = some(Some("eu"), &[("tier", "gold")]);
        for (other, covers, agrees) in [
            (some(None, &[]), false, true),
            (some(Some("eu"), &[]), false, true),
            (some(None, &[("tier", "gold")]), false, true),
            (some(Some("eu"), &[("tier", "gold"), ("rack", "7")]), true, true),
            (some(Some("eu"), &[("tier", "iron")]), false, false),
            (some(Some("us"), &[("tier", "gold")]), false, false),
            (some(None, &[("rack", "7")]), false, true),
        ] {
            assert_eq!((gold.covers(&other), gold.agrees(&other)), (covers, agrees), "{other:?}");
            assert!(Selector::default().covers(&other) && Selector::default().agrees(&other));
        }
    }

    #[test]
    fn a_region_that_is_asked_for_narrows_and_never_widens() {
        let region = |text: &str| Some(text.to_owned());
        let bounded = Selector { region: region("eu"), ..Selector::default() };
        for (selector, asked, left) in [
            (&Selector::default(), None, None),
            (&Selector::default(), region("us"), region("us")),
            (&bounded, None, region("eu")),
            (&bounded, region("eu"), region("eu")),
            (&bounded, region("us"), region("")),
            (&bounded, region(""), region("")),
        ] {
            assert_eq!(selector.narrow(asked), left);
        }
    }
}
