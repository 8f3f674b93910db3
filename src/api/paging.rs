//! Pages of what is read along positions, from either end: the log and the audit.

use super::problem::Problem;

/// Which page is asked for.
pub struct Paging {
    /// Behind this position.
    pub after: i64,
    /// Before this one, where the newest come first; without it from the newest on.
    pub before: Option<i64>,
    /// How many.
    pub limit: i64,
    /// Whether the newest come first.
    pub is_newest_first: bool,
}

/// Where the next pages begin.
pub struct Next {
    /// What to pass as `after` for what is behind this page.
    pub after: i64,
    /// What to pass as `before` for what is before it; none where nothing is, or where the oldest come first.
    pub before: Option<i64>,
}

impl Paging {
    /// Checks the parameters `order`, `after` and `before`; `limit` was checked.
    pub fn check(
        order: Option<&str>,
        after: Option<i64>,
        before: Option<i64>,
        limit: i64,
    ) -> Result<Paging, Problem> {
        let is_newest_first = match order {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(Problem::invalid("order must be asc or desc.")),
        };
        if after.is_some_and(|after| after < 0) {
            return Err(Problem::invalid("after must be a position, 0 or more."));
        }
        if before.is_some_and(|before| before < 1) {
            return Err(Problem::invalid("before must be a position, 1 or more."));
        }
        match is_newest_first {
            true if after.is_some() => {
                Err(Problem::invalid("after goes with order=asc; with order=desc use before."))
            }
            false if before.is_some() => Err(Problem::invalid("before goes with order=desc.")),
            _ => Ok(Paging { after: after.unwrap_or(0), before, limit, is_newest_first }),
        }
    }

    /// What follows on a page with these positions, in its order.
    pub fn next(&self, positions: &[i64]) -> Next {
        let newest = if self.is_newest_first { positions.first() } else { positions.last() };
        // One that is not full is the last; behind position 1 there is none either.
        let is_full = self.is_newest_first && positions.len() as i64 == self.limit;
        let oldest = positions.last().filter(|position| is_full && **position > 1);
        Next { after: newest.copied().unwrap_or(self.after), before: oldest.copied() }
    }
}
