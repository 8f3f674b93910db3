//! Enrolment: an agent registers its own satellite, with a token that says where, and how often.
//!
//! Owns the table `enrolments`. The use of the token, the key and the satellite are in one commit, so a use is counted
//! exactly if its satellite was made. The satellite is registered as an administrator's is.
//!
//! An enrolment with a key may be sent again: it makes no second satellite and answers with the same token, because that
//! follows from the key. Nobody could give it out a second time otherwise, as only its digest is kept; and a second token in
//! the place of the first would shut an agent out whose first request was only late. So such a key is a secret.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use deadpool_postgres::{Object, Transaction};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio_postgres::Error;
use tokio_postgres::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::satellites::{self, Invalid, NewSatellite, Shown, idempotency};
use super::tokens::uses::{self, Spent};
use crate::contract::audit::AuditAction;
use crate::domain::access::{Outside, Selector};
use crate::domain::lifecycle::SatelliteId;
use crate::log::audit::Author;
use crate::platform::token::{self, Digest};

/// What the satellite's token follows from, and what a key is stored under.
const TOKEN: &str = "groundstation token of an enrolled satellite";
const KEY: &str = "groundstation key of an enrolment";

/// A satellite that is to enrol.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
pub struct NewEnrolment {
    /// 1 to 200 characters; several satellites may have one name.
    #[schema(min_length = 1, max_length = 200)]
    name: String,
    /// 1 to 200 characters. Without it, the region that the token names.
    #[serde(default)]
    #[schema(min_length = 1, max_length = 200)]
    region: Option<String>,
    /// Names and values, both text; at most 64 together with those that the token names, which are added.
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// Why nothing is enrolled as it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused<'a> {
    /// The token reaches another region, or another value of a tag.
    Outside(Outside<'a>),
    /// A field breaks its limit.
    Invalid(Invalid),
}

impl From<Invalid> for Refused<'_> {
    fn from(invalid: Invalid) -> Self {
        Refused::Invalid(invalid)
    }
}

impl NewEnrolment {
    /// What is registered with a token of this reach, which adds what is left out.
    pub fn within(self, selector: &Selector) -> Result<NewSatellite, Refused<'_>> {
        let NewEnrolment { name, region, mut tags } = self;
        let region = region.or_else(|| selector.region.clone()).ok_or_else(|| Invalid {
            field: "region".to_owned(),
            rule: "must be there: the token names none".to_owned(),
        })?;
        for (name, value) in &selector.tags {
            tags.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if let Some(outside) = selector.outside(Some(&region), Some(&tags)) {
            return Err(Refused::Outside(outside));
        }
        let new = NewSatellite { name, region, tags, offline_threshold_ms: None };
        new.check()?;
        Ok(new)
    }
}

/// The name that an agent gave its enrolment, which is a secret.
pub struct Key {
    text: SecretString,
    /// Of the token that it came with.
    caller: Digest,
}

impl Key {
    /// A key of an enrolment with this token. The satellite's token follows from it, so it must not be guessed.
    pub fn new(key: &idempotency::Key, caller: &Digest) -> Result<Key, Invalid> {
        if token::bits_at_most(key.as_str()) < token::LEAST_BITS {
            return Err(Invalid {
                field: "Idempotency-Key".to_owned(),
                rule: format!(
                    "must be random, of at least {} bits, such as 32 hexadecimal digits: the satellite's token follows from it",
                    token::LEAST_BITS
                ),
            });
        }
        Ok(Key { text: key.as_str().to_owned().into(), caller: caller.clone() })
    }

    /// What is stored of it: another one for each token that it comes with.
    fn digest(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.caller.sign(KEY, self.text.expose_secret()))
    }

    /// The token of the satellite that it made.
    fn token(&self, id: SatelliteId) -> SecretString {
        token::of_bits(&self.caller.sign(TOKEN, &format!("{id} {}", self.text.expose_secret())))
    }
}

/// What an enrolment came to.
pub enum Enrolled {
    /// A new satellite.
    New(Box<Shown>, SecretString),
    /// The satellite that the same request with the same key made before. It has not connected yet.
    Again(Box<Shown>, SecretString),
    /// It has connected, or has another token by now: whoever asks is not the agent that lost its answer.
    TooLate(SatelliteId),
    /// The key was used for another request.
    KeyOfAnother,
    /// The token was revoked, or is over.
    NoToken,
    /// The token has registered as many as it may.
    UsedUp,
    /// The agent has chosen a region or tags that would bring it this set of assignments.
    InSet(String),
}

/// A set that is for this satellite, and not for each one that the token may make. Its assignments may give run secrets, so
/// no agent chooses to be in it.
const CHOSEN_SET: &str = "
    select name from assignment_sets
     where (region is null or region = $1) and tags <@ $2
       and not ((region is null or region is not distinct from $3) and tags <@ $4)
     order by name limit 1";

async fn chosen_set(
    transaction: &Transaction<'_>,
    new: &NewSatellite,
    selector: &Selector,
) -> Result<Option<String>, Error> {
    let statement = transaction.prepare_cached(CHOSEN_SET).await?;
    let (tags, own) = (Json(&new.tags), Json(&selector.tags));
    let chosen =
        transaction.query_opt(&statement, &[&new.region, &tags, &selector.region, &own]).await?;
    chosen.map(|row| row.try_get(0)).transpose()
}

/// Registers a satellite that has passed [`NewEnrolment::within`], once for one key. `by` is the id of the caller's token,
/// if that is a named one, and `agents` what a token that is in agents' hands reaches.
pub async fn enrol(
    client: &mut Object,
    new: &NewSatellite,
    by: Option<Uuid>,
    agents: Option<&Selector>,
    key: Option<&Key>,
    author: &Author,
    default: Duration,
) -> anyhow::Result<Enrolled> {
    let id = SatelliteId(Uuid::new_v4());
    let token = key.map_or_else(token::generate, |key| Ok(key.token(id)))?;
    let transaction = client.transaction().await?;
    if let Some(key) = key {
        match claim(&transaction, key, new, id).await? {
            Claim::New => {}
            Claim::Used(earlier) => return again(&transaction, key, earlier, default).await,
            Claim::OtherRequest => return Ok(Enrolled::KeyOfAnother),
        }
    }
    // The token's row before the log's lock, so nobody waits for the row with that.
    if let Some(by) = by {
        match uses::spend(&transaction, by).await? {
            Spent::One => {}
            Spent::NoToken => return Ok(Enrolled::NoToken),
            Spent::UsedUp => return Ok(Enrolled::UsedUp),
        }
    }
    if let Some(selector) = agents
        && let Some(set) = chosen_set(&transaction, new, selector).await?
    {
        return Ok(Enrolled::InSet(set));
    }
    satellites::register(&transaction, id, new, &token, (author, AuditAction::SatelliteEnrolled))
        .await?;
    transaction.commit().await?;
    let satellite = satellites::just_registered(client, id, default).await?;
    Ok(Enrolled::New(Box::new(satellite), token))
}

/// The result of claiming a key.
enum Claim {
    /// The key is new.
    New,
    /// The same request came before, and made this satellite.
    Used(SatelliteId),
    /// The key came before with another request.
    OtherRequest,
}

/// Waits for another transaction that is using the key right now.
const CLAIM: &str = "
    insert into enrolments (key_digest, request_digest, satellite_id) values ($1, $2, $3) on conflict do nothing";

/// In a later statement, so that it sees the row that the insert waited for.
const USED: &str = "select request_digest, satellite_id from enrolments where key_digest = $1";

async fn claim(
    transaction: &Transaction<'_>,
    key: &Key,
    new: &NewSatellite,
    id: SatelliteId,
) -> anyhow::Result<Claim> {
    let (key, request) = (key.digest(), idempotency::digest(new));
    let claim = transaction.prepare_cached(CLAIM).await?;
    if transaction.execute(&claim, &[&key, &request, &id]).await? == 1 {
        return Ok(Claim::New);
    }
    let used = transaction.prepare_cached(USED).await?;
    let row = transaction.query_opt(&used, &[&key]).await?;
    let row = row.ok_or_else(|| anyhow::anyhow!("its satellite was removed in between"))?;
    let of_before: String = row.try_get("request_digest")?;
    match of_before == request {
        true => Ok(Claim::Used(row.try_get("satellite_id")?)),
        false => Ok(Claim::OtherRequest),
    }
}

const HAS_TOKEN: &str = "select token_hash = $2 from satellites where id = $1";

/// Answers once more, as long as nobody can have used the first answer. After that the key gives nothing out: whoever has
/// it may have copied it with a disk.
async fn again(
    transaction: &Transaction<'_>,
    key: &Key,
    id: SatelliteId,
    default: Duration,
) -> anyhow::Result<Enrolled> {
    let token = key.token(id);
    let found = satellites::shown(transaction, id, default).await?;
    let has_token = has_token(transaction, id, &token).await?;
    Ok(match found {
        Some(shown) if has_token && shown.satellite.last_event.is_none() => {
            Enrolled::Again(Box::new(shown), token)
        }
        _ => Enrolled::TooLate(id),
    })
}

async fn has_token(
    transaction: &Transaction<'_>,
    id: SatelliteId,
    token: &SecretString,
) -> Result<bool, Error> {
    let statement = transaction.prepare_cached(HAS_TOKEN).await?;
    let digest = Digest::of(token.expose_secret()).to_stored();
    let row = transaction.query_opt(&statement, &[&id, &digest]).await?;
    row.map_or(Ok(false), |row| row.try_get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn asked(json: Value) -> NewEnrolment {
        serde_json::from_value(json).expect("an enrolment")
    }

    fn selector(region: Option<&str>, tags: &[(&str, &str)]) -> Selector {
        let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Selector { region: region.map(str::to_owned), tags: tags.collect() }
    }

    #[test]
    fn a_token_adds_what_is_left_out_and_refuses_what_is_different() {
        let eu = selector(Some("eu"), &[("tier", "gold")]);
        for body in [
            json!({"name": "a"}),
            json!({"name": "a", "region": "eu"}),
            json!({"name": "a", "tags": {"tier": "gold"}}),
        ] {
            let new = asked(body).within(&eu).expect("a satellite");
            assert_eq!((new.region.as_str(), new.tags["tier"].as_str()), ("eu", "gold"));
            assert_eq!((new.tags.len(), new.offline_threshold_ms), (1, None));
        }
        let more = asked(json!({"name": "a", "tags": {"rack": "7"}})).within(&eu).expect("one");
        assert_eq!((more.tags["rack"].as_str(), more.tags["tier"].as_str()), ("7", "gold"));
        let other = asked(json!({"name": "a", "region": "us"})).within(&eu);
        assert_eq!(other, Err(Refused::Outside(Outside::Region("eu"))));
        let other = asked(json!({"name": "a", "tags": {"tier": "iron"}})).within(&eu);
        assert_eq!(other, Err(Refused::Outside(Outside::Tag("tier", "gold"))));
    }

    #[test]
    fn what_breaks_a_limit_is_named_also_where_the_token_adds_it() {
        let field = |body: Value, selector: &Selector| match asked(body).within(selector) {
            Err(Refused::Invalid(invalid)) => invalid.field,
            other => panic!("{other:?}"),
        };
        let none = Selector::default();
        assert_eq!(field(json!({"name": "a"}), &none), "region");
        assert_eq!(field(json!({"name": "", "region": "eu"}), &none), "name");
        assert_eq!(field(json!({"name": "a", "region": ""}), &none), "region");
        let many: BTreeMap<String, String> =
            (0..64).map(|n| (n.to_string(), String::new())).collect();
        let body = json!({"name": "a", "region": "eu", "tags": many});
        assert!(asked(body.clone()).within(&none).is_ok());
        assert_eq!(field(body, &selector(None, &[("tier", "gold")])), "tags");
    }

    #[test]
    fn a_key_is_random_and_gives_one_token_for_one_satellite_and_one_caller() {
        let parsed = |text: &str| idempotency::Key::parse(text.as_bytes()).expect("a key");
        let (one, other) = (Digest::of("gst_one"), Digest::of("gst_other"));
        for weak in ["order 1", "edge-amsterdam", &"ab".repeat(40)] {
            assert!(Key::new(&parsed(weak), &one).is_err(), "{weak}");
        }
        let key = |text: &str, caller: &Digest| Key::new(&parsed(text), caller).expect("a key");
        let (a, b) = ("8c6a1b0f-d2e9-4c7f-a35b-6e1d09f7c284", "9c6a1b0fd2e94c7fa35b6e1d09f7c284");
        let (x, y) = (SatelliteId(Uuid::new_v4()), SatelliteId(Uuid::new_v4()));
        let of = |text, caller, id| key(text, caller).token(id).expose_secret().to_owned();
        let token = of(a, &one, x);
        assert_eq!(token, of(a, &one, x));
        assert!(token.starts_with("csat_") && token.len() == 48, "{token}");
        for different in [of(b, &one, x), of(a, &other, x), of(a, &one, y)] {
            assert_ne!(token, different);
        }
        let digest = key(a, &one).digest();
        assert_eq!((digest.len(), &digest), (43, &key(a, &one).digest()));
        assert_ne!(digest, key(a, &other).digest());
        assert!(!token.contains(&digest) && !digest.contains("8c6a"));
    }
}
