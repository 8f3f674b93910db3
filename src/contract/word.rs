//! A word of a set that may grow: this version keeps an unknown word of a later version, and passes
//! it on.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use postgres_types::{FromSql, Type};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A word as it is sent and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word<T> {
    /// A word that this version knows.
    Known(T),
    /// A word of a later version. No decision depends on it.
    Unknown(String),
}

impl<T: Copy> Word<T> {
    /// Its meaning; none if this version does not know it.
    pub fn known(&self) -> Option<T> {
        match self {
            Word::Known(known) => Some(*known),
            Word::Unknown(_) => None,
        }
    }
}

impl<T: Copy + Into<&'static str>> Word<T> {
    /// The word itself.
    pub fn as_str(&self) -> &str {
        match self {
            Word::Known(known) => (*known).into(),
            Word::Unknown(word) => word,
        }
    }
}

impl<T> From<T> for Word<T> {
    fn from(known: T) -> Word<T> {
        Word::Known(known)
    }
}

impl<T: FromStr> Word<T> {
    /// Reads any word.
    pub fn read(word: &str) -> Word<T> {
        word.parse().map_or_else(|_| Word::Unknown(word.to_owned()), Word::Known)
    }
}

impl<T: PartialEq> PartialEq<T> for Word<T> {
    fn eq(&self, other: &T) -> bool {
        matches!(self, Word::Known(known) if known == other)
    }
}

impl<T: Copy + Into<&'static str>> fmt::Display for Word<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl<T: Copy + Into<&'static str>> Serialize for Word<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word<T>, D::Error> {
        String::deserialize(deserializer).map(|word| Word::read(&word))
    }
}

impl<'a, T: FromStr> FromSql<'a> for Word<T> {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Word<T>, Box<dyn Error + Sync + Send>> {
        <&str>::from_sql(ty, raw).map(Word::read)
    }

    fn accepts(ty: &Type) -> bool {
        <&str>::accepts(ty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::lifecycle::Event;

    #[test]
    fn a_word_of_a_later_version_is_kept_and_passed_on_as_it_came() {
        for word in ["connected", "rebooted", "Connected", "", "heartbeat lost"] {
            let json = serde_json::to_string(word).expect("json");
            let read: Word<Event> = serde_json::from_str(&json).expect("a word");
            assert_eq!(serde_json::to_string(&read).expect("json"), json);
            assert_eq!(read.as_str(), word);
            assert_eq!(read == Event::Connected, word == "connected");
        }
        assert_eq!(Word::<Event>::read("rebooted").known(), None);
    }

    #[test]
    fn what_is_no_word_is_refused() {
        for json in ["null", "7", "{}", "[\"connected\"]"] {
            serde_json::from_str::<Word<Event>>(json).expect_err(json);
        }
    }
}
