//! A chain of seals over a numbered history, and its check: the registry's ([`super::registry`]) and the audit
//! ([`super::audit`]).
//!
//! A seal covers what follows on the seal before it, in the order of the numbers. It holds a digest of each row, and
//! SHA-256 of all digests and of the hash before. So [`History::check`] names the very row that was altered, dropped or
//! added. Numbers are given out under a lock that is held to the commit, so what is below a visible one is complete. They
//! may have gaps, because a change that failed may have used one. As for the log, two things have no witness here: what was
//! never sealed, and the newest seal together with all its rows.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::{GenericClient, Object};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio_postgres::{Error, Row};

use super::{Hash, LOCK};
use crate::log::canonical;
use crate::platform::database::{self, Database};

/// Rows that one seal covers at most.
const MAX_ROWS: i64 = 1_000;

/// Seals in one read, each of up to 40 KB.
const PAGE: i64 = 50;

/// A history under seals.
pub struct History {
    /// What it is called, as in "change 7 of the registry".
    pub name: &'static str,
    /// What it is called by itself.
    pub title: &'static str,
    /// What one row of it is called.
    pub row: &'static str,
    /// Its table.
    #[cfg(test)]
    pub table: &'static str,
    /// The table of its seals, and the column of the numbers that one covers.
    pub seals: (&'static str, &'static str),
    /// Prefix of what is hashed for a seal, so that no hash made for another purpose can pass for one of these.
    pub domain: &'static [u8],
    /// Reads the rows of which the numbers are beyond $1 and not beyond $2, at most $3, in order.
    pub rows: &'static str,
    /// The number and the digest of one of them.
    pub digest: fn(&Row) -> Result<(i64, Hash), Error>,
    /// Reads up to which number rows were dropped by retention, where there is one.
    pub dropped: Option<&'static str>,
    /// Reads the newest number, where numbers have no gap.
    pub head: Option<&'static str>,
}

/// One seal.
#[derive(Debug, Clone)]
pub struct Seal {
    /// Its number; they are dense.
    pub number: i64,
    /// The rows it covers, each with its digest.
    rows: Vec<(i64, Hash)>,
    previous: Hash,
    /// Its hash.
    pub hash: Hash,
    sealed_at: OffsetDateTime,
}

impl Seal {
    /// The newest row under it.
    pub fn last(&self) -> i64 {
        self.rows.last().map_or(0, |(row, _)| *row)
    }

    /// How many rows are under it.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    fn hash_of(&self, domain: &[u8]) -> Hash {
        let sealed_at = self.sealed_at.unix_timestamp_nanos() / 1_000;
        let mut hasher = Sha256::new();
        hasher.update(domain);
        hasher.update(self.previous.0);
        hasher.update(self.number.to_be_bytes());
        hasher.update((sealed_at as i64).to_be_bytes());
        for (row, digest) in &self.rows {
            hasher.update(row.to_be_bytes());
            hasher.update(digest.0);
        }
        Hash(hasher.finalize().into())
    }

    fn from_row(row: &Row) -> Result<Seal, Error> {
        let numbers: Vec<i64> = row.try_get("numbers")?;
        let digests: &[u8] = row.try_get("digests")?;
        Ok(Seal {
            number: row.try_get("number")?,
            // The table accepts only as many digests as numbers.
            rows: numbers.into_iter().zip(digests.chunks(32).map(Hash::from_column)).collect(),
            previous: Hash::from_column(row.try_get("previous_hash")?),
            hash: Hash::from_column(row.try_get("hash")?),
            sealed_at: row.try_get("sealed_at")?,
        })
    }
}

/// What is wrong with a history or with its seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// A row that was sealed is gone.
    Dropped(i64),
    /// Rows with these numbers are gone, and never were sealed.
    Missing(i64, i64),
    /// A row is not the one that was sealed.
    Changed(i64),
    /// A row appeared among those that were already sealed.
    Added(i64),
    /// The seal with this number was changed.
    SealEdited(i64),
    /// The seal with this number does not follow on the one before it.
    NotChained(i64),
}

/// The result of a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Seals that were checked.
    pub seals: u64,
    /// Rows whose digests were computed again.
    pub rows: u64,
    /// Rows behind the newest seal.
    pub unsealed: u64,
    /// Rows up to this one were dropped by retention: their seals are checked, and they are not.
    pub dropped: i64,
    /// What is wrong.
    pub breaks: u64,
    /// The newest seal's hash.
    pub newest: Option<Hash>,
}

impl History {
    /// Seals what follows on the newest seal, at most [`MAX_ROWS`] rows. `None` if there are none, or if another pod is
    /// sealing.
    pub async fn seal(&self, client: &Object) -> Result<Option<Seal>, Error> {
        client.batch_execute("begin isolation level read committed").await?;
        let sealed = self.seal_next(client).await?;
        let end = if sealed.is_some() { "commit" } else { "rollback" };
        client.batch_execute(end).await?;
        Ok(sealed)
    }

    async fn seal_next(&self, client: &Object) -> Result<Option<Seal>, Error> {
        if !client.query_one(LOCK, &[]).await?.try_get::<_, bool>("locked")? {
            return Ok(None);
        }
        // In a later statement than the lock, so that it sees the seal of the previous holder.
        let newest = self.select("order by number desc limit 1");
        let statement = client.prepare_cached(&newest).await?;
        let before =
            client.query_opt(&statement, &[]).await?.as_ref().map(Seal::from_row).transpose()?;
        let (number, after, previous) =
            before.map_or((0, 0, Hash::NONE), |seal| (seal.number, seal.last(), seal.hash));
        let rows = self.digests(client, after, i64::MAX, MAX_ROWS).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let sealed_at = client.query_one("select clock_timestamp()", &[]).await?.try_get(0)?;
        let mut seal = Seal { number: number + 1, rows, previous, hash: Hash::NONE, sealed_at };
        seal.hash = seal.hash_of(self.domain);
        let numbers: Vec<i64> = seal.rows.iter().map(|(row, _)| *row).collect();
        let digests: Vec<u8> = seal.rows.iter().flat_map(|(_, digest)| digest.0).collect();
        let (previous, hash) = (previous.0.as_slice(), seal.hash.0.as_slice());
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&seal.number, &numbers, &digests, &previous, &hash, &sealed_at];
        let (table, column) = self.seals;
        let insert = format!(
            "insert into {table} (number, {column}, digests, previous_hash, hash, sealed_at)
             values ($1, $2, $3, $4, $5, $6)"
        );
        client.execute(&insert, &parameters).await?;
        Ok(Some(seal))
    }

    fn select(&self, which: &str) -> String {
        let (table, column) = self.seals;
        format!(
            "select number, {column} as numbers, digests, previous_hash, hash, sealed_at from {table} {which}"
        )
    }

    /// The numbers and digests of the rows after `after` up to `last`, at most `limit` of them.
    async fn digests(
        &self,
        client: &impl GenericClient,
        after: i64,
        last: i64,
        limit: i64,
    ) -> Result<Vec<(i64, Hash)>, Error> {
        let statement = client.prepare_cached(self.rows).await?;
        let rows = client.query(&statement, &[&after, &last, &limit]).await?;
        rows.iter().map(self.digest).collect()
    }

    /// All digests between two rows, in pages: with added ones there may be more than a seal covers.
    async fn digests_between(
        &self,
        client: &impl GenericClient,
        mut after: i64,
        last: i64,
    ) -> Result<Vec<(i64, Hash)>, Error> {
        let mut all = Vec::new();
        loop {
            let page = self.digests(client, after, last, MAX_ROWS).await?;
            let Some((newest, _)) = page.last() else { return Ok(all) };
            after = *newest;
            all.extend(page);
        }
    }

    /// Up to which row retention has dropped them.
    async fn dropped(&self, client: &impl GenericClient) -> Result<i64, Error> {
        match self.dropped {
            Some(statement) => client.query_one(statement, &[]).await?.try_get(0),
            None => Ok(0),
        }
    }

    /// The newest number, where numbers have no gap.
    async fn head(&self, client: &impl GenericClient) -> Result<Option<i64>, Error> {
        match self.head {
            Some(statement) => client.query_one(statement, &[]).await?.try_get(0).map(Some),
            None => Ok(None),
        }
    }

    /// Checks the whole chain in bounded memory. Calls `found` for every break.
    pub async fn check(
        &self,
        database: &Database,
        mut found: impl FnMut(Break),
    ) -> anyhow::Result<Checked> {
        let described = |error: Error| anyhow::anyhow!(database::describe(&error));
        let client = database.get().await?;
        let mut checked = Checked::default();
        let (mut number, mut last, mut previous) = (0, 0, Hash::NONE);
        loop {
            let after = self.select("where number > $1 order by number limit $2");
            let page = client.query(&after, &[&number, &PAGE]).await.map_err(described)?;
            if page.is_empty() {
                break;
            }
            for row in &page {
                let seal = Seal::from_row(row).map_err(described)?;
                let mut breaks = Vec::new();
                if seal.previous != previous || seal.number != number + 1 {
                    breaks.push(Break::NotChained(seal.number));
                }
                let actual =
                    self.digests_between(&client, last, seal.last()).await.map_err(described)?;
                // After them: what retention drops meanwhile counts as dropped.
                checked.dropped = self.dropped(&client).await.map_err(described)?;
                checked.rows += actual.len() as u64;
                if self.head.is_some() {
                    let known = seal.rows.iter().chain(&actual).map(|(number, _)| *number);
                    breaks.extend(gaps(last, known.collect::<BTreeSet<_>>()));
                }
                if seal.hash_of(self.domain) == seal.hash {
                    breaks.extend(differences(&seal.rows, actual, checked.dropped));
                } else {
                    breaks.push(Break::SealEdited(seal.number));
                }
                checked.seals += 1;
                checked.breaks += breaks.len() as u64;
                breaks.into_iter().for_each(&mut found);
                (number, last, previous) = (seal.number, seal.last().max(last), seal.hash);
            }
        }
        checked.newest = (checked.seals > 0).then_some(previous);
        // Before the rows: all up to it are there by then.
        let head = self.head(&client).await.map_err(described)?;
        let unsealed = self.digests_between(&client, last, i64::MAX).await.map_err(described)?;
        checked.unsealed = unsealed.len() as u64;
        if let Some(head) = head {
            let there = unsealed.into_iter().map(|(number, _)| number).chain([head + 1]);
            for missing in gaps(last, there) {
                checked.breaks += 1;
                found(missing);
            }
        }
        Ok(checked)
    }

    /// A break in words.
    pub fn describe(&self, found: Break) -> String {
        let History { name, row, .. } = self;
        match found {
            Break::Dropped(n) => {
                format!("dropped    {row} {n} of the {name}: sealed, and no longer in its history")
            }
            Break::Missing(first, last) => format!(
                "missing    {row} {first} to {last} of the {name}: never sealed, and not there"
            ),
            Break::Changed(n) => format!("changed    {row} {n} of the {name}: not what was sealed"),
            Break::Added(n) => format!(
                "added      {row} {n} of the {name}: not there when those around it were sealed"
            ),
            Break::SealEdited(n) => {
                format!("seal       {n} of the {name}: the seal itself was changed")
            }
            Break::NotChained(n) => format!(
                "seal       {n} of the {name}: does not follow on the seal before it (one was changed or \
                 dropped)"
            ),
        }
    }
}

/// The digest of a row of these columns; `domain` is the prefix of everything that is hashed of its kind.
pub(super) fn digest(domain: &[u8], columns: &[Option<&[u8]>]) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(domain);
    hasher.update(canonical::encode(columns));
    Hash(hasher.finalize().into())
}

/// The numbers behind `after` that are not among these, which are in order.
fn gaps(after: i64, numbers: impl IntoIterator<Item = i64>) -> Vec<Break> {
    let (mut gaps, mut expected) = (Vec::new(), after + 1);
    for number in numbers {
        if number > expected {
            gaps.push(Break::Missing(expected, number - 1));
        }
        expected = expected.max(number.saturating_add(1));
    }
    gaps
}

/// What is other than it was sealed. Up to `dropped` rows may be gone; one that is there still has to be right.
fn differences(sealed: &[(i64, Hash)], actual: Vec<(i64, Hash)>, dropped: i64) -> Vec<Break> {
    let mut actual: BTreeMap<i64, Hash> = actual.into_iter().collect();
    let mut breaks: Vec<Break> = sealed
        .iter()
        .filter_map(|(row, digest)| match actual.remove(row) {
            None if *row <= dropped => None,
            None => Some(Break::Dropped(*row)),
            Some(now) if now != *digest => Some(Break::Changed(*row)),
            Some(_) => None,
        })
        .collect();
    breaks.extend(actual.into_keys().map(Break::Added));
    breaks
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A column that is missing from the form could be changed unseen.
    pub fn every_column_is_in_the_form(history: &History, migration: &str, columns: &[&str]) {
        let begin = format!("create table {} ", history.table);
        let table = migration.lines().skip_while(|line| !line.starts_with(&begin)).skip(1);
        let words = table
            .map_while(|line| line.split_whitespace().next().filter(|word| *word != "constraint"));
        assert_eq!(words.collect::<Vec<_>>(), columns);
        for column in columns {
            assert!(history.rows.contains(column), "{column} is not read");
        }
    }

    #[test]
    fn numbers_that_are_missing_are_named_from_the_first_to_the_last() {
        assert_eq!(gaps(3, [4, 5, 6]), []);
        assert_eq!(gaps(3, [5, 6, 9]), [Break::Missing(4, 4), Break::Missing(7, 8)]);
        assert_eq!(gaps(3, [4, 5, 4]), []);
    }

    #[test]
    fn what_was_changed_dropped_or_added_is_named() {
        let hash = |n: u8| Hash([n; 32]);
        let sealed = [(1, hash(1)), (3, hash(3)), (4, hash(4))];
        assert_eq!(differences(&sealed, sealed.to_vec(), 0), []);
        let actual = vec![(1, hash(1)), (2, hash(2)), (4, hash(9))];
        let named = [Break::Dropped(3), Break::Changed(4), Break::Added(2)];
        assert_eq!(differences(&sealed, actual.clone(), 2), named);
        assert_eq!(differences(&sealed, actual, 3), named[1..]);
    }
}
