//! A chain of seals over the registry's history, and its check.
//!
//! Owns the table `registry_seals`. A seal covers the changes that follow on the seal before it, in the order of
//! their numbers. It holds a digest of each change, and SHA-256 of all digests and of the hash before. So [`check`]
//! names the very change that was altered, dropped or added. Numbers are given out under the log's lock, so what is
//! below a visible change is complete. They have gaps, because a change that failed has used one. As for the log, two
//! things have no witness here: what was never sealed, and the newest seal together with all its changes.
//!
//! The canonical form of a change is that of a row of the log ([`crate::log::canonical`]): every column, in the order
//! of `COLUMNS`. It must never change; a column added later needs seals with another domain prefix.

use std::collections::BTreeMap;
use std::fmt;

use deadpool_postgres::{GenericClient, Object};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use super::{Hash, LOCK};
use crate::log::canonical;
use crate::platform::database::{self, Database};

/// Changes that one seal covers at most.
const MAX_CHANGES: i64 = 1_000;

/// Seals in one read, each of up to 40 KB.
const PAGE: i64 = 50;

/// Prefix of everything that is hashed, so that no hash made for another purpose can pass for one of these.
const SEAL_DOMAIN: &[u8] = b"groundstation registry seal 1\n";
const CHANGE_DOMAIN: &[u8] = b"groundstation registry change 1\n";

/// The columns, in the order of the form.
#[cfg(test)]
const COLUMNS: [&str; 9] = [
    "change",
    "position",
    "changed_at",
    "satellite_id",
    "action",
    "actor_type",
    "actor_id",
    "before",
    "after",
];

const CHANGES: &str = "
    select change, position, (extract(epoch from changed_at) * 1000000)::bigint as changed_at,
           satellite_id, action, actor_type, actor_id, before::text as before, after::text as after
      from registry_changes
     where change > $1 and change <= $2
     order by change
     limit $3";

/// The numbers and digests of the changes after `after` up to `last`, at most `limit` of them.
async fn digests(
    client: &impl GenericClient,
    after: i64,
    last: i64,
    limit: i64,
) -> Result<Vec<(i64, Hash)>, Error> {
    let statement = client.prepare_cached(CHANGES).await?;
    let rows = client.query(&statement, &[&after, &last, &limit]).await?;
    rows.iter().map(digest).collect()
}

fn digest(row: &Row) -> Result<(i64, Hash), Error> {
    let integer = |name| row.try_get::<_, i64>(name).map(i64::to_be_bytes);
    let text = |name| row.try_get::<_, Option<&str>>(name);
    let fields: [Option<&[u8]>; 9] = [
        Some(&integer("change")?),
        Some(&integer("position")?),
        Some(&integer("changed_at")?),
        Some(&row.try_get::<_, Uuid>("satellite_id")?.into_bytes()),
        text("action")?.map(str::as_bytes),
        text("actor_type")?.map(str::as_bytes),
        text("actor_id")?.map(str::as_bytes),
        text("before")?.map(str::as_bytes),
        text("after")?.map(str::as_bytes),
    ];
    let mut hasher = Sha256::new();
    hasher.update(CHANGE_DOMAIN);
    hasher.update(canonical::encode(&fields));
    Ok((row.try_get("change")?, Hash(hasher.finalize().into())))
}

/// One seal.
#[derive(Debug, Clone)]
pub struct Seal {
    /// Its number; they are dense.
    pub number: i64,
    /// The changes it covers, each with its digest.
    changes: Vec<(i64, Hash)>,
    previous: Hash,
    /// Its hash.
    pub hash: Hash,
    sealed_at: OffsetDateTime,
}

impl Seal {
    /// The newest change under it.
    pub fn last(&self) -> i64 {
        self.changes.last().map_or(0, |(change, _)| *change)
    }

    /// How many changes are under it.
    pub fn changes(&self) -> usize {
        self.changes.len()
    }

    fn hash_of(&self) -> Hash {
        let sealed_at = self.sealed_at.unix_timestamp_nanos() / 1_000;
        let mut hasher = Sha256::new();
        hasher.update(SEAL_DOMAIN);
        hasher.update(self.previous.0);
        hasher.update(self.number.to_be_bytes());
        hasher.update((sealed_at as i64).to_be_bytes());
        for (change, digest) in &self.changes {
            hasher.update(change.to_be_bytes());
            hasher.update(digest.0);
        }
        Hash(hasher.finalize().into())
    }

    fn from_row(row: &Row) -> Result<Seal, Error> {
        let numbers: Vec<i64> = row.try_get("changes")?;
        let digests: &[u8] = row.try_get("digests")?;
        Ok(Seal {
            number: row.try_get("number")?,
            // The table accepts only as many digests as numbers.
            changes: numbers.into_iter().zip(digests.chunks(32).map(Hash::from_column)).collect(),
            previous: Hash::from_column(row.try_get("previous_hash")?),
            hash: Hash::from_column(row.try_get("hash")?),
            sealed_at: row.try_get("sealed_at")?,
        })
    }
}

const NEWEST: &str = "
    select number, changes, digests, previous_hash, hash, sealed_at
      from registry_seals order by number desc limit 1";

const INSERT: &str = "
    insert into registry_seals (number, changes, digests, previous_hash, hash, sealed_at)
    values ($1, $2, $3, $4, $5, $6)";

/// Seals the changes that follow on the newest seal, at most [`MAX_CHANGES`]. `None` if there are none, or if another
/// pod is sealing.
pub async fn seal(client: &Object) -> Result<Option<Seal>, Error> {
    client.batch_execute("begin isolation level read committed").await?;
    let sealed = seal_next(client).await?;
    let end = if sealed.is_some() { "commit" } else { "rollback" };
    client.batch_execute(end).await?;
    Ok(sealed)
}

async fn seal_next(client: &Object) -> Result<Option<Seal>, Error> {
    if !client.query_one(LOCK, &[]).await?.try_get::<_, bool>("locked")? {
        return Ok(None);
    }
    // In a later statement than the lock, so that it sees the seal of the previous holder.
    let statement = client.prepare_cached(NEWEST).await?;
    let before =
        client.query_opt(&statement, &[]).await?.as_ref().map(Seal::from_row).transpose()?;
    let (number, after, previous) =
        before.map_or((0, 0, Hash::NONE), |seal| (seal.number, seal.last(), seal.hash));
    let changes = digests(client, after, i64::MAX, MAX_CHANGES).await?;
    if changes.is_empty() {
        return Ok(None);
    }
    let sealed_at = client.query_one("select clock_timestamp()", &[]).await?.try_get(0)?;
    let mut seal = Seal { number: number + 1, changes, previous, hash: Hash::NONE, sealed_at };
    seal.hash = seal.hash_of();
    let numbers: Vec<i64> = seal.changes.iter().map(|(change, _)| *change).collect();
    let digests: Vec<u8> = seal.changes.iter().flat_map(|(_, digest)| digest.0).collect();
    let (previous, hash) = (previous.0.as_slice(), seal.hash.0.as_slice());
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
        [&seal.number, &numbers, &digests, &previous, &hash, &sealed_at];
    client.execute(INSERT, &parameters).await?;
    Ok(Some(seal))
}

/// What is wrong with the registry's history or with its seals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// A change that was sealed is gone.
    Dropped(i64),
    /// A change is not the one that was sealed.
    Changed(i64),
    /// A change appeared among changes that were already sealed.
    Added(i64),
    /// The seal with this number was changed.
    SealEdited(i64),
    /// The seal with this number does not follow on the one before it.
    NotChained(i64),
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Break::Dropped(change) => write!(
                f,
                "dropped    change {change} of the registry: sealed, and no longer in its history"
            ),
            Break::Changed(change) => {
                write!(f, "changed    change {change} of the registry: not what was sealed")
            }
            Break::Added(change) => write!(
                f,
                "added      change {change} of the registry: not there when those around it were sealed"
            ),
            Break::SealEdited(number) => {
                write!(f, "seal       {number} of the registry: the seal itself was changed")
            }
            Break::NotChained(number) => write!(
                f,
                "seal       {number} of the registry: does not follow on the seal before it (one was \
                 changed or dropped)"
            ),
        }
    }
}

/// The result of a check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checked {
    /// Seals that were checked.
    pub seals: u64,
    /// Changes whose digests were computed again.
    pub changes: u64,
    /// Changes behind the newest seal.
    pub unsealed: u64,
    /// What is wrong.
    pub breaks: u64,
    /// The newest seal's hash.
    pub newest: Option<Hash>,
}

const AFTER: &str = "
    select number, changes, digests, previous_hash, hash, sealed_at
      from registry_seals where number > $1 order by number limit $2";

const UNSEALED: &str = "select count(*) from registry_changes where change > $1";

/// Checks the whole chain in bounded memory. Calls `found` for every break.
pub async fn check(database: &Database, mut found: impl FnMut(Break)) -> anyhow::Result<Checked> {
    let described = |error: Error| anyhow::anyhow!(database::describe(&error));
    let client = database.get().await?;
    let mut checked = Checked::default();
    let (mut number, mut last, mut previous) = (0, 0, Hash::NONE);
    loop {
        let page = client.query(AFTER, &[&number, &PAGE]).await.map_err(described)?;
        if page.is_empty() {
            break;
        }
        for row in &page {
            let seal = Seal::from_row(row).map_err(described)?;
            let mut breaks = Vec::new();
            if seal.previous != previous || seal.number != number + 1 {
                breaks.push(Break::NotChained(seal.number));
            }
            let actual = digests_between(&client, last, seal.last()).await.map_err(described)?;
            checked.changes += actual.len() as u64;
            if seal.hash_of() == seal.hash {
                breaks.extend(differences(&seal.changes, actual));
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
    let unsealed: i64 = client
        .query_one(UNSEALED, &[&last])
        .await
        .and_then(|row| row.try_get(0))
        .map_err(described)?;
    checked.unsealed = unsealed.unsigned_abs();
    Ok(checked)
}

/// All digests between two changes, in pages: with added changes there may be more than a seal covers.
async fn digests_between(
    client: &impl GenericClient,
    mut after: i64,
    last: i64,
) -> Result<Vec<(i64, Hash)>, Error> {
    let mut all = Vec::new();
    loop {
        let page = digests(client, after, last, MAX_CHANGES).await?;
        let Some((newest, _)) = page.last() else { return Ok(all) };
        after = *newest;
        all.extend(page);
    }
}

fn differences(sealed: &[(i64, Hash)], actual: Vec<(i64, Hash)>) -> Vec<Break> {
    let mut actual: BTreeMap<i64, Hash> = actual.into_iter().collect();
    let mut breaks: Vec<Break> = sealed
        .iter()
        .filter_map(|(change, digest)| match actual.remove(change) {
            None => Some(Break::Dropped(*change)),
            Some(now) if now != *digest => Some(Break::Changed(*change)),
            Some(_) => None,
        })
        .collect();
    breaks.extend(actual.into_keys().map(Break::Added));
    breaks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A column that is missing from the form could be changed unseen.
    #[test]
    fn every_column_of_the_table_is_in_the_form_in_order() {
        let table = include_str!("../../../schema/V2__registry.sql");
        let columns = table
            .lines()
            .skip_while(|line| !line.starts_with("create table registry_changes"))
            .skip(1)
            .map_while(|line| line.split_whitespace().next().filter(|word| *word != "constraint"));
        assert_eq!(columns.collect::<Vec<_>>(), COLUMNS);
        for column in COLUMNS {
            assert!(CHANGES.contains(column), "{column} is not read");
        }
    }

    #[test]
    fn what_was_changed_dropped_or_added_is_named() {
        let hash = |n: u8| Hash([n; 32]);
        let sealed = [(1, hash(1)), (3, hash(3)), (4, hash(4))];
        assert_eq!(differences(&sealed, sealed.to_vec()), []);
        let actual = vec![(1, hash(1)), (2, hash(2)), (4, hash(9))];
        assert_eq!(
            differences(&sealed, actual),
            [Break::Dropped(3), Break::Changed(4), Break::Added(2)]
        );
    }
}
