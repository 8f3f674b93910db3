//! Which satellites a question is about, and in which order: the same words for the present and the past.

use std::str::FromStr;
use std::time::Duration;

use strum::{EnumIter, EnumString, IntoStaticStr};
use uuid::Uuid;

use crate::domain::access::Selector;
use crate::domain::lifecycle::Event;
use crate::domain::liveness::Status;

/// Which satellites; all of them by default, and all that is named has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only with this status.
    pub status: Option<Status>,
    /// Only in this region.
    pub region: Option<String>,
    /// Only with all of these tags, which may name one twice.
    pub tags: Vec<(String, String)>,
    /// Only whose name contains this, whatever the case.
    pub text: Option<String>,
    /// Only whose last edge is this.
    pub last_event: Option<Event>,
    /// Only those that come and go too often, or only the others.
    pub flapping: Option<bool>,
    /// Only those that are offline and were active last so long ago or longer: heard, or, after a clean end, the
    /// end; of one that has never connected its registration.
    pub inactive_for: Option<Duration>,
    /// Only those that are inside now, whatever they were at the time that is asked about.
    pub within: Selector,
}

impl Selection {
    /// The same, of what a selector reaches.
    pub fn bounded(mut self, selector: &Selector) -> Selection {
        self.region = selector.narrow(self.region);
        let tags = selector.tags.iter();
        self.tags.extend(tags.map(|(name, value)| (name.clone(), value.clone())));
        self.within = selector.clone();
        self
    }
}

/// By what satellites are listed; those that are alike by name and id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "camelCase")]
pub enum Sort {
    /// By name.
    #[default]
    Name,
    /// By region.
    Region,
    /// By when they were registered.
    CreatedAt,
    /// By when they were heard last. Those that are online are heard now, all alike; those of which it is not known are
    /// the oldest.
    LastSeenAt,
}

impl Sort {
    /// The word in a query.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// In which order satellites are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub by: Sort,
    /// From the last to the first.
    pub descending: bool,
}

impl FromStr for Order {
    type Err = strum::ParseError;

    /// `name`, or `-name` for the other way round.
    fn from_str(word: &str) -> Result<Order, strum::ParseError> {
        let (descending, word) = match word.strip_prefix('-') {
            Some(word) => (true, word),
            None => (false, word),
        };
        Ok(Order { by: word.parse()?, descending })
    }
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.descending { "-" } else { "" })?;
        f.write_str(self.by.as_str())
    }
}

/// Where a page ends, so that the next begins behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// What its last satellite is listed by, as text; none where that is the name.
    pub key: Option<String>,
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: Uuid,
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::IntoEnumIterator;

    #[test]
    fn a_selection_is_bounded_by_all_that_a_selector_names_beside_what_was_asked_for() {
        let tag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let asked = Selection {
            region: Some("us".to_owned()),
            tags: vec![tag("tier", "iron")],
            ..Selection::default()
        };
        assert_eq!(asked.clone().bounded(&Selector::default()), asked);
        let selector =
            Selector { region: Some("eu".to_owned()), tags: [tag("tier", "gold")].into() };
        let bounded = asked.bounded(&selector);
        assert_eq!(bounded.region.as_deref(), Some(""));
        assert_eq!(bounded.tags, [tag("tier", "iron"), tag("tier", "gold")]);
        assert_eq!(bounded.within, selector);
        let all = Selection::default().bounded(&selector);
        assert_eq!((all.region.as_deref(), all.tags.len()), (Some("eu"), 1));
    }

    #[test]
    fn an_order_is_read_as_it_is_written_and_no_other_word_is_one() {
        for by in Sort::iter() {
            for descending in [false, true] {
                let order = Order { by, descending };
                assert_eq!(order.to_string().parse(), Ok(order));
            }
        }
        for word in ["", "-", "--name", "Name", "+name", "name ", "status"] {
            assert!(word.parse::<Order>().is_err(), "{word:?}");
        }
    }
}
