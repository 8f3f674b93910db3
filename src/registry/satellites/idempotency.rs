//! Idempotency keys: a registration may be sent again without a second satellite.
//!
//! Owns the table `idempotency_keys`. A key and the satellite it made are in one commit, so a key is stored exactly
//! if its satellite was made. Keys are kept for a day, at most [`MAX_KEYS`] of them.

use deadpool_postgres::Transaction;
use sha2::{Digest, Sha256};
use tokio_postgres::Error;

use super::{Invalid, NewSatellite, invalid};
use crate::domain::lifecycle::SatelliteId;

/// The most characters of a key.
const MAX_CHARACTERS: usize = 200;

/// The most keys that are kept: one registration a second for a day.
pub const MAX_KEYS: i64 = 100_000;

/// The name that a caller gave its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// 1 to 200 printable ASCII characters.
    pub fn parse(text: &[u8]) -> Result<Key, Invalid> {
        let text = std::str::from_utf8(text).unwrap_or_default();
        let fits = (1..=MAX_CHARACTERS).contains(&text.len());
        if !fits || !text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            let rule = format!("must have 1 to {MAX_CHARACTERS} printable ASCII characters");
            return Err(invalid("Idempotency-Key", rule));
        }
        Ok(Key(text.to_owned()))
    }

    /// As it was given.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The result of claiming a key.
pub enum Claim {
    /// The key is new.
    New,
    /// The same request came before, and made this satellite.
    Used(SatelliteId),
    /// The key came before with another request.
    OtherRequest,
    /// No more keys can be kept today.
    Full,
}

const FORGET: &str = "
    delete from idempotency_keys
     where used_at <= (select long_ago(interval '24 hours'))
       and (key = $1 or key in (select key from idempotency_keys
                                 where used_at <= (select long_ago(interval '24 hours'))
                                 order by used_at limit 100 for update skip locked))";

/// Waits for another transaction that is using the key right now.
const CLAIM: &str = "
    insert into idempotency_keys (key, request_digest, satellite_id)
    select $1, $2, $3
     where (select count(*) from (select from idempotency_keys limit $4) kept) < $4
        on conflict do nothing";

const USED: &str = "select request_digest, satellite_id from idempotency_keys where key = $1";

/// Claims the key for this satellite, unless it is taken.
pub async fn claim(
    transaction: &Transaction<'_>,
    key: &Key,
    new: &NewSatellite,
    id: SatelliteId,
) -> Result<Claim, Error> {
    let digest = digest(new);
    let forget = transaction.prepare_cached(FORGET).await?;
    transaction.execute(&forget, &[&key.0]).await?;
    let claim = transaction.prepare_cached(CLAIM).await?;
    if transaction.execute(&claim, &[&key.0, &digest, &id, &MAX_KEYS]).await? == 1 {
        return Ok(Claim::New);
    }
    // In a later statement, so that it sees the row that the insert waited for.
    let used = transaction.prepare_cached(USED).await?;
    let Some(row) = transaction.query_opt(&used, &[&key.0]).await? else {
        return Ok(Claim::Full);
    };
    let of_before: String = row.try_get("request_digest")?;
    match of_before == digest {
        true => Ok(Claim::Used(row.try_get("satellite_id")?)),
        false => Ok(Claim::OtherRequest),
    }
}

/// A digest of the request's content, not of how it was written. Every text is preceded by its length, so no two
/// requests have the same encoding.
pub fn digest(new: &NewSatellite) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    add(&new.name);
    add(&new.region);
    add(&new.offline_threshold_ms.map_or(String::new(), |ms| ms.to_string()));
    for (name, value) in &new.tags {
        add(name);
        add(value);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_1_to_200_printable_characters() {
        let long = "k".repeat(201);
        for bad in ["", &long, "a\nb", "ü", "a\u{0}"] {
            assert!(Key::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(Key::parse(&[0xff]).is_err());
        assert!(Key::parse(&long.as_bytes()[1..]).is_ok());
    }

    #[test]
    fn the_digest_is_of_what_is_asked_for() {
        let of = |json: &str| digest(&serde_json::from_str(json).expect("a description"));
        let one = of(r#"{"name":"a","region":"eu","tags":{"k":"v","l":"w"}}"#);
        assert_eq!(one, of(r#"{ "tags":{"l":"w","k":"v"}, "region":"eu","name":"a", "more": 1 }"#));
        assert_ne!(one, of(r#"{"name":"a","region":"eu","tags":{"k":"vl","w":""}}"#));
        assert_ne!(of(r#"{"name":"ab","region":"c"}"#), of(r#"{"name":"a","region":"bc"}"#));
    }
}
