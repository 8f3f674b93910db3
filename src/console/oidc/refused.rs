//! Why a sign-on did not come about: a word for the page, which tells the person, and the reason for the log.

use strum::{EnumIter, IntoStaticStr};

/// What the page tells; it has a text for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Word {
    /// It was not begun in this browser, or too long ago.
    NotBegunHere,
    /// The provider says no, or the person did.
    Declined,
    /// The provider does not answer.
    ProviderAway,
    /// The provider's answer does not hold.
    ProviderWrong,
    /// None of the person's groups lets anybody in.
    NoGroup,
    /// The page of another server asked for it.
    ForeignPage,
}

/// Why nobody is signed in.
#[derive(Debug)]
pub(super) struct Refused {
    pub word: Word,
    /// For operators. It holds no secret, no code and no token.
    pub why: String,
    /// Whom the provider has named, if it has.
    pub who: Option<String>,
}

impl Refused {
    pub fn new(word: Word, why: impl Into<String>) -> Refused {
        Refused { word, why: why.into(), who: None }
    }

    /// Somebody whom the provider names and nobody lets in.
    pub fn somebody(name: &str, why: &str) -> Refused {
        let who = Some(name.to_owned());
        Refused { who, ..Refused::new(Word::NoGroup, format!("{name:?}: {why}")) }
    }

    pub fn wrong(why: impl Into<String>) -> Refused {
        Refused::new(Word::ProviderWrong, why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use strum::IntoEnumIterator;

    #[test]
    fn the_page_has_a_text_for_each_word() {
        let texts = include_str!("../../../console/src/shell/refusals.ts");
        for word in Word::iter() {
            let word: &str = word.into();
            assert!(texts.contains(&format!("\n  \"{word}\": [")), "{word}");
        }
    }
}
