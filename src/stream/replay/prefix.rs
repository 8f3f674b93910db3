//! The prefix of replayed subjects, so that no replay is taken for news. Pure.

use anyhow::{bail, ensure};

use crate::stream::tail::subjects;

/// The longest prefix, in bytes.
const MAX_LENGTH: usize = 200;

/// All live subjects.
const LIVE: &str = "satellite.>";

/// A checked prefix: whole tokens, and no live subject below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Prefix {
    /// Checks it; an error says what is wrong with it.
    pub fn parse(text: &str) -> anyhow::Result<Prefix> {
        let Some(tokens) = text.strip_suffix('.') else {
            bail!("it must end with a dot, such as replay.");
        };
        ensure!(text.len() <= MAX_LENGTH, "it must not be longer than {MAX_LENGTH} bytes");
        for token in tokens.split('.') {
            let is_plain = |c: char| c.is_ascii_graphic() && !matches!(c, '*' | '>');
            ensure!(
                !token.is_empty() && token.chars().all(is_plain),
                "it must be words of printable ASCII without * and >, each with a dot behind it"
            );
        }
        ensure!(
            !tokens.starts_with(['$', '_']),
            "it must not begin with $ or _: such subjects are the server's own"
        );
        let prefix = Prefix(text.to_owned());
        if let Some(subject) = prefix.taken_by(&[LIVE.to_owned()]) {
            bail!("it would make {subject}, and {LIVE} is live");
        }
        Ok(prefix)
    }

    /// The subject under which `subject` is replayed.
    pub fn subject(&self, subject: &str) -> String {
        format!("{}{subject}", self.0)
    }

    /// The first replayed subject that one of these patterns matches.
    pub fn taken_by(&self, patterns: &[String]) -> Option<String> {
        let mut replayed = subjects().into_iter().map(|subject| self.subject(&subject));
        replayed.find(|subject| patterns.iter().any(|pattern| takes(pattern, subject)))
    }
}

/// Whether a pattern with wildcards matches this subject.
fn takes(pattern: &str, subject: &str) -> bool {
    let (mut pattern, mut subject) = (pattern.split('.'), subject.split('.'));
    loop {
        match (pattern.next(), subject.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some("*"), Some(_)) => {}
            (Some(expected), Some(token)) if expected == token => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_whole_words_and_not_live() {
        for text in ["replay.", "replay.eu.", "replay-2.", "test.satellite.", "satellites."] {
            let prefix = Prefix::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(prefix.subject("satellite.connected"), format!("{text}satellite.connected"));
        }
        let cases = [
            ("", "end with a dot"),
            ("replay", "end with a dot"),
            (".", "each with a dot"),
            ("replay..", "each with a dot"),
            (".replay.", "each with a dot"),
            ("re play.", "each with a dot"),
            ("replay.*.", "each with a dot"),
            (">.", "each with a dot"),
            ("réplay.", "each with a dot"),
            ("$JS.API.", "the server's own"),
            ("_INBOX.", "the server's own"),
            ("satellite.", "satellite.satellite.connected"),
            ("satellite.replay.", "is live"),
        ];
        for (text, expected) in cases {
            let error = Prefix::parse(text).expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
        assert!(Prefix::parse(&format!("{}.", "a".repeat(200))).is_err());
    }

    #[test]
    fn a_stream_whose_subjects_are_wider_is_seen() {
        let prefix = Prefix::parse("replay.").expect("a prefix");
        let takes = |pattern: &str| prefix.taken_by(&[pattern.to_owned()]).is_some();
        for pattern in [">", "replay.>", "*.satellite.removed", "replay.satellite.*", "*.*.*"] {
            assert!(takes(pattern), "{pattern}");
        }
        for pattern in ["satellite.>", "*", "*.*", "replay.satellite", "satellite.connected"] {
            assert!(!takes(pattern), "{pattern}");
        }
    }
}
