//! The name of a forwarder: of its consumer, its lease and its dead letters.

use std::fmt;
use std::str::FromStr;

/// The longest name.
const LONGEST: usize = 64;

/// A forwarder's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(String);

/// The rule that a name breaks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must have 1 to {LONGEST} characters, each a letter, a digit, or one of - _")]
pub struct NoName;

impl FromStr for Name {
    type Err = NoName;

    fn from_str(text: &str) -> Result<Name, NoName> {
        let is_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let is_name = (1..=LONGEST).contains(&text.len()) && text.chars().all(is_character);
        is_name.then(|| Name(text.to_owned())).ok_or(NoName)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_part_of_a_subject() {
        assert_eq!(
            "slack-eu_1".parse::<Name>().map(|name| name.to_string()),
            Ok("slack-eu_1".to_owned())
        );
        for wrong in ["", "a.b", "a b", "*", ">", "ä", &"a".repeat(65)] {
            assert_eq!(wrong.parse::<Name>(), Err(NoName), "{wrong}");
        }
    }
}
