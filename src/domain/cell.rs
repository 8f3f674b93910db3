//! The name of a cell: one Groundstation of several, whose streams are merged for readers.

use std::fmt;
use std::str::FromStr;

/// The header that names the cell a message comes from.
pub const HEADER: &str = "Groundstation-Cell";

/// The longest name.
const LONGEST: usize = 64;

/// A cell's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell(String);

/// The rule that a name breaks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must have 1 to {LONGEST} characters, each a letter, a digit, or one of - _ .")]
pub struct NoCell;

impl Cell {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Cell {
    type Err = NoCell;

    fn from_str(text: &str) -> Result<Cell, NoCell> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let is_name = (1..=LONGEST).contains(&text.len()) && text.chars().all(is_allowed);
        if is_name { Ok(Cell(text.to_owned())) } else { Err(NoCell) }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_letters_digits_and_three_signs_and_is_neither_empty_nor_long() {
        for name in ["a", "Z9", "eu-1", "north_sea", "de.fra.2", &"x".repeat(64)] {
            assert_eq!(name.parse::<Cell>().map(|cell| cell.to_string()).as_deref(), Ok(name));
        }
        for text in ["", " a", "a b", "a/b", "a:b", "nörd", "a\n", "*", &"x".repeat(65)] {
            assert_eq!(text.parse::<Cell>(), Err(NoCell), "{text:?}");
        }
    }
}
