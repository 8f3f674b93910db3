//! Checking the chain of seals against the log.

use std::fmt;

use deadpool_postgres::Object;
use tokio_postgres::Error;

use super::{Hash, MAX_ROWS, Seal};
use crate::domain::lifecycle::Position;
use crate::log::{self, canonical, read};
use crate::platform::database::Database;

/// Seals in one read.
const PAGE: i64 = 200;

/// Where the chain is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Break {
    /// Sealed rows are gone.
    Dropped {
        /// The first that is gone.
        first: Position,
        /// The last of the rows that are gone in a row.
        last: Position,
    },
    /// The rows are not those that were sealed.
    Changed {
        /// The seal's first position.
        first: Position,
        /// Its last.
        last: Position,
    },
    /// The seal was changed: the next one remembers another hash.
    SealEdited {
        /// Its first position.
        first: Position,
        /// Its last.
        last: Position,
    },
    /// The seal does not follow on the one before it.
    NotChained {
        /// Its first position.
        first: Position,
        /// Its last.
        last: Position,
    },
    /// No seal covers these positions, and later ones are covered.
    Uncovered {
        /// The first of them.
        first: Position,
        /// The last.
        last: Position,
    },
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Break::Dropped { first, last }
        | Break::Changed { first, last }
        | Break::SealEdited { first, last }
        | Break::NotChained { first, last }
        | Break::Uncovered { first, last }) = self;
        let range = format!("positions {} to {}", first.0, last.0);
        match self {
            Break::Dropped { .. } => {
                write!(f, "dropped    {range}: sealed, and no longer in the log")
            }
            Break::Changed { .. } => write!(
                f,
                "changed    {range}: not what was sealed (a row was changed, or two were swapped)"
            ),
            Break::SealEdited { .. } => {
                write!(f, "seal       {range}: the seal itself was changed")
            }
            Break::NotChained { .. } => write!(
                f,
                "seal       {range}: does not follow on the seal before it (one was changed or dropped)"
            ),
            Break::Uncovered { .. } => {
                write!(f, "unsealed   {range}: no seal covers them, but later ones are sealed")
            }
        }
    }
}

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// Seals whose rows were hashed again.
    pub seals: u64,
    /// Seals with rows that retention dropped, in part or all: their hashes are believed.
    pub believed: u64,
    /// Transitions hashed again.
    pub transitions: u64,
    /// Where the chain is broken.
    pub breaks: u64,
    /// The newest seal's end and hash.
    pub newest: Option<(Position, Hash)>,
    /// The newest transition, sealed or not.
    pub head: Position,
}

/// Checks the whole chain in constant memory. Calls `found` for every break.
pub async fn check(database: &Database, mut found: impl FnMut(Break)) -> anyhow::Result<Checked> {
    let ends = async |client: &mut Object| {
        Ok::<_, Error>((log::horizon(client).await?, read::head(client).await?))
    };
    let (horizon, head) = database.run(ends).await?;
    let checked = Checked { seals: 0, believed: 0, transitions: 0, breaks: 0, newest: None, head };
    let mut check = Check { database, horizon, checked, before: None };
    let mut at = Position::ZERO;
    loop {
        let page = database.run(async |client| super::after(client, at, PAGE).await).await?;
        let Some(last) = page.last() else { break };
        at = last.first;
        for seal in page {
            for broken in check.seal(seal).await? {
                check.checked.breaks += 1;
                found(broken);
            }
        }
    }
    if let Some(broken) = check.before.take().and_then(|before| before.suspect) {
        check.checked.breaks += 1;
        found(broken);
    }
    Ok(check.checked)
}

struct Check<'a> {
    database: &'a Database,
    horizon: Position,
    checked: Checked,
    before: Option<Before>,
}

/// The seal before the present one.
struct Before {
    seal: Seal,
    /// The hash that its rows give now, if all of them are there.
    actual: Option<Hash>,
    /// What is wrong with it, unless the next seal shows that the seal was changed and not the rows.
    suspect: Option<Break>,
}

impl Check<'_> {
    async fn seal(&mut self, seal: Seal) -> anyhow::Result<Vec<Break>> {
        let mut breaks = Vec::new();
        let (first, last) = (seal.first, seal.last);
        let expected = match self.before.take() {
            None => {
                breaks.extend(self.uncovered(Position(1), first));
                Hash::NONE
            }
            Some(before) => {
                breaks.extend(self.uncovered(before.seal.last.next(), first));
                // The rows still give the hash that the next seal remembers: only the seal was changed.
                let is_edited = before.actual == Some(seal.previous);
                match before.suspect {
                    Some(_) if is_edited => breaks.push(Break::SealEdited {
                        first: before.seal.first,
                        last: before.seal.last,
                    }),
                    Some(suspect) => breaks.push(suspect),
                    None => {}
                }
                if is_edited { seal.previous } else { before.seal.hash }
            }
        };
        if seal.previous != expected {
            breaks.push(Break::NotChained { first, last });
        }
        let (actual, suspect) = if first <= self.horizon {
            self.checked.believed += 1;
            (None, None)
        } else {
            self.checked.seals += 1;
            self.rows_of(&seal, expected, &mut breaks).await?
        };
        self.checked.newest = Some((last, seal.hash));
        self.before = Some(Before { seal, actual, suspect });
        Ok(breaks)
    }

    /// The positions from `expected` to before `first` have no seal. This is no break if none of them is in the log
    /// any more: retention drops what was recorded before there were seals.
    fn uncovered(&self, expected: Position, first: Position) -> Option<Break> {
        let expected = expected.max(self.horizon.next());
        let last = Position(first.0 - 1);
        (expected <= last).then_some(Break::Uncovered { first: expected, last })
    }

    /// The hash that the rows of a seal give now, and what is wrong with them.
    async fn rows_of(
        &mut self,
        seal: &Seal,
        chained: Hash,
        breaks: &mut Vec<Break>,
    ) -> anyhow::Result<(Option<Hash>, Option<Break>)> {
        let before = Position(seal.first.0 - 1);
        let rows =
            async |client: &mut Object| canonical::rows(client, before, seal.last, MAX_ROWS).await;
        let rows = self.database.run(rows).await?;
        self.checked.transitions += rows.len() as u64;
        let mut expected = seal.first.0;
        for position in rows.iter().map(|row| row.position.0).chain([seal.last.0.saturating_add(1)])
        {
            if position > expected {
                let (first, last) = (Position(expected), Position(position - 1));
                breaks.push(Break::Dropped { first, last });
            }
            expected = position.saturating_add(1);
        }
        if rows.last().map(|row| row.position) != Some(seal.last)
            || rows.len() as i64 != seal.last.0 - before.0
        {
            return Ok((None, None));
        }
        let mut actual = seal.hash_of(seal.previous, &rows);
        if actual != seal.hash && seal.hash_of(chained, &rows) == seal.hash {
            // Only its memory of the seal before was changed, which is reported already.
            actual = seal.hash;
        }
        let changed = Break::Changed { first: seal.first, last: seal.last };
        Ok((Some(actual), (actual != seal.hash).then_some(changed)))
    }
}
