//! What a writer expects to replace: the versions of a thing that it has seen.
//!
//! Without it, two concurrent writers could undo each other's changes unnoticed. A writer that names the version it
//! has seen is refused if another one is in force. A writer that names none replaces any version.

/// Versions, of which one must be the present one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Precondition(Vec<i64>);

impl Precondition {
    /// Parses the header If-Match: entity tags separated by commas. `None` for `*`, which matches any version. A tag
    /// in no form of ours is left out: it matches nothing.
    pub fn parse(header: &str) -> Option<Precondition> {
        if header.trim() == "*" {
            return None;
        }
        let versions = header.split(',').filter_map(|tag| {
            // Weak tags never match here: RFC 9110, 13.1.1.
            let version = tag.trim().strip_prefix('"')?.strip_suffix('"')?;
            version.parse().ok()
        });
        Some(Precondition(versions.collect()))
    }

    /// Whether this version is one of the expected ones.
    pub fn allows(&self, version: i64) -> bool {
        self.0.contains(&version)
    }
}

/// The entity tag of a version.
pub fn tag(version: i64) -> String {
    format!("\"{version}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_strong_tags_that_are_ours_match() {
        let cases = [
            ("\"7\"", true),
            (" \"6\" , \"7\"", true),
            ("\"6\"", false),
            ("W/\"7\"", false),
            ("7", false),
            ("\"seven\"", false),
            ("\"", false),
            ("", false),
        ];
        for (header, allowed) in cases {
            let expected = Precondition::parse(header).expect("a condition");
            assert_eq!(expected.allows(7), allowed, "{header}");
        }
        assert_eq!(Precondition::parse(" * "), None);
        assert!(Precondition::parse(&tag(7)).expect("a condition").allows(7));
    }
}
